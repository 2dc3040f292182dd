"""TFDet: a transformer over the patches of an image, and two heads per patch.

``cat`` says which labels a patch holds; ``reg`` draws four masks, one a slot. A pixel's label is
the one whose slot has the strongest mask there.

Shape legend: B batch, P patches, N any number of patches, D embedding, K = 4 slots, C classes,
1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vocprep.errors import UsageError
from vocprep.heads.encoders import WIDTH, encode, make_transformer_encoder, sine_position_code
from vocprep.labels.targets import PIXELS, SLOTS

HIDDEN = 1024
"""Width of the mask head's hidden layer."""


@dataclass(frozen=True, kw_only=True)
class HeadsConfig:
    """What decides the shape of the heads; kept in every run."""

    categories: int
    """Outputs of ``cat``: the largest class id plus one, so that an output's index is the id."""
    embedding_dim: int = WIDTH
    """Size of an embedding; a Linear to 256 stands in front of the encoder where it differs."""
    position: bool = True
    """Whether the sine code of (row, column) is added; off is the seed's literal model."""

    def __post_init__(self) -> None:
        """Refuse sizes that no network has."""
        for name in ("categories", "embedding_dim"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: expected at least 1, found {getattr(self, name)}")


class TFDetHeads(nn.Module):
    """The trainable part of TFDet, fed with embeddings instead of pixels."""

    def __init__(self, categories: int, embedding_dim: int = WIDTH, position: bool = True) -> None:
        super().__init__()
        self.config = HeadsConfig(
            categories=categories, embedding_dim=embedding_dim, position=position
        )
        self.project = nn.Identity() if embedding_dim == WIDTH else nn.Linear(embedding_dim, WIDTH)
        self.te = make_transformer_encoder()
        self.cat = nn.Linear(WIDTH, categories)
        self.reg = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(WIDTH, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, PIXELS * SLOTS),
            nn.Sigmoid(),
        )

    @classmethod
    def from_config(cls, config: HeadsConfig) -> TFDetHeads:
        """Build heads with fresh weights, drawn from torch's global generator."""
        return cls(config.categories, config.embedding_dim, config.position)

    def forward(
        self, embeddings: Tensor, padding: Tensor | None = None, grids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return category logits [B, P, C] and mask logits [B, P, 1024, 4].

        ``embeddings`` float [B, P, D], one image a row; ``padding`` bool [B, P], True where there
        is no patch (None: nowhere); ``grids`` int64 [B, 2] of (ny, nx), needed for the position
        code alone. Outputs at padded places are finite and without meaning.
        """
        tokens = self.project(embeddings)
        if self.config.position:
            if grids is None:
                raise UsageError(
                    "TFDetHeads with position=True: expected grids [B, 2], found None; pass each "
                    "image's (ny, nx)"
                )
            tokens = tokens + sine_position_code(grids, tokens.shape[1])
        encoded = encode(self.te, tokens, padding)
        mask_logits = self.reg[:-1](encoded).unflatten(-1, (PIXELS, SLOTS))
        return self.cat(encoded), mask_logits

    def probabilities(
        self, embeddings: Tensor, padding: Tensor | None = None, grids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the seed's pair: category logits [B, P, C], mask probabilities [B, P, 1024, 4]."""
        category_logits, mask_logits = self(embeddings, padding, grids)
        return category_logits, self.reg[-1](mask_logits)


def top_labels(y: Tensor) -> Tensor:
    """Return the ids of the 4 strongest labels int64 [..., 4] of category logits [..., C].

    Strongest first; the order among equal logits is ``torch.topk``'s. Fewer than 4 where C is.
    """
    return torch.topk(y, min(SLOTS, y.shape[-1]), dim=-1).indices


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
    """Return each pixel's label id int64 [..., 1024] of y [..., C] and masks z [..., 1024, 4].

    ``z`` may be probabilities or logits: the largest wins either way. The same as
    ``to_segment(y, z).argmax(-1)`` without the dense array, but for ties: here a tie goes to the
    label with the larger category logit, there to the smaller id; and where all four masks are
    exactly 0 the dense form cannot tell its labels from the absent ones and says 0.
    """
    labels = top_labels(y)
    slot = z[..., : labels.shape[-1]].argmax(dim=-1)
    return labels.gather(-1, slot)
