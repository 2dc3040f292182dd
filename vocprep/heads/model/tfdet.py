"""TFDet: an encoder over the patches of an image, and two heads per patch.

``cat`` scores the classes of a patch; ``reg`` computes four masks, one per slot. A pixel's class is
that of the slot whose mask is the strongest there. Other mask heads take the place of ``reg``:
``mask_heads``.

Shape legend: B batch, P patches, N any number of patches, D embedding, K = 4 slots, C classes,
G cells of a patch, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocprep.errors import UsageError
from vocprep.heads.model.config import WIDTH, ClassLoss, EncoderName, HeadsConfig, SlotRule
from vocprep.heads.model.dropout import dropout, use_fast_dropout
from vocprep.heads.model.encoders import make_encoder, sine_position_code
from vocprep.heads.model.mask_heads.kinds import MASK_HEADS
from vocprep.heads.model.mask_heads.slot_head import (
    class_probabilities,
    pixel_confidence,
    to_label_map,
    to_segment,
    top_labels,
)

__all__ = [
    "HeadsConfig",
    "Standardise",
    "TFDetHeads",
    "class_probabilities",
    "pixel_confidence",
    "to_label_map",
    "to_segment",
    "top_labels",
]


class Standardise(nn.Module):
    """Scales each component of the embeddings to mean 0 and deviation 1; at first the identity.

    ``mean`` and ``std`` [D] are buffers: part of the weights and not trained.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, embedding_dim: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(embedding_dim))
        self.register_buffer("std", torch.ones(embedding_dim))

    def fit(self, mean: Tensor, std: Tensor) -> None:
        """Set the statistics [D] of a split; a component that never varies is only shifted."""
        self.mean.copy_(mean)
        self.std.copy_(torch.where(std > 0, std, 1.0))

    def forward(self, embeddings: Tensor) -> Tensor:
        """Return embeddings [..., D] standardised."""
        return (embeddings - self.mean) / self.std


class TFDetHeads(nn.Module):
    """The trainable part of TFDet: an encoder and two heads over the embeddings of patches.

    The arguments are fields of ``HeadsConfig``; ``from_config`` takes all of them.

    >>> heads = TFDetHeads(21, encoder="none", position=False).eval()
    >>> class_logits, mask_logits = heads(torch.zeros(2, 6, 256))
    >>> class_logits.shape, mask_logits.shape
    (torch.Size([2, 6, 21]), torch.Size([2, 6, 1024, 4]))
    """

    def __init__(
        self,
        outputs: int,
        embedding_dim: int = WIDTH,
        position: bool = HeadsConfig.position,
        encoder: EncoderName = HeadsConfig.encoder,
        class_loss: ClassLoss = HeadsConfig.class_loss,
        slots: SlotRule = HeadsConfig.slots,
    ) -> None:
        super().__init__()
        self._make(
            HeadsConfig(
                outputs=outputs,
                embedding_dim=embedding_dim,
                position=position,
                encoder=encoder,
                class_loss=class_loss,
                slots=slots,
            )
        )

    @classmethod
    def from_config(cls, config: HeadsConfig) -> TFDetHeads:
        """Build heads with fresh weights, drawn from torch's global generator."""
        heads = cls.__new__(cls)
        nn.Module.__init__(heads)
        heads._make(config)
        return heads

    def _make(self, config: HeadsConfig) -> None:
        self.config, size = config, config.embedding_dim
        self.standardise = Standardise(size)
        if config.has_tokens:
            has_layer = config.input_layer or size != WIDTH
            self.project = nn.Linear(size, WIDTH) if has_layer else nn.Identity()
            self.te = make_encoder(config)
            self.cat = nn.Linear(WIDTH, config.outputs)
        head = MASK_HEADS[config.mask_head]
        self.add_module(head.name, head.make(config))
        use_fast_dropout(self)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.standardise.mean.device

    def forward(
        self,
        embeddings: Tensor,
        padding: Tensor | None = None,
        grids: Tensor | None = None,
        drawn: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return class logits [B, P, C] and the mask head's logits.

        These are [B, P, 1024, 4] of ``slots``, [B, P, G, C] of ``cells``, [B, P, 1, C] of ``none``
        (``mask_heads.kinds.pixel_scores``). ``embeddings`` float [B, P, D], one image a row;
        ``padding`` bool [B, P], True where there is no patch (None: nowhere); ``grids`` int64
        [B, 2] of (ny, nx), needed for the position code, by cells, and by encoders that use them.
        Outputs at padded places are finite and meaningless. With ``drawn``, int64 [M] of the B·P
        patches, the logits of ``slots`` are [M, 1024, 4]: of these patches alone.
        """
        if grids is None and self.config.position:
            raise UsageError(
                "TFDetHeads with position=True: expected grids [B, 2], found None; pass each "
                "image's (ny, nx)"
            )
        standard = self.standardise(embeddings)
        # Its rate is a field of its own, not one of those that ``dropout_factor`` multiplies.
        standard = dropout(standard, self.config.input_dropout, self.training)
        if self.config.has_tokens:
            tokens = self._encode(standard, padding, grids)
            patch_logits = self.cat(tokens)
        else:
            tokens = patch_logits = standard[..., :0]
        head = MASK_HEADS[self.config.mask_head]
        if drawn is not None:
            tokens = tokens.flatten(0, 1).index_select(0, drawn)
        return head.logits(self.get_submodule(head.name), standard, tokens, patch_logits, grids)

    def _encode(self, standard: Tensor, padding: Tensor | None, grids: Tensor | None) -> Tensor:
        """Return the encoder's tokens [B, P, 256] of standardised embeddings."""
        tokens = self.project(standard)
        if self.config.position and grids is not None:
            tokens = tokens + sine_position_code(grids, tokens.shape[1])
        encoded: Tensor = self.te(tokens, padding, grids)
        return encoded

    def probabilities(
        self, embeddings: Tensor, padding: Tensor | None = None, grids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the seed's pair: class logits [B, P, C], mask probabilities [B, P, 1024, 4].

        Of ``cells`` the second are class probabilities [B, P, G, C], of ``none`` [B, P, 1, C].
        """
        class_logits, mask_logits = self(embeddings, padding, grids)
        head = MASK_HEADS[self.config.mask_head]
        return class_logits, head.probabilities(mask_logits, self.config)
