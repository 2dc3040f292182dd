"""Records made again from images and label maps, and compared with the stored ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.progress import RecordedProgress
from builders.versions import Built, build, change_embeddings
from safetensors.torch import save_file
from scipy.io import loadmat, savemat

import vocprep
from vocprep.checks.head_outputs import compare_head_outputs
from vocprep.checks.recompute import RecomputeResult, recompute
from vocprep.errors import DataError, SourceUnavailableError, UsageError
from vocprep.features.weights import load_weights
from vocprep.options import BuildChoices, VerifyOptions
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

OPTIONS = VerifyOptions(device="cpu", workers=1)


def again(path: Path, tree: Path, **options: Any) -> RecomputeResult:
    """Make the records again, and embeddings of one image unless ``samples`` is another."""
    chosen = replace(OPTIONS, data_dir=tree, **{"samples": 1, **options})
    return recompute(ShardDataset.open(path), chosen)


@pytest.fixture(scope="module")
def progress() -> RecordedProgress:
    return RecordedProgress()


@pytest.fixture(scope="module")
def whole(two_views: Built, sample_tree: Path, progress: RecordedProgress) -> RecomputeResult:
    """The result where the version was made, all embeddings recomputed."""
    options = replace(OPTIONS, data_dir=sample_tree, samples=None)
    return recompute(two_views.dataset, options, progress)


def test_version_is_the_same_to_the_bit_where_it_was_made(
    whole: RecomputeResult, progress: RecordedProgress
) -> None:
    assert whole.report.ok
    assert whole.report.matching == 8
    measured = whole.measurements
    assert measured.numerics_class_differences == ()
    assert (measured.embeddings.patches, measured.embeddings.largest_deviation) == (8 * 49, 0)
    assert measured.embeddings_from_fp32 is None
    assert (progress.begun, progress.shown) == ([("images", 4, 0)], 4)
    assert len(whole.pairs) == 8


def test_heads_compute_the_same_from_stored_embeddings(whole: RecomputeResult) -> None:
    assert 0 < whole.measurements.head_outputs.largest < 5e-3
    swapped = [replace(pair, stored=pair.stored[::-1]) for pair in whole.pairs]
    assert compare_head_outputs(swapped, 460).largest > 5e-3
    unrounded = [replace(pair, stored=pair.recomputed) for pair in whole.pairs]
    assert compare_head_outputs(unrounded, 460).largest == 0


@pytest.mark.parametrize(("samples", "patches"), [(3, 294), (100, 392)])
def test_as_many_images_are_embedded_as_asked(
    samples: int, patches: int, two_views: Built, sample_tree: Path
) -> None:
    found = again(two_views.path, sample_tree, samples=samples)
    assert found.report.ok
    assert found.measurements.embeddings.patches == patches


def test_seed_decides_which_images(two_views: Built, sample_tree: Path) -> None:
    chosen = []
    for seed in (1, 1, 2):
        found = again(two_views.path, sample_tree, seed=seed)
        assert len(found.pairs) == 2
        chosen.append(found.pairs[0].stored.tobytes())
    assert chosen[0] == chosen[1] != chosen[2]


def test_weights_file_of_the_build_is_found_again(sample_tree: Path, tmp_path: Path) -> None:
    weights = tmp_path / "own.safetensors"
    save_file(load_weights("random:3", tmp_path), weights)
    out = tmp_path / "out"
    vocprep.build(
        "pascal-context",
        data_dir=sample_tree,
        out=out,
        weights=weights,
        choices=vocprep.BuildChoices(splits=("val",), limit_per_split=1),
        options=vocprep.BuildOptions(device="cpu", workers=1),
    )
    assert again(out, sample_tree).report.ok
    weights.unlink()
    with pytest.raises(SourceUnavailableError, match="--weights"):
        again(out, sample_tree)


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
    assert found.report.matching == 8 - 2
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


def test_changed_label_map_is_named(two_views: Built, tree: Path) -> None:
    path = sorted((tree / "trainval").iterdir())[0]
    label_map = loadmat(path)["LabelMap"]
    label_map[100:140, 100:140] = 25
    savemat(path, {"LabelMap": label_map}, do_compression=True)
    report = again(two_views.path, tree).report
    details = [item.detail for item in report.differences]
    assert all(path.stem in detail for detail in details)
    assert any("label_sha256" in detail for detail in details)
    assert any("targets_sha256" in detail for detail in details)
    assert report.matching == 6


def test_image_that_has_gone_bad_or_is_readable_again_is_named(
    two_views: Built, quarantined: Built, sample_tree: Path, bad_tree: Path
) -> None:
    (difference,) = again(two_views.path, bad_tree).report.differences
    assert "cannot be used any more" in difference.detail
    assert again(quarantined.path, bad_tree).report.ok
    (difference,) = again(quarantined.path, sample_tree).report.differences
    assert "is not any more" in difference.detail


def test_bf16_is_measured_against_fp32(sample_tree: Path, tmp_path: Path) -> None:
    choices = BuildChoices(limit_per_split=1, precision="bf16")
    found = again(build(sample_tree, tmp_path / "out", choices).path, sample_tree, samples=None)
    assert found.report.ok
    assert found.measurements.embeddings.largest_deviation == 0
    from_fp32 = found.measurements.embeddings_from_fp32
    assert from_fp32 is not None
    assert from_fp32.patches == 2 * 49
    assert 0 < from_fp32.largest_deviation < 1
    assert 0.99 < from_fp32.smallest_cosine < 1


def test_data_dir_of_other_ids_is_refused_with_what_differs(two_views: Built, tree: Path) -> None:
    train = tree / "VOCdevkit/VOC2010/ImageSets/Main/train.txt"
    train.write_text("\n".join(train.read_text().split()[1:]) + "\n")
    with pytest.raises(DataError, match=r"splits\.train\.ids_sha256"):
        again(two_views.path, tree)


def test_other_weights_are_refused(two_views: Built, sample_tree: Path) -> None:
    with pytest.raises(DataError, match="weights_sha256"):
        again(two_views.path, sample_tree, weights="random:1")
