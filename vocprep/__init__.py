"""vocprep: Pascal VOC and Pascal Context as frozen embeddings and per-patch targets, in shards.

The public names below are loaded when first used, so that importing the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vocprep.building.local import build_dataset
    from vocprep.building.plan import plan_build
    from vocprep.checks.diff import VersionDiff, diff
    from vocprep.checks.inspect import VersionSummary, inspect
    from vocprep.checks.lock import LockFile, lock
    from vocprep.checks.verify import Verification, verify
    from vocprep.errors import VocprepError
    from vocprep.geometry import Geometry
    from vocprep.heads.model.tfdet import TFDetHeads
    from vocprep.heads.predict import PredictionResult, PredictOptions, predict
    from vocprep.heads.runs.options import EvaluateOptions, TrainOptions
    from vocprep.heads.runs.run import load_run
    from vocprep.heads.scoring.evaluate import evaluate
    from vocprep.heads.scoring.scores import Evaluation, RunScores
    from vocprep.heads.training.train import train
    from vocprep.labels.export import DecodeOptions, decode
    from vocprep.labels.label_space import load_label_space
    from vocprep.labels.targets import make_targets, targets_to_label_map
    from vocprep.manifests import load_dataset
    from vocprep.options import (
        BuildChoices,
        BuildOptions,
        Layout,
        LoaderOptions,
        VerifyOptions,
    )
    from vocprep.recipe import Recipe
    from vocprep.shards.reader import Batch, ShardDataset, open  # noqa: A004
    from vocprep.shards.record import Record
    from vocprep.synthetic.dataset import sample

_HOMES = {
    "Batch": "shards.reader",
    "BuildChoices": "options",
    "BuildOptions": "options",
    "DecodeOptions": "labels.export",
    "EvaluateOptions": "heads.runs.options",
    "Evaluation": "heads.scoring.scores",
    "Geometry": "geometry",
    "Layout": "options",
    "LoaderOptions": "options",
    "LockFile": "checks.lock",
    "PredictOptions": "heads.predict",
    "PredictionResult": "heads.predict",
    "Recipe": "recipe",
    "Record": "shards.record",
    "RunScores": "heads.scoring.scores",
    "ShardDataset": "shards.reader",
    "TFDetHeads": "heads.model.tfdet",
    "TrainOptions": "heads.runs.options",
    "Verification": "checks.verify",
    "VerifyOptions": "options",
    "VersionDiff": "checks.diff",
    "VersionSummary": "checks.inspect",
    "VocprepError": "errors",
    "build_dataset": "building.local",
    "decode": "labels.export",
    "diff": "checks.diff",
    "evaluate": "heads.scoring.evaluate",
    "inspect": "checks.inspect",
    "load_dataset": "manifests",
    "load_label_space": "labels.label_space",
    "load_run": "heads.runs.run",
    "lock": "checks.lock",
    "make_targets": "labels.targets",
    "open": "shards.reader",
    "plan_build": "building.plan",
    "predict": "heads.predict",
    "sample": "synthetic.dataset",
    "targets_to_label_map": "labels.targets",
    "train": "heads.training.train",
    "verify": "checks.verify",
}

__all__ = [
    "Batch",
    "BuildChoices",
    "BuildOptions",
    "DecodeOptions",
    "EvaluateOptions",
    "Evaluation",
    "Geometry",
    "Layout",
    "LoaderOptions",
    "LockFile",
    "PredictOptions",
    "PredictionResult",
    "Recipe",
    "Record",
    "RunScores",
    "ShardDataset",
    "TFDetHeads",
    "TrainOptions",
    "Verification",
    "VerifyOptions",
    "VersionDiff",
    "VersionSummary",
    "VocprepError",
    "__version__",
    "build_dataset",
    "decode",
    "diff",
    "evaluate",
    "inspect",
    "load_dataset",
    "load_label_space",
    "load_run",
    "lock",
    "make_targets",
    "open",
    "plan_build",
    "predict",
    "sample",
    "targets_to_label_map",
    "train",
    "verify",
]
__version__ = version("vocprep")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
