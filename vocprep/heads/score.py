"""Scoring: one pass of a split through the heads, added up.

Shape legend: B batch, P patches, K = 4 slots, C classes, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vocprep.errors import UsageError
from vocprep.geometry import split_patches
from vocprep.heads.losses import compute_losses, unpack_states
from vocprep.heads.metrics import ConfusionMatrix, PatchRecall
from vocprep.heads.run import LabelSpace
from vocprep.heads.tfdet import TFDetHeads, to_label_map, top_labels
from vocprep.labels.targets import NO_LABEL, PIXELS, SLOTS
from vocprep.shards.reader import Batch, Loader, ShardDataset


@dataclass(kw_only=True)
class SplitCounts:
    """What one pass over a split adds up."""

    model: ConfusionMatrix
    oracle: ConfusionMatrix
    recall: PatchRecall
    constant_recall: PatchRecall
    images: int = 0
    category_loss: float = 0.0
    """Mean over images, each batch's mean counted by its images."""
    mask_loss: float = 0.0


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
    model: TFDetHeads, loader: Loader, labels: LabelSpace, constant: Sequence[int]
) -> SplitCounts:
    """Run every batch of a loader (made with ``label_maps=True``) through a model in eval mode.

    ``constant`` are the labels that the constant predictor names for every patch.
    """
    device = model.cat.weight.device
    categories = model.config.categories
    counts = SplitCounts(
        model=ConfusionMatrix(categories, labels.void),
        oracle=ConfusionMatrix(categories, labels.void),
        recall=PatchRecall(),
        constant_recall=PatchRecall(),
    )
    for batch in loader:
        _score_batch(model, batch.to(device), np.asarray(constant), counts)
    if counts.images:
        counts.category_loss /= counts.images
        counts.mask_loss /= counts.images
    return counts


def _score_batch(
    model: TFDetHeads, batch: Batch, constant: NDArray[np.int64], counts: SplitCounts
) -> None:
    """Add one batch's counts."""
    category_logits, mask_logits = model(batch.embeddings, batch.padding, batch.grids)
    config = model.config
    losses = compute_losses(category_logits, mask_logits, batch, config.category_loss, config.slots)
    images = len(batch.image_ids)
    counts.images += images
    counts.category_loss += float(losses.category) * images
    counts.mask_loss += float(losses.mask) * images
    real = ~batch.padding.cpu().numpy()
    truth = np.concatenate(
        [split_patches(label_map).reshape(-1, PIXELS) for label_map in _label_maps(batch)]
    )
    # Real patches come first in every row, in the order of the label map's patches.
    counts.model.add(truth, to_label_map(category_logits, mask_logits).cpu().numpy()[real])
    counts.oracle.add(truth, oracle_label_map(batch).cpu().numpy()[real])
    slot_labels = batch.slot_labels.cpu().numpy()[real]
    counts.recall.add(slot_labels, top_labels(category_logits).cpu().numpy()[real])
    counts.constant_recall.add(
        slot_labels, np.broadcast_to(constant, (len(slot_labels), len(constant)))
    )


def oracle_label_map(batch: Batch) -> Tensor:
    """Return the labels that a batch's own targets stand for: int64 [B, P, 1024].

    −1 for pixels outside their patch's four slots and for void.
    """
    states = unpack_states(batch.slot_planes).long()
    unknown = torch.full_like(batch.slot_labels[..., :2], NO_LABEL)
    return torch.cat([batch.slot_labels, unknown], dim=-1).gather(-1, states)


def _label_maps(batch: Batch) -> tuple[NDArray[np.uint16], ...]:
    if batch.label_maps is None:
        raise UsageError("scores need label maps: expected a loader with label_maps=True")
    return batch.label_maps
