"""``build-shards --part``: what it prints, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

pytestmark = pytest.mark.slow

Run = Callable[..., Result]


@pytest.fixture
def words(sample_tree: Path, tmp_path: Path) -> list[object]:
    return [
        *("build-shards", "pascal-context", "--data-dir", sample_tree, "--out", tmp_path / "out"),
        *(
            "--weights",
            "random:0",
            "--limit-per-split",
            2,
            "--samples-per-shard",
            1,
            "--device",
            "cpu",
        ),
    ]


def test_a_part_prints_what_is_missing_and_the_next_command(
    words: list[object], vocprep: Run
) -> None:
    lines = vocprep(*words, "--part", "0/3").stdout.splitlines()
    assert lines[0].startswith("part     0/3: 2 shards finished, 2 images, 2 of them made now in ")
    assert lines[1:] == [
        "missing  2 shards, of --part 1/3, 2/3",
        "next     once they are there, the same command without --part publishes",
    ]
    value = json.loads(vocprep(*words, "--part", "1/3", "--json").stdout)
    assert value["part"] == "1/3"
    assert value["shards"] == ["train-00001-of-00002.h5"]
    assert value["missing"] == ["val-00000-of-00002.h5"]
    assert value["unfinished"] == ["2/3"]
    assert (value["images"], value["made"]) == (1, 1)
    lines = vocprep(*words, "--part", "2/3").stdout.splitlines()
    assert lines[1:] == ["missing  none: the same command without --part publishes"]
    result = vocprep(*words)
    assert result.exit_code == 0
    assert "\nits shards were there, now published: checked in " in result.stdout


def test_a_dry_run_lists_the_shards_of_the_part(words: list[object], vocprep: Run) -> None:
    lines = vocprep(*words, "--part", "1/2", "--dry-run").stdout.splitlines()
    assert "part     1/2, which alone is counted below" in lines
    assert [line.split()[0] for line in lines if ".h5" in line] == [
        "train-00001-of-00002.h5",
        "val-00001-of-00002.h5",
    ]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("--part", "2/2"), "part '2/2': expected I/N with a number I from 0 to N−1"),
        (("--part", "0/2", "--if-exists", "overwrite"), "parts would delete each other's shards"),
        (("--part", "0/2", "--if-exists", "fail"), "parts would refuse each other's shards"),
    ],
)
def test_what_parts_cannot_do_is_one_sentence(
    more: tuple[str, ...], expected: str, words: list[object], tmp_path: Path, vocprep: Run
) -> None:
    result = vocprep(*words, *more)
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert expected in line
    assert not (tmp_path / "out").exists()
