"""A shard is compared with the opened index before it is parsed, however it is opened."""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.records import FEW_CORES, assert_same_records, make_record, write_version
from torch.utils.data import DataLoader

from vocprep.building.reuse import StoredEmbeddings
from vocprep.checks.diff import diff
from vocprep.checks.lock import lock
from vocprep.checks.verify import verify
from vocprep.errors import ShardError
from vocprep.files.reading import open_regular
from vocprep.options import LoaderOptions, ShardFormat, VerifyOptions
from vocprep.shards import containers
from vocprep.shards.containers import CONTAINERS, ProvedShards
from vocprep.shards.index import DatasetIndex
from vocprep.shards.listed import check_files
from vocprep.shards.reader import ShardDataset, StreamingDataset, collate

pytestmark = pytest.mark.slow

IDS = [f"id_{number}" for number in range(6)]
FORMS: tuple[ShardFormat, ...] = ("hdf5", "webdataset")


@pytest.fixture(params=FORMS)
def form(request: pytest.FixtureRequest) -> ShardFormat:
    chosen: ShardFormat = request.param
    return chosen


def write(out: Path, form: ShardFormat, seed: int = 0) -> ShardDataset:
    """Six records of the same ids and sizes, whatever the seed."""
    records = [make_record(image_id, (1, 2), seed=seed) for image_id in IDS]
    return write_version(out, records, container=form)


def read_streaming(dataset: ShardDataset) -> None:
    list(dataset.loader("train", LoaderOptions(mode="streaming")))


def read_with_threads(dataset: ShardDataset) -> None:
    list(dataset.loader("train", LoaderOptions(mode="streaming", workers=2)))


def read_resident(dataset: ShardDataset) -> None:
    list(dataset.loader("train"))


def read_by_id(dataset: ShardDataset) -> None:
    for image_id in IDS:
        dataset.record(image_id)


def read_in_workers(dataset: ShardDataset) -> None:
    split = StreamingDataset(dataset, "train")
    list(DataLoader(split, batch_size=2, collate_fn=collate, num_workers=2))


def read_by_lines(dataset: ShardDataset) -> None:
    list(dataset.version.records(dataset.path, dataset.samples))


def read_as_webdataset(dataset: ShardDataset) -> None:
    if dataset.index.container == "hdf5":
        pytest.skip("webdataset reads tars")
    list(dataset.as_webdataset("train"))


READS = [
    read_streaming,
    read_with_threads,
    read_resident,
    read_by_id,
    read_in_workers,
    read_by_lines,
    read_as_webdataset,
]


@FEW_CORES
@pytest.mark.parametrize("read", READS)
def test_every_way_to_read_refuses_a_shard_with_one_byte_changed(
    read: Callable[[ShardDataset], None], form: ShardFormat, tmp_path: Path
) -> None:
    dataset = write(tmp_path, form)
    path = tmp_path / dataset.shard_names("train")[1]
    data = bytearray(path.read_bytes())
    data[-600] ^= 1
    path.write_bytes(data)
    # A worker process passes the error on with its own traceback around it.
    with pytest.raises(ShardError, match=f"{path}: expected .* others of sha256") as caught:
        read(dataset)
    assert "copy it again, or build the shards again" in str(caught.value)


@FEW_CORES
@pytest.mark.parametrize("read", READS)
def test_every_way_to_read_refuses_a_version_that_took_the_opened_ones_place(
    read: Callable[[ShardDataset], None], form: ShardFormat, tmp_path: Path
) -> None:
    dataset = write(tmp_path / "out", form)
    if read is not read_as_webdataset:
        read(dataset)  # so that it knows the files
    shutil.rmtree(tmp_path / "out")
    write(tmp_path / "out", form, seed=1)
    with pytest.raises(ShardError, match="this version was replaced while it was read") as caught:
        read(dataset)
    assert "another one since it was opened; open it again" in str(caught.value)


def test_version_that_is_being_replaced_is_named(form: ShardFormat, tmp_path: Path) -> None:
    dataset = write(tmp_path, form)
    (tmp_path / "dataset.json").unlink()
    (tmp_path / dataset.shard_names("train")[0]).unlink()
    with pytest.raises(ShardError, match=r"was replaced while it was read: dataset\.json is gone"):
        read_streaming(dataset)


def test_version_replaced_while_it_is_opened_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", "hdf5")
    write(tmp_path / "other", "hdf5", seed=1)

    def replaced_first(folder: Path, index: DatasetIndex) -> None:
        shutil.copytree(tmp_path / "other", tmp_path / "out", dirs_exist_ok=True)
        (folder / "train-00000-of-00003").with_suffix(".h5").write_bytes(b"shorter")
        check_files(folder, index)

    monkeypatch.setattr("vocprep.shards.version.check_files", replaced_first)
    with pytest.raises(ShardError, match=r"\.h5: this version was replaced"):
        ShardDataset.open(tmp_path / "out")


def test_list_of_a_version_that_was_replaced_is_refused(tmp_path: Path) -> None:
    dataset = write(tmp_path / "out", "hdf5")
    write(tmp_path / "other", "hdf5", seed=1)
    shutil.copytree(tmp_path / "other", tmp_path / "out", dirs_exist_ok=True)
    with pytest.raises(ShardError, match=r"samples\.jsonl: this version was replaced"):
        _ = dataset.samples


def test_labels_of_a_version_that_was_replaced_are_refused(tmp_path: Path) -> None:
    dataset = write(tmp_path, "hdf5")
    path = tmp_path / "labels.json"
    path.write_text(path.read_text().replace("accordion", "bagpipes."))
    with pytest.raises(ShardError, match=r"labels\.json: expected .* others of sha256"):
        _ = dataset.label_space


def test_missing_shard_and_one_of_another_size_are_named(form: ShardFormat, tmp_path: Path) -> None:
    dataset = write(tmp_path, form)
    path = tmp_path / dataset.shard_names("train")[0]
    path.write_bytes(b"short")
    with pytest.raises(ShardError, match=f"{path}: expected .*, found 5 bytes"):
        read_streaming(dataset)
    path.unlink()
    with pytest.raises(ShardError, match=f"{path}: is missing: expected"):
        read_streaming(dataset)


@pytest.mark.parametrize("kind", ["pipe", "folder", "device"])
def test_shards_that_are_no_files_are_refused_without_waiting(
    kind: str, form: ShardFormat, tmp_path: Path
) -> None:
    dataset = write(tmp_path, form)
    path = tmp_path / dataset.shard_names("train")[0]
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ShardError, match=f"{path}: .*no regular file"):
        read_streaming(dataset)
    with pytest.raises(ShardError, match=str(path)):
        ShardDataset.open(tmp_path)


def test_shard_that_may_not_be_read_is_no_damaged_one(
    form: ShardFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = write(tmp_path, form)
    name = dataset.index.shards[1].name

    def may_not_read(path: Path) -> BufferedReader:
        if path.name == name:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return open_regular(path)

    monkeypatch.setattr("vocprep.storage.reading.open_regular", may_not_read)
    with pytest.raises(ShardError) as caught:
        read_streaming(dataset)
    said = f"{tmp_path / name}: cannot be read: Permission denied; make it readable"
    assert str(caught.value) == said
    found = verify(tmp_path, VerifyOptions(level="files", workers=1)).reports[0].differences
    assert [(item.path, item.state) for item in found] == [(name, "unreadable")]
    assert found[0].detail == "cannot be read: Permission denied; make it readable"


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the files that are digested."""
    sizes: list[int] = []
    sha256_hex = containers.sha256_hex

    def noted(data: memoryview) -> str:
        sizes.append(len(data))
        return sha256_hex(data)

    monkeypatch.setattr(containers, "sha256_hex", noted)
    return sizes


def test_file_is_digested_once_until_it_changes(
    form: ShardFormat, tmp_path: Path, digested: list[int]
) -> None:
    write(tmp_path, form)
    dataset = ShardDataset.open(tmp_path)
    digested.clear()
    sizes = [shard.bytes for shard in dataset.index.shards]
    for _ in range(3):
        read_streaming(dataset)
        read_resident(dataset)
    assert digested == sizes
    path = tmp_path / dataset.index.shards[1].name
    shutil.copy(path, tmp_path / "copy")
    (tmp_path / "copy").replace(path)  # the same bytes, in another file
    read_streaming(dataset)
    assert digested == [*sizes, sizes[1]]


@pytest.mark.slow
@FEW_CORES
def test_what_one_worker_process_digested_no_later_one_digests_again(
    form: ShardFormat, tmp_path: Path, digested: list[int]
) -> None:
    dataset = write(tmp_path, form)
    read_in_workers(dataset)
    digested.clear()
    read_streaming(dataset)
    assert digested == []


def test_changed_bytes_are_found_whatever_the_times_say(form: ShardFormat, tmp_path: Path) -> None:
    dataset = write(tmp_path, form)
    read_streaming(dataset)
    path = tmp_path / dataset.shard_names("train")[0]
    before = path.stat()
    with path.open("r+b") as stream:
        stream.seek(-1000, os.SEEK_END)
        stream.write(b"\1")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ShardError, match=r"others of sha256 .* \(damaged or replaced\)"):
        read_streaming(dataset)


def test_records_come_from_the_bytes_that_were_compared(
    form: ShardFormat, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file is replaced after the comparison, and nothing of the new one is read."""
    dataset = write(tmp_path, form)
    expected = list(dataset.read_shard(dataset.index.shards[0].name))
    read = ProvedShards.read

    def replaced_after(shards: ProvedShards, name: str) -> Any:
        data = read(shards, name)
        (tmp_path / name).write_bytes(b"another")
        return data

    monkeypatch.setattr(ProvedShards, "read", replaced_after)
    assert_same_records(list(dataset.read_shard(dataset.index.shards[0].name)), expected)


def test_record_is_the_callers_own_to_write_to(form: ShardFormat, tmp_path: Path) -> None:
    dataset = write(tmp_path, form)
    expected = dataset.record(IDS[0])
    written = dataset.record(IDS[0])
    written.embeddings[:] = 7
    written.slot_planes[:] = 7
    assert_same_records([dataset.record(IDS[0])], [expected])


def test_dataset_pickles_without_the_shard_in_memory(form: ShardFormat, tmp_path: Path) -> None:
    dataset = write(tmp_path, form)
    expected = dataset.record(IDS[0])
    again = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < dataset.index.shards[0].bytes
    assert_same_records([again.record(IDS[0])], [expected])


def flip_a_byte(folder: Path, name: str) -> None:
    data = bytearray((folder / name).read_bytes())
    data[-600] ^= 1
    (folder / name).write_bytes(data)


def test_checks_refuse_a_damaged_shard(form: ShardFormat, tmp_path: Path) -> None:
    first = write(tmp_path / "a", form)
    write(tmp_path / "b", form, seed=1)
    flip_a_byte(tmp_path / "a", first.index.shards[0].name)
    for check in (lambda: diff(tmp_path / "a", tmp_path / "b"), lambda: lock(tmp_path / "a")):
        with pytest.raises(ShardError, match=r"others of sha256 .* \(damaged or replaced\)"):
            check()
    found = verify(tmp_path / "a", VerifyOptions(level="content", workers=1))
    assert not found.ok


def test_embeddings_of_a_damaged_shard_are_not_found(form: ShardFormat, tmp_path: Path) -> None:
    dataset = write(tmp_path, form)
    flip_a_byte(tmp_path, dataset.index.shards[0].name)
    stored = StoredEmbeddings(tmp_path, dataset.version)
    found = {
        sample.id: stored.find(sample.id, sample.image_sha256) is not None
        for sample in dataset.samples
    }
    assert Counter(found.values()) == {True: 4, False: 2}


def each_byte(form: ShardFormat, step: int) -> Iterator[bytes]:
    """A small shard with one byte changed, for every ``step``-th byte."""
    good = CONTAINERS[form].encode(
        [make_record("a", (1, 1), dim=1), make_record("b", (1, 2), dim=1)]
    )
    for place in range(0, len(good), step):
        for value in {0, 255, good[place] ^ 1} - {good[place]}:
            yield good[:place] + bytes([value]) + good[place + 1 :]


def assert_refused_or_read(form: ShardFormat, step: int) -> None:
    """Damaged bytes whose digest is right, as a hostile writer could have made them."""
    for data in each_byte(form, step):
        array = torch.frombuffer(bytearray(data), dtype=torch.uint8).numpy()
        try:
            list(CONTAINERS[form].parse(array, "damaged"))
        except ShardError as error:
            assert "\n" not in str(error)  # noqa: PT017  # that there is none is fine too


def test_one_changed_byte_is_refused_or_harmless_when_parsed(form: ShardFormat) -> None:
    assert_refused_or_read(form, step=97)


@pytest.mark.torture
def test_any_changed_byte_is_refused_or_harmless_when_parsed(form: ShardFormat) -> None:
    assert_refused_or_read(form, step=1)


REPLACE = """
import shutil, sys, time
from pathlib import Path
from vocprep.files.replacing import Replacement

folder, times, pause = Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
for number in range(times):
    staged = folder / ".tmp-build"
    shutil.copytree(folder.parent / f"version_{(number + 1) % 2}", staged)
    names = [path.name for path in staged.iterdir()]
    Replacement(
        folder=folder,
        staged=staged,
        marker="dataset.json",
        is_own=lambda name: not name.startswith(".tmp-"),
    ).commit(names)
    staged.rmdir()
    print(number, flush=True)
    time.sleep(pause)
"""


def replace_while_reading(
    folder: Path, form: ShardFormat, times: int, pause: float
) -> Counter[str]:
    """Read a version, opened again after each refusal, while a process replaces it."""
    owner: dict[bytes, int] = {}
    for seed in (0, 1):
        version = write(folder / f"version_{seed}", form, seed)
        for sample in version.samples:
            owner[version.record(sample.id).embeddings.tobytes()] = seed
    out = folder / "out"
    shutil.copytree(folder / "version_0", out)
    ids = [ShardDataset.open(folder / f"version_{seed}").index.content_id for seed in (0, 1)]
    outcomes: Counter[str] = Counter()
    command = [sys.executable, "-c", REPLACE, str(out), str(times), str(pause)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as builder:
        while builder.poll() is None:
            try:
                dataset = ShardDataset.open(out)
            except ShardError:
                outcomes["not opened"] += 1
                continue
            opened = ids.index(dataset.index.content_id)
            try:
                while True:
                    for mode in ("streaming", "resident"):
                        for record in _read(dataset, mode):
                            assert owner[record] == opened, "a record of another version"
                            outcomes["records"] += 1
                    if builder.poll() is not None:
                        break
            except ShardError as error:
                assert "was replaced while it was read" in str(error)  # noqa: PT017
                outcomes["refused"] += 1
    assert builder.returncode == 0
    return outcomes


def _read(dataset: ShardDataset, mode: Any) -> Iterator[bytes]:
    for batch in dataset.loader("train", LoaderOptions(batch_size=1, mode=mode, shuffle=True)):
        yield batch.embeddings.numpy().astype("float16").tobytes()


@pytest.mark.slow
def test_reader_gives_no_foreign_record_while_a_version_is_replaced(
    form: ShardFormat, tmp_path: Path
) -> None:
    outcomes = replace_while_reading(tmp_path, form, times=8, pause=0.05)
    assert outcomes["records"] > 100


@pytest.mark.torture
def test_reader_gives_no_foreign_record_over_many_replacements(
    form: ShardFormat, tmp_path: Path
) -> None:
    outcomes = replace_while_reading(tmp_path, form, times=200, pause=0.15)
    assert outcomes["records"] > 10_000
    assert outcomes["refused"] > 50


@pytest.mark.torture
@FEW_CORES
def test_worker_processes_give_no_foreign_record_while_a_version_is_replaced(
    form: ShardFormat, tmp_path: Path
) -> None:
    """In worker processes, which prove shards of their own."""
    owner = {}
    for seed in (0, 1):
        version = write(tmp_path / f"version_{seed}", form, seed)
        for sample in version.samples:
            owner[version.record(sample.id).embeddings.tobytes()] = seed
    out = tmp_path / "out"
    shutil.copytree(tmp_path / "version_0", out)
    command = [sys.executable, "-c", REPLACE, str(out), "8", "2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as builder, warnings.catch_warnings():
        while builder.poll() is None:
            try:
                dataset = ShardDataset.open(out)
                one = version.index.content_id == dataset.index.content_id
                split = StreamingDataset(dataset, "train")
                for _ in range(20):
                    for batch in DataLoader(split, 1, collate_fn=collate, num_workers=2):
                        data = batch.embeddings.numpy().astype("float16").tobytes()
                        assert owner[data] == int(one)
            except ShardError:
                continue
