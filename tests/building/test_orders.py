"""A shard as a unit of work: the order of one, and making it anywhere."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, ONE_PER_SHARD, TWO_PER_SHARD, VOC, WEIGHTS, make_plan

import vocprep
from vocprep.building.local import build_plan
from vocprep.building.orders import BuiltShard, ShardOrder, WorkerSetup, build_shard
from vocprep.building.output.publish import open_output
from vocprep.building.plan import BuildKey, BuildPlan
from vocprep.errors import UsageError, WeightsError
from vocprep.features.devices import choose_devices, numerics_class
from vocprep.features.embed import Embedder
from vocprep.options import BuildChoices, Layout

pytestmark = pytest.mark.slow

FOUR = BuildChoices(limit_per_split=2)


@pytest.fixture(scope="module")
def finished(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of four pictures that one process built; not to be written to."""
    out = tmp_path_factory.mktemp("finished") / "out"
    build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    return out


def key_of(plan: BuildPlan) -> BuildKey:
    devices = choose_devices("cpu")
    return BuildKey(
        plan=plan, numerics_class=numerics_class(devices, precision=plan.recipe.precision)
    )


def orders_of(plan: BuildPlan) -> list[ShardOrder]:
    key = key_of(plan)
    return [ShardOrder.of(key, shard, "simplejpeg", compiled=False) for shard in plan.shards]


@contextmanager
def begun(plan: BuildPlan, out: Path) -> Iterator[list[ShardOrder]]:
    """The orders of a build whose driver has begun and holds the output folder."""
    with open_output(out, key_of(plan), "resume"):
        yield orders_of(plan)


def setup_of(tree: Path, out: Path, **fields: Any) -> WorkerSetup:
    return WorkerSetup(
        **{"data_dir": tree, "out": out, "weights": WEIGHTS, "device": "cpu", **fields}
    )


def follow(orders: Sequence[ShardOrder], setup: WorkerSetup) -> list[BuiltShard]:
    """Follow orders that have travelled as bytes, and answer as bytes."""
    travelled = [pickle.loads(pickle.dumps(order)) for order in orders]
    return [pickle.loads(pickle.dumps(build_shard(order, setup))) for order in travelled]


def test_shards_made_by_orders_are_those_of_one_process(
    sample_tree: Path, finished: Path, tmp_path: Path
) -> None:
    """Last first, one thread, and from a data dir that is elsewhere."""
    plan, out, elsewhere = (
        make_plan(sample_tree, FOUR, ONE_PER_SHARD),
        tmp_path / "out",
        tmp_path / "moved",
    )
    shutil.copytree(sample_tree, elsewhere)
    with begun(plan, out) as orders:
        built = follow(orders[::-1], setup_of(elsewhere, out, threads=1))
    assert [shard.name for shard in built] == [shard.name for shard in plan.shards[::-1]]
    assert not (out / "dataset.json").exists()
    result = build_plan(plan, out, ENGINE)
    assert result.made == 0
    assert version_bytes(out) == version_bytes(finished)


def test_workers_of_ones_own_make_what_is_missing(
    sample_tree: Path, finished: Path, tmp_path: Path
) -> None:
    """Begun again, only the shards that are missing have orders."""
    plan, out = make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out"
    orders = vocprep.shard_orders(plan, out, ENGINE)
    assert [order.shard.name for order in orders] == [shard.name for shard in plan.shards]
    follow(orders[:3], setup_of(sample_tree, out))
    again = vocprep.shard_orders(plan, out, ENGINE)
    assert [order.shard.name for order in again] == [plan.shards[3].name]
    follow(again, setup_of(sample_tree, out))
    assert build_plan(plan, out, ENGINE).made == 0
    assert version_bytes(out) == version_bytes(finished)
    assert vocprep.shard_orders(plan, out, ENGINE) == []


def test_a_plan_and_an_order_pickle(sample_tree: Path) -> None:
    plan = make_plan(sample_tree, FOUR, ONE_PER_SHARD)
    assert pickle.loads(pickle.dumps(plan)) == plan
    for order in orders_of(plan):
        assert pickle.loads(pickle.dumps(order)) == order


def test_quarantined_samples_are_returned_for_the_driver_to_count(
    tree: Path, tmp_path: Path
) -> None:
    plan = make_plan(tree, FOUR, TWO_PER_SHARD)
    bad, good = plan.shards[0].samples
    bad.image_path.write_bytes(b"")
    with begun(plan, tmp_path / "out") as orders:
        (built,) = follow(orders[:1], setup_of(tree, tmp_path / "out"))
    assert [sample.id for sample in built.quarantined] == [bad.image_id]
    assert built.problems[0].startswith(f"{bad.image_path}: ")
    assert built.finished.entry is not None
    assert (built.finished.entry.records, good.split) == (1, built.finished.split)


def test_embeddings_of_an_earlier_version_are_reused(
    sample_tree: Path, finished: Path, tmp_path: Path
) -> None:
    other = make_plan(sample_tree, replace(FOUR, schema="context59"), TWO_PER_SHARD)
    setup = setup_of(sample_tree, tmp_path / "out", reuse=[finished])
    with begun(other, tmp_path / "out") as orders:
        built = follow(orders, setup)
    assert [shard.reused for shard in built] == [2, 2]
    assert sum(shard.stage_seconds["read"] for shard in built) > 0


def test_an_order_is_small(sample_tree: Path) -> None:
    """Most of it is the label space; a sample takes less than 200 bytes."""
    plan = make_plan(sample_tree, BuildChoices(), Layout())
    (order,) = (order for order in orders_of(plan) if order.shard.split == "train")
    empty = replace(order, shard=replace(order.shard, samples=()))
    assert len(pickle.dumps(empty)) < 20_000
    assert len(pickle.dumps(order)) - len(pickle.dumps(empty)) < 200 * len(order.shard.samples)


def test_paths_of_an_order_are_below_the_data_dir(sample_tree: Path) -> None:
    (first, *_) = orders_of(make_plan(sample_tree, FOUR, ONE_PER_SHARD))
    (sample,) = first.shard.samples
    assert sample.image_path == VOC / "JPEGImages" / f"{sample.image_id}.jpg"
    assert sample.label_path == Path("trainval") / f"{sample.image_id}.mat"


def test_a_process_keeps_its_backbone_until_an_order_needs_another(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[str] = []
    original = Embedder.__init__

    def counted(self: Embedder, *arguments: Any, **more: Any) -> None:
        original(self, *arguments, **more)
        made.append(self.spec.precision)

    monkeypatch.setattr(Embedder, "__init__", counted)
    for number, precision in enumerate(("bf16", "fp32", "fp32")):
        choices = BuildChoices(limit_per_split=1, precision=precision)
        plan, out = make_plan(sample_tree, choices, ONE_PER_SHARD), tmp_path / str(number)
        with begun(plan, out) as orders:
            follow(orders, setup_of(sample_tree, out))
    assert made == ["bf16", "fp32"]


def test_orders_change_nothing_of_torchs_threads(sample_tree: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    plan = make_plan(sample_tree, BuildChoices(limit_per_split=1), ONE_PER_SHARD)
    with begun(plan, tmp_path / "out") as orders:
        follow(orders, setup_of(sample_tree, tmp_path / "out", threads=before + 2))
    assert torch.get_num_threads() == before


# Refusals


CHANGES = {
    "order_version": (2, "order_version 2: expected 1; use one release of vocprep on all machines"),
    "versions": ({"numpy": "1.0"}, "versions.numpy: '1.0' and "),
    "numerics_class": ({"probe": "0"}, "numerics_class.probe: '0' and "),
    "recipe_id": ("ab" * 32, "recipe_id: abababababab… and "),
}


@pytest.mark.parametrize("field", CHANGES)
def test_an_order_that_would_give_other_bytes_here_is_refused(
    field: str, sample_tree: Path, tmp_path: Path
) -> None:
    value, expected = CHANGES[field]
    plan, out = make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out"
    with begun(plan, out) as orders:
        if isinstance(value, dict):
            value = {**getattr(orders[0], field), **value}
        changed: Any = replace(orders[0], **{field: value})
        before = version_bytes(out)
        with pytest.raises(UsageError) as caught:
            follow([changed], setup_of(sample_tree, out))
        assert expected in str(caught.value)
        assert version_bytes(out) == before


def test_other_weights_than_the_orders_are_refused(sample_tree: Path, tmp_path: Path) -> None:
    plan, out = make_plan(sample_tree, replace(FOUR, precision="fp32"), ONE_PER_SHARD), tmp_path
    with (
        begun(plan, out / "out") as orders,
        pytest.raises(WeightsError, match=r"^random:1: holds other weights than the"),
    ):
        follow(orders[:1], setup_of(sample_tree, out / "out", weights="random:1"))


def test_a_late_order_of_a_build_that_was_replaced_writes_nothing(
    sample_tree: Path, tmp_path: Path
) -> None:
    plan, out = make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out"
    other = make_plan(sample_tree, replace(FOUR, schema="context59"), ONE_PER_SHARD)
    late = orders_of(other)
    with begun(plan, out):
        before = version_bytes(out)
        with pytest.raises(UsageError) as caught:
            follow(late, setup_of(sample_tree, out))
        assert "is of another build, " in str(caught.value)
        assert late[0].build[:12] in str(caught.value)
        assert version_bytes(out) == before


def test_an_order_without_a_build_that_runs_writes_nothing(
    sample_tree: Path, finished: Path, tmp_path: Path
) -> None:
    shutil.copytree(finished, tmp_path / "out")
    before = version_bytes(tmp_path / "out")
    with pytest.raises(UsageError, match="is of no build"):
        follow(
            orders_of(make_plan(sample_tree, FOUR, ONE_PER_SHARD)),
            setup_of(sample_tree, tmp_path / "out"),
        )
    assert version_bytes(tmp_path / "out") == before


def test_a_shard_that_is_done_after_its_build_was_published_leaves_nothing(
    sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, out = make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out"
    with begun(plan, out) as orders:
        follow(orders, setup_of(sample_tree, out))
    original = Embedder.embed_images

    def publish_first(self: Embedder, *images: Any) -> Any:
        monkeypatch.undo()
        build_plan(plan, out, ENGINE)
        return original(self, *images)

    monkeypatch.setattr(Embedder, "embed_images", publish_first)
    with pytest.raises(UsageError, match="is of no build"):
        follow(orders[:1], setup_of(sample_tree, out))
    assert not (out / ".tmp-build").exists()
    assert vocprep.verify(out).ok
