"""Encoders: where the patches of one image look at each other.

Shape legend: B batch, P patches (padded to the batch's largest image), D = 256 width.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 256
"""Width of the encoder, which is the size of the ResNet-32 embedding."""
ATTENTION_HEADS = 8
POSITION_BASE = 10_000.0
"""Longest wavelength of the position code over 2π, in patches (Vaswani et al., 2017)."""


def make_transformer_encoder() -> nn.TransformerEncoder:
    """Return the encoder of ``nn.Transformer(d_model=256, nhead=8, batch_first=True)``.

    Six post-norm layers, feed-forward 2048, a LayerNorm at the end. ``nn.Transformer`` draws each
    layer's weights anew, where ``nn.TransformerEncoder`` alone would start them as copies.
    """
    transformer = nn.Transformer(d_model=WIDTH, nhead=ATTENTION_HEADS, batch_first=True)
    encoder = transformer.encoder
    if not isinstance(encoder, nn.TransformerEncoder):
        raise TypeError(f"nn.Transformer holds an encoder of {type(encoder)}")
    # Nested tensors cut the output to the batch's longest sequence and warn that they are a
    # prototype; the switch has no place among nn.Transformer's arguments.
    encoder.enable_nested_tensor = False
    encoder.use_nested_tensor = False
    return encoder


def encode(encoder: nn.TransformerEncoder, tokens: Tensor, padding: Tensor | None) -> Tensor:
    """Run an encoder over tokens float [B, P, D] with a key-padding mask bool [B, P] (or None).

    Returns float [B, P, D]. What stands at padded places is finite and without meaning; it
    changes nothing at the others.
    """
    if padding is not None:
        # A softmax over no keys at all is 0/0: an image without patches attends to its padding.
        padding = padding & ~padding.all(dim=1, keepdim=True)
    encoded: Tensor = encoder(tokens, src_key_padding_mask=padding)
    return encoded


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
