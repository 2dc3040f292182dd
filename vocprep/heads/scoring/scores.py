"""The results of an evaluation, as ``evaluate`` returns and ``--json`` prints them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, InstanceOf

from vocprep.drawing.charts import confusion_png
from vocprep.files.writing import write_atomic
from vocprep.heads.model.config import Tta
from vocprep.heads.scoring.measures.calibration import Calibration
from vocprep.heads.scoring.measures.errors import Errors
from vocprep.heads.scoring.measures.image_scores import Group, ImageConfusions, ImageScore
from vocprep.heads.scoring.measures.masks import MaskQuality
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix, confusion_shares
from vocprep.heads.scoring.measures.oracles import RowKind, chance_name, mask_ious_of
from vocprep.validation import to_json

CONFUSION_CLASSES = 30
"""Classes that a confusion matrix is drawn of."""

Area = Literal["covered area", "whole image"]


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """Pixel scores from one confusion matrix; all lie in 0..1 and larger is better."""

    kind: RowKind
    name: str
    """``kind.display_name``, for people."""
    miou_present: float
    """Mean IoU over the classes that the split's ground truth holds."""
    miou_all: float
    """Mean IoU over all classes of the label space, an absent class being 0."""
    miou_frequent: float
    """Mean IoU over the classes with at least 1 % of the scored pixels."""
    pixel_accuracy: float
    frequency_weighted_iou: float


@dataclass(frozen=True, kw_only=True)
class ScoreRow(TableRow):
    """The same over the covered area, with the scores of borders, masks and patches."""

    boundary_iou_3: float
    """Mean IoU, over the classes of ``miou_frequent``, of the pixels within 3 pixels of a border
    of the true label map (``borders``)."""
    boundary_iou_8: float
    """The same within 8 pixels."""
    mask_iou: float | None
    """Mean IoU of the slots as the row draws them (``masks.MaskCounter``): the model by the mask
    of each slot's own class, the true classes by the model's masks that fit best; None of rows
    that have the true masks, or one class everywhere."""
    patch_top1: float
    """``metrics.PatchTop1``."""
    recall_at_4: float
    """``metrics.PatchRecall``."""


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """The rows over another area or in another label space."""

    area: Area
    """``covered area``: the pixels that lie in a patch. ``whole image``: with those that the
    geometry leaves out, at its scale, which are wrong in every row (``whole_image``)."""
    schema: str
    """Name of the label space."""
    pixels: int
    """Pixels scored: those that are not void."""
    classes_present: int
    classes_all: int
    rows: tuple[TableRow, ...]


@dataclass(frozen=True, kw_only=True)
class ClassName:
    """A class of a label space."""

    id: int
    name: str


@dataclass(frozen=True, kw_only=True)
class ClassScore(ClassName):
    """One class of the split's ground truth."""

    pixels: int
    iou: float
    """The model's."""
    accuracy: float
    """Share of the class's pixels that the model found."""
    oracle_iou: float
    """That of GT top-4."""


@dataclass(frozen=True, kw_only=True)
class DrawnImage(ImageScore):
    """An image that was drawn, with its scores."""

    group: Group
    rank: int
    """Within the group, from 1."""
    file: str
    """PNG: the photograph where it is known, truth, prediction, error, confidence, a legend."""


@dataclass(frozen=True, kw_only=True)
class RunScores:
    """The scores of one run on a split."""

    run: str
    """Name of the run's folder, or its path where two runs of one evaluation share a name."""
    epoch: int
    split: str
    prior_power: float
    """``EvaluateOptions.prior_power`` of what was scored."""
    tta: Tta
    """``EvaluateOptions.tta`` of what was scored."""
    images: int
    pixels: int
    """Pixels scored: those that are covered and not void."""
    schema: str
    """Name of the label space."""
    classes_present: int
    classes_all: int
    loss: float
    """Class and mask loss together, in nats, of the heads' own outputs for the plain view."""
    rows: tuple[ScoreRow, ...]
    """Model, oracles, majority class; over the covered area."""
    mean_average_precision: float
    """Macro mAP: the mean, over classes that a patch holds, of the average precision of the
    patches' class scores (``counters.ScoreHistogram``)."""
    masks: MaskQuality
    masks_by_slots: dict[int, MaskQuality]
    """The same over the patches of 2, 3 and 4 slots; those of 4 may hold more classes."""
    errors: Errors
    """The model's wrong pixels: in which patches they lie, and what they were taken for."""
    calibration: Calibration
    """Of the model's pixels; ``model.pixels.PixelScores.confidence``."""
    tables: tuple[ScoreTable, ...]
    """The rows over whole images, where these are known, and in the label space of published
    scores."""
    majority_class: ClassName
    """What the majority row predicts everywhere."""
    majority_split: str
    """The split whose most frequent class by pixels that is."""
    classes: tuple[ClassScore, ...]
    """Classes present in the ground truth, the most pixels first."""
    worst_images: tuple[ImageScore, ...]
    """Those with the lowest pixel accuracy, the worst first."""
    notes: tuple[str, ...]
    """Minor differences between the run's shards and these, and what is not known."""
    confusion: Annotated[InstanceOf[ConfusionMatrix], Field(exclude=True)]
    """The model's, over the covered area; not part of the JSON."""
    confusions: Annotated[InstanceOf[ImageConfusions], Field(exclude=True)]
    """The same for each image; not part of the JSON."""
    pictures: tuple[DrawnImage, ...] = ()
    """What ``EvaluateOptions.pictures`` asks for: the worst images, the middle ones, the best."""

    def __repr__(self) -> str:
        model = self.model
        return (
            f"RunScores({self.run!r}, epoch {self.epoch}, {self.split}, {self.images:,} images: "
            f"mIoU {100 * model.miou_present:.1f} %, ≥1 % {100 * model.miou_frequent:.1f} %, "
            f"pixel accuracy {100 * model.pixel_accuracy:.1f} %)"
        )

    def row(self, kind: RowKind) -> ScoreRow:
        """Return the row of that kind."""
        return next(row for row in self.rows if row.kind is kind)

    def row_name(self, row: TableRow) -> str:
        """Return the name of one of the run's rows, which tells what chance predicts."""
        return self.chance if row.kind.is_constant else row.name

    def mask_ious(self, row: ScoreRow) -> tuple[float | None, float | None]:
        """Return one of the rows' mask IoU: by the masks that fit best, by each class's own."""
        return mask_ious_of({each.kind: each.mask_iou for each in self.rows}, row.kind)

    @property
    def chance(self) -> str:
        """The name of the constant row, which tells what it predicts."""
        return chance_name(self.majority_class.name, self.majority_split)

    @property
    def model(self) -> ScoreRow:
        """The row of the model itself."""
        return self.row(RowKind.MODEL)

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, keys as the fields are called, without the matrix."""
        return to_json(self)


def draw_confusion(scores: RunScores, most: int = CONFUSION_CLASSES) -> bytes:
    """Return the model's confusions between the classes with the most pixels, as PNG."""
    top = scores.classes[:most]
    shares = confusion_shares(scores.confusion, [item.id for item in top])
    names = [f"{item.name} {item.id}" for item in top]
    return confusion_png(shares, names, f"{scores.run}, split {scores.split}")


def write_confusion(scores: RunScores, out: Path) -> None:
    """Write RUN.confusion.png, the largest classes, and RUN.confusion.csv, all of them."""
    write_atomic(out / f"{scores.run}.confusion.png", draw_confusion(scores))
    write_atomic(out / f"{scores.run}.confusion.csv", scores.confusion.to_csv().encode())
