"""One pass of a split through the heads, counted on the device.

``score_split`` counts what a validation between two epochs needs, ``measure_split`` everything that
an evaluation shows.

Shape legend: B batch, P patches, K = 4 slots, C classes, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vocprep.errors import RunError, UsageError
from vocprep.geometry import split_patches
from vocprep.heads.model.decoding import decode
from vocprep.heads.model.loss_parts import unpack_states
from vocprep.heads.model.losses import compute_losses, losses_by_image
from vocprep.heads.model.mask_heads import PixelScores
from vocprep.heads.model.tfdet import TFDetHeads, top_labels
from vocprep.heads.model.views import View, mirrored_back
from vocprep.heads.scoring.measures.calibration import Calibration, CalibrationCounter
from vocprep.heads.scoring.measures.counters import (
    LossCounter,
    MaskCounter,
    MaskQuality,
    PixelCounter,
    ScoreHistogram,
    Total,
)
from vocprep.heads.scoring.measures.image_scores import ImageConfusions, ImageCounter
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix, PatchCounts, constant_prediction
from vocprep.heads.scoring.measures.oracles import (
    RowKind,
    draw_slots,
    label_slots,
    match_channels,
    true_masks,
)
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import NO_LABEL, PIXELS, SLOTS
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.feed.pairs import PairLoader, ViewPair
from vocprep.shards.reader import Batch, Loader


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """What a validation needs of one pass over a split."""

    model: ConfusionMatrix
    images: int
    class_loss: float
    """Mean over patches with a valid pixel."""
    mask_loss: float
    """Mean over valid pixels and slots."""


@dataclass(frozen=True, kw_only=True)
class Measurements(SplitCounts):
    """What an evaluation needs of one pass over a split."""

    pixels: dict[RowKind, ConfusionMatrix]
    """By kind of row, the model first."""
    patches: dict[RowKind, PatchCounts]
    """By the same kinds."""
    mean_average_precision: float
    masks: MaskQuality
    masks_by_slots: dict[int, MaskQuality]
    """By the number of slots of a patch."""
    calibration: Calibration
    confusions: ImageConfusions


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredBatch:
    """A batch and the heads' output for it."""

    batch: Batch
    truth: Tensor
    """int64 [B, P, 1024], void where there is no patch."""
    class_logits: Tensor
    """[B, P, C], which losses are computed of."""
    mask_logits: Tensor
    """[B, P, …] of the mask head, as those."""
    patch_logits: Tensor
    """[B, P, C], which predict the classes of patches."""
    pixels: PixelScores
    """What is predicted of pixels."""


_COUNTED = (RowKind.GT_TOP_4, RowKind.GT_CLASSES, RowKind.GT_MASKS, RowKind.PATCH_MAJORITY)
"""Rows whose pixels are counted for all images together. The model's are counted for each image,
and the matrix of the constant prediction needs no count."""


def most_frequent_classes(loader: Iterable[Batch], space: LabelSpace) -> list[int]:
    """Return up to four class ids by descending pixels, ties to the smaller id; never none."""
    pixels = np.zeros(65536, dtype=np.int64)
    for batch in loader:
        for label_map in _label_maps(batch):
            pixels += np.bincount(label_map.ravel(), minlength=len(pixels))
    pixels[space.void] = 0
    order = np.argsort(-pixels, kind="stable")[:SLOTS]
    return [int(class_id) for class_id in order if pixels[class_id]] or [min(space.names)]


@torch.inference_mode()
def score_split(
    model: TFDetHeads, loader: Iterable[Batch], space: LabelSpace, total: Total | None = None
) -> SplitCounts:
    """Run every batch of a loader (made with ``label_maps=True``) through a model in eval mode.

    Where each of several processes has a part of the batches, ``total`` sums a tensor over all.
    """
    device, config = model.device, model.config
    losses = LossCounter(device)
    pixels = PixelCounter(config.outputs, space.void, device)
    for scored in run_batches(model, loader, space):
        losses.add(
            compute_losses(scored.class_logits, scored.mask_logits, scored.batch, config),
            len(scored.batch.image_ids),
        )
        pixels.add(scored.truth, scored.pixels.label_map)
    if total is not None:
        losses.sum_over_ranks(total)
        total(pixels.cells)
    class_loss, mask_loss = losses.means()
    return SplitCounts(
        model=pixels.matrix(),
        images=losses.images,
        class_loss=class_loss,
        mask_loss=mask_loss,
    )


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
    every pixel.
    """
    counters = _EvaluationCounters(model, space, constant)
    progress.begin("images", loader.samples, 0)
    try:
        for scored in run_batches(model, loader, space, class_weights):
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
        self._pixels = {kind: PixelCounter(classes, space.void, device) for kind in _COUNTED}
        self._patches = {kind: PatchCounts() for kind in RowKind}
        self._losses, self._masks = LossCounter(device), MaskCounter(device)
        self._scores = ScoreHistogram(classes, device, model.config.class_loss)
        self._images, self._confidences = (
            ImageCounter(classes, space.void),
            CalibrationCounter(device),
        )

    def add(self, scored: ScoredBatch) -> None:
        """Count a batch."""
        truth, ids = scored.truth, scored.batch.image_ids
        losses = losses_by_image(
            scored.class_logits, scored.mask_logits, scored.batch, self._config
        )
        self._losses.add(losses, len(ids))
        self._scores.add(scored.patch_logits, scored.batch.slot_labels)
        label_maps = label_maps_by_kind(scored, self._masks)
        for kind, counter in self._pixels.items():
            counter.add(truth, label_maps[kind])
        predicted = label_maps[RowKind.MODEL]
        self._images.add(ids, truth, predicted, losses.total)
        self._confidences.add(scored.pixels.confidence, predicted == truth, truth != self._void)
        _count_patches(scored, self._patches, self._constant)

    def measurements(self) -> Measurements:
        """Return all that was counted."""
        confusions = self._images.confusions()
        model = confusions.matrix()
        class_loss, mask_loss = self._losses.means()
        return Measurements(
            model=model,
            images=self._losses.images,
            class_loss=class_loss,
            mask_loss=mask_loss,
            pixels={
                RowKind.MODEL: model,
                **{kind: counter.matrix() for kind, counter in self._pixels.items()},
                RowKind.MAJORITY: constant_prediction(model, int(self._constant[0])),
            },
            patches=self._patches,
            mean_average_precision=self._scores.mean_average_precision(),
            masks=self._masks.quality(),
            masks_by_slots=self._masks.quality_by_slots(),
            calibration=self._confidences.calibration(),
            confusions=confusions,
        )


def run_batches(
    model: TFDetHeads,
    loader: Iterable[Batch | ViewPair],
    space: LabelSpace,
    class_weights: Tensor | None = None,
) -> Iterator[ScoredBatch]:
    """Yield every batch on the model's device with what the model predicts, but blank ones.

    Of pairs the predictions are means over both views, and the losses those of the plain one.
    ``class_weights`` float32 [C] multiply the classes' probabilities (``decoding.decode``). Raises
    RunError when the embeddings are not of the size that the model was made for.
    """
    for loaded in loader:
        plain = loaded.plain if isinstance(loaded, ViewPair) else loaded
        if not plain.image_ids:  # of several ranks, this one draws nothing of it
            continue
        batch, view = _run(model, plain)
        views = [view]
        if isinstance(loaded, ViewPair):
            views.append(mirrored_back(_run(model, loaded.mirrored)[1], batch.grids))
        decoded = decode(views, batch.grids, model.config, class_weights)
        yield ScoredBatch(
            batch=batch,
            truth=_truth(plain, space.void).to(model.device),
            class_logits=view.class_logits,
            mask_logits=view.mask_logits,
            patch_logits=decoded.patch_logits,
            pixels=decoded.pixels,
        )


def _run(model: TFDetHeads, loaded: Batch) -> tuple[Batch, View]:
    """Return a batch on the model's device and the outputs for it."""
    expected, found = model.config.embedding_dim, loaded.embeddings.shape[-1]
    if found != expected:
        raise RunError(
            f"{loaded.image_ids[0]}: expected embeddings of {expected} numbers, found {found}; "
            "build shards with the backbone that the run was trained on"
        )
    batch = loaded.to(model.device)
    class_logits, mask_logits = model(batch.embeddings, batch.padding, batch.grids)
    return batch, View(class_logits=class_logits, mask_logits=mask_logits)


def _truth(batch: Batch, void: int) -> Tensor:
    """Return the label maps of a batch as patches: int64 [B, P, 1024], void where padded."""
    truth = np.full((*batch.padding.shape, PIXELS), void, dtype=np.int64)
    for row, label_map in zip(truth, _label_maps(batch), strict=True):
        patches = split_patches(label_map).reshape(-1, PIXELS)
        row[: len(patches)] = patches
    return torch.from_numpy(truth)


def label_maps_by_kind(scored: ScoredBatch, masks: MaskCounter) -> dict[RowKind, Tensor]:
    """Return all rows' label maps int64 [B, P, 1024] but the constant's; count the masks."""
    batch, slot_labels = scored.batch, scored.batch.slot_labels
    states, present = unpack_states(batch.slot_planes), slot_labels >= 0
    ranked = top_labels(scored.patch_logits)
    patches = torch.arange(present[..., 0].numel(), device=present.device)
    labels = functional.pad(ranked, (0, SLOTS - ranked.shape[-1]), value=NO_LABEL)
    probabilities = scored.pixels.masks_of(patches, labels.flatten(0, 1)).view(*states.shape, -1)
    channels = match_channels(probabilities, states)
    drawn = draw_slots(probabilities, channels, present)
    masks.add(drawn, states, present)
    named = label_slots(ranked, slot_labels)
    return {
        RowKind.MODEL: scored.pixels.label_map,
        RowKind.GT_TOP_4: true_masks(slot_labels, states),
        RowKind.GT_CLASSES: slot_labels.gather(-1, drawn),
        RowKind.GT_MASKS: true_masks(named, states),
        RowKind.PATCH_MAJORITY: slot_labels[..., :1].expand_as(states),
    }


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
        RowKind.PATCH_MAJORITY: slot_labels[:, :1],
        RowKind.MAJORITY: np.broadcast_to(constant, (len(slot_labels), len(constant))),
    }
    for kind, classes in classes_by_kind.items():
        patches[kind].add(slot_labels, classes)


def _label_maps(batch: Batch) -> tuple[NDArray[np.uint16], ...]:
    if batch.label_maps is None:
        raise UsageError("scores need label maps: expected a loader with label_maps=True")
    return batch.label_maps
