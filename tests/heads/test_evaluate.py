from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from heads_making import (
    VOID,
    make_batch,
    make_dataset,
    make_recipe,
    make_record,
    random_records,
)
from numpy.typing import NDArray

from vocprep.errors import RunError, UsageError
from vocprep.geometry import Geometry
from vocprep.heads.evaluate import check_fits, evaluate
from vocprep.heads.options import EvaluateOptions, TrainOptions
from vocprep.heads.run import LabelSpace, Run, RunConfig
from vocprep.heads.score import most_frequent_labels, oracle_label_map
from vocprep.heads.tfdet import HeadsConfig, TFDetHeads
from vocprep.labels.schema import load_schema
from vocprep.labels.targets import make_targets, targets_to_label_map
from vocprep.recipe import Normalisation, SchemaIdentity
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

CPU = EvaluateOptions(device="cpu", batch_size=2)


def run_for(dataset: ShardDataset, model: TFDetHeads | None = None) -> Run:
    labels = LabelSpace.of(load_schema("voc21"))
    heads = HeadsConfig(categories=labels.categories)
    config = RunConfig(
        heads=heads,
        options=TrainOptions(),
        labels=labels,
        recipe=dataset.index.recipe,
        content_id=dataset.index.content_id,
        source_id=dataset.index.source_id,
    )
    torch.manual_seed(0)
    model = model or TFDetHeads.from_config(heads)
    return Run(path=Path("runs/mine"), config=config, model=model.eval(), epoch=7)


def record(image_id: str, label_map: NDArray[np.int64], split: str = "val") -> Record:
    patches = label_map.size // 1024
    embeddings = np.zeros((patches, 256), dtype=np.float16)
    return make_record(image_id, split, label_map.astype(np.uint16), embeddings)


def always_says(label: int) -> TFDetHeads:
    """Heads that put one label on every pixel of every patch."""
    model = TFDetHeads(categories=21)
    with torch.no_grad():
        for parameter in (*model.cat.parameters(), *model.reg[4].parameters()):
            parameter.zero_()
        model.cat.bias[label] = 5.0
        model.reg[4].bias[::4] = 5.0
    return model


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """One validation image of two patches: bands of 1, 2, 3, 4, 5 and void; then only label 1."""
    heights = {1: 10, 2: 8, 3: 6, 4: 4, 5: 2, VOID: 2}
    bands = np.repeat(list(heights), list(heights.values()))[:, None].repeat(32, axis=1)
    image = np.concatenate([bands, np.full((32, 32), 1)], axis=1)
    splits = {
        "train": [record("t", np.full((32, 32), 2), "train")],
        "val": [record("v", image)],
    }
    return make_dataset(tmp_path_factory.mktemp("data") / "shards", splits)


def test_rows_by_hand(by_hand: ShardDataset):
    evaluation = evaluate(run_for(by_hand, always_says(1)), by_hand, "val", CPU)
    model, oracle, majority = evaluation.rows
    rows = 32 + 30  # of 32 pixels each that are not void
    assert evaluation.pixels == rows * 32
    assert [row.name for row in evaluation.rows] == ["model", "GT top-4", "majority label"]
    assert model.pixel_accuracy == pytest.approx(42 / rows)
    assert model.miou_present == pytest.approx(42 / rows / 5)
    assert model.miou_all == pytest.approx(42 / rows / 21)
    assert oracle.pixel_accuracy == pytest.approx(60 / rows)
    assert oracle.miou_present == pytest.approx(4 / 5)
    assert oracle.miou_all == pytest.approx(4 / 21)
    assert oracle.recall_at_4 == 1
    assert majority.pixel_accuracy == pytest.approx(8 / rows)
    assert majority.miou_present == pytest.approx(8 / rows / 5)
    assert majority.recall_at_4 == pytest.approx((1 / 4 + 0) / 2)
    assert (evaluation.majority_label, evaluation.majority_split) == ("bicycle", "train")
    assert (evaluation.classes_present, evaluation.classes_all) == (5, 21)
    assert (evaluation.run, evaluation.epoch, evaluation.images) == ("mine", 7, 1)


def test_class_table_by_hand(by_hand: ShardDataset):
    evaluation = evaluate(run_for(by_hand, always_says(1)), by_hand, "val", CPU)
    table = {score.label: score for score in evaluation.classes}
    assert [score.label for score in evaluation.classes] == [1, 2, 3, 4, 5]
    assert table[1].name == "aeroplane"
    assert table[1].pixels == 42 * 32
    assert table[1].iou == pytest.approx(42 / 62)
    assert table[1].oracle_iou == 1
    assert table[5].iou == table[5].oracle_iou == 0


def test_model_recall_counts_the_top_4_of_cat(by_hand: ShardDataset):
    model = always_says(1)
    with torch.no_grad():
        model.cat.bias[torch.tensor([3, 4, 9])] = torch.tensor([4.0, 3.0, 2.0])
    evaluation = evaluate(run_for(by_hand, model), by_hand, "val", CPU)
    assert evaluation.rows[0].recall_at_4 == pytest.approx((3 / 4 + 1) / 2)


def test_without_the_train_split_the_majority_is_the_splits_own(
    by_hand: ShardDataset, tmp_path: Path
):
    val = [record("v", np.full((32, 32), 6)), record("w", np.full((32, 64), 4))]
    dataset = make_dataset(tmp_path / "shards", {"val": val})
    evaluation = evaluate(run_for(dataset), dataset, "val", CPU)
    assert (evaluation.majority_label, evaluation.majority_split) == ("boat", "val")
    assert evaluation.rows[2].pixel_accuracy == pytest.approx(2 / 3)


def test_json_is_plain(by_hand: ShardDataset):
    evaluation = evaluate(run_for(by_hand), by_hand, "val", CPU)
    value = json.loads(json.dumps(evaluation.to_json(), allow_nan=False))
    assert [row["name"] for row in value["rows"]] == ["model", "GT top-4", "majority label"]
    assert value["classes"][0]["name"] == "aeroplane"
    assert value["loss"] > 0


def test_scores_do_not_depend_on_the_batch(tmp_path: Path):
    records = random_records("val", [(1, 2), (2, 2), (1, 1), (3, 1)])
    dataset = make_dataset(tmp_path / "shards", {"val": records})
    run = run_for(dataset)
    one = evaluate(run, dataset, "val", EvaluateOptions(device="cpu", batch_size=1))
    four = evaluate(run, dataset, "val", EvaluateOptions(device="cpu", mode="resident"))
    assert one.rows[1:] == four.rows[1:]
    assert one.rows[0].pixel_accuracy == pytest.approx(four.rows[0].pixel_accuracy, abs=1e-3)
    assert one.images == four.images == 4


def test_flipped_views_are_not_scored(tmp_path: Path):
    train = random_records("train", [(1, 2)])
    val = [record("v", np.full((32, 32), 6)), record("v#flip", np.full((32, 32), 4))]
    dataset = make_dataset(
        tmp_path / "shards", {"train": train, "val": val}, views=("identity", "flip")
    )
    evaluation = evaluate(run_for(dataset), dataset, "val", CPU)
    assert evaluation.images == 1
    assert [score.label for score in evaluation.classes] == [6]


def test_oracle_is_the_targets_way_back():
    records = random_records("val", [(1, 2), (1, 1)])
    labels = oracle_label_map(make_batch(records))
    for row, made in enumerate(records):
        targets = make_targets(made.label_map, VOID)
        expected = targets_to_label_map(targets, made.grid, void=65535, other=65535)
        patches = len(made.embeddings)
        tiles = labels[row, :patches].numpy().astype(np.uint16).reshape(*made.grid, 32, 32)
        assert np.array_equal(tiles.swapaxes(1, 2).reshape(expected.shape), expected)
    assert (labels[1, 1] == -1).all()


def test_most_frequent_labels_by_hand():
    image = np.array([3] * 20 + [1] * 6 + [7] * 4 + [VOID] * 2)[:, None].repeat(32, axis=1)
    batch = make_batch([record("a", image), record("b", np.full((32, 32), 7))])
    labels = LabelSpace.of(load_schema("voc21"))
    assert most_frequent_labels([batch], labels) == [7, 3, 1]
    void = make_batch([record("c", np.full((32, 32), VOID))])
    assert most_frequent_labels([void], labels) == [0]


def test_a_split_of_void_alone_is_refused(tmp_path: Path):
    dataset = make_dataset(tmp_path / "shards", {"val": [record("v", np.full((32, 32), VOID))]})
    with pytest.raises(UsageError, match="expected pixels to score, found none"):
        evaluate(run_for(dataset), dataset, "val", CPU)


def test_a_missing_split_is_named(by_hand: ShardDataset):
    with pytest.raises(UsageError, match="split 'test': expected one of train, val"):
        evaluate(run_for(by_hand), by_hand, "test", CPU)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"weights_sha256": "00" * 32}, "weights_sha256"),
        ({"backbone": "resnet18-imagenet"}, "backbone"),
        ({"normalisation": Normalisation(mean=(0.5, 0.5, 0.5))}, r"normalisation\.mean"),
        ({"schema": SchemaIdentity(name="voc21", sha256="00" * 32)}, r"schema\.sha256"),
    ],
)
def test_another_recipe_is_refused_with_the_field(
    by_hand: ShardDataset, changes: dict[str, object], named: str
):
    recipe = replace(by_hand.index.recipe, **changes)
    with pytest.raises(RunError, match=f"expected and found {named}: "):
        check_fits(run_for(by_hand), recipe)


def test_another_geometry_is_noted(by_hand: ShardDataset):
    run = run_for(by_hand)
    assert check_fits(run, by_hand.index.recipe) == ()
    other = make_recipe({}, geometry=Geometry(geometry="squash"), dataset="made-too")
    assert check_fits(run, other) == (
        "trained and evaluated with different dataset: 'made' and 'made-too'",
        "trained and evaluated with different geometry.geometry: 'native' and 'squash'",
    )


def test_embeddings_of_another_size_are_refused(tmp_path: Path, by_hand: ShardDataset):
    small = make_record(
        "v", "val", np.zeros((32, 32), dtype=np.uint16), np.zeros((1, 8), dtype=np.float16)
    )
    dataset = make_dataset(tmp_path / "shards", {"val": [small]})
    with pytest.raises(RunError, match="expected embeddings of 256 numbers, found 8"):
        evaluate(run_for(by_hand), dataset, "val", CPU)
