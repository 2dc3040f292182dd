"""Encoders: what mixes the patches of one image.

An encoder is a module called with tokens float [B, P, 256], a key-padding mask bool [B, P] (True
where there is no patch; None: nowhere) and grids int64 [B, 2] of (ny, nx), which returns float
[B, P, 256]. Its outputs at padded places are finite and meaningless; inputs there do not affect the
outputs at the others, in training either.

To add one: a module here or in a file of its own, its name in ``config.EncoderName``, a case in
``make_encoder``; ``tests/heads/model/test_encoders.py`` checks the contract of every name.

Shape legend: B batch, P patches (padded to the batch's largest image).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocprep.heads.model.config import WIDTH, HeadsConfig
from vocprep.heads.model.spiking import Spikformer

ATTENTION_HEADS = 8
POSITION_BASE = 10_000.0
"""Longest wavelength of the position code over 2π, in patches (Vaswani et al., 2017)."""


def make_encoder(config: HeadsConfig) -> nn.Module:
    """Return an encoder with fresh weights, drawn from torch's global generator."""
    match config.encoder:
        case "transformer":
            return TransformerEncoder(config.depth, config.feedforward, config.norm_first)
        case "spikformer":
            return Spikformer()
        case "none":
            return PatchAlone()


class TransformerEncoder(nn.Module):
    """The encoder of ``nn.Transformer(d_model=256, nhead=8, batch_first=True)``.

    Six post-norm layers, feed-forward 2048, unless other numbers are given; a LayerNorm at the end.
    ``nn.Transformer`` draws each layer's weights anew, where ``nn.TransformerEncoder`` alone would
    start them as copies.
    """

    def __init__(
        self,
        depth: int = HeadsConfig.depth,
        feedforward: int = HeadsConfig.feedforward,
        norm_first: bool = HeadsConfig.norm_first,
    ) -> None:
        super().__init__()
        encoder = nn.Transformer(
            d_model=WIDTH,
            nhead=ATTENTION_HEADS,
            num_encoder_layers=depth,
            dim_feedforward=feedforward,
            batch_first=True,
        ).encoder
        if not isinstance(encoder, nn.TransformerEncoder):
            raise TypeError(f"nn.Transformer holds an encoder of {type(encoder)}")
        # Taken out of nn.TransformerEncoder, whose nested tensors would cut the output to the
        # batch's longest sequence and warn that they are a prototype.
        self.layers = encoder.layers
        for layer in self.layers:
            layer.norm_first = norm_first  # nn.Transformer would warn of nested tensors
        self.norm = encoder.norm or nn.Identity()

    def forward(
        self, tokens: Tensor, padding: Tensor | None = None, grids: Tensor | None = None
    ) -> Tensor:
        """Return float [B, P, 256]; see the module's docstring."""
        del grids  # the tokens include the position code
        mask = None
        if padding is not None:
            # A softmax over no keys at all is 0/0: an image without patches attends to its padding.
            hidden = padding & ~padding.all(dim=1, keepdim=True)
            mask = torch.zeros_like(hidden, dtype=tokens.dtype).masked_fill(hidden, -torch.inf)
        for layer in self.layers:
            tokens = layer(tokens, src_key_padding_mask=mask)
        encoded: Tensor = self.norm(tokens)
        return encoded


class PatchAlone(nn.Module):
    """No encoder: every patch by itself, the baseline that shows the value of context."""

    def forward(
        self, tokens: Tensor, padding: Tensor | None = None, grids: Tensor | None = None
    ) -> Tensor:
        """Return the tokens as they are."""
        del padding, grids
        return tokens


def sine_position_code(grids: Tensor, patches: int, width: int = WIDTH) -> Tensor:
    """Return a code of each patch's (row, column) for grids int64 [B, 2] of (ny, nx).

    float32 [B, ``patches``, ``width``], zeros past an image's own ny·nx patches. The first half of
    the channels codes the row and the second the column, each as sines then cosines of ``width``/4
    wavelengths in geometric progression; the size of the grid does not enter.
    """
    index = torch.arange(patches, device=grids.device)
    ny, nx = grids[:, 0:1], grids[:, 1:2].clamp(min=1)
    place = torch.stack([index // nx, index % nx], dim=-1).to(torch.float32)
    channel = torch.arange(width // 4, device=grids.device, dtype=torch.float32)
    angle = place.unsqueeze(-1) * POSITION_BASE ** (-channel / (width // 4))
    code = torch.cat([angle.sin(), angle.cos()], dim=-1).flatten(2)
    return code * (index < ny * nx).unsqueeze(-1)
