"""Publishing in an object store: a real server, and what networks and other writers do."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from builders.progress import RecordedProgress
from builders.s3 import S3, Exchange, busy, call_once
from builders.store_requests import Killed, before_requests, killing
from builders.verbs import invoke
from builders.versions import version_files

from vocprep import PushResult, TransferOptions, push
from vocprep.errors import DataError, ShardError, UsageError, VocprepError
from vocprep.shards.index import read_index, write_index
from vocprep.storage.places import parse_place
from vocprep.storage.store import StorePath

OVERWRITE = TransferOptions(if_exists="overwrite")
AGAIN = "run the same command again, which goes on with what is there"
SHARDS = [f"train-0000{number}-of-00005.h5" for number in range(5)]


def objects(s3: S3, name: str = "v") -> dict[str, bytes]:
    return {each: s3.get(f"{name}/{each}") for each in s3.names(name)}


def test_objects_are_the_files_with_their_digests(s3: S3, version: Path) -> None:
    progress = RecordedProgress()
    result = push(version, s3.url("v"), progress=progress)
    assert (result.published, result.sent, result.objects) == (True, 10, 10)
    files = version_files(version)
    assert objects(s3) == files
    folder = parse_place(s3.url("v"))
    assert isinstance(folder, StorePath)
    for name, data in files.items():
        found = (folder / name).facts()
        assert found is not None
        assert found.sha256 == hashlib.sha256(data).hexdigest()
    listed = sum(map(len, files.values())) - len(files["dataset.json"])
    assert progress.begun == [("push", listed, 0)]
    assert progress.shown == listed
    assert result.sent_bytes == sum(map(len, files.values()))
    assert len(progress.threads) == 1
    assert f"published, {result.sent} sent" in repr(result)


def test_locks_hints_and_clutter_stay_here(s3: S3, version: Path, tmp_path: Path) -> None:
    folder = tmp_path / "version"
    shutil.copytree(version, folder)
    for name in (".lock", ".weights.json", ".DS_Store", ".tmp-left", "notes.txt"):
        (folder / name).write_text("{}")
    push(folder, s3.url("v"))
    assert s3.names("v") == sorted(version_files(version))


def test_dataset_json_is_put_last_and_once(s3: S3, version: Path) -> None:
    with s3.through_proxy() as proxy:
        push(version, s3.url("v"))
        keys = [key.rpartition("/")[2] for method, key in proxy.requests if method == "PUT"]
    assert keys[0] == "build.json"
    assert keys[-1] == "dataset.json"
    assert sorted(keys) == sorted([*version_files(version), "build.json"])


def test_what_is_there_is_neither_read_nor_sent(s3: S3, version: Path, tmp_path: Path) -> None:
    push(version, s3.url("v"))
    with s3.through_proxy() as proxy:
        again = push(version, s3.url("v"))
        assert proxy.count("PUT") == proxy.count("DELETE") == 0
    assert (again.published, again.sent, again.sent_bytes) == (False, 0, 0)
    s3.delete(f"v/{SHARDS[2]}")
    mended = push(version, s3.url("v"))
    assert (mended.published, mended.sent) == (False, 1)
    assert objects(s3) == version_files(version)


def test_a_version_built_again_was_there(s3: S3, version: Path, tmp_path: Path) -> None:
    push(version, s3.url("v"))
    folder = tmp_path / "again"
    shutil.copytree(version, folder)
    index = read_index(folder)
    statistics = {**index.statistics, "seconds": {"read": 99.0}}
    write_index(folder, index.model_copy(update={"statistics": statistics}).sealed())
    assert not push(folder, s3.url("v")).published
    assert objects(s3) == version_files(version)


def test_killed_before_any_request_it_goes_on(s3: S3, version: Path) -> None:
    one = TransferOptions(workers=1)
    moment = 0
    while True:
        name = f"v{moment}"
        try:
            with before_requests(killing(moment)):
                push(version, s3.url(name), one)
        except Killed:
            was_published = "dataset.json" in s3.names(name)
            assert push(version, s3.url(name), one).published == (not was_published)
            assert objects(s3, name) == version_files(version)
            moment += 1
        else:
            break
    assert moment > 15  # a request for each object at least


@pytest.mark.slow
def test_killed_by_the_system_the_same_command_goes_on(s3: S3, version: Path) -> None:
    words = [sys.executable, "-m", "vocprep", "push", str(version), s3.url("v"), "--workers", "1"]
    with s3.through_proxy() as proxy:
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        proxy.faults.append(call_once(SHARDS[3], process.kill, method="PUT"))
        _, errors = process.communicate(timeout=120)
    assert process.returncode < 0, errors
    assert "dataset.json" not in s3.names("v")
    assert push(version, s3.url("v")).sent < 10
    assert objects(s3) == version_files(version)


def test_interrupted_command_says_how_to_go_on(
    s3: S3, version: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.cli.transfer.Bars.advance", _interrupt)
    result = invoke("push", version, s3.url("v"))
    assert result.exit_code == 130
    assert result.stderr == (
        "stopped; what was sent is kept: run the same command again to go on from there\n"
    )
    monkeypatch.undo()


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_server_killed_and_started_again(s3: S3, version: Path) -> None:
    reached = threading.Event()
    with (
        s3.through_proxy(call_once(SHARDS[2], reached.set, method="PUT")) as proxy,
        ThreadPoolExecutor(1) as pool,
    ):
        pushing = pool.submit(push, version, s3.url("v"))
        assert reached.wait(60)
        s3.server.kill()
        with proxy.refusing():
            s3.server.start()
        assert pushing.result(100).published
    assert objects(s3) == version_files(version)


def test_connections_refused_for_a_while(s3: S3, version: Path) -> None:
    with s3.through_proxy() as proxy:
        proxy.faults.append(call_once(SHARDS[1], lambda: proxy.refuse_for(0.5), method="PUT"))
        assert push(version, s3.url("v")).published
    assert objects(s3) == version_files(version)


def test_every_tenth_answer_is_503(s3: S3, version: Path) -> None:
    with s3.through_proxy(busy(10)) as proxy:
        assert push(version, s3.url("v")).published
        assert proxy.requests.total() > 15
    assert objects(s3) == version_files(version)


def test_answers_that_are_lost(s3: S3, version: Path) -> None:
    def lose(exchange: Exchange) -> None:
        if exchange.method == "PUT" and exchange.number % 2:
            exchange.status, exchange.forward_first = 503, True

    with s3.through_proxy(lose):
        result = push(version, s3.url("v"))
    assert result.index.short_id
    assert objects(s3) == version_files(version)


@pytest.mark.usefixtures("impatient")
def test_store_that_does_not_answer(s3: S3, version: Path) -> None:
    push(version, s3.url("v"))
    with s3.through_proxy() as proxy, proxy.refusing():
        result = invoke("push", version, s3.url("v"))
    assert result.exit_code == 3
    assert result.stderr.startswith(f"error: {s3.url('v')}")
    assert result.stderr.endswith(f"{AGAIN}\n")


def refusing(status: int, code: str, name: str) -> Callable[[Exchange], None]:
    def fault(exchange: Exchange) -> None:
        if exchange.method == "PUT" and exchange.key.endswith(name):
            exchange.status = status
            exchange.body = f"<Error><Code>{code}</Code><Message>No.</Message></Error>".encode()

    return fault


def test_refused_permission_keeps_what_is_there(s3: S3, version: Path) -> None:
    with (
        s3.through_proxy(refusing(403, "AccessDenied", SHARDS[4])),
        pytest.raises(DataError) as caught,
    ):
        push(version, s3.url("v"), TransferOptions(workers=1))
    assert str(caught.value).startswith(f"{s3.url('v')}/{SHARDS[4]}: ")
    assert str(caught.value).endswith(AGAIN)
    assert push(version, s3.url("v")).sent <= 6


def test_bucket_that_is_not_there(s3: S3, version: Path) -> None:
    del s3
    with pytest.raises(DataError, match=f"^s3://nobody-made-this/v.*{AGAIN}"):
        push(version, "s3://nobody-made-this/v")


# Damaged and unfinished versions


def test_damaged_file_is_never_published(s3: S3, version: Path, tmp_path: Path) -> None:
    folder = tmp_path / "version"
    for name in ("samples.jsonl", SHARDS[3]):
        data = bytearray((version / name).read_bytes())
        data[-1] ^= 1
        shutil.copytree(version, folder, dirs_exist_ok=True)
        (folder / name).write_bytes(data)
        with pytest.raises(ShardError, match=f"{name}: expected .* bytes of sha256"):
            push(folder, s3.url("v"))
        assert not {"dataset.json", name} & {*s3.names("v")}
        assert name != "samples.jsonl" or not s3.names("v")  # looked at before anything is sent


def test_missing_shard_is_found_before_anything_is_sent(
    s3: S3, version: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "version"
    shutil.copytree(version, folder)
    (folder / SHARDS[4]).unlink()
    with pytest.raises(ShardError, match=f"{SHARDS[4]}: is missing"):
        push(folder, s3.url("v"))
    assert s3.names("v") == []


def test_unfinished_version_is_refused(s3: S3, tmp_path: Path) -> None:
    (tmp_path / "out/.tmp-build").mkdir(parents=True)
    with pytest.raises(ShardError, match="found an unfinished build; run the same vocprep build-"):
        push(tmp_path / "out", s3.url("v"))
    assert s3.names("v") == []


def test_places_of_other_kinds(s3: S3, version: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        push(s3.url("v"), s3.url("w"))
    assert str(caught.value) == (
        f"{s3.url('v')}: expected the folder of a dataset version, found a URL; fetch it with "
        "vocprep pull first"
    )
    for url in (tmp_path / "copy", f"file://{tmp_path}/copy"):
        with pytest.raises(UsageError) as caught:
            push(version, url)
        assert str(caught.value) == (
            f"{tmp_path}/copy: expected the URL of an object store, such as s3://bucket/shards, "
            "found a folder of this machine; copy the version there with cp -r"
        )


# Other versions, other writers


def test_another_version_is_refused_and_replaced_on_demand(
    s3: S3, version: Path, other: Path
) -> None:
    push(version, s3.url("v"))
    before = objects(s3)
    with pytest.raises(UsageError, match=r"holds another version, .*; choose another URL, or"):
        push(other, s3.url("v"))
    with pytest.raises(UsageError, match="holds objects and --if-exists is fail; nothing was"):
        push(version, s3.url("v"), TransferOptions(if_exists="fail"))
    assert objects(s3) == before
    s3.put("v/train-00005-of-00006.h5", b"of a version with more shards")
    assert push(other, s3.url("v"), OVERWRITE).published
    assert objects(s3) == version_files(other)


def test_overwriting_begins_with_dataset_json(s3: S3, version: Path, other: Path) -> None:
    push(version, s3.url("v"))
    moment = 0
    while True:
        try:
            with before_requests(killing(moment)):
                push(other, s3.url("v"), TransferOptions(workers=1, if_exists="overwrite"))
        except Killed:
            moment += 3
            there = objects(s3)
            if "dataset.json" in there:  # a whole version, of the one or of the other
                files = [version_files(each) for each in (version, other)]
                assert any(there.items() >= whole.items() for whole in files)
            push(version, s3.url("v"), OVERWRITE)
            assert objects(s3) == version_files(version)
        else:
            break
    assert objects(s3) == version_files(other)
    assert moment > 20


def test_objects_of_others_are_refused(s3: S3, version: Path) -> None:
    s3.put("v/" + SHARDS[1], b"of somebody else")
    with pytest.raises(UsageError) as caught:
        push(version, s3.url("v"))
    assert f"{SHARDS[1]}: expected nothing or " in str(caught.value)
    assert "found 16 bytes without a sha256" in str(caught.value)
    assert s3.get("v/" + SHARDS[1]) == b"of somebody else"
    assert ".tmp-build/build.json" not in s3.names("v")
    push(version, s3.url("v"), OVERWRITE)
    assert objects(s3) == version_files(version)


@pytest.mark.parametrize("options", [None, OVERWRITE])
def test_folder_of_other_things_is_refused(
    s3: S3, version: Path, options: TransferOptions | None
) -> None:
    s3.put("v/below/notes.txt", b"mine")
    with pytest.raises(UsageError, match=r"holds 'below/notes.txt', which is no part of"):
        push(version, s3.url("v"), options)
    assert s3.names("v") == ["below/notes.txt"]


def test_damaged_object_is_replaced_on_demand(s3: S3, version: Path) -> None:
    push(version, s3.url("v"))
    s3.put("v/" + SHARDS[0], b"short")
    with pytest.raises(UsageError, match=f"{SHARDS[0]}: expected nothing or"):
        push(version, s3.url("v"))
    push(version, s3.url("v"), OVERWRITE)
    assert objects(s3) == version_files(version)


def test_damage_that_the_metadata_do_not_show_is_replaced_on_demand(s3: S3, version: Path) -> None:
    push(version, s3.url("v"))
    path = parse_place(s3.url("v/" + SHARDS[0]))
    assert isinstance(path, StorePath)
    whole = s3.get("v/" + SHARDS[0])
    path.put(whole[::-1], hashlib.sha256(whole).hexdigest())
    assert push(version, s3.url("v"), OVERWRITE).sent == 10
    assert objects(s3) == version_files(version)


def test_two_publishers_of_one_version(s3: S3, version: Path) -> None:
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda _: push(version, s3.url("v")), range(2)))
    assert sorted(result.published for result in results) == [False, True]
    assert objects(s3) == version_files(version)


def test_two_publishers_of_two_versions(s3: S3, version: Path, other: Path) -> None:
    def attempt(folder: Path) -> PushResult | VocprepError:
        try:
            return push(folder, s3.url("v"))
        except VocprepError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        results = dict(zip((version, other), pool.map(attempt, (version, other)), strict=True))
    (won,) = [path for path, result in results.items() if isinstance(result, PushResult)]
    (refused,) = [result for result in results.values() if isinstance(result, VocprepError)]
    assert "another version" in str(refused)
    assert objects(s3) == version_files(won)


def test_overwritten_while_it_published(s3: S3, version: Path, other: Path) -> None:
    def overwrite(kind: str, path: StorePath) -> None:
        if kind == "put_new" and path.name == "dataset.json" and not begun:
            begun.append(True)
            push(other, s3.url("v"), OVERWRITE)

    begun: list[bool] = []
    with before_requests(overwrite), pytest.raises(UsageError, match="holds another version"):
        push(version, s3.url("v"))
    assert objects(s3) == version_files(other)


def test_a_claim_that_was_taken_over_before_the_end(s3: S3, version: Path, other: Path) -> None:
    """The other writer has put its claim and deleted dataset.json; then this one puts its own."""

    def take_over(kind: str, path: StorePath) -> None:
        if kind == "put_new" and path.name == "dataset.json" and not begun:
            begun.append(True)
            with pytest.raises(Killed):
                push(other, s3.url("v"), OVERWRITE, _Killing())

    begun: list[bool] = []
    with before_requests(take_over), pytest.raises(DataError, match="another vocprep has begun"):
        push(version, s3.url("v"))
    assert "dataset.json" not in s3.names("v")
    push(other, s3.url("v"), OVERWRITE)
    assert objects(s3) == version_files(other)


class _Killing(RecordedProgress):
    def begin(self, name: str, total: int | None, done: int) -> None:
        raise Killed


def test_unfinished_push_of_another_version_is_refused(s3: S3, version: Path, other: Path) -> None:
    with pytest.raises(Killed):
        push(version, s3.url("v"), None, _Killing())
    with pytest.raises(UsageError) as caught:
        push(other, s3.url("v"))
    assert str(caught.value) == (
        f"{s3.url('v')}: holds an unfinished push of another version; choose another URL, or "
        "--if-exists overwrite"
    )
    push(version, s3.url("v"))
    assert objects(s3) == version_files(version)


# The command


def test_a_store_that_refuses_a_claim_and_has_none(s3: S3, version: Path) -> None:
    s3.put("v/.tmp-build/build.json/x", b"")  # which makes the claim's name that of a folder
    with pytest.raises(
        DataError, match=r"/build\.json: the store takes no new object of this name"
    ):
        push(version, s3.url("v"))
    assert s3.names("v") == [".tmp-build/build.json/x"]


def test_command_prints_what_was_sent(s3: S3, version: Path) -> None:
    first = invoke("push", version, s3.url("v"), "--json")
    assert first.exit_code == 0, first.output
    printed = json.loads(first.stdout)
    assert printed["published"]
    assert (printed["objects"], printed["sent"]) == (10, 10)
    again = invoke("push", version, s3.url("v"))
    assert again.exit_code == 0
    assert ": was there already: 10 objects, 0 sent now, 0.0 MB, in " in again.stdout


def test_no_output_holds_credentials(s3: S3, version: Path) -> None:
    s3.environment.setenv("AWS_SECRET_ACCESS_KEY", "a-wrong-secret-that-nobody-may-see")
    result = invoke("push", version, s3.url("v"), "--json")
    assert result.exit_code == 3
    assert AGAIN in result.stderr
    for text in (result.output, json.loads(result.stdout)["error"]):
        assert "nobody-may-see" not in text
        assert "marked-access-key" not in text


def test_object_replaced_before_dataset_json_is_put(s3: S3, version: Path, other: Path) -> None:
    """Another writer's late object: dataset.json that does not fit it does not stay."""

    def replace(kind: str, path: StorePath) -> None:
        if kind == "put_new" and path.name == "dataset.json":
            s3.put("v/" + SHARDS[3], b"of another writer")

    push(version, s3.url("v"))
    with before_requests(replace), pytest.raises(DataError) as caught:
        push(other, s3.url("v"), OVERWRITE)
    assert str(caught.value) == (
        f"{s3.url('v')}/{SHARDS[3]}: another writer has changed or deleted it while this one "
        "published; let one at a time overwrite a URL, and run the same command again"
    )
    assert "dataset.json" not in s3.names("v")
    push(other, s3.url("v"), OVERWRITE)
    assert objects(s3) == version_files(other)
