"""Builds in several processes: the bytes of one, whatever interrupts them."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.pids import are_gone, children
from builders.progress import Interrupting, RecordedProgress
from builders.verbs import build_words
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, ONE_PER_SHARD, first_jpeg, make_plan
from builders.workers_here import Here

from vocprep.building.local import build_plan
from vocprep.building.output.staging import ABOUT, STAGING
from vocprep.building.plan import BuildPlan
from vocprep.building.processes import build as module
from vocprep.building.results import BuildResult
from vocprep.errors import FailureBudgetError, UsageError
from vocprep.geometry import Geometry
from vocprep.options import BuildChoices, BuildOptions, Layout, MaxFailures, Part

pytestmark = pytest.mark.slow

FOUR = BuildChoices(limit_per_split=2, precision="fp32")
TWO = replace(ENGINE, processes=2, workers=2)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> type[Here]:
    monkeypatch.setattr(module, "WorkerPool", Here)
    return Here


def build(plan: BuildPlan, out: Path, options: BuildOptions, **more: Any) -> BuildResult:
    result = build_plan(plan, out, options, **more)
    assert isinstance(result, BuildResult)
    return result


@pytest.fixture(scope="module")
def finished(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of four pictures that one process built; not to be written to."""
    out = tmp_path_factory.mktemp("finished") / "out"
    build(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    return out


@pytest.fixture
def damaged_tree(sample_tree: Path, tmp_path: Path) -> Path:
    """Pictures of which the first one does not decode."""
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    first_jpeg(tree).write_bytes(b"\xff\xd8 no JPEG")
    return tree


# In processes of their own, which load PyTorch: few of these


def test_two_processes_make_the_bytes_of_one(damaged_tree: Path, tmp_path: Path) -> None:
    plan, seen = make_plan(damaged_tree, FOUR, ONE_PER_SHARD), RecordedProgress()
    allowing = MaxFailures(count=1)
    one = build(plan, tmp_path / "one", replace(ENGINE, max_failures=allowing))
    two = build(plan, tmp_path / "two", replace(TWO, max_failures=allowing), progress=seen)
    assert version_bytes(tmp_path / "two") == version_bytes(tmp_path / "one")
    assert (two.made, two.shards, two.notes) == (one.made, one.shards, one.notes)
    assert two.index.quarantined == 1
    assert (seen.begun, seen.shown, seen.lines) == ([("images", 4, 0)], 4, [])
    assert two.stage_seconds["decode"] > 0


def test_interrupted_build_goes_on_to_the_same_bytes(
    sample_tree: Path, finished: Path, tmp_path: Path
) -> None:
    plan, out = make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build(plan, out, TWO, progress=InterruptedWithShards(out / STAGING))
    staged = len(list((out / STAGING).glob(f"*{ABOUT}")))
    again = build(plan, out, ENGINE)
    assert again.shards.resumed == staged > 0
    assert version_bytes(out) == version_bytes(finished)


class InterruptedWithShards(Interrupting):
    """Ctrl-C when a shard is finished."""

    def __init__(self, staging: Path) -> None:
        self._staging = staging

    def advance(self, count: int) -> None:
        if any(self._staging.glob(f"*{ABOUT}")):
            super().advance(count)


def test_no_process_outlives_a_killed_build(sample_tree: Path, tmp_path: Path) -> None:
    words = build_words(sample_tree, tmp_path / "out", "--processes", 2)
    build = subprocess.Popen([sys.executable, "-m", "vocprep", *map(str, words)])
    while len(workers := [pid for each in children(build.pid) for pid in children(each)]) < 2:
        assert build.poll() is None
        time.sleep(0.05)
    build.kill()
    build.wait()
    assert are_gone(workers)


# The rest of a build, with workers that are calls


@pytest.mark.parametrize(
    ("choices", "layout"),
    [
        (replace(FOUR, views=("identity", "flip")), replace(ONE_PER_SHARD, format="webdataset")),
        (replace(FOUR, limit_per_split=1, pca=8), ONE_PER_SHARD),
        (replace(FOUR, limit_per_split=1, geometry=Geometry(geometry="native")), ONE_PER_SHARD),
    ],
    ids=["tar of views", "pca", "native"],
)
def test_choices_of_a_build_reach_its_workers(
    choices: BuildChoices, layout: Layout, here: type[Here], sample_tree: Path, tmp_path: Path
) -> None:
    plan = make_plan(sample_tree, choices, layout)
    build(plan, tmp_path / "one", ENGINE)
    build(plan, tmp_path / "two", TWO)
    assert len(here.jobs) == 2
    assert version_bytes(tmp_path / "two") == version_bytes(tmp_path / "one")


def test_threads_are_divided_and_workers_are_no_more_than_shards(
    here: type[Here], sample_tree: Path, tmp_path: Path
) -> None:
    plan, seen = make_plan(sample_tree, FOUR, ONE_PER_SHARD), RecordedProgress()
    options = replace(ENGINE, processes=9, workers=10)
    build(plan, tmp_path / "out", options, progress=seen)
    assert [job.setup.readers for job in here.jobs] == [2, 3, 2, 3]
    assert seen.lines == ["4 shards to make, by 4 of 9 processes"]


def test_one_missing_shard_needs_no_processes(
    monkeypatch: pytest.MonkeyPatch, sample_tree: Path, tmp_path: Path
) -> None:
    def refuse(_jobs: object) -> None:
        raise AssertionError("started workers")

    monkeypatch.setattr(module, "WorkerPool", refuse)
    plan = make_plan(sample_tree, FOUR, ONE_PER_SHARD)
    options = replace(TWO, part=Part.parse("1/4"))
    assert build_plan(plan, tmp_path / "out", options).made == 1


def test_parts_and_embeddings_of_earlier_versions_work_in_processes(
    here: type[Here], sample_tree: Path, finished: Path, tmp_path: Path
) -> None:
    plan, out = make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out"
    options = replace(TWO, reuse=finished, part=Part.parse("0/2"))
    assert build_plan(plan, out, options).reused == 2
    assert build(plan, out, replace(options, part=None)).reused == 2
    assert len(here.jobs) == 2
    assert version_bytes(out) == version_bytes(finished)


def test_too_many_quarantined_pictures_stop_all_processes(
    here: type[Here], damaged_tree: Path, tmp_path: Path
) -> None:
    plan = make_plan(damaged_tree, FOUR, ONE_PER_SHARD)
    raised: list[str] = []
    for options in (ENGINE, TWO):
        with pytest.raises(FailureBudgetError) as caught:
            build(plan, tmp_path / "out", options)
        raised.append(str(caught.value))
    assert raised[0] == raised[1]
    assert here.jobs


def test_earlier_version_with_damaged_lists_is_not_reused(
    here: type[Here], sample_tree: Path, out: Path
) -> None:
    plan = make_plan(sample_tree, FOUR, ONE_PER_SHARD)
    expected = version_bytes(out)
    (out / "samples.jsonl").write_bytes(b"{}\n")
    first_shard = out / plan.shards[0].name
    first_shard.write_bytes(first_shard.read_bytes()[:-1])
    assert build(plan, out, TWO).made == 4
    assert version_bytes(out) == expected
    assert here.jobs


# Options that cannot work together


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"processes": 0}, "processes 0: expected 1 or more"),
        (
            {"processes": 2, "engine": "ray"},
            "processes 2 beside engine 'ray': a cluster starts its own on each node, as "
            "--task-cpus says; give one of the two",
        ),
    ],
)
def test_processes_that_cannot_be_are_one_sentence(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(UsageError) as caught:
        BuildOptions(**options)
    assert str(caught.value) == expected


def test_backbone_that_cannot_be_compiled_is_refused_before_any_process(
    monkeypatch: pytest.MonkeyPatch, here: Callable[..., Any], sample_tree: Path, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    plan = make_plan(sample_tree, FOUR, ONE_PER_SHARD)
    with pytest.raises(UsageError, match="compiling needs a C"):
        build(plan, tmp_path / "out", replace(TWO, compiled=True))
