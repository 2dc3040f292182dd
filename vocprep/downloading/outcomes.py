"""How the files of a download ended, for tables and for programs."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vocprep.downloading.plan import PlannedFile
from vocprep.errors import DataError, SourceUnavailableError, VocprepError
from vocprep.validation import explain, printable


@dataclass(frozen=True, kw_only=True)
class DownloadOutcome:
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
    error: str | None = None
    exit_code: int = 0
    """The exit code of the command line for this file: 0, 3 for bad data, 4 for unavailable."""

    @property
    def ok(self) -> bool:
        """Whether the file is here, verified and unpacked."""
        return self.error is None

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {"ok": self.ok, **asdict(self)}


def raise_failures(outcomes: Sequence[DownloadOutcome]) -> None:
    """Raise one error for all files that failed, nothing when none did.

    DataError when any file has wrong data, else SourceUnavailableError.
    """
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    if not failed:
        return
    unavailable = all(item.exit_code == SourceUnavailableError.exit_code for item in failed)
    kind = SourceUnavailableError if unavailable else DataError
    if len(failed) == 1:
        raise kind(failed[0].error)
    listed = "".join(f"\n  {printable(str(item.error))}" for item in failed)
    error = kind(f"{len(failed)} of {len(outcomes)} files failed:{listed}")
    error.is_list = True
    raise error


def outcome_of(planned: PlannedFile, done: Sequence[str]) -> DownloadOutcome:
    """Return the outcome of a file that is here, after what was done, from its receipt."""
    receipt = planned.on_disk.receipt
    return DownloadOutcome(
        source=planned.source,
        path=planned.file.path,
        mirror=receipt.mirror if receipt else None,
        size=receipt.size if receipt else None,
        sha256=receipt.digests.get("sha256") if receipt else None,
        state=", ".join(done) or "present",
    )


def failed_outcome(planned: PlannedFile, error: VocprepError) -> DownloadOutcome:
    """Return the outcome of a file that failed."""
    return DownloadOutcome(
        source=planned.source,
        path=planned.file.path,
        mirror=None,
        size=None,
        sha256=None,
        state="failed",
        error=str(error),
        exit_code=error.exit_code,
    )


def disk_error(path: Path, error: OSError) -> DataError:
    """Return the error of a file that cannot be read or written, with what helps for its reason."""
    where = error.filename2 or error.filename or path
    advice = next(
        (words for numbers, words in _DISK_ADVICE.items() if error.errno in numbers),
        f"look at the disk, {_ANOTHER}",
    )
    return DataError(
        f"{where}: cannot be read or written: {explain(error)}; {advice}, then run the same "
        "command again: what is there already is kept"
    )


_ANOTHER = "or choose another --data-dir"
_DISK_ADVICE = {
    (errno.ENOSPC, errno.EDQUOT): f"make room, {_ANOTHER}",
    (errno.EACCES, errno.EPERM, errno.EROFS): f"change its permissions, {_ANOTHER}",
    (errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP): "move what is in the way",
}
