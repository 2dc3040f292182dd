"""``--to onnx``: models for onnxruntime and what else reads ONNX."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import onnx
import torch
from torch.export import ExportedProgram

from vocprep.exporting.options import ONNX_OPSET
from vocprep.exporting.runs.program import Computed, ProgramFiles

DOMAIN = "vocprep"


def save_model(
    program: ExportedProgram, outputs: tuple[str, ...], about: Mapping[str, Any], path: Path
) -> None:
    """Write a model, whose weights are in a file beside it where they pass 2 GB.

    ``about`` becomes metadata, of which values that are no text are JSON.
    """
    with _without_remarks():
        exported = torch.onnx.export(
            program, dynamo=True, opset_version=ONNX_OPSET, output_names=outputs, verbose=False
        )
    if exported is None:
        raise TypeError("torch.onnx.export returned no model")
    model = exported.model
    for value in (*model.graph, *_values(model.graph)):
        value.metadata_props.clear()  # paths of this machine, of no use to others
    told = {**about, "opset": str(ONNX_OPSET)}
    model.metadata_props.clear()
    for name, value in told.items():
        text = value if isinstance(value, str) else json.dumps(value)
        model.metadata_props[f"{DOMAIN}.{name}"] = text
    exported.save(path)
    onnx.checker.check_model(path, full_check=True)


@contextmanager
def _without_remarks() -> Iterator[None]:
    """Keep the exporter from printing what it does not simplify."""
    logger = logging.getLogger("onnxscript")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def _values(graph: Any) -> Iterator[Any]:
    """Yield the inputs, outputs, weights and results of a graph."""
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def open_model(path: Path) -> Computed | None:
    """Return what computes the outputs of a model, by onnxruntime; None without that library."""
    try:
        import onnxruntime  # noqa: PLC0415  # not needed to write a model
    except ImportError:
        return None
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    names = [each.name for each in session.get_inputs()]
    return lambda inputs: session.run(None, dict(zip(names, inputs, strict=True)))


ONNX_FILES = ProgramFiles(suffix=".onnx", save=save_model, open=open_model)
