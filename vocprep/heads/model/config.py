"""Configuration of the heads: the network's shape and the meaning of its outputs.

Nothing here loads torch, so that the command line can read defaults at once.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from vocprep.backbones import Layer
from vocprep.errors import UsageError
from vocprep.geometry import PATCH, WINDOWS
from vocprep.validation import WholeNumber, checked

EncoderName = Literal["transformer", "spikformer", "none"]
ClassLoss = Literal["soft_cross_entropy", "multi_hot"]
SlotRule = Literal["predicted", "area"]
MaskHeadName = Literal["slots", "cells", "none"]
MaskLoss = Literal["all", "mixed"]
CellsPerSide = Literal[1, 2, 4]
"""Cells per side of a patch, each of whole bytes of a bit plane's row."""

Tta = Literal["none", "flip"]
"""Views that a prediction is the mean of: the picture; it and its mirror image."""
PriorPower = Annotated[float, Field(ge=0, le=1)]

CellContexts = Annotated[int, Field(ge=0, le=8)]
Depth = Annotated[int, Field(ge=1, le=64)]
Feedforward = Annotated[int, Field(ge=1, le=1 << 16)]
LabelSmoothing = Annotated[float, Field(ge=0, lt=1)]
MaskDropout = Annotated[float, Field(ge=0, le=0.5)]

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
    label_smoothing: LabelSmoothing = 0.0
    """Share of the target of a patch or a cell that is spread over all outputs evenly; 0 is none.
    For ``soft_cross_entropy`` only, and not for masks."""
    slots: SlotRule = "predicted"
    """Which class mask k of ``mask_head`` ``slots`` belongs to: ``predicted``: the one that ``cat``
    itself ranks k-th; ``area``: the patch's k-th largest, which is known in training only."""
    depth: Depth = 6
    """Layers of the transformer."""
    feedforward: Feedforward = 2048
    """Width of the hidden layer in each of them."""
    norm_first: bool = False
    """Whether they normalise what enters a sublayer, not what leaves it."""
    mask_head: MaskHeadName = "slots"
    """``slots``: four masks per patch; ``cells``: the classes of cells inside each patch; ``none``:
    the classes of patches, interpolated."""
    mask_loss: MaskLoss = "all"
    """Patches whose pixels teach the masks of ``slots``: ``all``, and the strongest mask's class is
    the pixel's; ``mixed``: those of two classes or more, and the pixel's class is that of the
    largest product of class probability and mask."""
    mask_dropout: MaskDropout = 0.5
    """Rate of dropout in the head of ``slots``, before each of its layers."""
    cells: Annotated[CellsPerSide, WholeNumber] = 1
    """Cells per side of a patch; 1 with other mask heads."""
    layers: tuple[Layer, ...] = ()
    """Parts of an embedding, in its order, whose cells the head of cells takes; none with
    other mask heads, which take an embedding as one vector."""
    windows: tuple[Annotated[int, Field(ge=PATCH, le=max(WINDOWS))], ...] = ()
    """For each of these layers the side in pixels of the square around the patch that its cells
    cover; none: that of the patch, which runs up to format 6 took for every window."""
    cell_context: CellContexts = 0
    """How often the head of cells mixes each cell with the eight around it; needs an encoder."""
    input_layer: bool = False
    """Whether a Linear precedes the encoder where embeddings have its 256 numbers already."""
    input_dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Rate of dropout of the standardised embeddings, in training."""

    @property
    def has_tokens(self) -> bool:
        """Whether patches have tokens: cells without an encoder take embeddings as they are."""
        return self.mask_head != "cells" or self.encoder != "none"

    @property
    def draws_mixed_alone(self) -> bool:
        """Whether the masks of patches of two classes or more alone are trained."""
        return self.mask_head == "slots" and self.mask_loss == "mixed"

    @model_validator(mode="after")
    def _parts_that_go_together(self) -> Self:
        if self.label_smoothing and self.class_loss == "multi_hot":
            raise UsageError(
                f"label_smoothing {self.label_smoothing}: expected 0 with class_loss multi_hot, "
                "which decides on each class alone; leave it out or set class_loss to "
                "soft_cross_entropy"
            )
        if self.mask_head != "cells":
            return self
        if self.class_loss != "soft_cross_entropy":
            raise UsageError(
                "mask_head 'cells' learns the classes' shares of each cell: expected class_loss "
                f"soft_cross_entropy, found {self.class_loss}"
            )
        if (size := sum(layer.size for layer in self.layers)) != self.embedding_dim:
            raise UsageError(
                f"layers of {size} numbers together: expected embedding_dim {self.embedding_dim}"
            )
        if self.windows and len(self.windows) != len(self.layers):
            raise UsageError(
                f"windows of {len(self.windows)} layers: expected one for each of the "
                f"{len(self.layers)} layers, or none"
            )
        return self
