"""Inputs: damage that follows from a seed and a number, and files that hold an input."""

from __future__ import annotations

import base64
import random
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from builders.fuzzing import mutate

from fuzz.damage.places import PLACES
from fuzz.kinds import KINDS, Kind

Content = bytes | str
"""The new bytes of a file, or the name of one of ``PLACES``."""

_PLACE_SHARE, _BYTES_SHARE, _SEALED_SHARE = 0.06, 0.3, 0.5
_HEAD = 1 << 16
"""Of a large file only the beginning is damaged."""
COSTLY = {"build": 2, "reuse": 2, "recompute": 2, "evaluate": 1, "train": 1, "predict": 2}
"""How often a verb that takes long is chosen, by its first word; others have ten."""


@dataclass(frozen=True)
class Input:
    """Damage to one file, or to several that belong together, and the verb that reads them."""

    seed: int
    number: int
    kind: str
    verb: str
    changes: Mapping[str, Content]
    sealed: bool = False
    note: str = field(default="", compare=False)
    """How it was made, for people."""


@cache
def order(seed: int) -> tuple[Kind, ...]:
    """Return the kinds in the order of inputs: each once first, then by their weights."""
    draw = random.Random(f"order {seed}")
    first = list(KINDS)
    draw.shuffle(first)
    more = [kind for kind in KINDS for _ in range(kind.weight - 1)]
    draw.shuffle(more)
    return (*first, *more)


@cache
def _files(world_folder: Path, pattern: str) -> tuple[str, ...]:
    found = sorted(str(path.relative_to(world_folder)) for path in world_folder.glob(pattern))
    if not found:
        raise FileNotFoundError(f"{pattern}: the world holds no such file")
    return tuple(found)


def make_input(world_folder: Path, seed: int, number: int) -> Input:
    """Return an input: the same of equal arguments, given the same sound files."""
    draw = random.Random(f"{seed}/{number}")
    kinds = order(seed)
    kind = kinds[number % len(kinds)]
    pattern = draw.choice(list(kind.files))
    verbs = kind.files[pattern]
    verb = draw.choices(verbs, [COSTLY.get(name.split()[0], 10) for name in verbs])[0]
    names = _files(world_folder, pattern)
    path = draw.choice(names)
    share = draw.random()
    if share < _PLACE_SHARE:
        place = draw.choice(list(PLACES))
        return Input(seed, number, kind.name, verb, {path: place}, note=place)
    data = (world_folder / path).read_bytes()
    if share < _PLACE_SHARE + _BYTES_SHARE or kind.damage is None:
        other = (world_folder / draw.choice(names)).read_bytes()
        head = mutate(draw, [data[:_HEAD], data[:_HEAD], other[:_HEAD]]) if len(data) >= 8 else b"x"
        changed, note = head + data[_HEAD:], "bytes"
    else:
        changed, note = kind.damage(draw, data), kind.damage.__name__
    if kind.seal is not None and draw.random() < _SEALED_SHARE:
        changes = kind.seal(draw, world_folder, path, changed)
        return Input(seed, number, kind.name, verb, changes, sealed=True, note=f"{note}, sealed")
    return Input(seed, number, kind.name, verb, {path: changed}, note=note)


def to_json(made: Input, world_folder: Path) -> dict[str, Any]:
    """Return an input as JSON values; of a large file only what differs from the sound one."""
    return {
        **{
            name: getattr(made, name)
            for name in ("seed", "number", "kind", "verb", "note", "sealed")
        },
        "changes": {
            name: item if isinstance(item, str) else _packed(item, world_folder / name)
            for name, item in made.changes.items()
        },
    }


def from_json(value: Mapping[str, Any], world_folder: Path) -> Input:
    """Return the input that ``to_json`` wrote."""
    changes = {
        name: item if isinstance(item, str) else _unpacked(item, world_folder / name)
        for name, item in value["changes"].items()
    }
    return Input(**{**value, "changes": changes})


def _packed(data: bytes, sound: Path) -> dict[str, Any]:
    before = sound.read_bytes() if sound.is_file() and len(data) > _HEAD else b""
    first = _same_prefix(data, before)
    last = _same_prefix(data[first:][::-1], before[first:][::-1])
    middle = data[first : len(data) - last]
    text = base64.b64encode(zlib.compress(middle, 9)).decode()
    return {"first": first, "middle": text, "last": last}


def _same_prefix(one: bytes, other: bytes) -> int:
    """Return how many bytes two texts begin with alike, to the nearest thousand."""
    step = 1000
    count = 0
    while one[count : count + step] == other[count : count + step] != b"":
        count += step
    return min(count, len(one), len(other))


def _unpacked(value: Mapping[str, Any], sound: Path) -> bytes:
    before = sound.read_bytes() if sound.is_file() else b""
    first, last = value["first"], value["last"]
    middle = zlib.decompress(base64.b64decode(value["middle"]))
    return before[:first] + middle + (before[len(before) - last :] if last else b"")
