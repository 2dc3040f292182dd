"""What ``build-shards`` prints at its end, and after a resume."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from builders.progress import Interrupting
from builders.verbs import build_words
from builders.versions import JPEGS
from click.testing import Result
from PIL import Image

from vocprep.building.results import ShardCounts
from vocprep.cli.build_output import kept_words, memory_words, work_words
from vocprep.cli.printing import duration

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
TIME = r"\d+(\.\d)? (s|min)"


def lines(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()


class _StopsAtTheThird(Interrupting):
    """Ctrl-C while the third image is counted."""

    def __init__(self, _unit: str) -> None:
        self._count = 0

    def advance(self, count: int) -> None:
        self._count += count
        if self._count >= 3:
            super().advance(count)


def test_the_last_lines_are_what_a_person_needs(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "my shards"
    printed = lines(vocprep(*build_words(sample_tree, out)))
    content_id = json.loads((out / "dataset.json").read_text())["content_id"]
    assert printed[0] == f"context460-crop224-resnet32-exact@{content_id[:12]}"
    assert printed[1].startswith("4 records: train 2, val 2; 4 hdf5 shards, 0.")
    assert printed[1].endswith(f" MB, in {out}")
    made = rf"4 images made in {TIME}, \d+\.\d images/s(, (most|\d+ %) of the time in [a-z].*)?"
    assert re.fullmatch(made, printed[2])
    assert printed[3:] == [
        f"next: vocprep train '{out}' --out runs/first",
        f"more: vocprep inspect '{out}'",
    ]


def test_shards_are_counted_by_where_they_come_from(
    tree: Path, tmp_path: Path, vocprep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr("vocprep.cli.build.Bars", _StopsAtTheThird)
        patched.setattr("vocprep.cli.build.stop", _raise_again)
        assert vocprep(*build_words(tree, out, "--workers", 1)).exit_code == 130
    resumed = lines(vocprep(*build_words(tree, out)))[2]
    found = re.match(r"([12]) of 4 shards finished before; ([23]) images made in ", resumed)
    assert found
    assert int(found[1]) + int(found[2]) == 4

    again = lines(vocprep(*build_words(tree, out)))[2]
    assert re.fullmatch(rf"up to date: checked in {TIME}, nothing to build", again)

    jpeg = min((tree / JPEGS).iterdir())
    with Image.open(jpeg) as picture:
        picture.save(jpeg, quality=40)
    value = json.loads(vocprep(*build_words(tree, out, "--json")).stdout)
    assert value["build"]["shards"] == {"made": 1, "resumed": 0, "kept": 3}
    assert (value["build"]["images"], value["build"]["made"]) == (4, 1)


def _raise_again(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("counts", "expected"),
    [
        (ShardCounts(made=40), ""),
        (ShardCounts(made=1_000, resumed=1_200), "1,200 of 2,200 shards finished before"),
        (ShardCounts(made=1, kept=1), "1 of 2 shards kept as they were"),
        (
            ShardCounts(made=1, resumed=2, kept=3),
            "2 of 6 shards finished before, 3 kept as they were",
        ),
    ],
)
def test_shards_in_words(counts: ShardCounts, expected: str) -> None:
    assert kept_words(counts) == expected


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ({}, ""),
        ({"embed": 1.0, "write": 1.0, "waiting": 9.0}, ""),  # four seconds in all
        ({"embed": 86.0, "read": 14.0}, ", most of the time in the backbone (86 %)"),
        ({"decode": 5, "embed": 5}, ", 50 % of the time in decoding, 50 % in the backbone"),
    ],
)
def test_time_in_words(stages: dict[str, float], expected: str) -> None:
    assert work_words(stages, seconds=4.0) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        *((0.04, "0.0 s"), (9.94, "9.9 s"), (9.96, "10 s"), (99.4, "99 s"), (99.6, "2 min")),
        *((5_969, "99 min"), (5_971, "1.7 h"), (100_000, "27.8 h")),
    ],
)
def test_times_are_short(seconds: float, expected: str) -> None:
    assert duration(seconds) == expected


@pytest.mark.parametrize(
    ("processes", "free", "expected"),
    [
        (1, None, "about 1.6 GB"),
        (1, 1_600_000_000, "about 1.6 GB; 1.6 GB are free"),
        (1, 10**9, "about 1.6 GB, and only 1.0 GB are free: use fewer --samples-per-shard"),
        (2, 10**9, ": use fewer --processes or --samples-per-shard"),
    ],
)
def test_memory_in_words(processes: int, free: int | None, expected: str) -> None:
    plan: Any = SimpleNamespace(
        memory=1_600_000_000, memory_per_process=300_000_000, processes=processes
    )
    assert memory_words(plan, free).endswith(expected)


def test_dry_run_states_the_memory_of_all_processes(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = build_words(sample_tree, tmp_path / "out", "--dry-run")
    memory = re.compile(r"memory   about [12]\.\d GB(, of it 0\.1 GB in each of 4 processes)?; .*")
    for more in ((), ("--processes", 9)):
        (found,) = filter(None, map(memory.fullmatch, lines(vocprep(*words, *more))))
        assert bool(found[1]) == bool(more)
    one, four = (
        json.loads(vocprep(*words, "--json", "--processes", count).stdout) for count in (1, 9)
    )
    assert (one["processes"], four["processes"]) == (1, 4)
    assert one["memory"] < four["memory"] < one["memory"] + 9 * four["memory_per_process"]
    assert four["memory_per_process"] < one["memory_per_process"] == one["memory"]
