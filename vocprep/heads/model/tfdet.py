"""TFDet: an encoder over the patches of an image, and two heads per patch.

``cat`` scores the classes of a patch; ``reg`` computes four masks, one per slot. A pixel's class is
that of the slot whose mask is the strongest there. Other mask heads take the place of ``reg``:
``cell_head``.

Shape legend: B batch, P patches, N any number of patches, D embedding, K = 4 slots, C classes,
G cells of a patch, 1024 pixels of a patch (row-major).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocprep.errors import UsageError
from vocprep.heads.model.cell_head import CellHead, mean_class_logits
from vocprep.heads.model.config import WIDTH, ClassLoss, EncoderName, HeadsConfig, SlotRule
from vocprep.heads.model.encoders import make_encoder, sine_position_code
from vocprep.labels.targets import PIXELS, SLOTS

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

HIDDEN = 1024
"""Width of the mask head's hidden layer."""


_DROPOUT_LEVELS = 1 << 16
"""Elements use 16 bits each, four per random number; rates are rounded to that."""


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


class Dropout(nn.Dropout):
    """``nn.Dropout``; on a CPU with other random numbers and in a third of the time.

    torch draws masks there one element at a time, on one core.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs, in training some of them 0 and the others scaled up."""
        if not self.training or self.p == 0 or inputs.device.type != "cpu":
            return super().forward(inputs)
        dropped = min(round(self.p * _DROPOUT_LEVELS), _DROPOUT_LEVELS - 1)
        draws = torch.empty(-(-inputs.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        bits = draws.view(torch.int16)[: inputs.numel()].view(inputs.shape)
        mask = (bits >= dropped - _DROPOUT_LEVELS // 2).to(inputs.dtype)
        return inputs * mask.mul_(_DROPOUT_LEVELS / (_DROPOUT_LEVELS - dropped))


def use_fast_dropout(module: nn.Module) -> None:
    """Replace every ``nn.Dropout`` inside a module by ``Dropout``."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.Dropout:
                setattr(parent, name, Dropout(child.p))


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
            self.project = nn.Identity() if size == WIDTH else nn.Linear(size, WIDTH)
            self.te = make_encoder(config)
            self.cat = nn.Linear(WIDTH, config.outputs)
        if config.mask_head == "cells":
            self.cells = CellHead(config)
        else:
            self.reg = nn.Sequential(
                nn.Dropout(0.5),
                nn.Linear(WIDTH, HIDDEN),
                nn.ReLU(),
                nn.Dropout(0.5),
                nn.Linear(HIDDEN, PIXELS * SLOTS),
                nn.Sigmoid(),
            )
        use_fast_dropout(self)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.standardise.mean.device

    def forward(
        self, embeddings: Tensor, padding: Tensor | None = None, grids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return class logits [B, P, C] and the mask head's logits.

        These are [B, P, 1024, 4] of ``slots`` and [B, P, G, C] of ``cells``
        (``pixels.pixel_scores``). ``embeddings`` float [B, P, D], one image a row; ``padding`` bool
        [B, P], True where there is no patch (None: nowhere); ``grids`` int64 [B, 2] of (ny, nx),
        needed for the position code, by cells, and by encoders that use them. Outputs at padded
        places are finite and meaningless.
        """
        if grids is None and (self.config.position or self.config.mask_head == "cells"):
            raise UsageError(
                "TFDetHeads with position=True or with cells: expected grids [B, 2], found None; "
                "pass each image's (ny, nx)"
            )
        standard = self.standardise(embeddings)
        encoded = self._encode(standard, padding, grids) if self.config.has_tokens else None
        if grids is not None and self.config.mask_head == "cells":
            patch_logits = None if encoded is None else self.cat(encoded)
            cell_logits = self.cells(standard, encoded, patch_logits, grids)
            return mean_class_logits(cell_logits), cell_logits
        mask_logits = self.reg[:-1](encoded).unflatten(-1, (PIXELS, SLOTS))
        return self.cat(encoded), mask_logits

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

        Of ``cells`` the second are class probabilities [B, P, G, C].
        """
        class_logits, mask_logits = self(embeddings, padding, grids)
        if self.config.mask_head == "cells":
            return class_logits, mask_logits.softmax(dim=-1)
        return class_logits, self.reg[-1](mask_logits)


def top_labels(y: Tensor) -> Tensor:
    """Return the ids of the 4 strongest classes int64 [..., 4] of class logits [..., C].

    Strongest first; the order among equal logits is ``torch.topk``'s. Fewer than 4 where C is.
    """
    return torch.topk(y, min(SLOTS, y.shape[-1]), dim=-1).indices


def class_probabilities(class_logits: Tensor, class_loss: ClassLoss) -> Tensor:
    """Return the probabilities float32 [..., C] that the heads were trained to give.

    The softmax over the classes, or each class's own sigmoid where ``class_loss`` is ``multi_hot``.
    """
    logits = class_logits.float()
    return logits.sigmoid() if class_loss == "multi_hot" else logits.softmax(dim=-1)


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
    """Return each pixel's class id int64 [..., 1024] of y [..., C] and masks z [..., 1024, 4].

    ``z`` may be probabilities or logits: the largest wins either way. The same as
    ``to_segment(y, z).argmax(-1)`` without the dense array, but for ties: here a tie goes to the
    class with the larger logit, there to the smaller id; and where all four masks are exactly 0 the
    dense form has no class above the absent ones and yields 0.
    """
    labels = top_labels(y)
    slot = z[..., : labels.shape[-1]].argmax(dim=-1)
    return labels.gather(-1, slot)


def pixel_confidence(class_logits: Tensor, mask_logits: Tensor) -> Tensor:
    """Return the probability of the mask that wins each pixel: float32 [..., 1024] in 0..1.

    Of class logits [..., C] and mask logits [..., 1024, 4]; the class is ``to_label_map``'s.
    """
    channels = min(SLOTS, class_logits.shape[-1])
    return mask_logits[..., :channels].amax(dim=-1).float().sigmoid()
