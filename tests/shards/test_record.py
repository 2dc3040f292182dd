"""Records: digests of their fields, and the checks of a well-formed one."""

from __future__ import annotations

import hashlib
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from builders.records import GRIDS, make_record
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vocprep.errors import ShardError
from vocprep.labels.statistics import label_areas
from vocprep.shards.record import Record, check_record

TYPES = {
    "image_id": "uint8",
    "split": "uint8",
    "grid": "int64",
    "slot_labels": "int16",
    "slot_pixels": "uint16",
    "label_count": "uint8",
    "slot_planes": "uint8",
    "label_map": "uint16",
    "image_sha256": "uint8",
    "label_sha256": "uint8",
}
"""Types by name as docs/format.md gives them; the embeddings have one of two."""
TARGET_ORDER = ["slot_labels", "slot_pixels", "label_count", "slot_planes", "label_map"]
RECORD_ORDER = [
    *("image_id", "split", "grid", "embeddings"),
    *TARGET_ORDER,
    *("image_sha256", "label_sha256"),
]


def naive_digest(record: Record, names: list[str]) -> str:
    """The digest written out: one number at a time through struct-like byte conversion."""
    text = b""
    for name in names:
        value = getattr(record, name)
        if isinstance(value, str):
            data, shape = value.encode("utf-8"), [len(value.encode("utf-8"))]
        elif isinstance(value, tuple):
            data, shape = b"".join(v.to_bytes(8, "little") for v in value), [2]
        else:
            data, shape = value.copy(order="C").tobytes(), list(value.shape)
        kind = str(value.dtype) if name == "embeddings" else TYPES[name]
        text += name.encode() + b"\0" + kind.encode() + b"\0"
        text += ",".join(map(str, shape)).encode() + b"\0" + data
    return hashlib.sha256(text).hexdigest()


@given(GRIDS, st.sampled_from(["float16", "float32"]), st.text("aé中#_9", min_size=1))
def test_digests_are_those_of_the_written_out_algorithm(
    grid: tuple[int, int], dtype: str, image_id: str
) -> None:
    record = make_record(image_id, grid, dtype=dtype, dim=5)
    assert record.record_sha256 == naive_digest(record, RECORD_ORDER)
    assert record.targets_sha256 == naive_digest(record, TARGET_ORDER)
    assert record.embeddings_sha256 == naive_digest(record, ["embeddings"])


def test_a_record_that_was_described_has_the_digests_and_areas_of_its_png() -> None:
    record, made = make_record(), make_record()
    label_map = record.label_map
    described = made.described(label_map, label_areas(label_map))
    assert "label_map" not in vars(described)
    unread = replace(made, label_png=b"not to be decoded")
    vars(unread).update({k: v for k, v in vars(described).items() if k not in vars(unread)})
    for name in ("record_sha256", "targets_sha256", "embeddings_sha256", "label_pixels"):
        assert getattr(unread, name) == getattr(record, name)


def test_digest_of_a_known_record_stays_what_it_was() -> None:
    """Identities of published datasets: a change here needs a new format version."""
    record = Record(
        image_id="2008_000002",
        split="train",
        grid=(1, 1),
        embeddings=np.arange(4, dtype=np.float16).reshape(1, 4),
        slot_labels=np.array([[7, -1, -1, -1]], dtype=np.int16),
        slot_pixels=np.array([[1024, 0, 0, 0]], dtype=np.uint16),
        label_count=np.array([1], dtype=np.uint8),
        slot_planes=np.zeros((1, 3, 128), dtype=np.uint8),
        label_png=png(np.full((32, 32), 7, dtype=np.uint16)),
        image_sha256="ab" * 32,
        label_sha256="cd" * 32,
    )
    assert record.record_sha256 == (
        "485a3e7c07e3e25a9ad7770be62a75afc1b8cd051d5dc09d9e1990cd8508bc51"
    )


def png(label_map: np.ndarray[Any, Any], **options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(label_map).save(stream, "PNG", **options)
    return stream.getvalue()


def test_record_digest_does_not_depend_on_how_the_png_is_compressed() -> None:
    record = make_record()
    loose = replace(record, label_png=png(record.label_map, compress_level=0))
    assert loose.label_png != record.label_png
    assert loose.record_sha256 == record.record_sha256
    assert loose.targets_sha256 == record.targets_sha256


def test_memory_order_and_byte_order_do_not_change_the_digest() -> None:
    record = make_record()
    turned = replace(
        record,
        embeddings=np.asfortranarray(record.embeddings),
        slot_labels=record.slot_labels.astype(">i2"),
    )
    assert turned.record_sha256 == record.record_sha256


CHANGES: dict[str, Any] = {
    "image_id": "2010_000009",
    "split": "val",
    "grid": (3, 2),
    "image_sha256": "00" * 32,
    "label_sha256": "00" * 32,
}


@pytest.mark.parametrize("name", RECORD_ORDER)
def test_record_digest_changes_with_every_field(name: str) -> None:
    record = make_record(grid=(2, 2)) if name != "grid" else make_record(grid=(2, 3))
    if name == "label_map":
        pixels = record.label_map.copy()
        pixels[-1, -1] += 1
        changed = replace(record, label_png=png(pixels))
    elif name in CHANGES:
        pixels = record.label_map.reshape(96, 64) if name == "grid" else record.label_map
        changed = replace(record, **{name: CHANGES[name]}, label_png=png(pixels))
    else:
        array = getattr(record, name).copy()
        array.ravel()[-1] += 1
        changed = replace(record, **{name: array})
    assert changed.record_sha256 != record.record_sha256
    assert (changed.targets_sha256 != record.targets_sha256) == (
        name in TARGET_ORDER or name == "grid"
    )
    assert (changed.embeddings_sha256 != record.embeddings_sha256) == (name == "embeddings")


def test_label_map_is_the_pixels_of_the_png() -> None:
    record = make_record(grid=(1, 3))
    pixels = np.asarray(Image.open(io.BytesIO(record.label_png)))
    assert record.label_map.dtype == np.uint16
    np.testing.assert_array_equal(record.label_map, pixels)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "an empty file"),
        (make_record().label_png[:60], "does not decode"),
        (png(np.zeros((32, 32), dtype=np.uint16)), "expected (64, 96)"),
    ],
    ids=["empty", "truncated", "another size"],
)
def test_label_map_that_does_not_decode_is_a_shard_error(data: bytes, said: str) -> None:
    with pytest.raises(ShardError, match="2010_000001") as caught:
        _ = replace(make_record(), label_png=data).label_map
    assert said in str(caught.value)


def test_check_record_lets_good_records_pass() -> None:
    for dtype in ("float16", "float32"):
        record = make_record(dtype=dtype, dim=512)
        assert check_record(record, "here") is record


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"grid": (0, 3)}, "grid"),
        ({"grid": (-2, -3)}, "grid"),
        ({"grid": (2, 2)}, "embeddings"),
        ({"embeddings": np.zeros((6, 4), dtype=np.float64)}, "embeddings float64"),
        ({"embeddings": np.zeros(6, dtype=np.float16)}, "embeddings float16"),
        ({"embeddings": np.zeros((6, 4, 1), dtype=np.float16)}, "embeddings float16"),
        ({"embeddings": np.zeros((5, 4), dtype=np.float16)}, "embeddings"),
        ({"slot_labels": np.zeros((6, 4), dtype=np.int32)}, "slot_labels"),
        ({"slot_labels": np.zeros((6, 3), dtype=np.int16)}, "slot_labels"),
        ({"slot_labels": np.zeros((7, 4), dtype=np.int16)}, "slot_labels"),
        ({"slot_pixels": np.zeros((6, 4), dtype=np.int16)}, "slot_pixels"),
        ({"slot_pixels": np.zeros((6, 5), dtype=np.uint16)}, "slot_pixels"),
        ({"label_count": np.zeros(6, dtype=np.int64)}, "label_count"),
        ({"label_count": np.zeros((6, 1), dtype=np.uint8)}, "label_count"),
        ({"slot_planes": np.zeros((6, 3, 128), dtype=np.int8)}, "slot_planes"),
        ({"slot_planes": np.zeros((6, 4, 128), dtype=np.uint8)}, "slot_planes"),
        ({"slot_planes": np.zeros((6, 3, 127), dtype=np.uint8)}, "slot_planes"),
    ],
)
def test_check_record_refuses_what_the_format_does_not_allow(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ShardError, match="here: record 2010_000001: ") as caught:
        check_record(replace(make_record(), **changes), "here")
    assert said in str(caught.value)
