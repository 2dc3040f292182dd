"""What an audit says of the pictures of a version.

Shape legend: N pictures of the catalogue, P patches of one.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from vocprep.auditing.result import ERRORS, AuditedPicture, AuditResult
from vocprep.errors import DataError
from vocprep.pages.viewer.shown.catalogue import Catalogue
from vocprep.validation import printable


class AuditedPictures:
    """The quality of labels, as columns of a catalogue."""

    def __init__(self, audit: AuditResult, catalogue: Catalogue) -> None:
        """DataError where the audit is of pictures that the catalogue does not list so."""
        self.qualities: NDArray[np.float64] = np.full(len(catalogue), np.nan)
        """[N] NaN where a picture was not audited."""
        self._patches: dict[int, NDArray[np.float32]] = {}
        self._suspicions: dict[int, str] = {}
        for picture in audit.pictures:
            place = catalogue.places.get(picture.id, -1)
            if place < 0 or catalogue.patches[place] != len(picture.patch_quality):
                raise DataError(
                    f"the audit of {audit.short_id}: picture {printable(picture.id, 60)!r} is not "
                    "one of the version; audit it again"
                )
            self.qualities[place] = picture.quality
            self._patches[place] = np.array(picture.patch_quality, dtype=np.float32)
            if (words := suspicion(picture)) is not None:
                self._suspicions[place] = words

    def suspicion(self, place: int) -> str | None:
        """Return what is likely wrong with a picture's labels, in words; None for nothing."""
        return self._suspicions.get(place)

    def patch_qualities(self, place: int) -> NDArray[np.float32] | None:
        """Return the quality of a picture's patches [P]; None where it was not audited."""
        return self._patches.get(place)


def suspicion(picture: AuditedPicture) -> str | None:
    """Return what an audit suspects of a picture, in words; None where it suspects nothing."""
    if picture.suspected is None:
        return None
    words = f"suspected: {ERRORS[picture.suspected]}"
    if picture.given is not None and picture.believed is not None:
        share = f"{100 * picture.confidence:.0f} %"
        words += f"; labelled {picture.given}, believed to be {picture.believed} ({share})"
    if picture.suspected == "moved" and picture.fits_better is not None:
        words += f"; fits better {picture.fits_better}"
    return words
