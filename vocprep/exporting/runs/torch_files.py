"""``--to torch-export``: programs of torch.export, read by ``torch.export.load``."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from vocprep.exporting.runs.program import Computed, ProgramFiles
from vocprep.files.writing import canonical_json

ABOUT_FILE = "vocprep.json"
"""What a file says of itself, among the ``extra_files`` of ``torch.export.load``."""


def save_program(
    program: ExportedProgram, outputs: tuple[str, ...], about: Mapping[str, Any], path: Path
) -> None:
    """Write a program; its outputs are a tuple in their order."""
    told = canonical_json({**about, "outputs": list(outputs)}).decode()
    # To memory first: where a disk is full, torch's writer of files ends the whole process.
    stream = io.BytesIO()
    torch.export.save(program, stream, extra_files={ABOUT_FILE: told})
    path.write_bytes(stream.getbuffer())


def open_program(path: Path) -> Computed:
    """Return what computes the outputs of a file that was written."""
    loaded = torch.export.load(path).module()
    return lambda inputs: [each.numpy() for each in loaded(*map(torch.from_numpy, inputs))]


TORCH_FILES = ProgramFiles(suffix=".pt2", save=save_program, open=open_program)
