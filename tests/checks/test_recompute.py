from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.progress import RecordedProgress
from scipy.io import loadmat, savemat

from vocprep.building.local import build_dataset
from vocprep.building.plan import plan_build
from vocprep.building.write import write_dataset
from vocprep.checks.head_outputs import compare_head_outputs
from vocprep.checks.recompute import RecomputeResult, recompute
from vocprep.errors import DataError, UsageError
from vocprep.manifests import load_dataset
from vocprep.options import BuildChoices, BuildOptions, Layout, MaxFailures, VerifyOptions
from vocprep.shards.index import read_index, write_index
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

OPTIONS = VerifyOptions(device="cpu", workers=1)
LAYOUT = Layout(samples_per_shard=2)


def build(tree: Path, out: Path, choices: BuildChoices, bad: int = 0) -> Path:
    plan = plan_build(load_dataset("pascal-context"), tree, "random:0", choices, LAYOUT)
    options = BuildOptions(device="cpu", workers=1, max_failures=MaxFailures(count=bad))
    build_dataset(plan, out, options)
    return out


def again(path: Path, tree: Path, **options: Any) -> RecomputeResult:
    return recompute(ShardDataset.open(path), replace(OPTIONS, data_dir=tree, **options))


@pytest.fixture(scope="module")
def version(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures in two views; not to be written to."""
    choices = BuildChoices(limit=2, views=("identity", "flip"))
    return build(sample_tree, tmp_path_factory.mktemp("version") / "out", choices)


@pytest.fixture
def copied(version: Path, tmp_path: Path) -> Path:
    shutil.copytree(version, tmp_path / "copied")
    return tmp_path / "copied"


def change_embeddings(path: Path, change: Callable[[Any], None], **index: Any) -> None:
    """Write a version again with other embeddings, as whoever made it would have."""
    dataset = ShardDataset.open(path)
    splits: dict[str, list[Any]] = {}
    for shard in dataset.index.shards:
        for record in dataset.read_shard(shard.name, all_views=True):
            change(record.embeddings)
            splits.setdefault(shard.split, []).append(record)
    old = dataset.index
    shutil.rmtree(path)
    write_dataset(path, old.recipe, splits, LAYOUT)
    kept = {"numerics_class": old.numerics_class, "weights": old.weights, **index}
    write_index(path, read_index(path).model_copy(update=kept).sealed())


def test_version_is_the_same_to_the_bit_where_it_was_made(version: Path, sample_tree: Path) -> None:
    progress = RecordedProgress()
    options = replace(OPTIONS, data_dir=sample_tree)
    found = recompute(ShardDataset.open(version), options, progress)
    assert found.report.ok
    assert found.report.matching == 8
    measured = found.measurements
    assert measured.numerics_class_differences == ()
    assert (measured.embeddings.patches, measured.embeddings.largest_deviation) == (8 * 49, 0)
    assert measured.embeddings_from_fp32 is None
    assert (progress.begun, progress.shown) == ([("images", 4, 0)], 4)
    assert len(found.pairs) == 8


@pytest.mark.parametrize(("samples", "patches"), [(1, 98), (3, 294), (None, 392), (100, 392)])
def test_as_many_images_are_embedded_as_asked(
    samples: int | None, patches: int, version: Path, sample_tree: Path
) -> None:
    found = again(version, sample_tree, samples=samples)
    assert found.report.ok
    assert found.measurements.embeddings.patches == patches


def test_seed_decides_which_images(version: Path, sample_tree: Path) -> None:
    chosen = []
    for seed in (0, 0, 1, 2, 3):
        found = again(version, sample_tree, samples=1, seed=seed)
        chosen.append(found.pairs[0].stored.tobytes())
    assert chosen[0] == chosen[1]
    assert len(set(chosen)) > 1


def test_no_image_is_refused() -> None:
    with pytest.raises(UsageError, match="samples 0"):
        VerifyOptions(samples=0)


def nudge(embeddings: Any) -> None:
    embeddings[3, 5] = np.nextafter(embeddings[3, 5], np.float16(100))


def spoil(embeddings: Any) -> None:
    embeddings[:] = embeddings[::-1].copy()


def test_one_bit_of_an_embedding_is_found_where_it_was_made(
    copied: Path, sample_tree: Path
) -> None:
    change_embeddings(copied, nudge)
    found = again(copied, sample_tree)
    assert found.report.matching == 0
    assert all("same bits" in item.detail for item in found.report.differences)
    assert 0 < found.measurements.embeddings.largest_deviation < 0.01


def test_another_numerics_class_is_judged_by_the_tolerance_and_measured(
    copied: Path, sample_tree: Path
) -> None:
    other = {"torch": "0"}
    change_embeddings(copied, nudge, numerics_class=other)
    found = again(copied, sample_tree)
    assert found.report.ok
    assert any("torch" in line for line in found.measurements.numerics_class_differences)
    assert found.measurements.embeddings.largest_deviation > 0
    change_embeddings(copied, spoil, numerics_class=other)
    assert not again(copied, sample_tree).report.ok


def test_changed_label_map_is_named(version: Path, sample_tree: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    path = sorted((tree / "trainval").iterdir())[0]
    label_map = loadmat(path)["LabelMap"]
    label_map[100:140, 100:140] = 25
    savemat(path, {"LabelMap": label_map}, do_compression=True)
    report = again(version, tree).report
    details = [item.detail for item in report.differences]
    assert all(path.stem in detail for detail in details)
    assert any("label_sha256" in detail for detail in details)
    assert any("targets_sha256" in detail for detail in details)
    assert report.matching == 6


def test_picture_that_has_gone_bad_or_has_been_mended_is_named(
    version: Path, sample_tree: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    jpeg = sorted((tree / "VOCdevkit/VOC2010/JPEGImages").iterdir())[0]
    jpeg.write_bytes(jpeg.read_bytes()[:900])
    (difference,) = again(version, tree).report.differences
    assert "is bad now" in difference.detail
    choices = BuildChoices(limit=2, views=("identity", "flip"))
    bad = build(tree, tmp_path / "bad", choices, bad=1)
    assert again(bad, tree).report.ok
    (difference,) = again(bad, sample_tree).report.differences
    assert "is not any more" in difference.detail


def test_bf16_is_measured_against_fp32(sample_tree: Path, tmp_path: Path) -> None:
    path = build(sample_tree, tmp_path / "out", BuildChoices(limit=1, precision="bf16"))
    found = again(path, sample_tree)
    assert found.report.ok
    assert found.measurements.embeddings.largest_deviation == 0
    assert found.measurements.embeddings_from_fp32 is not None
    assert found.measurements.embeddings_from_fp32.patches == 2 * 49
    assert 0 < found.measurements.embeddings_from_fp32.largest_deviation < 1
    assert 0.99 < found.measurements.embeddings_from_fp32.smallest_cosine < 1


def test_data_dir_of_other_ids_is_refused_with_what_differs(
    version: Path, sample_tree: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    train = tree / "VOCdevkit/VOC2010/ImageSets/Main/train.txt"
    train.write_text("\n".join(train.read_text().split()[1:]) + "\n")
    with pytest.raises(DataError, match=r"splits\.train\.ids_sha256"):
        again(version, tree)


def test_other_weights_are_refused(version: Path, sample_tree: Path) -> None:
    with pytest.raises(DataError, match="weights_sha256"):
        again(version, sample_tree, weights="random:1")


def test_heads_compute_the_same_from_stored_embeddings(version: Path, sample_tree: Path) -> None:
    found = again(version, sample_tree)
    assert 0 < found.measurements.head_outputs.largest < 5e-3
    swapped = [replace(pair, stored=pair.stored[::-1]) for pair in found.pairs]
    assert compare_head_outputs(swapped, 460).largest > 5e-3
    unrounded = [replace(pair, stored=pair.recomputed) for pair in found.pairs]
    assert compare_head_outputs(unrounded, 460).largest == 0
