"""Programs of torch.export: a module traced with example inputs, for inputs of any size.

Shape legend: B batch, P patches, ny, nx a patch grid.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx import config as fx_config

from vocprep.exporting.options import Part
from vocprep.exporting.runs.source import RunSource
from vocprep.geometry import PATCH, SIDE

OUTPUTS: Mapping[Part, tuple[str, ...]] = {
    "heads": ("class_probabilities", "label_map", "confidence"),
    "pixels": ("label_map", "confidence"),
}
"""Names of the outputs of each part."""
Arrays = Sequence[NDArray[Any]]
Computed = Callable[[Arrays], Arrays]
"""From the inputs of a file, in its order, to its outputs."""


@dataclass(frozen=True, kw_only=True)
class ProgramFiles:
    """A kind of file that holds a program."""

    suffix: str
    save: Callable[[ExportedProgram, tuple[str, ...], Mapping[str, Any], Path], None]
    """Write a program, the names of its outputs, and what it says of itself."""
    open: Callable[[Path], Computed | None]
    """Return what computes the outputs of a file; None where nothing installed does."""


@dataclass(frozen=True, kw_only=True)
class _Traced:
    """What a module is traced with."""

    module: nn.Module
    inputs: tuple[Tensor, ...]
    sizes: Mapping[str, Mapping[int, Any]]
    """Of each input by name: the dimensions that may have any size."""


def trace(source: RunSource, part: Part) -> ExportedProgram:
    """Return a part of a run as a program of torch.export, without traces of the code's paths."""
    traced = _heads(source) if part == "heads" else _pixels(source)
    with torch.no_grad(), _plain_attention():
        program = torch.export.export(
            traced.module, traced.inputs, dynamic_shapes=dict(traced.sizes), strict=False
        )
    # They hold of the examples alone, such as which of two ways a reshape took, and would refuse
    # pictures of one patch or one row: that these give the same is part of the check.
    program._guards_code.clear()  # torch.export has no option for it
    for node in program.graph.nodes:
        for name in ("stack_trace", "nn_module_stack", "source_fn_stack", "from_node"):
            node.meta.pop(name, None)
    return program


def _heads(source: RunSource) -> _Traced:
    size = source.run.config.heads.embedding_dim
    batch = Dim("batch")
    return _Traced(
        module=source.heads(),
        inputs=(torch.zeros(2, 6, size), torch.tensor([[2, 3], [1, 4]])),
        sizes={"embeddings": {0: batch, 1: Dim("patches")}, "grids": {0: batch}},
    )


def _pixels(source: RunSource) -> _Traced:
    side = source.spec.described_backbone.patch_pixels
    ny, nx = fixed_grid(source) or (2, 3)
    sizes: dict[int, Any] = {0: Dim("batch")}
    if fixed_grid(source) is None:
        sizes |= {1: side * Dim("ny"), 2: side * Dim("nx")}
    pixels = torch.zeros(2, ny * side, nx * side, 3, dtype=torch.uint8)
    return _Traced(module=source.pixels(), inputs=(pixels,), sizes={"pixels": sizes})


def fixed_grid(source: RunSource) -> tuple[int, int] | None:
    """Return the only patch grid whose pixels are taken, or None where any is.

    Networks that take whole pictures are exported for those of their shards, where these have one
    size: what they do with others is often decided in Python.
    """
    backbone = source.spec.described_backbone
    if not backbone.takes_whole_images or source.run.config.recipe.geometry.geometry == "native":
        return None
    return SIDE // PATCH, SIDE // PATCH


@contextmanager
def without_stack_traces() -> Iterator[None]:
    """Keep torch from noting for each operator the code that it comes from.

    It takes a fifth of the time of an export, and none of it is written.
    """
    name = "do_not_emit_stack_traces"  # releases of torch that do not know it do not look for it
    before = getattr(fx_config, name, False)
    setattr(fx_config, name, True)
    try:
        yield
    finally:
        setattr(fx_config, name, before)


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Trace attention as the operators that it consists of, not as torch's fused layer."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
