"""Parts of a build that processes with one output folder make: ``build-shards --part I/N``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from builders.progress import Interrupting, RecordedProgress
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, ONE_PER_SHARD, TWO_PER_SHARD, WEIGHTS, first_jpeg, make_plan

import vocprep
from vocprep.building.describe import describe_plan
from vocprep.building.local import build_plan
from vocprep.building.output.publish import open_output, share_output
from vocprep.building.pipeline import COMPILE_FROM
from vocprep.building.plan import BuildKey, BuildPlan
from vocprep.building.results import PartResult
from vocprep.errors import FailureBudgetError, UsageError
from vocprep.features.devices import choose_devices, numerics_class
from vocprep.features.embed import Embedder
from vocprep.options import BuildChoices, BuildOptions, MaxFailures, Part

pytestmark = pytest.mark.slow

FOUR = BuildChoices(limit_per_split=2)
"""Two shards of each split, with one image each."""


@pytest.fixture(scope="module")
def finished(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of four images that one process built; not to be written to."""
    out = tmp_path_factory.mktemp("finished") / "out"
    build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    return out


@pytest.fixture
def plan(sample_tree: Path) -> BuildPlan:
    return make_plan(sample_tree, FOUR, ONE_PER_SHARD)


def build_part(plan: BuildPlan, out: Path, part: str, **more: Any) -> PartResult:
    result = build_plan(plan, out, replace(ENGINE, part=Part.parse(part)), **more)
    assert isinstance(result, PartResult)
    return result


def key_of(plan: BuildPlan) -> BuildKey:
    made_in = numerics_class(choose_devices("cpu"), precision=plan.recipe.precision)
    return BuildKey(plan=plan, numerics_class=made_in)


@contextmanager
def part_at_work(plan: BuildPlan, out: Path) -> Iterator[None]:
    """Another process that makes a part."""
    with share_output(out, key_of(plan)):
        yield


# Which shards


@pytest.mark.parametrize("count", [1, 2, 3, 5, 9])
def test_the_parts_of_a_build_are_all_of_it_and_nothing_twice(count: int) -> None:
    shards = list(range(7))
    parts = [Part(number=number, count=count).choose(shards) for number in range(count)]
    assert sorted(shard for part in parts for shard in part) == shards
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    assert all(shard % count == number for number, part in enumerate(parts) for shard in part)


@pytest.mark.parametrize(
    "text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "1/2/3", "1.0/2", " 0/2", "²/3", "0/", "/2"]
)
def test_a_part_that_is_none_is_one_sentence(text: str) -> None:
    for make in (Part.parse, lambda value: BuildOptions(part=value)):
        with pytest.raises(UsageError) as caught:
            make(text)
        assert str(caught.value) == (
            f"part {text!r}: expected I/N with a number I from 0 to N−1, e.g. 0/4 to 3/4 for four "
            "parts"
        )


def test_a_part_reads_what_it_prints() -> None:
    assert Part.parse(str(Part(number=3, count=12))) == Part(number=3, count=12)
    with pytest.raises(UsageError, match="number 2: expected less than count, 2"):
        Part(number=2, count=2)


def test_a_dry_run_of_a_part_lists_its_shards(plan: BuildPlan) -> None:
    whole = describe_plan(plan, ENGINE)
    parts = [describe_plan(plan, replace(ENGINE, part=Part(number=n, count=3))) for n in range(3)]
    assert [part.part for part in parts] == ["0/3", "1/3", "2/3"]
    assert [shard for part in parts for shard in part.shards] == [
        whole.shards[number] for number in (0, 3, 1, 2)
    ]
    for field in ("samples", "patches", "estimated_bytes"):
        assert sum(getattr(part, field) for part in parts) == getattr(whole, field)
    assert parts[0].to_json()["part"] == "0/3"
    assert whole.to_json()["part"] is None


# What a part makes


def test_parts_and_then_the_plain_build_give_the_bytes_of_one_build(
    plan: BuildPlan, finished: Path, tmp_path: Path
) -> None:
    out, seen = tmp_path / "out", RecordedProgress()
    first = build_part(plan, out, "0/2", progress=seen)
    names = [shard.name for shard in plan.shards]
    assert (first.shards, first.missing) == (tuple(names[::2]), tuple(names[1::2]))
    assert first.unfinished == (Part(number=1, count=2),)
    assert (first.images, first.made, first.reused, first.quarantined) == (2, 2, 0, 0)
    assert (seen.begun, seen.shown) == ([("images", 2, 0)], 2)
    assert {path.name for path in out.iterdir()} == {".lock", ".tmp-build"}
    second = build_part(plan, out, "1/2")
    assert (second.missing, second.unfinished) == ((), ())
    result = build_plan(plan, out, ENGINE)
    assert (result.made, result.published) == (0, True)
    assert version_bytes(out) == version_bytes(finished)
    assert not build_plan(plan, out, ENGINE).published


def test_a_part_of_a_finished_version_finds_nothing_missing(
    plan: BuildPlan, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build_plan(plan, out, ENGINE)
    before = version_bytes(out)
    again = build_part(plan, out, "1/2")
    assert (again.made, again.missing, again.unfinished) == (0, (), ())
    assert [path.name for path in (out / ".tmp-build").iterdir()] == ["build.json"]
    assert version_bytes(out).items() > before.items()
    assert not build_plan(plan, out, ENGINE).published


def test_the_plain_build_makes_what_no_part_made(
    plan: BuildPlan, finished: Path, tmp_path: Path
) -> None:
    build_part(plan, tmp_path / "out", "1/3")
    assert build_plan(plan, tmp_path / "out", ENGINE).made == 3
    assert version_bytes(tmp_path / "out") == version_bytes(finished)


def test_a_part_without_shards_makes_nothing(plan: BuildPlan, tmp_path: Path) -> None:
    result = build_part(plan, tmp_path / "out", "8/9")
    assert (result.shards, result.made, len(result.missing)) == ((), 0, 4)


def test_a_part_that_was_interrupted_goes_on(
    sample_tree: Path, plan: BuildPlan, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    class AtSecond(Interrupting):
        seen = 0

        def advance(self, count: int) -> None:
            self.seen += count
            if self.seen == 3:
                super().advance(count)

    with pytest.raises(KeyboardInterrupt):
        build_part(plan, out, "0/1", progress=AtSecond())
    assert 1 <= build_part(plan, out, "0/1").made < 4
    build_plan(plan, out, ENGINE)
    assert version_bytes(out) == version_bytes(finished)


def test_parts_over_a_finished_version_make_only_what_has_changed(
    tree: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build_plan(make_plan(tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    before = version_bytes(out)
    assert build_part(make_plan(tree, FOUR, ONE_PER_SHARD), out, "0/1").missing == ()
    changed = make_plan(tree, FOUR, ONE_PER_SHARD)
    first = changed.shards[0].samples[0]
    first.image_path.write_bytes(first.image_path.read_bytes() + b"after its end")
    assert [build_part(changed, out, part).made for part in ("0/2", "1/2")] == [1, 0]
    kept = {name: data for name, data in version_bytes(out).items() if "/" not in name}
    assert kept == before
    assert build_plan(changed, out, ENGINE).made == 0
    build_plan(changed, tmp_path / "fresh", ENGINE)
    assert version_bytes(out) == version_bytes(tmp_path / "fresh")


def test_parts_follow_a_lock_file(plan: BuildPlan, finished: Path, tmp_path: Path) -> None:
    lock, out = tmp_path / "voc.lock.json", tmp_path / "out"
    vocprep.lock(finished, lock)
    where: dict[str, Any] = {"out": out, "data_dir": plan.data_dir}
    for part in ("0/2", "1/2"):
        options = replace(ENGINE, part=Part.parse(part))
        assert isinstance(vocprep.build_locked(lock, **where, options=options), PartResult)
    assert vocprep.build_locked(lock, **where, options=ENGINE).made == 0
    assert version_bytes(out) == version_bytes(finished)


def test_a_part_compiles_as_the_whole_build_would(
    plan: BuildPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[Embedder] = []

    def compile_nothing(embedder: Embedder) -> None:
        compiled.append(embedder)

    monkeypatch.setattr("vocprep.building.pipeline.can_compile", lambda: True)
    monkeypatch.setattr(Embedder, "compile", compile_nothing)
    monkeypatch.setitem(COMPILE_FROM, "exact", 4)
    seen = RecordedProgress()
    build_part(plan, tmp_path / "out", "0/4", progress=seen)
    assert len(compiled) == 1
    assert seen.lines == [
        "compiling the backbone first, which pays from 4 views on in exact",
    ]
    build_part(plan, tmp_path / "out", "0/4")
    assert len(compiled) == 1
    assert describe_plan(plan, replace(ENGINE, part=Part.parse("0/4"))).compiled


# Failures


def test_a_part_may_fail_as_often_as_the_whole_build(tree: Path, tmp_path: Path) -> None:
    plan = make_plan(tree, FOUR, TWO_PER_SHARD)
    for sample in plan.shards[0].samples:
        sample.image_path.write_bytes(b"")
    half = replace(ENGINE, max_failures=MaxFailures.parse("50%"), part=Part.parse("0/2"))
    result = build_plan(plan, tmp_path / "out", half)
    assert isinstance(result, PartResult)
    assert (result.images, result.quarantined) == (2, 2)
    with pytest.raises(FailureBudgetError, match="at least 2 of 4 samples") as caught:
        build_plan(plan, tmp_path / "out", replace(half, max_failures=MaxFailures(count=1)))
    assert str(first_jpeg(tree)) in str(caught.value)
    sample = plan.shards[1].samples[0]
    sample.image_path.write_bytes(b"")
    build_plan(plan, tmp_path / "out", replace(half, part=Part.parse("1/2")))
    with pytest.raises(FailureBudgetError, match="at least 3 of 4 samples"):
        build_plan(plan, tmp_path / "out", replace(half, part=None))


@pytest.mark.parametrize(("if_exists", "verb"), [("overwrite", "delete"), ("fail", "refuse")])
def test_parts_only_go_on(if_exists: Any, verb: str) -> None:
    with pytest.raises(UsageError) as caught:
        BuildOptions(part="0/2", if_exists=if_exists)
    assert str(caught.value) == (
        f"if_exists {if_exists!r} beside part 0/2: expected resume, since parts would {verb} each "
        "other's shards"
    )


def test_a_part_of_another_recipe_is_refused_and_deletes_nothing(
    sample_tree: Path, plan: BuildPlan, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    build_part(plan, out, "0/2")
    before = version_bytes(out)
    other = make_plan(sample_tree, replace(FOUR, embedding_dtype="float32"), ONE_PER_SHARD)
    with pytest.raises(UsageError) as caught:
        build_part(other, out, "1/2")
    assert str(caught.value) == (
        f"{out}: holds an unfinished build of another recipe or layout, there and here: "
        "embedding_dtype: 'float16' and 'float32'; choose another --out, or delete "
        f"{out / '.tmp-build'} where nothing is being built"
    )
    assert version_bytes(out) == before


def test_a_plain_build_and_a_part_keep_each_other_out(plan: BuildPlan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    busy = f"{out}: another build is writing there"
    with part_at_work(plan, out), pytest.raises(UsageError, match=busy):
        build_plan(plan, out, ENGINE)
    with open_output(out, key_of(plan), "resume"), pytest.raises(UsageError, match=busy):
        build_part(plan, out, "0/2")


def test_a_part_deletes_nothing_that_others_are_writing(plan: BuildPlan, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with part_at_work(plan, out):
        unfinished = out / ".tmp-build" / ".tmp-0123456789abcdef"
        unfinished.write_bytes(b"half of a shard")
        build_part(plan, out, "0/4")
        assert unfinished.exists()
        assert len(build_part(plan, out, "1/4").missing) == 2
    build_plan(plan, out, ENGINE)
    assert not (out / ".tmp-build").exists()


def test_a_part_that_finished_nothing_is_not_in_the_way_of_another_build(
    sample_tree: Path, plan: BuildPlan, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    other = make_plan(sample_tree, replace(FOUR, embedding_dtype="float32"), ONE_PER_SHARD)
    with pytest.raises(KeyboardInterrupt):
        build_part(other, out, "0/2", progress=Interrupting())
    build_plan(plan, out, replace(ENGINE, if_exists="fail"))
    assert version_bytes(out) == version_bytes(finished)


# Real processes


def test_processes_at_once_on_one_folder_give_the_bytes_of_one_build(
    sample_tree: Path, finished: Path, tmp_path: Path
) -> None:
    """One of the parts is made by two of them, which cannot know of each other."""
    out = tmp_path / "out"
    command = [
        *(
            sys.executable,
            "-m",
            "vocprep",
            "build-shards",
            "pascal-context",
            "--limit-per-split",
            "2",
        ),
        *("--data-dir", str(sample_tree), "--out", str(out), "--weights", WEIGHTS),
        *("--samples-per-shard", "1", "--device", "cpu", "--workers", "1"),
    ]
    alone = {**os.environ, "OMP_NUM_THREADS": "1"}
    processes = [
        subprocess.Popen([*command, "--part", part], env=alone, stderr=subprocess.PIPE)
        for part in ("0/2", "1/2", "1/2")
    ]
    try:
        errors = [process.communicate(timeout=300)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0, 0], errors
    made = subprocess.run(command, env=alone, capture_output=True, text=True, check=True)
    assert "its shards were there, now published" in made.stdout
    assert version_bytes(out) == version_bytes(finished)
