"""Label maps as NPY and TIFF: NumPy and Pillow as oracles; which numbers are label ids."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from builders.fuzzing import fuzz
from builders.tiff import tiff_file, tiff_of
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import LabelDecodeError
from vocprep.formats.npy import npy_bytes
from vocprep.labels.arrays import label_ids
from vocprep.labels.decode import LabelRule, decode_label_map

pytestmark = pytest.mark.usefixtures("no_warning_escapes")

IDS = np.array([[0, 1, 15, 20], [255, 3, 3, 16]], dtype=np.uint8)


def npy(array: NDArray[np.generic], version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def decode(data: bytes, name: str = "some/file.npy") -> NDArray[np.uint16]:
    return decode_label_map(data, Path(name))


def refuse(data: bytes, complaint: str, name: str = "some/file.npy") -> None:
    with pytest.raises(LabelDecodeError, match=complaint) as caught:
        decode(data, name)
    assert str(caught.value).startswith(f"{name}: ")
    assert str(caught.value).isprintable()


@given(st.data())
def test_arrays_of_any_type_order_and_version_are_read_as_numpy_reads_them(
    data: st.DataObject,
) -> None:
    dtype = data.draw(st.sampled_from(["?", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f8"]))
    order = data.draw(st.sampled_from("<>"))
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    values = data.draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, 100)))
    array = values.astype(np.dtype(dtype).newbyteorder(order))
    if data.draw(st.booleans()):
        array = np.asfortranarray(array)
    version = data.draw(st.sampled_from([(1, 0), (2, 0), (3, 0)]))
    found = decode(npy(array, version))
    np.testing.assert_array_equal(found, np.load(io.BytesIO(npy(array, version))))
    assert (found.dtype, found.flags.c_contiguous) == (np.uint16, True)


def with_header(text: str, values: bytes) -> bytes:
    head = text.encode()
    return b"\x93NUMPY\1\0" + len(head).to_bytes(2, "little") + head + values


@pytest.mark.parametrize(
    "header",
    [
        "{'shape': (1, 2), 'fortran_order': False, 'descr': '|u1'}",
        '{"descr":"|u1","fortran_order":False,"shape":(1,2)}\n',
        "{ 'descr' : 'u1' , 'fortran_order' : True , 'shape' : ( 1L , 2L , ) , } \n",
    ],
)
def test_headers_as_other_programs_write_them_are_read(header: str) -> None:
    assert decode(with_header(header, b"\3\4")).tolist() == [[3, 4]]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (npy(IDS)[:-1], "does not decode: an array file of 135 bytes, where 136 are expected"),
        (npy(IDS) + b"x", "an array file of 137 bytes, where 136 are expected"),
        (npy(IDS)[:50], "damaged header"),
        (b"\x93NUMPY\4\0" + npy(IDS)[8:], "damaged header, or of an unknown version"),
        (npy(np.zeros((2, 2, 1))), "array of the shape 2×2×1, .* save one plane"),
        (npy(np.zeros(4)), r"array of the shape 4, where \[H, W\] is expected"),
        (npy(np.zeros((0, 4))), "array of the shape 0×4"),
        (npy(np.zeros((2, 2), complex)), "an array of complex128"),
        (npy(np.array([["a"]])), "an array of (<U1|str)"),
        (npy(np.zeros((2, 2), [("a", "u1")])), "an array of records, .*; save one field"),
        (with_header("{'descr': '|O', 'fortran_order': False, 'shape': (1, 1)}", b"x"), "objects"),
        (with_header("{'descr': '<u9', 'fortran_order': False, 'shape': (1, 1)}", b"x"), "damaged"),
        (with_header("{'descr': 'u1', 'shape': (1, 1), 'shape': (1, 1)}", b"x"), "damaged"),
        (with_header("{'descr': 'u1', 'fortran_order': 'u1', 'shape': (1, 1)}", b"x"), "damaged"),
        (
            with_header("{'descr': 'u1', 'fortran_order': False, 'shape': (1, 1)} + 1", b"x"),
            "damag",
        ),
        (npy(np.zeros((1, 1)))[:8] + b"\xff\xff" + bytes(70_000), "damaged header"),
        (
            with_header(
                "{'descr': 'u1', 'fortran_order': False, 'shape': (99999999999, 99999999999)}", b""
            ),
            "an array file of .* bytes, where",
        ),
        (npy(np.zeros((6000, 6000), np.uint8)), "label map of 6000×6000 pixels: .*; scale it"),
        (b"PK\3\4", "a ZIP archive, where an NPY label map is expected; replace it"),
        (b"\x89PNG\r\n\x1a\n", 'a PNG picture, .* set label_kind = "png"'),
    ],
)
def test_other_arrays_are_refused_in_one_sentence(data: bytes, complaint: str) -> None:
    refuse(data, complaint)


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "f2", "f4", "f8"])
def test_minus_one_is_void_unless_255_occurs(dtype: str) -> None:
    assert label_ids(np.array([[-1, 3], [0, -1]], dtype)).tolist() == [[255, 3], [0, 255]]
    if dtype != "i1":
        refuse(npy(np.array([[-1, 255]], dtype)), "holds both -1 and 255, .*; replace -1 by")


@pytest.mark.parametrize(
    "value", [-2, 65536, -(2**63), 2**63 - 1, 0.5, float("nan"), float("inf"), -1.5, 1e300]
)
def test_what_is_no_id_is_named_with_its_place(value: float) -> None:
    array = np.array([[1, 2], [3, value]])
    text = str(array[1, 1]).replace("+", r"\+")
    refuse(npy(array), f"{text} at row 1, column 1, where label ids are expected, .*; save the ids")


@given(arrays.arrays(np.uint64, (3, 3), elements=st.integers(0, 65535)))
def test_large_unsigned_numbers_are_ids_up_to_65535(values: NDArray[np.uint64]) -> None:
    np.testing.assert_array_equal(label_ids(values), values)
    with pytest.raises(Exception, match="18446744073709551615 at row 0"):
        label_ids(np.full((1, 1), 2**64 - 1, np.uint64))


@pytest.mark.parametrize("dtype", ["u1", "u2", "i2", "i4", "f4"])
def test_grey_tiff_holds_its_values(dtype: str) -> None:
    found = decode(tiff_of(IDS.astype(dtype)), "a.tif")
    np.testing.assert_array_equal(found, IDS)


def test_palette_tiff_holds_its_indices_as_pillow_reads_them() -> None:
    picture = Image.fromarray(IDS)
    picture.putpalette([value for n in range(256) for value in (n, 255 - n, n // 2)])
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate"):
        stream = io.BytesIO()
        picture.save(stream, "TIFF", compression=compression)
        np.testing.assert_array_equal(decode(stream.getvalue(), "a.TIFF"), IDS)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (tiff_of(np.zeros((2, 2, 3), np.uint8)), 'TIFF of 3 channels, .*label_kind = "colours"'),
        (tiff_of(np.zeros((2, 2, 2), np.uint8)), "TIFF of 2 channels"),
        (tiff_of(IDS, {262: [0]}), "grey whose 0 is white, .*; save it with 0 as black"),
        (tiff_of(IDS.astype(np.float32) + 0.5), "0.5 at row 0, column 0, where label ids"),
        (tiff_file([b""], (8000, 8000)), "label map of 8000×8000 pixels: .*; scale it"),
        (tiff_of(IDS, {259: [7]}), "compressed as JPEG, which loses detail"),
        (tiff_of(IDS)[:-9], "label map does not decode: .*; replace it by a sound copy"),
        (npy(IDS), 'a NumPy array, where a TIFF label map is expected; .*label_kind = "npy"'),
    ],
)
def test_other_tiffs_are_refused(data: bytes, complaint: str) -> None:
    refuse(data, complaint, "some/file.tif")


def test_the_kind_of_a_rule_counts_and_not_the_suffix() -> None:
    found = LabelRule(kind="npy").decode(npy_bytes(IDS), Path("a.png"))
    np.testing.assert_array_equal(found, IDS)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["npy", "tiff"])
def test_damaged_files_decode_or_are_refused(kind: str) -> None:
    seeds = [npy(IDS), npy(np.asfortranarray(IDS.astype(">i4")), (2, 0)), npy(IDS.astype(float))]
    if kind == "tiff":
        seeds = [tiff_of(IDS), tiff_of(IDS.astype(np.int32), order=">")]
        stream = io.BytesIO()
        Image.fromarray(np.kron(IDS, np.ones((9, 9), np.uint8))).save(
            stream, "TIFF", compression="tiff_lzw"
        )
        seeds.append(stream.getvalue())
    decoded, refused = fuzz(f"label.{kind}", seeds, 1500, seed=0)
    assert decoded + refused == 1500
    assert decoded > 10
