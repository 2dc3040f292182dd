"""``verify``: check a data dir or a dataset version at one of three levels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocprep.checks.data_files import has_download_records, verify_data_files
from vocprep.checks.lock import read_lock, verify_lock
from vocprep.checks.report import Report
from vocprep.checks.version_content import verify_version_content
from vocprep.checks.version_files import verify_version_files
from vocprep.errors import DataError, UsageError
from vocprep.files.names import OTHER, UNFINISHED, UNINDEXED, VERSION, found_at, kind_by_names
from vocprep.manifests import load_dataset
from vocprep.options import VerifyOptions
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.version import Version
from vocprep.storage.places import Place, parse_place
from vocprep.storage.reading import why_unread
from vocprep.storage.store import StorePath

if TYPE_CHECKING:
    from vocprep.checks.recompute import Measurements


@dataclass(frozen=True, kw_only=True)
class Verification:
    """The result of a verification."""

    reports: tuple[Report, ...]
    """One per level that was checked, and one of the lock file."""
    notes: tuple[str, ...] = ()
    """What is worth knowing and no difference."""
    measured: Measurements | None = None
    """What ``recompute`` measured."""

    @property
    def ok(self) -> bool:
        """Whether no report has a difference."""
        return all(report.ok for report in self.reports)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "ok": self.ok,
            "reports": [report.to_json() for report in self.reports],
            "notes": list(self.notes),
            "measured": self.measured.to_json() if self.measured else None,
        }


def verify(
    path: str | Place, options: VerifyOptions | None = None, progress: Progress = NO_PROGRESS
) -> Verification:
    """Check a data dir or a dataset version; nothing is changed.

    A data dir is compared with the records of its downloads, a dataset version, in a folder or an
    object store, with its index.
    What differs is in the result; only input that cannot be checked at all is an error: UsageError
    for a folder that does not exist or options that do not fit its kind, DataError for a folder
    that is neither or for damaged records of downloads. The content of a data dir is decoded in
    processes of their own, which import a script again: call this below
    ``if __name__ == "__main__"`` there.

    >>> from tempfile import TemporaryDirectory
    >>> from vocprep.synthetic.dataset import sample
    >>> with TemporaryDirectory() as folder:
    ...     _ = sample(folder, images=2)
    ...     verify(folder, VerifyOptions(level="content", workers=1)).ok
    True
    """
    options, path = options or VerifyOptions(), parse_place(path)
    if not isinstance(path, Path):
        _require_version(path)
        return _verify_version(path, options, progress)
    found = found_at(path)
    if not path.is_dir():
        raise UsageError(
            f"{path}: expected a data dir or a dataset version, found {found}; check the path"
        )
    if found in (VERSION, UNFINISHED, UNINDEXED):
        return _verify_version(path, options, progress)

    # Imported where it is used: the check of a version's files decodes no label map.
    from vocprep.checks.data_content import datasets_in

    if not options.datasets and not has_download_records(path) and not datasets_in(path):
        raise DataError(
            f"{path}: expected a data dir or a dataset version, found {found}; check the path, or "
            "name the manifest of a data dir of your own with --dataset"
        )
    return _verify_data_dir(path, options, progress)


def _require_version(url: StorePath) -> None:
    """Raise UsageError or DataError where objects of a store are no dataset version."""
    try:
        names = url.names()
    except OSError as error:
        found, advice = why_unread(url, error)
        raise DataError(f"{url}: cannot be listed: {found}; {advice}") from error
    if not names:
        raise UsageError(f"{url}: expected a dataset version, found nothing; check the URL")
    kind = kind_by_names(names)
    if kind not in (VERSION, UNINDEXED):
        raise DataError(f"{url}: expected a dataset version, found {kind or OTHER}; check the URL")


def _verify_data_dir(path: Path, options: VerifyOptions, progress: Progress) -> Verification:
    """Compare the files, then decode them; ``content`` needs no record of a download."""
    if options.level == "recompute" or options.lock is not None:
        option = "--lock" if options.lock is not None else "--level recompute"
        raise UsageError(f"{option} is for dataset versions, found a data dir; leave it out")
    workers, partial = options.workers, options.partial
    reports = []
    if options.level == "files" or has_download_records(path):
        reports.append(verify_data_files(path, workers, progress, partial=partial))
    if options.level == "content":
        from vocprep.checks.data_content import datasets_in, verify_data_content

        named = [load_dataset(name) for name in options.datasets]
        reports.append(
            verify_data_content(
                path, named or datasets_in(path), workers, progress, partial=partial
            )
        )
    notes = tuple(note for report in reports for note in report.notes)
    return Verification(reports=tuple(reports), notes=notes)


def _verify_version(path: Place, options: VerifyOptions, progress: Progress) -> Verification:
    """Compare the files; where they are whole, check their content and the lock file."""
    lock = read_lock(options.lock) if options.lock is not None else None
    files = verify_version_files(path, options.workers, progress)
    if not files.ok:
        is_less = options.level != "files" or lock is not None
        note = "neither content nor lock file was checked, because the files differ"
        return Verification(reports=(files,), notes=(note,) if is_less else ())
    reports, notes = [files], []
    if options.level != "files":
        reports.append(verify_version_content(path, options.workers, progress))
    version = Version.open(path)
    if lock is not None:
        report, lock_notes = verify_lock(lock, version, path)
        reports.append(report)
        notes += lock_notes
    if version.index.quarantined:
        notes.append(f"quarantined images: {version.index.quarantined:,}, see quarantine.jsonl")
    if options.level != "recompute" or not all(report.ok for report in reports):
        return Verification(reports=tuple(reports), notes=tuple(notes))
    return _with_recomputation(path, options, progress, reports, notes)


def _with_recomputation(
    path: Place,
    options: VerifyOptions,
    progress: Progress,
    reports: Sequence[Report],
    notes: Sequence[str],
) -> Verification:
    from vocprep.checks.recompute import recompute
    from vocprep.shards.reader import ShardDataset

    dataset = ShardDataset.open(path)
    result = recompute(dataset, options, progress)
    return Verification(
        reports=(*reports, result.report),
        notes=(*notes, *result.measurements.notes(dataset.index)),
        measured=result.measurements,
    )
