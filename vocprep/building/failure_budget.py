"""The failures that a build survives."""

from __future__ import annotations

from collections.abc import Iterable

from vocprep.building.plan import BuildPlan
from vocprep.errors import FailureBudgetError
from vocprep.options import MaxFailures
from vocprep.shards.samples import QuarantinedSample

MOST_NAMED = 3
"""Bad samples that the error names, the latest ones."""


class FailureBudget:
    """Counts the quarantined samples of a build."""

    def __init__(self, plan: BuildPlan, limit: MaxFailures) -> None:
        self._plan = plan
        self._limit = limit
        self._allowed = limit.allowed(len(plan.samples))
        self._found: list[QuarantinedSample] = []

    def count(self, quarantined: Iterable[QuarantinedSample]) -> None:
        """Count failures; FailureBudgetError as soon as there are more than allowed."""
        self._found += quarantined
        if len(self._found) > self._allowed:
            raise FailureBudgetError(self._message())

    def _message(self) -> str:
        named = "; ".join(
            f"{self._plan.data_dir / bad.file}: {bad.reason}" for bad in self._found[-MOST_NAMED:]
        )
        count = len(self._found)
        return (
            f"{count} bad sample{'s' if count > 1 else ''} of {len(self._plan.samples):,}, "
            f"expected at most {self._allowed} (--max-failures {self._limit}): {named}; or take "
            "their ids out of the split files, or allow more"
        )
