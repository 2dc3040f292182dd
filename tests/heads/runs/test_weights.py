"""A run finds its backbone's weights again, and says which ones where it does not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from builders.heads import make_dataset, random_records, run_for

from vocprep.building.local import build
from vocprep.checks.verify import verify
from vocprep.errors import RunError, SourceUnavailableError, UsageError
from vocprep.features.weights import WeightsOrigin, load_weights, tensor_digest
from vocprep.files.names import WEIGHTS_HINT
from vocprep.heads.predict import predict
from vocprep.heads.runs.presets import load_options
from vocprep.heads.runs.run import Run
from vocprep.heads.runs.weights import find_weights, weights_origin
from vocprep.heads.training.train import train
from vocprep.options import BuildChoices, VerifyOptions
from vocprep.shards.reader import ShardDataset

NOWHERE = Path("nowhere")


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A weights file that nobody publishes."""
    path = tmp_path_factory.mktemp("weights") / "own.pth"
    torch.save(load_weights("random:7", NOWHERE), path)
    return path


@pytest.fixture
def dataset(own: Path, tmp_path: Path) -> ShardDataset:
    digest = tensor_digest(load_weights(str(own), NOWHERE))
    splits = {"train": random_records("train", [(1, 1)])}
    return make_dataset(tmp_path / "shards", splits, weights_sha256=digest)


def run_in(folder: Path, dataset: ShardDataset, weights: str | Path | None) -> Run:
    """A run in a folder, as far as its weights are concerned."""
    origin = weights_origin(dataset, weights)
    folder.mkdir(exist_ok=True)
    if origin is not None:
        origin.write(folder / "weights.json")
    return replace(run_for(dataset), path=folder)


def test_weights_are_found_where_training_was_told(
    dataset: ShardDataset, own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(own.parent)
    run = run_in(tmp_path / "run", dataset, own.name)
    monkeypatch.chdir(tmp_path)
    found = find_weights(run, None, NOWHERE)
    assert tensor_digest(found) == run.config.recipe.weights_sha256


def test_weights_are_found_where_the_build_read_them(
    dataset: ShardDataset, own: Path, tmp_path: Path
):
    digest = dataset.index.recipe.weights_sha256
    WeightsOrigin.of(str(own), digest).write(dataset.path / WEIGHTS_HINT)
    run = run_in(tmp_path / "run", dataset, None)
    assert tensor_digest(find_weights(run, None, NOWHERE)) == digest


def test_a_hint_of_other_weights_is_ignored(dataset: ShardDataset, own: Path):
    WeightsOrigin.of(str(own), "00" * 32).write(dataset.path / WEIGHTS_HINT)
    assert weights_origin(dataset, None) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"weights": 3, "tensors_sha256": null}'])
def test_a_damaged_hint_is_none(dataset: ShardDataset, text: str):
    (dataset.path / WEIGHTS_HINT).write_text(text)
    assert weights_origin(dataset, None) is None


def test_untrained_weights_follow_from_the_version(tmp_path: Path):
    origin = WeightsOrigin.of_version(tmp_path, "untrained (random:3)", "ab" * 32)
    assert origin == WeightsOrigin(weights="random:3", tensors_sha256="ab" * 32)


def test_training_refuses_other_weights(dataset: ShardDataset):
    with pytest.raises(UsageError, match=r"weights random:0: expected those that .* was built"):
        weights_origin(dataset, "random:0")


def test_weights_given_are_checked(dataset: ShardDataset, own: Path, tmp_path: Path):
    run = run_in(tmp_path / "run", dataset, own)
    with pytest.raises(RunError, match="give the same --weights as to build-shards"):
        find_weights(run, "random:0", NOWHERE)


def test_a_file_that_is_gone_is_named_with_its_digest(
    dataset: ShardDataset, own: Path, tmp_path: Path
):
    moved = Path(shutil.copy(own, tmp_path / "moved.pth"))
    run = run_in(tmp_path / "run", dataset, moved)
    moved.unlink()
    digest = run.config.recipe.weights_sha256[:12]
    with pytest.raises(SourceUnavailableError, match=rf"{digest}.*moved\.pth.*give .* --weights"):
        find_weights(run, None, NOWHERE)
    assert tensor_digest(find_weights(run, own, NOWHERE))[:12] == digest


def test_a_file_that_changed_is_named(dataset: ShardDataset, own: Path, tmp_path: Path):
    changed = Path(shutil.copy(own, tmp_path / "changed.pth"))
    run = run_in(tmp_path / "run", dataset, changed)
    torch.save(load_weights("random:8", NOWHERE), changed)
    with pytest.raises(SourceUnavailableError, match=r"changed\.pth \(it now holds other weights"):
        find_weights(run, None, NOWHERE)


@pytest.mark.parametrize(
    "spec",
    ["random:0" * 200, "random:-1", "x" * 3000, "9" * 5000, "a\x1b[2J" * 900],
    ids=["long number", "negative", "long path", "digits", "escapes"],
)
def test_a_hint_that_names_no_weights_is_named_in_brief(
    dataset: ShardDataset, own: Path, tmp_path: Path, spec: str
):
    run = run_in(tmp_path / "run", dataset, own)
    hint = {"weights": spec, "tensors_sha256": "00" * 32}
    (run.path / "weights.json").write_text(json.dumps(hint))
    with pytest.raises(SourceUnavailableError, match="give that file as --weights") as caught:
        find_weights(run, None, NOWHERE)
    assert len(str(caught.value)) < 800
    assert str(caught.value).isprintable()


def test_without_a_hint_the_digest_is_named(dataset: ShardDataset, tmp_path: Path):
    run = run_in(tmp_path / "run", dataset, None)
    expected = "expected the weights that its shards were .* but .*weights.json, which .*"
    advice = "; give the --weights of the build: their file, or random:SEED"
    with pytest.raises(SourceUnavailableError, match=f"{expected} is missing{advice}"):
        find_weights(run, None, NOWHERE)
    (run.path / "weights.json").write_text("{")
    with pytest.raises(SourceUnavailableError, match=f"{expected} cannot be read{advice}"):
        find_weights(run, None, NOWHERE)


def test_official_weights_are_looked_for_in_the_data_dir(dataset: ShardDataset, tmp_path: Path):
    published = "404f91be59b70df98174a36fe01007dd4cab2c5403bf0c5f24b73911319b26f5"
    made = run_for(dataset)
    recipe = replace(made.config.recipe, weights_sha256=published)
    run = replace(made, path=tmp_path, config=replace(made.config, recipe=recipe))
    with pytest.raises(SourceUnavailableError, match="vocprep download resnet32-cifar100"):
        find_weights(run, None, NOWHERE)


def test_the_hint_is_plain_json(own: Path, tmp_path: Path):
    WeightsOrigin.of(str(own), "ab" * 32).write(tmp_path / "weights.json")
    value = json.loads((tmp_path / "weights.json").read_text())
    assert value == {"weights": str(own), "tensors_sha256": "ab" * 32}


@pytest.mark.slow
def test_from_a_build_of_ones_own_weights_to_a_prediction(
    own: Path, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Nobody names the file again; the version holds no path and verifies."""
    shards, run = tmp_path / "shards", tmp_path / "run"
    made_of = partial(
        build, "pascal-context", data_dir=sample_tree, choices=BuildChoices(limit_per_split=1)
    )
    built = made_of(out=shards, weights=own)
    assert str(own) not in (shards / "dataset.json").read_text()
    assert verify(shards, VerifyOptions(level="files")).ok
    train(shards, run, load_options("quick", ["encoder=none"], {"epochs": 1, "device": "cpu"}))
    assert str(own) not in (run / "run.json").read_text()
    monkeypatch.chdir(tmp_path)
    image = sorted((sample_tree / "VOCdevkit/VOC2010/JPEGImages").glob("*.jpg"))[0]
    assert predict(run, image).ok
    # Built again, with the file elsewhere: nothing is made, and the hint follows.
    moved = Path(shutil.copy(own, tmp_path / "moved.pth"))
    again = made_of(out=shards, weights=moved)
    assert (again.made, again.index.content_id) == (0, built.index.content_id)
    origin = weights_origin(ShardDataset.open(shards), None)
    assert origin is not None
    assert origin.weights == str(moved)
