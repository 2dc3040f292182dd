"""Builds on a Ray cluster of two nodes: the bytes of a build without it, whatever is lost."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.ray_nodes import (
    ADDRESS,
    RUNS,
    RayNodes,
    command_of,
    ray_nodes,
    wait_for,
    why_not,
)
from builders.version_bytes import version_bytes
from builders.versions import ONE_PER_SHARD, build

from vocprep.building.output.staging import STAGING

pytestmark = pytest.mark.slow
STOPPED = "stopped; finished shards are kept: run the same command again to continue\n"
CONNECTED = "Ray cluster of 2 nodes: up to 2 shards at a time, 1 CPU each\n"


@pytest.fixture(scope="module")
def hidden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that is empty on the second node."""
    return tmp_path_factory.mktemp("hidden")


@pytest.fixture(scope="module")
def nodes(hidden: Path) -> Iterator[RayNodes]:
    if importlib.util.find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install -e '.[dev]'")
    if (problem := why_not()) is not None:
        pytest.skip(f"a Ray cluster is tested in namespaces, which cannot be made here: {problem}")
    with ray_nodes(hidden) as made:
        yield made


@pytest.fixture(scope="module")
def expected(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The files of a build in one process."""
    built = build(sample_tree, tmp_path_factory.mktemp("local") / "out", None, ONE_PER_SHARD)
    return version_bytes(built.path)


def words(tree: Path, out: Path, *more: object) -> list[object]:
    """A build of twelve shards on the cluster."""
    return [
        *("build-shards", "pascal-context", "--data-dir", tree, "--out", out),
        *("--weights", "random:0", "--samples-per-shard", 1, "--device", "cpu"),
        *("--engine", "ray", "--ray-address", ADDRESS, *more),
    ]


def staged(out: Path) -> dict[str, int]:
    """The inodes of the shards that are finished and wait for the others, by name."""
    described = list((out / STAGING).glob("*.about"))
    return {path.stem: path.with_suffix("").stat().st_ino for path in described}


def test_build_survives_ctrl_c_a_killed_driver_and_a_lost_node(
    nodes: RayNodes, sample_tree: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out, kept = tmp_path / "out", dict[str, int]()
    for ending in (signal.SIGINT, signal.SIGKILL, None):
        started = nodes.vocprep(words(sample_tree, out))
        wait_for(lambda: staged(out).keys() > kept.keys() and nodes.works("second"), RUNS)  # noqa: B023
        if ending is None:
            nodes.lose("second")
        else:
            os.kill(command_of(started), ending)
        printed, errors = started.communicate(timeout=RUNS)
        if ending is not None:
            assert kept.items() <= staged(out).items()
            kept = staged(out)
            assert not (out / "dataset.json").exists()
        if ending == signal.SIGINT:
            assert (started.returncode, printed, errors) == (130, "", CONNECTED + STOPPED)
    assert started.returncode == 0, errors
    assert "12 hdf5 shards" in printed
    assert version_bytes(out) == expected
    assert {name: (out / name).stat().st_ino for name in kept} == kept  # they were not made again


def test_node_that_does_not_see_the_data_dir_is_named(
    nodes: RayNodes, sample_tree: Path, hidden: Path, tmp_path: Path
) -> None:
    nodes.start("second")
    shutil.copytree(sample_tree, hidden / "tree")
    started = nodes.vocprep(words(hidden / "tree", tmp_path / "out"))
    printed, errors = started.communicate(timeout=RUNS)
    assert (started.returncode, printed) == (3, "")
    assert "2 nodes" in errors  # at once, or as soon as the second has joined
    assert "\nerror: " in errors
    assert errors.endswith(
        f" on Ray node second (127.0.0.2): {hidden / 'tree'}: is not there; all nodes use the path "
        "of --data-dir: give a folder that all of them share\n"
    )


def test_cluster_of_one_machine_ends_with_the_build(
    nodes: RayNodes, sample_tree: Path, expected: dict[str, bytes], tmp_path: Path
) -> None:
    out, scratch = tmp_path / "out", nodes.folder / "local"
    scratch.mkdir()
    before = nodes.processes()
    started = nodes.vocprep([*words(sample_tree, out)[:-2]], TMPDIR=str(scratch))
    _, errors = started.communicate(timeout=RUNS)
    assert started.returncode == 0, errors
    assert errors.startswith("Ray cluster of 1 node: ")
    assert version_bytes(out) == expected
    assert list(scratch.iterdir()) == []
    wait_for(lambda: nodes.processes() <= before, 20)
