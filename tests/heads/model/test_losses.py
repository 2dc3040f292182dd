"""Losses of the heads against naive loops; void and padding have no part in them."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from builders.heads import (
    VOID,
    banded_records,
    make_batch,
    make_record,
    random_label_map,
    random_records,
)
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from vocprep.backbones import Layer
from vocprep.errors import UsageError
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.loss_parts import slot_fractions, unpack_states
from vocprep.heads.model.losses import compute_losses
from vocprep.heads.model.mask_heads.cell_head import mean_class_logits
from vocprep.heads.model.mask_heads.slot_losses import sum_softplus
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.labels.targets import pack_states
from vocprep.labels.targets import unpack_states as unpack_states_numpy
from vocprep.placement import split_patches
from vocprep.shards.reader import Batch
from vocprep.shards.record import Record

CATEGORIES = 21
PLAIN = HeadsConfig(outputs=CATEGORIES)


def random_logits(batch: Batch, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = batch.padding.shape
    y = 3 * torch.randn(*shape, CATEGORIES, generator=generator)
    z = 3 * torch.randn(*shape, 1024, 4, generator=generator)
    return y.requires_grad_(), z.requires_grad_()


def slots_of(valid: list[int]) -> list[int]:
    return sorted(set(valid), key=lambda label: (-valid.count(label), label))[:4]


def naive_class_loss(valid: list[int], logits: np.ndarray, rule: str) -> float:
    """One patch's class loss."""
    slots = slots_of(valid)
    if rule == "multi_hot":
        chances = [1 / (1 + math.exp(-float(v))) for v in logits]
        hits = [p if label in slots else 1 - p for label, p in enumerate(chances)]
        return -sum(math.log(hit) for hit in hits) / len(logits)
    log_total = math.log(sum(math.exp(float(v)) for v in logits))
    return -sum(valid.count(label) / len(valid) * (logits[label] - log_total) for label in slots)


def naive_masks(pixels: np.ndarray, y: np.ndarray, z: np.ndarray, rule: str) -> list[float]:
    """One patch's mask losses, an entry a valid pixel and slot."""
    slots = slots_of([int(label) for label in pixels if label != VOID])
    if rule == "predicted":
        ranked = sorted(range(len(y)), key=lambda label: -y[label])[:4]
        owners = [label if label in slots else None for label in ranked]
    else:
        owners = slots
    owners = [*owners, None, None, None, None][:4]
    losses = []
    for pixel, label in enumerate(pixels):
        for k in range(4):
            if label != VOID:
                p = 1 / (1 + math.exp(-float(z[pixel, k])))
                losses.append(-math.log(p if owners[k] == label else 1 - p))
    return losses


def naive_losses(
    y: np.ndarray, z: np.ndarray, records: list[Record], rules: tuple[str, str, str]
) -> tuple[float, float]:
    """Straight from the label maps, a patch and a pixel at a time."""
    class_loss: list[float] = []
    mask: list[float] = []
    for row, record in enumerate(records):
        for patch, pixels in enumerate(split_patches(record.label_map)):
            flat = pixels.ravel()
            if valid := [int(label) for label in flat if label != VOID]:
                class_loss.append(naive_class_loss(valid, y[row, patch], rules[0]))
                if rules[2] == "all" or len(set(valid)) > 1:
                    mask += naive_masks(flat, y[row, patch], z[row, patch], rules[1])
    return sum(class_loss) / len(class_loss), sum(mask) / len(mask)


@given(st.integers(0, 10**6))
def test_states_unpack_as_numpy_does(seed: int):
    states = np.random.default_rng(seed).integers(0, 6, size=(2, 3, 1024)).astype(np.uint8)
    planes = pack_states(states)
    found = unpack_states(torch.from_numpy(planes))
    assert found.dtype == torch.uint8
    assert np.array_equal(found.numpy(), states)
    assert np.array_equal(found.numpy(), unpack_states_numpy(planes))


@pytest.mark.parametrize("class_loss", ["soft_cross_entropy", "multi_hot"])
@pytest.mark.parametrize("slots", ["predicted", "area"])
@pytest.mark.parametrize("mask_loss", ["all", "mixed"])
def test_losses_equal_naive_loops(mask_loss: str, slots: str, class_loss: str):
    records = random_records("train", [(1, 2), (1, 1)])
    rng = np.random.default_rng(0)
    one_label = np.full((32, 32), 3, dtype=np.uint16)
    one_label[:5] = VOID
    many = np.kron(np.arange(16).reshape(4, 4), np.ones((8, 8))).astype(np.uint16)
    void = np.full((32, 32), VOID, dtype=np.uint16)
    label_map = np.concatenate([one_label, many, void], axis=1)
    embeddings = rng.normal(size=(3, 256)).astype(np.float16)
    records.append(make_record("special", "train", label_map, embeddings))
    batch = make_batch(records, patches=4)
    y, z = random_logits(batch)
    rules = (class_loss, slots, mask_loss)
    config = replace(PLAIN, class_loss=class_loss, slots=slots, mask_loss=mask_loss)
    losses = compute_losses(y, z, batch, config)
    class_loss, mask = naive_losses(y.detach().numpy(), z.detach().numpy(), records, rules)
    assert losses.class_loss.item() == pytest.approx(class_loss, rel=1e-5)
    assert losses.mask_loss.item() == pytest.approx(mask, rel=1e-5)
    assert losses.total.item() == pytest.approx(class_loss + mask, rel=1e-5)


@pytest.mark.parametrize("slots", ["predicted", "area"])
def test_masks_of_mixed_patches_alone_give_the_losses_of_all(slots: str):
    records = random_records("train", [(1, 2), (1, 1)])
    records.append(banded_records("train", 1)[0])
    plain = np.full((32, 32), 3, dtype=np.uint16)
    records.append(make_record("plain", "train", plain, np.zeros((1, 256), np.float16)))
    batch = make_batch(records, patches=3).with_mixed()
    labels = batch.slot_labels.view(-1, 4).tolist()
    assert batch.mixed.tolist() == [n for n, row in enumerate(labels) if row[1] >= 0]
    config = replace(PLAIN, slots=slots, mask_loss="mixed")
    found = []
    for alone in (False, True):
        y, z = random_logits(batch)
        losses = compute_losses(y, z.flatten(0, 1)[batch.mixed] if alone else z, batch, config)
        losses.total.backward()
        found.append([losses.class_loss, losses.mask_loss, losses.entries, y.grad, z.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(other, one)


def test_heads_draw_the_masks_of_chosen_patches_alone_and_of_none():
    torch.manual_seed(0)
    heads = TFDetHeads(CATEGORIES).eval()
    batch = make_batch(random_records("train", [(1, 2), (1, 1)]))
    inputs = (batch.embeddings, batch.padding, batch.grids)
    y, z = heads(*inputs)
    for chosen in ([0, 2], []):
        drawn = torch.tensor(chosen, dtype=torch.int64)
        logits, masks = heads(*inputs, drawn)
        torch.testing.assert_close(logits, y)
        torch.testing.assert_close(masks, z.flatten(0, 1)[drawn])
    masks.sum().backward()
    assert all(not p.grad.any() for p in heads.reg.parameters())  # which a rank must have


def test_the_sum_of_softplus_is_torchs():
    values = torch.tensor([-1e30, -200.0, -90, -20, -1, -1e-3, 0, 1e-3, 1, 5, 20, 90, 1e4])
    values = torch.cat([values, torch.linspace(-30, 30, 67)]).repeat(2, 1).requires_grad_()
    sums, expected = sum_softplus(values), functional.softplus(values.double()).sum(dim=-1)
    assert sums.dtype == torch.float32
    assert sums.tolist() == pytest.approx(expected.tolist(), rel=1e-6)
    weights = torch.tensor([1.0, -2.0])
    one, other = (torch.autograd.grad((s * weights).sum(), values)[0] for s in (sums, expected))
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("mask_head", ["slots", "cells"])
def test_smoothed_targets_are_torchs(mask_head: str):
    """One cell a patch, so that a cell's target is the patch's; one patch has 16 classes."""
    many = np.kron(np.arange(16).reshape(4, 4), np.ones((8, 8))).astype(np.uint16)
    many[:3] = VOID
    embeddings = np.zeros((1, 256), np.float16)
    records = [*random_records("train", [(1, 2)]), make_record("x", "train", many, embeddings)]
    batch = make_batch(records, patches=3)
    y, z = (logits.detach() for logits in random_logits(batch))
    if mask_head == "cells":
        y = z = y.unsqueeze(-2)
        y = mean_class_logits(z)
    layers = (Layer(channels=256, cells=1),) if mask_head == "cells" else ()
    config = replace(PLAIN, mask_head=mask_head, layers=layers)
    plain, smoothed = (
        compute_losses(y, z, batch, replace(config, label_smoothing=x)) for x in (0.0, 0.3)
    )
    expected = []
    for row, record in enumerate(records):
        for patch, pixels in enumerate(split_patches(record.label_map)):
            valid = pixels[pixels != VOID]
            target = torch.zeros(CATEGORIES)
            for label in slots_of(valid.tolist()):
                target[label] = (valid == label).mean()
            covered = target.sum()
            loss = functional.cross_entropy(y[row, patch], target / covered, label_smoothing=0.3)
            expected.append(float(covered * loss))
    assert smoothed.class_loss.item() == pytest.approx(np.mean(expected), rel=1e-5)
    cells = smoothed.class_loss if mask_head == "cells" else plain.mask_loss
    assert smoothed.mask_loss.item() == pytest.approx(cells.item(), rel=1e-5)
    assert smoothed.class_loss != plain.class_loss


def test_label_smoothing_of_one_yes_or_no_per_class_is_refused():
    with pytest.raises(UsageError, match=r"label_smoothing 0\.1: expected 0 with .* multi_hot"):
        replace(PLAIN, label_smoothing=0.1, class_loss="multi_hot")


@pytest.mark.parametrize("per_side", [1, 2, 4])
def test_cells_learn_the_shares_of_their_valid_pixels(per_side: int):
    """Counted from the label maps, a cell at a time; cells of void alone count nowhere."""
    records = random_records("train", [(1, 2), (1, 1)])
    batch = make_batch(records, patches=3)
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(2, 3, per_side**2, CATEGORIES, generator=generator, requires_grad=True)
    y = mean_class_logits(z)
    config = replace(
        PLAIN, mask_head="cells", cells=per_side, layers=(Layer(channels=256, cells=1),)
    )
    losses = compute_losses(y, z, batch, config)
    found: list[float] = []
    side = 32 // per_side
    logs = z.detach().log_softmax(dim=-1).numpy()
    for row, record in enumerate(records):
        for patch, pixels in enumerate(split_patches(record.label_map)):
            for cell in range(per_side**2):
                top, left = cell // per_side * side, cell % per_side * side
                flat = pixels[top : top + side, left : left + side].ravel()
                labels = [int(label) for label in flat if label != VOID]
                kept = [label for label in labels if label in record.slot_labels[patch]]
                if labels:
                    terms = [-logs[row, patch, cell, label] for label in kept]
                    found.append(sum(terms) / len(labels))
    assert losses.mask_loss.item() == pytest.approx(sum(found) / len(found), rel=1e-5)
    assert losses.entries.item() == len(found)
    plain = compute_losses(y, torch.zeros(2, 3, 1024, 4), batch, PLAIN)
    assert losses.class_loss.item() == pytest.approx(plain.class_loss.item(), rel=1e-5)
    losses.total.backward()
    assert not z.grad[batch.padding].any()
    assert z.grad.isfinite().all()


def test_a_mask_learns_the_pixels_of_the_label_that_cat_names_for_it():
    """The order is cat's, whatever the areas: labels 2, 1 and, in no slot, 0."""
    label_map = np.full((32, 32), 1, dtype=np.uint16)
    label_map[:8] = 2
    record = make_record("one", "train", label_map, np.zeros((1, 256), dtype=np.float16))
    batch = make_batch([record])
    y = torch.zeros(1, 1, CATEGORIES)
    y[..., [2, 0, 1]] = torch.tensor([9.0, 8.0, 7.0])
    z = torch.zeros(1, 1, 1024, 4, requires_grad=True)
    compute_losses(y, z, batch, PLAIN).mask_loss.backward()
    is_raised = (z.grad[0, 0] < 0).view(32, 32, 4).numpy()
    assert np.array_equal(is_raised[..., 0], label_map == 2)
    assert np.array_equal(is_raised[..., 2], label_map == 1)
    assert not is_raised[..., [1, 3]].any()


def test_which_labels_are_named_gets_no_gradient_from_the_masks():
    batch = make_batch(random_records("train", [(1, 2)]))
    y, z = random_logits(batch)
    compute_losses(y, z, batch, PLAIN).mask_loss.backward()
    assert y.grad is None
    assert z.grad.any()


@pytest.mark.parametrize("slots", ["predicted", "area"])
def test_a_label_space_smaller_than_the_slots(slots: str):
    label_map = np.zeros((32, 32), dtype=np.uint16)
    label_map[:8] = 1
    record = make_record("one", "train", label_map, np.zeros((1, 256), dtype=np.float16))
    y, z = torch.randn(1, 1, 2), torch.randn(1, 1, 1024, 4)
    losses = compute_losses(y, z, make_batch([record]), replace(PLAIN, slots=slots))
    expected = naive_losses(y.numpy(), z.numpy(), [record], ("soft_cross_entropy", slots, "all"))
    assert losses.mask_loss.item() == pytest.approx(expected[1], rel=1e-5)


@pytest.mark.parametrize("class_loss", ["soft_cross_entropy", "multi_hot"])
@pytest.mark.parametrize("slots", ["predicted", "area"])
def test_padding_and_void_get_no_gradient(slots: str, class_loss: str):
    records = random_records("train", [(1, 2), (1, 1)])
    batch = make_batch(records, patches=3)
    y, z = random_logits(batch)
    compute_losses(y, z, batch, replace(PLAIN, class_loss=class_loss, slots=slots)).total.backward()
    assert not y.grad[batch.padding].any()
    assert not z.grad[batch.padding].any()
    void = unpack_states(batch.slot_planes) == 5
    assert void[~batch.padding].any()
    assert not z.grad[void].any()
    assert (z.grad[~void] != 0).all()


def test_padding_leaves_the_losses_alone():
    records = random_records("train", [(1, 2)])
    small, large = make_batch(records), make_batch(records, patches=5)
    y, z = random_logits(large)
    one = compute_losses(y[:, :2], z[:, :2], small, PLAIN)
    other = compute_losses(y, z, large, PLAIN)
    torch.testing.assert_close(one.class_loss, other.class_loss)
    torch.testing.assert_close(one.mask_loss, other.mask_loss)


def test_a_batch_of_void_alone_gives_zero_and_finite_gradients():
    label_map = np.full((32, 64), VOID, dtype=np.uint16)
    record = make_record("void", "train", label_map, np.zeros((2, 256), dtype=np.float16))
    batch = make_batch([record])
    y, z = random_logits(batch)
    losses = compute_losses(y, z, batch, PLAIN)
    losses.total.backward()
    assert losses.total.item() == 0
    assert y.grad.isfinite().all()
    assert z.grad.isfinite().all()


@given(st.integers(0, 10**6), st.integers(1, 20))
def test_fractions_are_of_the_valid_pixels(seed: int, labels: int):
    rng = np.random.default_rng(seed)
    label_map = random_label_map((1, 1), rng, labels)
    record = make_record("one", "train", label_map, np.zeros((1, 256), dtype=np.float16))
    batch = make_batch([record])
    valid = (unpack_states(batch.slot_planes) != 5).sum(dim=-1)
    fractions = slot_fractions(batch.slot_pixels, valid)[0, 0]
    pixels = label_map[label_map != VOID]
    for k, label in enumerate(record.slot_labels[0]):
        share = float((pixels == label).mean()) if label >= 0 else 0.0
        assert fractions[k].item() == pytest.approx(share)
    if record.label_count[0] <= 4:
        assert fractions.sum().item() == pytest.approx(1.0)


def test_the_best_class_logits_are_the_area_fractions():
    records = random_records("train", [(1, 1)])
    batch = make_batch(records)
    y, z = random_logits(batch)
    with torch.no_grad():
        y.fill_(-30.0)
        shares = batch.slot_pixels[0, 0] / batch.slot_pixels[0, 0].sum()
        y[0, 0, batch.slot_labels[0, 0]] = shares.log()
    compute_losses(y, z, batch, PLAIN).class_loss.backward()
    assert y.grad.abs().max() < 1e-6
