"""TFDet: an encoder over the patches of an image, and two heads per patch.

``cat`` scores the classes of a patch; ``reg`` computes four masks, one per slot. A pixel's class is
that of the slot whose mask is the strongest there.

Shape legend: B batch, P patches, N any number of patches, D embedding, K = 4 slots, C classes,
1024 pixels of a patch (row-major).
"""

from __future__ import annotations

from dataclasses import asdict

import torch
from torch import Tensor, nn

from vocprep.errors import UsageError
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

    The arguments are the fields of ``HeadsConfig``.

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
        self.config = HeadsConfig(
            outputs=outputs,
            embedding_dim=embedding_dim,
            position=position,
            encoder=encoder,
            class_loss=class_loss,
            slots=slots,
        )
        self.standardise = Standardise(embedding_dim)
        self.project = nn.Identity() if embedding_dim == WIDTH else nn.Linear(embedding_dim, WIDTH)
        self.te = make_encoder(encoder)
        self.cat = nn.Linear(WIDTH, outputs)
        self.reg = nn.Sequential(
            nn.Dropout(0.5),
            nn.Linear(WIDTH, HIDDEN),
            nn.ReLU(),
            nn.Dropout(0.5),
            nn.Linear(HIDDEN, PIXELS * SLOTS),
            nn.Sigmoid(),
        )
        use_fast_dropout(self)

    @classmethod
    def from_config(cls, config: HeadsConfig) -> TFDetHeads:
        """Build heads with fresh weights, drawn from torch's global generator."""
        return cls(**asdict(config))

    def forward(
        self, embeddings: Tensor, padding: Tensor | None = None, grids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return class logits [B, P, C] and mask logits [B, P, 1024, 4].

        ``embeddings`` float [B, P, D], one image a row; ``padding`` bool [B, P], True where there
        is no patch (None: nowhere); ``grids`` int64 [B, 2] of (ny, nx), needed for the position
        code and by encoders that use them. Outputs at padded places are finite and meaningless.
        """
        tokens = self.project(self.standardise(embeddings))
        if self.config.position:
            if grids is None:
                raise UsageError(
                    "TFDetHeads with position=True: expected grids [B, 2], found None; pass each "
                    "image's (ny, nx)"
                )
            tokens = tokens + sine_position_code(grids, tokens.shape[1])
        encoded = self.te(tokens, padding, grids)
        mask_logits = self.reg[:-1](encoded).unflatten(-1, (PIXELS, SLOTS))
        return self.cat(encoded), mask_logits

    def probabilities(
        self, embeddings: Tensor, padding: Tensor | None = None, grids: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the seed's pair: class logits [B, P, C], mask probabilities [B, P, 1024, 4]."""
        class_logits, mask_logits = self(embeddings, padding, grids)
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
