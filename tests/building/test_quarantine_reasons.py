"""The words of quarantine.jsonl are bytes of a version: lock files of earlier builds pin them."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from builders.jpeg import exif_of
from builders.mat import DOUBLE, Mat
from builders.versions import make_plan
from PIL import Image
from scipy.io import savemat

from vocprep.building.stages import DecodedSample, Outcome, SampleStages, begin
from vocprep.data_dir.layout import SampleRef
from vocprep.geometry import Geometry
from vocprep.options import BuildChoices

pytestmark = pytest.mark.slow

CROP, NATIVE = Geometry(), Geometry(geometry="native")
ZEROS = np.zeros((40, 40), dtype=np.uint16)
AGAIN = "; fetch the file again"


def save(sample: SampleRef, width: int, height: int, fill: int = 0) -> None:
    """Write a grey image and a label map of one size."""
    Image.new("L", (width, height)).save(sample.image_path, "JPEG")
    labels = np.full((height, width), fill, dtype=np.uint16)
    sample.label_path.write_bytes(Mat().file(labels))


def with_outside_label(sample: SampleRef) -> None:
    save(sample, 40, 40, fill=9999)


def with_missing_image(sample: SampleRef) -> None:
    sample.image_path.unlink()


def with_empty_image(sample: SampleRef) -> None:
    sample.image_path.write_bytes(b"")


def with_cut_image(sample: SampleRef) -> None:
    sample.image_path.write_bytes(sample.image_path.read_bytes()[:-300])


def with_huge_image(sample: SampleRef) -> None:
    data = bytearray(sample.image_path.read_bytes())
    size = data.index(b"\xff\xc0") + 5
    data[size : size + 4] = b"\xff\x00\xff\x00"
    sample.image_path.write_bytes(data)


def with_png(sample: SampleRef) -> None:
    Image.new("L", (40, 40)).save(sample.image_path, "PNG")


def with_folder(sample: SampleRef) -> None:
    sample.image_path.unlink()
    sample.image_path.mkdir()


def with_uint8(sample: SampleRef) -> None:
    savemat(str(sample.label_path), {"LabelMap": ZEROS.astype(np.uint8)})


def with_other_variable(sample: SampleRef) -> None:
    savemat(str(sample.label_path), {"GTcls": ZEROS})


def with_missing_label_map(sample: SampleRef) -> None:
    sample.label_path.unlink()


def with_fractions(sample: SampleRef) -> None:
    sample.label_path.write_bytes(Mat(stored=DOUBLE).file(ZEROS + 0.5))


def with_more_data(sample: SampleRef) -> None:
    mat = Mat()
    sample.label_path.write_bytes(mat.header() + mat.compress(mat.matrix(ZEROS) + bytes(100)))


def with_other_size(sample: SampleRef) -> None:
    save(sample, 40, 40)
    sample.label_path.write_bytes(Mat().file(ZEROS[:, 1:]))


def with_swapped_sides(sample: SampleRef) -> None:
    Image.new("L", (40, 60)).save(sample.image_path, "JPEG", exif=exif_of(6))
    sample.label_path.write_bytes(Mat().file(np.zeros((40, 60), dtype=np.uint16)))


def with_dead_link(sample: SampleRef) -> None:
    sample.image_path.unlink()
    sample.image_path.symlink_to("/nowhere/a.jpg")


def with_dead_label_link(sample: SampleRef) -> None:
    sample.label_path.unlink()
    sample.label_path.symlink_to("/nowhere/a.mat")


def with_planes(sample: SampleRef) -> None:
    savemat(str(sample.label_path), {"LabelMap": np.stack([ZEROS] * 3, axis=2)})


def with_version_4(sample: SampleRef) -> None:
    savemat(str(sample.label_path), {"LabelMap": np.ones((40, 40))}, format="4")


def with_small_image(sample: SampleRef) -> None:
    save(sample, 31, 40)


def with_thin_image(sample: SampleRef) -> None:
    save(sample, 1, 2500)


def quarantined(
    damage: Callable[[SampleRef], None], tree: Path, geometry: Geometry
) -> Outcome[DecodedSample]:
    plan = make_plan(tree, BuildChoices(geometry=geometry, limit_per_split=1))
    damage(plan.samples[0])
    stages = SampleStages(recipe=plan.recipe, label_space=plan.label_space, data_dir=plan.data_dir)
    outcome = begin(plan.samples[0]).then(stages.read).then(stages.decode_image)
    return outcome.then(stages.decode_labels).then(stages.place)


JPEG = "VOCdevkit/VOC2010/JPEGImages/{id}.jpg"


@pytest.mark.parametrize(
    ("damage", "geometry", "reason"),
    [
        (with_missing_image, CROP, "picture cannot be read: No such file or directory"),
        (
            with_empty_image,
            CROP,
            "picture does not decode: 0 bytes that begin with b'' are no picture of a known kind"
            + AGAIN,
        ),
        (with_cut_image, CROP, "picture does not decode: Premature end of JPEG file" + AGAIN),
        (
            with_huge_image,
            CROP,
            "picture of 65280×65280 pixels: expected at most 67108864 pixels",
        ),
        (
            with_png,
            CROP,
            "picture does not decode: tjDecompressHeader3(): Could not determine subsampling level "
            "of JPEG image" + AGAIN,
        ),
        (with_folder, CROP, "picture cannot be read: Is a directory"),
        (
            with_uint8,
            CROP,
            "not a MATLAB 5 label map: LabelMap is of type uint8; expected uint16" + AGAIN,
        ),
        (
            with_other_variable,
            CROP,
            "not a MATLAB 5 label map: no variable LabelMap; found 'GTcls'" + AGAIN,
        ),
        (with_missing_label_map, CROP, "label map cannot be read: No such file or directory"),
        (
            with_fractions,
            CROP,
            "not a MATLAB 5 label map: LabelMap holds values that are no uint16" + AGAIN,
        ),
        (
            with_more_data,
            CROP,
            "not a MATLAB 5 label map: compressed data goes on after the variable or has no end"
            + AGAIN,
        ),
        (
            with_outside_label,
            CROP,
            "label id 9999 at row 0, column 0 is outside schema context460: expected 0..459; check "
            "--schema or the file",
        ),
        (with_other_size, CROP, f"label map of 39×40 pixels: expected 40×40 as its picture {JPEG}"),
        (
            with_small_image,
            NATIVE,
            "a picture of 31×40 pixels has no whole 32×32 patch: expected at least 32 pixels a "
            "side; use edge pad, or another geometry",
        ),
        (
            with_thin_image,
            CROP,
            "a picture of 1×2500 pixels is too long and thin to crop: expected sides that differ "
            "at most 1024 times; use --geometry squash or native",
        ),
    ],
)
def test_reasons_keep_the_words_of_the_first_version(
    damage: Callable[[SampleRef], None], geometry: Geometry, reason: str, tree: Path
) -> None:
    placed = quarantined(damage, tree, geometry)
    sample = placed.sample
    assert placed.quarantined is not None
    assert placed.quarantined.reason == reason.format(id=sample.image_id)
    assert placed.problem.startswith((str(sample.image_path), str(sample.label_path)))
    assert "fetch the file again" not in placed.problem


@pytest.mark.parametrize(
    ("damage", "reason", "shown"),
    [
        (
            with_swapped_sides,
            f"label map of 60×40 pixels: expected 40×60 as its picture {JPEG}",
            "fits the upright picture, .*: store the picture upright, or rotate the label map",
        ),
        (
            with_dead_link,
            "picture cannot be read: No such file or directory",
            "picture cannot be read: a link to /nowhere/a.jpg, where nothing is",
        ),
        (
            with_dead_label_link,
            "label map cannot be read: No such file or directory",
            "label map cannot be read: a link to /nowhere/a.mat, where nothing is",
        ),
        (
            with_planes,
            "not a MATLAB 5 label map: LabelMap has shape (40, 40, 3); expected two sizes above 0"
            + AGAIN,
            "shape 40×40×3, where a matrix .* save one plane of ids",
        ),
        (
            with_version_4,
            "not a MATLAB 5 label map: byte-order mark b'\\x00\\x00'; expected IM or MI" + AGAIN,
            "a MATLAB 4 file, .* save it again in MATLAB",
        ),
    ],
)
def test_better_advice_leaves_the_reasons_as_they_were(
    damage: Callable[[SampleRef], None], reason: str, shown: str, tree: Path
) -> None:
    placed = quarantined(damage, tree, CROP)
    assert placed.quarantined is not None
    assert placed.quarantined.reason == reason.format(id=placed.sample.image_id)
    assert re.search(shown, placed.problem)
