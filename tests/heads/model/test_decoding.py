"""Predictions of two views and with class weights, against dense scores pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from builders.heads import MASK_HEADS
from torch import Tensor
from torch.nn import functional

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.decoding import decode
from vocprep.heads.model.mask_heads.kinds import pixel_scores
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.model.view_outputs import ViewOutputs, mirrored_back

CLASSES = 7
GRIDS = torch.tensor([[2, 3], [1, 2]])


def outputs(config: HeadsConfig, seed: int) -> ViewOutputs:
    """What heads with fresh weights make of random patches; large logits, so that views differ."""
    torch.manual_seed(0)
    heads = TFDetHeads.from_config(config).eval()
    generator = torch.Generator().manual_seed(seed)
    padding = torch.arange(6) >= GRIDS.prod(dim=1, keepdim=True)
    with torch.inference_mode():
        y, z = heads(3 * torch.randn(2, 6, 256, generator=generator), padding, GRIDS)
    return ViewOutputs(class_logits=4 * y, mask_logits=4 * z)


def dense(view: ViewOutputs, image: int, config: HeadsConfig) -> Tensor:
    """Return one view's class scores of every pixel of an image: [C, 32·ny, 32·nx]."""
    ny, nx = GRIDS[image].tolist()
    side = 1 if config.mask_head == "none" else config.cells
    if config.mask_head != "slots":
        cells = view.mask_logits[image, : ny * nx].softmax(dim=-1)
        cells = cells.view(ny, nx, side, side, -1).permute(4, 0, 2, 1, 3)
        picture = cells.reshape(1, CLASSES, ny * side, nx * side)
        return functional.interpolate(picture, scale_factor=32 // side, mode="bilinear")[0]
    scores = torch.zeros(CLASSES, 32 * ny, 32 * nx)
    for patch in range(ny * nx):
        chances = view.class_logits[image, patch].softmax(dim=-1)
        rows, columns = (slice(32 * at, 32 * at + 32) for at in divmod(patch, nx))
        for k, label in enumerate(view.class_logits[image, patch].topk(4).indices):
            mask = view.mask_logits[image, patch, :, k].sigmoid().view(32, 32)
            scores[label, rows, columns] = mask * (
                chances[label] if config.mask_loss == "mixed" else 1
            )
    return scores


def laid_out(values: Tensor, image: int) -> Tensor:
    """Return values [B, P, 1024] of one image as [32·ny, 32·nx]."""
    ny, nx = GRIDS[image].tolist()
    return values[image, : ny * nx].view(ny, nx, 32, 32).transpose(1, 2).reshape(32 * ny, 32 * nx)


@pytest.mark.parametrize("name", MASK_HEADS)
class TestEveryMaskHead:
    """The decoding of every mask head."""

    @pytest.fixture
    def config(self, name: str) -> HeadsConfig:
        return HeadsConfig(outputs=CLASSES, depth=1, feedforward=64, **MASK_HEADS[name])

    def test_one_view_without_weights_is_what_it_was(self, config: HeadsConfig):
        view = outputs(config, 0)
        found = decode([view], GRIDS, config)
        expected = pixel_scores(view.class_logits, view.mask_logits, GRIDS, config)
        assert found.patch_logits is view.class_logits
        assert torch.equal(found.pixels.label_map, expected.label_map)
        assert torch.equal(found.pixels.confidence, expected.confidence)

    def test_two_views_are_the_mean_of_their_scores(self, config: HeadsConfig):
        views = [outputs(config, 0), outputs(config, 1)]
        found = decode(views, GRIDS, config)
        for image in range(len(GRIDS)):
            strongest, labels = sum(dense(view, image, config) / 2 for view in views).max(dim=0)
            torch.testing.assert_close(laid_out(found.pixels.confidence, image), strongest)
            same = laid_out(found.pixels.label_map, image) == labels
            assert same.float().mean() > 0.999
        mean = sum(view.class_logits.softmax(dim=-1) / 2 for view in views)
        torch.testing.assert_close(found.patch_logits.softmax(dim=-1), mean)

    def test_weights_multiply_the_scores_of_classes(self, config: HeadsConfig):
        views, weights = [outputs(config, 0), outputs(config, 1)], torch.rand(CLASSES) * 9 + 1
        found = decode(views, GRIDS, config, weights)
        for image in range(len(GRIDS)):
            scores = sum(dense(view, image, config) / 2 for view in views)
            if config.mask_head == "slots":
                changed = scores * weights[:, None, None]
                labels = changed.argmax(dim=0)
                if config.mask_loss == "all":
                    expected = changed.amax(dim=0) * scores.sum(dim=0) / changed.sum(dim=0)
                    shown = laid_out(found.pixels.confidence, image)
                    torch.testing.assert_close(shown, expected.clamp(max=1))
                assert (laid_out(found.pixels.label_map, image) == labels).float().mean() > 0.999
        chances = sum(view.class_logits.softmax(dim=-1) / 2 for view in views) * weights
        expected = chances / chances.sum(dim=-1, keepdim=True)
        torch.testing.assert_close(found.patch_logits.softmax(dim=-1), expected)
        assert float(found.pixels.confidence.min()) >= 0
        assert float(found.pixels.confidence.max()) <= 1

    def test_masks_of_given_classes_are_means_over_the_views(self, config: HeadsConfig):
        views = [outputs(config, 0), outputs(config, 1)]
        patches, labels = torch.tensor([4, 7]), torch.tensor([[0, 1, 2, 3], [4, -1, 5, 6]])
        found = decode(views, GRIDS, config).pixels.masks_of(patches, labels)
        each = [
            pixel_scores(v.class_logits, v.mask_logits, GRIDS, config).masks_of(patches, labels)
            for v in views
        ]
        torch.testing.assert_close(found, (each[0] + each[1]) / 2)

    def test_mirrored_back_twice_is_the_view_itself(self, config: HeadsConfig):
        view = outputs(config, 0)
        once = mirrored_back(view, GRIDS)
        for image in range(len(GRIDS)):
            mirrored = dense(once, image, config)
            torch.testing.assert_close(mirrored, dense(view, image, config).flip(2))
        twice = mirrored_back(once, GRIDS)
        assert torch.equal(twice.class_logits[0], view.class_logits[0])
        assert torch.equal(twice.mask_logits[1, :2], view.mask_logits[1, :2])


def test_weights_of_cells_count_in_each_cell_before_pixels_are_interpolated():
    config = HeadsConfig(outputs=2, mask_head="none")
    chances, weights = torch.tensor([[[0.9, 0.1], [0.3, 0.7]]]), torch.tensor([1.0, 3.0])
    view = ViewOutputs(class_logits=chances.log(), mask_logits=chances.log().unsqueeze(2))
    found = decode([view], torch.tensor([[1, 2]]), config, weights).pixels
    first, second = 0.3 / 1.2, 2.1 / 2.4  # of the second class
    row = found.confidence.view(2, 32, 32)[:, 0].flatten()
    shares = torch.linspace(-0.5 + 1 / 64, 1.5 - 1 / 64, 64).clamp(0, 1)
    of_second = first + (second - first) * shares
    torch.testing.assert_close(row, torch.maximum(of_second, 1 - of_second))
    assert torch.equal(found.label_map.view(2, 32, 32)[:, 0].flatten(), (of_second > 0.5).long())
