"""What a user sets of ``init``."""

from __future__ import annotations

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from vocprep.options import usable_cores
from vocprep.validation import NotNegative, Positive, checked


@checked
class InitOptions:
    """How a folder is looked at, and what the manifests say where the folder does not."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")] | None = None
    """Name of the dataset; the folder's name, made plain, when None."""
    split: str | None = None
    """Percentages of train and val, as ``80/20``, or of train, val and test; when None, splits are
    those of the folder."""
    seed: NotNegative = 0
    """Of the split, and of the sample of masks that is decoded."""
    void: Annotated[int, Field(ge=0, lt=65_535)] | Literal["none"] | None = None
    """Id of void in the masks; ``none`` where every id is a class; when None, it follows from class
    lists and masks, or is a question."""
    all_masks: bool = False
    """Decode all masks, and not a sample of 200."""
    dry_run: bool = False
    """Write nothing."""
    workers: Positive = field(default_factory=usable_cores)
    """Threads that read and decode."""
