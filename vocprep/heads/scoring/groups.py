"""Runs that differ in their seed alone: mean and spread of their scores, and of two such groups.

A folder that ``train`` with ``seeds`` wrote stands for all runs in it, as one group. One of a
``sweep`` stands for its runs, too, each by itself.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from vocprep.heads.runs.presets import differing_options
from vocprep.heads.runs.run import Run, seed_runs, several_runs
from vocprep.heads.scoring.scores import RunScores
from vocprep.storage.places import local_path
from vocprep.validation import to_json


@dataclass(frozen=True, kw_only=True)
class ScoreSpread:
    """One score in the runs of a group."""

    score: str
    """Name of a field of ``ScoreRow`` or, of the run as a whole, as in ``main_scores``."""
    mean: float
    lowest: float
    highest: float

    @property
    def spread(self) -> float:
        """How far the runs lie apart."""
        return self.highest - self.lowest


@dataclass(frozen=True, kw_only=True)
class RunGroup:
    """The scores of runs that differ in their seed alone; one run is a group of its own."""

    name: str
    """Of the folder of the runs, or of the one run."""
    runs: tuple[str, ...]
    """Their names in ``RunScores``."""
    scores: tuple[ScoreSpread, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, keys as the fields are called."""
        return to_json(self)


@dataclass(frozen=True, kw_only=True)
class SpreadDifference:
    """One score of two groups: the second's mean minus the first's, beside what seeds do."""

    score: str
    difference: float
    spread: float
    """The larger of the spreads of both."""
    exceeds_spread: bool | None
    """None where neither group has two runs, so that nothing is known of the spread."""


@dataclass(frozen=True, kw_only=True)
class GroupComparison:
    """How the mean scores of a second group differ from those of a first one."""

    first: str
    second: str
    scores: tuple[SpreadDifference, ...]

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, keys as the fields are called."""
        return to_json(self)


@dataclass(frozen=True, kw_only=True)
class GivenRuns:
    """What one path of an evaluation stands for."""

    name: str
    runs: tuple[str | Path | Run, ...]
    is_folder: bool
    """Whether it is a folder of runs with several seeds."""


def given_runs(item: str | Path | Run) -> list[GivenRuns]:
    """Return what a path stands for: the runs of several seeds in it, those of a sweep, itself."""
    if isinstance(item, Run):
        return [GivenRuns(name=item.path.resolve().name, runs=(item,), is_folder=False)]
    path = local_path(item)
    if runs := seed_runs(path):
        return [GivenRuns(name=path.resolve().name, runs=tuple(runs), is_folder=True)]
    return [
        GivenRuns(name=each.resolve().name, runs=(each,), is_folder=False)
        for each in several_runs(path) or [path]
    ]


def main_scores(scores: RunScores) -> dict[str, float]:
    """Return the scores of a run that its groups have mean and spread of, by name."""
    row = {name: value for name, value in asdict(scores.model).items() if type(value) is float}
    whole = {"masks_iou": scores.masks.iou, "mean_average_precision": scores.mean_average_precision}
    return {**row, **whole}


def group_of(name: str, runs: Sequence[RunScores]) -> RunGroup:
    """Return mean and spread of the scores of runs that differ in their seed alone."""
    found = [main_scores(run) for run in runs]
    return RunGroup(
        name=name,
        runs=tuple(run.run for run in runs),
        scores=tuple(_spread(score, [each[score] for each in found]) for score in found[0]),
    )


def _spread(score: str, values: Sequence[float]) -> ScoreSpread:
    return ScoreSpread(score=score, mean=fmean(values), lowest=min(values), highest=max(values))


def compare_groups(first: RunGroup, second: RunGroup) -> GroupComparison:
    """Compare the means of two groups with the spread within them.

    A difference exceeds the spread where it is more than the lowest and the highest run of either
    group lie apart.
    """
    before: Mapping[str, ScoreSpread] = {each.score: each for each in first.scores}
    is_known = max(len(first.runs), len(second.runs)) > 1
    found = []
    for after in second.scores:
        difference = after.mean - before[after.score].mean
        spread = max(after.spread, before[after.score].spread)
        found.append(
            SpreadDifference(
                score=after.score,
                difference=difference,
                spread=spread,
                exceeds_spread=abs(difference) > spread if is_known else None,
            )
        )
    return GroupComparison(first=first.name, second=second.name, scores=tuple(found))


def mixed_note(name: str, runs: Sequence[Run]) -> str | None:
    """Return a note on runs of one group that differ in more than their seed; None without."""
    first, *others = (run.config for run in runs)
    lines = [line for each in others for line in differing_options(first.options, each.options)]
    fields = {line.partition(":")[0] for line in lines} - {"seed", "preset"}
    if any(each.content_id != first.content_id for each in others):
        fields.add("content_id")
    if not fields:
        return None
    return f"the runs of {name} differ in more than their seed: {', '.join(sorted(fields))}"
