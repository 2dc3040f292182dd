"""What an evaluation counts of one pass over a split: oracles, borders, masks, images, errors.

Shape legend: B batch, P patches, N patches, K classes that a row predicts of a patch, C classes,
1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.heads.model.losses import losses_by_image
from vocprep.heads.model.tfdet import TFDetHeads, top_labels
from vocprep.heads.scoring.batch_rows import CELL_GRIDS
from vocprep.heads.scoring.measures.calibration import Calibration, CalibrationCounter
from vocprep.heads.scoring.measures.counters import LossCounter, ScoreHistogram
from vocprep.heads.scoring.measures.image_scores import ImageConfusions, ImageCounter
from vocprep.heads.scoring.measures.masks import MaskQuality
from vocprep.heads.scoring.measures.metrics import PatchCounts, constant_prediction
from vocprep.heads.scoring.measures.oracles import RowKind
from vocprep.heads.scoring.rows import RowCounters, RowPixels
from vocprep.heads.scoring.split_pass import ScoredBatch, SplitCounts, run_batches
from vocprep.heads.scoring.truth import true_pixels
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import SLOTS
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.feed.pairs import PairLoader
from vocprep.shards.reader import Loader


@dataclass(frozen=True, kw_only=True)
class Measurements(SplitCounts):
    """What an evaluation needs of one pass over a split."""

    pixels: dict[RowKind, RowPixels]
    """By kind of row, the model first."""
    patches: dict[RowKind, PatchCounts]
    """By the same kinds."""
    mean_average_precision: float
    mask_ious: dict[RowKind, float]
    """Of the rows that draw masks of their own, the model's with those of the own classes."""
    masks: MaskQuality
    masks_by_slots: dict[int, MaskQuality]
    """By the number of slots of a patch."""
    calibration: Calibration
    confusions: ImageConfusions


@torch.inference_mode()
def measure_split(
    model: TFDetHeads,
    loader: Loader | PairLoader,
    space: LabelSpace,
    constant: Sequence[int],
    progress: Progress = NO_PROGRESS,
    class_weights: Tensor | None = None,
) -> Measurements:
    """Do what ``score_split`` does, and count the oracles, patches, masks, images, confidences.

    ``constant`` are the class ids of the constant prediction for every patch, first the one of
    every pixel. Of ``loader`` and ``class_weights``, see ``run_batches``.
    """
    counters = _EvaluationCounters(model, space, constant)
    progress.begin("images", loader.samples, 0)
    try:
        for scored in run_batches(model, loader, class_weights):
            counters.add(scored)
            progress.advance(len(scored.batch.image_ids))
    finally:
        progress.end()
    return counters.measurements()


class _EvaluationCounters:
    """All counters of an evaluation."""

    def __init__(self, model: TFDetHeads, space: LabelSpace, constant: Sequence[int]) -> None:
        device, self._config = model.device, model.config
        classes = model.config.outputs
        self._void, self._constant = space.void, np.asarray(constant)
        self._rows = RowCounters(classes, device)
        self._patches = {kind: PatchCounts() for kind in RowKind}
        self._losses = LossCounter(device)
        self._scores = ScoreHistogram(classes, device, model.config.class_loss)
        self._images = ImageCounter(classes)
        self._confidences = CalibrationCounter(device)

    def add(self, scored: ScoredBatch) -> None:
        """Count a batch."""
        ids, patches = scored.batch.image_ids, scored.batch.padding.shape[1]
        losses = losses_by_image(
            scored.class_logits, scored.mask_logits, scored.batch, self._config
        )
        self._losses.add(losses, len(ids))
        self._scores.add(scored.patch_logits, scored.batch.slot_labels)
        true, choices = true_pixels(scored.batch, self._void, borders=True), scored.pixels.choices
        entries = true.entries_of_choices(choices)
        self._rows.add(scored, true, entries)
        self._images.add(ids, entries, patches, losses.total)
        for part in choices:
            self._confidences.add(part.scores, true.outcomes(part))
        _count_patches(scored, self._patches, self._constant)

    def measurements(self) -> Measurements:
        """Return all that was counted."""
        pixels, constant = self._rows.pixels(), int(self._constant[0])
        model = pixels[RowKind.MODEL]
        everywhere = [constant_prediction(part, constant) for part in model.parts]
        class_loss, mask_loss = self._losses.means()
        return Measurements(
            model=model.all,
            images=self._losses.images,
            class_loss=class_loss,
            mask_loss=mask_loss,
            pixels={**pixels, RowKind.MAJORITY: RowPixels(parts=everywhere)},
            patches=self._patches,
            mean_average_precision=self._scores.mean_average_precision(),
            mask_ious=self._rows.mask_ious(),
            masks=self._rows.masks(),
            masks_by_slots={slots: self._rows.masks(slots) for slots in range(2, SLOTS + 1)},
            calibration=self._confidences.calibration(),
            confusions=self._images.confusions(),
        )


def _count_patches(
    scored: ScoredBatch, patches: dict[RowKind, PatchCounts], constant: NDArray[np.int64]
) -> None:
    """Count one batch's patches for every row, by the classes that the row predicts of them."""
    # Padding has no slots, so it is not counted.
    slot_labels = scored.batch.slot_labels.flatten(0, 1).cpu().numpy()
    predicted = top_labels(scored.patch_logits).flatten(0, 1).cpu().numpy()
    classes_by_kind = {
        RowKind.MODEL: predicted,
        RowKind.GT_MASKS: predicted,
        RowKind.GT_TOP_4: slot_labels,
        RowKind.GT_CLASSES: slot_labels,
        **dict.fromkeys(CELL_GRIDS, slot_labels),
        RowKind.PATCH_MAJORITY: slot_labels[:, :1],
        RowKind.MAJORITY: np.broadcast_to(constant, (len(slot_labels), len(constant))),
    }
    for kind, classes in classes_by_kind.items():
        patches[kind].add(slot_labels, classes)
