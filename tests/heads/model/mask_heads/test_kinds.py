"""What holds for every mask head, and what is drawn of outputs of slots and of patches alone."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch
from builders.heads import MASK_HEADS, make_batch, random_records
from torch import Tensor, nn
from torch.nn import functional

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.losses import compute_losses, losses_by_image
from vocprep.heads.model.mask_heads.kinds import pixel_scores
from vocprep.heads.model.tfdet import TFDetHeads

ENCODERS = ("transformer", "spikformer", "none")
CLASSES = 7


def made(config: HeadsConfig, training: bool) -> TFDetHeads:
    """Heads in float64, where no rounding moves a spike; their dropout is off."""
    torch.manual_seed(3)
    heads = TFDetHeads.from_config(config).double().train(training)
    for module in heads.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        elif isinstance(module, nn.MultiheadAttention):
            module.dropout = 0.0
    return heads


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("name", MASK_HEADS)
class TestEveryMaskHead:
    """The contract of a mask head, with each encoder."""

    @pytest.fixture
    def config(self, name: str, encoder: str) -> HeadsConfig:
        small = {"depth": 1, "feedforward": 64, "encoder": encoder}
        return HeadsConfig(outputs=CLASSES, **small, **MASK_HEADS[name])

    @pytest.mark.slow
    @pytest.mark.parametrize("training", [True, False])
    def test_padding_changes_nothing(self, config: HeadsConfig, training: bool):
        """Pictures of two grids with anything behind: outputs, losses, gradients, pixels."""
        records = random_records("train", [(2, 2), (1, 3)])
        found = []
        for width, filling in ((4, 0.0), (6, 0.0), (6, 1e3)):
            batch, heads = make_batch(records, patches=width), made(config, training)
            embeddings = batch.embeddings.double()
            embeddings[batch.padding] = filling
            y, z = heads(embeddings, batch.padding, batch.grids)
            assert y.isfinite().all()
            assert z.isfinite().all()
            losses = compute_losses(y, z, batch, config)
            if training:
                losses.total.backward()
            pixels = pixel_scores(y.detach(), z.detach(), batch.grids, config)
            real = ~batch.padding
            places = real.flatten().nonzero().squeeze(1)
            masks = pixels.masks_of(places, batch.slot_labels[real])
            found.append(
                {
                    **{"y": y[real], "z": z[real], "labels": pixels.label_map[real]},
                    **{"confidence": pixels.confidence[real], "masks": masks},
                    **{field.name: getattr(losses, field.name) for field in fields(losses)},
                    **{name: p.grad for name, p in heads.named_parameters() if p.grad is not None},
                }
            )
        reference, *others = found
        for other in others:
            assert other.keys() == reference.keys()
            for key, value in reference.items():
                torch.testing.assert_close(other[key], value, atol=1e-6, rtol=1e-5, msg=key)

    def test_losses_of_images_add_up_and_reach_every_weight(self, config: HeadsConfig):
        batch, heads = make_batch(random_records("train", [(2, 2), (1, 3)])), made(config, True)
        y, z = heads(batch.embeddings.double(), batch.padding, batch.grids)
        together, each = compute_losses(y, z, batch, config), losses_by_image(y, z, batch, config)
        for field in fields(together):
            torch.testing.assert_close(
                getattr(each, field.name).sum(), getattr(together, field.name)
            )
        together.total.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in heads.parameters())

    def test_pixels_are_what_the_probabilities_say(self, config: HeadsConfig):
        batch, heads = make_batch(random_records("train", [(2, 2)])), made(config, False)
        embeddings = batch.embeddings.double()
        with torch.no_grad():
            y, z = heads(embeddings, None, batch.grids)
            same, chances = heads.probabilities(embeddings, None, batch.grids)
        assert torch.equal(y, same)
        assert 0 <= chances.min() <= chances.max() <= 1
        pixels = pixel_scores(y, z, batch.grids, config)
        assert pixels.label_map.shape == pixels.confidence.shape == (1, 4, 1024)
        assert 0 < pixels.confidence.min() <= pixels.confidence.max() < 1
        ranked = y[0].topk(4, dim=-1)
        masks = pixels.masks_of(torch.arange(4), ranked.indices)
        assert masks.shape == (4, 4, 1024)
        if config.mask_loss == "mixed":
            masks = masks * y[0].softmax(dim=-1).topk(4, dim=-1).values.unsqueeze(2)
        strongest, labels = masks.max(dim=1), pixels.label_map[0]
        assert (strongest.values <= pixels.confidence[0] + 1e-6).all()
        drawn = ranked.indices.gather(-1, strongest.indices)
        among = (ranked.indices.unsqueeze(1) == labels.unsqueeze(-1)).any(dim=-1)
        assert torch.equal(drawn[among], labels[among])
        assert among.all() or config.mask_head != "slots"
        assert not pixels.masks_of(torch.tensor([2]), torch.full((1, 4), -1)).any()


def random_slots(classes: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    y = 2 * torch.randn(2, 3, classes, generator=generator)
    return y, 3 * torch.randn(2, 3, 1024, 4, generator=generator)


@pytest.mark.parametrize("class_loss", ["soft_cross_entropy", "multi_hot"])
@pytest.mark.parametrize("classes", [9, 3])
def test_masks_of_mixed_patches_count_times_their_classes(classes: int, class_loss: str):
    config = HeadsConfig(outputs=classes, mask_loss="mixed", class_loss=class_loss)
    y, z = random_slots(classes)
    found = pixel_scores(y, z, torch.tensor([[1, 3], [3, 1]]), config)
    sure = y.softmax(dim=-1) if class_loss == "soft_cross_entropy" else y.sigmoid()
    for place in ((0, 0), (1, 2)):
        ranked = sorted(range(classes), key=lambda label: -float(y[place][label]))[:4]
        for pixel in (0, 77, 1023):
            masks = z[place][pixel].sigmoid()
            scores = [float(sure[place][label] * masks[k]) for k, label in enumerate(ranked)]
            labels = torch.tensor([[*ranked, -1][:4]])
            drawn = found.masks_of(torch.tensor([3 * place[0] + place[1]]), labels)
            assert int(found.label_map[place][pixel]) == ranked[int(np.argmax(scores))]
            assert float(found.confidence[place][pixel]) == pytest.approx(max(scores))
            torch.testing.assert_close(drawn[0, :classes, pixel], masks[:classes])


@pytest.mark.parametrize("class_loss", ["soft_cross_entropy", "multi_hot"])
def test_without_a_mask_head_patches_are_interpolated(class_loss: str):
    """Against torch's interpolation of the whole picture."""
    config = HeadsConfig(outputs=CLASSES, mask_head="none", class_loss=class_loss)
    y = 3 * torch.randn(1, 6, CLASSES, generator=torch.Generator().manual_seed(0))
    found = pixel_scores(y, y.unsqueeze(-2), torch.tensor([[2, 3]]), config)
    chances = y.softmax(dim=-1) if class_loss == "soft_cross_entropy" else y.sigmoid()
    picture = chances.view(1, 2, 3, CLASSES).permute(0, 3, 1, 2)
    picture = functional.interpolate(picture, size=(64, 96), mode="bilinear")
    expected = functional.unfold(picture, 32, stride=32).view(CLASSES, 1024, 6).permute(2, 1, 0)
    torch.testing.assert_close(found.confidence[0], expected.amax(dim=-1))
    assert torch.equal(found.label_map[0], expected.argmax(dim=-1))
    ranked = y[0].topk(4).indices
    masks = expected.gather(-1, ranked.unsqueeze(1).expand(-1, 1024, -1))
    torch.testing.assert_close(found.masks_of(torch.arange(6), ranked).mT, masks)
