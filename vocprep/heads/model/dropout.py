"""Dropout, and the attention that has some, for training on a CPU.

torch draws masks there one element at a time, on one core. Here an element uses 16 random bits, a
quarter of a random number, and rates are rounded to that.

Shape legend: B batch, P patches, W = 256 width, H heads.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 1 << 16


class Dropout(nn.Dropout):
    """``nn.Dropout``; on a CPU with other random numbers and in a fraction of the time."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, in training some of them 0 and the others scaled up."""
        return dropout(inputs, self.p, self.training)


def dropout(inputs: Tensor, rate: float, training: bool) -> Tensor:
    """Return what ``Dropout`` of that rate does."""
    if not training or rate == 0 or inputs.device.type != "cpu":
        return functional.dropout(inputs, rate, training)
    dropped = min(max(round(rate * _LEVELS), 1), _LEVELS - 1)
    draws = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    bits = draws.view(torch.int16)[: inputs.numel()].view(inputs.shape)
    # 1 where an element is kept, else 0: as a comparison gives it, but by vector instructions.
    least = dropped - _LEVELS // 2
    kept = bits.clamp_(least - 1, least).sub_(least - 1)
    return inputs * _scaled(kept, _LEVELS / (_LEVELS - dropped), inputs.dtype)


def _scaled(kept: Tensor, scale: float, dtype: torch.dtype) -> Tensor:
    """Return ones and zeros int16 as ``dtype``, times ``scale``."""
    if dtype != torch.bfloat16:
        return kept.to(dtype).mul_(scale)
    # The 16 bits of a number, multiplied by 1 or 0, are those of the number or of 0.
    return kept.mul_(torch.tensor(scale, dtype=dtype).view(torch.int16)).view(dtype)


class Attention(nn.MultiheadAttention):
    """Self-attention of ``nn.MultiheadAttention``; in training on a CPU with this dropout.

    torch computes attention with dropout there in float32 and back. ``batch_first`` alone.
    """

    def forward(  # noqa: PLR0913, PLR0917  # torch's own signature
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Return the mixed values [B, P, W], and no weights in training."""
        is_slow = self.training and query.device.type == "cpu"
        if is_slow and query is key is value and not need_weights and attn_mask is None:
            return self._mixed(query, key_padding_mask), None
        return super().forward(
            query,
            key,
            value,
            key_padding_mask,
            need_weights,
            attn_mask,
            average_attn_weights,
            is_causal,
        )

    def _mixed(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """Return [B, P, W] of tokens [B, P, W]; ``mask`` float [B, P] is added to all scores."""
        projected = functional.linear(tokens, self.in_proj_weight, self.in_proj_bias)
        # [3, B, H, P, W / H], in one copy.
        parts = projected.view(*tokens.shape[:2], 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = parts.contiguous().unbind(0)
        scores = (query * self.head_dim**-0.5) @ key.transpose(-2, -1)
        if mask is not None:
            scores = scores + mask.to(scores.dtype).unsqueeze(1).unsqueeze(1)
        weights = dropout(scores.softmax(dim=-1), self.dropout, training=True)
        mixed: Tensor = self.out_proj((weights @ value).transpose(1, 2).flatten(2))
        return mixed


def use_fast_dropout(module: nn.Module) -> None:
    """Replace every ``nn.Dropout`` and ``nn.MultiheadAttention`` inside a module by those here."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
            elif type(child) is nn.MultiheadAttention:
                setattr(parent, name, _attention_like(child))


def _attention_like(other: nn.MultiheadAttention) -> Attention:
    """Return an ``Attention`` with the very weights of another module; nothing is drawn."""
    with torch.device("meta"):
        own = Attention(other.embed_dim, other.num_heads, other.dropout, batch_first=True)
    own.load_state_dict(other.state_dict(keep_vars=True), assign=True)
    return own.train(other.training)
