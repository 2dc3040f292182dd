"""Geometry: how an image of any size becomes a grid of 32×32 patches.

Here is what is chosen and what follows of sizes; ``vocprep.placement`` moves the pixels.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import model_validator

from vocprep.errors import DataError, UsageError
from vocprep.validation import checked

PATCH = 32
"""Side of a patch in pixels."""
SIDE = 224
"""Side of the square that ``crop`` and ``squash`` produce: 7×7 patches."""
SHORTER = 256
"""What ``crop`` brings the shorter side to before it crops."""
WINDOWS = (32, 64, 128, 256)
"""Sides of the windows around a patch that ``shrink_windows`` can bring to a patch's size."""
MAX_PIXELS = 1 << 26
"""An image so long and thin that ``crop`` would blow it up beyond this is refused."""

GeometryKind = Literal["crop", "squash", "native"]
EdgeRule = Literal["drop", "pad"]
Grid = tuple[int, int]


@checked
class Geometry:
    """The choice of a geometry."""

    geometry: GeometryKind = "crop"
    """``crop``: shorter side to 256, centre 224×224. ``squash``: straight to 224×224. ``native``:
    no resize."""
    edge: EdgeRule = "drop"
    """What ``native`` does with the rows and columns past the last whole patch: leave them out, or
    fill the patch up (image: edge pixels repeated; label map: void)."""

    @model_validator(mode="after")
    def _edge_has_an_effect(self) -> Self:
        """Refuse an edge rule that would change nothing."""
        if self.edge == "pad" and self.geometry != "native":
            raise UsageError(
                f"edge 'pad' goes with geometry 'native' only, found {self.geometry!r}: leave "
                "--edge out"
            )
        return self

    @property
    def covers_all(self) -> bool:
        """Whether every pixel of an image lies in a patch."""
        return self.geometry == "squash" or self.edge == "pad"

    @property
    def short_name(self) -> str:
        """A name for people: ``crop224``, ``squash224``, ``native``, ``native-pad``."""
        if self.geometry == "native":
            return "native-pad" if self.edge == "pad" else "native"
        return f"{self.geometry}{SIDE}"


def patch_grid(height: int, width: int, geometry: Geometry) -> Grid:
    """Return (ny, nx), the patches per column and per row of an image of height × width pixels.

    Raises DataError when no whole patch fits.

    >>> patch_grid(375, 500, Geometry(geometry="native"))
    (11, 15)
    """
    if geometry.geometry != "native":
        return SIDE // PATCH, SIDE // PATCH
    if geometry.edge == "pad":
        return -(-height // PATCH), -(-width // PATCH)
    ny, nx = height // PATCH, width // PATCH
    if ny == 0 or nx == 0:
        problem = (
            f"a picture of {width}×{height} pixels has no whole {PATCH}×{PATCH} patch: expected "
            f"at least {PATCH} pixels a side"
        )
        raise DataError(
            f"{problem}; enlarge it, or build with --edge pad or --geometry crop or squash",
            recorded=f"{problem}; use edge pad, or another geometry",
        )
    return ny, nx
