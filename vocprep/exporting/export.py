"""The verb ``export``: a dataset version or a run in the files of another library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from vocprep.errors import UsageError
from vocprep.exporting.kinds import RUN_EXPORTERS, VERSION_EXPORTERS, require_options
from vocprep.exporting.options import (
    FORMATS,
    ExportFormat,
    ExportOptions,
    RunFormat,
    VersionFormat,
)
from vocprep.exporting.output import ExportedFile, export_folder, read_export
from vocprep.exporting.runs.source import run_source
from vocprep.exporting.version_source import VersionSource
from vocprep.heads.runs.run import load_run
from vocprep.heads.scoring.evaluate import runs_and_versions
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.reader import ShardDataset
from vocprep.storage.places import Place, local_path, parse_place


@dataclass(frozen=True, kw_only=True)
class ExportResult:
    """An export that was written."""

    path: Path
    to: ExportFormat
    files: tuple[ExportedFile, ...]
    """All files but export.json, by their path below ``path``."""
    notes: tuple[str, ...] = ()
    """How the files of a run compare with it, and what was not written."""

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        files = [file.model_dump(mode="json") for file in self.files]
        return {
            "path": str(self.path),
            "to": self.to,
            "bytes": self.bytes,
            "files": files,
            "notes": list(self.notes),
        }


def export(
    path: str | Place,
    to: ExportFormat,
    out: str | Path,
    options: ExportOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> ExportResult:
    """Write a dataset version or a run to ``out`` in another format.

    A version may lie in a folder or an object store. The same version gives the same files, and so
    does the same run with the same libraries. They appear in ``out`` together, in the place of an
    earlier export; other files are never replaced. Raises UsageError for a format that there is
    not, or is not of what ``path`` is, a library of it that is not installed, options of another
    format, a split that the version lacks and a folder that cannot be written; DataError where a
    file of a run does not compute what the run does; and what ``ShardDataset.open``, ``load_run``
    and ``find_weights`` raise.
    """
    if to not in FORMATS:
        raise UsageError(f"--to {to!r}: expected one of {', '.join(FORMATS)}")
    place, folder, options = parse_place(path), local_path(out), options or ExportOptions()
    runs, versions = runs_and_versions([place])
    if to == "onnx" or to == "torch-export":  # noqa: PLR1714  # which narrows its type
        if not runs:
            raise _unfit(place, to, "dataset version", tuple(VERSION_EXPORTERS))
        return _export_run(local_path(path), to, folder, options, progress)
    if not versions:
        raise _unfit(place, to, "run", tuple(RUN_EXPORTERS))
    return _export_version(place, to, folder, options, progress)


def _unfit(place: Place, to: str, kind: str, formats: Sequence[str]) -> UsageError:
    return UsageError(
        f"--to {to}: {place} is a {kind}, which is exported to {' or '.join(formats)}"
    )


def _export_version(
    place: Place, to: VersionFormat, folder: Path, options: ExportOptions, progress: Progress
) -> ExportResult:
    exporter = VERSION_EXPORTERS[to]
    libraries = exporter.versions(to)
    require_options(options, to)
    chosen = replace(options, views=options.views or exporter.views)
    source = VersionSource(ShardDataset.open(place), chosen, progress)
    with export_folder(folder, to, source.identity, libraries, progress.note) as staged:
        exporter.write(source, staged)
    return ExportResult(path=folder, to=to, files=read_export(folder).files)


def _export_run(
    path: Path, to: RunFormat, folder: Path, options: ExportOptions, progress: Progress
) -> ExportResult:
    exporter = RUN_EXPORTERS[to]
    libraries = exporter.versions(to)
    require_options(options, to)
    source = run_source(load_run(path), options, progress)
    with export_folder(folder, to, source.identity, libraries, progress.note) as staged:
        notes = tuple(exporter.write(source, staged))
    if source.run.unfinished is not None:
        notes = (f"{path}: {source.run.unfinished}", *notes)
    return ExportResult(path=folder, to=to, files=read_export(folder).files, notes=notes)
