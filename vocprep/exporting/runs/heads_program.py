"""The heads alone as a module to export: embeddings of pictures in, classes of pixels out.

Shape legend: B batch, P patches, padded to the batch's largest picture, D embedding, C classes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vocprep.geometry import PATCH
from vocprep.heads.model.decoding import decode
from vocprep.heads.model.tfdet import TFDetHeads, class_probabilities
from vocprep.heads.model.view_outputs import ViewOutputs


class HeadsProgram(nn.Module):
    """Embeddings [B, P, D] and grids [B, 2] → what ``predict_label_map`` returns, in patches."""

    class_weights: Tensor | None

    def __init__(self, model: TFDetHeads, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.model = model
        self.embedding_dim = model.config.embedding_dim
        self.register_buffer("class_weights", class_weights)

    def forward(self, embeddings: Tensor, grids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return class probabilities, label map and confidence of each patch.

        float32 [B, P, C], int32 [B, P, 32, 32] and float32 [B, P, 32, 32], of embeddings float32
        and grids int64 [B, 2] of (ny, nx). The first ny·nx patches of a picture are its own, the
        others are padding: their confidence is 0, the rest of them is meaningless.
        """
        patch = torch.arange(embeddings.shape[1], device=grids.device)
        padding = patch >= grids.prod(dim=1, keepdim=True)
        chances, label_map, confidence = self.decoded(embeddings, grids, padding)
        return chances, label_map, confidence * ~padding[..., None, None]

    def decoded(
        self, embeddings: Tensor, grids: Tensor, padding: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the same for a padding bool [B, P], or None where there is none."""
        config = self.model.config
        class_logits, mask_logits = self.model(embeddings, padding, grids)
        view = ViewOutputs(class_logits=class_logits, mask_logits=mask_logits)
        found = decode([view], grids, config, self.class_weights)
        chances = class_probabilities(found.patch_logits, config.class_loss)
        square = (*embeddings.shape[:2], PATCH, PATCH)
        label_map = found.pixels.label_map.to(torch.int32).view(square)
        return chances, label_map, found.pixels.confidence.view(square)
