"""Reports: what a check found, the same for data dirs and dataset versions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

State = Literal["missing", "changed", "extra", "unreadable"]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """One file that is not as expected."""

    path: str
    """Relative to the data dir or to the folder of the dataset version."""
    state: State
    detail: str
    """What was expected and what was found."""


def changed(path: str, detail: str) -> Difference:
    """Return the difference of a file that is there with other content than expected."""
    return Difference(path=path, state="changed", detail=detail)


@dataclass(frozen=True, kw_only=True)
class Report:
    """The result of one level of a verification."""

    level: str
    """``files``, ``content``, ``recompute`` or ``lock``."""
    matching: int
    """Files, or records from ``content`` of a dataset version on, that are as expected."""
    differences: tuple[Difference, ...]
    """By path."""
    allowed_missing: int = 0
    """Missing files that ``partial`` allows; they are no differences."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and no difference."""

    @classmethod
    def of(
        cls,
        level: str,
        matching: int,
        differences: Iterable[Difference],
        allowed_missing: int = 0,
        notes: tuple[str, ...] = (),
    ) -> Self:
        """Make a report of differences in any order."""
        return cls(
            level=level,
            matching=matching,
            differences=tuple(sorted(differences, key=lambda item: (item.path, item.detail))),
            allowed_missing=allowed_missing,
            notes=notes,
        )

    @property
    def ok(self) -> bool:
        """Whether there is no difference."""
        return not self.differences

    def count(self, state: State) -> int:
        """Return the number of differences of one state."""
        return sum(item.state == state for item in self.differences)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "level": self.level,
            "ok": self.ok,
            "matching": self.matching,
            "allowed_missing": self.allowed_missing,
            "differences": [asdict(item) for item in self.differences],
        }
