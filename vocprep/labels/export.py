"""Writing a dataset's label maps as 16-bit PNG, with their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from vocprep.data_dir.layout import SampleRef, default_data_dir, list_samples
from vocprep.errors import DataError, UsageError
from vocprep.files.names import TEMPORARY_PREFIX, is_clutter, is_plain_name
from vocprep.files.replacing import Replacement, empty_staging, locked_output
from vocprep.files.writing import disk_advice, write_atomic, write_json
from vocprep.labels.decode import read_label_map
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.labels.png import encode_png
from vocprep.labels.statistics import LabelStatistics, draw_label_chart
from vocprep.manifests import SplitFlags, load_dataset
from vocprep.options import usable_cores
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.storage.places import LocalPath, local_path
from vocprep.validation import Positive, checked

STATISTICS_FILE = "labels.json"
STAGING = f"{TEMPORARY_PREFIX}decode"
"""Folder inside the output folder that label maps wait in until all of them are there."""


@checked
class DecodeOptions:
    """Which label maps are decoded, and into which label space."""

    schema: str | None = None
    """Label space; the dataset's first when None."""
    void_unknown: bool = False
    """Make the class "unknown" void."""
    splits: tuple[str, ...] | None = None
    """Splits to decode; the dataset's own when None."""
    split_flags: SplitFlags | None = None
    """Which lines of split files with flags are taken; as the manifest says when None."""
    workers: Positive = field(default_factory=usable_cores)
    """Threads that decode and compress; as many as there are cores by default."""
    chart: LocalPath | None = None
    """File to draw the classes with the most pixels into, as a bar chart (PNG)."""

    @model_validator(mode="after")
    def _chart_is_named_as_png(self) -> Self:
        if self.chart is not None and self.chart.suffix.lower() not in (".png", ""):
            named = self.chart.with_suffix(".png")
            raise UsageError(f"chart {self.chart}: expected a PNG file's name; use {named}")
        return self


def decode(
    dataset: str | Path,
    *,
    out: str | Path,
    data_dir: str | Path | None = None,
    options: DecodeOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> LabelStatistics:
    """Write a dataset's label maps to ``out/ID.png`` and their statistics to ``out/labels.json``.

    ``dataset`` is a shipped name or the path of a TOML file; ``data_dir`` is ``$VOCPREP_DATA_DIR``
    or ``./data`` when None. Returns the statistics. The folder appears when all of it is written;
    it may replace what an earlier call wrote, and nothing else. Raises UsageError for options that
    do not fit the dataset or for a folder with other files, DataDirError for missing files,
    LabelDecodeError for damaged ones.
    """
    out, options = local_path(out), options or DecodeOptions()
    manifest = load_dataset(str(dataset)).with_flags(options.split_flags)
    space = load_label_space(manifest.schema_for(options.schema), void_unknown=options.void_unknown)
    folder = default_data_dir() if data_dir is None else local_path(data_dir)
    samples = list_samples(folder, manifest, options.splits or manifest.splits)
    statistics = write_label_maps(
        samples,
        space,
        out,
        workers=options.workers,
        progress=progress,
    )
    if options.chart is not None:
        write_atomic(options.chart, draw_label_chart(statistics))
    return statistics


def write_label_maps(
    samples: Sequence[SampleRef],
    space: LabelSpace,
    out: Path,
    *,
    workers: int = 2,
    progress: Progress = NO_PROGRESS,
) -> LabelStatistics:
    """Write the samples' label maps and their statistics; see ``decode``."""
    statistics = LabelStatistics(space)
    exchange = Replacement(
        folder=out, staged=out / STAGING, marker=STATISTICS_FILE, is_own=_is_label_map
    )
    try:
        with locked_output(out, progress.note):
            exchange.restore()
            _refuse_foreign_files(out)
            with empty_staging(out / STAGING) as folder:
                write_one = partial(_write_one, space=space, folder=folder)
                progress.begin(out.name, len(samples), 0)
                try:
                    for label_map in map_ordered(write_one, samples, workers):
                        statistics.add(label_map)
                        progress.advance(1)
                finally:
                    progress.end()
                write_json(folder / STATISTICS_FILE, statistics.to_json())
                exchange.commit(path.name for path in folder.iterdir())
    except OSError as error:
        raise DataError(
            f"{out}: label maps cannot be written there: {error.strerror}; "
            f"{disk_advice(error)}, or choose another --out, then run the same command again"
        ) from error
    return statistics


def _is_label_map(name: str) -> bool:
    """Return whether a file has the name of one that ``decode`` writes."""
    stem, suffix = name.removesuffix(".png"), name.endswith(".png")
    return name == STATISTICS_FILE or (suffix and is_plain_name(stem))


def _refuse_foreign_files(out: Path) -> None:
    """Refuse a folder that holds anything but the output of an earlier call."""
    is_earlier_output = (out / STATISTICS_FILE).is_file()
    for path in sorted(out.iterdir()):
        is_passed_over = path.name.startswith(TEMPORARY_PREFIX) or is_clutter(path.name)
        if not is_passed_over and not (is_earlier_output and _is_label_map(path.name)):
            raise UsageError(
                f"{out}: holds other things than decoded label maps, such as {path.name!r}; choose "
                "an empty --out"
            )


def _write_one(sample: SampleRef, space: LabelSpace, folder: Path) -> NDArray[np.uint16]:
    label_map = read_label_map(sample.label_path, space)
    (folder / f"{sample.image_id}.png").write_bytes(encode_png(label_map))
    return label_map
