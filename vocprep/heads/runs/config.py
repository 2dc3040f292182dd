"""The configuration of a run: what ``run.json`` keeps, and how older formats are read."""

from __future__ import annotations

import platform
import reprlib
from collections.abc import Mapping
from dataclasses import field
from importlib import metadata
from typing import Annotated, Any, Self, get_args

import numpy as np
import torch
from pydantic import (
    BeforeValidator,
    InstanceOf,
    PlainSerializer,
    ValidationError,
    model_validator,
)

from vocprep.backbones import Layer
from vocprep.errors import RunError, ShardError, UsageError
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.geometry import PATCH
from vocprep.heads.model.config import CellsPerSide, HeadsConfig
from vocprep.heads.runs.options import EXECUTION, OLDER, RENAMED, TrainOptions
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.label_space_files import ClassKey, StoredLabelSpace
from vocprep.recipe import Recipe
from vocprep.shards.reader import ShardDataset
from vocprep.validation import Positive, checked, explain, from_json, to_json

RUN_FORMAT_VERSION = 7


def library_versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "vocprep": metadata.version("vocprep"),
    }


def _label_space_from(value: object) -> object:
    """Return the label space of name, void id and class names, unless it is one already."""
    if isinstance(value, LabelSpace):
        return value
    if not isinstance(value, dict):
        raise ValueError("expected a table")
    added = {"title": "", "void_unknown": False, "raw_to_class": {}}
    stored = from_json(StoredLabelSpace, {**value, **added})
    space = LabelSpace.of_classes(name=stored.name, void=stored.void, names=stored.names)
    return space.with_colours(stored.colours or {})


def _label_space_json(space: LabelSpace) -> dict[str, Any]:
    names = {str(key): name for key, name in sorted(space.names.items())}
    return {"name": space.name, "void": space.void, "names": names, **space.colours_to_json()}


RunLabelSpace = Annotated[
    InstanceOf[LabelSpace], BeforeValidator(_label_space_from), PlainSerializer(_label_space_json)
]


@checked
class RunConfig:
    """What a run is: decided before its first step and kept in ``run.json``."""

    heads: HeadsConfig
    options: TrainOptions
    """``run.json`` keeps those that a preset may set; the rest may differ in each training."""
    labels: RunLabelSpace
    """``run.json`` keeps its name, void id, class names and given colours; it needs no manifest."""
    recipe: Recipe
    """Recipe of the shards that the run was trained on: backbone, weights digest, normalisation,
    geometry, label space; what ``predict`` applies to a new image."""
    content_id: str
    source_id: str
    class_pixels: Mapping[ClassKey, Positive] | None = None
    """Pixels of each class in the slots of all patches that the run is trained on, mirrored views
    included; None where it was not counted."""
    versions: Mapping[str, str] = field(default_factory=library_versions)
    format_version: int = field(default=RUN_FORMAT_VERSION, compare=False)
    """Of the ``run.json`` that it was read from."""
    run_id_read: str | None = field(default=None, compare=False)

    @model_validator(mode="after")
    def _heads_of_the_label_space(self) -> Self:
        if self.heads.outputs != self.labels.outputs:
            raise UsageError(
                f"heads.outputs {self.heads.outputs}: expected {self.labels.outputs}, one more "
                "than the largest class id in labels"
            )
        return self

    @model_validator(mode="after")
    def _pixels_of_the_label_space(self) -> Self:
        if unknown := set(self.class_pixels or ()) - set(self.labels.names):
            raise UsageError(f"class_pixels: id {min(unknown)} is not a class of labels")
        return self

    @classmethod
    def of(cls, dataset: ShardDataset, options: TrainOptions) -> Self:
        """Return the configuration of a new run: sizes from the data, the rest from the options."""
        labels, index = dataset.label_space, dataset.index
        # One's own features may have another size than the recipe's.
        first = next(dataset.read_shard(dataset.shard_names(options.train_split)[0]))
        size = int(first.embeddings.shape[-1])
        return cls(
            heads=HeadsConfig(
                outputs=labels.outputs,
                embedding_dim=size,
                **{name: getattr(options, name) for name in _SHARED},
                **_cells(options, index.recipe, size),
            ),
            options=options,
            labels=labels,
            recipe=index.recipe,
            content_id=index.content_id,
            source_id=index.source_id,
        )

    @property
    def run_id(self) -> str:
        """Sha256 of the canonical JSON of ``run.json``, whichever format it is of."""
        return self.run_id_read or sha256_hex(canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` is the inverse."""
        values = to_json(self)
        options = {
            name: value for name, value in values["options"].items() if name not in EXECUTION
        }
        return {
            "run_format_version": RUN_FORMAT_VERSION,
            "heads": values["heads"],
            "options": options,
            "labels": values["labels"],
            "recipe_id": self.recipe.recipe_id,
            "content_id": self.content_id,
            "source_id": self.source_id,
            "class_pixels": values["class_pixels"],
            "recipe": values["recipe"],
            "versions": values["versions"],
        }

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Rebuild a configuration; RunError says what does not fit."""
        try:
            fields = _upgraded(from_json(dict[str, Any], value))
            version = fields.pop("run_format_version")
            fields.pop("recipe_id", None)
            Recipe.from_json(fields["recipe"])  # which has every field
            run_id = sha256_hex(canonical_json(value))
            return from_json(cls, {**fields, "format_version": version, "run_id_read": run_id})
        except KeyError as error:
            raise RunError(f"expected a field {error}, found none") from error
        except (
            *(TypeError, ValueError, AttributeError),
            *(ValidationError, ShardError, UsageError),
        ) as error:
            raise RunError(explain(error)) from error


_SHARED = (
    *("position", "encoder", "class_loss", "label_smoothing", "slots"),
    *("depth", "feedforward", "norm_first", "mask_head"),
    *("mask_loss", "mask_dropout", "input_layer", "input_dropout"),
)
"""Fields that the heads' configuration has of the options."""


def _cells(options: TrainOptions, recipe: Recipe, size: int) -> dict[str, Any]:
    """Return how heads of cells take embeddings of ``size`` numbers; nothing for other heads."""
    if options.mask_head != "cells":
        return {}
    layers, windows = embedding_layers(recipe, size)
    finest = max(
        layer.cells * PATCH // window for layer, window in zip(layers, windows, strict=True)
    )
    cells = options.cells or max(each for each in get_args(CellsPerSide) if each <= max(1, finest))
    return {
        "layers": layers,
        "windows": windows,
        "cells": cells,
        "cell_context": 0 if options.encoder == "none" else options.cell_context,
    }


def embedding_layers(recipe: Recipe, size: int) -> tuple[tuple[Layer, ...], tuple[int, ...]]:
    """Return the layers that embeddings of ``size`` numbers consist of, and each one's window.

    In their order; windows are sides in pixels. Embeddings that were made smaller, or that are not
    of the recipe, are one layer of one cell, and a whole image's cells are those of the patch.
    """
    if recipe.reduction is not None or recipe.embedding_size != size:
        return (Layer(channels=size, cells=1),), (PATCH,)
    known = recipe.described_backbone.layers
    layers, windows = [known[name] for name in recipe.layers], recipe.windows or (PATCH,)
    each = [(layer, window) for window in windows for layer in layers]
    return tuple(layer for layer, _ in each), tuple(window for _, window in each)


def _upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """Return a run.json's values in the names of this version; RunError for an unknown version."""
    version = value["run_format_version"]
    if version == RUN_FORMAT_VERSION:
        return dict(value)
    if version not in (1, 2, 3, 4, 5, 6):
        raise RunError(
            f"expected a run_format_version from 1 to {RUN_FORMAT_VERSION}, found "
            f"{reprlib.repr(version)}"
        )
    parts = {name: value[name] for name in ("heads", "options", "recipe")}
    heads, options, recipe = from_json(dict[str, dict[str, Any]], parts).values()
    if version == 1:
        heads |= {"slots": "area"}
        options |= {"standardise": False, "precision": "fp32", "recipe": "", "slots": "area"}
    if version in (1, 2):  # the first shards had the patch itself and the last layer only
        recipe = {"windows": [32], "layers": ["layer3"], **recipe}
    if version == 2:
        options["dropout_factor"] = options.pop("dropout")
    options = {**OLDER, "lanes": 1, **options}
    for fields in (heads, options):
        for old, new in RENAMED.items():
            if old in fields:
                fields[new] = fields.pop(old)
    return {**value, "heads": heads, "options": options, "recipe": recipe}
