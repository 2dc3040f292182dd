"""vocprep: Pascal VOC and Pascal Context as frozen embeddings and per-patch targets, in shards.

The public names below are loaded when first used, so that importing the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vocprep.engines.local import build_dataset
    from vocprep.errors import VocprepError
    from vocprep.geometry import Geometry
    from vocprep.heads.evaluate import evaluate
    from vocprep.heads.options import EvaluateOptions, TrainOptions
    from vocprep.heads.run import load_run
    from vocprep.heads.tfdet import TFDetHeads
    from vocprep.heads.train import train
    from vocprep.labels.schema import load_schema
    from vocprep.labels.targets import make_targets, targets_to_label_map
    from vocprep.recipe import Choices, EngineOptions, Layout, Recipe
    from vocprep.shards.plan import plan_build
    from vocprep.shards.reader import Batch, LoaderOptions, ShardDataset
    from vocprep.shards.record import Record
    from vocprep.sources.manifest import load_dataset

_HOMES = {
    "Batch": "shards.reader",
    "Choices": "recipe",
    "EngineOptions": "recipe",
    "EvaluateOptions": "heads.options",
    "Geometry": "geometry",
    "Layout": "recipe",
    "LoaderOptions": "shards.reader",
    "Recipe": "recipe",
    "Record": "shards.record",
    "ShardDataset": "shards.reader",
    "TFDetHeads": "heads.tfdet",
    "TrainOptions": "heads.options",
    "VocprepError": "errors",
    "build_dataset": "engines.local",
    "evaluate": "heads.evaluate",
    "load_dataset": "sources.manifest",
    "load_run": "heads.run",
    "load_schema": "labels.schema",
    "make_targets": "labels.targets",
    "plan_build": "shards.plan",
    "targets_to_label_map": "labels.targets",
    "train": "heads.train",
}

__all__ = [
    "Batch",
    "Choices",
    "EngineOptions",
    "EvaluateOptions",
    "Geometry",
    "Layout",
    "LoaderOptions",
    "Recipe",
    "Record",
    "ShardDataset",
    "TFDetHeads",
    "TrainOptions",
    "VocprepError",
    "__version__",
    "build_dataset",
    "evaluate",
    "load_dataset",
    "load_run",
    "load_schema",
    "make_targets",
    "plan_build",
    "targets_to_label_map",
    "train",
]
__version__ = version("vocprep")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
