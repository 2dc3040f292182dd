"""A run with its scores and its log, which all sections of a page are made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.run import Run
from vocprep.heads.scoring.scores import RunScores
from vocprep.shards.reader import ShardDataset


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredRun:
    """One run of a page."""

    run: Run
    scores: RunScores
    history: Sequence[EpochMetrics]
    """Empty where the run's folder has no log."""
    dataset: ShardDataset
    """What it is scored on."""

    @property
    def name(self) -> str:
        """What the page calls the run."""
        return self.scores.run


def names(runs: Sequence[ScoredRun]) -> str:
    """Return the names of runs as a text.

    >>> from types import SimpleNamespace as Named
    >>> names([Named(name="a"), Named(name="b"), Named(name="c")])
    'a, b and c'
    """
    *others, last = (run.name for run in runs)
    return f"{', '.join(others)} and {last}" if others else last
