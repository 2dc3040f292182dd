"""What an audit found, and its files: JSON for programs and pages, CSV for tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from vocprep.analysis.duplicates import Duplicates
from vocprep.auditing.planted import Kind
from vocprep.errors import DataError
from vocprep.files.reading import read_json
from vocprep.shards.samples import Entry
from vocprep.validation import WholeNumber, explain, from_json

MAX_BYTES = 1 << 30
"""Of a file of an audit: about 500 bytes per picture of 49 patches."""
ERRORS: dict[Kind, str] = {
    "class": "an object has the wrong class",
    "other picture": "the label map is another picture's",
    "moved": "the label map is moved, mirrored or turned over",
    "erased": "an object is not labelled",
}
"""The kinds of errors in words."""
Share = Annotated[float, Field(ge=0, le=1)]
COLUMNS = (
    *("rank", "id", "split", "quality", "suspected", "given", "believed", "confidence"),
    *("patches", "fits_better", "other_maps_fit_better", "void_percent", "void_outlier"),
)


class AuditedPicture(Entry):
    """What an audit makes of one picture's labels."""

    id: str
    split: str
    quality: Share
    """Probability that the label map is right, by the errors that were looked for."""
    suspected: Kind | None
    """The likeliest error, where quality is below 0.75."""
    given: str | None
    believed: str | None
    """The classes of the labels and of the model where they differ most; None where nowhere."""
    confidence: Share
    """Mean probability of ``believed`` over these patches."""
    patches: tuple[int, ...]
    """Which ones: numbers in the picture's grid, row-major."""
    fits_better: str | None
    """How the map would have to be transformed to fit better: moved, mirrored, upside down."""
    other_maps_fit_better: Share
    """Part of a sample of other pictures' label maps."""
    void_percent: float
    void_outlier: bool
    """Whether void is far above that of other pictures."""
    patch_quality: tuple[Share, ...]
    """Of each patch: normalized margin over calibrated probabilities, void left out."""

    @model_validator(mode="after")
    def _patches_of_the_picture(self) -> Self:
        count = len(self.patch_quality)
        if not all(0 <= patch < count for patch in self.patches):
            raise ValueError(f"patches of {self.id!r}: expected numbers below {count}")
        return self


class AuditResult(Entry):
    """The pictures of a version, the likeliest label errors first."""

    format: Literal["vocprep-audit"] = "vocprep-audit"
    format_version: Annotated[Literal[1], WholeNumber] = 1
    content_id: str
    """Of the version that was audited."""
    short_id: str
    folds: int
    splits: tuple[str, ...]
    pixel_accuracy: Share
    """Of the out-of-fold predictions, in pixels of each patch's likeliest class."""
    top: int
    """Pictures that lists show."""
    pictures: tuple[AuditedPicture, ...]
    duplicates: Duplicates

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return self.model_dump(mode="json")

    @property
    def listed(self) -> tuple[AuditedPicture, ...]:
        """The pictures that lists show."""
        return self.pictures[: self.top]

    def to_csv(self) -> str:
        """Return the pictures that lists show as CSV, with a head."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(COLUMNS)
        for rank, picture in enumerate(self.listed, start=1):
            row = {**picture.model_dump(), "rank": rank}
            row["patches"] = " ".join(map(str, picture.patches))
            writer.writerow([_cell(row[name]) for name in COLUMNS])
        return stream.getvalue()


def _cell(value: object) -> object:
    """Return a cell of CSV: no spreadsheet takes a text for a formula."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return value


def read_audit(path: Path) -> AuditResult:
    """Return what ``vocprep audit`` wrote as JSON; DataError where it is no such file."""
    advice = "give the JSON file that vocprep audit SHARDS --out FILE.json writes"
    try:
        value = read_json(path, MAX_BYTES)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{path}: cannot be read as an audit: {explain(error)}; {advice}"
        ) from error
    try:
        return from_json(AuditResult, value)
    except ValueError as error:
        raise DataError(f"{path}: expected an audit: {explain(error)}; {advice}") from error
