"""Damage files on purpose and decode them, in a process of its own, so that a crash is seen.

Run as ``python fuzzing.py DECODER COUNT SEED``, a seed file on standard input. Prints how often
each outcome came; anything but an array or the typed error ends in a traceback, any warning too.
"""

from __future__ import annotations

import collections
import faulthandler
import pickle
import random
import resource
import struct
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

MEMORY = 2 << 30
TAGS = [*range(20), 0xFF, 0xFFFF, 0x10002, 0x40004, 0x50001, 2**31 - 1, 2**31, 2**32 - 1]


def flip_bits(draw: random.Random, data: bytearray, _: bytes) -> None:
    for _unused in range(draw.choice([1, 1, 2, 8])):
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def set_bytes(draw: random.Random, data: bytearray, _: bytes) -> None:
    start = draw.randrange(len(data))
    data[start : start + 4] = draw.randbytes(min(4, len(data) - start))


def truncate(draw: random.Random, data: bytearray, _: bytes) -> None:
    del data[draw.randrange(len(data)) :]


def delete(draw: random.Random, data: bytearray, _: bytes) -> None:
    start = draw.randrange(len(data))
    del data[start : start + draw.choice([1, 4, 8, 64])]


def insert(draw: random.Random, data: bytearray, _: bytes) -> None:
    start = draw.randrange(len(data))
    data[start:start] = draw.randbytes(draw.choice([1, 4, 8, 64]))


def set_tag(draw: random.Random, data: bytearray, _: bytes) -> None:
    """Put a number that means something to the format where its tags stand."""
    start = draw.randrange(len(data) // 4) * 4
    data[start : start + 4] = draw.choice(TAGS).to_bytes(4, draw.choice(["little", "big"]))


def splice(draw: random.Random, data: bytearray, other: bytes) -> None:
    start = draw.randrange(len(data))
    data[start:] = other[draw.randrange(len(other)) :]


MUTATIONS = [flip_bits, set_bytes, truncate, delete, insert, set_tag, set_tag, splice]


def mutate(draw: random.Random, seeds: list[bytes]) -> bytes:
    """Return one seed, damaged once or a few times, mostly near its beginning."""
    data = bytearray(draw.choice(seeds))
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        if len(data) < 8:
            break
        if draw.random() < 0.5:  # heads hold what a reader follows
            head = data[: draw.choice([32, 160, 256])]
            rest = data[len(head) :]
            draw.choice(MUTATIONS)(draw, head, draw.choice(seeds))
            data = head + rest
        else:
            draw.choice(MUTATIONS)(draw, data, draw.choice(seeds))
    return bytes(data)


def with_right_checksums(data: bytes) -> bytes:
    """Return a PNG with the checksums that fit its chunks, as far as it has any."""
    out, position = bytearray(data[:8]), 8
    while position + 12 <= len(data):
        stop = position + 12 + int.from_bytes(data[position : position + 4], "big")
        body = data[position + 4 : stop - 4]
        out += data[position : position + 4] + body + zlib.crc32(body).to_bytes(4, "big")
        position = stop
    return bytes(out)


def recompressed(data: bytes) -> bytes:
    """Return an uncompressed .mat with all its variables in one compressed element."""
    packed = zlib.compress(data[128:])
    return data[:128] + struct.pack("<II", 15, len(packed)) + packed


def decoder(name: str) -> tuple[Callable[[bytes, str], object], type[Exception]]:
    """Return a decoder and the one error that it may raise."""
    if name.startswith("picture."):
        from vocprep.errors import ImageDecodeError  # noqa: PLC0415
        from vocprep.features.picture_formats import FORMATS  # noqa: PLC0415

        return FORMATS[name.removeprefix("picture")].decode, ImageDecodeError
    if "label." in name:
        return _label_decoder(name)
    if name.endswith(("mat", "png")):
        from vocprep.errors import LabelDecodeError  # noqa: PLC0415
        from vocprep.labels import mat, png  # noqa: PLC0415

        decoders: dict[str, Callable[[bytes, str], object]] = {
            "mat": mat.decode_mat,
            "recompressed_mat": lambda data, where: mat.decode_mat(recompressed(data), where),
            "png": png.decode_png,
            "rechecked_png": lambda data, where: png.decode_png(with_right_checksums(data), where),
        }
        return decoders[name], LabelDecodeError
    from vocprep.errors import ImageDecodeError  # noqa: PLC0415
    from vocprep.features import image  # noqa: PLC0415

    return getattr(image, name), ImageDecodeError


def _label_decoder(name: str) -> tuple[Callable[[bytes, str], object], type[Exception]]:
    """Return the decoder of ``label.KIND``."""
    from vocprep.errors import LabelDecodeError  # noqa: PLC0415
    from vocprep.labels.colours import ColourTable  # noqa: PLC0415
    from vocprep.labels.decode import LabelRule  # noqa: PLC0415

    table = ColourTable.of({"#000000": 0, "#800000": 1, "#00ff7f": 300, "#ffffff": 255})
    kind = name.rpartition(".")[2]
    rule = LabelRule(kind=kind, colours=table)  # type: ignore[arg-type]  # a test's name of it
    is_rechecked = name.startswith("rechecked")

    def decode(data: bytes, where: str) -> object:
        return rule.decode(with_right_checksums(data) if is_rechecked else data, Path(where))

    return decode, LabelDecodeError


def main() -> None:
    """Decode COUNT damaged files."""
    faulthandler.enable()
    name, count, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    seeds: list[bytes] = pickle.loads(sys.stdin.buffer.read())
    decode, error_type = decoder(name)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    draw = random.Random(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for number in range(count):
            data = mutate(draw, seeds)
            try:
                decode(data, "damaged.file")
                outcomes["decoded"] += 1
            except error_type as error:
                if not str(error).startswith("damaged.file: "):
                    raise RuntimeError(f"seed {seed} input {number}: no file name") from error
                outcomes["refused"] += 1
            except BaseException as error:
                raise RuntimeError(f"seed {seed} input {number}: {data[:400].hex()}") from error
            if caught:
                raise RuntimeError(f"seed {seed} input {number}: {caught[0].message}")
    print(outcomes["decoded"], outcomes["refused"])  # noqa: T201


def fuzz(name: str, seeds: list[bytes], count: int, seed: int) -> tuple[int, int]:
    """Run ``main`` in a child; return how many decoded and how many were refused."""
    command = [sys.executable, str(Path(__file__)), name, str(count), str(seed)]
    done = subprocess.run(
        command, input=pickle.dumps(seeds), capture_output=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    decoded, refused = done.stdout.split()
    return int(decoded), int(refused)


if __name__ == "__main__":
    main()
