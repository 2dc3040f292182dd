"""Every command once, over small data: what is run, where it writes, and what it leaves."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from builders.mirror import Mirror
from builders.packed import FILES, digests
from vocprep.cli.main import main

IMAGES = 2
BUILD = ("--weights", "random:0", "--samples-per-shard", 1, "--device", "cpu", "--workers", 1)


@dataclass(frozen=True, kw_only=True)
class World:
    """What the commands read; not to be written to."""

    tree: Path
    shards: Path
    run: Path
    source: Path
    """A manifest of files on a mirror."""

    @property
    def images(self) -> list[Path]:
        return sorted((self.tree / "VOCdevkit/VOC2010/JPEGImages").iterdir())


Words = Sequence[object]


@dataclass(frozen=True, kw_only=True)
class Job:
    """A command that writes below a folder."""

    words: Callable[[World, Path], Words]
    """Of the command, given what is there and the folder."""
    prepare: Callable[[World, Path], None] = lambda _world, _folder: None
    """Fills the folder with what the command finds there."""


def _build(container: str) -> Callable[[World, Path], Words]:
    return lambda world, folder: (
        *("build-shards", "pascal-context", "--data-dir", world.tree, "--out", folder / "out"),
        *("--if-exists", "resume", "--format", container, *BUILD),
    )


def _overwrite(world: World, folder: Path) -> Words:
    return (
        *("build-shards", "pascal-context", "--data-dir", world.tree, "--out", folder / "out"),
        *("--if-exists", "overwrite", "--schema", "context59", *BUILD),
    )


JOBS = {
    "sample": Job(words=lambda _, folder: ("sample", folder / "out", "--images", IMAGES)),
    "decode": Job(
        words=lambda world, folder: (
            *("decode", "pascal-context", "--data-dir", world.tree, "--out", folder / "out"),
        ),
    ),
    "decode again": Job(
        words=lambda world, folder: (
            *("decode", "pascal-context", "--data-dir", world.tree, "--out", folder / "out"),
            *("--schema", "context59"),
        ),
        prepare=lambda world, folder: run_words(
            *("decode", "pascal-context", "--data-dir", world.tree, "--out", folder / "out")
        ),
    ),
    "download": Job(
        words=lambda world, folder: ("download", world.source, "--data-dir", folder / "out")
    ),
    "build hdf5": Job(words=_build("hdf5")),
    "build webdataset": Job(words=_build("webdataset")),
    "build over another version": Job(
        words=_overwrite,
        prepare=lambda world, folder: shutil.copytree(world.shards, folder / "out") and None,
    ),
    "inspect --lock": Job(
        words=lambda world, folder: ("inspect", world.shards, "--lock", folder / "voc.lock.json")
    ),
    "predict": Job(
        words=lambda world, folder: (
            *("predict", world.run, *world.images, "--out", folder / "out", "--device", "cpu"),
        )
    ),
    "evaluate": Job(
        words=lambda world, folder: (
            *("evaluate", world.run, world.shards, "--out", folder / "out", "--device", "cpu"),
        )
    ),
    "train": Job(
        words=lambda world, folder: (
            *("train", world.shards, "--out", folder / "out", "--epochs", 1, "--device", "cpu"),
            *("--set", "encoder=none", "--resume"),
        )
    ),
    "export over another": Job(
        words=lambda world, folder: (
            *("export", world.shards, "--to", "npy", "--out", folder / "out"),
            *("--splits", "train"),
        ),
        prepare=lambda world, folder: run_words(
            *("export", world.shards, "--to", "npy", "--out", folder / "out")
        ),
    ),
    "verify": Job(words=lambda world, _: ("verify", world.shards)),
}


def build_words(tree: Path, out: Path, *more: object) -> list[object]:
    """A build of two images of each split, one a shard."""
    return [
        *("build-shards", "pascal-context", "--data-dir", tree, "--out", out),
        *("--weights", "random:0", "--limit-per-split", 2, "--samples-per-shard", 1),
        *("--device", "cpu", *more),
    ]


def run_words(*words: object) -> None:
    result = invoke(*words)
    assert result.exit_code == 0, result.output


def invoke(*words: object) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@contextmanager
def make_world(folder: Path) -> Iterator[World]:
    """Make a data dir, a dataset version, a run, and serve a source."""
    world = World(
        tree=folder / "tree",
        shards=folder / "shards",
        run=folder / "run",
        source=folder / "made.toml",
    )
    run_words("sample", world.tree, "--images", IMAGES)
    run_words(
        *("build-shards", "pascal-context", "--data-dir", world.tree, "--out", world.shards),
        *BUILD,
    )
    run_words(
        *("train", world.shards, "--out", world.run, "--epochs", 1, "--device", "cpu"),
        *("--set", "encoder=none"),
    )
    with Mirror(FILES) as mirror:
        world.source.write_text(_manifest(mirror.url()))
        yield world


def _manifest(url: str) -> str:
    """Return a source of an archive with a digest, and of a file without any."""
    archive = "VOCtrainval.tar"
    return f"""
title = "Made"
terms = "none"
[[files]]
path = "downloads/{archive}"
urls = ["{url}{archive}"]
sha256 = "{digests(FILES[archive])["sha256"]}"
[files.unpack]
max_bytes = 1000000
[[files]]
path = "names.txt"
urls = ["{url}labels.txt"]
"""


def contents(folder: Path) -> dict[str, bytes]:
    """All files below a folder by path, without what differs between two runs: times and locks."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not name.endswith(".lock") and "tensorboard" not in path.parts:
            found[name] = _without_times(path)
    return found


def _without_times(path: Path) -> bytes:
    data = path.read_bytes()
    try:
        if path.name == "dataset.json":
            index = json.loads(data)
            del index["statistics"]["seconds"], index["index_sha256"]
            return json.dumps(index).encode()
        if path.name == "metrics.jsonl":
            kept = [_without(json.loads(line)) for line in data.splitlines()]
            return json.dumps(kept).encode()
        if path.parent.name == "receipts":
            return json.dumps(_without(json.loads(data))).encode()
    except (KeyError, ValueError):  # not whole: for whoever compares to see
        pass
    return data


def _without(values: dict[str, Any]) -> dict[str, Any]:
    # A file that is here and right needs no mirror, where a killed run could not record it.
    times = ("seconds", "images_per_second", "mtime_ns", "mirror")
    return {name: value for name, value in values.items() if name not in times}
