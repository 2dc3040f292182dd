"""Cells of patches: shares from bit planes, and values interpolated over whole pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from vocprep.backbones import Layer
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.mask_heads import cell_pixels
from vocprep.heads.model.mask_heads.cell_head import CellContext, CellLinear, mean_class_logits
from vocprep.heads.model.mask_heads.cells import cell_shares, resample, within_window
from vocprep.heads.model.mask_heads.kinds import pixel_scores
from vocprep.labels.targets import make_targets

GRIDS = torch.tensor([[2, 3], [1, 5], [4, 4], [1, 1]])
PATCHES = 17
VOID = 255


def random_cells(per_side: int, size: int, seed: int = 0) -> tuple[Tensor, list[Tensor]]:
    """Values [4, 17, n², size], random where padded too, and each picture [size, n·ny, n·nx]."""
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(len(GRIDS), PATCHES, per_side**2, size, generator=generator)
    return values, [picture_of(v, grid, per_side) for v, grid in zip(values, GRIDS, strict=True)]


def picture_of(values: Tensor, grid: Tensor, per_side: int) -> Tensor:
    """Lay the cells [P, n², X] of one image's patches out as [X, n·ny, n·nx], one by one."""
    rows, columns = (int(number) for number in grid)
    picture = torch.empty(values.shape[-1], rows * per_side, columns * per_side)
    for row in range(rows * per_side):
        for column in range(columns * per_side):
            patch = row // per_side * columns + column // per_side
            cell = row % per_side * per_side + column % per_side
            picture[:, row, column] = values[patch, cell]
    return picture


@pytest.mark.parametrize(
    ("per_side", "points"), [(1, 2), (1, 32), (2, 4), (2, 32), (3, 4), (4, 32), (2, 2)]
)
def test_interpolation_is_that_of_the_whole_picture(per_side: int, points: int):
    values, pictures = random_cells(per_side, 3)
    found = resample(values, GRIDS, per_side, points)
    assert bool(torch.isfinite(found).all())
    for image, (grid, picture) in enumerate(zip(GRIDS, pictures, strict=True)):
        size = [int(number) * points for number in grid]
        expected = functional.interpolate(picture[None], size=size, mode="bilinear")[0]
        torch.testing.assert_close(picture_of(found[image], grid, points), expected)


@pytest.mark.parametrize(("per_side", "points"), [(4, 2), (8, 4), (3, 2), (7, 4), (4, 1)])
def test_finer_cells_are_averaged(per_side: int, points: int):
    values, pictures = random_cells(per_side, 2)
    found = resample(values, GRIDS, per_side, points)
    for image, (grid, picture) in enumerate(zip(GRIDS, pictures, strict=True)):
        size = [int(number) * points for number in grid]
        expected = functional.adaptive_avg_pool2d(picture[None], size)[0]
        torch.testing.assert_close(picture_of(found[image], grid, points), expected)


@pytest.mark.parametrize("per_side", [1, 2, 4])
@pytest.mark.parametrize("classes", [3, 6])
def test_shares_from_bit_planes_are_those_counted_in_the_label_map(per_side: int, classes: int):
    rng = np.random.default_rng(classes)
    label_map = rng.integers(0, classes, (32, 128)).astype(np.uint16)
    label_map[rng.random(label_map.shape) < 0.2] = VOID
    label_map[:16, :16], label_map[:, 64:96], label_map[:, 96:] = VOID, 1, VOID
    targets = make_targets(label_map, VOID)
    shares, valid = cell_shares(torch.from_numpy(targets.slot_planes)[None], per_side)
    side = 32 // per_side
    for patch in range(4):
        for cell in range(per_side**2):
            top, left = cell // per_side * side, patch * 32 + cell % per_side * side
            pixels = label_map[top : top + side, left : left + side]
            inside = int((pixels != VOID).sum())
            slots = targets.slot_labels[patch]
            counts = [int((pixels == label).sum()) * (label >= 0) for label in slots]
            assert int(valid[0, patch, cell]) == inside
            np.testing.assert_allclose(
                shares[0, patch, cell], np.array(counts) / max(inside, 1), rtol=1e-6
            )


def test_a_linear_map_takes_the_channels_of_all_layers_at_every_cell():
    layers = (Layer(channels=5, cells=1), Layer(channels=3, cells=2), Layer(channels=2, cells=4))
    torch.manual_seed(0)
    config = HeadsConfig(
        outputs=7, embedding_dim=49, mask_head="cells", cells=2, layers=layers, windows=(32,) * 3
    )
    linear, embeddings = CellLinear(config, 7), torch.randn(len(GRIDS), PATCHES, 49)
    assert sum(each.numel() for each in linear.parameters()) == 7 * (5 + 3 + 2) + 7
    found = linear(embeddings, GRIDS)
    assert found.shape == (len(GRIDS), PATCHES, 4, 7)
    for image, grid in enumerate(GRIDS):
        # channel · n² + row · n + column
        size, parts, first = [int(number) * 2 for number in grid], [], 0
        for layer in layers:
            part = embeddings[image, :, first : first + layer.size]
            cells = part.reshape(PATCHES, layer.channels, layer.cells**2).transpose(1, 2)
            picture = picture_of(cells, grid, layer.cells)[None]
            if layer.cells == 4:
                parts.append(functional.avg_pool2d(picture, 2))
            else:
                parts.append(functional.interpolate(picture, size=size, mode="bilinear"))
            first += layer.size
        features = torch.cat(parts, dim=1)[0].movedim(0, -1)
        expected = linear.linear(features).movedim(-1, 0)
        torch.testing.assert_close(picture_of(found[image], grid, 2), expected)


@pytest.mark.parametrize("window", [64, 128, 256])
@pytest.mark.parametrize(("cells", "points"), [(1, 4), (2, 1), (2, 4), (4, 2), (4, 4), (8, 4)])
def test_a_window_is_interpolated_at_the_places_of_its_patch(window: int, cells: int, points: int):
    """Each place's coordinates in the window are given to torch's own interpolation."""
    values = torch.randn(cells**2)
    axis = 32 / window * ((torch.arange(points) + 0.5) / points - 0.5) * 2
    places = torch.stack(torch.meshgrid(axis, axis, indexing="xy"), dim=-1)
    expected = functional.grid_sample(
        values.view(1, 1, cells, cells), places[None], padding_mode="border", align_corners=False
    )
    found = within_window(cells, window, points, torch.device("cpu")) @ values
    torch.testing.assert_close(found, expected.flatten())


@pytest.mark.parametrize(("window", "cells", "points"), [(64, 8, 2), (64, 8, 1), (64, 16, 4)])
def test_finer_cells_of_a_window_are_averaged(window: int, cells: int, points: int):
    values = torch.randn(cells, cells)
    pixels = values.repeat_interleave(window // cells, 0).repeat_interleave(window // cells, 1)
    first = (window - 32) // 2
    patch = pixels[first : first + 32, first : first + 32]
    expected = functional.avg_pool2d(patch[None, None], 32 // points).flatten()
    found = within_window(cells, window, points, torch.device("cpu")) @ values.flatten()
    torch.testing.assert_close(found, expected)


def test_the_head_takes_windows_where_its_patch_lies():
    layers = (Layer(channels=3, cells=2), Layer(channels=3, cells=4))
    config = HeadsConfig(
        outputs=5, embedding_dim=60, mask_head="cells", cells=4, layers=layers, windows=(32, 128)
    )
    linear, embeddings = CellLinear(config, 5), torch.randn(len(GRIDS), PATCHES, 60)
    patch, window = embeddings[0, 3, :12], embeddings[0, 3, 12:].view(3, 16)
    middle = within_window(4, 128, 4, torch.device("cpu")) @ window.T
    other = embeddings.clone()
    other[..., 12:] = 0
    of_patch = linear(other, GRIDS)[0, 3]
    expected = of_patch + middle @ linear.linear.weight[:, 3:].T
    assert patch.any()
    torch.testing.assert_close(linear(embeddings, GRIDS)[0, 3], expected)


@pytest.mark.parametrize("per_side", [1, 2, 4])
def test_context_is_a_convolution_of_the_whole_picture(per_side: int):
    values, pictures = random_cells(per_side, 5)
    context = CellContext(5, per_side)
    weight = context.linear.weight.view(5, 3, 3, 5).permute(0, 3, 1, 2)
    found = context(values, GRIDS)
    assert bool(torch.isfinite(found).all())
    for image, (grid, picture) in enumerate(zip(GRIDS, pictures, strict=True)):
        beyond = functional.pad(picture[None], (1, 1, 1, 1), mode="replicate")
        mixed = functional.conv2d(beyond, weight).movedim(1, -1)
        expected = picture + functional.gelu(context.norm(mixed)).movedim(-1, 1)[0]
        torch.testing.assert_close(picture_of(found[image], grid, per_side), expected)


def test_the_probabilities_of_a_patch_are_the_mean_of_its_cells():
    logits = 5 * torch.randn(2, 3, 4, 6)
    found = mean_class_logits(logits)
    torch.testing.assert_close(found.exp(), logits.softmax(dim=-1).mean(dim=-2))


@pytest.mark.parametrize("classes", [2, 9, 70])
@pytest.mark.parametrize("per_side", [1, 2, 4])
def test_pixels_are_the_strongest_interpolated_class(
    per_side: int, classes: int, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(cell_pixels, "_BLOCK", 5 * 1024 * classes)  # a few patches at once
    logits = 4 * random_cells(per_side, classes)[0]
    logits[1, ..., 1] += 20  # an image of one class, as far as its cells are concerned
    config = HeadsConfig(
        outputs=classes,
        mask_head="cells",
        cells=per_side,
        layers=(Layer(channels=256, cells=1),),
    )
    found = pixel_scores(mean_class_logits(logits), logits, GRIDS, config)
    labels = torch.randint(-1, classes, (len(GRIDS), PATCHES, 4))
    for image, grid in enumerate(GRIDS):
        cells = picture_of(logits[image].softmax(dim=-1), grid, per_side)[None]
        size = [int(number) * 32 for number in grid]
        expected = functional.interpolate(cells, size=size, mode="bilinear")[0]
        confidence, strongest = expected.max(dim=0)
        parts = (found.label_map, found.confidence)
        drawn, sure = (picture_of(part[image].unsqueeze(-1), grid, 32)[0] for part in parts)
        torch.testing.assert_close(sure, confidence)
        first, second = expected.topk(2, dim=0).values
        assert torch.equal(drawn.long()[first - second > 1e-6], strongest[first - second > 1e-6])
        patches = torch.arange(int(grid.prod()))
        masks = found.masks_of(image * PATCHES + patches, labels[image, patches])
        assert masks.shape == (len(patches), 4, 1024)
        for patch in patches.tolist():
            row, column = divmod(patch, int(grid[1]))
            window = expected[:, row * 32 : row * 32 + 32, column * 32 : column * 32 + 32]
            for rank, label in enumerate(labels[image, patch].tolist()):
                wanted = window[label].flatten() if label >= 0 else torch.zeros(1024)
                torch.testing.assert_close(masks[patch, rank], wanted)
