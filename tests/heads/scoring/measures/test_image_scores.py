"""Confusions and scores of single images, against naive counts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from builders.heads import make_batch, random_records
from builders.oracles import VOID, naive_ious
from hypothesis import given
from hypothesis import strategies as st

from vocprep.heads.model.losses import compute_losses, losses_by_image
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.scoring.measures.image_scores import ImageConfusions, ImageCounter
from vocprep.heads.scoring.measures.pixel_counts import PixelEntries

NAMES = ("a", "b", "c", "d", "e")


def entries_of(truth: np.ndarray, predicted: np.ndarray) -> PixelEntries:
    """Return an entry for each pixel [B, P, ·] that is not void, all far from borders."""
    images, patches, _ = seen = np.nonzero(truth != VOID)
    patch = images * truth.shape[1] + patches
    arrays = {"patch": patch, "truth": truth[seen], "predicted": predicted[seen]}
    arrays |= {"band": np.full(len(patch), 2), "pixels": np.ones(len(patch), np.int64)}
    return PixelEntries(**{name: torch.from_numpy(array) for name, array in arrays.items()})


def counted(truth: np.ndarray, predicted: np.ndarray, classes: int) -> ImageConfusions:
    """Count five images in batches of two, two and one."""
    counter = ImageCounter(classes)
    for start in (0, 2, 4):
        part = slice(start, start + 2)
        ids = NAMES[part]
        counter.add(
            ids,
            entries_of(truth[part], predicted[part]),
            truth.shape[1],
            torch.arange(start, start + len(ids)) / 2,
        )
    return counter.confusions()


@given(st.integers(0, 10**6))
def test_images_equal_a_naive_count(seed: int):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, 3, VOID], size=(5, 2, 15)).repeat(2, axis=-1)
    truth[2] = VOID
    predicted = rng.integers(0, 5, size=truth.shape)
    found = counted(truth, predicted, classes=5)

    assert [score.image_id for score in found.scores] == ["a", "b", "d", "e"]
    assert [score.loss for score in found.scores] == [0, 0.5, 1.5, 2]
    seen = [i for i in range(5) if i != 2]
    for score, t, p in zip(found.scores, truth[seen], predicted[seen], strict=True):
        present = sorted(set(t.ravel().tolist()) - {VOID})
        ious = naive_ious(t, p, 5)
        assert score.miou == pytest.approx(sum(ious[k] for k in present) / len(present))
        assert score.pixels == (t != VOID).sum()
        assert score.pixel_accuracy == pytest.approx((t == p)[t != VOID].mean())

    pairs: Counter[tuple[int, int]] = Counter()
    for t, p in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        if t != VOID:
            pairs[t, p] += 1
    counts = found.matrix().counts
    assert {(t, p): counts[t, p] for t, p in np.argwhere(counts).tolist()} == pairs


@given(st.integers(0, 10**6))
def test_another_order_of_images_has_the_same_scores(seed: int):
    rng = np.random.default_rng(seed)
    truth = rng.choice([0, 1, VOID], size=(5, 2, 9))
    found = counted(truth, rng.integers(0, 3, size=truth.shape), classes=3)
    names = [NAMES[i] for i in rng.permutation(5)]
    moved = found.ordered_as(names)
    assert moved is not None
    assert moved.image_ids == tuple(names)
    assert sorted(moved.scores, key=lambda s: s.image_id) == list(found.scores)
    assert np.array_equal(moved.matrix().counts, found.matrix().counts)
    assert (np.diff(moved.image) >= 0).all()
    assert found.ordered_as(found.image_ids) is found
    assert found.ordered_as([*names[:4], "z"]) is None


def test_nothing_counted_is_no_image():
    nothing = ImageCounter(3).confusions()
    assert nothing.scores == ()
    assert nothing.matrix().counts.tolist() == [[0] * 4] * 3


def test_losses_of_images_are_those_of_batches_of_one():
    records = random_records("val", [(1, 2), (2, 2), (1, 1)])
    torch.manual_seed(0)
    heads = TFDetHeads(21).eval()
    whole = make_batch(records)
    with torch.inference_mode():
        logits = heads(whole.embeddings, whole.padding, whole.grids)
        found = losses_by_image(*logits, whole, heads.config)
        together = compute_losses(*logits, whole, heads.config)
        for row, record in enumerate(records):
            batch = make_batch([record])
            outputs = heads(batch.embeddings, batch.padding, batch.grids)
            alone = compute_losses(*outputs, batch, heads.config)
            assert float(found.class_loss[row]) == pytest.approx(float(alone.class_loss), rel=1e-5)
            assert float(found.mask_loss[row]) == pytest.approx(float(alone.mask_loss), rel=1e-5)
            assert found.patches[row] == alone.patches
            assert found.entries[row] == alone.entries
    assert float(found.class_sum.sum()) == pytest.approx(float(together.class_sum), rel=1e-5)
    assert float(found.mask_sum.sum()) == pytest.approx(float(together.mask_sum), rel=1e-5)
