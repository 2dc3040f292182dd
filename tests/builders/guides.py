"""What the text of pages of docs/ tells of, made in the current folder."""

from __future__ import annotations

import hashlib
import shutil
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import save

import vocprep
from builders.heads import make_dataset, random_records
from builders.hub import publish
from builders.mirror import Mirror, close_after, status, web_page
from builders.packed import tar_of
from vocprep.synthetic.dataset import sample

MADE = """
title = "A generated data dir"
terms = "none"

[[files]]
path = "downloads/VOCtrainval.tar"
urls = ["{first}VOCtrainval.tar", "{second}VOCtrainval.tar"]
sha256 = "{archive}"
unpack.max_bytes = 10_000_000

[[files]]
path = "downloads/trainval.tar.gz"
urls = ["{second}trainval.tar.gz"]
unpack.max_bytes = 10_000_000

[[files]]
path = "labels.txt"
urls = ["{second}labels.txt"]
sha256 = "{labels}"
"""
BROKEN = """
title = "No mirror has it"
terms = "none"

[[files]]
path = "f.bin"
urls = ["{}sorry/f.bin", "{}login/f.bin"]
"""


def shards_voc() -> None:
    """A version of three small pictures, with mirrored views and crops left out."""
    splits = {name: random_records(name, [(1, 2), (2, 1), (1, 1)]) for name in ("train", "val")}
    make_dataset(Path("shards/voc"), splits)


def two_runs() -> None:
    """Heads of two seeds over shards/context."""
    for name, seed in (("first", 0), ("second", 1)):
        options = vocprep.load_options("quick", overrides={"epochs": 1, "seed": seed})
        vocprep.train("shards/context", f"runs/{name}", options)


@contextmanager
def hub(model: str, repository: str) -> Iterator[str]:
    """A server of this machine that is the hub, whose weights of one model of timm are zeros."""
    import timm  # noqa: PLC0415

    state = timm.create_model(model).state_dict()
    with Mirror({}) as mirror:
        weights = {name: torch.zeros_like(tensor) for name, tensor in state.items()}
        publish(mirror, save(weights), repository=repository)
        yield mirror.url()


def own_pictures(generated: Path) -> None:
    """The folders of mine.toml, and lists of one class, in a data dir of VOC."""
    data = Path("data")
    shutil.copytree(generated, data)
    sample("own", images=6, layout="labelme")
    Path("own/JPEGImages").rename(data / "pictures")
    Path("own/SegmentationClass").rename(data / "masks")
    names = sorted(path.stem for path in (data / "pictures").iterdir())
    (data / "splits").mkdir()
    _write_lines(data / "splits/train.txt", names[:4])
    _write_lines(data / "splits/val.txt", names[4:])
    lists = data / "VOCdevkit/VOC2010/ImageSets/Main"
    for split in ("train", "val"):
        names = (lists / f"{split}.txt").read_text().split()
        flagged = [f"{name} {1 - 2 * (number % 2):2d}" for number, name in enumerate(names)]
        _write_lines(lists / f"car_{split}.txt", flagged)


@contextmanager
def mirrors(generated: Path) -> Iterator[None]:
    """Two mirrors of a generated data dir, the first of which breaks off; made.toml names them.

    files.toml names two that have nothing.
    """
    packed = {
        "VOCtrainval.tar": tar_of(_files(generated, "VOCdevkit")),
        "trainval.tar.gz": _stored(tar_of(_files(generated, "trainval"))),
        "labels.txt": (generated / "labels.txt").read_bytes(),
    }
    with Mirror(packed) as first, Mirror(packed) as second, Mirror({"login/f.bin": b""}) as page:
        first.faults.append(close_after(100_000))
        first.always = status(404)
        page.always = web_page()
        archive, labels = (
            hashlib.sha256(packed[name]).hexdigest() for name in ("VOCtrainval.tar", "labels.txt")
        )
        made = MADE.format(first=first.url(), second=second.url(), archive=archive, labels=labels)
        Path("made.toml").write_text(made)
        Path("files.toml").write_text(BROKEN.format(page.url(), page.url()))
        yield


def _files(folder: Path, name: str) -> dict[str, bytes]:
    paths = sorted(path for path in (folder / name).rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _stored(data: bytes) -> bytes:
    """Return a gzip file of blocks as they are, since not every zlib makes the same bytes."""
    parts = [data[start : start + 0xFFFF] for start in range(0, len(data), 0xFFFF)]
    blocks = b"".join(
        struct.pack("<BHH", part is parts[-1], len(part), len(part) ^ 0xFFFF) + part
        for part in parts
    )
    head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    return head + blocks + struct.pack("<II", zlib.crc32(data), len(data))


def _write_lines(path: Path, lines: list[str]) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))
