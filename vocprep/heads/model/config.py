"""Configuration of the heads: the network's shape and the meaning of its outputs.

Nothing here loads torch, so that the command line can read defaults at once.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vocprep.validation import checked

EncoderName = Literal["transformer", "spikformer", "none"]
ClassLoss = Literal["soft_cross_entropy", "multi_hot"]
SlotRule = Literal["predicted", "area"]

WIDTH = 256
"""Width of the encoders, which is the size of the ResNet-32 embedding."""


@checked
class HeadsConfig:
    """The shape of the heads and the meaning of their outputs; kept in every run."""

    outputs: Annotated[int, Field(ge=1, le=1 << 16)]
    """Outputs of ``cat``: the largest class id plus one, so that an output's index is the id."""
    embedding_dim: Annotated[int, Field(ge=1, le=1 << 16)] = WIDTH
    """D, numbers per embedding; where it is not 256 a Linear to 256 precedes the encoder."""
    encoder: EncoderName = "transformer"
    """What mixes the patches of an image: ``transformer``, ``spikformer``, or ``none``."""
    position: bool = True
    """Whether the sine code of (row, column) is added; the seed's literal model has none."""
    class_loss: ClassLoss = "soft_cross_entropy"
    """``soft_cross_entropy``: ``cat`` is a softmax over classes, trained on their shares of the
    patch; ``multi_hot``: a sigmoid per class, trained on whether the patch holds it."""
    slots: SlotRule = "predicted"
    """Which class mask k belongs to: ``predicted``: the one that ``cat`` itself ranks k-th;
    ``area``: the patch's k-th largest, which is known in training only."""
