"""Damage to files of numbers that keeps lengths and checksums right: MAT, NPY, HDF5, weights."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from builders.fuzzing import mutate, recompressed
from builders.mat import CODES, Mat
from scipy.io import savemat

from fuzz.damage.texts import RAW_JSON, changed_value, json_text

_SHAPES = (
    *((0,), (1,), (64,), (64, 64), (64, 64, 1), (1, 64, 64), (0, 64), (64, 0), (8192, 8193)),
    *((2**31 - 1, 2), (-1, 5), (5, -1), (2**31 - 1, 2**31 - 1), (1,) * 40, ()),
)


def damaged_mat(draw: random.Random, data: bytes) -> bytes:
    """Return a MATLAB file of another variable, or the file with changes below its compression."""
    kind = draw.randrange(6)
    if kind <= 2:
        return recompressed(mutate(draw, [_uncompressed(data)]))
    if kind == 3:
        return _odd_mat(draw)
    if kind == 4:
        return _other_variables(draw)
    packed = zlib.compress(_uncompressed(data)[128:] + bytes(draw.choice([8, 10**6, 2 * 10**7])))
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed


def _uncompressed(data: bytes) -> bytes:
    """Return a file with its first variable as it was before compression."""
    kind, size = struct.unpack_from("<II", data, 128)
    try:
        return data[:128] + zlib.decompress(data[136 : 136 + size]) if kind == 15 else data
    except zlib.error:
        return data


def _odd_mat(draw: random.Random) -> bytes:
    """Return a file of one variable with one odd property, or two."""
    values = np.random.default_rng(0).integers(0, 6, (64, 64))
    mat = Mat(
        order=draw.choice("<<<>"),
        name=draw.choice([b"LabelMap", b"LabelMap", b"labelmap", b"", b"x" * 70_000, b"\xff"]),
        class_id=draw.choice([11, 11, 11, *range(20), 255]),
        flags=draw.choice([0, 0, 0x800, 0x400, 0x200, 2**31]),
        stored=draw.choice([4, 4, *CODES]),
        shape=draw.choice([None, None, *_SHAPES]) or None,
    )
    data = mat.file(values, compressed=draw.random() < 0.5)
    return mutate(draw, [data]) if draw.random() < 0.3 else data


def _other_variables(draw: random.Random) -> bytes:
    """Return a file that holds other variables than one label map."""
    label_map = np.zeros((64, 64), np.uint16)
    choices: list[dict[str, Any]] = [
        {"labels": label_map},
        {"LabelMap": label_map.astype(np.uint8)},
        {"LabelMap": label_map.astype(np.float64) + 0.5},
        {"LabelMap": "text"},
        {"LabelMap": {"a": 1}},
        {"LabelMap": np.array([[label_map]], dtype=object)},
        {"LabelMap": label_map.astype(complex)},
        {f"v{number}": number for number in range(300)} | {"LabelMap": label_map},
        {},
    ]
    number = draw.randrange(len(choices) + 2)
    if number < len(choices):
        stream = io.BytesIO()
        savemat(stream, choices[number], do_compression=draw.random() < 0.5)
        return stream.getvalue()
    mat = Mat(name=b"v", shape=(1, 1))
    small = mat.matrix(np.zeros((1, 1), np.uint16)) * draw.choice([1000, 200_000])
    if number == len(choices):
        return mat.header() + small
    return mat.header() + mat.compress(small)


def damaged_npy(draw: random.Random, data: bytes) -> bytes:
    """Return an NPY file with another header, of the same length or another."""
    array = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
    descr = draw.choice(
        [
            *("'<f2'", "'>f2'", "'<f4'", "'|O'", "'|V2'", "'<U100000'", "'<i1'", "''", "None", "7"),
            *("[('a','<f2')]", "[('a','<f2',(2,))]", "'<M8[s]'", "(" * 200 + ")" * 200, "1+1"),
            *("'f'*9", "open('x')", "\x00", "[" * 5000, "'<f2"),
        ]
    )
    shape = draw.choice(
        [
            *(str(array.shape), "(-1,)", "(2**63,)", "(9999999999,)", "None", "[1]", "(1.5,)"),
            *("()", "(0,)", "(True,)", "('1',)", "(4,5,6,7,8,9)", f"({'1,' * 40})"),
            *("(18446744073709551616,)", "(1099511627776, 1099511627776)", "(" * 90),
        ]
    )
    if draw.random() < 0.5:
        descr = repr(array.dtype.str)
    order = draw.choice(["False", "False", "True", "0", "None"])
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text += draw.choice(["", "", "", ", 'x': 1", " # comment", "}", "\n\n", "\\"])
    head = text.encode("latin-1", "replace")
    head += b" " * (draw.choice([0, 0, 117 - len(head)])) + draw.choice([b"\n", b"\n", b""])
    version = draw.choice([b"\1\0", b"\1\0", b"\2\0", b"\3\0", b"\0\0", b"\xff\0"])
    size = struct.pack("<H" if version == b"\1\0" else "<I", min(len(head), 65535))
    return b"\x93NUMPY" + version + size + head + array.tobytes()[: draw.choice([None, 10])]


def damaged_hdf5(draw: random.Random, data: bytes) -> bytes:
    """Return an HDF5 file with changes whose checksums are right, or made anew with odd arrays."""
    if draw.random() < 0.5:
        return with_right_hdf5_checksums(mutate(draw, [data]))
    return _rewritten_hdf5(draw, data)


def with_right_hdf5_checksums(data: bytes) -> bytes:
    """Return an HDF5 file in which the superblock and all object headers have their checksums."""
    fixed = bytearray(data)
    if fixed[:4] == b"\x89HDF" and len(fixed) > 48 and fixed[8] in (2, 3):
        size = 12 + 4 * 8
        fixed[size : size + 4] = struct.pack("<I", _lookup3(bytes(fixed[:size])))
    position = fixed.find(b"OHDR")
    while position >= 0:
        flags = fixed[position + 5] if position + 5 < len(fixed) else 0
        start = position + 6 + (16 if flags & 0x20 else 0) + (4 if flags & 0x10 else 0)
        width = 1 << (flags & 3)
        stop = start + width + int.from_bytes(fixed[start : start + width], "little")
        if stop + 4 <= len(fixed):
            fixed[stop : stop + 4] = struct.pack("<I", _lookup3(bytes(fixed[position:stop])))
        position = fixed.find(b"OHDR", position + 4)
    return bytes(fixed)


def _lookup3(data: bytes) -> int:
    """Return Jenkins' hash of bytes, the checksum of HDF5's metadata."""
    mask = 0xFFFFFFFF

    def turned(value: int, by: int) -> int:
        return (value << by | value >> 32 - by) & mask

    words = [(0xDEADBEEF + len(data)) & mask] * 3
    last = max(0, -(-len(data) // 12) - 1) * 12
    for start in range(0, last, 12):
        block = struct.unpack_from("<III", data, start)
        a, b, c = ((word + more) & mask for word, more in zip(words, block, strict=True))
        for by in (4, 6, 8, 16, 19, 4):  # of three words in turn
            a = ((a - c) ^ turned(c, by)) & mask
            c = (c + b) & mask
            a, b, c = b, c, a
        words = [a, b, c]
    if not data:
        return words[2]
    block = struct.unpack("<III", data[last:].ljust(12, b"\0"))
    a, b, c = ((word + more) & mask for word, more in zip(words, block, strict=True))
    for by in (14, 11, 25, 16, 4, 14, 24):
        c = ((c ^ b) - turned(b, by)) & mask
        a, b, c = b, c, a
    return b


def _rewritten_hdf5(draw: random.Random, data: bytes) -> bytes:
    """Return an HDF5 file of the same arrays in which one is stored or shaped otherwise."""
    with h5py.File(io.BytesIO(data), "r") as file:
        arrays = {name: item[()] for name, item in file.items()}
        attributes = dict(file.attrs)
    name = draw.choice(list(arrays))
    kind = draw.randrange(18)
    if kind == 0:
        attributes[draw.choice(list(attributes))] = draw.choice([0, 1.5, "x", b"y", [1, 2], 2**60])
    elif kind == 1:
        del attributes[draw.choice(list(attributes))]
    elif kind == 2:
        arrays["more"] = arrays[name]
    elif kind == 3:
        arrays[name] = arrays[name][: len(arrays[name]) // 2]
    elif kind == 4:
        arrays[name] = np.concatenate([arrays[name]] * 2)
    elif kind == 5:
        arrays[name] = arrays[name].astype(object if arrays[name].dtype.kind == "S" else ">f8")
    elif kind == 6:
        arrays[name] = draw.choice([np.float64(3), np.zeros((0,)), np.zeros((3, 3, 3), np.int8)])
    elif kind == 7 and arrays[name].dtype.kind in "iu":
        number = draw.choice([-1, 1, 2**31 - 1, 1000])
        arrays[name] = np.full_like(arrays[name], np.array(number).astype(arrays[name].dtype))
    elif kind == 8 and arrays[name].dtype.kind == "f":
        arrays[name] = np.full_like(arrays[name], draw.choice([np.nan, np.inf, 0, -1]))
    stream = io.BytesIO()
    with h5py.File(stream, "w", libver=draw.choice(["v108", "v108", "latest", "earliest"])) as file:
        for key, value in attributes.items():
            file.attrs[key] = value
        for key, value in arrays.items():
            if key == name and kind > 8:
                _odd_dataset(draw, file, key, value, kind)
            else:
                file.create_dataset(key, data=value)
    return stream.getvalue()


def _odd_dataset(draw: random.Random, file: h5py.File, name: str, array: Any, kind: int) -> None:
    """Store an array in a way that a shard must not: filtered, elsewhere, virtual, too large."""
    huge = (2**40, *array.shape[1:])
    if kind == 9:
        file.create_dataset(name, data=array, chunks=True, compression="gzip")
    elif kind == 10:
        file.create_dataset(name, data=array, chunks=True, shuffle=True, fletcher32=True)
    elif kind == 11:
        target = draw.choice(["/dev/zero", "train-00000-of-00002.h5", "/etc/passwd", "no.h5"])
        file[name] = h5py.ExternalLink(target, f"/{name}")
    elif kind == 12:
        file[name] = h5py.SoftLink(draw.choice(["/grid", f"/{name}", "/nowhere"]))
    elif kind == 13:
        external = [(draw.choice(["/dev/zero", "/etc/passwd"]), 0, array.nbytes)]
        file.create_dataset(name, array.shape, array.dtype, external=external)
    elif kind == 14:
        layout = h5py.VirtualLayout(array.shape, array.dtype)
        layout[...] = h5py.VirtualSource("no.h5", name, array.shape, array.dtype)
        file.create_virtual_dataset(name, layout)
    elif kind == 15:
        file.create_dataset(name, huge, array.dtype, chunks=(1024, *array.shape[1:]))
    elif kind == 16:
        file.create_group(name)
    else:
        dtype = draw.choice([h5py.string_dtype(), h5py.ref_dtype, "V8", "<c8", "?", "<f2", "<u8"])
        file.create_dataset(name, array.shape, dtype)


def damaged_safetensors(draw: random.Random, data: bytes) -> bytes:
    """Return a safetensors file with a changed header, its length right."""
    size = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + size]), data[8 + size :]
    kind = draw.randrange(6)
    name = draw.choice([key for key in header if key != "__metadata__"])
    item = header[name]
    if kind <= 1:
        header = changed_value(draw, header, RAW_JSON)
    elif kind == 2:
        about = header.setdefault("__metadata__", {})
        about["vocprep"] = json_text(
            changed_value(draw, json.loads(about.get("vocprep", "{}")) or {"a": 1}, RAW_JSON)
        )
    elif kind == 3:
        item["dtype"] = draw.choice(["F32", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F64"])
        item["shape"] = draw.choice([item["shape"], [item["data_offsets"][1]], [0], [-1], []])
    elif kind == 4:
        header[name] = {**item, "data_offsets": draw.choice([[0, 0], [4, 0], [0, 2**63], [0]])}
    else:
        start, stop = item["data_offsets"]
        number = struct.pack("<f", draw.choice([float("nan"), float("inf"), 1e38, -1.0]))
        body = body[:start] + number * ((stop - start) // 4) + body[stop:]
    text = json_text(header).encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(text)) + text + body


def damaged_torch(draw: random.Random, data: bytes) -> bytes:
    """Return what torch.save writes of other values than a dictionary of plain tensors."""
    state = torch.load(io.BytesIO(data), weights_only=True)
    name = draw.choice(list(state))
    tensor = state[name]
    others: list[Any] = [
        *(None, [], "text", 5, [tensor], {"state_dict": state}, {1: tensor}, {}, tensor, (tensor,)),
        *({**state, name: 5}, {**state, name: None}, {**state, "more": tensor}, {name: tensor}),
        {**state, name: tensor.double()},
        {**state, name: tensor.to(torch.complex64)},
        {**state, name: tensor.half()},
        {**state, name: tensor.float() * float("nan")},
        {**state, name: torch.zeros(3)},
        {**state, name: torch.zeros(2, 3).to_sparse()},
        {**state, name: tensor.to("meta")},
        {**state, name: torch.zeros(1).expand(2**40)},
        {**state, name: torch.nn.Parameter(torch.zeros(3))},
        {f"module.{key}": value for key, value in state.items()},
        {**state, "x" * 5000: tensor},
        {**state, "a\nb\x1b[2J": tensor},
        {**state, name: Path("x")},
    ]
    stream = io.BytesIO()
    torch.save(draw.choice(others), stream, _use_new_zipfile_serialization=draw.random() < 0.7)
    return stream.getvalue()
