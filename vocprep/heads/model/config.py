"""Configuration of the heads: what decides the network's shape and what its outputs mean.

Nothing here loads torch, so that the command line can read defaults at once.
"""

from __future__ import annotations

from typing import Literal

from vocprep.validation import Positive, checked

EncoderName = Literal["transformer", "spikformer", "none"]
ClassLoss = Literal["soft_cross_entropy", "multi_hot"]
SlotRule = Literal["predicted", "area"]

WIDTH = 256
"""Width of the encoders, which is the size of the ResNet-32 embedding."""


@checked
class HeadsConfig:
    """What decides the shape of the heads and what their outputs mean; kept in every run."""

    outputs: Positive
    """Outputs of ``cat``: the largest class id plus one, so that an output's index is the id."""
    embedding_dim: Positive = WIDTH
    """Size of an embedding; a Linear to 256 stands in front of the encoder where it differs."""
    encoder: EncoderName = "transformer"
    """Where the patches look at each other: ``transformer``, ``spikformer``, or ``none``."""
    position: bool = True
    """Whether the sine code of (row, column) is added; off is the seed's literal model."""
    class_loss: ClassLoss = "soft_cross_entropy"
    """``soft_cross_entropy``: ``cat`` is a softmax over labels that learns their shares of the
    patch; ``multi_hot``: a sigmoid a label that learns whether the patch holds it."""
    slots: SlotRule = "predicted"
    """Whose mask mask k is: ``predicted``: of the label that ``cat`` itself ranks k-th; ``area``:
    of the patch's k-th largest label, which only the teacher knows."""
