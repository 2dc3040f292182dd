"""NPY files of the one form that shards and tables hold, against NumPy's own reader and writer."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vocprep.formats.npy import npy_bytes, read_npy

DTYPES = st.sampled_from(["<f2", "<f4", "<i2", "<u2", "|u1", "<i8", "|S3"])


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


def by_numpy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0), allow_pickle=False)
    return stream.getvalue()


@given(DTYPES.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=4))))
def test_bytes_are_those_that_numpy_writes_and_come_back(array: np.ndarray) -> None:
    data = npy_bytes(array)
    assert data == by_numpy(array)
    found = read_npy(as_array(data))
    assert found.dtype == array.dtype
    assert found.tobytes() == array.tobytes()
    assert found.shape == array.shape


def test_other_layouts_in_memory_give_the_same_bytes() -> None:
    array = np.arange(6, dtype=">i2").reshape(2, 3)
    assert npy_bytes(array) == npy_bytes(np.asfortranarray(array)) == npy_bytes(array.astype("<i2"))


GOOD = npy_bytes(np.arange(6, dtype="<i2").reshape(2, 3))
HEADER = b"{'descr': '<i2', 'fortran_order': False, 'shape': (2, 3), }"


def with_header(text: bytes) -> bytes:
    return GOOD[:10] + text.ljust(117)[:117] + b"\n" + GOOD[128:]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        GOOD[:100],
        GOOD[:-1],
        GOOD + b"\0",
        b"\x93NUMPY\x02\x00" + GOOD[8:],
        GOOD[:8] + b"\xff\xff" + GOOD[10:],
        by_numpy(np.asfortranarray(np.ones((2, 3), dtype="<i2"))),
        with_header(HEADER.replace(b"False", b"True")),
        with_header(HEADER.replace(b"(2, 3)", b"(2, 4)")),
        with_header(HEADER.replace(b"(2, 3)", b"(-2, -3)")),
        with_header(HEADER.replace(b"(2, 3)", b"(2, 3, 9999999999999)")),
        with_header(HEADER.replace(b"(2, 3)", b"(1000000000000, 1000000000000)")),
        with_header(HEADER.replace(b"(2, 3)", b"(1000000000000, 0)")),
        with_header(HEADER.replace(b"<i2", b"|O")),
        with_header(HEADER.replace(b"<i2", b"<i3")),
        with_header(HEADER.replace(b"<i2", b">i2")),
        with_header(HEADER.replace(b"<i2", b"<f999")),
        with_header(HEADER.replace(b"'shape'", b"'shape\x00'")),
        with_header(b"(" * 117),
        with_header(b"{'descr': ''"),
        with_header(b"__import__('os').system('true')"),
    ],
)
def test_any_other_file_is_a_value_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"array|NPY") as caught:
        read_npy(as_array(data))
    assert "\n" not in str(caught.value)
