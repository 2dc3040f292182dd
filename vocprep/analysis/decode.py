"""The verb ``decode``: a dataset's label maps as PNG, their statistics, a chart, overlays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from pydantic import model_validator

from vocprep.data_dir.layout import SampleRef, list_samples
from vocprep.data_dir.place import default_data_dir
from vocprep.drawing.labelled import LabelledImage, labelled_sheet
from vocprep.drawing.png import png_bytes
from vocprep.errors import LabelDecodeError, UsageError
from vocprep.features.image import decode_picture, read_image_file
from vocprep.files.ids import file_stem
from vocprep.files.writing import check_output_folder, write_atomic
from vocprep.formats.orientations import swaps_sides
from vocprep.labels.advice import fit_to_picture, other_size
from vocprep.labels.decode import LabelRule, label_rule, read_label_map
from vocprep.labels.export import write_label_maps
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.labels.statistics import LabelStatistics, draw_label_chart
from vocprep.manifests import SplitFlags, load_dataset
from vocprep.options import usable_cores
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.storage.places import LocalPath, local_path
from vocprep.validation import Positive, checked


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
    overlays: LocalPath | None = None
    """Folder for pictures of label maps over their images, ``ID.overlay.png``."""
    overlay_count: Positive = 20
    """How many overlays are drawn, of images at equal distances in the order of their ids."""

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

    In the names of files an id has ``%2F`` for ``/`` and ``%25`` for ``%``.

    ``dataset`` is a shipped name or the path of a TOML file; ``data_dir`` is ``$VOCPREP_DATA_DIR``
    or ``./data`` when None. Returns the statistics. The folder appears when all of it is written;
    it may replace what an earlier call wrote, and nothing else. ``options.overlays`` is a folder of
    its own, which needs the images of the data dir. Raises UsageError for options that
    do not fit the dataset or for a folder with other files, DataDirError for missing files,
    LabelDecodeError or ImageDecodeError for damaged ones.
    """
    out, options = local_path(out), options or DecodeOptions()
    if options.overlays is not None:
        _check_overlays(options.overlays, out)
    manifest = load_dataset(str(dataset)).with_flags(options.split_flags)
    space = load_label_space(manifest.schema_for(options.schema), void_unknown=options.void_unknown)
    folder = default_data_dir() if data_dir is None else local_path(data_dir)
    splits = options.splits or manifest.splits
    samples = list_samples(folder, manifest, splits)
    rule = label_rule(manifest, folder, splits)
    statistics = write_label_maps(
        samples,
        space,
        out,
        rule=rule,
        workers=options.workers,
        progress=progress,
    )
    if options.chart is not None:
        write_atomic(options.chart, draw_label_chart(statistics))
    if options.overlays is not None:
        chosen = spread(samples, options.overlay_count)
        write_overlays(chosen, space, options.overlays, rule, options.workers, progress)
    return statistics


def spread(samples: Sequence[SampleRef], count: int) -> list[SampleRef]:
    """Return up to ``count`` samples at equal distances, the first and the last among them."""
    chosen = np.linspace(0, len(samples) - 1, min(count, len(samples))).round()
    return [samples[int(index)] for index in chosen]


def write_overlays(
    samples: Sequence[SampleRef],
    space: LabelSpace,
    out: Path,
    rule: LabelRule | None = None,
    workers: int = 2,
    progress: Progress = NO_PROGRESS,
) -> None:
    """Write ``out/ID.overlay.png`` of samples: image, label map over it, a legend."""
    out.mkdir(parents=True, exist_ok=True)
    progress.begin("overlays", len(samples), 0)
    try:
        write = partial(_write_overlay, space=space, rule=rule, out=out)
        for _ in map_ordered(write, samples, workers):
            progress.advance(1)
    finally:
        progress.end()


def _write_overlay(sample: SampleRef, space: LabelSpace, rule: LabelRule | None, out: Path) -> None:
    data = read_image_file(sample.image_path)
    image = decode_picture(data, str(sample.image_path))
    label_map = read_label_map(sample.label_path, space, rule)
    if label_map.shape != (size := image.shape[:2]):
        is_turned = label_map.shape == size[::-1] and swaps_sides(data)
        problem = other_size((sample.label_path, label_map.shape), (sample.image_path, size))
        raise LabelDecodeError(f"{problem}; {fit_to_picture(is_turned=is_turned)}")
    item = LabelledImage(name=f"{sample.image_id}, {sample.split}", image=image, truth=label_map)
    picture = png_bytes(labelled_sheet(item, space.style))
    write_atomic(out / f"{file_stem(sample.image_id)}.overlay.png", picture)


def _check_overlays(overlays: Path, out: Path) -> None:
    """Raise UsageError for a folder of overlays that is, or lies in, that of the label maps."""
    check_output_folder(overlays, "overlays")
    if out.resolve() in (overlays.resolve(), *overlays.resolve().parents):
        raise UsageError(
            f"overlays {overlays}: expected another folder than that of the label maps, {out}, "
            "which holds nothing else; choose one outside of it"
        )
