"""``evaluate`` as a library call: paths or open runs and dataset versions in, scores out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.heads import (
    CPU,
    always_says,
    make_dataset,
    make_record,
    random_records,
    run_for,
)
from builders.progress import RecordedProgress
from builders.versions import JPEGS, Built
from numpy.typing import NDArray
from PIL import Image

import vocprep
from vocprep.errors import DataError, UsageError
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.predict_image import predict_label_map
from vocprep.heads.runs.class_shares import decoding_for
from vocprep.heads.runs.run import CONFIG_FILE, Run
from vocprep.heads.scoring.evaluate import evaluate, runs_and_shards
from vocprep.heads.scoring.run_scores import score_run
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    splits = {name: random_records(name, [(1, 2), (1, 1)]) for name in ("train", "val")}
    return make_dataset(tmp_path_factory.mktemp("data") / "shards", splits)


def test_one_run_on_one_dataset_version(dataset: ShardDataset) -> None:
    run = run_for(dataset)
    expected = score_run(run, dataset, "val", CPU)
    for shards in (dataset, dataset.path, str(dataset.path), [dataset], [dataset.path] * 2):
        result = evaluate(run, shards, options=CPU)
        assert result.to_json() == expected.to_json()
        assert result.notes == ()


def test_several_runs_are_a_list_and_told_apart(dataset: ShardDataset) -> None:
    one, two = run_for(dataset), replace(run_for(dataset), path=Path("elsewhere/mine"))
    progress = RecordedProgress()
    result = evaluate([one, two], dataset, options=CPU, progress=progress)
    assert [scores.run for scores in result.runs] == ["runs/mine", "elsewhere/mine"]
    assert [value["rows"] for value in result.to_json()] == [
        scores.to_json()["rows"] for scores in result.runs
    ]
    names, totals, _ = zip(*progress.begun, strict=True)
    assert names == ("classes of train", "images") * 2
    assert progress.shown == sum(totals)
    json.dumps(result.to_json(), allow_nan=False)


def test_each_further_run_is_compared_with_the_first(dataset: ShardDataset) -> None:
    runs = [
        replace(run_for(dataset, always_says(label)), path=Path(name))
        for label, name in ((1, "one"), (2, "two"), (1, "three"))
    ]
    result = evaluate(runs, dataset, options=CPU)
    assert [(each.first, each.second) for each in result.differences] == [
        *(("one", "two"), ("one", "three"))
    ]
    first, second, third = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert "difference" not in first
    (accuracy,) = (
        each for each in second["difference"]["scores"] if each["score"] == "pixel_accuracy"
    )
    expected = second["rows"][0]["pixel_accuracy"] - first["rows"][0]["pixel_accuracy"]
    assert accuracy["difference"] == pytest.approx(expected)
    assert accuracy["low"] <= accuracy["difference"] <= accuracy["high"]
    assert [item["difference"] for item in third["difference"]["scores"]] == [0] * 5


def test_shards_that_no_run_is_scored_on_are_noted(dataset: ShardDataset, tmp_path: Path) -> None:
    other = make_dataset(tmp_path / "other", {"val": random_records("val", [(1, 1)])})
    result = evaluate(run_for(dataset), [other, dataset], options=CPU)
    assert result.notes == (f"no run is scored on {other.path}",)


def test_confusion_matrices_are_written(dataset: ShardDataset, tmp_path: Path) -> None:
    run, out = run_for(dataset), tmp_path / "out"
    (scores,) = evaluate(run, dataset, options=CPU, out=str(out)).runs
    assert repr(scores).startswith("RunScores('mine', epoch ")
    assert {path.name for path in out.iterdir()} == {"mine.confusion.png", "mine.confusion.csv"}
    assert (out / "mine.confusion.csv").read_text() == scores.confusion.to_csv()
    with pytest.raises(UsageError, match="expected different names"):
        evaluate([run, replace(run, path=Path("b/mine"))], dataset, out=tmp_path / "both")
    assert not (tmp_path / "both").exists()


def test_runs_and_shards_are_separated_by_their_files(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / CONFIG_FILE).write_text("{}")
    assert runs_and_shards([dataset.path, run]) == ([run], [dataset.path])
    with pytest.raises(DataError, match="expected a run or a dataset version"):
        runs_and_shards([run, dataset.path, tmp_path])
    with pytest.raises(UsageError, match="at least one run and the shards"):
        runs_and_shards([run])
    with pytest.raises(UsageError, match="at least one run and the shards"):
        evaluate([], dataset)


def test_it_is_public() -> None:
    assert vocprep.evaluate is evaluate


def run_of_shards(built: Built) -> Run:
    heads = TFDetHeads(outputs=built.dataset.label_space.outputs)
    return replace(run_for(built.dataset, heads), path=Path("runs/mine"))


def sheet_of(path: str) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_pictures_are_drawn_of_the_worst_the_middle_and_the_best(tmp_path: Path) -> None:
    splits = {
        "val": random_records("val", [(1, 1)] * 9),
        "train": random_records("train", [(1, 1)]),
    }
    dataset = make_dataset(tmp_path / "shards", splits)
    run = replace(run_for(dataset), path=Path("runs/mine"))
    asked = replace(CPU, pictures=2)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.best-7.png").touch()  # an earlier evaluation's
    (scores,) = evaluate(run, dataset, options=asked, out=tmp_path / "out").runs
    ranked = sorted(scores.confusions.scores, key=lambda each: (each.pixel_accuracy, each.image_id))
    at = {"worst": (0, 1), "median": (3, 4), "best": (8, 7)}
    assert [(each.group, each.rank, each.image_id) for each in scores.pictures] == [
        (group, rank, ranked[index].image_id)
        for group, indices in at.items()
        for rank, index in enumerate(indices, start=1)
    ]
    assert [each.pixel_accuracy for each in scores.pictures[:2]] == [
        each.pixel_accuracy for each in ranked[:2]
    ]
    names = {"mine.confusion.csv", "mine.confusion.png"}
    names |= {f"mine.{group}-{rank}.png" for group in at for rank in (1, 2)}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    # Without photographs: truth, prediction, error and confidence of 32 pixels, 11 times enlarged.
    sheet = sheet_of(scores.pictures[0].file)
    assert (sheet != 255).any(axis=-1).sum() > 4 * 352**2
    assert scores.to_json()["pictures"][0]["file"] == scores.pictures[0].file


@pytest.mark.slow
def test_pictures_of_a_split_of_one_image_are_one(tmp_path: Path) -> None:
    splits = {name: random_records(name, [(1, 1)]) for name in ("train", "val")}
    dataset = make_dataset(tmp_path / "shards", splits)
    asked = replace(CPU, pictures=3)
    (scores,) = evaluate(run_for(dataset), dataset, options=asked, out=tmp_path / "out").runs
    assert [(each.group, each.rank) for each in scores.pictures] == [("worst", 1)]


@pytest.mark.slow
def test_pictures_lie_over_the_photographs_of_the_data_dir(
    crop_hdf5: Built, sample_tree: Path, tmp_path: Path
) -> None:
    run = run_of_shards(crop_hdf5)
    asked = replace(CPU, pictures=1, data_dir=sample_tree)
    over = evaluate(run, crop_hdf5.path, options=asked, out=tmp_path / "over")
    assert over.notes == ()
    plain = evaluate(run, crop_hdf5.path, options=replace(CPU, pictures=1), out=tmp_path / "plain")
    (note,) = plain.notes
    assert note.startswith("pictures are drawn without photographs")
    for one, other in zip(over.runs[0].pictures, plain.runs[0].pictures, strict=True):
        assert one.image_id == other.image_id
        assert sheet_of(one.file).size > sheet_of(other.file).size


@pytest.mark.slow
def test_photographs_that_are_gone_or_changed_are_noted(
    crop_hdf5: Built, tree: Path, tmp_path: Path
) -> None:
    run = run_of_shards(crop_hdf5)
    asked = replace(CPU, pictures=1, data_dir=tree)
    (scores,) = evaluate(run, crop_hdf5.path, options=asked, out=tmp_path / "out").runs
    worst = scores.pictures[0].image_id
    path = tree / JPEGS / f"{worst}.jpg"
    path.write_bytes(path.read_bytes() + b" ")
    (note,) = evaluate(run, crop_hdf5.path, options=asked, out=tmp_path / "out").notes
    assert note.startswith(f"{worst} is drawn without its photograph: {path}: expected the image")
    shutil.rmtree(tree / JPEGS)
    (note,) = evaluate(run, crop_hdf5.path, options=asked, out=tmp_path / "out").notes
    assert note.startswith(f"pictures are drawn without photographs: {tree / JPEGS}: expected the")


def test_pictures_need_a_folder(dataset: ShardDataset) -> None:
    with pytest.raises(UsageError, match=r"pictures: expected a folder .*give --out"):
        evaluate(run_for(dataset), dataset, options=replace(CPU, pictures=1))


@pytest.fixture(scope="module")
def mirrored(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """A version with mirrored views, whose embeddings are others than those of the plain ones."""
    splits = {}
    for name in ("train", "val"):
        plain = random_records(name, [(2, 2), (1, 3), (1, 1)])
        flips = random_records(name, [(2, 2), (1, 3), (1, 1)], seed=1)
        splits[name] = [
            record
            for one, other in zip(plain, flips, strict=True)
            for record in (
                one,
                make_record(
                    f"{one.image_id}#flip", name, one.label_map[:, ::-1].copy(), other.embeddings
                ),
            )
        ]
    folder = tmp_path_factory.mktemp("data") / "shards"
    return make_dataset(folder, splits, views=("identity", "flip"))


def test_both_views_with_class_weights_are_what_predicting_gives(
    mirrored: ShardDataset, tmp_path: Path
) -> None:
    run = run_for(mirrored)
    options = replace(CPU, tta="flip", prior_power=0.5, pictures=1)
    scores = evaluate(run, mirrored, options=options, out=tmp_path / "out").runs[0]
    weights = decoding_for(run, mirrored, 0.5, "flip").class_weights
    right = pixels = 0
    for record_id in ("val_00", "val_01", "val_02"):
        plain, other = mirrored.record(record_id), mirrored.record(f"{record_id}#flip")
        found = predict_label_map(run, plain.embeddings, plain.grid, other.embeddings, weights)
        valid = plain.label_map != 255
        right += int((found.label_map == plain.label_map)[valid].sum())
        pixels += int(valid.sum())
    assert scores.model.pixel_accuracy == pytest.approx(right / pixels, abs=1e-3)
    assert (scores.images, scores.tta, scores.prior_power) == (3, "flip", 0.5)
    assert scores.notes[0].startswith("predictions are means of the plain and the mirrored view")
    plain_scores = evaluate(run, mirrored, options=CPU).runs[0]
    assert scores.loss == pytest.approx(plain_scores.loss)
    assert (plain_scores.tta, plain_scores.prior_power) == ("none", 0.0)
    assert plain_scores.model != scores.model
