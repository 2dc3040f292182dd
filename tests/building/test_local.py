"""A build on this machine: files, index, progress, errors, interrupts."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.progress import Interrupting, RecordedProgress
from builders.version_bytes import version_bytes
from builders.versions import ENGINE, JPEGS, ONE_PER_SHARD, make_plan
from filelock import FileLock

import vocprep
from vocprep.building.local import build_plan
from vocprep.building.pipeline import COMPILE_FROM, is_compiled, worth_compiling
from vocprep.errors import FailureBudgetError, ShardError, UsageError
from vocprep.features.embed import Embedder
from vocprep.options import BuildChoices, BuildOptions, Layout
from vocprep.recipe import Precision
from vocprep.shards.index import DatasetIndex, read_index
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

OVERWRITE = BuildOptions(device="cpu", workers=1, if_exists="overwrite")
FOUR = BuildChoices(limit_per_split=2)


@pytest.fixture(scope="module")
def finished(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished dataset version of four pictures; not to be written to."""
    out = tmp_path_factory.mktemp("finished") / "out"
    build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    return out


# The public function


def test_build_of_a_name_gives_what_the_command_writes(sample_tree: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen = RecordedProgress()
    result = vocprep.build(
        "pascal-context",
        data_dir=str(sample_tree),
        out=str(out),
        weights="random:0",
        choices=FOUR,
        progress=seen,
    )
    assert isinstance(result, vocprep.BuildResult)
    assert result.path == out
    assert result.index == read_index(out)
    said = result.to_json()
    assert said.pop("build")["shards"] == {"made": 2, "resumed": 0, "kept": 0}
    assert said == {**json.loads((out / "dataset.json").read_text()), "notes": []}
    assert (result.images, result.made, result.reused) == (4, 4, 0)
    assert not result.up_to_date
    assert sum(result.stage_seconds[stage] for stage in ("embed", "write")) > 0
    assert result.seconds > 0
    again = vocprep.build(
        "pascal-context", data_dir=sample_tree, out=out, weights="random:0", choices=FOUR
    )
    assert again.up_to_date
    assert again.index == result.index


def test_plan_and_build_are_functions_whatever_is_imported_before() -> None:
    importlib.import_module("vocprep.building.plan")
    assert callable(vocprep.plan)
    assert callable(vocprep.build)


# What is built


def test_finished_folder_holds_the_shards_and_the_index_only(finished: Path) -> None:
    assert {path.name for path in finished.iterdir()} == {
        *(".lock", "dataset.json", "samples.jsonl", "labels.json", "README.md", "croissant.json"),
        *(f"{split}-0000{n}-of-00002.h5" for split in ("train", "val") for n in (0, 1)),
    }


def test_returned_index_is_the_one_on_disk(sample_tree: Path, tmp_path: Path) -> None:
    index = build_plan(
        make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "new/out", ENGINE
    ).index
    assert isinstance(index, DatasetIndex)
    assert index == read_index(tmp_path / "new/out")


def test_index_holds_size_and_digest_of_every_shard(finished: Path) -> None:
    import hashlib  # noqa: PLC0415  # an oracle that nothing else here needs

    for shard in read_index(finished).shards:
        data = (finished / shard.name).read_bytes()
        assert (shard.bytes, shard.sha256) == (len(data), hashlib.sha256(data).hexdigest())


def test_progress_is_counted_once_a_picture(sample_tree: Path, tmp_path: Path) -> None:
    seen = RecordedProgress()
    choices = BuildChoices(limit_per_split=2, views=("identity", "flip"))
    build_plan(
        make_plan(sample_tree, choices, ONE_PER_SHARD), tmp_path / "out", ENGINE, progress=seen
    )
    assert seen.begun == [("images", 4, 0)]
    assert seen.shown == 4


def test_progress_is_reported_from_one_thread(sample_tree: Path, tmp_path: Path) -> None:
    seen = RecordedProgress()
    options = BuildOptions(device="cpu", workers=4)
    build_plan(
        make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out", options, progress=seen
    )
    assert seen.threads == {threading.get_ident()}


# A folder that is not empty


def test_finished_dataset_is_left_alone_by_the_same_command(sample_tree: Path, out: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in out.iterdir()}
    seen = RecordedProgress()
    result = build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE, progress=seen)
    assert result.index == read_index(out)
    assert {path.name: path.stat().st_mtime_ns for path in out.iterdir()} == before
    assert seen.shown == 4
    assert result.up_to_date
    assert (result.images, result.made, result.reused) == (4, 0, 0)
    assert not any(result.stage_seconds.values())


def test_fail_refuses_finished_and_unfinished_work_and_keeps_it(
    sample_tree: Path, out: Path
) -> None:
    before = version_bytes(out)
    fail = BuildOptions(device="cpu", workers=1, if_exists="fail")
    with pytest.raises(UsageError, match="a finished dataset") as caught:
        build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, fail)
    assert str(out) in str(caught.value)
    assert version_bytes(out) == before


def test_finished_dataset_of_another_recipe_is_refused_with_what_differs(
    sample_tree: Path, out: Path
) -> None:
    before = version_bytes(out)
    choices = BuildChoices(limit_per_split=2, schema="context59", embedding_dtype="float32")
    with pytest.raises(UsageError, match="another recipe") as caught:
        build_plan(make_plan(sample_tree, choices, ONE_PER_SHARD), out, ENGINE)
    assert str(out) in str(caught.value)
    assert "embedding_dtype: 'float16' and 'float32'" in str(caught.value)
    assert "schema.name: 'context460' and 'context59'" in str(caught.value)
    assert "geometry" not in str(caught.value)
    assert version_bytes(out) == before


def test_unreadable_index_is_a_shard_error_and_overwrite_replaces_it(
    sample_tree: Path, finished: Path, out: Path
) -> None:
    (out / "dataset.json").write_text("{")
    with pytest.raises(ShardError):
        build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, OVERWRITE)
    assert version_bytes(out) == version_bytes(finished)


@pytest.mark.parametrize("name", ["holiday.jpg", "notes.h5", "folder", "train-1-of-2.tar"])
def test_foreign_file_is_refused_and_kept(name: str, sample_tree: Path, out: Path) -> None:
    if name == "folder":
        (out / name).mkdir()
    else:
        (out / name).write_text("mine")
    before = version_bytes(out)
    for options in (ENGINE, OVERWRITE):
        with pytest.raises(UsageError, match=name):
            build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, options)
    assert version_bytes(out) == before
    assert (out / name).exists()


@pytest.mark.parametrize("name", [".DS_Store", "._dataset.json"])
def test_clutter_of_the_system_is_passed_over(name: str, sample_tree: Path, out: Path) -> None:
    (out / name).write_text("not ours")
    assert build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE).up_to_date
    assert (out / name).exists()


def test_changed_colours_are_stored_beside_the_same_shards(sample_tree: Path, out: Path) -> None:
    plain = make_plan(sample_tree, FOUR, ONE_PER_SHARD)
    before = version_bytes(out)
    coloured = replace(plain, label_space=plain.label_space.with_colours({2: "#1e90ff"}))
    again = build_plan(coloured, out, ENGINE)
    assert isinstance(again, vocprep.BuildResult)
    assert (again.made, again.published) == (0, True)
    assert ShardDataset.open(out).label_space.style.colour(2) == (30, 144, 255)
    changed = {name for name, data in version_bytes(out).items() if data != before[name]}
    assert changed == {"labels.json", "dataset.json"}
    assert read_index(out).content_id == json.loads(before["dataset.json"])["content_id"]
    unchanged = build_plan(coloured, out, ENGINE)
    assert isinstance(unchanged, vocprep.BuildResult)
    assert not unchanged.published
    build_plan(plain, out, ENGINE)
    assert version_bytes(out) == before


def test_overwrite_leaves_nothing_of_the_old_dataset(sample_tree: Path, out: Path) -> None:
    plan = make_plan(sample_tree, BuildChoices(limit_per_split=1), Layout(format="webdataset"))
    build_plan(plan, out, OVERWRITE)
    assert sorted(version_bytes(out)) == [
        "README.md",
        "croissant.json",
        "dataset.json",
        "labels.json",
        "samples.jsonl",
        "train-00000-of-00001.tar",
        "val-00000-of-00001.tar",
    ]
    assert ShardDataset.open(out).count("train") == 1


def test_rebuild_over_what_an_interrupted_build_left_gives_the_same_bytes(
    sample_tree: Path, finished: Path, out: Path
) -> None:
    (out / "dataset.json").unlink()
    (out / "train-00000-of-00002.h5").write_bytes(b"half of it")
    (out / "val-00000-of-00009.h5").write_bytes(b"of another cut")
    (out / ".tmp-build").mkdir()
    (out / ".tmp-build" / "train-00000-of-00002.h5").write_bytes(b"unfinished")
    build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    assert version_bytes(out) == version_bytes(finished)


def test_leftover_of_an_interrupted_write_does_not_block_a_rebuild(
    sample_tree: Path, finished: Path, out: Path
) -> None:
    """A process that is killed while it writes the index leaves a temporary file behind."""
    (out / "dataset.json").unlink()
    (out / ".tmp-0123abcd-dataset.json").write_text("{")
    build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    assert version_bytes(out) == version_bytes(finished)


# Failures


def cut_picture(tree: Path) -> Path:
    path = sorted((tree / JPEGS).iterdir())[-5]  # the second of val, which is embedded last
    path.write_bytes(path.read_bytes()[:2000])
    return path


def cut_labels(tree: Path) -> Path:
    path = sorted((tree / "trainval").iterdir())[-5]
    path.write_bytes(path.read_bytes()[:300])
    return path


@pytest.mark.parametrize("damage", [cut_picture, cut_labels])
@pytest.mark.parametrize("workers", [1, 4])
def test_failed_build_names_the_file_and_publishes_nothing(
    damage: Callable[[Path], Path], workers: int, tree: Path, tmp_path: Path
) -> None:
    plan = make_plan(tree, FOUR, ONE_PER_SHARD)
    path = damage(tree)
    assert path.stem == plan.samples[-1].image_id
    threads = threading.active_count()
    with pytest.raises(FailureBudgetError) as caught:
        build_plan(plan, tmp_path / "out", BuildOptions(device="cpu", workers=workers))
    assert str(path) in str(caught.value)
    assert {item.name for item in (tmp_path / "out").iterdir()} <= {".lock", ".tmp-build"}
    assert threading.active_count() == threads


@pytest.mark.parametrize("damage", [cut_picture, cut_labels])
def test_failed_overwrite_keeps_the_finished_dataset(
    damage: Callable[[Path], Path], tree: Path, out: Path
) -> None:
    plan = make_plan(
        tree, BuildChoices(limit_per_split=2, embedding_dtype="float32"), ONE_PER_SHARD
    )
    before = version_bytes(out)
    damage(tree)
    with pytest.raises(FailureBudgetError):
        build_plan(plan, out, OVERWRITE)
    after = version_bytes(out)
    assert {name: after[name] for name in before} == before
    assert all(name.startswith(".tmp-build/") for name in after.keys() - before.keys())
    assert ShardDataset.open(out).count("train") == 2


def test_interrupted_build_frees_the_lock_and_the_next_run_goes_on(
    sample_tree: Path, finished: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build_plan(
            make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE, progress=Interrupting()
        )
    assert not (out / "dataset.json").exists()
    build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    assert version_bytes(out) == version_bytes(finished)


def test_index_never_stands_beside_shards_that_are_not_its_own(
    sample_tree: Path, finished: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failing call at the end of a build leaves the old version whole."""
    before = version_bytes(out)

    def crash(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("vocprep.building.output.publish.write_index", crash)
        with pytest.raises(OSError, match="No space left"):
            build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, OVERWRITE)
    found = version_bytes(out)
    assert {name: found[name] for name in before} == before
    build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    assert version_bytes(out) == version_bytes(finished)


def test_second_writer_is_refused_and_touches_nothing(sample_tree: Path, out: Path) -> None:
    before = version_bytes(out)
    (out / ".tmp-build").mkdir()
    (out / ".tmp-build" / "theirs").write_text("unfinished")
    with FileLock(out / ".lock"), pytest.raises(UsageError, match="another build") as caught:
        build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, OVERWRITE)
    assert str(out) in str(caught.value)
    assert (out / ".tmp-build" / "theirs").exists()
    shutil.rmtree(out / ".tmp-build")
    assert version_bytes(out) == before


@pytest.mark.parametrize("below", [False, True])
def test_file_in_the_folders_place_is_refused_and_kept(
    below: bool, sample_tree: Path, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    out = file / "out" if below else file
    with pytest.raises(UsageError) as caught:
        build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), out, ENGINE)
    assert str(out) in str(caught.value)
    assert file.read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_that_may_not_be_written_to_is_refused(sample_tree: Path, tmp_path: Path) -> None:
    parent = tmp_path / "parent"
    parent.mkdir()
    parent.chmod(0o500)
    with pytest.raises(UsageError) as caught:
        build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), parent / "out", ENGINE)
    assert str(parent / "out") in str(caught.value)


def test_precision_is_part_of_the_recipe(sample_tree: Path) -> None:
    half = make_plan(sample_tree, BuildChoices(limit_per_split=2, precision="bf16"), ONE_PER_SHARD)
    assert half.recipe.recipe_id != make_plan(sample_tree, FOUR, ONE_PER_SHARD).recipe.recipe_id
    assert half.recipe.short_name.endswith("resnet32-bf16")


@pytest.mark.parametrize("precision", ["bf16", "exact"])
def test_only_long_builds_but_in_fp32_are_worth_compiling(
    precision: Precision, sample_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(
        sample_tree, BuildChoices(limit_per_split=2, precision=precision), ONE_PER_SHARD
    )
    monkeypatch.setattr("vocprep.building.pipeline.can_compile", lambda: True)
    assert not worth_compiling(plan.recipe, 4)
    monkeypatch.setitem(COMPILE_FROM, precision, 4)
    assert worth_compiling(plan.recipe, 4)
    assert not worth_compiling(plan.recipe, 3)
    in_fp32 = make_plan(sample_tree, replace(FOUR, precision="fp32"), ONE_PER_SHARD)
    assert not worth_compiling(in_fp32.recipe, 4)
    for device, compiled in {"cpu": True, "cuda": False, "cuda:1": False}.items():
        assert is_compiled(plan.recipe, 4, BuildOptions(device=device)) == compiled
    monkeypatch.setattr("vocprep.building.pipeline.can_compile", lambda: False)
    assert not worth_compiling(plan.recipe, 4)


def test_a_build_goes_on_where_compiling_fails_unasked_and_stops_where_it_was_asked_for(
    finished: Path, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: object) -> None:
        raise UsageError("the backbone does not compile")

    monkeypatch.setattr("vocprep.building.pipeline.Embedder.compile", fail)
    monkeypatch.setattr("vocprep.building.pipeline.worth_compiling", lambda *_: True)
    index = build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out", ENGINE).index
    assert index.content_id == read_index(finished).content_id
    asked = BuildOptions(device="cpu", compiled=True)
    with pytest.raises(UsageError, match="does not compile"):
        build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "asked", asked)


def test_several_embedding_threads_give_the_same_bytes_and_leave_torchs_own_alone(
    finished: Path, sample_tree: Path, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out", ENGINE)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)
    assert version_bytes(tmp_path / "out") == version_bytes(finished)


@pytest.mark.parametrize("slow", ["targets", "embed"])
def test_stage_times_show_whether_the_backbone_waits(
    slow: str, sample_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are in dataset.json too."""
    where = {
        "targets": "vocprep.building.stages.targets_with_areas",
        "embed": "vocprep.features.embed.Embedder._forward",
    }[slow]
    module, _, name = where.rpartition(".")
    owner = Embedder if slow == "embed" else importlib.import_module(module)
    original = getattr(owner, name)

    def delayed(*arguments: Any) -> Any:
        time.sleep(0.1)
        return original(*arguments)

    monkeypatch.setattr(owner, name, delayed)
    result = build_plan(make_plan(sample_tree, FOUR, ONE_PER_SHARD), tmp_path / "out", ENGINE)
    seconds = result.stage_seconds
    assert result.index.statistics["seconds"] == seconds
    assert list(seconds) == [
        *("read", "decode", "geometry", "targets", "embed", "write", "waiting"),
    ]
    if slow == "targets":
        assert seconds["targets"] >= 0.4
        assert seconds["waiting"] > 0.2
    else:
        assert seconds["embed"] >= 0.1
        assert seconds["waiting"] < seconds["embed"]
