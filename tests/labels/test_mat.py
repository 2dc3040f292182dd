"""MATLAB label maps: what decodes, with scipy as the oracle, and what each bad file is told."""

from __future__ import annotations

import csv
import gzip
import io
import os
import re
import struct
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.mat import DOUBLE, INT8, INT16, INT32, SINGLE, UINT8, UINT16, UINT32, Mat
from numpy.typing import NDArray
from scipy.io import loadmat, savemat

from vocprep.errors import LabelDecodeError
from vocprep.labels.decode import decode_label_map, read_label_file
from vocprep.labels.mat import MAX_PIXELS, decode_mat
from vocprep.labels.statistics import label_areas

MAP = (np.arange(35, dtype=np.uint16) * 1873).reshape(5, 7)
SMALL_MAP = (np.arange(35, dtype=np.uint16) % 120).reshape(5, 7)


def scipy_file(variables: dict[str, Any], *, compressed: bool) -> bytes:
    stream = io.BytesIO()
    savemat(stream, variables, do_compression=compressed)
    return stream.getvalue()


def refuse(data: bytes, complaint: str) -> None:
    with pytest.raises(LabelDecodeError, match=complaint) as caught:
        decode_mat(data, "some/file.mat")
    assert str(caught.value).startswith("some/file.mat: ")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 3), (37, 53)])
def test_files_of_scipy_decode_to_what_was_written(
    compressed: bool, shape: tuple[int, int]
) -> None:
    written = np.random.default_rng(0).integers(0, 65536, shape, dtype=np.uint16)
    found = decode_mat(scipy_file({"LabelMap": written}, compressed=compressed), "x")
    np.testing.assert_array_equal(found, written)
    assert found.dtype == np.uint16
    assert found.flags.c_contiguous


@pytest.mark.parametrize("compressed", [True, False])
def test_other_variables_before_the_label_map_are_passed_over(compressed: bool) -> None:
    variables = {
        "matrix": np.eye(40),
        "text": "words",
        "struct": {"a": 1, "b": "x"},
        "cells": np.array([1, "two"], dtype=object),
        "LabelMap": MAP,
        "after": np.ones(3),
    }
    found = decode_mat(scipy_file(variables, compressed=compressed), "x")
    np.testing.assert_array_equal(found, MAP)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize("stored", [UINT8, UINT16, INT8, INT16, INT32, UINT32, SINGLE, DOUBLE, 12])
def test_any_number_type_and_byte_order_is_read_as_scipy_reads_it(
    order: str, compressed: bool, stored: int
) -> None:
    data = Mat(order=order, stored=stored).file(SMALL_MAP, compressed=compressed)
    np.testing.assert_array_equal(decode_mat(data, "x"), SMALL_MAP)
    np.testing.assert_array_equal(loadmat(io.BytesIO(data))["LabelMap"], SMALL_MAP)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("small", [True, False])
def test_values_of_up_to_four_bytes_take_the_small_form_or_not(order: str, small: bool) -> None:
    values = np.array([[300, 431]], dtype=np.uint16)
    data = Mat(order=order, small=small).file(values)
    np.testing.assert_array_equal(decode_mat(data, "x"), values)
    np.testing.assert_array_equal(loadmat(io.BytesIO(data))["LabelMap"], values)


@pytest.mark.parametrize("name", [b"a", b"abcd", b"x" * 63])
def test_names_of_any_length_are_passed_over(name: bytes) -> None:
    mat = Mat()
    data = Mat(name=name).file(MAP) + mat.compress(mat.matrix(MAP + np.uint16(1)))
    np.testing.assert_array_equal(decode_mat(data, "x"), MAP + np.uint16(1))


def test_values_are_column_major() -> None:
    assert decode_mat(Mat().file(np.array([[1, 2], [3, 4]])), "x").tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize("compressed", [True, False])
def test_every_truncation_is_refused(compressed: bool) -> None:
    data = Mat().file(MAP, compressed=compressed)
    padding = 0 if compressed else -MAP.nbytes % 8
    for length in range(len(data) - padding):
        refuse(data[:length], "MATLAB 5 label map")


@pytest.mark.parametrize("compressed", [True, False])
@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (SMALL_MAP.astype(np.uint8), "uint8"),
        (SMALL_MAP.astype(np.float64), "double"),
        (SMALL_MAP + 1j, "complex double"),
        ("text", "char"),
        ({"a": 1}, "struct"),
        (np.array([1, "two"], dtype=object), "cell"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_type_is_refused_by_name(values: object, kind: str, compressed: bool) -> None:
    data = scipy_file({"LabelMap": values}, compressed=compressed)
    refuse(data, f"LabelMap is of type {kind}, where .*uint16")


def test_sparse_and_complex_uint16_are_refused() -> None:
    refuse(Mat(class_id=5).file(MAP), "of type sparse")
    refuse(Mat(flags=0x0800).file(MAP), "of type complex uint16")


@pytest.mark.parametrize(
    "shape", [(5, 7, 1), (5,), (0, 7), (5, -7), (-5, -7), (1 << 16, 1 << 16), (2**31 - 1,) * 2]
)
@pytest.mark.parametrize("compressed", [True, False])
def test_bad_dimensions_are_refused(shape: tuple[int, ...], compressed: bool) -> None:
    expected = "shape|pixels|array dimensions"
    refuse(Mat(shape=shape).file(MAP, compressed=compressed), expected)


@pytest.mark.parametrize("shape", [(5, 6), (7, 6), (1, 1)])
def test_values_that_do_not_fill_the_shape_are_refused(shape: tuple[int, ...]) -> None:
    refuse(Mat(shape=shape).file(MAP), f"70 bytes of values; expected {2 * shape[0] * shape[1]}")


@pytest.mark.parametrize("value", [-1, 65536, 0.5, float("nan"), float("inf"), 1e300])
def test_stored_numbers_that_are_no_uint16_are_refused(value: float) -> None:
    refuse(Mat(stored=DOUBLE).file(np.array([[1.0, value]])), "no uint16")


@pytest.mark.parametrize("stored", [SINGLE, DOUBLE])
def test_signalling_nans_are_refused_without_a_warning(stored: int) -> None:
    sound = Mat(stored=stored).file(MAP, compressed=False)
    size = 4 if stored == SINGLE else 8
    exponent = {SINGLE: b"\x01\x00\x80\x7f", DOUBLE: b"\x01" + bytes(5) + b"\xf0\x7f"}[stored]
    values = len(sound) - MAP.size * size - (-MAP.size * size % 8)
    for index in range(MAP.size):
        start = values + index * size
        refuse(sound[:start] + exponent + sound[start + size :], "no uint16")


def test_a_small_element_of_more_than_four_bytes_is_refused() -> None:
    mat = Mat()
    matrix = mat.matrix(MAP)
    name = struct.pack("<I", 8 << 16 | INT8) + b"LabelMap" + bytes(4)
    refuse(mat.header() + mat.compress(matrix[:40] + name + matrix[56:]), "small element of 8")


def test_files_without_a_label_map_name_what_they_hold() -> None:
    refuse(scipy_file({"other": MAP, "labelmap": MAP}, compressed=True), "'other', 'labelmap'")
    refuse(Mat().header(), "no variable LabelMap; found none")


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "an empty file, where a MATLAB 5 label map"),
        (b"<!DOCTYPE html><html>", "a web page, where .* get the file itself"),
        (b"<!DOCTYPE html><html>" * 50, "a web page"),
        (b"\x89PNG\r\n\x1a\n" * 50, 'a PNG picture, .* label_kind = "png"'),
        (b"\x89HDF\r\n\x1a\n".ljust(2048, b"\0"), r"an HDF5 file, where .*savemat\(file, "),
        (
            b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(384) + b"\x89HDF",
            r"7\.3 .*'-v7'.*h5py",
        ),
        (Mat().header(version=0x0200), "version 0x0200"),
        (struct.pack("<5i", 0, 5, 7, 0, 9) + b"LabelMap\0" + bytes(400), "a MATLAB 4 file"),
        (Mat().header() + struct.pack("<II", 9, 8) + bytes(8), "element of type 9 at byte 128"),
    ],
    ids=["empty", "html", "long html", "png", "hdf5", "v7.3", "version", "v4", "no variable"],
)
def test_other_kinds_of_file_are_refused(data: bytes, complaint: str) -> None:
    refuse(data, complaint)


def test_scipys_version_4_files_are_refused() -> None:
    stream = io.BytesIO()
    savemat(stream, {"LabelMap": MAP.astype(float)}, format="4")
    refuse(stream.getvalue(), r"a MATLAB 4 file, .* LabelMap = uint16\(LabelMap\); save.*'-v7'")


@pytest.mark.parametrize(
    ("name", "values", "advice"),
    [
        ("GTcls", {"Segmentation": MAP}, "type struct; save its .* uint16(GTcls.Segmentation); "),
        ("LabelMap", {"Segmentation": MAP}, "LabelMap = uint16(LabelMap.Segmentation); "),
        ("GTcls", np.array([MAP, "a"], dtype=object), "LabelMap = uint16(GTcls{1}); "),
        ("LabelMap", np.stack([MAP] * 3, axis=2), "shape 5×7×3, .* uint16(LabelMap(:, :, 1)); "),
        ("LabelMap", np.ones((5, 7, 3)), "shape 5×7×3, where a matrix [H, W] is expected; save "),
    ],
)
def test_label_ids_inside_another_value_are_pointed_at(
    name: str, values: object, advice: str
) -> None:
    data = scipy_file({name: values}, compressed=True)
    refuse(data, re.escape(advice).replace(r"\.\*", ".*"))


@pytest.mark.parametrize("shape", [(5, 7), (60, 70)])
def test_a_wrong_checksum_is_seen(shape: tuple[int, int]) -> None:
    data = Mat().file(np.ones(shape, dtype=np.uint16))
    for position in range(len(data) - 4, len(data)):
        changed = data[:position] + bytes([data[position] ^ 1]) + data[position + 1 :]
        refuse(changed, "incorrect data check")


def test_compressed_data_that_goes_on_is_refused() -> None:
    mat = Mat()
    refuse(mat.header() + mat.compress(mat.matrix(MAP) + bytes(4000)), "goes on")


def test_a_compressed_element_in_a_compressed_element_is_refused() -> None:
    mat = Mat()
    refuse(mat.header() + mat.compress(mat.compress(mat.matrix(MAP))), "element of type 15")


BOMB = """
import resource, sys, time
from vocprep.errors import LabelDecodeError
from vocprep.labels.mat import decode_mat
data = sys.stdin.buffer.read()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
begin = time.process_time()
try:
    decode_mat(data, "bomb.mat")
except LabelDecodeError as error:
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(grown >> 10, time.process_time() - begin, str(error).replace("\\n", " "))
"""


INFLATED = 1 << 26


def bomb(shape: tuple[int, int], size: int) -> bytes:
    """A variable of stated shape and bytes of values, followed by 64 MB of zeros."""
    mat = Mat(shape=shape)
    head = mat.matrix(MAP)[:56] + struct.pack("<II", UINT16, size)
    return mat.header() + mat.compress(head + bytes(INFLATED))


BOMBS = {
    r"8192×8192 pixels: expected at most": lambda: bomb((1 << 13, 1 << 13), INFLATED),
    r"67108864 bytes of values; expected 70": lambda: bomb((5, 7), INFLATED),
    r"goes on after the variable": lambda: bomb((5, 7), 70),
    r"element of type 0": lambda: Mat().header() + Mat().compress(bytes(INFLATED)),
    r"no variable LabelMap, found 'other'; .* uint16\(other\)": lambda: (
        Mat().header() + Mat().compress(Mat(name=b"other").matrix(MAP) + bytes(INFLATED))
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("complaint", sorted(BOMBS))
def test_zlib_bombs_take_neither_memory_nor_time(complaint: str) -> None:
    data = BOMBS[complaint]()
    assert len(data) < 300_000
    done = subprocess.run([sys.executable, "-c", BOMB], input=data, capture_output=True, check=True)
    megabytes, seconds, message = done.stdout.decode().split(maxsplit=2)
    assert message.startswith("bomb.mat: ")
    assert re.search(complaint, message)
    assert int(megabytes) < 16
    assert float(seconds) < 1


def test_the_bound_is_above_any_picture() -> None:
    assert MAX_PIXELS >= 4096 * 4096


def test_the_suffix_tells_the_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.mat"
    path.write_bytes(Mat().file(MAP))
    np.testing.assert_array_equal(decode_label_map(read_label_file(path), path), MAP)
    with pytest.raises(LabelDecodeError, match=r"a\.txt: expected a label map as \.mat, \.png, "):
        decode_label_map(b"", tmp_path / "a.txt")


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (Path.mkdir, "a folder, no regular file"),
        (lambda path: None, "No such file"),
        (os.mkfifo, "a pipe, no regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "a character device, no regular file"),
    ],
    ids=["folder", "missing", "pipe", "device"],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, make: Any, complaint: str) -> None:
    path = tmp_path / "a.mat"
    make(path)
    message = re.escape(f"{path}: label map cannot be read: {complaint}")
    with pytest.raises(LabelDecodeError, match=message):
        read_label_file(path)


@pytest.mark.parametrize("compressed", [True, False])
def test_so_many_variables_that_they_take_time_are_refused_at_once(compressed: bool) -> None:
    mat = Mat(name=b"x")
    element = mat.matrix(SMALL_MAP[:1, :2])
    tiny = mat.compress(element) if compressed else element
    begin = time.process_time()
    refuse(mat.header() + tiny * 600_000, "no variable LabelMap among its first 1,000 variables")
    assert time.process_time() - begin < 1


def test_names_of_any_content_leave_one_readable_line() -> None:
    data = Mat(name=b"\x1b[2J\n" + b"\xff" * 400).file(SMALL_MAP)
    with pytest.raises(LabelDecodeError) as caught:
        decode_mat(data, "a.mat")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def real_areas(table: Path, image_ids: set[str]) -> dict[str, dict[int, int]]:
    areas: dict[str, dict[int, int]] = defaultdict(dict)
    with gzip.open(table, "rt", newline="") as stream:
        for row in csv.DictReader(stream):
            if row["image_id"] in image_ids:
                areas[row["image_id"]][int(row["label"])] = int(row["pixels"])
    return areas


def test_real_files_have_the_areas_that_their_authors_logged(shared_data: Path) -> None:
    folder = shared_data / "pascal-context"
    maps: dict[str, NDArray[np.uint16]] = {
        path.stem: decode_mat(path.read_bytes(), str(path))
        for path in sorted((folder / "trainval").glob("*.mat"))
    }
    if not maps or not (folder / "label_areas.csv.gz").is_file():
        pytest.skip("no real label maps there")
    logged = real_areas(folder / "label_areas.csv.gz", set(maps))
    for image_id, label_map in maps.items():
        assert label_areas(label_map) == logged[image_id]
    assert max(int(label_map.max()) for label_map in maps.values()) > 255


CLASSES = {6: "f8", 7: "f4", 8: "i1", 9: "u1", 10: "i2", 11: "u2", 12: "i4", 13: "u4"}
CLASSES |= {14: "i8", 15: "u8"}


@pytest.mark.parametrize("dtype", [*CLASSES.values(), "bool"])
@pytest.mark.parametrize("compressed", [True, False])
def test_a_named_variable_of_any_class_of_numbers_is_read(dtype: str, compressed: bool) -> None:
    written = (np.arange(35).reshape(5, 7) % (2 if dtype == "bool" else 120)).astype(dtype)
    for name in ("LabelMap", "GTcls"):
        data = scipy_file({"other": np.eye(3), name: written}, compressed=compressed)
        found = decode_mat(data, "x", name)
        np.testing.assert_array_equal(found, loadmat(io.BytesIO(data))[name])
        assert (found.dtype, found.flags.c_contiguous) == (np.uint16, True)


@pytest.mark.parametrize("class_id", CLASSES)
@pytest.mark.parametrize("stored", [UINT8, INT16, DOUBLE])
def test_values_may_be_stored_as_another_type_than_their_class(class_id: int, stored: int) -> None:
    data = Mat(class_id=class_id, stored=stored, name=b"ids").file(SMALL_MAP)
    np.testing.assert_array_equal(decode_mat(data, "x", "ids"), SMALL_MAP)


def test_minus_one_of_a_named_variable_is_void() -> None:
    data = scipy_file({"ids": np.array([[0.0, -1.0]])}, compressed=True)
    assert decode_mat(data, "x", "ids").tolist() == [[0, 255]]


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        (np.array([[1.5]]), "ids: 1.5 at row 0, column 0, where label ids are expected"),
        (np.array([[1, 2], [3, -2]]), "ids: -2 at row 1, column 1, where"),
        (np.array([[70000]]), "ids: 70000 at row 0, column 0, where"),
        (np.array([[np.nan]]), "ids: nan at row 0"),
        (np.array([[1, -1], [255, 3]]), "ids: holds both -1 and 255"),
        (np.array([[1 + 2j]]), "ids is of type complex double, where"),
        ({"Segmentation": np.eye(2)}, r"ids is of type struct, .* uint16\(ids.Segmentation\)"),
        (np.zeros((2, 2, 2)), "ids has the shape 2×2×2"),
    ],
)
def test_a_named_variable_of_other_values_is_refused(values: Any, complaint: str) -> None:
    with pytest.raises(LabelDecodeError, match=complaint):
        decode_mat(scipy_file({"ids": values}, compressed=True), "a.mat", "ids")


def test_the_advice_for_other_classes_and_names_is_the_manifest() -> None:
    refuse(
        scipy_file({"LabelMap": SMALL_MAP.astype(np.uint8)}, compressed=True),
        'LabelMap is of type uint8, .*; set label_variable = "LabelMap" in the manifest',
    )
    refuse(
        scipy_file({"GT": SMALL_MAP}, compressed=True),
        "no variable LabelMap, found 'GT'; .*label_variable = \"GT\" in the manifest",
    )
