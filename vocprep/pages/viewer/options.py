"""What a user sets of the viewer."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import Field, model_validator

from vocprep.errors import UsageError
from vocprep.storage.places import LocalPath
from vocprep.validation import checked


@checked
class ViewOptions:
    """What the viewer shows beside versions and runs, and where it listens."""

    data_dir: LocalPath | None = None
    """Data dir of the build, for its photographs; without, label maps stand in for them."""
    dataset: str | None = None
    """Name or TOML file of the dataset in ``data_dir``; that of the recipe when None."""
    audit: LocalPath | None = None
    """JSON file of ``vocprep audit``, for the quality of labels."""
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """On 127.0.0.1; 0 for a free one."""
    open_browser: bool = True
    """Whether to open the user's browser, where there is a display."""
    device: str = "auto"
    """Of the runs: ``auto`` (the GPU where there is one), ``cpu``, ``cuda`` or ``cuda:N``."""

    @model_validator(mode="after")
    def _dataset_of_a_data_dir(self) -> Self:
        if self.dataset is not None and self.data_dir is None:
            raise UsageError("dataset: names what data_dir holds; give --data-dir too")
        return self
