"""The head of slots: which mask belongs to which class."""

from __future__ import annotations

import torch

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.mask_heads.kinds import pixel_scores


def test_given_classes_have_the_masks_that_cat_ranks_them_for():
    torch.manual_seed(0)
    class_logits, masks = torch.randn(2, 3, 6), torch.randn(2, 3, 1024, 4)
    found = pixel_scores(class_logits, masks, torch.ones(2, 2), HeadsConfig(outputs=6))
    patches, labels = torch.tensor([4, 1]), torch.tensor([[0, 1, 2, 3], [4, -1, 5, 0]])
    drawn = found.masks_of(patches, labels)
    for row, patch in enumerate(patches.tolist()):
        ranked = class_logits[divmod(patch, 3)].argsort(descending=True)[:4].tolist()
        for place, label in enumerate(labels[row].tolist()):
            mask = torch.zeros(1024)
            if label in ranked:
                mask = masks[(*divmod(patch, 3), slice(None), ranked.index(label))].sigmoid()
            torch.testing.assert_close(drawn[row, place], mask)
