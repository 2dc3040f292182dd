"""The verb ``report``: a dataset version, or runs on one, as one HTML file.

The paths tell what the page is about: one version, two versions side by side, or one or several
runs with the versions that they are scored on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vocprep.errors import UsageError
from vocprep.files.writing import check_output_file, write_atomic
from vocprep.heads.scoring.evaluate import runs_and_versions
from vocprep.pages.report.options import ReportOptions
from vocprep.pages.report.page import Page
from vocprep.pages.report.runs.page import run_page
from vocprep.pages.report.versions.comparison import versions_page
from vocprep.pages.report.versions.page import version_page
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import Place, local_path, parse_place

_SUFFIXES = (".html", ".htm")
_MOST_VERSIONS, _MOST_RUNS = 2, 6
"""That a page shows side by side."""
Kind = Literal["version", "versions", "run", "runs"]


@dataclass(frozen=True, kw_only=True)
class ReportResult:
    """A report that was written."""

    path: Path
    bytes: int
    kind: Kind
    """What it is about."""
    title: str
    sections: tuple[str, ...]
    """Their headings."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "path": str(self.path), "sections": list(self.sections)}


def report(
    paths: str | Place | Sequence[str | Place],
    out: str | Path,
    options: ReportOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> ReportResult:
    """Write a page about a dataset version, or about runs, as one HTML file.

    ``paths`` are one or two versions, in folders or object stores, or one to six runs with the
    versions that they are scored on. The same input gives the same file. Raises UsageError for
    other combinations and where ``out`` cannot be written, DataError for a path that is neither,
    and what ``ShardDataset.open`` and ``load_run`` raise.
    """
    options = options or ReportOptions()
    target = _target(out)
    given = [paths] if isinstance(paths, str | Place) else paths
    runs, places = runs_and_versions([parse_place(path) for path in given])
    kind = _kind(runs, places)
    if options.audit is not None and kind != "version":
        found = "a run" if kind == "run" else f"two {kind}"
        raise UsageError(
            f"--audit {options.audit}: goes with a report of one dataset version, found one of "
            f"{found}; leave it out, or give the version alone"
        )
    page = _make(kind, runs, places, options, progress)
    data = page.render().encode()
    write_atomic(target, data)
    return ReportResult(
        path=target,
        bytes=len(data),
        kind=kind,
        title=page.title,
        sections=tuple(section.heading for section in page.sections),
    )


def _make(
    kind: Kind,
    runs: Sequence[Path],
    places: Sequence[Place],
    options: ReportOptions,
    progress: Progress,
) -> Page:
    datasets = [ShardDataset.open(place) for place in places]
    if kind == "version":
        return version_page(datasets[0], options, progress)
    if kind == "versions":
        return versions_page(datasets[0], datasets[1], options, progress)
    return run_page(runs, datasets, options, progress)


def _target(out: str | Path) -> Path:
    """Return the path of the file; UsageError, before there is work to lose, where there is none.

    Another suffix is refused, so that no file of a version or of a run is replaced by mistake.
    """
    path = local_path(out)
    if path.suffix.lower() not in _SUFFIXES:
        raise UsageError(
            f"--out {path}: expected the name of an HTML file, such as {path.stem or 'report'}.html"
        )
    check_output_file(path)
    return path


def _kind(runs: Sequence[Path], places: Sequence[Place]) -> Kind:
    """Return what a page is about; UsageError where paths do not make one."""
    if runs and not places:
        raise UsageError(
            f"{runs[0]}: is a run, whose report needs the dataset version that it is scored on; "
            "give RUN SHARDS"
        )
    expected = "one to six runs" if runs else "one or two dataset versions"
    if not 0 < (found := len(runs or places)) <= (_MOST_RUNS if runs else _MOST_VERSIONS):
        what = "runs" if runs else "dataset versions"
        raise UsageError(f"expected {expected}, found {found} {what}: a page shows no more")
    if runs:
        return "run" if len(runs) == 1 else "runs"
    return "version" if len(places) == 1 else "versions"
