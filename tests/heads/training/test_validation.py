"""Scores of train images beside those of the validation split."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from builders.heads import make_dataset, random_records
from builders.progress import RecordedProgress

from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.run import load_run
from vocprep.heads.scoring.split_pass import score_split
from vocprep.heads.training.train import train
from vocprep.heads.training.validation import sampled_rows, scored_train_images
from vocprep.options import Layout, LoaderOptions
from vocprep.shards.reader import ShardDataset

OPTIONS: dict[str, Any] = {
    "epochs": 4,
    "batch_size": 2,
    "device": "cpu",
    "encoder": "none",
    "validate_every": 4,
    "lr": 0.01,
}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Seven pictures to train on in four shards, one to validate on."""
    splits = {
        "train": random_records("train", [(1, 2), (2, 2), (1, 1), (2, 1), (1, 3), (1, 1), (2, 3)]),
        "val": random_records("val", [(2, 2)]),
    }
    return make_dataset(
        tmp_path_factory.mktemp("data") / "shards", splits, Layout(samples_per_shard=2)
    )


@pytest.mark.slow
def test_train_images_are_scored_as_the_validation_split_is(dataset: ShardDataset, tmp_path: Path):
    summary = train(dataset, tmp_path / "run", TrainOptions(**OPTIONS, ema=0.5))
    final = summary.final
    # The one in the middle: of four shards the third.
    (shard,) = [dataset.shard_names("train")[2]]
    chosen = list(dataset.read_shard(shard))[1:2]
    alone = make_dataset(tmp_path / "alone", {"train": chosen})
    batches = alone.loader("train", LoaderOptions(label_maps=True))
    scores = score_split(load_run(tmp_path / "run").model, batches, dataset.label_space)
    assert final.train_loss == pytest.approx(scores.class_loss + scores.mask_loss, rel=1e-5)
    assert final.train_miou == pytest.approx(scores.model.miou_present())
    assert final.train_pixel_accuracy == pytest.approx(scores.model.pixel_accuracy())
    assert final.train_loss != pytest.approx(final.loss, rel=1e-3)
    streamed = TrainOptions(**OPTIONS, ema=0.5, mode="streaming", lanes=1)
    assert train(dataset, tmp_path / "streamed", streamed).final.train_loss == final.train_loss


@pytest.mark.slow
def test_a_note_at_the_end_says_that_a_training_overfitted(dataset: ShardDataset, tmp_path: Path):
    """Labels without any rule are learnt by heart."""
    options = {**OPTIONS, "epochs": 20, "validate_every": 4, "mask_head": "none", "lr": 0.03}
    options |= {"standardise": False, "weight_decay": 0.0}
    progress = RecordedProgress()
    summary = train(dataset, tmp_path / "fast", TrainOptions(**options), progress=progress)
    lowest = min((m for m in summary.history if m.val_loss), key=lambda m: m.val_loss).epoch
    said = rf"fast: over-fitting: the val loss is lowest after epoch {lowest} and ends \d+ % above"
    assert re.search(said, summary.notes[-1])
    assert progress.lines[-1] == summary.notes[-1]
    slow = train(dataset, tmp_path / "slow", TrainOptions(**{**options, "lr": 1e-6}))
    assert not any("over-fitting" in note for note in slow.notes)


@pytest.mark.parametrize(
    ("changes", "images"),
    [
        ({}, 1),
        ({"val_split": "train", "train_split": "val"}, 1),
        ({"validate_every": 100}, 1),
    ],
)
def test_no_more_train_images_are_scored_than_val_has(
    dataset: ShardDataset, changes: dict[str, Any], images: int
):
    assert scored_train_images(dataset, TrainOptions(**{**OPTIONS, **changes})) == images


@pytest.mark.slow
def test_few_train_images_are_scored_where_validations_are_frequent(tmp_path: Path):
    splits = {name: random_records(name, [(1, 1)] * 60) for name in ("train", "val")}
    dataset = make_dataset(tmp_path / "shards", splits)
    often, seldom = (
        TrainOptions(**{**OPTIONS, "epochs": 60, "validate_every": n}) for n in (1, 60)
    )
    assert [scored_train_images(dataset, each) for each in (often, seldom)] == [2, 60]
    summary = train(dataset, tmp_path / "run", TrainOptions(**{**OPTIONS, "epochs": 1}))
    assert summary.final.train_miou is None
    assert summary.final.train_loss is not None


@pytest.mark.parametrize(
    ("sizes", "images"), [([10], 3), ([4, 4, 4, 4], 5), ([1, 0, 7], 8), ([2] * 50, 41)]
)
def test_sampled_rows_are_so_many_in_few_shards(sizes: list[int], images: int):
    rows = sampled_rows(sizes, images)
    places = [(shard, row) for shard, each in rows.items() for row in each.tolist()]
    assert len(set(places)) == len(places) == images
    assert places == sorted(places)
    assert all(0 <= row < sizes[shard] for shard, row in places)
    # One shard more at most than the largest ones would take.
    most = sorted(sizes, reverse=True)
    fewest = next(n for n in range(1, len(sizes) + 1) if sum(most[:n]) >= images)
    assert len(rows) <= fewest + 1
