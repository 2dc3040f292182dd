"""What a build makes of the shards of a cluster; the cluster is this process."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from builders.progress import RecordedProgress
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, TWO_PER_SHARD, build, first_jpeg, make_plan

from vocprep.building.local import build_plan
from vocprep.building.orders import BuiltShard, ShardOrder, WorkerSetup, build_shard
from vocprep.building.output.staging import STAGING
from vocprep.building.ray import build as module
from vocprep.errors import DataError, FailureBudgetError
from vocprep.options import BuildChoices

pytestmark = pytest.mark.slow

FOUR = BuildChoices(limit_per_split=2)
NODE = "far (10.0.0.9)"


class Here:
    """A cluster of one node, which becomes two: this process."""

    data_dir: Path | None = None
    """Where the node finds other files than the driver."""
    loses = False
    """Whether what the node writes does not get to the driver."""
    room = 2

    def __init__(self, *_: object) -> None:
        self.nodes = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def build(
        self, orders: Iterable[ShardOrder], setup: WorkerSetup
    ) -> Iterator[tuple[str, BuiltShard]]:
        for order in reversed(list(orders)):
            built = build_shard(order, replace(setup, data_dir=self.data_dir or setup.data_dir))
            if self.loses:
                (setup.out / STAGING / built.name).unlink()
            yield NODE, built
            self.nodes = 2


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    """The cluster of all builds, to be changed by a test."""
    made = type("Changed", (Here,), {})
    monkeypatch.setattr(module, "RayCluster", made)
    monkeypatch.setattr("vocprep.building.local.check_ray", lambda _options: None)
    return made


def on_ray(tree: Path, out: Path, **options: Any) -> Any:
    made = make_plan(tree, FOUR, TWO_PER_SHARD)
    return build_plan(made, out, replace(ENGINE, engine="ray", **options))


def test_shards_in_any_order_give_the_bytes_of_one_process(
    sample_tree: Path, tmp_path: Path
) -> None:
    seen, out = RecordedProgress(), tmp_path / "ray"
    options = replace(ENGINE, engine="ray")
    result = build_plan(make_plan(sample_tree, FOUR, TWO_PER_SHARD), out, options, progress=seen)
    local = build(sample_tree, tmp_path / "local", FOUR, TWO_PER_SHARD)
    assert version_bytes(out) == version_bytes(local.path)
    assert result.made == 4
    assert result.stage_seconds["embed"] > 0
    begun = [("images", 4, 0), ("images on 1 node", 4, 0), ("images on 2 nodes", 4, 4)]
    assert seen.begun == begun
    again = on_ray(sample_tree, out)
    assert again.up_to_date


def test_embeddings_of_an_earlier_version_are_reused(sample_tree: Path, tmp_path: Path) -> None:
    earlier = build(sample_tree, tmp_path / "earlier", FOUR, TWO_PER_SHARD)
    result = on_ray(sample_tree, tmp_path / "ray", reuse=earlier.path)
    assert result.reused == 4
    assert version_bytes(tmp_path / "ray") == version_bytes(earlier.path)


def test_damaged_image_is_counted_against_the_budget(tree: Path, tmp_path: Path) -> None:
    first_jpeg(tree).write_bytes(b"\xff\xd8 no picture")
    with pytest.raises(FailureBudgetError, match="at least 1 of 4 samples cannot be used"):
        on_ray(tree, tmp_path / "ray")
    local = build(tree, tmp_path / "local", FOUR, TWO_PER_SHARD, max_failures=1)
    on_ray(tree, tmp_path / "ray", max_failures=1)
    assert version_bytes(tmp_path / "ray") == version_bytes(local.path)


def test_file_that_only_the_node_cannot_use_is_no_quarantined_sample(
    here: type[Here], sample_tree: Path, tmp_path: Path
) -> None:
    here.data_dir = tmp_path / "there"
    shutil.copytree(sample_tree, here.data_dir)
    first_jpeg(here.data_dir).unlink()
    name = first_jpeg(sample_tree).stem
    with pytest.raises(DataError, match=rf"^{name}: Ray node far \(10\.0\.0\.9\) could not use"):
        on_ray(sample_tree, tmp_path / "ray", max_failures=4)


def test_shard_that_does_not_arrive_names_its_node(
    here: type[Here], monkeypatch: pytest.MonkeyPatch, sample_tree: Path, tmp_path: Path
) -> None:
    here.loses = True
    monkeypatch.setattr(module, "ARRIVAL_SECONDS", 0.0)
    with pytest.raises(DataError, match=r"Ray node far \(10\.0\.0\.9\) has written it, and this"):
        on_ray(sample_tree, tmp_path / "ray")


def test_a_folder_relative_to_the_driver_is_absolute_on_the_nodes(
    here: type[Here], monkeypatch: pytest.MonkeyPatch, sample_tree: Path, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    setups: list[WorkerSetup] = []

    def remember(_self: Here, _orders: object, setup: WorkerSetup) -> Iterator[Any]:
        setups.append(setup)
        return iter(())

    monkeypatch.setattr(here, "build", remember)
    with pytest.raises(KeyError):  # no shard came
        on_ray(sample_tree, Path("ray"), task_cpus=3)
    (setup,) = setups
    assert (setup.out, setup.threads, setup.device) == (tmp_path / "ray", 3, "cpu")
    assert setup.weights == "random:0"
