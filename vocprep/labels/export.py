"""Writing a dataset's label maps as 16-bit PNG, with their statistics."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocprep.data_dir.layout import SampleRef
from vocprep.errors import DataError, UsageError
from vocprep.files.ids import file_stem, id_of_stem
from vocprep.files.names import TEMPORARY_PREFIX, is_clutter
from vocprep.files.replacing import Replacement, empty_staging, locked_output
from vocprep.files.writing import disk_advice, write_json
from vocprep.labels.decode import LabelRule, read_label_map
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.png import encode_png
from vocprep.labels.statistics import LabelStatistics
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress

STATISTICS_FILE = "labels.json"
STAGING = f"{TEMPORARY_PREFIX}decode"
"""Folder inside the output folder that label maps wait in until all of them are there."""


def write_label_maps(
    samples: Sequence[SampleRef],
    space: LabelSpace,
    out: Path,
    *,
    rule: LabelRule | None = None,
    workers: int = 2,
    progress: Progress = NO_PROGRESS,
) -> LabelStatistics:
    """Write samples' label maps to ``out/ID.png`` and their statistics to ``out/labels.json``.

    ``rule`` is how label files are decoded; by their suffix when None.
    The folder appears when all of it is written; it may replace what an earlier call wrote, and
    nothing else. Raises UsageError for a folder with other files, LabelDecodeError for damaged
    label files.
    """
    statistics = LabelStatistics(space)
    exchange = Replacement(
        folder=out, staged=out / STAGING, marker=STATISTICS_FILE, is_own=_is_label_map
    )
    try:
        with locked_output(out, progress.note):
            exchange.restore()
            _refuse_foreign_files(out)
            with empty_staging(out / STAGING) as folder:
                write_one = partial(_write_one, space=space, rule=rule, folder=folder)
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
    return name == STATISTICS_FILE or (suffix and id_of_stem(stem) is not None)


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


def _write_one(
    sample: SampleRef, space: LabelSpace, rule: LabelRule | None, folder: Path
) -> NDArray[np.uint16]:
    label_map = read_label_map(sample.label_path, space, rule)
    (folder / f"{file_stem(sample.image_id)}.png").write_bytes(encode_png(label_map))
    return label_map
