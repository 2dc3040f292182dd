"""The head of slots: four masks per patch, one for each of its four classes, after the seed.

A pixel's class is that of the slot whose mask is the strongest there. Masks that were trained on
patches of two classes or more alone say where a class is, not whether it is there: they count times
the probabilities of their classes.

Shape legend: B batch, P patches, N any number of patches, K = 4 slots, C classes, 1024 pixels of a
patch (row-major).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from vocprep.heads.model.config import WIDTH, ClassLoss, HeadsConfig
from vocprep.heads.model.mask_heads.pixel_choices import ScoredChoices, strongest
from vocprep.labels.targets import PIXELS, SLOTS

HIDDEN = 1024
"""Width of the hidden layer."""


def make_slot_head(config: HeadsConfig) -> nn.Sequential:
    """Return the seed's ``reg``: from tokens [..., 256] to mask probabilities [..., 4096]."""
    return nn.Sequential(
        nn.Dropout(config.mask_dropout),
        nn.Linear(WIDTH, HIDDEN),
        nn.ReLU(),
        nn.Dropout(config.mask_dropout),
        nn.Linear(HIDDEN, PIXELS * SLOTS),
        nn.Sigmoid(),
    )


def slot_logits(
    reg: nn.Module, standard: Tensor, tokens: Tensor, patch_logits: Tensor, grids: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return class logits [B, P, C] and mask logits [B, P, 1024, 4]; see ``kinds``.

    Of tokens [M, 256] of some patches mask logits are [M, 1024, 4].
    """
    del standard, grids
    masks = tokens
    for layer in list(reg.children())[:-1]:  # without the sigmoid
        masks = layer(masks)
    return patch_logits, masks.view(*masks.shape[:-1], PIXELS, SLOTS)


class SlotPixels:
    """Pixels of four masks per patch: the class of the strongest.

    Masks of ``mask_loss`` ``mixed`` count times the probabilities of their classes.
    """

    def __init__(self, class_logits: Tensor, mask_logits: Tensor, config: HeadsConfig) -> None:
        self._shape, self._config = class_logits.shape[:2], config
        self._class_logits = class_logits.flatten(0, 1)
        self._ranked = top_labels(self._class_logits)
        # One mask after another, which is how they are compared.
        masks = mask_logits.flatten(0, 1)[..., : self._ranked.shape[-1]]
        self._logits = masks.float().transpose(1, 2)

    @cached_property
    def choices(self) -> Sequence[ScoredChoices]:
        """All patches at once, each with the classes that it ranks highest."""
        if self._config.mask_loss == "mixed":
            chances = class_probabilities(self._class_logits, self._config.class_loss)
            ranked = chances.gather(-1, self._ranked).unsqueeze(-1)
            scores, chosen = strongest(self._masks * ranked)
        else:
            scores, chosen = strongest(self._logits)
            scores = scores.sigmoid()
        every = torch.arange(self._ranked.shape[0], device=self._ranked.device)
        return [ScoredChoices(patches=every, classes=self._ranked, chosen=chosen, scores=scores)]

    @property
    def label_map(self) -> Tensor:
        """The classes of the strongest masks."""
        return self.choices[0].ids.view(*self._shape, -1)

    @property
    def confidence(self) -> Tensor:
        """The mask that wins, times the probability of its class where that counts."""
        return self.choices[0].scores.view(*self._shape, -1)

    def masks_of(self, patches: Tensor, labels: Tensor) -> Tensor:
        """Probabilities of the masks that the given classes have.

        Theirs alone in either case: of a class that is given, no probability is left.
        """
        same = labels.unsqueeze(-1) == self._ranked[patches].unsqueeze(-2)
        channel = same.to(torch.uint8).argmax(dim=-1)
        rows = patches.unsqueeze(-1) * self._ranked.shape[-1] + channel
        chosen = self._masks.flatten(0, 1).index_select(0, rows.flatten())
        has_none = ~same.any(dim=-1).unsqueeze(-1)
        return chosen.view(*rows.shape, PIXELS).masked_fill_(has_none, 0)

    @cached_property
    def _masks(self) -> Tensor:
        """Mask probabilities float32 [B·P, ≤ 4, 1024]."""
        return self._logits.contiguous().sigmoid()


def top_labels(y: Tensor) -> Tensor:
    """Return the ids of the 4 strongest classes int64 [..., 4] of class logits [..., C].

    Strongest first; the order among equal logits is ``torch.topk``'s. Fewer than 4 where C is.
    """
    return torch.topk(y, min(SLOTS, y.shape[-1]), dim=-1).indices


def class_probabilities(class_logits: Tensor, class_loss: ClassLoss) -> Tensor:
    """Return the probabilities float32 [..., C] that the heads were trained to give.

    The softmax over the classes, or each class's own sigmoid where ``class_loss`` is ``multi_hot``.
    """
    logits = class_logits.float()
    return logits.sigmoid() if class_loss == "multi_hot" else logits.softmax(dim=-1)


def to_segment(y: Tensor, z: Tensor) -> Tensor:
    """Return the dense segmentation [N, 1024, C] of logits y [N, C] and masks z [N, 1024, 4].

    Channel ``top_labels(y)[n, k]`` of patch n holds mask k; all others are 0. It is the seed's
    ``toSegment`` bit for bit, and as large: N = 49 and C = 460 make 92 MB.
    """
    labels = top_labels(y)
    dense = z.new_zeros(*z.shape[:2], y.shape[-1])
    channels = labels.unsqueeze(1).expand(-1, z.shape[1], -1)
    return dense.scatter_(2, channels, z[..., : labels.shape[-1]])


def to_label_map(y: Tensor, z: Tensor) -> Tensor:
    """Return each pixel's class id int64 [..., 1024] of y [..., C] and masks z [..., 1024, 4].

    ``z`` may be probabilities or logits: the largest wins either way. The same as
    ``to_segment(y, z).argmax(-1)`` without the dense array, but for ties: here a tie goes to the
    class with the larger logit, there to the smaller id; and where all four masks are exactly 0 the
    dense form has no class above the absent ones and yields 0.
    """
    labels = top_labels(y)
    slot = z[..., : labels.shape[-1]].argmax(dim=-1)
    return labels.gather(-1, slot)


def pixel_confidence(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Return the probability of the mask that wins each pixel: float32 [..., 1024] in 0..1.

    Of class logits [..., C] and mask logits [..., 1024, 4]; the class is ``to_label_map``'s.
    """
    channels = min(SLOTS, class_logits.shape[-1])
    return mask_logits[..., :channels].amax(dim=-1).float().sigmoid()
