"""How the files of a download ended, for tables and for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from vocprep.data_dir.receipts import Receipt
from vocprep.download.plan import PlannedFile
from vocprep.errors import DataError, VocprepError


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one file ended."""

    source: str
    path: str
    """Below the data dir."""
    mirror: str | None
    """URL or folder that the file came from, also when that was in an earlier run."""
    size: int | None
    sha256: str | None
    state: str
    """``present``, or what was done: ``fetched``, ``linked``, ``copied``, ``verified``,
    ``unpacked``; ``failed`` when ``error`` says why."""
    error: VocprepError | None = None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(replace(self, error=None)), "error": self.error and str(self.error)}


def failure(outcomes: Sequence[Outcome]) -> VocprepError | None:
    """Return one error for all files that failed, None when none did.

    Bad data weighs more than data that could not be had.
    """
    errors = [outcome.error for outcome in outcomes if outcome.error is not None]
    if len(errors) < 2:
        return errors[0] if errors else None
    kind = next((type(error) for error in errors if isinstance(error, DataError)), type(errors[0]))
    listed = "".join(f"\n  {error}" for error in errors)
    return kind(f"{len(errors)} of {len(outcomes)} files failed:{listed}")


def outcome_of(
    planned: PlannedFile,
    receipt: Receipt | None,
    state: str,
    error: VocprepError | None = None,
) -> Outcome:
    """Describe how a planned file ended, from its receipt where it has one."""
    digests: Mapping[str, str] = receipt.digests if receipt else {}
    return Outcome(
        source=planned.source,
        path=planned.file.path,
        mirror=receipt.mirror if receipt else None,
        size=receipt.size if receipt else None,
        sha256=digests.get("sha256"),
        state=state,
        error=error,
    )
