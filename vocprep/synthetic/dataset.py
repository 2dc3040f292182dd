"""A generated data dir in the official VOC 2010 and Pascal Context layout, without a download.

For the demo, the tests and first trials offline; ``vocprep.synthetic.layouts`` writes the same
scenes as annotation tools and other public datasets do. Every image is an abstract scene: bands of
background (sky, grass, wall…) with 1 to 4 objects on them. Each class has a texture of its own, so
that patches differ, and some forty common classes cover most of the area, so that heads trained on
200 images score far above the majority baseline. Light, tint and noise differ between images.

Patches of one class are everywhere. Of every ten images some also hold what is rare in real data
and often processed wrongly (seen through the default geometry ``crop``):

- four hold a mosaic of 25 classes: patches with more than four classes. The mosaics go through the
  ids in turn, so that with 60 images or more each of 1..459 occurs;
- two hold a grey square without a label (0 in the ``.mat``, 255 in the PNG): all-void patches;
- one has 256 pixels on its shorter side, so that nothing is resized, and holds three patches in
  which 2, 4 and 16 classes have exactly equal areas.

Equal options give equal bytes (with the same Pillow and zlib): an image depends on the seed and its
own number only, and is computed in integers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from vocprep.errors import DataError, UsageError
from vocprep.files.names import TEMPORARY_PREFIX, found_at
from vocprep.files.reading import read_json
from vocprep.files.replacing import Replacement, empty_staging, locked_output
from vocprep.files.writing import disk_advice, remove_path, write_json
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.storage.places import local_path
from vocprep.synthetic.layouts import LAYOUTS, SampleLayout
from vocprep.synthetic.scene import Scene, draw_scene
from vocprep.validation import NotNegative, checked, explain, from_json

MARKER = "sample.json"
"""File in the sample's folder with the options that made it; it is written last."""

_STAGING = f"{TEMPORARY_PREFIX}sample"
"""Inside the folder and not beside it: the folder may be a mount point or the current one."""
_GENERATION = 2  # raised whenever the bytes of a sample change


@checked
class _Options:
    """What decides every byte of a sample."""

    images: Annotated[int, Field(ge=1, le=999_999)]  # the six digits of an image id number them
    seed: NotNegative
    layout: SampleLayout

    def to_json(self) -> dict[str, object]:
        """Return the values of the marker file."""
        made_by: dict[str, object] = {"generation": _GENERATION, "images": self.images}
        made_by["seed"] = self.seed
        return made_by if self.layout == "voc" else {**made_by, "layout": self.layout}


@dataclass(frozen=True, kw_only=True)
class SampleSummary:
    """What a generated data dir holds."""

    folder: Path
    """The data dir to give to the other commands."""
    images: int
    train: int
    val: int
    classes: int
    """How many classes occur, apart from void and background: of the layout ``voc``, of 459."""


def sample(
    folder: str | Path,
    images: int = 240,
    seed: int = 0,
    progress: Progress = NO_PROGRESS,
    *,
    layout: SampleLayout = "voc",
) -> SampleSummary:
    """Generate a small data dir below ``folder`` and return what it holds.

    Every sixth image belongs to val, from the second on; another ``seed`` gives other scenes.
    ``layout`` is how folders and label maps are: ``voc`` as in VOC 2010 and Pascal Context, the
    others as annotation tools and other public datasets write them, with fewer classes.
    ``labelme``, ``cvat`` and ``plain`` have no splits: all images count as train.
    A folder that already holds the same sample is left as it is. Raises UsageError when it holds
    anything else or a number is out of bounds, DataError when it cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     summary = sample(folder, images=2)
    >>> summary.train, summary.val
    (1, 1)
    """
    folder = local_path(folder)
    options = _Options(images=images, seed=seed, layout=layout)
    held = (*LAYOUTS[options.layout].holds, MARKER)
    exchange = Replacement(
        folder=folder, staged=folder / _STAGING, marker=MARKER, is_own=held.__contains__
    )
    try:
        with locked_output(folder, progress.note):
            exchange.restore()
            known = _existing(folder, options)
            if known is not None:
                remove_path(folder / _STAGING)
                return known
            with empty_staging(folder / _STAGING) as staging:
                progress.begin(folder.name, images, 0)
                try:
                    counts = _write_data_dir(staging, options, progress)
                finally:
                    progress.end()
                exchange.commit(held)
    except OSError as error:
        raise DataError(
            f"{folder}: the sample cannot be written there: {explain(error)}; "
            f"{disk_advice(error)}, or choose another folder, then run the same command again"
        ) from error
    return _summary(folder, counts)


def _summary(folder: Path, counts: Mapping[str, int]) -> SampleSummary:
    """Return the summary of the counts in the marker file."""
    return SampleSummary(
        folder=folder,
        images=counts["images"],
        train=counts["train"],
        val=counts["val"],
        classes=counts["labels"],
    )


def _existing(folder: Path, options: _Options) -> SampleSummary | None:
    """Return the summary of an equal sample in the folder, None for an empty folder."""
    if all(path.name == _STAGING for path in folder.iterdir()):
        return None
    found = found_at(folder)
    with suppress(OSError, ValueError, KeyError, TypeError):
        marker = read_json(folder / MARKER)
        made_by = dict(marker["made_by"])
        layout = made_by.pop("layout", "voc")
        made_by = from_json(dict[str, NotNegative], made_by)
        holds = from_json(dict[str, NotNegative], marker["holds"])
        if {**made_by, "layout": layout} == {"layout": "voc", **options.to_json()}:
            return _summary(folder, holds)
        found = f"that of {made_by['images']} images and seed {made_by['seed']}"
        if layout != options.layout:
            found += f" in the layout {layout}"
        if made_by["generation"] != _GENERATION:
            found += ", made by another version of vocprep"
    wanted = "" if options.layout == "voc" else f" in the layout {options.layout}"
    raise UsageError(
        f"{folder}: expected a new or empty folder, or the sample of {options.images} images and "
        f"seed {options.seed}{wanted}, found {found}; choose another folder"
    )


def _write_data_dir(staging: Path, options: _Options, progress: Progress) -> dict[str, int]:
    """Write all files below the staging folder; return the counts of the summary."""
    files, counts = LAYOUTS[options.layout], {"images": options.images, "train": 0, "val": 0}

    def scenes() -> Iterator[Scene]:
        for number in range(options.images):
            scene = draw_scene(options.seed, number)
            counts[scene.split if files.has_splits else "train"] += 1
            yield scene
            progress.advance(1)

    counts["labels"] = files.write(staging, scenes())
    write_json(staging / MARKER, {"made_by": options.to_json(), "holds": counts})
    return counts
