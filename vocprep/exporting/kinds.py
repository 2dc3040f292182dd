"""The formats of an export: each name with what it is for and the function that writes it.

What needs an optional library is imported when it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from vocprep.errors import UsageError
from vocprep.exporting.arrays import write_arrays
from vocprep.exporting.options import ONNX_OPSET, RunFormat, VersionFormat
from vocprep.exporting.runs.source import RunSource
from vocprep.exporting.version_source import VersionSource


@dataclass(frozen=True)
class VersionExporter:
    """A format that dataset versions are exported to."""

    summary: str
    """What is written, for people."""
    write: Callable[[VersionSource, Path], None]
    """Writes the export into an empty folder."""
    libraries: tuple[str, ...] = ()
    """Packages of the extra ``export`` that it is written with; they decide its bytes."""
    has_rows: bool = False
    """Whether ``ExportOptions.rows`` means something to it."""

    def versions(self, to: str) -> dict[str, str]:
        """Return the version of each library; UsageError where one is not installed."""
        return _versions(self.libraries, to)


@dataclass(frozen=True)
class RunExporter:
    """A format that runs are exported to."""

    summary: str
    """What is written, for people."""
    write: Callable[[RunSource, Path], Sequence[str]]
    """Writes the export into an empty folder, and returns notes for people."""
    libraries: tuple[str, ...]
    """As of ``VersionExporter``."""
    standards: Mapping[str, str] = field(default_factory=dict)
    """Versions of what the files conform to."""

    def versions(self, to: str) -> dict[str, str]:
        """Return these versions; UsageError where a library is not installed."""
        return {**_versions(self.libraries, to), **self.standards}


def _versions(libraries: Sequence[str], to: str) -> dict[str, str]:
    missing = [name for name in libraries if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"--to {to}: needs {' and '.join(missing)}, which cannot be found: run pip install "
            "'vocprep[export]'"
        )
    return {name: version(name) for name in libraries}


def _write_parquet(source: VersionSource, folder: Path) -> None:
    from vocprep.exporting.parquet import write_parquet

    write_parquet(source, folder)


def _write_hugging_face(source: VersionSource, folder: Path) -> None:
    from vocprep.exporting.hugging_face import write_hugging_face

    write_hugging_face(source, folder)


def _write_onnx(source: RunSource, folder: Path) -> Sequence[str]:
    from vocprep.exporting.runs.onnx_files import ONNX_FILES
    from vocprep.exporting.runs.writing import write_parts

    return write_parts(source, folder, ONNX_FILES)


def _write_programs(source: RunSource, folder: Path) -> Sequence[str]:
    from vocprep.exporting.runs.torch_files import TORCH_FILES
    from vocprep.exporting.runs.writing import write_parts

    return write_parts(source, folder, TORCH_FILES)


VERSION_EXPORTERS: Mapping[VersionFormat, VersionExporter] = {
    "npy": VersionExporter("arrays for numpy.load(..., mmap_mode='r')", write_arrays),
    "parquet": VersionExporter(
        "tables for pandas, polars, DuckDB", _write_parquet, ("pyarrow",), has_rows=True
    ),
    "hugging-face": VersionExporter(
        "a dataset for datasets.load_dataset, with its card",
        _write_hugging_face,
        ("datasets", "huggingface_hub", "pyarrow"),
        has_rows=True,
    ),
}

RUN_EXPORTERS: Mapping[RunFormat, RunExporter] = {
    "onnx": RunExporter(
        "models for onnxruntime",
        _write_onnx,
        ("torch", "onnx", "onnxscript"),
        {"opset": str(ONNX_OPSET)},
    ),
    "torch-export": RunExporter("programs for torch.export.load", _write_programs, ("torch",)),
}
