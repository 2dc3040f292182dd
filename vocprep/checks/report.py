"""Reports: what a check found, the same for data dirs and dataset versions."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One thing that is not as it should be."""

    path: str
    """Below the data dir."""
    state: Literal["missing", "changed", "extra"]
    detail: str
    """Expected and found, in words."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a verification found."""

    level: str
    right: int
    """Files that are as they should be."""
    differences: tuple[Difference, ...]
    pardoned: int = 0
    """Missing files that ``partial`` allows."""

    @property
    def clean(self) -> bool:
        """Whether nothing differs."""
        return not self.differences

    def count(self, state: str) -> int:
        """Return how many differences are of one state."""
        return sum(item.state == state for item in self.differences)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "clean": self.clean}
