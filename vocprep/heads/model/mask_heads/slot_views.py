"""Pixels of slots of several views, or with weights of the classes.

Each view has four masks per patch, of the classes that it ranks first. A class's score at a pixel
is the mean over the views of its mask there, 0 in views that do not rank it, or of its mask times
its probability (``mask_loss`` ``mixed``). With weights it is multiplied by its class's; where
probabilities count they are divided by their weighted sum over the patch's classes, so that they
add up to 1; where masks alone count, scores are scaled so that their sum stays, and are at most 1.
The class with the largest score is the pixel's. Masks belong to the classes that a view ranks
before the weights.

Shape legend: B batch, P patches, N some of the B·P patches, K = 4 slots, J = K · views, C classes,
1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.mask_heads.pixel_choices import ScoredChoices, strongest
from vocprep.heads.model.mask_heads.slot_head import class_probabilities, top_labels
from vocprep.heads.model.view_outputs import ViewOutputs


class SlotViewPixels:
    """What the slots of several views, or with weights of the classes, say of pixels."""

    def __init__(
        self, views: Sequence[ViewOutputs], config: HeadsConfig, class_weights: Tensor | None
    ) -> None:
        self._views, self._config, self._weights = views, config, class_weights
        self._shape = views[0].class_logits.shape[:2]
        ranked = [top_labels(view.class_logits).flatten(0, 1) for view in views]
        self._ranked, self._labels = ranked, torch.cat(ranked, dim=-1)

    @cached_property
    def choices(self) -> Sequence[ScoredChoices]:
        """All patches at once, each with the classes that its views rank highest."""
        scores = self._scores()
        same = self._labels.unsqueeze(-1) == self._labels.unsqueeze(-2)
        values, places = strongest(same.to(scores.dtype) @ scores)
        every = torch.arange(self._labels.shape[0], device=scores.device)
        values = values.clamp(max=1)
        return [ScoredChoices(patches=every, classes=self._labels, chosen=places, scores=values)]

    @property
    def label_map(self) -> Tensor:
        """Ids of the classes with the largest scores."""
        return self.choices[0].ids.view(*self._shape, -1)

    @property
    def confidence(self) -> Tensor:
        """These scores."""
        return self.choices[0].scores.view(*self._shape, -1)

    def masks_of(self, patches: Tensor, labels: Tensor) -> Tensor:
        """Means over the views of the masks that the given classes have."""
        same = labels.unsqueeze(-1) == self._labels[patches].unsqueeze(-2)
        masks = torch.cat([_masks(view)[patches] for view in self._views], dim=1)
        return same.to(masks.dtype) @ masks / len(self._views)

    def _scores(self) -> Tensor:
        """Return what each view's mask adds to the score of its class: [B·P, J, 1024]."""
        scores = torch.cat([_masks(view) for view in self._views], dim=1) / len(self._views)
        chances = [
            class_probabilities(view.class_logits, self._config.class_loss).flatten(0, 1)
            for view in self._views
        ]
        if is_mixed := self._config.mask_loss == "mixed":
            pairs = zip(chances, self._ranked, strict=True)
            ranked = [each.gather(-1, labels) for each, labels in pairs]
            scores = scores * torch.cat(ranked, dim=-1).unsqueeze(-1)
        if self._weights is None:
            return scores
        weighted = scores * self._weights[self._labels].unsqueeze(-1)
        if is_mixed:
            mean = torch.stack(chances).mean(dim=0)
            return weighted / (mean @ self._weights).unsqueeze(-1).unsqueeze(-1)
        tiny = torch.finfo(scores.dtype).tiny
        before, after = (each.sum(dim=1, keepdim=True) for each in (scores, weighted))
        return weighted * (before / after.clamp(min=tiny))


def _masks(view: ViewOutputs) -> Tensor:
    """Return a view's mask probabilities float32 [B·P, ≤ 4, 1024], of the classes that it ranks."""
    ranked = min(view.mask_logits.shape[-1], view.class_logits.shape[-1])
    masks = view.mask_logits[..., :ranked].float().flatten(0, 1)
    return masks.transpose(1, 2).contiguous().sigmoid()
