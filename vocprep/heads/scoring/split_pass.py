"""One pass of a split through the heads, counted on the device.

``run_batches`` yields what the heads say of each batch; ``score_split`` counts of it what a
validation between two epochs needs, ``score_split_of_each`` for several heads on one pass
(``measuring.measure_split``: what an evaluation shows).

Shape legend: B batch, P patches, C classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vocprep.errors import RunError
from vocprep.heads.model.decoding import decode
from vocprep.heads.model.losses import compute_losses, with_shared_targets
from vocprep.heads.model.mask_heads.kinds import PixelScores
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.model.view_outputs import ViewOutputs, mirrored_back
from vocprep.heads.scoring.measures.counters import LossCounter, PixelCounter, Total
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix
from vocprep.heads.scoring.measures.pixel_counts import TruePixels
from vocprep.heads.scoring.truth import true_pixels
from vocprep.labels.label_space import LabelSpace
from vocprep.shards.feed.pairs import ViewPair
from vocprep.shards.reader import Batch


@dataclass(frozen=True, kw_only=True)
class SplitCounts:
    """What a validation needs of one pass over a split."""

    model: ConfusionMatrix
    images: int
    class_loss: float
    """Mean over patches with a valid pixel."""
    mask_loss: float
    """Mean over valid pixels and slots."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ScoredBatch:
    """A batch and the heads' output for it."""

    batch: Batch
    class_logits: Tensor
    """[B, P, C], which losses are computed of."""
    mask_logits: Tensor
    """[B, P, …] of the mask head, as those."""
    patch_logits: Tensor
    """[B, P, C], which predict the classes of patches."""
    pixels: PixelScores
    """What is predicted of pixels."""


def score_split(
    model: TFDetHeads, loader: Iterable[Batch], space: LabelSpace, total: Total | None = None
) -> SplitCounts:
    """Run every batch of a loader (made with ``label_maps=True``) through a model in eval mode.

    Where each of several processes has a part of the batches, ``total`` sums a tensor over all.
    """
    (counts,) = score_split_of_each([model], loader, space, total)
    return counts


@torch.inference_mode()
def score_split_of_each(
    models: Sequence[TFDetHeads],
    loader: Iterable[Batch],
    space: LabelSpace,
    total: Total | None = None,
) -> list[SplitCounts]:
    """Do what ``score_split`` does with each of some models of one configuration.

    Each batch is loaded once, and so is computed what does not depend on the model.
    """
    counters = [_SplitCounter(model) for model in models]
    for loaded in loader:
        if not loaded.image_ids:  # of several ranks, this one draws nothing of it
            continue
        batch = loaded.to(models[0].device)
        if len(models) > 1:
            batch = with_shared_targets(batch, models[0].config)
        true = true_pixels(batch, space.void, borders=False)
        for model, counter in zip(models, counters, strict=True):
            for scored in run_batches(model, [batch]):
                counter.add(scored, true)
    return [counter.counts(total) for counter in counters]


class _SplitCounter:
    """Counts what ``SplitCounts`` has of one model."""

    def __init__(self, model: TFDetHeads) -> None:
        self._config = model.config
        self._losses = LossCounter(model.device)
        self._pixels = PixelCounter(model.config.outputs, model.device)

    def add(self, scored: ScoredBatch, true: TruePixels) -> None:
        """Count a batch."""
        self._losses.add(
            compute_losses(scored.class_logits, scored.mask_logits, scored.batch, self._config),
            len(scored.batch.image_ids),
        )
        entries = true.entries_of_choices(scored.pixels.choices)
        self._pixels.add(entries.truth, entries.predicted, entries.pixels)

    def counts(self, total: Total | None) -> SplitCounts:
        """Return the counts so far, those of all ranks together."""
        if total is not None:
            self._losses.sum_over_ranks(total)
            total(self._pixels.cells)
        class_loss, mask_loss = self._losses.means()
        return SplitCounts(
            model=self._pixels.matrix(),
            images=self._losses.images,
            class_loss=class_loss,
            mask_loss=mask_loss,
        )


def run_batches(
    model: TFDetHeads,
    loader: Iterable[Batch | ViewPair],
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
            class_logits=view.class_logits,
            mask_logits=view.mask_logits,
            patch_logits=decoded.patch_logits,
            pixels=decoded.pixels,
        )


def _run(model: TFDetHeads, loaded: Batch) -> tuple[Batch, ViewOutputs]:
    """Return a batch on the model's device and the outputs for it."""
    expected, found = model.config.embedding_dim, loaded.embeddings.shape[-1]
    if found != expected:
        raise RunError(
            f"{loaded.image_ids[0]}: expected embeddings of {expected} numbers, found {found}; "
            "build shards with the backbone that the run was trained on"
        )
    batch = loaded.to(model.device).with_mixed()
    class_logits, mask_logits = model(batch.embeddings, batch.padding, batch.grids)
    return batch, ViewOutputs(class_logits=class_logits, mask_logits=mask_logits)
