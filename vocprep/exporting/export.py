"""The verb ``export``: a dataset version in the files of another library."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from vocprep.errors import UsageError
from vocprep.exporting.kinds import VERSION_EXPORTERS
from vocprep.exporting.options import ExportFormat, ExportOptions
from vocprep.exporting.output import ExportedFile, export_folder, read_export
from vocprep.exporting.version_source import VersionSource
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

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        files = [file.model_dump(mode="json") for file in self.files]
        return {"path": str(self.path), "to": self.to, "bytes": self.bytes, "files": files}


def export(
    path: str | Place,
    to: ExportFormat,
    out: str | Path,
    options: ExportOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> ExportResult:
    """Write a dataset version, in a folder or an object store, to ``out`` in another format.

    The same version gives the same files. They appear in ``out`` together, in the place of an
    earlier export; other files are never replaced. Raises UsageError for a format that there is
    not, a library of it that is not installed, a split that the version lacks and a folder that
    cannot be written, and what
    ``ShardDataset.open`` raises.
    """
    if to not in get_args(ExportFormat):
        raise UsageError(f"--to {to!r}: expected one of {', '.join(get_args(ExportFormat))}")
    exporter, folder, options = VERSION_EXPORTERS[to], local_path(out), options or ExportOptions()
    versions = exporter.versions(to)
    if options.rows != ExportOptions.rows and not exporter.has_rows:
        raise UsageError(f"--to {to}: holds no tables: leave --rows {options.rows} out")
    source = VersionSource(ShardDataset.open(parse_place(path)), options, progress)
    with export_folder(folder, to, source.identity, versions, progress.note) as staged:
        exporter.write(source, staged)
    return ExportResult(path=folder, to=to, files=read_export(folder).files)
