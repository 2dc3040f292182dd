"""vocprep: Pascal VOC and Pascal Context as frozen embeddings and per-patch targets, in shards.

The public names below are loaded when first used, so that importing the package loads no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vocprep.analysis.decode import DecodeOptions, decode
    from vocprep.auditing.audit import audit
    from vocprep.auditing.options import AuditOptions
    from vocprep.auditing.result import AuditResult, read_audit
    from vocprep.building.describe import PlanDescription, describe_build
    from vocprep.building.local import build, shard_orders
    from vocprep.building.orders import BuiltShard, ShardOrder, WorkerSetup, build_shard
    from vocprep.building.output.publish import write_dataset
    from vocprep.building.plan import BuildPlan, plan
    from vocprep.building.results import BuildResult, PartResult
    from vocprep.checks.diff import VersionDiff, diff
    from vocprep.checks.inspect import VersionSummary, inspect
    from vocprep.checks.lock import LockFile, lock
    from vocprep.checks.remake import build_locked
    from vocprep.checks.verify import Verification, verify
    from vocprep.downloading.download import DownloadOptions, download
    from vocprep.downloading.outcomes import DownloadOutcome, raise_failures
    from vocprep.downloading.plan import list_sources
    from vocprep.errors import VocprepError
    from vocprep.exporting.export import ExportResult, export
    from vocprep.exporting.options import ExportOptions
    from vocprep.geometry import Geometry
    from vocprep.heads.model.tfdet import TFDetHeads
    from vocprep.heads.predict import PredictionResult, PredictOptions, predict
    from vocprep.heads.runs.options import EvaluateOptions, TrainOptions
    from vocprep.heads.runs.presets import load_options
    from vocprep.heads.runs.run import Run, load_run
    from vocprep.heads.runs.sweeps import Sweep
    from vocprep.heads.scoring.evaluate import Evaluation, evaluate
    from vocprep.heads.scoring.scores import RunScores
    from vocprep.heads.training.summary import RunSummary, SeedsSummary, SweepSummary
    from vocprep.heads.training.train import train
    from vocprep.labels.label_space import LabelSpace, load_label_space
    from vocprep.labels.targets import make_targets, targets_to_label_map
    from vocprep.manifests import load_dataset
    from vocprep.options import (
        BuildChoices,
        BuildOptions,
        Layout,
        LoaderOptions,
        Part,
        TransferOptions,
        VerifyOptions,
    )
    from vocprep.own_data.init import init
    from vocprep.own_data.options import InitOptions
    from vocprep.own_data.result import InitResult
    from vocprep.pages.report.options import ReportOptions
    from vocprep.pages.report.report import ReportResult, report
    from vocprep.pages.viewer.options import ViewOptions
    from vocprep.pages.viewer.view import view
    from vocprep.progress import Progress
    from vocprep.recipe import Recipe
    from vocprep.shards.reader import Batch, ShardDataset, open  # noqa: A004
    from vocprep.shards.record import Record
    from vocprep.synthetic.dataset import sample
    from vocprep.transfer.pull import PullResult, pull
    from vocprep.transfer.push import PushResult, push

    __version__: str

_HOMES = {
    "AuditOptions": "auditing.options",
    "AuditResult": "auditing.result",
    "Batch": "shards.reader",
    "BuildChoices": "options",
    "BuildOptions": "options",
    "BuildPlan": "building.plan",
    "BuildResult": "building.results",
    "BuiltShard": "building.orders",
    "DecodeOptions": "analysis.decode",
    "DownloadOptions": "downloading.download",
    "DownloadOutcome": "downloading.outcomes",
    "EvaluateOptions": "heads.runs.options",
    "Evaluation": "heads.scoring.evaluate",
    "ExportOptions": "exporting.options",
    "ExportResult": "exporting.export",
    "Geometry": "geometry",
    "InitOptions": "own_data.options",
    "InitResult": "own_data.result",
    "LabelSpace": "labels.label_space",
    "Layout": "options",
    "LoaderOptions": "options",
    "LockFile": "checks.lock",
    "Part": "options",
    "PartResult": "building.results",
    "PlanDescription": "building.describe",
    "PredictOptions": "heads.predict",
    "PredictionResult": "heads.predict",
    "Progress": "progress",
    "PullResult": "transfer.pull",
    "PushResult": "transfer.push",
    "Recipe": "recipe",
    "Record": "shards.record",
    "ReportOptions": "pages.report.options",
    "ReportResult": "pages.report.report",
    "Run": "heads.runs.run",
    "RunScores": "heads.scoring.scores",
    "RunSummary": "heads.training.summary",
    "SeedsSummary": "heads.training.summary",
    "ShardDataset": "shards.reader",
    "ShardOrder": "building.orders",
    "Sweep": "heads.runs.sweeps",
    "SweepSummary": "heads.training.summary",
    "TFDetHeads": "heads.model.tfdet",
    "TrainOptions": "heads.runs.options",
    "TransferOptions": "options",
    "Verification": "checks.verify",
    "VerifyOptions": "options",
    "VersionDiff": "checks.diff",
    "VersionSummary": "checks.inspect",
    "ViewOptions": "pages.viewer.options",
    "VocprepError": "errors",
    "WorkerSetup": "building.orders",
    "audit": "auditing.audit",
    "build": "building.local",
    "build_locked": "checks.remake",
    "build_shard": "building.orders",
    "decode": "analysis.decode",
    "describe_build": "building.describe",
    "diff": "checks.diff",
    "download": "downloading.download",
    "evaluate": "heads.scoring.evaluate",
    "export": "exporting.export",
    "init": "own_data.init",
    "inspect": "checks.inspect",
    "list_sources": "downloading.plan",
    "load_dataset": "manifests",
    "load_label_space": "labels.label_space",
    "load_options": "heads.runs.presets",
    "load_run": "heads.runs.run",
    "lock": "checks.lock",
    "make_targets": "labels.targets",
    "open": "shards.reader",
    "plan": "building.plan",
    "predict": "heads.predict",
    "pull": "transfer.pull",
    "push": "transfer.push",
    "raise_failures": "downloading.outcomes",
    "report": "pages.report.report",
    "read_audit": "auditing.result",
    "sample": "synthetic.dataset",
    "shard_orders": "building.local",
    "targets_to_label_map": "labels.targets",
    "train": "heads.training.train",
    "verify": "checks.verify",
    "view": "pages.viewer.view",
    "write_dataset": "building.output.publish",
}

__all__ = [
    "AuditOptions",
    "AuditResult",
    "Batch",
    "BuildChoices",
    "BuildOptions",
    "BuildPlan",
    "BuildResult",
    "BuiltShard",
    "DecodeOptions",
    "DownloadOptions",
    "DownloadOutcome",
    "EvaluateOptions",
    "Evaluation",
    "ExportOptions",
    "ExportResult",
    "Geometry",
    "InitOptions",
    "InitResult",
    "LabelSpace",
    "Layout",
    "LoaderOptions",
    "LockFile",
    "Part",
    "PartResult",
    "PlanDescription",
    "PredictOptions",
    "PredictionResult",
    "Progress",
    "PullResult",
    "PushResult",
    "Recipe",
    "Record",
    "ReportOptions",
    "ReportResult",
    "Run",
    "RunScores",
    "RunSummary",
    "SeedsSummary",
    "ShardDataset",
    "ShardOrder",
    "Sweep",
    "SweepSummary",
    "TFDetHeads",
    "TrainOptions",
    "TransferOptions",
    "Verification",
    "VerifyOptions",
    "VersionDiff",
    "VersionSummary",
    "ViewOptions",
    "VocprepError",
    "WorkerSetup",
    "__version__",
    "audit",
    "build",
    "build_locked",
    "build_shard",
    "decode",
    "describe_build",
    "diff",
    "download",
    "evaluate",
    "export",
    "init",
    "inspect",
    "list_sources",
    "load_dataset",
    "load_label_space",
    "load_options",
    "load_run",
    "lock",
    "make_targets",
    "open",
    "plan",
    "predict",
    "pull",
    "push",
    "raise_failures",
    "read_audit",
    "report",
    "sample",
    "shard_orders",
    "targets_to_label_map",
    "train",
    "verify",
    "view",
    "write_dataset",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  # a third of the time to import this

        return version("vocprep")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
