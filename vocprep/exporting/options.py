"""What a user sets of an export."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from vocprep.heads.model.config import PriorPower
from vocprep.storage.places import LocalPath
from vocprep.validation import checked

VersionFormat = Literal["npy", "parquet", "hugging-face", "fiftyone", "coco-panoptic"]
RunFormat = Literal["onnx", "torch-export"]
ExportFormat = VersionFormat | RunFormat
FORMATS: tuple[ExportFormat, ...] = (*get_args(VersionFormat), *get_args(RunFormat))
"""The names of the formats, as ``--to`` takes them."""
Views = Literal["all", "plain"]
Rows = Literal["pictures", "patches"]
Photos = Literal["placed", "none"]
Part = Literal["heads", "pixels"]
ONNX_OPSET = 18
"""Of ai.onnx: the oldest that torch exports to, so that the most programs read it."""


@checked
class ExportOptions:
    """What is exported, and where photographs and weights are found."""

    splits: tuple[str, ...] | None = None
    """Names of the splits of a version; all of them when None."""
    views: Views | None = None
    """Whether mirrored views and crops are exported too, where a version holds them; when None
    they are, but to the formats of pictures."""
    rows: Rows = "pictures"
    """What a row of a table is: a picture in one view, with lists over its patches, or a patch."""
    photographs: Photos = "placed"
    """Photographs beside label maps: ``placed`` on the patch grid, as the build placed them."""
    dataset: str | Path | None = None
    """Name or TOML of the dataset whose photographs they are; that of the version when None."""
    data_dir: LocalPath | None = None
    """Data dir of the build, for photographs and official weights."""
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
