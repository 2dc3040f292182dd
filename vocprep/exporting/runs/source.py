"""What a trained run gives to its formats: its programs, and what is said of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from importlib import metadata
from typing import Any, get_args

import torch
from torch import Tensor, nn

from vocprep.data_dir.place import default_data_dir
from vocprep.errors import RunError
from vocprep.exporting.options import ExportOptions, Part
from vocprep.exporting.runs.heads_program import HeadsProgram
from vocprep.exporting.runs.pixels_program import EmbeddingProgram, PixelsProgram
from vocprep.features.backbone import FrozenBackbone, FrozenMaps
from vocprep.features.components import Components, make_reducer
from vocprep.features.embed import Embedder, EmbeddingSpec
from vocprep.features.exact import ExactBackbone
from vocprep.features.libraries.own_file import allow
from vocprep.features.weights import StateDict
from vocprep.geometry import PATCH
from vocprep.heads.runs.class_shares import decoding_of
from vocprep.heads.runs.run import Run
from vocprep.heads.runs.weights import find_components, find_weights
from vocprep.progress import NO_PROGRESS, Progress

_CPU = torch.device("cpu")


@dataclass(frozen=True, kw_only=True)
class RunSource:
    """A run, with the backbone that its shards were built with where that is exported too."""

    run: Run
    """On the CPU."""
    options: ExportOptions
    progress: Progress = NO_PROGRESS

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is exported."""
        return self.options.parts or get_args(Part)

    @cached_property
    def class_weights(self) -> Tensor | None:
        """Weights [C] of the classes' probabilities; UsageError where the run has none."""
        return decoding_of(self.run, self.options.prior_power, "none").class_weights

    @cached_property
    def spec(self) -> EmbeddingSpec:
        """What decides the embeddings; in float32 where the shards' are in fewer bits."""
        spec = EmbeddingSpec.of(self.run.config.recipe)
        return spec if spec.precision == "exact" else replace(spec, precision="fp32")

    @cached_property
    def embedder(self) -> Embedder:
        """What ``vocprep predict`` embeds with; errors are those of ``find_weights``."""
        return Embedder(self._weights, self.spec, device=_CPU, components=self._components)

    def heads(self) -> HeadsProgram:
        """Return the heads as a module to export."""
        return HeadsProgram(self.run.model, self.class_weights).eval().requires_grad_(False)

    def pixels(self) -> PixelsProgram:
        """Return the whole run as a module to export."""
        spec = self.spec
        size = spec.described_backbone.embedding_size(spec.windows, spec.layers)
        reducer = make_reducer(spec.reduction, size, _CPU, self._components)
        stored_as = self.run.config.recipe.embedding_dtype
        # torch.export saves weights in the order of their indices.
        backbone = self._backbone().to(memory_format=torch.contiguous_format)
        embedding = EmbeddingProgram(backbone, spec, reducer, stored_as)
        if (made := size if reducer is None else self.embedder.dim) != (
            taken := self.run.config.heads.embedding_dim
        ):
            raise RunError(
                f"{self.run.path}: takes embeddings of {taken:,} numbers, and its backbone gives "
                f"{made:,}, as with embeddings of one's own: pixels cannot be exported; give "
                "--parts heads"
            )
        return PixelsProgram(embedding, self.heads()).eval()

    def _backbone(self) -> nn.Module:
        spec = self.spec
        if spec.network is not None:
            return FrozenMaps.from_weights(self._weights, spec.backbone, spec.network, spec.layers)
        if spec.precision == "exact":
            return ExactBackbone.from_weights(
                self._weights, spec.backbone, spec.layers, spec.normalisation
            )
        return FrozenBackbone.from_weights(self._weights, spec.backbone, spec.layers)

    @cached_property
    def _weights(self) -> StateDict:
        recipe, data_dir = self.run.config.recipe, self.options.data_dir
        allow(self.options.backbone, recipe.backbone, recipe.network)
        return find_weights(self.run, self.options.weights, data_dir or default_data_dir())

    @cached_property
    def _components(self) -> Components | None:
        return find_components(self.run)

    @property
    def identity(self) -> Mapping[str, Any]:
        """What export.json says of the run and of what was taken of it."""
        config = self.run.config
        return {
            "kind": "run",
            "run_id": config.run_id,
            "epoch": self.run.epoch,
            "content_id": config.content_id,
            "recipe_id": config.recipe.recipe_id,
            "schema": config.labels.name,
            "parts": list(self.parts),
            "prior_power": self.options.prior_power,
        }

    @property
    def labels(self) -> Mapping[str, Any]:
        """Name, void id and class names of the label space, as ``run.json`` has them."""
        labels: Mapping[str, Any] = self.run.config.to_json()["labels"]
        return labels

    @property
    def about(self) -> Mapping[str, Any]:
        """What every exported file says of itself, as plain JSON values by name."""
        recipe = self.run.config.recipe
        return {
            "vocprep": metadata.version("vocprep"),
            "run_id": self.run.config.run_id,
            "labels": self.labels,
            "patch": PATCH,
            "patch_pixels": self.spec.described_backbone.patch_pixels,
            "embedding_dim": self.run.config.heads.embedding_dim,
            "geometry": recipe.geometry.short_name,
            "backbone": recipe.backbone,
            "weights_sha256": recipe.weights_sha256,
            "precision": self.spec.precision,
            "prior_power": self.options.prior_power,
        }


def run_source(run: Run, options: ExportOptions, progress: Progress = NO_PROGRESS) -> RunSource:
    """Return what a run gives; errors of options and weights are raised here, before any work."""
    source = RunSource(run=run, options=options, progress=progress)
    _ = source.class_weights
    if "pixels" in source.parts:
        _ = source.embedder
    return source
