"""The formats of an export: each name with what it is for and the function that writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from vocprep.exporting.arrays import write_arrays
from vocprep.exporting.options import VersionFormat
from vocprep.exporting.version_source import VersionSource


@dataclass(frozen=True)
class VersionExporter:
    """A format that dataset versions are exported to."""

    summary: str
    """What is written, for people."""
    write: Callable[[VersionSource, Path], None]
    """Writes the export into an empty folder."""


VERSION_EXPORTERS: Mapping[VersionFormat, VersionExporter] = {
    "npy": VersionExporter("arrays for numpy.load(..., mmap_mode='r')", write_arrays),
}
