"""What verbs share: the input that they look at, and what they require of results."""

from __future__ import annotations

import functools
import hashlib
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
from builders.records import FIELDS
from builders.version_bytes import version_bytes

import vocprep
from fuzz.damage.pictures import has_all_pixels

DIFFERENCES = 1


class BrokenPromise(Exception):  # noqa: N818  # what it is called in the table of failures
    """A result that contradicts what the program promises."""


@dataclass(frozen=True)
class Job:
    """One input, as far as verbs look at it."""

    world: Path
    draw: random.Random
    damaged: Mapping[str, object]
    """The changed files, by their paths."""
    sealed: bool
    """Whether digests were made to agree with the damage, as whoever made the files could."""


@dataclass(frozen=True)
class Verb:
    """A verb, the entries of the world that it needs, and those that it may change."""

    act: Callable[[Job], bool]
    needs: tuple[str, ...]
    writes: tuple[str, ...] = ()


def command(name: click.Command, *arguments: str) -> bool:
    """Run a command of the command line, without the boundary that makes errors a sentence."""
    code = name.main(list(arguments), prog_name="vocprep", standalone_mode=False)
    return code != DIFFERENCES


def digests(folder: str | Path) -> dict[str, str]:
    """Return a digest of every record of a version, over its arrays and pixels."""
    dataset = vocprep.open(folder)
    found = {}
    for shard in dataset.index.shards:
        for record in dataset.read_shard(shard.name, all_views=True):
            values = [getattr(record, name) for name in FIELDS if name != "label_png"]
            digest = hashlib.sha256(record.label_map.tobytes())
            for value in values:
                is_array = hasattr(value, "tobytes")
                digest.update(value.tobytes() if is_array else repr(value).encode())
            found[record.image_id] = digest.hexdigest()
    return found


@functools.cache
def expected_digests(world_folder: Path, version: str) -> dict[str, str]:
    return digests(world_folder / version)


def require_same_records(job: Job, found: dict[str, str], version: str, what: str) -> None:
    expected = expected_digests(job.world, version)
    if found != expected:
        names = sorted(key for key in expected | found if expected.get(key) != found.get(key))
        raise BrokenPromise(f"{what}, but records {', '.join(names)[:200]} are others")


def require_same_files(job: Job, what: str, ignored: Callable[[str], bool]) -> None:
    """Require that no damaged file differs from the sound one."""
    for name in job.damaged:
        sound = job.world / name
        if not ignored(name) and not _is_same_file(Path(name), sound):
            raise BrokenPromise(f"{what}, but {name} was changed")


def _is_same_file(one: Path, other: Path) -> bool:
    if not (one.is_file() and other.is_file()) or one.stat().st_size != other.stat().st_size:
        return False  # a sparse file may be larger than memory
    return one.read_bytes() == other.read_bytes()


@functools.cache
def sound_bytes(world_folder: Path, version: str) -> dict[str, bytes]:
    return version_bytes(world_folder / version)


def require_whole(job: Job, suffixes: Collection[str], refused: Collection[str] = ()) -> None:
    """Require that no damaged picture or mask that was read ends early."""
    for name in job.damaged:
        path = Path(name)
        if path.suffix in suffixes and path.stem not in refused and path.is_file():
            data = path.read_bytes()
            if not (has_all_pixels(data) if path.suffix == ".png" else b"\xff\xd9" in data):
                raise BrokenPromise(f"{name} was read without an error, but its pixels end early")
