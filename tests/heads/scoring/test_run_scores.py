"""Tables of scores of a run on a dataset version, by hand and against naive counts."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.heads import (
    CPU,
    VOID,
    always_says,
    cell_heads,
    make_dataset,
    make_record,
    random_records,
    run_for,
)
from numpy.typing import NDArray

from vocprep.errors import RunError, UsageError
from vocprep.geometry import Geometry
from vocprep.heads.model.losses import compute_losses
from vocprep.heads.model.tfdet import HeadsConfig, TFDetHeads
from vocprep.heads.predict_image import predict_label_map
from vocprep.heads.runs.options import EvaluateOptions
from vocprep.heads.runs.run import Run
from vocprep.heads.scoring.measures.borders import border_bands
from vocprep.heads.scoring.measures.oracles import RowKind
from vocprep.heads.scoring.run_scores import RECALL_NOTE, WHOLE_NOTE, score_run
from vocprep.heads.scoring.split_pass import score_split
from vocprep.labels.label_space import load_label_space
from vocprep.options import LoaderOptions
from vocprep.recipe import LabelSpaceId
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import Record

pytestmark = pytest.mark.slow


def record(image_id: str, label_map: NDArray[np.int64], split: str = "val") -> Record:
    patches = label_map.size // 1024
    embeddings = np.zeros((patches, 256), dtype=np.float16)
    return make_record(image_id, split, label_map.astype(np.uint16), embeddings)


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
    scores = score_run(run_for(by_hand, always_says(1)), by_hand, "val", CPU)
    assert [row.kind for row in scores.rows] == list(RowKind)
    rows = 32 + 30  # of 32 pixels each that are not void
    assert scores.pixels == rows * 32
    model = scores.row(RowKind.MODEL)
    assert model.pixel_accuracy == pytest.approx(42 / rows)
    assert model.miou_present == pytest.approx(42 / rows / 5)
    assert model.miou_all == pytest.approx(42 / rows / 21)
    assert model.miou_frequent == pytest.approx(42 / rows / 5)
    assert model.frequency_weighted_iou == pytest.approx((42 / rows) ** 2)
    assert model.patch_top1 == 1
    oracle = scores.row(RowKind.GT_TOP_4)
    assert oracle.pixel_accuracy == pytest.approx(60 / rows)
    assert oracle.miou_present == pytest.approx(4 / 5)
    assert oracle.miou_all == pytest.approx(4 / 21)
    assert (oracle.patch_top1, oracle.recall_at_4) == (1, 1)
    # All masks are alike but for channel 0, which is strongest everywhere: slot 0 takes the patch.
    masks = scores.row(RowKind.GT_CLASSES)
    assert masks.pixel_accuracy == pytest.approx(42 / rows)
    assert (masks.patch_top1, masks.recall_at_4) == (1, 1)
    # cat says 1, then 0, 2 and 3 by their place: label 4 is drawn in the mask of label 0.
    labels = scores.row(RowKind.GT_MASKS)
    assert labels.pixel_accuracy == pytest.approx((42 + 8 + 6) / rows)
    assert labels.miou_present == pytest.approx(3 / 5)
    patch = scores.row(RowKind.PATCH_MAJORITY)
    assert patch.pixel_accuracy == pytest.approx(42 / rows)
    assert patch.recall_at_4 == pytest.approx((1 / 4 + 1) / 2)
    majority = scores.row(RowKind.MAJORITY)
    assert majority.pixel_accuracy == pytest.approx(8 / rows)
    assert majority.miou_present == pytest.approx(8 / rows / 5)
    assert majority.recall_at_4 == pytest.approx((1 / 4 + 0) / 2)
    assert majority.patch_top1 == 0
    assert scores.masks.slots == 4
    assert scores.masks.iou == scores.masks.iou_of_largest == pytest.approx(10 / 30 / 4)
    assert (scores.majority_class.name, scores.majority_split) == ("bicycle", "train")
    assert (scores.classes_present, scores.classes_all) == (5, 21)
    assert (scores.run, scores.epoch, scores.images) == ("mine", 7, 1)


def test_class_table_by_hand(by_hand: ShardDataset):
    scores = score_run(run_for(by_hand, always_says(1)), by_hand, "val", CPU)
    table = {score.id: score for score in scores.classes}
    assert [score.id for score in scores.classes] == [1, 2, 3, 4, 5]
    assert table[1].name == "aeroplane"
    assert table[1].pixels == 42 * 32
    assert table[1].iou == pytest.approx(42 / 62)
    assert table[1].oracle_iou == table[1].accuracy == 1
    assert table[5].accuracy == table[5].iou == table[5].oracle_iou == 0


def test_model_recall_counts_the_top_4_of_cat(by_hand: ShardDataset):
    model = always_says(1)
    with torch.no_grad():
        model.cat.bias[torch.tensor([3, 4, 9])] = torch.tensor([4.0, 4.5, 4.25])
    scores = score_run(run_for(by_hand, model), by_hand, "val", CPU)
    assert scores.rows[0].recall_at_4 == pytest.approx((3 / 4 + 1) / 2)


def test_without_the_train_split_the_majority_is_the_splits_own(
    by_hand: ShardDataset, tmp_path: Path
):
    val = [record("v", np.full((32, 32), 6)), record("w", np.full((32, 64), 4))]
    dataset = make_dataset(tmp_path / "shards", {"val": val})
    scores = score_run(run_for(dataset), dataset, "val", CPU)
    assert (scores.majority_class.name, scores.majority_split) == ("boat", "val")
    assert scores.row(RowKind.MAJORITY).pixel_accuracy == pytest.approx(2 / 3)


def test_json_is_plain(by_hand: ShardDataset):
    scores = score_run(run_for(by_hand), by_hand, "val", CPU)
    value = json.loads(json.dumps(scores.to_json(), allow_nan=False))
    assert [row["name"] for row in value["rows"]][:2] == ["model", "GT top-4"]
    assert [row["kind"] for row in value["rows"]] == [str(kind) for kind in RowKind]
    assert value["majority_class"] == {"id": 2, "name": "bicycle"}
    assert value["masks"]["slots"] == 4
    assert value["worst_images"][0]["image_id"] == "v"
    assert not {"confusion", "confusions"} & set(value)
    assert sum(part["slots"] for part in value["masks_by_slots"].values()) == 4
    accuracy = value["rows"][0]["pixel_accuracy"]
    assert value["calibration"]["accuracy"] == pytest.approx(accuracy)
    assert sum(item["pixels"] for item in value["calibration"]["bins"]) == value["pixels"]
    assert value["worst_images"][0]["loss"] == pytest.approx(value["loss"])
    assert value["classes"][0]["name"] == "aeroplane"
    assert value["loss"] > 0


def test_scores_do_not_depend_on_the_batch(tmp_path: Path):
    records = random_records("val", [(1, 2), (2, 2), (1, 1), (3, 1)])
    dataset = make_dataset(tmp_path / "shards", {"val": records})
    run = run_for(dataset)
    one = score_run(run, dataset, "val", EvaluateOptions(device="cpu", batch_size=1))
    four = score_run(run, dataset, "val", EvaluateOptions(device="cpu", mode="resident"))
    for name in (RowKind.GT_TOP_4, RowKind.PATCH_MAJORITY, RowKind.MAJORITY):
        assert one.row(name) == four.row(name)
    for name in (RowKind.MODEL, RowKind.GT_CLASSES, RowKind.GT_MASKS):
        found, expected = one.row(name).pixel_accuracy, four.row(name).pixel_accuracy
        assert found == pytest.approx(expected, abs=1e-3)
    assert one.masks.iou == pytest.approx(four.masks.iou, abs=1e-3)
    assert one.mean_average_precision == pytest.approx(four.mean_average_precision, abs=1e-3)
    assert one.images == four.images == 4


def test_flipped_views_are_not_scored(tmp_path: Path):
    train = random_records("train", [(1, 2)])
    val = [record("v", np.full((32, 32), 6)), record("v#flip", np.full((32, 32), 4))]
    dataset = make_dataset(
        tmp_path / "shards", {"train": train, "val": val}, views=("identity", "flip")
    )
    scores = score_run(run_for(dataset), dataset, "val", CPU)
    assert scores.images == 1
    assert [score.id for score in scores.classes] == [6]


class Naive:
    """Each row's pixels and masks of some images, patch by patch and pixel by pixel."""

    def __init__(self) -> None:
        self.pairs: dict[RowKind, list[tuple[int, int, int]]] = {}
        """Truth, prediction and band of borders."""
        self.own_ious: list[float] = []
        """IoU of each slot of patches of several, drawn by the mask of its own class."""

    def add(self, run: Run, made: Record) -> None:
        tokens = torch.from_numpy(made.embeddings.astype(np.float32))[None]
        with torch.inference_mode():
            y, z = run.model.probabilities(tokens, None, torch.tensor([made.grid]))
        bands = border_bands(made.label_map, VOID)
        for patch in range(len(made.embeddings)):
            top, left = patch // made.grid[1] * 32, patch % made.grid[1] * 32
            truth, near = (
                values[top : top + 32, left : left + 32].ravel().tolist()
                for values in (made.label_map, bands)
            )
            slots = [int(label) for label in made.slot_labels[patch] if label >= 0]
            said = y[0, patch].argsort(descending=True)[:4].tolist()
            masks = z[0, patch].double().numpy()
            self._add_patch(list(zip(truth, near, strict=True)), slots, said, masks)

    def _add_patch(
        self,
        pixels: list[tuple[int, int]],
        slots: list[int],
        said: list[int],
        masks: NDArray[np.float64],
    ) -> None:
        own = [[i for i, (label, _) in enumerate(pixels) if label == slot] for slot in slots]
        order = max(
            permutations(range(4)),
            key=lambda o: sum(float(masks[own[s], o[s]].sum()) for s in range(len(slots))),
        )
        spare = [label for label in said if label not in slots]
        names = {slot: slot if slot in said else spare.pop(0) for slot in slots}
        drawn_as: dict[int, set[int]] = {}
        for i, (label, band) in enumerate(pixels):
            if label == VOID:
                continue
            drawn = max(range(len(slots)), key=lambda s: masks[i, order[s]])
            rows = {
                RowKind.MODEL: said[int(masks[i].argmax())],
                RowKind.GT_TOP_4: label if label in slots else -1,
                RowKind.GT_CLASSES: slots[drawn],
                RowKind.GT_MASKS: names.get(label, -1),
                RowKind.PATCH_MAJORITY: slots[0],
            }
            for name, predicted in rows.items():
                self.pairs.setdefault(name, []).append((label, predicted, band))
            named = [slot for slot in slots if slot in said]
            if named:
                best = max(named, key=lambda slot: masks[i, said.index(slot)])
                drawn_as.setdefault(best, set()).add(i)
        if len(slots) > 1:
            for slot, true in zip(slots, map(set, own), strict=True):
                found = drawn_as.get(slot, set())
                self.own_ious.append(len(true & found) / len(true | found))


def mean_iou(pairs: list[tuple[int, int, int]], classes: set[int]) -> float:
    ious = []
    for label in classes & {truth for truth, *_ in pairs}:
        hits = sum(label == t == p for t, p, _ in pairs)
        ious.append(hits / sum(label in (t, p) for t, p, _ in pairs))
    return sum(ious) / len(ious)


@pytest.mark.parametrize("encoder", ["transformer", "none"])
def test_the_rows_of_cells_are_counted_from_what_is_predicted(tmp_path: Path, encoder: str):
    records = random_records("val", [(1, 2), (2, 2), (1, 1)])
    dataset = make_dataset(tmp_path / "shards", {"val": records})
    heads = cell_heads(encoder=encoder)
    torch.manual_seed(2)
    run = run_for(dataset, TFDetHeads.from_config(heads))
    run = replace(run, config=replace(run.config, heads=heads))
    scores = score_run(run, dataset, "val", CPU)
    pairs: list[tuple[int, int, float]] = []
    top: list[float] = []
    for made in records:
        found = predict_label_map(run, made.embeddings, made.grid)
        parts = (made.label_map, found.label_map, found.confidence)
        pairs += zip(*(part.ravel().tolist() for part in parts), strict=True)
        largest = made.slot_labels[:, 0]
        top += (found.patch_labels[:, 0] == largest)[largest >= 0].tolist()
    pairs = [pair for pair in pairs if pair[0] != VOID]
    assert scores.pixels == len(pairs)
    accuracy = sum(truth == said for truth, said, _ in pairs) / len(pairs)
    assert scores.model.pixel_accuracy == pytest.approx(accuracy, abs=2e-3)
    assert scores.model.patch_top1 == pytest.approx(sum(top) / len(top))
    confidence = sum(sure for *_, sure in pairs) / len(pairs)
    assert scores.calibration.confidence == pytest.approx(confidence, abs=1e-3)
    losses = scores.confusions.losses
    assert np.isfinite(losses).all()
    assert scores.row(RowKind.GT_TOP_4).pixel_accuracy > scores.model.pixel_accuracy
    assert 0 < scores.masks.iou < 1


def test_every_row_equals_a_naive_count(tmp_path: Path):
    """Blocks of six labels: patches with more than four, with void, and images of two sizes."""
    records = random_records("val", [(1, 2), (2, 2), (1, 1)])
    dataset = make_dataset(tmp_path / "shards", {"val": records})
    run = run_for(dataset)
    with torch.no_grad():  # labels of the pictures come first, so that some are right
        run.model.cat.bias[:6] += 2
    scores = score_run(run, dataset, "val", CPU)
    naive, accuracies = Naive(), {}
    for made in records:
        before = len(naive.pairs.get(RowKind.MODEL, []))
        naive.add(run, made)
        own = naive.pairs[RowKind.MODEL][before:]
        accuracies[made.image_id] = sum(t == p for t, p, _ in own) / len(own)
    for name, own in naive.pairs.items():
        row = scores.row(name)
        truth = Counter(t for t, *_ in own)
        hits = Counter(t for t, p, _ in own if t == p)
        union = truth + Counter(p for _, p, _ in own) - hits
        ious = {label: hits[label] / union[label] for label in truth}
        assert row.pixel_accuracy == pytest.approx(hits.total() / len(own)), name
        assert row.miou_present == pytest.approx(sum(ious.values()) / len(ious)), name
        weighted = sum(truth[label] / len(own) * ious[label] for label in truth)
        assert row.frequency_weighted_iou == pytest.approx(weighted), name
        frequent = {label for label in truth if 100 * truth[label] >= len(own)}
        near = [mean_iou([each for each in own if each[2] <= n], frequent) for n in (0, 1)]
        assert [row.boundary_iou_3, row.boundary_iou_8] == pytest.approx(near), name
    assert scores.masks.own_iou == pytest.approx(np.mean(naive.own_ious))
    assert scores.model.mask_iou == scores.masks.own_iou < scores.masks.iou
    assert scores.row(RowKind.GT_CLASSES).mask_iou == scores.masks.iou
    assert len(naive.own_ious) == scores.masks.slots
    errors = scores.errors
    assert errors.pure.wrong + errors.mixed.wrong == pytest.approx(1 - scores.model.pixel_accuracy)
    assert errors.pure.pixels + errors.mixed.pixels == pytest.approx(1)
    accuracy = {row.kind: row.pixel_accuracy for row in scores.rows}
    assert 0 < accuracy[RowKind.MODEL] < accuracy[RowKind.GT_MASKS] < accuracy[RowKind.GT_TOP_4] < 1
    assert accuracy[RowKind.MODEL] < accuracy[RowKind.GT_CLASSES] < accuracy[RowKind.GT_TOP_4]
    worst = [(image.image_id, image.pixel_accuracy) for image in scores.worst_images]
    assert [name for name, _ in worst] == sorted(accuracies, key=accuracies.__getitem__)
    assert dict(worst) == pytest.approx(accuracies)


def test_validation_counts_what_scores_shows(tmp_path: Path):
    dataset = make_dataset(
        tmp_path / "shards", {"val": random_records("val", [(1, 2), (2, 2), (1, 1)])}
    )
    run = run_for(dataset)
    loader = dataset.loader("val", LoaderOptions(batch_size=2, label_maps=True))
    counts = score_split(run.model, loader, run.config.labels)
    scores = score_run(run, dataset, "val", CPU)
    assert np.array_equal(counts.model.counts, scores.confusion.counts)
    assert counts.class_loss + counts.mask_loss == pytest.approx(scores.loss)
    assert counts.images == scores.images
    with torch.inference_mode():
        found = [
            compute_losses(*run.model(b.embeddings, b.padding, b.grids), b, run.model.config)
            for b in loader
        ]
    expected = sum(float(losses.class_sum) for losses in found)
    assert counts.class_loss == pytest.approx(expected / sum(int(f.patches) for f in found))
    expected = sum(float(losses.mask_sum) for losses in found)
    assert counts.mask_loss == pytest.approx(expected / sum(int(f.entries) for f in found))


def test_so_many_of_the_worst_images_by_pixel_accuracy_as_asked(tmp_path: Path):
    rows = {
        "right_often_in_one_class": [1] * 28 + [2, 3, 4, 5],
        "half_right_in_two": [1] * 16 + [2] * 16,
        "right": [1] * 32,
        "void": [VOID] * 32,
    }
    images = [
        record(name, np.array(labels)[:, None].repeat(32, axis=1)) for name, labels in rows.items()
    ]
    dataset = make_dataset(tmp_path / "shards", {"val": images})
    options = replace(CPU, worst=2)
    one, two = score_run(run_for(dataset, always_says(1)), dataset, "val", options).worst_images
    assert (one.image_id, one.pixel_accuracy, one.miou) == ("half_right_in_two", 0.5, 0.25)
    assert two.image_id == "right_often_in_one_class"
    assert (two.pixel_accuracy, two.miou) == pytest.approx((28 / 32, 28 / 32 / 5))
    with pytest.raises(UsageError, match="worst -1: expected 0 or more"):
        EvaluateOptions(worst=-1)


def test_a_split_of_void_alone_is_refused(tmp_path: Path):
    dataset = make_dataset(tmp_path / "shards", {"val": [record("v", np.full((32, 32), VOID))]})
    with pytest.raises(UsageError, match="expected pixels to score, found none"):
        score_run(run_for(dataset), dataset, "val", CPU)


def test_a_missing_split_is_named(by_hand: ShardDataset):
    with pytest.raises(UsageError, match="split 'test': expected one of train, val"):
        score_run(run_for(by_hand), by_hand, "test", CPU)


def test_embeddings_of_another_size_are_refused(tmp_path: Path, by_hand: ShardDataset):
    small = make_record(
        "v", "val", np.zeros((32, 32), dtype=np.uint16), np.zeros((1, 8), dtype=np.float16)
    )
    dataset = make_dataset(tmp_path / "shards", {"val": [small]})
    with pytest.raises(RunError, match="expected embeddings of 256 numbers, found 8"):
        score_run(run_for(by_hand), dataset, "val", CPU)


def context_run(dataset: ShardDataset) -> Run:
    run = run_for(dataset)
    labels = load_label_space("context460")
    heads = HeadsConfig(outputs=460)
    torch.manual_seed(1)
    model = TFDetHeads.from_config(heads).eval()
    return replace(run, model=model, config=replace(run.config, labels=labels, heads=heads))


def test_context460_has_a_table_of_59_classes(tmp_path: Path):
    schema = load_label_space("context460")
    identity = LabelSpaceId(name="context460", sha256=schema.sha256)
    # Of these four, unknown alone is not among the 59.
    image = np.repeat([2, 360, 431, 440], 8)[:, None].repeat(32, axis=1)
    assert [schema.names[k] for k in (2, 360, 431)] == ["aeroplane", "sky", "unknown"]
    padded = Geometry(geometry="native", edge="pad")
    dataset = make_dataset(
        tmp_path / "shards", {"val": [record("v", image)]}, schema=identity, geometry=padded
    )
    run = context_run(dataset)
    with torch.no_grad():
        run.model.cat.bias[2] = 30.0
        run.model.cat.bias[431] = 40.0
    scores = score_run(run, dataset, "val", CPU)
    tables = {(table.schema, table.area): table for table in scores.tables}
    assert set(tables) == {
        ("context460", "whole image"),
        ("context59", "covered area"),
        ("context59", "whole image"),
    }
    published = tables["context59", "covered area"]
    assert (published.classes_present, published.classes_all) == (3, 59)
    assert published.pixels == 24 * 32
    ladder = {row.kind: row for row in published.rows}
    assert ladder[RowKind.GT_TOP_4].miou_present == 1
    assert ladder[RowKind.GT_TOP_4].miou_all == pytest.approx(3 / 59)
    # The majority label of the split is the smallest of four that tie: aeroplane.
    assert ladder[RowKind.MAJORITY].pixel_accuracy == pytest.approx(1 / 3)
    # Without anything left out, whole images are the covered area.
    assert tables["context59", "whole image"].rows == published.rows
    assert WHOLE_NOTE not in scores.notes
    assert scores.notes == (RECALL_NOTE,)


def test_voc_has_no_table_of_59_classes_and_says_what_it_lacks(by_hand: ShardDataset):
    scores = score_run(run_for(by_hand), by_hand, "val", CPU)
    assert scores.tables == ()
    assert scores.notes == (WHOLE_NOTE, RECALL_NOTE)


def test_scores_of_an_unfinished_run_say_so(by_hand: ShardDataset):
    scores = score_run(replace(run_for(by_hand), epoch=4), by_hand, "val", CPU)
    assert scores.notes[0] == "epoch 4 of 7: the training has not ended"
