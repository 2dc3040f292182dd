"""A generated data dir in the official VOC 2010 and Pascal Context layout, without a download.

For the demo, the tests and first trials offline. Every image is an abstract scene: bands of
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

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.random import PCG64, Generator
from numpy.typing import NDArray
from PIL import Image
from pydantic import Field
from scipy.io import savemat

from vocprep.errors import DataError, UsageError
from vocprep.files.names import TEMPORARY_PREFIX, found_at
from vocprep.files.reading import read_json
from vocprep.files.replacing import Replacement, empty_staging, locked_output
from vocprep.files.writing import disk_advice, remove_path, write_json
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.storage.places import local_path
from vocprep.synthetic.scene import CLASSES, LabelMap, class_names, draw_image, draw_label_map
from vocprep.validation import NotNegative, checked, explain, from_json, to_json

MARKER = "sample.json"
"""File in the sample's folder with the options that made it; it is written last."""

_HELD = ("trainval", "labels.txt", "VOCdevkit", MARKER)
_STAGING = f"{TEMPORARY_PREFIX}sample"
"""Inside the folder and not beside it: the folder may be a mount point or the current one."""
_GENERATION = 2  # raised whenever the bytes of a sample change
_VOID = 255
_MAT_HEADER = b"MATLAB 5.0 MAT-file, written by vocprep sample".ljust(116)
_VOC = Path("VOCdevkit/VOC2010")


@checked
class _Options:
    """What decides every byte of a sample."""

    images: Annotated[int, Field(ge=1, le=999_999)]  # the six digits of an image id number them
    seed: NotNegative


@dataclass(frozen=True, kw_only=True)
class SampleSummary:
    """What a generated data dir holds."""

    folder: Path
    """The data dir to give to the other commands."""
    images: int
    train: int
    val: int
    classes: int
    """How many of the 459 classes occur."""


def sample(
    folder: str | Path,
    images: int = 240,
    seed: int = 0,
    progress: Progress = NO_PROGRESS,
) -> SampleSummary:
    """Generate a small data dir below ``folder`` and return what it holds.

    Every sixth image belongs to val, from the second on; another ``seed`` gives other scenes.
    A folder that already holds the same sample is left as it is. Raises UsageError when it holds
    anything else or a number is out of bounds, DataError when it cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     summary = sample(folder, images=2)
    >>> summary.train, summary.val
    (1, 1)
    """
    folder, options = local_path(folder), _Options(images=images, seed=seed)
    exchange = Replacement(
        folder=folder, staged=folder / _STAGING, marker=MARKER, is_own=_HELD.__contains__
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
                exchange.commit(_HELD)
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
        made_by = from_json(dict[str, NotNegative], marker["made_by"])
        holds = from_json(dict[str, NotNegative], marker["holds"])
        if made_by == {"generation": _GENERATION, **to_json(options)}:
            return _summary(folder, holds)
        found = f"that of {made_by['images']} images and seed {made_by['seed']}"
        if made_by["generation"] != _GENERATION:
            found += ", made by another version of vocprep"
    raise UsageError(
        f"{folder}: expected a new or empty folder, or the sample of {options.images} images and "
        f"seed {options.seed}, found {found}; choose another folder"
    )


def _write_data_dir(staging: Path, options: _Options, progress: Progress) -> dict[str, int]:
    """Write all files below the staging folder; return the counts of the summary."""
    for place in (_VOC / "JPEGImages", _VOC / "SegmentationClass", Path("trainval")):
        (staging / place).mkdir(parents=True)
    names = class_names("context460")
    _write_lines(staging / "labels.txt", [f"{label}: {names[label]}" for label in sorted(names)])
    splits: dict[str, list[str]] = {"train": [], "val": [], "trainval": []}
    used = np.zeros(CLASSES, dtype=np.int64)
    for number in range(options.images):
        image_id = f"2010_{number + 1:06d}"
        splits["val" if number % 6 == 1 else "train"].append(image_id)
        splits["trainval"].append(image_id)
        draw = Generator(PCG64((options.seed, number)))
        label_map = draw_label_map(draw, number)
        _write_files(staging, image_id, label_map, draw_image(draw, label_map))
        used += np.bincount(label_map.ravel(), minlength=CLASSES)
        progress.advance(1)
    for split, image_ids in splits.items():
        for task in ("Main", "Segmentation"):
            _write_lines(staging / _VOC / "ImageSets" / task / f"{split}.txt", image_ids)
    counts = {"images": options.images, "train": len(splits["train"]), "val": len(splits["val"])}
    counts["labels"] = int(np.count_nonzero(used[1:]))
    made_by = {"generation": _GENERATION, **to_json(options)}
    write_json(staging / MARKER, {"made_by": made_by, "holds": counts})
    return counts


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes("".join(f"{line}\n" for line in lines).encode())


def _write_files(
    staging: Path, image_id: str, label_map: LabelMap, image: NDArray[np.uint8]
) -> None:
    """Write one image as JPEG, its label map as .mat and its VOC classes as palette PNG."""
    jpeg = staging / _VOC / "JPEGImages" / f"{image_id}.jpg"
    Image.fromarray(image).save(jpeg, "JPEG", quality=90, subsampling="4:2:0")
    classes = Image.fromarray(_voc_classes(label_map))
    classes.putpalette(_voc_palette())
    classes.save(staging / _VOC / "SegmentationClass" / f"{image_id}.png", "PNG", compress_level=6)
    mat = staging / "trainval" / f"{image_id}.mat"
    # Not compressed, since not every zlib makes the same bytes.
    savemat(str(mat), {"LabelMap": label_map}, do_compression=False)
    with mat.open("r+b") as stream:  # SciPy puts the time of day into the header text
        stream.write(_MAT_HEADER)


def _voc_palette() -> bytes:
    """Return the colours of the VOC development kit: red, green and blue of ids 0..255.

    The bits of an id go to red, green and blue in turn, to the high bits of each first.
    """
    ids = np.arange(256)
    colours = np.zeros((256, 3), dtype=np.uint8)
    for bit in range(8):
        colours[:, bit % 3] |= ((ids >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours.tobytes()


def _voc_classes(label_map: LabelMap) -> NDArray[np.uint8]:
    """Return the 21-class map [H, W]: 255 in a line 5 pixels wide around every object."""
    ids = {name: label for label, name in class_names("context460").items()}
    table = np.zeros(CLASSES, dtype=np.uint8)
    for number, name in class_names("voc21").items():
        table[ids.get("table" if name == "diningtable" else name, 0)] = number
    table[0] = _VOID
    classes = table[label_map]
    edge = np.zeros((classes.shape[0] + 4, classes.shape[1] + 4), dtype=np.bool_)
    edge[2:-2, 2:-3] |= classes[:, :-1] != classes[:, 1:]
    edge[2:-3, 2:-2] |= classes[:-1] != classes[1:]
    wide = sliding_window_view(edge, 5, axis=1).any(axis=-1)
    classes[sliding_window_view(wide, 5, axis=0).any(axis=-1)] = _VOID
    return classes
