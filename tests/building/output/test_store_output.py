"""Builds whose output is a URL of an object store: the bytes of a folder's, whatever happens."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from builders.s3 import S3, Exchange, busy, call_once
from builders.store_requests import Killed, before_requests, killing
from builders.verbs import invoke
from builders.versions import ENGINE, TWO_PER_SHARD, first_jpeg, make_plan, version_files

from vocprep import Part, PartResult, ShardOrder, WorkerSetup, build_shard, push
from vocprep.building.local import build_plan
from vocprep.building.output import store_publish, store_staging
from vocprep.building.plan import BuildKey, BuildPlan
from vocprep.errors import DataError, UsageError, VocprepError
from vocprep.features.devices import choose_devices, numerics_class
from vocprep.options import BuildChoices, BuildOptions
from vocprep.storage.places import parse_place
from vocprep.storage.store import StorePath

CHOICES = BuildChoices(limit_per_split=4)
OTHER = BuildChoices(limit_per_split=4, schema="context59")
SHARDS = ["train-00000-of-00002.h5", "train-00001-of-00002.h5", "val-00000-of-00001.h5"]
AGAIN = "run the same command again, which goes on with the finished shards"


@pytest.fixture(scope="module")
def plan(sample_tree: Path) -> BuildPlan:
    return make_plan(sample_tree, CHOICES, TWO_PER_SHARD)


@pytest.fixture(scope="module")
def folder(plan: BuildPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same version in a folder; not to be written to."""
    out = tmp_path_factory.mktemp("folder") / "out"
    build_plan(plan, out, ENGINE)
    return out


@pytest.fixture
def options(folder: Path) -> BuildOptions:
    """Embeddings come from the folder's version, which saves seconds."""
    return replace(ENGINE, reuse=folder)


def without_seconds(files: dict[str, bytes]) -> dict[str, bytes]:
    index = json.loads(files["dataset.json"])
    del index["statistics"]["seconds"], index["index_sha256"]
    return {**files, "dataset.json": json.dumps(index).encode()}


def objects(s3: S3, name: str = "v") -> dict[str, bytes]:
    return {each: s3.get(f"{name}/{each}") for each in s3.names(name)}


def assert_same(s3: S3, folder: Path, name: str = "v") -> None:
    assert without_seconds(objects(s3, name)) == without_seconds(version_files(folder))


def test_objects_are_the_files_of_a_folder(
    s3: S3, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    result = build_plan(plan, s3.url("v"), options)
    assert result.made == 6
    assert str(result.path) == s3.url("v")
    assert_same(s3, folder)
    with s3.through_proxy() as proxy:
        again = build_plan(plan, s3.url("v"), ENGINE)
        assert again.up_to_date
        assert proxy.count("PUT") == 0


def test_killed_before_any_request_it_goes_on(
    s3: S3, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    moment = 0
    while True:
        name = f"v{moment}"
        try:
            with before_requests(killing(moment)):
                build_plan(plan, s3.url(name), options)
        except Killed:
            described = sum(each.endswith(".about") for each in s3.names(name))
            was_published = "dataset.json" in s3.names(name)
            with s3.through_proxy() as proxy:
                build_plan(plan, s3.url(name), options)
                sent = [shard for shard in SHARDS if proxy.count("PUT", shard)]
            assert len(sent) <= (0 if was_published else 3 - described)
            assert_same(s3, folder, name)
            moment += 7
        else:
            break
    assert moment > 20


@pytest.mark.slow
def test_killed_by_the_system_the_same_command_goes_on(
    s3: S3, sample_tree: Path, folder: Path
) -> None:
    words = [
        *("build-shards", "pascal-context", "--data-dir", str(sample_tree), "--out", s3.url("v")),
        *(
            "--weights",
            "random:0",
            "--limit-per-split",
            "4",
            "--samples-per-shard",
            "2",
            "--device",
            "cpu",
        ),
        *("--workers", "1", "--reuse", str(folder)),
    ]
    with s3.through_proxy() as proxy:
        process = subprocess.Popen(
            [sys.executable, "-m", "vocprep", *words], stderr=subprocess.PIPE, text=True
        )
        proxy.faults.append(call_once(SHARDS[2], process.kill, method="PUT"))
        _, errors = process.communicate(timeout=120)
    assert process.returncode < 0, errors
    assert "dataset.json" not in s3.names("v")
    again = invoke(*words)
    assert again.exit_code == 0, again.output
    assert f"in {s3.url('v')}" in again.stdout
    assert_same(s3, folder)


def test_every_tenth_answer_is_503_and_answers_are_lost(
    s3: S3, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    def lose(exchange: Exchange) -> None:
        if exchange.method == "PUT" and exchange.number % 3 == 0:
            exchange.status, exchange.forward_first = 503, True

    with s3.through_proxy(busy(10), lose):
        build_plan(plan, s3.url("v"), options)
    assert_same(s3, folder)


def test_refused_permission_keeps_finished_shards(
    s3: S3, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    def refuse(exchange: Exchange) -> None:
        if exchange.method == "PUT" and exchange.key.endswith(SHARDS[2]):
            exchange.status, exchange.body = 403, b"<Error><Code>QuotaExceeded</Code></Error>"

    with s3.through_proxy(refuse), pytest.raises(DataError) as caught:
        build_plan(plan, s3.url("v"), options)
    assert str(caught.value).startswith(f"{s3.url('v')}/{SHARDS[2]}: ")
    assert str(caught.value).endswith(AGAIN)
    with s3.through_proxy() as proxy:
        result = build_plan(plan, s3.url("v"), options)
        assert [proxy.count("PUT", shard) for shard in SHARDS] == [0, 0, 1]
    assert result.made == 2
    assert_same(s3, folder)


# What is there already


def test_a_finished_version_is_never_changed_in_place(
    s3: S3, sample_tree: Path, plan: BuildPlan, tmp_path: Path, options: BuildOptions
) -> None:
    build_plan(plan, s3.url("v"), options)
    before = objects(s3)
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    image = first_jpeg(tree)
    image.write_bytes(image.read_bytes() + b"\0")
    changed = make_plan(tree, CHOICES, TWO_PER_SHARD)
    with pytest.raises(UsageError) as caught:
        build_plan(changed, s3.url("v"), options)
    assert str(caught.value) == (
        f"{s3.url('v')}: holds a finished dataset version of other images or label maps, and a "
        "version in an object store is never changed in place; choose another URL, with "
        f"--reuse {s3.url('v')} to take its embeddings over, or --if-exists overwrite"
    )
    with pytest.raises(UsageError, match="of another recipe or layout, there and here: schema"):
        build_plan(make_plan(sample_tree, OTHER, TWO_PER_SHARD), s3.url("v"), options)
    with pytest.raises(UsageError, match="holds objects and --if-exists is fail; nothing was done"):
        build_plan(plan, s3.url("v"), replace(options, if_exists="fail"))
    assert objects(s3) == before
    place = parse_place(s3.url("v"))
    again = build_plan(changed, s3.url("w"), replace(options, reuse=place))
    assert again.reused == 5


def test_overwriting_replaces_all_of_another_version(
    s3: S3, sample_tree: Path, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    other = make_plan(sample_tree, OTHER, TWO_PER_SHARD)
    overwriting = replace(options, if_exists="overwrite")
    build_plan(other, s3.url("v"), options)
    s3.put("v/train-00007-of-00008.h5", b"of a version with more shards")
    build_plan(plan, s3.url("v"), overwriting)
    assert_same(s3, folder)
    moment = 0
    while True:
        try:
            with before_requests(killing(moment)):
                build_plan(other, s3.url("v"), overwriting)
        except Killed:
            moment += 15
            build_plan(plan, s3.url("v"), overwriting)
            assert_same(s3, folder)
        else:
            break
    assert moment > 20


def test_overwriting_what_is_reused_is_refused(s3: S3, plan: BuildPlan, folder: Path) -> None:
    push(folder, s3.url("v"))
    place = parse_place(s3.url("v"))
    options = replace(ENGINE, if_exists="overwrite", reuse=place)
    with pytest.raises(UsageError, match="--reuse of the version that --if-exists overwrite del"):
        build_plan(plan, s3.url("v"), options)
    assert_same(s3, folder)


def test_damaged_object_of_a_finished_version(
    s3: S3, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    push(folder, s3.url("v"))
    s3.put(f"v/{SHARDS[1]}", b"damaged")
    with pytest.raises(UsageError) as caught:
        build_plan(plan, s3.url("v"), options)
    assert str(caught.value) == (
        f"{s3.url('v')}/{SHARDS[1]}: is not the shard that dataset.json lists; choose another "
        "URL, or --if-exists overwrite"
    )
    build_plan(plan, s3.url("v"), replace(options, if_exists="overwrite"))
    assert_same(s3, folder)


def test_unfinished_work_of_others_is_refused(
    s3: S3, sample_tree: Path, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    other = make_plan(sample_tree, OTHER, TWO_PER_SHARD)
    for writer, words in (
        (lambda: build_plan(other, s3.url("v"), options), "an unfinished build of another recipe"),
        (lambda: push(folder, s3.url("v")), "an unfinished push of another version"),
    ):
        for each in s3.names("v"):
            s3.delete(f"v/{each}")
        with before_requests(kill_at_shard), pytest.raises(Killed):
            writer()
        with pytest.raises(UsageError, match=f"holds {words}"):
            build_plan(plan, s3.url("v"), options)


@pytest.mark.parametrize(
    "claim", ["null", "5", "[1]", "{", "", '{"key": null}', '{"key": [1]}', '{"key": "recipe"}']
)
def test_a_claim_that_is_none_is_unfinished_work(
    s3: S3, plan: BuildPlan, folder: Path, options: BuildOptions, claim: str
) -> None:
    s3.put("v/.tmp-build/build.json", claim.encode())
    with pytest.raises(UsageError, match="holds an unfinished build; choose another --out, or"):
        build_plan(plan, s3.url("v"), options)
    with pytest.raises(UsageError, match="holds an unfinished build; choose another URL, or"):
        push(folder, s3.url("v"))
    assert s3.names("v") == [".tmp-build/build.json"]


def test_what_is_too_large_is_none_of_a_build(
    s3: S3, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    with before_requests(kill_at_shard), pytest.raises(Killed):
        build_plan(plan, s3.url("v"), options)
    about = [each for each in s3.names("v") if each.endswith(".about")]
    for each in about:
        s3.put(f"v/{each}", b"x" * 50_000)
    for module in (store_publish, store_staging):
        s3.environment.setattr(module, "MAX_JSON_BYTES", 40_000)
    build_plan(plan, s3.url("v"), options)
    assert_same(s3, folder)
    s3.put("w/.tmp-build/build.json", b"x" * 50_000)
    with pytest.raises(UsageError, match="holds an unfinished build; choose another --out, or"):
        build_plan(plan, s3.url("w"), options)
    build_plan(plan, s3.url("w"), replace(options, if_exists="overwrite"))
    assert about


def kill_at_shard(kind: str, path: StorePath) -> None:
    if kind.startswith("put") and path.name == SHARDS[1]:
        raise Killed


def test_other_things_below_the_url(s3: S3, plan: BuildPlan, options: BuildOptions) -> None:
    s3.put("v/notes.txt", b"mine")
    with pytest.raises(UsageError, match=r"holds 'notes\.txt', which is no part of a dataset"):
        build_plan(plan, s3.url("v"), options)
    assert s3.names("v") == ["notes.txt"]


# Several processes


def test_two_builds_at_once(s3: S3, plan: BuildPlan, folder: Path, options: BuildOptions) -> None:
    """At some moment of one build, another one makes and publishes the same version."""
    ends = set()
    for moment in range(1, 40, 8):
        name = f"v{moment}"
        seen = []

        def meanwhile(
            _kind: str, _path: StorePath, name: str = name, seen: list[int] = seen, at: int = moment
        ) -> None:
            seen.append(len(seen))
            if len(seen) == at:
                build_plan(plan, s3.url(name), options)

        with before_requests(meanwhile):
            try:
                build_plan(plan, s3.url(name), options)
                ends.add("published")
            except DataError as error:
                ends.add(str(error).partition(": ")[2])
        assert_same(s3, folder, name)
    assert ends == {
        "published",
        "another process has published a version there meanwhile; run the same command again, "
        "which compares it",
    }


def test_workers_of_another_build_are_refused(
    s3: S3, sample_tree: Path, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    """A late worker of a build that was overwritten: nothing of it gets into the new version."""
    other = make_plan(sample_tree, OTHER, TWO_PER_SHARD)
    key = BuildKey(plan=other, numerics_class=numerics())
    order = ShardOrder.of(key, other.shards[1], "simplejpeg", compiled=False)
    setup = WorkerSetup(
        data_dir=sample_tree,
        out=parse_place(s3.url("v")),
        weights="random:0",
        device="cpu",
        threads=1,
        reuse=(folder,),
    )
    with pytest.raises(UsageError, match="that build has ended or was replaced"):
        build_shard(order, setup)
    with before_requests(kill_at_shard), pytest.raises(Killed):
        build_plan(other, s3.url("v"), options)
    build_shard(order, setup)
    assert SHARDS[1] in s3.names("v")
    build_plan(plan, s3.url("v"), replace(options, if_exists="overwrite"))
    with pytest.raises(UsageError, match="that build has ended or was replaced"):
        build_shard(order, setup)
    assert_same(s3, folder)


def numerics() -> dict[str, str]:
    return numerics_class(choose_devices("cpu"), "simplejpeg", "exact")


def test_shards_of_workers_are_taken_over(
    s3: S3, sample_tree: Path, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    with before_requests(kill_at_shard), pytest.raises(Killed):
        build_plan(plan, s3.url("v"), options)
    key = BuildKey(plan=plan, numerics_class=numerics())
    setup = WorkerSetup(
        data_dir=sample_tree,
        out=parse_place(s3.url("v")),
        weights="random:0",
        device="cpu",
        threads=1,
        reuse=(folder,),
    )
    for shard in plan.shards:
        built = build_shard(ShardOrder.of(key, shard, "simplejpeg", compiled=False), setup)
        assert built.finished.entry is not None
    result = build_plan(plan, s3.url("v"), options)
    assert result.made == 0
    assert_same(s3, folder)


def test_a_build_that_fails_before_its_first_shard_leaves_nothing(
    s3: S3, sample_tree: Path, tmp_path: Path
) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(sample_tree, tree)
    damaged = make_plan(tree, CHOICES, TWO_PER_SHARD)
    first_jpeg(tree).write_bytes(b"no image")
    with pytest.raises(VocprepError, match="samples cannot be"):
        build_plan(damaged, s3.url("v"), ENGINE)
    assert s3.names("v") == []


def test_parts_and_the_build_that_publishes_them(
    s3: S3, plan: BuildPlan, folder: Path, options: BuildOptions
) -> None:
    for number in (1, 0):
        part = build_plan(plan, s3.url("v"), replace(options, part=Part(number=number, count=2)))
        assert isinstance(part, PartResult)
        assert not part.missing or number == 1
    assert "dataset.json" not in s3.names("v")
    result = build_plan(plan, s3.url("v"), options)
    assert result.made == 0
    assert_same(s3, folder)
    again = build_plan(plan, s3.url("v"), replace(options, part=Part(number=0, count=2)))
    assert again.made == 0
    assert_same(s3, folder)


def test_command_builds_by_a_lock_file_at_a_url(
    s3: S3, sample_tree: Path, folder: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "voc.lock.json"
    assert invoke("inspect", folder, "--lock", lock).exit_code == 0
    words = (
        *("build-shards", "--lock", lock, "--data-dir", sample_tree, "--out", s3.url("v")),
        *("--weights", "random:0", "--device", "cpu", "--workers", 1, "--reuse", folder),
    )
    first = invoke(*words)
    assert first.exit_code == 0, first.output
    assert f"hdf5 shards, 0.3 MB, in {s3.url('v')}\n" in first.stdout
    again = invoke(*words)
    assert "up to date: checked in" in again.stdout
    assert_same(s3, folder)
    assert invoke("verify", s3.url("v"), "--lock", lock).exit_code == 0
