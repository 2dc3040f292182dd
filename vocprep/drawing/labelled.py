"""The sheet of one image with what is known of it: truth, prediction, error, confidence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.drawing.label_maps import paint_confidence, paint_errors, paint_label_map
from vocprep.drawing.legend import legend_rows
from vocprep.drawing.palette import ClassStyle
from vocprep.drawing.sheet import Panel, picture_sheet, reduced_image, reduced_values


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledImage:
    """An image and its label maps, those that there are; all of H×W pixels."""

    name: str
    image: NDArray[np.uint8] | None = None
    """[H, W, 3]; without it, label maps are drawn in plain colours."""
    truth: NDArray[np.uint16] | None = None
    """[H, W] class ids."""
    predicted: NDArray[np.uint16] | None = None
    """[H, W] class ids."""
    confidence: NDArray[np.floating] | None = None
    """[H, W] from 0 to 1."""


def labelled_sheet(item: LabelledImage, style: ClassStyle, title: str = "") -> Image.Image:
    """Draw an image, its truth, prediction, error and confidence side by side, with a legend.

    The error is drawn where truth and prediction are known. At least one label map must be.
    """
    known = {"truth": item.truth, "prediction": item.predicted}
    label_maps = {heading: found for heading, found in known.items() if found is not None}
    # A single column needs no other heading than what its numbers are.
    headings = tuple(label_maps) if len(label_maps) > 1 else ("share",)
    legend = legend_rows(list(label_maps.values()), style)
    panels = list(_panels(item, style))
    return picture_sheet(panels, legend, headings=headings, title=title)


def _panels(item: LabelledImage, style: ClassStyle) -> Iterator[Panel]:
    image = None if item.image is None else reduced_image(item.image)
    truth = None if item.truth is None else reduced_values(item.truth)
    predicted = None if item.predicted is None else reduced_values(item.predicted)
    if image is not None:
        yield Panel(caption=item.name, pixels=image)
    if truth is not None:
        caption = "truth" if image is not None else f"{item.name}: truth"
        yield Panel(caption=caption, pixels=paint_label_map(truth, style, image))
    if predicted is not None:
        yield Panel(caption="prediction", pixels=paint_label_map(predicted, style, image))
    if truth is not None and predicted is not None:
        yield Panel(caption="error", pixels=paint_errors(truth, predicted, style, image))
    if item.confidence is not None:
        values = paint_confidence(reduced_values(item.confidence))
        yield Panel(caption="confidence", pixels=values, limits=("0", "1"))
