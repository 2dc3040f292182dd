"""Folders with runs of several seeds: mean, spread, and whether two groups differ by more."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.heads import CPU, cell_heads, make_two_splits, run_for, save_run

from vocprep.cli.scores.groups import print_groups
from vocprep.cli.scores.several_runs import print_scores
from vocprep.errors import DataError, RunError
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.run import load_run, seed_folder, seed_runs
from vocprep.heads.scoring.evaluate import evaluate, runs_and_shards, runs_and_versions
from vocprep.heads.scoring.groups import (
    RunGroup,
    ScoreSpread,
    compare_groups,
)
from vocprep.shards.reader import ShardDataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    return make_two_splits(tmp_path_factory.mktemp("data") / "shards")


def save_one(dataset: ShardDataset, path: Path, label: int, **options: object) -> Path:
    """Write a run of small heads that put one label everywhere."""
    heads = cell_heads(encoder="none", position=False)
    model = TFDetHeads.from_config(heads)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.cells.classes.linear.bias[label] = 1
    run = run_for(dataset, model)
    changed = replace(run.config.options, **options)
    return save_run(replace(run, config=replace(run.config, heads=heads, options=changed)), path)


def save_seeds(dataset: ShardDataset, folder: Path, labels: Sequence[int]) -> Path:
    """Write one run per label, as of seeds 9, 10, ...; return their folder."""
    for seed, label in enumerate(labels, start=9):
        save_one(dataset, folder / f"seed-{seed}", label, seed=seed)
    return folder


@pytest.fixture(scope="module")
def folders(dataset: ShardDataset, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two groups, of three and of two runs; not to be written to."""
    out = tmp_path_factory.mktemp("runs")
    return [
        save_seeds(dataset, out / "three", (1, 2, 3)),
        save_seeds(dataset, out / "two", (4, 0)),
    ]


def test_a_folder_counts_as_its_runs_in_the_order_of_seeds(
    dataset: ShardDataset, folders: list[Path], tmp_path: Path
) -> None:
    three, _ = folders
    names = ["seed-9", "seed-10", "seed-11"]
    assert [run.name for run in seed_runs(three)] == names
    assert seed_runs(three / "seed-9") == seed_runs(tmp_path / "none") == []
    (tmp_path / "seed-01").mkdir()
    seed_folder(tmp_path, 1).mkdir()
    assert seed_runs(tmp_path) == []
    given = [three, three / "seed-9", dataset.path]
    assert runs_and_versions(given) == ([three / name for name in names], [dataset.path])
    assert runs_and_shards(given) == (given[:2], given[2:])
    with pytest.raises(DataError, match="expected a run or a dataset version"):
        runs_and_versions([tmp_path])
    with pytest.raises(RunError, match=r"found 3 in it; name one of them, such as .*-9$"):
        load_run(three)


def test_mean_and_spread_are_those_of_the_runs(
    dataset: ShardDataset, folders: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    result = evaluate(folders[0], dataset, options=CPU)
    (group,) = result.groups
    assert (group.name, group.runs) == ("three", tuple(run.run for run in result.runs))
    assert result.differences == result.group_differences == result.notes == ()
    assert {each.score for each in group.scores} >= {"miou_present", "masks_iou", "recall_at_4"}
    for each in group.scores:
        if hasattr(result.runs[0].model, each.score):
            values = [getattr(run.model, each.score) for run in result.runs]
            assert (each.lowest, each.highest) == (np.min(values), np.max(values))
            assert each.mean == pytest.approx(np.mean(values))
    value = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert list(value) == ["groups", "differences", "runs"]
    assert [run["run"] for run in value["runs"]] == value["groups"][0]["runs"]
    print_scores(result, classes=True)
    printed = capsys.readouterr().out
    assert printed.count("seed-10 (epoch 7)") == 1
    (line,) = (line for line in printed.splitlines() if line.startswith("pixel acc.  "))
    (score,) = (each for each in group.scores if each.score == "pixel_accuracy")
    low, high = 100 * score.lowest, 100 * score.highest
    assert line == f"pixel acc.    {100 * score.mean:.1f} ({low:.1f} to {high:.1f})"


def test_groups_and_single_runs_are_compared_by_their_means(
    dataset: ShardDataset, folders: list[Path], tmp_path: Path
) -> None:
    single = save_one(dataset, tmp_path / "single", 5)
    result = evaluate([*folders, single], dataset, options=CPU)
    assert [len(group.runs) for group in result.groups] == [3, 2, 1]
    assert [run.run for run in result.runs][2:4] == [
        str(folders[0] / "seed-11"),
        str(folders[1] / "seed-9"),
    ]
    accuracies = [run.model.pixel_accuracy for run in result.runs]
    means = [np.mean(accuracies[:3]), np.mean(accuracies[3:5]), accuracies[5]]
    assert [(each.first, each.second) for each in result.group_differences] == [
        *(("three", "two"), ("three", "single"))
    ]
    for mean, each in zip(means[1:], result.group_differences, strict=True):
        found = {score.score: score for score in each.scores}["pixel_accuracy"]
        assert found.difference == pytest.approx(mean - means[0])


def test_groups_of_one_name_are_told_apart_by_their_paths(
    dataset: ShardDataset, folders: list[Path], tmp_path: Path
) -> None:
    other = save_seeds(dataset, tmp_path / "two", (1,))
    result = evaluate([folders[1], other], dataset, options=CPU)
    assert [group.name for group in result.groups] == [str(folders[1]), str(other)]


def test_runs_that_differ_in_more_than_their_seed_are_noted(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    out = save_seeds(dataset, tmp_path / "out", (1,))
    save_one(dataset, out / "seed-1", 2, seed=1, lr=0.5)
    result = evaluate(out, dataset, options=CPU)
    assert result.notes == ("the runs of out differ in more than their seed: lr",)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ((0.25, 0.5), (0.75, 0.75), "+37.5, beyond the spread of 25.0"),
        ((0.5, 0.5), (0.25, 0.75), "+0.0, within the spread of 50.0"),
        ((0.75, 0.75), (0.25, 0.5), "-37.5, beyond the spread of 25.0"),
        ((0.25, 0.75), (0.75, 1.0), "+37.5, within the spread of 50.0"),
        ((0.25,), (0.5,), "+25.0"),
    ],
)
def test_a_difference_is_told_beside_the_spread(
    first: Sequence[float],
    second: Sequence[float],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    groups = [
        RunGroup(
            name=name,
            runs=tuple(map(str, values)),
            scores=(
                ScoreSpread(
                    score="fw_x",
                    mean=sum(values) / len(values),
                    lowest=min(values),
                    highest=max(values),
                ),
            ),
        )
        for name, values in (("a", first), ("b", second))
    ]
    print_groups(groups, [compare_groups(*groups)])
    head, line, _ = capsys.readouterr().out.splitlines()
    assert "b above a" in head
    assert line.startswith("fw_x  ")
    assert line.endswith(f"  {expected}")
