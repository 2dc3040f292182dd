"""What a user sets of a report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from vocprep.storage.places import LocalPath
from vocprep.validation import checked


@checked
class ReportOptions:
    """What a report shows beside what its paths hold."""

    data_dir: LocalPath | None = None
    """Data dir of the build, for photographs; without it label maps stand alone."""
    dataset: str | Path | None = None
    """Name or TOML file of the dataset in it; that of the recipe when None."""
    audit: LocalPath | None = None
    """JSON file of ``vocprep audit``: likely label errors become a section."""
    pictures: Annotated[int, Field(ge=0, le=50)] = 4
    """Pictures that are shown per split, or per list of best and worst."""
    split: str | None = None
    """That runs are scored on: as for ``evaluate`` when None."""
    device: str = "auto"
    """That runs are scored with: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
