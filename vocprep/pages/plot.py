"""Pictures for people: overlays with a legend, curves, label statistics, confusion matrices."""

from __future__ import annotations

import io
from collections.abc import Callable, Collection, Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vocprep.heads.runs.history import EpochMetrics
from vocprep.labels.statistics import LabelStatistics, label_areas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from vocprep.heads.scoring.evaluation import Evaluation
    from vocprep.heads.scoring.metrics import ConfusionMatrix

LEGEND_ROWS = 12
CONFUSION_CLASSES = 30
"""Classes that a confusion matrix is drawn of."""
_SWATCH = 14
_LEGEND_WIDTH = 190


@cache
def palette(count: int = 256) -> NDArray[np.uint8]:
    """Return the colour map of the VOC development kit: uint8 [count, 3].

    The bits of a label's number are dealt out to red, green and blue, high bits first, so that
    neighbouring ids look unlike. Ids above 255 go round once more with a shift.
    """
    labels = np.arange(count)
    labels = np.where(labels < 256, labels, (labels * 37 + 91) % 256)
    colours = np.zeros((count, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            value = (labels >> (3 * bit + channel)) & 1 if 3 * bit + channel < 8 else 0 * labels
            colours[:, channel] |= (value << (7 - bit)).astype(np.uint8)
    return colours


def overlay(
    image: NDArray[np.uint8],
    label_map: NDArray[np.uint16],
    label_name: Callable[[int], str],
    *,
    unpainted: Collection[int] = (),
    opacity: float = 0.55,
) -> Image.Image:
    """Lay a label map [H, W] over its picture [H, W, 3], beside the picture and a legend.

    The legend lists the largest labels with their share of the pixels. ``unpainted`` labels, such
    as void and a background, leave the picture as it is.
    """
    colours = palette(65536)[label_map]
    painted = np.where(np.isin(label_map, list(unpainted)), 0, opacity)[..., np.newaxis]
    mixed = (image * (1 - painted) + colours * painted).astype(np.uint8)
    height, width = label_map.shape
    legend = _legend(label_map, label_name, unpainted)
    sheet = Image.new("RGB", (2 * width + legend.width, max(height, legend.height)), "white")
    sheet.paste(Image.fromarray(image), (0, 0))
    sheet.paste(Image.fromarray(mixed), (width, 0))
    sheet.paste(legend, (2 * width, 0))
    return sheet


def png_bytes(picture: Image.Image) -> bytes:
    """Return a picture as PNG."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


def _legend(
    label_map: NDArray[np.uint16], label_name: Callable[[int], str], unpainted: Collection[int]
) -> Image.Image:
    areas = sorted(label_areas(label_map).items(), key=lambda item: -item[1])
    rows = areas[:LEGEND_ROWS]
    line = _SWATCH + 4
    legend = Image.new("RGB", (_LEGEND_WIDTH, line * (len(rows) + 1) + 8), "white")
    draw = ImageDraw.Draw(legend)
    font = ImageFont.load_default(size=12)
    colours = palette(65536)
    for number, (label, area) in enumerate(rows):
        top = 6 + number * line
        colour = (
            tuple(int(channel) for channel in colours[label]) if label not in unpainted else None
        )
        draw.rectangle((8, top, 8 + _SWATCH, top + _SWATCH), fill=colour, outline="black")
        percent = 100 * area / label_map.size
        share = f"{label_name(label)}  " + (f"{percent:.0f} %" if percent >= 1 else "< 1 %")
        draw.text((14 + _SWATCH, top), share, fill="black", font=font)
    if len(areas) > len(rows):
        text = f"and {len(areas) - len(rows)} more"
        draw.text((14 + _SWATCH, 6 + len(rows) * line), text, fill="black", font=font)
    return legend


def curves_png(history: Sequence[EpochMetrics]) -> bytes:
    """Draw a training's losses and validation mIoU by epoch."""
    figure = _figure(8, 4)
    left = figure.add_subplot()
    epochs = [metrics.epoch for metrics in history]
    # With markers: a line alone shows nothing where there is one point.
    left.plot(epochs, [metrics.loss for metrics in history], ".-", label="train loss")
    scored = [metrics for metrics in history if metrics.val_miou is not None]
    left.set_xlabel("epoch")
    left.locator_params(axis="x", integer=True)
    left.set_ylabel("loss (nats)")
    if scored:
        at = [metrics.epoch for metrics in scored]
        left.plot(at, [metrics.val_loss or 0.0 for metrics in scored], ".-", label="val loss")
        right = left.twinx()
        right.plot(at, [100 * (metrics.val_miou or 0.0) for metrics in scored], "g.-")
        left.plot([], [], "g.-", label="val mIoU")
        right.set_ylabel("mIoU of classes present (%)", color="g")
        right.set_ylim(bottom=0)
    left.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, frameon=False)
    return _png(figure)


def label_chart_png(statistics: LabelStatistics, most: int = 40) -> bytes:
    """Draw the labels with the most pixels as bars, the largest first."""
    top = statistics.pixels_of.most_common(most)
    figure = _figure(8, 1.2 + 0.2 * len(top))
    axes = figure.add_subplot()
    names = [statistics.schema.names[label] for label, _ in top]
    axes.barh(names, [100 * pixels / max(statistics.pixels, 1) for _, pixels in top])
    axes.invert_yaxis()
    axes.set_xlabel(f"share of pixels (%), {statistics.images:,} images, {statistics.schema.name}")
    return _png(figure)


def confusion_png(result: Evaluation, most: int = CONFUSION_CLASSES) -> bytes:
    """Draw the model's confusions between the classes with the most pixels.

    A row is a class of the ground truth and sums to 100 %; the last column holds the predictions
    that have no column of their own.
    """
    top = result.classes[:most]
    shares = confusion_shares(result.confusion, [score.label for score in top])
    names = [f"{score.name} {score.label}" for score in top]
    side = 3.0 + 0.26 * len(top)
    figure = _figure(side + 1, side)
    axes = figure.add_subplot()
    drawn = axes.imshow(100 * shares, cmap="magma_r", vmin=0, vmax=100, aspect="auto")
    axes.set_xticks(range(len(top) + 1), [*names, "other"], rotation=90, fontsize=8)
    axes.set_yticks(range(len(top)), names, fontsize=8)
    axes.set_xlabel("predicted")
    axes.set_ylabel("ground truth, the most pixels first")
    axes.set_title(f"{result.run}, split {result.split}", fontsize=10)
    figure.colorbar(drawn, label="share of the class's pixels (%)")
    return _png(figure)


def confusion_shares(matrix: ConfusionMatrix, labels: Sequence[int]) -> NDArray[np.float64]:
    """Return what became of the pixels of L labels: [L, L + 1] shares, other predictions last."""
    rows = matrix.counts[list(labels)]
    chosen = rows[:, list(labels)]
    pixels = rows.sum(axis=1, keepdims=True)
    other = pixels - chosen.sum(axis=1, keepdims=True)
    shares: NDArray[np.float64] = np.hstack([chosen, other]) / np.maximum(pixels, 1)
    return shares


def _figure(width: float, height: float) -> Figure:
    """Return an empty figure in inches, without touching pyplot's global state."""
    from matplotlib.figure import Figure  # noqa: PLC0415  # half a second that most calls can save

    return Figure(figsize=(width, height), layout="constrained")


def _png(figure: Figure) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
    return stream.getvalue()
