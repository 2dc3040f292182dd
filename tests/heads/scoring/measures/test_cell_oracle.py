"""The oracle of cells, against shares that are interpolated by torch's own function."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from builders.heads import VOID, make_batch, random_records
from torch import Tensor
from torch.nn import functional

from vocprep.heads.scoring.measures.cell_oracle import CellOracle, shares_by_grid
from vocprep.placement import split_patches
from vocprep.shards.record import Record


def interpolated_shares(made: Record, per_side: int) -> np.ndarray:
    """Return the shares [1024·P, C] of a record's slots at its pixels, patch by patch."""
    size = 32 // per_side
    shares = np.zeros((7, made.grid[0] * per_side, made.grid[1] * per_side))
    for row, column in np.ndindex(shares.shape[1:]):
        patch = row // per_side * made.grid[1] + column // per_side
        cell = made.label_map[row * size :, column * size :][:size, :size]
        for label in made.slot_labels[patch]:
            valid = max((cell != VOID).sum(), 1)
            shares[label, row, column] += (label >= 0) * (cell == label).sum() / valid
    whole = functional.interpolate(
        torch.from_numpy(shares)[None], scale_factor=size, mode="bilinear", align_corners=False
    )
    return split_patches(whole[0].permute(1, 2, 0).numpy()).reshape(-1, 7)


def drawn_labels(oracle: CellOracle, patches: Tensor) -> Tensor:
    """Return the class ids int64 [N, 1024] that an oracle draws of patches in rising order."""
    parts = list(oracle.choices_of(patches))
    order = torch.cat([part.patches for part in parts]).argsort()
    return torch.cat([part.ids for part in parts])[order]


@pytest.mark.parametrize("per_side", [1, 2, 4])
def test_the_largest_interpolated_share_is_drawn(per_side: int):
    records = random_records("val", [(2, 3), (1, 1)])
    batch = make_batch(records)
    (shares,) = shares_by_grid(batch.slot_planes, [per_side])
    oracle = CellOracle(batch.slot_labels, shares, batch.grids)
    for number, made in enumerate(records):
        patches = len(made.embeddings)
        places = torch.arange(patches) + number * batch.padding.shape[1]
        found = drawn_labels(oracle, places).flatten().numpy()
        expected = interpolated_shares(made, per_side)
        best = expected.max(axis=1)
        runner_up = np.sort(expected, axis=1)[:, -2]
        clear = best - runner_up > 1e-4
        assert clear.mean() > 0.3
        assert (found[clear] == expected.argmax(axis=1)[clear]).all()
        assert (found[best == 0] == -1).all()
        masks = oracle.masks_of_slots(places).mT.flatten(0, 1).numpy()
        labels = made.slot_labels.repeat(1024, axis=0)
        for slot in range(4):
            own = np.take_along_axis(expected, labels[:, slot : slot + 1].clip(0), axis=1)[:, 0]
            assert np.allclose(masks[:, slot], own * (labels[:, slot] >= 0), atol=1e-6)


def test_several_grids_are_those_counted_one_by_one():
    batch = make_batch(random_records("val", [(1, 2), (2, 2)]))
    together = shares_by_grid(batch.slot_planes, [4, 2, 1])
    for per_side, found in zip((4, 2, 1), together, strict=True):
        (alone,) = shares_by_grid(batch.slot_planes, [per_side])
        torch.testing.assert_close(found, alone)


def test_void_alone_draws_nothing():
    labels, planes = torch.full((1, 1, 4), -1), torch.zeros(1, 1, 3, 128, dtype=torch.uint8)
    planes[:, :, [0, 2]] = 255
    (shares,) = shares_by_grid(planes, [2])
    oracle = CellOracle(labels, shares, torch.tensor([[1, 1]]))
    assert (drawn_labels(oracle, torch.tensor([0])) == -1).all()
