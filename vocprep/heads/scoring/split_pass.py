"""One pass of a split through the heads, counted on the device.

``score_split`` counts what a validation between two epochs needs, ``measure_split`` everything that
an evaluation shows.

Shape legend: B batch, P patches, K = 4 slots, C classes, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.errors import RunError, UsageError
from vocprep.geometry import split_patches
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.losses import compute_losses, unpack_states
from vocprep.heads.model.tfdet import TFDetHeads, to_label_map, top_labels
from vocprep.heads.scoring.counters import (
    ImageScore,
    MaskCounter,
    MaskQuality,
    PixelCounter,
    ScoreHistogram,
    score_images,
)
from vocprep.heads.scoring.metrics import (
    ConfusionMatrix,
    PatchRecall,
    PatchTop1,
    constant_prediction,
)
from vocprep.heads.scoring.oracles import (
    RowKind,
    draw_slots,
    label_slots,
    match_channels,
    true_masks,
)
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import PIXELS, SLOTS
from vocprep.shards.reader import Batch, Loader

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks, in place."""


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """What a validation needs of one pass over a split."""

    model: ConfusionMatrix
    images: int
    class_loss: float
    """Mean over patches with a valid pixel."""
    mask_loss: float
    """Mean over valid pixels and slots."""


@dataclass(kw_only=True)
class PatchCounts:
    """The scores of patches, for one kind of row."""

    recall: PatchRecall = field(default_factory=PatchRecall)
    top1: PatchTop1 = field(default_factory=PatchTop1)

    def add(self, slot_labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> None:
        """Count patches [N, 4] and their predicted classes [N, K], strongest first."""
        self.recall.add(slot_labels, predicted)
        self.top1.add(slot_labels, predicted[:, 0])


@dataclass(frozen=True, kw_only=True)
class Measurements(SplitCounts):
    """What an evaluation needs of one pass over a split."""

    pixels: dict[RowKind, ConfusionMatrix]
    """By kind of row, the model first."""
    patches: dict[RowKind, PatchCounts]
    """By the same kinds."""
    mean_average_precision: float
    masks: MaskQuality
    images_scored: list[ImageScore]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredBatch:
    """A batch and the heads' output for it."""

    batch: Batch
    truth: Tensor
    """int64 [B, P, 1024], void where there is no patch."""
    class_logits: Tensor
    """[B, P, C]"""
    mask_logits: Tensor
    """[B, P, 1024, 4]"""


_COUNTED: tuple[RowKind, ...] = tuple(kind for kind in RowKind if kind is not RowKind.MAJORITY)
"""Rows whose pixels are counted; the matrix of the constant prediction needs none."""


class _LossSums:
    """Sums of the losses on the device, since reading one per batch would stall it."""

    def __init__(self, config: HeadsConfig, device: torch.device) -> None:
        self._config = config
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        self.images = 0

    def add(self, scored: ScoredBatch) -> None:
        losses = compute_losses(
            scored.class_logits,
            scored.mask_logits,
            scored.batch,
            self._config.class_loss,
            self._config.slots,
        )
        self._sums += torch.stack([losses.class_sum, losses.mask_sum])
        self._counts += torch.stack([losses.patches, losses.entries])
        self.images += len(scored.batch.image_ids)

    def sum_over_ranks(self, total: Total) -> None:
        """Add the sums of the other ranks."""
        images = torch.tensor(self.images, device=self._counts.device)
        for tensor in (self._sums, self._counts, images):
            total(tensor)
        self.images = int(images)

    def means(self) -> tuple[float, float]:
        class_loss, mask_loss = (self._sums / self._counts.clamp(min=1)).tolist()
        return class_loss, mask_loss


def most_frequent_classes(loader: Loader, space: LabelSpace) -> list[int]:
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
    device = model.cat.weight.device
    losses = _LossSums(model.config, device)
    pixels = PixelCounter(model.config.outputs, space.void, device)
    for scored in _run_batches(model, loader, space):
        losses.add(scored)
        pixels.add(scored.truth, to_label_map(scored.class_logits, scored.mask_logits))
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
    model: TFDetHeads, loader: Loader, space: LabelSpace, constant: Sequence[int]
) -> Measurements:
    """Do what ``score_split`` does, and count the oracles, patches, masks and images.

    ``constant`` are the class ids of the constant prediction for every patch, first the one of
    every pixel.
    """
    device, classes = model.cat.weight.device, model.config.outputs
    pixels: dict[RowKind, PixelCounter] = {
        kind: PixelCounter(classes, space.void, device) for kind in _COUNTED
    }
    patches = {kind: PatchCounts() for kind in RowKind}
    losses, masks = _LossSums(model.config, device), MaskCounter(device)
    scores = ScoreHistogram(classes, device, model.config.class_loss)
    images: list[ImageScore] = []
    for scored in _run_batches(model, loader, space):
        losses.add(scored)
        scores.add(scored.class_logits, scored.batch.slot_labels)
        label_maps = _label_maps_by_kind(scored, masks)
        for kind, label_map in label_maps.items():
            pixels[kind].add(scored.truth, label_map)
        ids = scored.batch.image_ids
        images += score_images(ids, scored.truth, label_maps[RowKind.MODEL], classes, space.void)
        _count_patches(scored, patches, np.asarray(constant))
    matrices = {kind: counter.matrix() for kind, counter in pixels.items()}
    model_matrix = matrices[RowKind.MODEL]
    matrices[RowKind.MAJORITY] = constant_prediction(model_matrix, constant[0])
    class_loss, mask_loss = losses.means()
    return Measurements(
        model=model_matrix,
        images=losses.images,
        class_loss=class_loss,
        mask_loss=mask_loss,
        pixels=matrices,
        patches=patches,
        mean_average_precision=scores.mean_average_precision(),
        masks=masks.quality(),
        images_scored=images,
    )


def _run_batches(
    model: TFDetHeads, loader: Iterable[Batch], space: LabelSpace
) -> Iterator[ScoredBatch]:
    """Yield every batch on the model's device with the model's outputs, but blank ones.

    Raises RunError when the embeddings are not of the size that the model was made for.
    """
    device, expected = model.cat.weight.device, model.config.embedding_dim
    for loaded in loader:
        if not loaded.image_ids:  # of several ranks, this one draws nothing of it
            continue
        if (found := loaded.embeddings.shape[-1]) != expected:
            raise RunError(
                f"{loaded.image_ids[0]}: expected embeddings of {expected} numbers, found {found}; "
                "build shards with the backbone that the run was trained on"
            )
        batch = loaded.to(device)
        class_logits, mask_logits = model(batch.embeddings, batch.padding, batch.grids)
        yield ScoredBatch(
            batch=batch,
            truth=_truth(loaded, space.void).to(device),
            class_logits=class_logits,
            mask_logits=mask_logits,
        )


def _truth(batch: Batch, void: int) -> Tensor:
    """Return the label maps of a batch as patches: int64 [B, P, 1024], void where padded."""
    truth = np.full((*batch.padding.shape, PIXELS), void, dtype=np.int64)
    for row, label_map in zip(truth, _label_maps(batch), strict=True):
        patches = split_patches(label_map).reshape(-1, PIXELS)
        row[: len(patches)] = patches
    return torch.from_numpy(truth)


def _label_maps_by_kind(scored: ScoredBatch, masks: MaskCounter) -> dict[RowKind, Tensor]:
    """Return all rows' label maps int64 [B, P, 1024] but the constant's; count the masks."""
    batch, slot_labels = scored.batch, scored.batch.slot_labels
    states, present = unpack_states(batch.slot_planes), slot_labels >= 0
    probabilities = scored.mask_logits.float().sigmoid()
    channels = match_channels(probabilities, states)
    drawn = draw_slots(probabilities, channels, present)
    masks.add(drawn, states, present)
    named = label_slots(top_labels(scored.class_logits), slot_labels)
    return {
        RowKind.MODEL: to_label_map(scored.class_logits, scored.mask_logits),
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
    predicted = top_labels(scored.class_logits).flatten(0, 1).cpu().numpy()
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
