"""Scoring: one pass of a split through the heads, added up on the device.

``score_split`` counts what a validation between two epochs needs; ``measure_split`` everything that
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

from vocprep.errors import UsageError
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
from vocprep.heads.scoring.ladder import draw_slots, label_slots, match_channels, true_masks
from vocprep.heads.scoring.metrics import (
    ConfusionMatrix,
    PatchRecall,
    PatchTop1,
    constant_prediction,
)
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import PIXELS, SLOTS
from vocprep.shards.reader import Batch, Loader, ShardDataset

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks, in place."""

MODEL = "model"
GT_TOP_4 = "GT top-4"
MODEL_MASKS = "GT labels, model masks"
MODEL_LABELS = "model labels, GT masks"
PATCH_MAJORITY = "GT majority of each patch"
MAJORITY = "majority label"


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
    """The scores of patches, for one row of the ladder."""

    recall: PatchRecall = field(default_factory=PatchRecall)
    top1: PatchTop1 = field(default_factory=PatchTop1)

    def add(self, slot_labels: NDArray[np.int64], predicted: NDArray[np.int64]) -> None:
        """Count patches [N, 4] and their predicted labels [N, K], strongest first."""
        self.recall.add(slot_labels, predicted)
        self.top1.add(slot_labels, predicted[:, 0])


@dataclass(frozen=True, kw_only=True)
class Measurements(SplitCounts):
    """What an evaluation needs of one pass over a split."""

    pixels: dict[str, ConfusionMatrix]
    """A row of the ladder each, the model first."""
    patches: dict[str, PatchCounts]
    """Of the same rows."""
    mean_average_precision: float
    masks: MaskQuality
    images_scored: list[ImageScore]


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredBatch:
    """A batch and what the heads say of it."""

    batch: Batch
    truth: Tensor
    """int64 [B, P, 1024], void where there is no patch."""
    category_logits: Tensor
    """[B, P, C]"""
    mask_logits: Tensor
    """[B, P, 1024, 4]"""


class _LossSums:
    """Losses added up on the device: reading one would make it wait."""

    def __init__(self, config: HeadsConfig, device: torch.device) -> None:
        self._config = config
        self._sums = torch.zeros(2, dtype=torch.float64, device=device)
        self._counts = torch.zeros(2, dtype=torch.int64, device=device)
        self.images = 0

    def add(self, scored: ScoredBatch) -> None:
        losses = compute_losses(
            scored.category_logits,
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
        category, mask = (self._sums / self._counts.clamp(min=1)).tolist()
        return category, mask


def embedding_dim(dataset: ShardDataset, split: str) -> int:
    """Return D of a split's embeddings."""
    first = next(dataset.read_shard(dataset.shard_names(split)[0]))
    return int(first.embeddings.shape[-1])


def most_frequent_labels(loader: Loader, labels: LabelSpace) -> list[int]:
    """Return up to four labels by falling pixels, ties to the smaller id; never an empty list."""
    pixels = np.zeros(65536, dtype=np.int64)
    for batch in loader:
        for label_map in _label_maps(batch):
            pixels += np.bincount(label_map.ravel(), minlength=len(pixels))
    pixels[labels.void] = 0
    order = np.argsort(-pixels, kind="stable")[:SLOTS]
    return [int(label) for label in order if pixels[label]] or [min(labels.names)]


@torch.inference_mode()
def score_split(
    model: TFDetHeads, loader: Iterable[Batch], labels: LabelSpace, total: Total | None = None
) -> SplitCounts:
    """Run every batch of a loader (made with ``label_maps=True``) through a model in eval mode.

    Where several processes have a part of the batches each, ``total`` sums a tensor over all.
    """
    device = model.cat.weight.device
    losses = _LossSums(model.config, device)
    pixels = PixelCounter(model.config.outputs, labels.void, device)
    for scored in _run_batches(model, loader, labels):
        losses.add(scored)
        pixels.add(scored.truth, to_label_map(scored.category_logits, scored.mask_logits))
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
    model: TFDetHeads, loader: Loader, labels: LabelSpace, constant: Sequence[int]
) -> Measurements:
    """Do what ``score_split`` does, and count the oracle ladder, patches, masks and images.

    ``constant`` are the labels that the constant predictor names for every patch, the one that it
    paints everywhere first.
    """
    device, categories = model.cat.weight.device, model.config.outputs
    rows = (MODEL, GT_TOP_4, MODEL_MASKS, MODEL_LABELS, PATCH_MAJORITY)
    pixels = {name: PixelCounter(categories, labels.void, device) for name in rows}
    patches = {name: PatchCounts() for name in (*rows, MAJORITY)}
    losses, masks = _LossSums(model.config, device), MaskCounter(device)
    scores = ScoreHistogram(categories, device, model.config.class_loss)
    images: list[ImageScore] = []
    for scored in _run_batches(model, loader, labels):
        losses.add(scored)
        scores.add(scored.category_logits, scored.batch.slot_labels)
        painted = _paint_ladder(scored, masks)
        for name, label_map in painted.items():
            pixels[name].add(scored.truth, label_map)
        ids = scored.batch.image_ids
        images += score_images(ids, scored.truth, painted[MODEL], categories, labels.void)
        _count_patches(scored, patches, np.asarray(constant))
    matrices = {name: counter.matrix() for name, counter in pixels.items()}
    matrices[MAJORITY] = constant_prediction(matrices[MODEL], constant[0])
    class_loss, mask_loss = losses.means()
    return Measurements(
        model=matrices[MODEL],
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
    model: TFDetHeads, loader: Iterable[Batch], labels: LabelSpace
) -> Iterator[ScoredBatch]:
    """Yield every batch on the model's device with the model's outputs."""
    device = model.cat.weight.device
    for loaded in loader:
        batch = loaded.to(device)
        category_logits, mask_logits = model(batch.embeddings, batch.padding, batch.grids)
        yield ScoredBatch(
            batch=batch,
            truth=_truth(loaded, labels.void).to(device),
            category_logits=category_logits,
            mask_logits=mask_logits,
        )


def _truth(batch: Batch, void: int) -> Tensor:
    """Return the label maps of a batch as patches: int64 [B, P, 1024], void where padded."""
    truth = np.full((*batch.padding.shape, PIXELS), void, dtype=np.int64)
    for row, label_map in zip(truth, _label_maps(batch), strict=True):
        patches = split_patches(label_map).reshape(-1, PIXELS)
        row[: len(patches)] = patches
    return torch.from_numpy(truth)


def _paint_ladder(scored: ScoredBatch, masks: MaskCounter) -> dict[str, Tensor]:
    """Return the label maps int64 [B, P, 1024] of the ladder's rows, counting the masks by the way.

    All but the constant's, whose matrix needs no pixels.
    """
    batch, slot_labels = scored.batch, scored.batch.slot_labels
    states, present = unpack_states(batch.slot_planes), slot_labels >= 0
    probabilities = scored.mask_logits.float().sigmoid()
    channels = match_channels(probabilities, states)
    drawn = draw_slots(probabilities, channels, present)
    masks.add(drawn, states, present)
    named = label_slots(top_labels(scored.category_logits), slot_labels)
    return {
        MODEL: to_label_map(scored.category_logits, scored.mask_logits),
        GT_TOP_4: true_masks(slot_labels, states),
        MODEL_MASKS: slot_labels.gather(-1, drawn),
        MODEL_LABELS: true_masks(named, states),
        PATCH_MAJORITY: slot_labels[..., :1].expand_as(states),
    }


def _count_patches(
    scored: ScoredBatch, patches: dict[str, PatchCounts], constant: NDArray[np.int64]
) -> None:
    """Add one batch's patches to every row: what the row says that a patch holds."""
    # Padding has no slots, so it is not counted.
    slot_labels = scored.batch.slot_labels.flatten(0, 1).cpu().numpy()
    predicted = top_labels(scored.category_logits).flatten(0, 1).cpu().numpy()
    said = {
        MODEL: predicted,
        MODEL_LABELS: predicted,
        GT_TOP_4: slot_labels,
        MODEL_MASKS: slot_labels,
        PATCH_MAJORITY: slot_labels[:, :1],
        MAJORITY: np.broadcast_to(constant, (len(slot_labels), len(constant))),
    }
    for name, labels in said.items():
        patches[name].add(slot_labels, labels)


def _label_maps(batch: Batch) -> tuple[NDArray[np.uint16], ...]:
    if batch.label_maps is None:
        raise UsageError("scores need label maps: expected a loader with label_maps=True")
    return batch.label_maps
