"""What a user sets of an export."""

from __future__ import annotations

from typing import Literal

from vocprep.storage.places import LocalPath
from vocprep.validation import checked

VersionFormat = Literal["npy", "parquet", "hugging-face"]
ExportFormat = VersionFormat
"""The names of the formats, as ``--to`` takes them."""
Views = Literal["all", "plain"]
Rows = Literal["pictures", "patches"]


@checked
class ExportOptions:
    """What is exported, and where photographs are found."""

    splits: tuple[str, ...] | None = None
    """Names of the splits of a version; all of them when None."""
    views: Views = "all"
    """Whether mirrored views and crops are exported too, where a version holds them."""
    rows: Rows = "pictures"
    """What a row of a table is: a picture in one view, with lists over its patches, or a patch."""
    data_dir: LocalPath | None = None
    """Data dir of the build, for the formats that hold photographs."""
    dataset: str | None = None
    """Name or TOML file of the dataset in it; that of the recipe when None."""
