"""Class shares of runs: what is kept, what is counted, and what is refused where there are none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders.heads import make_dataset, random_records, run_for

from vocprep.errors import UsageError
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.runs.class_shares import class_weights, decoding_for, decoding_of
from vocprep.heads.runs.config import RunConfig
from vocprep.heads.runs.run import Run
from vocprep.shards.reader import ShardDataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    splits = {"train": random_records("train", [(1, 2), (1, 1)])}
    return make_dataset(tmp_path_factory.mktemp("data") / "shards", splits)


def keeping(run: Run, pixels: dict[int, int] | None) -> Run:
    return replace(run, config=replace(run.config, class_pixels=pixels))


def test_the_rarer_the_heavier_and_a_class_never_seen_is_not_raised():
    weights = class_weights({1: 60, 2: 30, 4: 10}, 5, 0.5)
    assert weights is not None
    expected = [1, (100 / 60) ** 0.5, (100 / 30) ** 0.5, 1, 10**0.5]
    torch.testing.assert_close(weights, torch.tensor(expected))
    none = class_weights({}, 3, 1.0)
    assert none is not None
    assert none.tolist() == [1, 1, 1]
    assert class_weights({1: 60}, 5, 0) is None


def test_shares_are_kept_in_the_run(dataset: ShardDataset):
    config = keeping(run_for(dataset), {0: 7, 12: 1 << 40}).config
    assert RunConfig.from_json(config.to_json()).class_pixels == {0: 7, 12: 1 << 40}


def test_those_of_older_runs_are_counted_in_the_shards(dataset: ShardDataset):
    run = keeping(run_for(dataset), None)
    decoding = decoding_for(run, dataset, 0.5, "none")
    pixels: dict[int, int] = {}
    for record in random_records("train", [(1, 2), (1, 1)]):
        for label in range(21):
            found = int(record.slot_pixels[record.slot_labels == label].sum())
            if found:
                pixels[label] = pixels.get(label, 0) + found
    expected = class_weights(pixels, 21, 0.5)
    assert decoding.class_weights is not None
    torch.testing.assert_close(decoding.class_weights, expected)
    assert any("counted in split 'train'" in note for note in decoding.notes)
    kept = decoding_for(keeping(run, pixels), dataset, 0.5, "none")
    assert kept.notes == decoding.notes[:1]


def test_what_is_missing_is_said(dataset: ShardDataset, tmp_path: Path):
    run = keeping(run_for(dataset), None)
    assert decoding_of(run, 0, "flip").class_weights is None
    with pytest.raises(UsageError, match=r"prior_power 0\.5: .*keeps no class shares, .*train a"):
        decoding_of(run, 0.5, "none")
    other = make_dataset(tmp_path / "val", {"val": random_records("val", [(1, 1)])})
    with pytest.raises(UsageError, match="no split 'train' to count them in; give the shards"):
        decoding_for(run, other, 0.5, "none")
    with pytest.raises(UsageError, match="no mirrored views; build the shards with --views flip"):
        decoding_for(run, dataset, 0, "flip")
    heads = HeadsConfig(outputs=21, class_loss="multi_hot")
    many = keeping(replace(run, config=replace(run.config, heads=heads)), {0: 1})
    with pytest.raises(UsageError, match="multi_hot, whose classes' probabilities do not add up"):
        decoding_of(many, 0.5, "none")
