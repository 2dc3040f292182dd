"""Dropout that is faster on a CPU, where torch draws masks one element at a time, on one core."""

from __future__ import annotations

import torch
from torch import Tensor, nn

_LEVELS = 1 << 16
"""Elements use 16 bits each, four per random number; rates are rounded to that."""


class Dropout(nn.Dropout):
    """``nn.Dropout``; on a CPU with other random numbers and in a third of the time."""

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, in training some of them 0 and the others scaled up."""
        if not self.training or self.p == 0 or inputs.device.type != "cpu":
            return super().forward(inputs)
        dropped = min(round(self.p * _LEVELS), _LEVELS - 1)
        draws = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: inputs.numel()].view(inputs.shape)
        mask = (bits >= dropped - _LEVELS // 2).to(inputs.dtype)
        return inputs * mask.mul_(_LEVELS / (_LEVELS - dropped))


def use_fast_dropout(module: nn.Module) -> None:
    """Replace every ``nn.Dropout`` inside a module by ``Dropout``."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))
