"""Files of users' own that make networks."""

from __future__ import annotations

from pathlib import Path

WHOLE = """
import torch
from torch import nn


class Net(nn.Module):
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.2, 0.2)

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 8, stride=8)
        self.late = nn.Conv2d(4, 6, 4, stride=4)

    def forward(self, x):
        early = self.stem(x)
        return {"early": early, "late": self.late(early)}


def make():
    torch.manual_seed(3)
    return Net()
"""
"""Whole pictures; 4×4 cells of ``early`` in each patch and one of ``late``."""
PATCHES = """
import torch
from torch import nn


class Net(nn.Module):
    input_side = 32

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 16, stride=16)

    def forward(self, x):
        assert x.shape[2:] == (32, 32)
        return self.conv(x)


def make():
    torch.manual_seed(4)
    return Net()
"""
"""Patches alone: 2×2 cells of ``output``."""


def write(folder: Path, source: str = WHOLE, name: str = "net.py") -> str:
    """Write a file; return what a user names, of its function ``make``."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(source)
    return f"{path}:make"
