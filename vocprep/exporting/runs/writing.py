"""Writing the parts of a run as files of one kind, each compared with the run before it is kept."""

from __future__ import annotations

from pathlib import Path

from torch.export import ExportedProgram

from vocprep.errors import UsageError
from vocprep.exporting.options import Part
from vocprep.exporting.runs.checking import check
from vocprep.exporting.runs.program import (
    OUTPUTS,
    ProgramFiles,
    trace,
    without_stack_traces,
)
from vocprep.exporting.runs.source import RunSource
from vocprep.features.libraries.maps import first_line
from vocprep.files.writing import write_json
from vocprep.progress import advancing, task


def write_parts(source: RunSource, folder: Path, files: ProgramFiles) -> list[str]:
    """Write each part of a run to ``folder/PART.SUFFIX`` and labels.json; return notes for people.

    DataError where a file computes something else than the run.
    """
    parts = sorted(source.parts, reverse=True)  # pixels first: these may be refused
    with task(source.progress, "parts", len(parts)), without_stack_traces():
        notes = [
            _written(source, part, folder, files) for part in advancing(parts, source.progress)
        ]
    write_json(folder / "labels.json", source.labels)
    return notes


def _written(source: RunSource, part: Part, folder: Path, files: ProgramFiles) -> str:
    """Write a part, compare it with the run, and return a note."""
    path = folder / f"{part}{files.suffix}"
    program = _traced(source, part)
    if isinstance(program, str):
        return f"{path.name} was not written: {program}"
    files.save(program, OUTPUTS[part], source.about, path)
    computes = files.open(path)
    if computes is None:
        return f"{path.name} was not compared with PyTorch: onnxruntime is not installed"
    return f"{path.name}: {check(source, part, path.name, computes)}"


def _traced(source: RunSource, part: Part) -> ExportedProgram | str:
    """Return a part as a program, or why there is none where it was not asked for by name."""
    if part == "heads" or source.spec.network is None:
        return trace(source, part)
    try:
        return trace(source, part)
    except Exception as error:  # the code of libraries, and of users, raises errors of many types
        told = (
            f"torch.export does not take the backbone {source.spec.backbone} ({first_line(error)})"
        )
        if source.options.parts is not None:
            raise UsageError(f"--parts pixels: {told}; give --parts heads") from error
        return told
