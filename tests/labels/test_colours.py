"""Colour masks and panoptic label maps: a colour stands for an id, and unknown ones are named."""

from __future__ import annotations

import io
import json
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.fuzzing import fuzz
from builders.png import chunk, header, png_file
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from vocprep.dataset_manifest import DatasetManifest
from vocprep.errors import DataDirError, LabelDecodeError
from vocprep.labels.colours import ColourTable
from vocprep.labels.decode import LabelRule, label_rule

pytestmark = pytest.mark.usefixtures("no_warning_escapes")

TABLE = {"#000000": 0, "#800000": 1, "#00ff7f": 300, "#ffffff": 255}
COLOURS = [tuple(bytes.fromhex(colour[1:])) for colour in TABLE]
IDS = list(TABLE.values())
RULE = LabelRule(kind="colours", colours=ColourTable.of(TABLE))


def png_of(picture: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG", **options)
    return stream.getvalue()


def decode(picture: Image.Image | bytes, rule: LabelRule = RULE) -> NDArray[np.uint16]:
    data = picture if isinstance(picture, bytes) else png_of(picture)
    return rule.decode(data, Path("some/file.png"))


def refuse(picture: Image.Image | bytes, complaint: str, rule: LabelRule = RULE) -> None:
    with pytest.raises(LabelDecodeError, match=complaint) as caught:
        decode(picture, rule)
    assert str(caught.value).startswith("some/file.png: ")


PLACES = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 3)
)


@given(PLACES)
def test_each_colour_becomes_its_id(places: NDArray[np.uint8]) -> None:
    pixels = np.array(COLOURS, np.uint8)[places]
    expected = [[IDS[place] for place in row] for row in places.tolist()]
    palette = Image.fromarray(places)
    palette.putpalette([level for colour in COLOURS for level in colour])
    opaque = np.concatenate([pixels, np.full((*places.shape, 1), 255, np.uint8)], axis=2)
    for picture in (Image.fromarray(pixels), palette, Image.fromarray(opaque)):
        assert decode(picture).tolist() == expected


@pytest.mark.parametrize("mode", ["1", "L"])
def test_grey_and_one_bit_are_black_and_white(mode: str) -> None:
    picture = Image.fromarray(np.array([[0, 255]], np.uint8)).convert(mode)
    assert decode(picture).tolist() == [[0, 255]]
    narrow = png_file(header(2, 1, depth=2), zlib.compress(b"\0\x30"))
    assert decode(narrow).tolist() == [[0, 255]]


def test_the_transparency_of_a_palette_does_not_count() -> None:
    picture = Image.fromarray(np.array([[0, 1]], np.uint8))
    picture.putpalette([level for colour in COLOURS for level in colour])
    assert decode(png_of(picture, transparency=b"\0\x80")).tolist() == [[0, 1]]


def with_alpha(*pixel: int) -> Image.Image:
    return Image.fromarray(np.array([[[0, 0, 0, 255], list(pixel)]], np.uint8))


def test_alpha_is_opaque_or_nothing_at_all() -> None:
    assert decode(with_alpha(0, 0, 0, 0)).tolist() == [[0, 0]]
    for pixel in ((128, 0, 0, 0), (0, 0, 0, 128), (128, 0, 0, 254)):
        refuse(with_alpha(*pixel), "pixel at row 0, column 1 is partly transparent, .*; save the")


def test_unknown_colours_are_named_by_their_frequency() -> None:
    pixels = np.zeros((20, 30, 3), np.uint8)
    pixels[3:5, 4:9] = (1, 2, 3)
    refuse(
        Image.fromarray(pixels),
        "a colour that has no id: #010203 in 10 pixels from row 3, column 4 on; add them to "
        "label_colours",
    )
    pixels[0, 7] = (255, 0, 0)
    pixels[10:, 0] = (9, 9, 9)
    pixels[19, 20:22] = (8, 8, 8)
    refuse(
        Image.fromarray(pixels),
        "4 colours that have no id: #010203 in 10 pixels from row 3, column 4 on, #090909 in 10 "
        "pixels from row 10, column 0 on, #080808 in 2 pixels from row 19, column 20 on, and 1 "
        "more; add",
    )
    noise = np.random.default_rng(0).integers(1, 255, (20, 30, 3), dtype=np.uint8)
    refuse(Image.fromarray(noise), "and [0-9]+ more; colours between others come of smooth edges")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"\xff\xd8\xff\xe0", "a JPEG picture, where a PNG label map is expected; its compression"),
        (png_of(Image.new("RGB", (3, 3)))[:-20], "label map does not decode: .*; replace it"),
        (png_file(header(2, 1, depth=16, colour=2), b""), "16 bits per channel"),
        (png_file(header(9000, 9000, colour=2), b""), "label map of 9000×9000 pixels"),
        (png_file(header(2, 1, colour=2), zlib.compress(b"\0abc")), "end after 0 of 1 rows"),
        (
            png_file(header(2, 1, colour=3) + chunk(b"PLTE", bytes(3)), zlib.compress(b"\0\0\1")),
            "a pixel of a colour that its palette does not have",
        ),
    ],
)
def test_other_files_are_refused(data: bytes, complaint: str) -> None:
    refuse(data, complaint)


def test_a_rule_is_known_by_its_table_whatever_its_order() -> None:
    turned = ColourTable.of(dict(reversed(TABLE.items())))
    assert ColourTable.of(TABLE).sha256 == turned.sha256
    assert ColourTable.of({**TABLE, "#ffffff": 254}).sha256 != turned.sha256
    assert RULE.rule_id is not None
    assert RULE.rule_id.table_sha256 == turned.sha256
    assert LabelRule(kind="png").rule_id is LabelRule(kind="npy").rule_id is None
    assert LabelRule(kind="mat").rule_id is None
    named = LabelRule(kind="mat", variable="GT").rule_id
    assert named is not None
    assert (named.kind, named.variable, named.table_sha256) == ("mat", "GT", None)


@pytest.mark.slow
def test_damaged_masks_decode_or_are_refused() -> None:
    pixels = np.array(COLOURS, np.uint8)[np.arange(600).reshape(20, 30) // 60 % 4]
    palette = Image.fromarray((np.arange(600).reshape(20, 30) // 60 % 4).astype(np.uint8))
    palette.putpalette([level for colour in COLOURS for level in colour])
    seeds = [png_of(Image.fromarray(pixels)), png_of(palette)]
    for name in ("label.colours", "rechecked label.colours"):
        decoded, refused = fuzz(name, seeds, 800, seed=0)
        assert decoded + refused == 800
        assert refused > 100


# Panoptic label maps

ANNOTATIONS: dict[str, Any] = {
    "info": {"year": 2017},
    "annotations": [
        {
            "image_id": 1,
            "file_name": "a.png",
            "segments_info": [
                {"id": 70_000, "category_id": 3, "area": 5, "bbox": [0, 0, 1, 1], "iscrowd": 0},
                {"id": 5, "category_id": 200, "area": 5},
            ],
        },
        {"image_id": 2, "file_name": "sub/b.png", "segments_info": []},
    ],
    "categories": [{"id": 3, "name": "cat"}],
}


def manifest(**more: object) -> DatasetManifest:
    values: dict[str, Any] = {
        "name": "mine",
        "title": "mine",
        "images": "images",
        "labels": "masks/{split}",
        "label_kind": "panoptic",
        "label_annotations": "annotations/{split}.json",
        "splits": ["train"],
        "split_files": "splits",
        "schemas": ["voc21"],
        **more,
    }
    return DatasetManifest.model_validate(values)


def panoptic_rule(folder: Path, value: Mapping[str, Any] | str = ANNOTATIONS) -> LabelRule:
    path = folder / "annotations" / "train.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return label_rule(manifest(), folder)


def segments_png(*ids: int) -> bytes:
    pixels = [[[label % 256, label // 256 % 256, label // 65536] for label in ids]]
    return png_of(Image.fromarray(np.array(pixels, np.uint8)))


def test_segments_become_their_categories(tmp_path: Path) -> None:
    rule = panoptic_rule(tmp_path)
    data = segments_png(0, 70_000, 5, 5)
    path = tmp_path / "masks" / "train" / "a.png"
    cut = rule.only([path])
    for each in (rule, cut, pickle.loads(pickle.dumps(cut))):
        assert each.decode(data, path).tolist() == [[0, 3, 200, 200]]
    empty = rule.decode(segments_png(0, 0), tmp_path / "masks/train/sub/b.png")
    assert empty.tolist() == [[0, 0]]
    with pytest.raises(LabelDecodeError, match=r"a\.png: segments 6, 7 are not in its annotations"):
        rule.decode(segments_png(7, 6, 5), path)
    for other in ("masks/train/c.png", "masks/val/a.png", "masks/train/sub/a.png"):
        with pytest.raises(LabelDecodeError, match="no annotation is of this file; check that"):
            rule.decode(data, tmp_path / other)
    with pytest.raises(LabelDecodeError, match="no annotation is of this file"):
        cut.decode(data, tmp_path / "masks/train/sub/b.png")


def test_the_digest_is_of_segments_and_categories_alone(tmp_path: Path) -> None:
    rule = panoptic_rule(tmp_path)
    assert rule.rule_id is not None
    same = {**ANNOTATIONS, "info": {}, "annotations": ANNOTATIONS["annotations"][::-1]}
    assert panoptic_rule(tmp_path, same).rule_id == rule.rule_id
    text = json.dumps(ANNOTATIONS).replace('"category_id": 3', '"category_id": 4')
    assert panoptic_rule(tmp_path, text).rule_id != rule.rule_id


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "expected COCO's panoptic annotations, found"),
        ("[" * 100_000, "expected COCO's panoptic annotations"),
        ('{"annotations": 3}', "annotations"),
        ('{"images": []}', "annotations"),
        (json.dumps(ANNOTATIONS).replace("70000", "16777216"), r"annotations\[0\].segments_info"),
        (json.dumps(ANNOTATIONS).replace("70000", "true"), "annotations"),
        (json.dumps(ANNOTATIONS).replace("70000", "5"), "of 'a.png': segment 5 is listed twice"),
        (json.dumps(ANNOTATIONS).replace("sub/b.png", "a.png"), "of 'a.png': is listed twice"),
        (json.dumps(ANNOTATIONS).replace("200", "65535"), "category_id"),
    ],
)
def test_other_annotations_are_refused(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(DataDirError, match=complaint) as caught:
        panoptic_rule(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/annotations/train.json: ")
    assert str(caught.value).isprintable()


def test_missing_annotations_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataDirError, match=r"train.json: annotations cannot be read: No such file"):
        label_rule(manifest(), tmp_path)
