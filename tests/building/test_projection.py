"""Versions of projected embeddings, from the choice to the heads."""

from __future__ import annotations

from dataclasses import replace
from math import isqrt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, ONE_PER_SHARD, WEIGHTS, Built, build, make_plan
from click.testing import CliRunner

from vocprep.building.describe import describe_plan
from vocprep.building.local import build_plan, shard_orders
from vocprep.building.orders import WorkerSetup, build_shard
from vocprep.checks.lock import lock
from vocprep.checks.remake import build_locked
from vocprep.checks.verify import verify
from vocprep.cli.main import main
from vocprep.errors import UsageError
from vocprep.features.reduction import projection_signs
from vocprep.options import BuildChoices, BuildOptions, Part, VerifyOptions

pytestmark = pytest.mark.slow

CHOICES = BuildChoices(limit_per_split=2, project="16:3")


@pytest.fixture(scope="module")
def projected(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Four pictures, a shard for each; not to be written to."""
    out = tmp_path_factory.mktemp("projected") / "out"
    return build(sample_tree, out, CHOICES, ONE_PER_SHARD)


def test_embeddings_are_those_without_projection_projected(
    projected: Built, crop_hdf5: Built
) -> None:
    signs = projection_signs(3, 256, 16).astype(object)
    assert projected.index.recipe.embedding_size == 16
    for image_id, record in projected.records.items():
        whole = crop_hdf5.records[image_id].embeddings.astype(np.float64) * 2.0**24
        sums = whole.astype(np.int64).astype(object) @ signs  # Python's integers
        expected = (sums.astype(np.float32) / np.float32(2**24 * isqrt(256))).astype(np.float16)
        np.testing.assert_array_equal(record.embeddings, expected, strict=True)


def test_parts_and_orders_make_the_same_bytes(
    projected: Built, sample_tree: Path, tmp_path: Path
) -> None:
    plan, out = make_plan(sample_tree, CHOICES, ONE_PER_SHARD), tmp_path / "out"
    build_plan(plan, out, replace(ENGINE, part=Part(number=0, count=2)))
    setup = WorkerSetup(data_dir=sample_tree, out=out, weights=WEIGHTS, device="cpu", threads=2)
    orders = shard_orders(plan, out, ENGINE)
    assert len(orders) == 2
    for order in orders:
        build_shard(order, setup)
    build_plan(plan, out, ENGINE)
    assert version_bytes(out) == version_bytes(projected.path)


def test_versions_of_other_reductions_are_never_mixed(
    projected: Built, sample_tree: Path, tmp_path: Path
) -> None:
    for project in (None, "16:4", "17:3"):
        plan = make_plan(sample_tree, replace(CHOICES, project=project), ONE_PER_SHARD)
        with pytest.raises(UsageError, match=r"cannot be reused.* reduction"):
            build_plan(plan, tmp_path / "out", replace(ENGINE, reuse=projected.path))
        with pytest.raises(UsageError, match=r"of another recipe.* reduction"):
            build_plan(plan, projected.path, ENGINE)


def test_locked_and_recomputed_versions_are_projected_again(
    projected: Built, sample_tree: Path, tmp_path: Path
) -> None:
    lock(projected.path, tmp_path / "lock.json")
    build_locked(tmp_path / "lock.json", out=tmp_path / "out", data_dir=sample_tree, options=ENGINE)
    assert version_bytes(tmp_path / "out") == version_bytes(projected.path)
    options = VerifyOptions(level="recompute", data_dir=sample_tree, device="cpu", workers=1)
    assert verify(projected.path, options).ok


def test_a_dry_run_shows_numbers_before_and_after(projected: Built, sample_tree: Path) -> None:
    described = describe_plan(projected.plan)
    assert (described.embedding_size, described.backbone_size) == (16, 256)
    assert described.bytes_per_image == 49 * 16 * 2
    arguments = ["build-shards", "pascal-context", "--data-dir", str(sample_tree), "--dry-run"]
    arguments += ["--weights", WEIGHTS, "--out", "nowhere", "--project", "16:3"]
    printed = CliRunner().invoke(main, arguments).output
    assert "numbers  16 of 256 per patch: 1,568 bytes of embeddings per picture" in printed


@pytest.mark.parametrize(
    ("choices", "problem"),
    [
        ({"project": "257:0"}, r"projection to 257 numbers .* at most the 256 that resnet32"),
        ({"project": "16"}, r"project '16': expected D:SEED"),
        ({"project": "0:1"}, r"project '0:1': expected D:SEED"),
        ({"project": "16:-1"}, r"project '16:-1': expected D:SEED"),
    ],
)
def test_projections_that_cannot_be_made_are_refused(
    choices: dict[str, Any], problem: str, sample_tree: Path
) -> None:
    with pytest.raises(UsageError, match=problem):
        make_plan(sample_tree, BuildChoices(limit_per_split=1, **choices))


def test_other_workers_make_the_same_bytes(
    projected: Built, sample_tree: Path, tmp_path: Path
) -> None:
    two = BuildOptions(device="cpu", workers=3)
    build_plan(projected.plan, tmp_path / "out", two)
    assert version_bytes(tmp_path / "out") == version_bytes(projected.path)
