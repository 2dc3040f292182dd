"""Pictures that are in a version more than once."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from builders.heads import make_dataset, random_records

from vocprep.analysis.duplicates import MOST_PAIRS, find_duplicates
from vocprep.options import Layout
from vocprep.shards.record import Record

GRID = (2, 3)


def distinct(split: str, count: int, seed: int = 0, grid: tuple[int, int] = GRID) -> list[Record]:
    """Random pictures whose files differ."""
    return [
        replace(record, image_sha256=hashlib.sha256(f"{split}{seed}{number}".encode()).hexdigest())
        for number, record in enumerate(random_records(split, [grid] * count, seed))
    ]


def noisy(record: Record, amount: float, image_id: str, split: str = "train") -> Record:
    """The same picture, photographed a little otherwise, under another id."""
    noise = np.random.default_rng(1).normal(scale=amount, size=record.embeddings.shape)
    embeddings = (record.embeddings + noise).astype(np.float16)
    digest = hashlib.sha256(image_id.encode()).hexdigest()
    return replace(
        record, embeddings=embeddings, image_sha256=digest, image_id=image_id, split=split
    )


def cosines(records: Sequence[Record], moments: Sequence[Record]) -> dict[tuple[str, str], float]:
    """All cosines, one after another, as the words of the module define them."""
    patches = np.vstack([record.embeddings for record in moments]).astype(np.float64)
    found = {}
    for one, other in combinations(records, 2):
        a, b = (
            (each.embeddings - patches.mean(axis=0)) / patches.std(axis=0) for each in (one, other)
        )
        found[one.image_id, other.image_id] = float(
            (a * b).sum() / np.sqrt((a * a).sum() * (b * b).sum())
        )
    return found


def test_pictures_that_are_there_twice_are_told_with_their_splits(tmp_path: Path) -> None:
    train, val = distinct("train", 6), distinct("val", 4, seed=1)
    val[0] = replace(train[2], image_id="val_00", split="val")
    same_labels = {
        name: getattr(train[3], name)
        for name in ("label_png", "slot_labels", "slot_pixels", "slot_planes", "label_count")
    }
    val[1] = replace(val[1], embeddings=train[3].embeddings, **same_labels)
    train[5] = replace(train[5], image_sha256=train[4].image_sha256)
    found = find_duplicates(make_dataset(tmp_path / "shards", {"train": train, "val": val}))
    told = [(each.ids, each.splits, each.same_file, each.same_labels) for each in found.same]
    assert told == [
        (("train_02", "val_00"), ("train", "val"), True, True),
        (("train_03", "val_01"), ("train", "val"), False, True),
        (("train_04", "train_05"), ("train", "train"), True, False),
    ]
    assert found.leaks == found.same[:2]
    assert not found.similar  # what is the same is not told twice
    assert not found.is_cut


def test_similar_pictures_are_those_of_the_largest_cosines(tmp_path: Path) -> None:
    train, val = distinct("train", 12), distinct("val", 8, seed=1)
    val[3] = noisy(train[1], 0.3, "val_03", "val")
    train[7] = noisy(train[2], 0.6, "train_07")
    dataset = make_dataset(tmp_path / "shards", {"train": train, "val": val})
    found = find_duplicates(dataset)
    expected = cosines([*train, *val], [*train, *val])
    assert [pair.ids for pair in found.similar] == [
        ("train_01", "val_03"),
        ("train_02", "train_07"),
    ]
    for pair in found.similar:
        assert pair.similarity == pytest.approx(expected[pair.ids], abs=1e-3)
    assert [pair.splits for pair in found.leaks] == [("train", "val")]
    assert max(value for ids, value in expected.items() if ids not in found.to_json()) > 0.8
    assert found.threshold == 0.6

    below = find_duplicates(dataset, threshold=0.1)
    expected_below = {ids for ids, value in expected.items() if value >= 0.1}
    told = {pair.ids for pair in below.similar}
    assert told <= expected_below
    assert {ids for ids, value in expected.items() if value >= 0.3} <= told


def test_how_shards_are_cut_changes_nothing(tmp_path: Path) -> None:
    train = distinct("train", 9)
    train[4] = noisy(train[3], 0.4, "train_04")
    found = [
        find_duplicates(make_dataset(tmp_path / f"{size}", {"train": train}, layout))
        for size in (2, 9)
        for layout in [Layout(samples_per_shard=size)]
    ]
    assert found[0] == found[1]
    assert [pair.ids for pair in found[0].similar] == [("train_03", "train_04")]


def test_a_mirrored_copy_is_found_through_the_mirrored_view(tmp_path: Path) -> None:
    plain = distinct("train", 6)
    mirrored = [
        replace(record, image_id=f"{record.image_id}#flip")
        for record in distinct("train", 6, seed=5)
    ]
    plain[4] = noisy(mirrored[1], 0.2, "train_04")  # and so the mirrored views of both:
    mirrored[4] = noisy(plain[1], 0.2, "train_04#flip")
    records = [each for pair in zip(plain, mirrored, strict=True) for each in pair]
    dataset = make_dataset(tmp_path / "shards", {"train": records}, views=("identity", "flip"))
    assert [pair.ids for pair in find_duplicates(dataset).similar] == [
        ("train_01", "train_04#flip")
    ]


def test_pictures_of_other_grids_are_not_compared(tmp_path: Path) -> None:
    train = [*distinct("train", 3), *distinct("train", 2, seed=1, grid=(3, 2))]
    train = [replace(record, image_id=f"train_{n}") for n, record in enumerate(train)]
    train[3] = replace(train[3], embeddings=noisy(train[0], 0.1, "other").embeddings)
    found = find_duplicates(make_dataset(tmp_path / "shards", {"train": train}))
    assert (found.same, found.similar) == ((), ())


def test_a_version_of_one_picture_has_no_duplicates(tmp_path: Path) -> None:
    found = find_duplicates(make_dataset(tmp_path / "shards", {"train": distinct("train", 1)}))
    assert (found.same, found.similar, found.is_cut) == ((), (), False)


def test_of_very_many_pairs_the_most_similar_are_kept(tmp_path: Path) -> None:
    first = distinct("train", 1)[0]
    train = [noisy(first, 0.01 * number, f"train_{number:02d}") for number in range(40)]
    found = find_duplicates(make_dataset(tmp_path / "shards", {"train": train}), threshold=0.0)
    assert len(found.similar) == MOST_PAIRS
    assert found.is_cut
    similarities = [pair.similarity for pair in found.similar]
    assert similarities == sorted(similarities, reverse=True)
