"""The formats of an export: each name with what it is for and the function that writes it.

What needs an optional library is imported when it is written.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from vocprep.errors import UsageError
from vocprep.exporting.arrays import write_arrays
from vocprep.exporting.coco_panoptic import write_coco_panoptic
from vocprep.exporting.fiftyone import write_fiftyone
from vocprep.exporting.options import (
    ONNX_OPSET,
    ExportFormat,
    ExportOptions,
    RunFormat,
    VersionFormat,
    Views,
)
from vocprep.exporting.runs.source import RunSource
from vocprep.exporting.version_source import VersionSource

_OF_ALL = frozenset({"data_dir"})
"""A data dir is always there, and some formats need nothing of it."""
_OF_VERSIONS = _OF_ALL | {"splits", "views"}
_OF_TABLES = _OF_VERSIONS | {"rows"}
_OF_PICTURES = _OF_VERSIONS | {"photographs", "dataset"}
_OF_RUNS = _OF_ALL | {"parts", "weights", "backbone", "prior_power"}
_MODULES = {"pillow": "PIL"}
"""Of packages whose module has another name."""


@dataclass(frozen=True)
class VersionExporter:
    """A format that dataset versions are exported to."""

    summary: str
    """What is written, for people."""
    write: Callable[[VersionSource, Path], None]
    """Writes the export into an empty folder."""
    libraries: tuple[str, ...] = ()
    """Packages that it is written with and that decide its bytes."""
    takes: frozenset[str] = _OF_VERSIONS
    """Names of the fields of ``ExportOptions`` that mean something to it."""
    views: Views = "all"
    """Those that are exported unless others are chosen."""

    def versions(self, to: str) -> dict[str, str]:
        """Return the version of each library; UsageError where one is missing, or broken."""
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
    takes: frozenset[str] = _OF_RUNS
    """As of ``VersionExporter``."""
    standards: Mapping[str, str] = field(default_factory=dict)
    """Versions of what the files conform to."""

    def versions(self, to: str) -> dict[str, str]:
        """Return these versions; UsageError where a library is missing, or broken."""
        return {**_versions(self.libraries, to), **self.standards}


def _versions(libraries: Sequence[str], to: str) -> dict[str, str]:
    missing = [name for name in libraries if find_spec(_MODULES.get(name, name)) is None]
    if missing:
        raise UsageError(
            f"--to {to}: needs {' and '.join(missing)}, which cannot be found: run pip install "
            "'vocprep[export]'"
        )
    for name in libraries:
        try:
            import_module(_MODULES.get(name, name))
        except ImportError as error:
            raise UsageError(
                f"--to {to}: {name} is installed and cannot be loaded: {error}; install it again"
            ) from error
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
        "tables for pandas, polars, DuckDB", _write_parquet, ("pyarrow",), _OF_TABLES
    ),
    "hugging-face": VersionExporter(
        "a dataset for datasets.load_dataset, with its card",
        _write_hugging_face,
        ("datasets", "huggingface_hub", "pyarrow"),
        _OF_TABLES,
    ),
    "fiftyone": VersionExporter(
        "pictures for FiftyOne's Dataset.from_dir",
        write_fiftyone,
        ("pillow",),
        _OF_PICTURES,
        views="plain",
    ),
    "coco-panoptic": VersionExporter(
        "pictures and panoptic label maps in COCO's layout",
        write_coco_panoptic,
        ("pillow",),
        _OF_PICTURES,
        views="plain",
    ),
}

RUN_EXPORTERS: Mapping[RunFormat, RunExporter] = {
    "onnx": RunExporter(
        "models for onnxruntime",
        _write_onnx,
        ("torch", "onnx", "onnxscript"),
        standards={"opset": str(ONNX_OPSET)},
    ),
    "torch-export": RunExporter("programs for torch.export.load", _write_programs, ("torch",)),
}


def require_options(options: ExportOptions, to: ExportFormat) -> None:
    """Raise UsageError where an option is set that means nothing to a format."""
    taken: dict[str, frozenset[str]] = {
        **{name: exporter.takes for name, exporter in VERSION_EXPORTERS.items()},
        **{name: exporter.takes for name, exporter in RUN_EXPORTERS.items()},
    }
    for name in (each.name for each in fields(ExportOptions)):
        if name in taken[to] or getattr(options, name) == getattr(ExportOptions, name):
            continue
        fitting = [name_of_format for name_of_format, names in taken.items() if name in names]
        raise UsageError(
            f"--{name.replace('_', '-')}: is for --to {' or '.join(fitting)}: leave it out with "
            f"--to {to}"
        )
