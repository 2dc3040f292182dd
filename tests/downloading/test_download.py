"""Sources into a data dir: what is planned, what is done, what a second run leaves alone."""

from __future__ import annotations

import errno
import gzip
import hashlib
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders.mirror import Mirror, status
from builders.packed import FILES, IMAGES, LABELS, NAMES, context, tar_of, voc
from builders.progress import RecordedProgress

from vocprep.checks.data_files import verify_data_files
from vocprep.data_dir.layout import list_samples
from vocprep.data_dir.receipts import UnpackedFile
from vocprep.data_dir.source_digests import (
    SOURCE_DIGESTS_FILE,
    add_source_digest,
    read_source_digests,
)
from vocprep.downloading import archive
from vocprep.downloading.download import DownloadOptions, download, mirror_urls
from vocprep.downloading.http import TransferOptions
from vocprep.downloading.outcomes import DownloadOutcome, raise_failures
from vocprep.downloading.plan import FileOnDisk, plan_download, resolve_sources, steps_for
from vocprep.errors import (
    DataDirError,
    DataError,
    DigestError,
    ManifestError,
    SourceUnavailableError,
    UsageError,
    WeightsError,
)
from vocprep.files.writing import sha256_hex
from vocprep.manifests import SourceManifest, load_dataset

QUICK = DownloadOptions(transfer=TransferOptions(retries=1, backoff_seconds=0.001))


class World:
    """A mirror, its two sources and a data dir."""

    def __init__(self, mirror: Mirror, folder: Path) -> None:
        self.mirror = mirror
        self.data = folder / "data"
        self.notes = RecordedProgress()
        self.sources = [voc(mirror.url()), context(mirror.url())]

    def run(
        self,
        options: DownloadOptions = QUICK,
        sources: list[SourceManifest] | None = None,
    ) -> list[DownloadOutcome]:
        return download(sources or self.sources, self.data, options, self.notes)

    def states(self, options: DownloadOptions = QUICK) -> list[str]:
        return [outcome.state for outcome in self.run(options)]

    def assert_complete(self) -> None:
        for path, data in {**IMAGES, **LABELS, "labels.txt": NAMES}.items():
            assert (self.data / path).read_bytes() == data


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with Mirror(FILES) as mirror:
        yield World(mirror, tmp_path)


@pytest.mark.parametrize(
    ("on_disk", "unpacks", "steps"),
    [
        (FileOnDisk(), True, ("fetch", "unpack")),
        (FileOnDisk(), False, ("fetch",)),
        (FileOnDisk(part_bytes=7), True, ("fetch", "unpack")),
        (FileOnDisk(present=True), True, ("verify", "unpack")),
        (FileOnDisk(present=True), False, ("verify",)),
        (FileOnDisk(present=True, unpacked=True), True, ("verify",)),
        (FileOnDisk(present=True, verified=True), True, ("unpack",)),
        (FileOnDisk(present=True, verified=True), False, ()),
        (FileOnDisk(present=True, verified=True, unpacked=True), True, ()),
        (FileOnDisk(unpacked=True), True, ()),
        (FileOnDisk(unpacked=True), False, ("fetch",)),
    ],
)
def test_the_plan_follows_from_what_the_disk_holds(
    on_disk: FileOnDisk, unpacks: bool, steps: tuple
):
    assert steps_for(on_disk, unpacks=unpacks) == steps


def test_planning_touches_nothing(world: World):
    plan = plan_download(world.data, world.sources, {}, extract=True)
    assert [(item.file.path, item.steps) for item in plan] == [
        ("downloads/VOCtrainval.tar", ("fetch", "unpack")),
        ("downloads/trainval.tar.gz", ("fetch", "unpack")),
        ("labels.txt", ("fetch",)),
    ]
    assert not world.data.exists()
    assert world.mirror.requests == []


def test_from_nothing_to_a_whole_data_dir(world: World):
    outcomes = world.run()
    assert [item.state for item in outcomes] == [
        "fetched, unpacked",
        "fetched, unpacked",
        "fetched",
    ]
    world.assert_complete()
    raise_failures(outcomes)
    assert outcomes[0].mirror == world.mirror.url("VOCtrainval.tar")
    assert outcomes[0].size == len(FILES["VOCtrainval.tar"])
    assert outcomes[0].sha256 == sha256_hex(FILES["VOCtrainval.tar"])


def test_a_second_run_fetches_and_hashes_nothing(world: World):
    first = world.run()
    world.mirror.requests.clear()
    world.notes.lines.clear()
    second = world.run()
    assert [item.state for item in second] == ["present"] * 3
    assert [item.mirror for item in second] == [item.mirror for item in first]
    assert world.mirror.requests == []
    assert world.notes.lines == []


@pytest.mark.parametrize("name", ["data", "data/.vocprep"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_folder_that_cannot_be_made_is_named(name: str, kind: str, world: World, tmp_path: Path):
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    place.write_bytes(b"mine") if kind == "file" else place.symlink_to("nowhere")
    said = "expected a folder, found the file" if kind == "file" else "is a link to nowhere, where"
    with pytest.raises(UsageError, match=said):
        world.run()
    assert world.mirror.requests == []


def test_a_second_run_writes_nothing(world: World, monkeypatch: pytest.MonkeyPatch):
    world.run()
    before = {path: path.stat().st_mtime_ns for path in world.data.rglob("*")}
    monkeypatch.setattr("vocprep.downloading.download.file_lock", None)
    assert world.states() == ["present"] * 3
    assert {path: path.stat().st_mtime_ns for path in world.data.rglob("*")} == before


def test_what_is_unpacked_just_now_can_be_verified_and_listed(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    """By another process, between the moves of an archive's files and its record."""
    reports = []
    flush = archive._flush

    def looking(data_dir: Path, files: list[UnpackedFile]) -> None:
        reports.append(verify_data_files(data_dir, workers=1))
        with pytest.raises(DataDirError, match="split file"):
            list_samples(data_dir, load_dataset("pascal-context"), ["train"])
        flush(data_dir, files)

    monkeypatch.setattr(archive, "_flush", looking)
    world.run()
    assert [report.differences for report in reports] == [(), ()]
    world.assert_complete()


def test_an_unpacked_archive_may_be_deleted(world: World):
    world.run()
    (world.data / "downloads/VOCtrainval.tar").unlink()
    world.mirror.requests.clear()
    assert world.states() == ["present"] * 3
    assert world.mirror.requests == []


def test_a_missing_unpacked_file_is_restored_from_the_archive(world: World):
    world.run()
    (world.data / next(iter(IMAGES))).unlink()
    world.mirror.requests.clear()
    assert world.states() == ["unpacked", "present", "present"]
    world.assert_complete()
    assert world.mirror.requests == []


def test_a_missing_file_of_a_deleted_archive_is_fetched_again(world: World):
    world.run()
    (world.data / next(iter(IMAGES))).unlink()
    (world.data / "downloads/VOCtrainval.tar").unlink()
    assert world.states() == ["fetched, unpacked", "present", "present"]
    world.assert_complete()


def test_a_file_whose_time_changed_is_hashed_again_and_kept(world: World):
    world.run()
    os.utime(world.data / "labels.txt", (1, 1))
    world.mirror.requests.clear()
    assert world.states() == ["present", "present", "verified"]
    assert world.states() == ["present"] * 3
    assert world.mirror.requests == []


def test_a_file_that_was_put_there_by_hand_is_verified(world: World):
    path = world.data / "downloads/VOCtrainval.tar"
    path.parent.mkdir(parents=True)
    path.write_bytes(FILES["VOCtrainval.tar"])
    assert world.states() == ["verified, unpacked", "fetched, unpacked", "fetched"]
    assert len(world.mirror.requests) == 2


def test_a_spoilt_file_is_set_aside_and_fetched_again(world: World):
    world.run()
    path = world.data / "labels.txt"
    path.write_bytes(b"my own notes")
    assert world.states() == ["present", "present", "fetched"]
    world.assert_complete()
    assert path.with_name("labels.txt.wrong").read_bytes() == b"my own notes"
    assert any("set aside as labels.txt.wrong" in line for line in world.notes.lines)


def test_an_unpublished_digest_is_recorded_once(world: World):
    world.run()
    archive = FILES["trainval.tar.gz"]
    assert json.loads((world.data / SOURCE_DIGESTS_FILE).read_bytes()) == {
        "version": 1,
        "files": {
            "downloads/trainval.tar.gz": {"sha256": sha256_hex(archive), "bytes": len(archive)}
        },
    }


def test_source_digests_keep_what_they_have(tmp_path: Path):
    add_source_digest(tmp_path, "b", "bb", 2)
    add_source_digest(tmp_path, "a", "aa", 1)
    assert list(read_source_digests(tmp_path).items()) == [("a", "aa"), ("b", "bb")]


def test_a_digest_that_is_published_later_is_checked(world: World):
    world.run()
    source = world.sources[1]
    archive = source.files[0].model_copy(
        update={"sha1": hashlib.sha1(FILES["trainval.tar.gz"]).hexdigest()}
    )
    sources = [source.model_copy(update={"files": (archive,)})]
    assert [item.state for item in world.run(sources=sources)] == ["verified"]
    assert [item.state for item in world.run(sources=sources)] == ["present"]


def test_another_machine_must_agree_with_the_source_digests(world: World, tmp_path: Path):
    world.run()
    lock = (world.data / SOURCE_DIGESTS_FILE).read_bytes()
    other = tmp_path / "other"
    other.mkdir()
    text = lock.decode().replace(sha256_hex(FILES["trainval.tar.gz"]), "0" * 64)
    (other / SOURCE_DIGESTS_FILE).write_text(text)
    world.data = other
    outcomes = world.run()
    assert [item.state for item in outcomes] == ["fetched, unpacked", "failed", "fetched"]
    assert not outcomes[1].ok
    assert outcomes[1].exit_code == DigestError.exit_code
    assert "recorded in sources.lock.json" in str(outcomes[1].error)
    assert not (other / "downloads/trainval.tar.gz").exists()
    assert read_source_digests(other) == {"downloads/trainval.tar.gz": "0" * 64}


def test_source_digests_hold_for_files_that_are_here_already(world: World):
    world.run()
    path = world.data / SOURCE_DIGESTS_FILE
    path.write_text(path.read_text().replace(sha256_hex(FILES["trainval.tar.gz"]), "0" * 64))
    assert world.states() == ["present", "failed", "present"]


@pytest.mark.parametrize("text", ["", "[]", '{"version": 2, "files": {}}', '{"version": 1}'])
def test_damaged_source_digests_are_an_error(world: World, text: str):
    world.data.mkdir()
    (world.data / SOURCE_DIGESTS_FILE).write_text(text)
    with pytest.raises(DataError, match=r"sources\.lock\.json: cannot be read as source digests"):
        world.run()
    assert (world.data / SOURCE_DIGESTS_FILE).read_text() == text


def test_ones_own_mirror_is_asked_first(world: World):
    with Mirror({f"pub/{name}": data for name, data in FILES.items()}) as own:
        outcomes = world.run(replace(QUICK, mirrors=(own.url("pub/"),)))
    assert outcomes[0].mirror == own.url("pub/VOCtrainval.tar")
    assert world.mirror.requests == []


def test_mirror_urls_are_folders_or_the_file_itself(world: World):
    file = world.sources[0].files[0]
    options = DownloadOptions(mirrors=("http://a.example/x", "file:///m/VOCtrainval.tar"))
    assert mirror_urls(file, options) == [
        "http://a.example/x/VOCtrainval.tar",
        "file:///m/VOCtrainval.tar",
        world.mirror.url("VOCtrainval.tar"),
    ]
    assert mirror_urls(file, replace(options, offline=True)) == ["file:///m/VOCtrainval.tar"]


def test_offline_says_everything_that_is_missing(world: World):
    outcomes = world.run(replace(QUICK, offline=True))
    with pytest.raises(SourceUnavailableError) as caught:
        raise_failures(outcomes)
    for name in FILES:
        assert name in str(caught.value)
    assert world.mirror.requests == []


def test_offline_is_content_with_what_is_there(world: World):
    world.run()
    assert world.states(replace(QUICK, offline=True)) == ["present"] * 3


def test_offline_uses_a_file_mirror(world: World, tmp_path: Path):
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
    options = replace(QUICK, offline=True, mirrors=(tmp_path.as_uri(),))
    assert world.states(options) == ["fetched, unpacked", "fetched, unpacked", "fetched"]
    world.assert_complete()


def test_files_that_the_user_has_are_linked(world: World, tmp_path: Path):
    mine = tmp_path / "mine"
    (mine / "downloads").mkdir(parents=True)
    (mine / "VOCtrainval.tar").write_bytes(FILES["VOCtrainval.tar"])
    (mine / "downloads/trainval.tar.gz").write_bytes(FILES["trainval.tar.gz"])
    outcomes = world.run(replace(QUICK, from_dir=mine))
    assert [item.state for item in outcomes] == ["linked, unpacked", "linked, unpacked", "fetched"]
    assert (world.data / "downloads/VOCtrainval.tar").samefile(mine / "VOCtrainval.tar")
    assert outcomes[0].mirror == str(mine)
    world.assert_complete()


def test_files_that_cannot_be_linked_are_copied(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def other_disk(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr("vocprep.files.writing.os.link", other_disk)
    (tmp_path / "labels.txt").write_bytes(NAMES)
    outcomes = world.run(replace(QUICK, from_dir=tmp_path))
    assert outcomes[2].state == "copied"
    assert not (world.data / "labels.txt").samefile(tmp_path / "labels.txt")


def test_a_wrong_file_of_the_user_is_passed_over(world: World, tmp_path: Path):
    (tmp_path / "labels.txt").write_bytes(b"another edition")
    assert world.run(replace(QUICK, from_dir=tmp_path))[2].state == "fetched"
    assert any("expected sha256" in line for line in world.notes.lines)
    assert (tmp_path / "labels.txt").read_bytes() == b"another edition"


def test_of_a_file_of_another_size_nothing_is_read(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with (tmp_path / "VOCtrainval.tar").open("wb") as stream:
        stream.truncate(5 << 30)
    monkeypatch.setattr("vocprep.downloading.download.hash_file", None)
    outcomes = world.run(replace(QUICK, from_dir=tmp_path, offline=True))
    assert f"expected {len(FILES['VOCtrainval.tar'])} bytes, found {5 << 30}" in str(
        outcomes[0].error
    )


def test_a_wrong_file_of_the_user_is_an_error_offline(world: World, tmp_path: Path):
    (tmp_path / "labels.txt").write_bytes(b"another edition")
    outcomes = world.run(replace(QUICK, from_dir=tmp_path, offline=True))
    with pytest.raises(DataError, match=r"3 of 3 files failed(.|\n)*use the official file"):
        raise_failures(outcomes)
    assert not (world.data / "labels.txt").exists()


def test_a_file_of_the_user_that_cannot_be_read_is_named(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def broken(path: Path, *_: object) -> None:
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr("vocprep.downloading.download.hash_file", broken)
    (tmp_path / "labels.txt").write_bytes(NAMES)
    options = replace(QUICK, from_dir=tmp_path, offline=True)
    said = f"{tmp_path / 'labels.txt'}: cannot be read (Input/output error)"
    assert world.run(options)[2].error == said
    assert world.run(replace(QUICK, from_dir=tmp_path))[2].state == "fetched"
    assert f"{said}; nothing was taken" in world.notes.lines


@pytest.mark.parametrize(
    "url", ["http://[", "http://", "ftp://h.example/a", "a", "", "file:///%00"]
)
def test_a_url_that_is_none_is_a_mirror_that_gives_nothing(world: World, url: str):
    file = world.sources[1].files[1].model_copy(update={"urls": (url,)})
    sources = [world.sources[1].model_copy(update={"files": (file,)})]
    failed = world.run(sources=sources)[0]
    assert failed.exit_code == SourceUnavailableError.exit_code
    assert "name another place with --mirror URL or --from DIR" in str(failed.error)
    assert "connection" not in str(failed.error)
    assert not world.run(replace(QUICK, offline=True), sources)[0].ok


def test_a_file_that_differs_from_an_earlier_download_says_what_to_delete(world: World):
    world.run()
    (world.data / "downloads/trainval.tar.gz").unlink()
    (world.data / next(iter(LABELS))).unlink()
    world.mirror.files["trainval.tar.gz"] = b"another edition"
    error = str(world.run()[1].error)
    assert "(recorded in sources.lock.json)" in error
    assert "(then delete its entry in sources.lock.json)" in error


def test_archives_can_be_left_packed(world: World):
    assert world.states(replace(QUICK, extract=False)) == ["fetched"] * 3
    assert not (world.data / "VOCdevkit").exists()
    assert world.states(replace(QUICK, extract=False)) == ["present"] * 3
    assert world.states() == ["unpacked", "unpacked", "present"]
    world.assert_complete()


def test_a_subset_of_the_images_passes_when_partial(world: World):
    data = tar_of(dict(list(IMAGES.items())[:2]))
    world.mirror.files["VOCtrainval.tar"] = data
    source = voc(world.mirror.url())
    file = source.files[0].model_copy(
        update={"sha256": sha256_hex(data), "sha1": None, "md5": None, "bytes": len(data)}
    )
    sources = [source.model_copy(update={"files": (file,)})]
    assert "expected 5 .jpg" in str(world.run(sources=sources)[0].error)
    assert world.run(replace(QUICK, partial=True), sources)[0].state == "unpacked"


def test_one_dead_file_does_not_hold_up_the_others(world: World):
    del world.mirror.files["VOCtrainval.tar"]
    outcomes = world.run()
    assert [item.state for item in outcomes] == ["failed", "fetched, unpacked", "fetched"]
    with pytest.raises(SourceUnavailableError, match="404") as caught:
        raise_failures(outcomes)
    assert outcomes[0].to_json() | {"ok": False, "error": str(caught.value), "exit_code": 4} == (
        outcomes[0].to_json()
    )


def test_a_disk_that_cannot_be_written_is_one_sentence(world: World):
    world.data.mkdir()
    (world.data / "downloads").write_bytes(b"in the way")
    outcomes = world.run()
    assert outcomes[0].exit_code == DataError.exit_code
    assert "downloads: cannot be read or written: File exists; move" in str(outcomes[0].error)
    assert outcomes[2].state == "fetched"


def test_a_full_disk_is_one_sentence_and_what_fitted_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("vocprep.downloading.partial.os.pwrite", full)
        outcomes = world.run()
    assert [item.state for item in outcomes] == ["failed"] * 3
    assert "No space left on device; make room" in str(outcomes[0].error)
    assert world.states() == ["fetched, unpacked", "fetched, unpacked", "fetched"]


def test_two_runs_side_by_side_share_the_work(world: World):
    world.mirror.rate = 400_000
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(world.states())) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    world.assert_complete()
    assert len(results) == 2
    assert sorted(name for name, _ in world.mirror.requests) == sorted(FILES)


def test_an_interrupted_run_goes_on_where_it_stopped(world: World):
    world.mirror.faults.append(status(404))
    assert world.run()[0].state == "failed"
    assert world.states() == ["fetched, unpacked", "present", "present"]


def test_weights_are_also_known_by_their_tensors(world: World, monkeypatch: pytest.MonkeyPatch):
    def digest(answer: str | WeightsError) -> None:
        def tensor_digest(path: Path) -> str:
            if isinstance(answer, WeightsError):
                raise answer
            return answer

        monkeypatch.setattr("vocprep.downloading.download.tensor_digest", tensor_digest)

    source = context(world.mirror.url())
    file = source.files[1].model_copy(update={"tensors_sha256": "ab" * 32})
    sources = [source.model_copy(update={"files": (file,)})]
    digest(WeightsError("not a weights file"))
    assert "not a weights file" in str(world.run(sources=sources)[0].error)
    digest("cd" * 32)
    assert "expected tensor digest abab" in str(world.run(sources=sources)[0].error)
    assert not (world.data / "labels.txt").exists()
    digest("ab" * 32)
    assert world.run(sources=sources)[0].state == "fetched"
    assert world.run(sources=sources)[0].state == "present"
    other = file.model_copy(update={"tensors_sha256": "ef" * 32})
    sources = [source.model_copy(update={"files": (other,)})]
    assert world.run(replace(QUICK, offline=True), sources)[0].error


def test_a_damaged_record_of_unpacked_files_is_named(world: World):
    world.run()
    tree = next((world.data / ".vocprep/trees").iterdir())
    whole = tree.read_bytes()
    lines = gzip.decompress(whole).splitlines(keepends=True)
    for spoilt in (whole[:-20], gzip.compress(b"".join(lines[:-1])), gzip.compress(b""), b"?"):
        tree.write_bytes(spoilt)
        with pytest.raises(DataError, match=r"trees/.*delete it and run vocprep download"):
            world.run()


def test_datasets_and_sources_are_known_by_name():
    assert [item.name for item in resolve_sources(["pascal-context"])] == [
        "voc2010",
        "pascal-context",
        "resnet32-cifar100",
    ]
    assert [item.name for item in resolve_sources(["voc2008", "voc2010", "voc2010"])] == [
        "voc2008",
        "voc2010",
        "resnet32-cifar100",
    ]


def test_ones_own_manifests_are_known_by_path(tmp_path: Path):
    source = tmp_path / "mine.toml"
    source.write_text('title="t"\nterms="t"\n[[files]]\npath="a"\nurls=["http://h.example/a"]\n')
    dataset = tmp_path / "set.toml"
    dataset.write_text(
        'title="t"\nsources=["mine.toml", "voc2012"]\nimages="i"\nlabels="l"\nlabel_kind="png"\n'
        'split_files="s"\nsplits=["train"]\nschemas=["voc21"]\n'
    )
    assert [item.name for item in resolve_sources([str(source)])] == ["mine"]
    assert [item.name for item in resolve_sources([str(dataset)])] == ["mine", "voc2012"]
    dataset.write_text(dataset.read_text().replace('sources=["mine.toml", "voc2012"]', ""))
    with pytest.raises(UsageError, match="names no sources"):
        resolve_sources([str(dataset)])


def test_a_name_that_nobody_knows_lists_those_known(tmp_path: Path):
    with pytest.raises(UsageError, match=r"expected one of pascal-context, .*voc2012"):
        resolve_sources(["imagenet"])
    with pytest.raises(ManifestError):
        resolve_sources([str(tmp_path / "none.toml")])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"mirrors": ("ftp://h.example/",)}, "expected an http, https or file URL"),
        ({"mirrors": ("http://[",)}, r"mirror 'http://\[': expected an http, https or file URL"),
        ({"from_dir": "/no/such/folder"}, "no such folder of archives"),
        ({"offline": "perhaps"}, "offline 'perhaps': expected true or false"),
    ],
)
def test_options_that_cannot_work_are_refused(wrong: dict, said: str):
    with pytest.raises(UsageError, match=said):
        DownloadOptions(**wrong)
