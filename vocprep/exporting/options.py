"""What a user sets of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from vocprep.errors import UsageError
from vocprep.heads.model.config import PriorPower
from vocprep.storage.places import LocalPath
from vocprep.validation import checked

VersionFormat = Literal["npy", "parquet", "hugging-face"]
RunFormat = Literal["onnx", "torch-export"]
ExportFormat = VersionFormat | RunFormat
FORMATS: tuple[ExportFormat, ...] = (*get_args(VersionFormat), *get_args(RunFormat))
"""The names of the formats, as ``--to`` takes them."""
Views = Literal["all", "plain"]
Rows = Literal["pictures", "patches"]
Part = Literal["heads", "pixels"]
ONNX_OPSET = 18
"""Of ai.onnx: the oldest that torch exports to, so that the most programs read it."""


@checked
class ExportOptions:
    """What is exported, and where weights are found."""

    splits: tuple[str, ...] | None = None
    """Names of the splits of a version; all of them when None."""
    views: Views = "all"
    """Whether mirrored views and crops are exported too, where a version holds them."""
    rows: Rows = "pictures"
    """What a row of a table is: a picture in one view, with lists over its patches, or a patch."""
    data_dir: LocalPath | None = None
    """Data dir of the build, for official weights."""
    parts: tuple[Part, ...] | None = None
    """Of a run: ``heads``, from embeddings, and ``pixels``, from pictures; when None both, or those
    that can be exported."""
    weights: str | Path | None = None
    """Path or ``random:SEED`` of a run's backbone; where training found them when None."""
    backbone: str | None = None
    """``FILE.py:FUNCTION`` of a run whose backbone a file of one's own makes; its code is run."""
    prior_power: PriorPower = 0.0
    """Divide each class's probability by its share of the pixels trained on to this power, 0 to
    1."""

    def require_version(self, to: str) -> None:
        """Raise UsageError where a field is set that exports of versions do not have."""
        self._require_defaults(("parts", "weights", "backbone", "prior_power"), to, "run")

    def require_run(self, to: str) -> None:
        """Raise UsageError where a field is set that exports of runs do not have."""
        self._require_defaults(("splits", "views", "rows"), to, "dataset version")

    def _require_defaults(self, names: tuple[str, ...], to: str, kind: str) -> None:
        for name in names:
            if getattr(self, name) != getattr(ExportOptions, name):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"{option}: is for a {kind}: leave it out with --to {to}")
