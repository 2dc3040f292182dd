"""The main job from end to end, as a user types it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from builders.verbs import invoke, run_words
from PIL import Image
from safetensors.numpy import load_file

pytestmark = pytest.mark.slow

JPEGS = "VOCdevkit/VOC2010/JPEGImages"


def vocprep(*words: object) -> str:
    """Run the program and return what it printed; a warning on stderr is a failure."""
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-m", "vocprep", *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.splitlines()
    notes = ("note: no mirrored views in", "note: no split 'val' in")
    assert [line for line in lines if not line.startswith(notes)] == []
    return done.stdout


def check_run(run: Path, epochs: int) -> None:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == list(range(1, epochs + 1))
    assert all(
        np.isfinite(tensor).all() for tensor in load_file(run / "model.safetensors").values()
    )
    assert json.loads((run / "run.json").read_text())["recipe"]["dataset"] == "pascal-context"
    with Image.open(run / "curves.png") as curves:
        curves.load()


def check_scores(text: str) -> dict[str, dict[str, float]]:
    scores = json.loads(text)
    rows = {row["kind"]: row for row in scores["rows"]}
    assert {"model", "gt_top_4", "majority"} < set(rows)
    for row in rows.values():
        found = [row[name] for name in row if name not in ("name", "kind")]
        assert all(0 <= score <= 1 for score in found if score is not None)
    assert rows["gt_top_4"]["pixel_accuracy"] > rows["model"]["pixel_accuracy"]
    return rows


def check_pictures(folder: Path, stems: list[str]) -> None:
    for stem in stems:
        with Image.open(folder / f"{stem}.labels.png") as labels:
            assert labels.mode == "I;16"
            assert np.asarray(labels).max() < 460
        with Image.open(folder / f"{stem}.overlay.png") as overlay:
            overlay.load()


def test_generated_pictures_become_shards_heads_scores_and_overlays(tmp_path: Path) -> None:
    data = tmp_path / "data"
    assert "12 images (10 train, 2 val)" in vocprep("sample", data, "--images", 12)

    built = {}
    for container in ("hdf5", "webdataset"):
        words = ["--data-dir", data, "--out", tmp_path / container, "--format", container]
        text = vocprep("build-shards", "pascal-context", *words, "--weights", "random:0", "--json")
        built[container] = json.loads(text)
    assert built["hdf5"]["content_id"] == built["webdataset"]["content_id"]

    run = tmp_path / "run"
    vocprep("train", tmp_path / "hdf5", "--out", run, "--epochs", 2)
    check_run(run, epochs=2)
    one = check_scores(vocprep("evaluate", run, tmp_path / "hdf5", "--json"))
    other = check_scores(vocprep("evaluate", run, tmp_path / "webdataset", "--json"))
    assert one == other

    pictures = sorted((data / JPEGS).iterdir())[:2]
    vocprep("predict", run, *pictures, "--weights", "random:0", "--out", tmp_path / "pictures")
    check_pictures(tmp_path / "pictures", [path.stem for path in pictures])


def test_trained_heads_beat_chance_on_pictures_they_learnt_from(tmp_path: Path) -> None:
    """A job that runs but learns nothing would pass all other checks here."""
    data, shards, run = tmp_path / "data", tmp_path / "shards", tmp_path / "run"
    run_words("sample", data, "--images", 6)
    words = ["--data-dir", data, "--out", shards, "--weights", "random:0", "--splits", "train"]
    run_words("build-shards", "pascal-context", *words, "--limit-per-split", 4)
    run_words("train", shards, "--out", run, "--epochs", 15, "--batch-size", 4, "--val-split", "")
    rows = check_scores(invoke("evaluate", run, shards, "--split", "train", "--json").stdout)
    assert rows["model"]["pixel_accuracy"] > 1.5 * rows["majority"]["pixel_accuracy"]


def test_real_pictures_and_label_maps_become_shards_and_heads(
    shared_data: Path, tmp_path: Path
) -> None:
    data, weights = shared_data / "pascal-context", shared_data / "weights/cifar100_resnet32.pth"
    if not (data / "trainval").is_dir() or not weights.is_file():
        pytest.skip("no real label maps or weights there")
    shards, run = tmp_path / "shards", tmp_path / "run"
    splits = [path.stem for path in (data / "VOCdevkit/VOC2010/ImageSets/Main").glob("*.txt")]
    words = ["--data-dir", data, "--weights", weights, "--out", shards, "--limit-per-split", 2]
    index = json.loads(vocprep("build-shards", "pascal-context", *words, "--json"))
    assert index["weights"] == "official CIFAR-100 ResNet-32"
    assert sum(shard["records"] for shard in index["shards"]) >= 2
    train_split, val_split = (
        ("train", "val") if {"train", "val"} <= set(splits) else (splits[0], "")
    )
    words = ["--epochs", 2, "--train-split", train_split, "--val-split", val_split]
    vocprep("train", shards, "--out", run, *words)
    check_run(run, epochs=2)
    check_scores(vocprep("evaluate", run, shards, "--split", train_split, "--json"))
    pictures = sorted((data / JPEGS).iterdir())[:2]
    vocprep("predict", run, *pictures, "--weights", weights, "--out", tmp_path / "pictures")
    check_pictures(tmp_path / "pictures", [path.stem for path in pictures])
