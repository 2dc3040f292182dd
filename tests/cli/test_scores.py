"""How scores of several runs stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from vocprep.cli.scores import print_comparison
from vocprep.heads.runs.options import EvaluateOptions
from vocprep.heads.scoring.comparison import compare_runs
from vocprep.heads.scoring.evaluate import evaluate
from vocprep.heads.scoring.scores import ClassName, RunScores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(run: Path, shards: Path) -> RunScores:
    """Of heads over 460 classes: with one further table, that of context59."""
    return evaluate(run, shards, options=EvaluateOptions(device="cpu")).runs[0]


def print_together(runs: Sequence[RunScores]) -> None:
    differences = [compare_runs(runs[0], run, resamples=9) for run in runs[1:]]
    print_comparison(runs, differences, classes=False)


def test_a_table_that_not_all_runs_have_is_left_out(
    result: RunScores, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(result, run="other")
    (table,) = result.tables
    print_together([result, other])
    assert "context59, covered area" in capsys.readouterr().out
    for tables in ((), (replace(table, area="whole image"),)):
        for pair in (
            [result, replace(other, tables=tables)],
            [replace(other, tables=tables), result],
        ):
            print_together(pair)
            assert "context59" not in capsys.readouterr().out


def test_each_chance_and_each_note_is_told_once(
    result: RunScores, capsys: pytest.CaptureFixture[str]
) -> None:
    other = replace(
        result,
        run="other",
        majority_class=ClassName(id=18, name="sofa"),
        notes=(*result.notes, "beware"),
    )
    print_together([result, result, other])
    lines = capsys.readouterr().out.splitlines()
    chances = [line for line in lines if line.startswith("chance: ")]
    assert len(set(chances)) == 2 + 2  # in two tables
    assert sum("'sofa' everywhere" in line for line in chances) == 2
    notes = [line for line in lines if line.startswith("note: ")]
    assert notes == [*(f"note: {note}" for note in result.notes), "note: other: beware"]
