"""Batches of a training epoch, and the mean and deviation of all embeddings."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.heads import make_dataset, make_record, random_label_map, random_records

from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.scoring.split_pass import score_split
from vocprep.heads.training.distributed import Processes
from vocprep.heads.training.feed import Feed, make_feed
from vocprep.options import LoaderOptions
from vocprep.shards.feed.batches import Batch
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

CPU = torch.device("cpu")
GRIDS = [(1, 2), (2, 2), (1, 1), (2, 1), (1, 3)]
FIELDS = ("embeddings", "slot_labels", "slot_pixels", "slot_planes")
MODES = ("resident", "streaming")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    records = random_records("train", GRIDS)
    plain = np.full((64, 64), 3, dtype=np.uint16)
    plain[:, :32] = random_label_map((2, 1), np.random.default_rng(0))
    one = make_record("even_plain", "even", plain, np.zeros((4, 256), np.float16))
    splits = {"train": records, "even": [*random_records("even", [(2, 2)] * 3), one]}
    return make_dataset(tmp_path_factory.mktemp("data") / "shards", splits)


def feed_of(dataset: ShardDataset, mode: str, split: str = "train", **part: int) -> Feed:
    options = LoaderOptions(batch_size=3, mode=mode, shuffle=True, seed=5)  # type: ignore[arg-type]
    return make_feed(dataset, split, options, Processes(CPU, **part))


def patches_of(batch: Batch) -> list[dict[str, torch.Tensor]]:
    """Each picture's own patches, and nothing but the padding elsewhere."""
    pictures = []
    for row, (ny, nx) in enumerate(batch.grids.tolist()):
        count = ny * nx
        pictures.append({name: getattr(batch, name)[row, :count] for name in FIELDS})
        assert batch.padding[row].tolist() == [k >= count for k in range(len(batch.padding[row]))]
        assert (batch.slot_labels[row, count:] == -1).all()
        assert not batch.slot_pixels[row, count:].any()
        assert (batch.slot_planes[row, count:, [0, 2]] == 255).all()
        assert not batch.slot_planes[row, count:, 1].any()
    return pictures


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("epoch", [1, 2])
def test_batches_are_those_of_the_loader(dataset: ShardDataset, mode: str, epoch: int):
    options = LoaderOptions(batch_size=3, mode="streaming", shuffle=True, seed=5)
    loader = dataset.loader("train", options)
    loader.set_epoch(epoch)
    feed = feed_of(dataset, mode)
    found, expected = list(feed.batches(epoch)), list(loader)
    assert feed.batch_sizes == [3, 2]
    for own, theirs in zip(found, expected, strict=True):
        assert own.image_ids == theirs.image_ids
        assert torch.equal(own.grids, theirs.grids)
        assert own.has_padding == theirs.has_padding == bool(theirs.padding.any())
        assert torch.equal(own.padding, theirs.padding)
        assert not own.padding.flatten()[own.mixed].any()
        for name in FIELDS:
            assert torch.equal(getattr(own, name), getattr(theirs, name)), name
        assert own.embeddings.dtype == torch.float32
        assert own.slot_labels.dtype == torch.int64


@pytest.mark.parametrize("mode", MODES)
def test_pictures_of_one_size_need_no_mask(dataset: ShardDataset, mode: str):
    feed = feed_of(dataset, mode, "even")
    assert feed.batch_sizes == [3, 1]
    for batch in feed.batches(1):  # one of which has two patches of one class
        labels = batch.slot_labels.view(-1, 4).tolist()
        assert batch.mixed.tolist() == [
            n for n, (_, second, *_) in enumerate(labels) if second >= 0
        ]
    assert not any(batch.has_padding for batch in feed.batches(1))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("world", [2, 4])
def test_parts_of_a_batch_are_the_whole_batch(dataset: ShardDataset, mode: str, world: int):
    """Four processes share batches of three and two pictures: some have none."""
    wholes = list(feed_of(dataset, mode).batches(1))
    feeds = [feed_of(dataset, mode, rank=rank, world_size=world) for rank in range(world)]
    parts = [list(feed.batches(1)) for feed in feeds]
    for step, whole in enumerate(wholes):
        expected = patches_of(whole)
        for rank in range(world):
            part = parts[rank][step]
            own = expected[rank::world]
            if not own:
                assert part.has_padding
                assert part.padding.all()
                assert not part.mixed.tolist()
                assert not part.slot_pixels.any()
                assert (part.slot_labels == -1).all()
                assert (part.slot_planes[..., [0, 2], :] == 255).all()
                continue
            for found, wanted in zip(patches_of(part), own, strict=True):
                for name in FIELDS:
                    assert torch.equal(found[name], wanted[name])


@pytest.mark.parametrize("mode", MODES)
def test_blank_batches_add_nothing_to_a_score(dataset: ShardDataset, mode: str):
    model = TFDetHeads(outputs=21).eval()
    options = LoaderOptions(batch_size=2, mode=mode, label_maps=True)  # type: ignore[arg-type]
    whole = score_split(model, dataset.loader("train", options), dataset.label_space)
    ranks = [replace(options, rank=rank, world_size=4) for rank in range(4)]
    loaders = [dataset.loader("train", each) for each in ranks]
    parts = [score_split(model, loader, dataset.label_space) for loader in loaders]
    assert [part.images for part in parts] == [3, 2, 0, 0]
    truth = [counts.model.counts.sum(axis=1) for counts in [*parts, whole]]
    assert np.array_equal(np.sum(truth[:-1], axis=0), truth[-1])


@pytest.mark.parametrize("mode", MODES)
def test_statistics_are_of_all_real_patches(dataset: ShardDataset, mode: str):
    mean, std = feed_of(dataset, mode).statistics()
    patches = np.concatenate([r.embeddings for r in random_records("train", GRIDS)])
    patches = patches.astype(np.float64)
    np.testing.assert_allclose(mean.numpy(), patches.mean(axis=0), atol=1e-6)
    np.testing.assert_allclose(std.numpy(), patches.std(axis=0), rtol=1e-5)


def test_statistics_are_the_same_bits_in_either_mode(dataset: ShardDataset):
    resident, streaming = (feed_of(dataset, mode).statistics() for mode in MODES)
    assert torch.equal(resident[0], streaming[0])
    assert torch.equal(resident[1], streaming[1])


@pytest.mark.parametrize("mode", MODES)
def test_pixels_of_classes_are_those_of_all_slots(dataset: ShardDataset, mode: str):
    expected: Counter[int] = Counter()
    for record in random_records("train", GRIDS):
        for labels, pixels in zip(record.slot_labels, record.slot_pixels, strict=True):
            expected.update({int(c): int(p) for c, p in zip(labels, pixels, strict=True) if c >= 0})
    found = feed_of(dataset, mode).class_pixels()
    assert found == dict(expected)
    assert list(found) == sorted(found)


@pytest.mark.parametrize("mode", MODES)
def test_components_that_never_vary_have_no_deviation_at_all(mode: str, tmp_path: Path):
    """Numbers in float32, whose squares are too long to be summed exactly."""
    (record,) = random_records("train", [(1, 4999)])
    embeddings = record.embeddings.astype(np.float32)
    constant = np.linspace(0.1, 7, 64, dtype=np.float32)
    embeddings[:, :64] = constant
    made = [replace(record, embeddings=embeddings)]
    dataset = make_dataset(tmp_path / "shards", {"train": made}, embedding_dtype="float32")
    mean, std = feed_of(dataset, mode).statistics()
    assert np.array_equal(mean[:64].numpy(), constant)
    assert not std[:64].any()
    assert std[64:].all()
