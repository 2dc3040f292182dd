"""Cells of maps: how many are kept, and in which order a patch gets them."""

from __future__ import annotations

import numpy as np
import torch

from vocprep.backbones import Layer
from vocprep.features.libraries.maps import kept_layers, nearest_pixels, patch_cells


def test_a_patch_gets_its_own_cells_channel_by_channel_row_by_row() -> None:
    # Every place holds its own address: channel, row, column.
    channels, rows, columns = np.indices((3, 8, 12))
    address = torch.from_numpy(channels * 10_000 + rows * 100 + columns).float()
    found = patch_cells(torch.stack([address, address + 1_000_000]), (2, 3), 4)
    expected = [
        image * 1_000_000 + channel * 10_000 + (y * 4 + row) * 100 + x * 4 + column
        for image in range(2)
        for y in range(2)
        for x in range(3)
        for channel in range(3)
        for row in range(4)
        for column in range(4)
    ]
    assert found.flatten().tolist() == expected


def test_fewer_cells_are_means_of_whole_ones() -> None:
    layer_map = torch.randn(2, 5, 8, 12, generator=torch.Generator().manual_seed(0))
    found = patch_cells(layer_map, (2, 3), 2).reshape(2, 2, 3, 5, 2, 2)
    there = layer_map[1, 4, 4 + 2 : 4 + 4, 8 + 0 : 8 + 2]
    torch.testing.assert_close(found[1, 1, 2, 4, 1, 0], there.mean())


def test_cells_that_are_kept_tile_those_that_are_there() -> None:
    layers = {"a": Layer(channels=1, cells=8), "b": Layer(channels=1, cells=1)}
    kept = {
        most: [layer.cells for layer in kept_layers(layers, most).values()] for most in (1, 3, 9)
    }
    assert kept == {1: [1, 1], 3: [2, 1], 9: [8, 1]}


def test_by_default_a_patch_has_four_cells_or_one_where_that_is_too_much() -> None:
    assert kept_layers({"a": Layer(channels=512, cells=4)}, None)["a"].cells == 2
    assert kept_layers({"a": Layer(channels=513, cells=4)}, None)["a"].cells == 1


def test_patches_are_resized_only_to_hold_whole_strides() -> None:
    assert {stride: nearest_pixels(stride) for stride in (8, 12, 14, 16, 32, 64)} == {
        **{8: 32, 12: 36, 14: 28},
        **{16: 32, 32: 32, 64: 32},
    }
