"""What an evaluation says: plain numbers, as ``evaluate`` makes them and ``--json`` prints them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from vocprep.drawing.charts import confusion_png
from vocprep.heads.scoring.counters import ImageScore, MaskQuality
from vocprep.heads.scoring.metrics import ConfusionMatrix, confusion_shares

CONFUSION_CLASSES = 30
"""Classes that a confusion matrix is drawn of."""

Area = Literal["covered area", "whole image"]


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """Scores of pixels off one confusion matrix; all lie in 0..1 and larger is better."""

    name: str
    miou_present: float
    """Mean IoU over the classes that the split's ground truth holds."""
    miou_all: float
    """Mean IoU over all classes of the schema, an absent class being 0."""
    miou_frequent: float
    """Mean IoU over the classes with at least 1 % of the scored pixels."""
    pixel_accuracy: float
    frequency_weighted_iou: float


@dataclass(frozen=True, kw_only=True)
class ScoreRow(TableRow):
    """The same over the covered area, with the scores of patches."""

    patch_top1: float
    """``metrics.PatchTop1``."""
    recall_at_4: float
    """``metrics.PatchRecall``."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The ladder over another area or in another label space."""

    area: Area
    """``covered area``: the pixels that lie in a patch. ``whole image``: with those that the
    geometry leaves out, at its scale, which are wrong in every row (``whole_image``)."""
    schema: str
    pixels: int
    """Pixels scored: those that are not void."""
    classes_present: int
    classes_all: int
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class of the split's ground truth."""

    label: int
    name: str
    pixels: int
    iou: float
    """The model's."""
    accuracy: float
    """Share of the class's pixels that the model found."""
    oracle_iou: float
    """That of GT top-4."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a run on a split."""

    run: str
    """Name of the run's folder."""
    epoch: int
    split: str
    images: int
    pixels: int
    """Pixels scored: those that are covered and not void."""
    schema: str
    classes_present: int
    classes_all: int
    loss: float
    """Category and mask loss together, in nats."""
    rows: tuple[ScoreRow, ...]
    """Model, oracle ladder, majority label; over the covered area."""
    mean_average_precision: float
    """Macro mAP: the mean over classes that a patch holds of the average precision of the patches'
    category scores (``counters.ScoreHistogram``)."""
    masks: MaskQuality
    tables: tuple[ScoreTable, ...]
    """The rows over whole images, where these are known, and in the label space of published
    scores."""
    majority_label: str
    majority_split: str
    """The split whose most frequent label by pixels the majority row predicts."""
    classes: tuple[ClassScore, ...]
    """Classes present in the ground truth, the most pixels first."""
    worst_images: tuple[ImageScore, ...]
    """Those with the lowest pixel accuracy, the worst first."""
    notes: tuple[str, ...]
    """What differs between the run's shards and these without spoiling the scores' meaning, and
    what is not known."""
    confusion: ConfusionMatrix
    """The model's, over the covered area; not part of the JSON."""

    def row(self, name: str) -> ScoreRow:
        """Return the row of that name."""
        return next(row for row in self.rows if row.name == name)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, keys as the fields are called, without the matrix."""
        names = [item.name for item in fields(self) if item.name != "confusion"]
        return {name: _plain(getattr(self, name)) for name in names}


def _plain(value: Any) -> Any:
    """Turn dataclasses and tuples of them into what JSON has."""
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return asdict(value) if hasattr(value, "__dataclass_fields__") else value


def draw_confusion(result: Evaluation, most: int = CONFUSION_CLASSES) -> bytes:
    """Return the model's confusions between the classes with the most pixels, as PNG."""
    top = result.classes[:most]
    shares = confusion_shares(result.confusion, [score.label for score in top])
    names = [f"{score.name} {score.label}" for score in top]
    return confusion_png(shares, names, f"{result.run}, split {result.split}")
