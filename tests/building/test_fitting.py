"""Versions of principal components: fitted once, kept, stored, and used wherever it goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.progress import RecordedProgress
from builders.s3 import S3
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, JPEGS, ONE_PER_SHARD, WEIGHTS, Built, build, make_plan
from click.testing import CliRunner
from PIL import Image
from safetensors.numpy import load_file

from vocprep.building import fitting
from vocprep.building.local import build_plan, shard_orders
from vocprep.building.orders import WorkerSetup, build_shard
from vocprep.building.plan import BuildPlan
from vocprep.checks.lock import lock
from vocprep.checks.remake import build_locked
from vocprep.checks.verify import verify
from vocprep.cli.main import main
from vocprep.errors import DataError, FailureBudgetError, UsageError
from vocprep.features.components import Components
from vocprep.heads.predict import PredictOptions, make_embedder, predict
from vocprep.heads.predict_image import predict_image, predict_label_map
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.run import load_run
from vocprep.heads.training.train import train
from vocprep.options import BuildChoices, BuildOptions, Part, VerifyOptions
from vocprep.shards.index import describe_file, write_index
from vocprep.transfer.pull import pull

pytestmark = pytest.mark.slow

CHOICES = BuildChoices(limit_per_split=2, pca=6)
FILE = "pca.safetensors"


def plan_of(tree: Path, **changes: Any) -> BuildPlan:
    return make_plan(tree, replace(CHOICES, **changes), ONE_PER_SHARD)


@pytest.fixture(scope="module")
def reduced(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Two pictures of each split, a shard for each; not to be written to."""
    return build(sample_tree, tmp_path_factory.mktemp("pca") / "out", CHOICES, ONE_PER_SHARD)


@contextmanager
def no_fit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is fitted within the block."""

    def fail(*_: object) -> None:
        raise AssertionError("was fitted again")

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "fit_components", fail)
        yield


@contextmanager
def other_fit(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Eigenvectors are those of another machine: one number differs by its last bit."""
    original = fitting.fit_components

    def fit(*arguments: Any) -> Any:
        mean, matrix, share = original(*arguments)
        matrix[0, 0] += 1
        return mean, matrix, share

    with monkeypatch.context() as patched:
        patched.setattr(fitting, "fit_components", fit)
        yield


def repaint(tree: Path, image_id: str) -> None:
    """Exchange a picture for another of its size."""
    path = tree / JPEGS / f"{image_id}.jpg"
    with Image.open(path) as picture:
        turned = picture.transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    turned.save(path, quality=90)


# What is stored


def test_embeddings_are_those_without_pca_by_the_stored_matrix(
    reduced: Built, crop_hdf5: Built
) -> None:
    tensors = load_file(reduced.path / FILE)
    mean, matrix = (tensors[name].astype(np.float64) for name in ("mean", "matrix"))
    assert matrix.shape == (256, 6)
    for image_id, record in reduced.records.items():
        differences = crop_hdf5.records[image_id].embeddings.astype(np.float64) - mean
        whole = (differences * 2.0**24).astype(np.int64).astype(object)
        sums = whole @ matrix.astype(np.int64).astype(object)  # Python's integers
        expected = (sums.astype(np.float32) * np.float32(2.0**-38)).astype(np.float16)
        np.testing.assert_array_equal(record.embeddings, expected, strict=True)


def test_the_space_is_that_of_the_train_split(reduced: Built, crop_hdf5: Built) -> None:
    ids = [image_id for image_id, record in reduced.records.items() if record.split == "train"]
    values = np.concatenate([crop_hdf5.records[each].embeddings for each in ids])
    centred = values.astype(np.float64) - values.astype(np.float64).mean(axis=0)
    spreads = centred.std(axis=0)
    rounded = 2.0 ** np.floor(np.log2(np.maximum(spreads, spreads.max() / 64)) + 1)
    weights = rounded.min() / rounded
    rows = np.linalg.svd(centred * weights, full_matrices=False)[2][:6]
    vectors = load_file(reduced.path / FILE)["matrix"] / 2**14 / weights[:, None]
    np.testing.assert_allclose(np.linalg.svd(rows @ vectors)[1], 1, atol=5e-3)


def test_recipe_and_index_name_the_matrix(reduced: Built) -> None:
    components = Components.from_bytes((reduced.path / FILE).read_bytes(), FILE)
    index, fit = reduced.index, components.fit
    assert index.recipe.reduction is not None
    assert index.recipe.reduction.matrix_sha256 == components.sha256
    assert FILE in [entry.name for entry in index.files]
    assert (fit.split, fit.pictures, fit.patches) == ("train", 2, 98)
    assert sorted(path.name for path in reduced.path.glob(".tmp*")) == []
    assert "makes the same records with this `pca.safetensors`" in (
        reduced.path / "README.md"
    ).read_text(encoding="utf-8")


def test_without_a_train_split_all_pictures_count(sample_tree: Path, tmp_path: Path) -> None:
    progress = RecordedProgress()
    plan = plan_of(sample_tree, splits=("val",))
    build_plan(plan, tmp_path / "out", ENGINE, progress=progress)
    assert "2 pictures of all splits (there is no train split)" in "".join(progress.lines)


def test_a_picture_that_cannot_be_read_is_left_out_of_the_fit(tree: Path, tmp_path: Path) -> None:
    first = min((tree / JPEGS).parent.joinpath("ImageSets/Main/train.txt").read_text().split())
    (tree / JPEGS / f"{first}.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    with pytest.raises(FailureBudgetError):
        build_plan(plan_of(tree), out, ENGINE)
    options = replace(ENGINE, max_failures=1)
    fit = Components.from_bytes((out / f".tmp-{FILE}").read_bytes(), FILE).fit
    assert (fit.pictures, fit.patches) == (1, 49)
    assert build_plan(plan_of(tree), out, options).index.quarantined == 1


# Going on


def test_parts_orders_and_interrupted_builds_use_one_fit(
    reduced: Built, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = plan_of(sample_tree), tmp_path / "out"
    build_plan(plan, out, replace(ENGINE, part=Part(number=0, count=2)))
    with no_fit(monkeypatch):
        build_plan(plan, out, replace(ENGINE, part=Part(number=2, count=4)))
        orders = shard_orders(plan, out, ENGINE)
        setup = WorkerSetup(data_dir=sample_tree, out=out, weights=WEIGHTS, device="cpu")
        build_shard(orders[0], setup)
        build_plan(plan, out, replace(ENGINE, workers=3))
        assert version_bytes(out) == version_bytes(reduced.path)
        assert build_plan(plan, out, ENGINE).up_to_date
    with pytest.raises(UsageError, match=r"ended or was replaced"):
        build_shard(orders[0], replace(setup, out=tmp_path / "elsewhere"))


def test_a_version_of_other_pictures_is_refused_before_anything_is_fitted(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    first = build_plan(plan_of(tree), out, ENGINE).index
    before = version_bytes(out)
    (tree / "trainval" / f"{first.shards[1].span.first_id}.mat").write_bytes(b"no label map")
    with no_fit(monkeypatch):  # a label map is no part of the fit
        again = build_plan(plan_of(tree), out, replace(ENGINE, max_failures=1)).index
        assert again.recipe == first.recipe
        repaint(tree, first.shards[0].span.first_id)
        with pytest.raises(UsageError, match=r"whose --pca was fitted to other pictures; choose"):
            build_plan(plan_of(tree), out, replace(ENGINE, max_failures=1))
        with pytest.raises(UsageError, match=r"there and here: reduction.size: 6 and 5; choose"):
            build_plan(plan_of(tree, pca=5), out, ENGINE)
        with pytest.raises(UsageError, match=r"--if-exists is fail"):
            build_plan(plan_of(tree), out, replace(ENGINE, if_exists="fail"))
        assert before[FILE] == version_bytes(out)[FILE]
    options = replace(ENGINE, if_exists="overwrite", max_failures=1)
    assert build_plan(plan_of(tree), out, options).index.recipe != first.recipe


def test_versions_without_pca_and_of_another_matrix_are_never_mixed(
    reduced: Built, sample_tree: Path, tmp_path: Path
) -> None:
    for changes in ({"pca": None}, {"pca": 5}):
        plan = plan_of(sample_tree, **changes)
        with pytest.raises(UsageError, match=r"cannot be reused.* reduction"):
            build_plan(plan, tmp_path / "out", replace(ENGINE, reuse=reduced.path))


# Made once more


def test_a_lock_file_gives_the_same_bytes_or_says_why_not(
    reduced: Built, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, places = tmp_path / "lock.json", {"data_dir": sample_tree}
    lock(reduced.path, file)
    build_locked(file, out=tmp_path / "out", options=ENGINE, **places)
    assert version_bytes(tmp_path / "out") == version_bytes(reduced.path)
    with other_fit(monkeypatch):
        with pytest.raises(DataError, match=r"--pca 6: the lock file names .* with --reuse, whose"):
            build_locked(file, out=tmp_path / "other", options=ENGINE, **places)
        assert not (tmp_path / "other/dataset.json").exists()
        options = replace(ENGINE, reuse=reduced.path)
        build_locked(file, out=tmp_path / "other", options=options, **places)
    assert version_bytes(tmp_path / "other") == version_bytes(reduced.path)


def test_recomputing_takes_the_stored_matrix(
    reduced: Built, sample_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = VerifyOptions(level="recompute", data_dir=sample_tree, samples=1, device="cpu")
    with no_fit(monkeypatch):
        assert verify(reduced.path, options).ok


def test_verify_finds_another_matrix(reduced: Built, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    for name, data in version_bytes(reduced.path).items():
        (out / name).write_bytes(data)
    write_index(out, reduced.index)
    assert verify(out).ok
    components = Components.from_bytes((out / FILE).read_bytes(), FILE)
    components.matrix[3, 2] += 1
    (out / FILE).write_bytes(components.to_bytes())
    (found,) = verify(out).reports[0].differences
    assert (found.path, found.state) == (FILE, "changed")
    # Whoever lists it has changed the matrix that the recipe names.
    listed = [entry for entry in reduced.index.files if entry.name != FILE]
    files = (*listed, describe_file(FILE, components.to_bytes()))
    write_index(out, reduced.index.model_copy(update={"files": files}).sealed())
    (found,) = verify(out).reports[0].differences
    assert "expected the matrix that the recipe names" in found.detail


# Elsewhere


def test_pixels_give_a_run_what_its_shards_do(
    reduced: Built, sample_tree: Path, tmp_path: Path
) -> None:
    options = TrainOptions(epochs=1, encoder="none", device="cpu")
    train(reduced.path, tmp_path / "run", options)
    run, asked = load_run(tmp_path / "run"), PredictOptions(weights=WEIGHTS, device="cpu")
    record = next(iter(reduced.records.values()))
    image = sample_tree / JPEGS / f"{record.image_id}.jpg"
    with Image.open(image) as picture:
        found = predict_image(run, np.asarray(picture), make_embedder(run, asked))
    cached = predict_label_map(run, record.embeddings, record.grid)
    np.testing.assert_array_equal(found.label_map, cached.label_map)
    np.testing.assert_array_equal(found.confidence, cached.confidence)
    file = tmp_path / "run" / FILE
    data = file.read_bytes()
    file.unlink()
    with pytest.raises(DataError, match=r"pca.safetensors: No such file .*; copy pca.safetensors"):
        predict(run, image, options=asked)
    components = Components.from_bytes(data, FILE)
    components.matrix[0, 0] += 1
    file.write_bytes(components.to_bytes())
    with pytest.raises(DataError, match=r"expected the principal components of the run's shards"):
        predict(run, image, options=asked)


def test_an_object_store_gets_the_same_version(
    s3: S3, reduced: Built, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url, plan = s3.url("v"), plan_of(sample_tree)
    build_plan(plan, url, replace(ENGINE, part=Part(number=0, count=2)))
    assert f".tmp-build/{FILE}" in s3.names("v")
    with no_fit(monkeypatch):
        setup = WorkerSetup(data_dir=sample_tree, out=url, weights=WEIGHTS, device="cpu")
        for order in shard_orders(plan, url, ENGINE):
            build_shard(order, setup)
        build_plan(plan, url, ENGINE)
    assert set(s3.names("v")) == set(version_bytes(reduced.path))
    pull(url, tmp_path / "pulled")
    assert version_bytes(tmp_path / "pulled") == version_bytes(reduced.path)


# What is said


def test_a_dry_run_fits_nothing(sample_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["build-shards", "pascal-context", "--data-dir", str(sample_tree), "--dry-run"]
    arguments += ["--weights", WEIGHTS, "--out", "nowhere", "--pca", "6"]
    with no_fit(monkeypatch):
        printed = CliRunner().invoke(main, arguments).output
        as_json = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).output)
    assert "-pca6-exact  (recipe_id comes with the build: --pca)" in printed
    assert "numbers  6 of 256 per patch: 588 bytes of embeddings per picture" in printed
    assert (as_json["recipe_id"], as_json["backbone_size"]) == (None, 256)


@pytest.mark.parametrize(
    ("choices", "problem"),
    [
        ({"pca": 257}, r"pca to 257 numbers .* at most the 256 that resnet32-cifar100 gives"),
        ({"pca": 99}, r"--pca 99: expected at most as many components as there are patches"),
        ({"pca": 0}, r"pca 0: expected 1 or more"),
        ({"pca": 4, "project": "4:0"}, r"pca 4 beside project 4:0: expected one of the two"),
    ],
)
def test_components_that_cannot_be_fitted_are_refused(
    choices: dict[str, Any], problem: str, sample_tree: Path, tmp_path: Path
) -> None:
    options = BuildOptions(device="cpu", workers=1)
    with pytest.raises(UsageError, match=problem):
        build_plan(plan_of(sample_tree, **choices), tmp_path / "out", options)
    assert not (tmp_path / "out/dataset.json").exists()
