"""How scores of several runs stand side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from vocprep.cli.scores.one_run import print_evaluation
from vocprep.cli.scores.several_runs import print_scores
from vocprep.heads.runs.options import EvaluateOptions
from vocprep.heads.scoring.comparison import compare_runs
from vocprep.heads.scoring.evaluate import Evaluation, evaluate
from vocprep.heads.scoring.measures.errors import Errors, ErrorShares
from vocprep.heads.scoring.scores import ClassName, RunScores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def result(run: Path, shards: Path) -> RunScores:
    """Of heads over 460 classes: with one further table, that of context59."""
    return evaluate(run, shards, options=EvaluateOptions(device="cpu")).runs[0]


def print_together(runs: Sequence[RunScores]) -> None:
    differences = tuple(compare_runs(runs[0], run, resamples=9) for run in runs[1:])
    print_scores(Evaluation(runs=tuple(runs), differences=differences, notes=()), classes=False)


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
    assert len(set(chances)) == 2 * (3 + 1)  # in three tables, and in full below the first
    assert sum("'sofa' everywhere" in line for line in chances) == 1
    notes = [line for line in lines if line.startswith("note: ")]
    assert notes == [*(f"note: {note}" for note in result.notes), "note: other: beware"]


def test_tables_are_no_wider_than_a_hundred_columns(
    result: RunScores, capsys: pytest.CaptureFixture[str]
) -> None:
    print_together([result, replace(result, run="another-run-of-a-usual-name")])
    print_evaluation(result, classes=True)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 100
    assert any(line.startswith("patches of several") for line in lines)


def test_errors_are_told_by_what_is_background(
    result: RunScores, capsys: pytest.CaptureFixture[str]
) -> None:
    print_evaluation(result, classes=False)
    assert "object as background" not in capsys.readouterr().out
    share = ErrorShares(
        pixels=0.5, wrong=0.3, missed_object=0.15, wrong_object=0.1, false_object=0.05
    )
    errors = Errors(background=0, pure=share, mixed=share)
    print_evaluation(replace(result, errors=errors), classes=False)
    lines = capsys.readouterr().out.splitlines()
    (cells,) = (line.split() for line in lines if line.startswith("patches of several"))
    assert cells[-5:] == ["50.0", "30.0", "15.0", "10.0", "5.0"]
    print_together([replace(result, errors=errors)] * 2)
    assert "30.0     30.0                  30.0          20.0" in capsys.readouterr().out
