"""Unpacking: the official shape goes into place, each trick is refused with the member's name."""

from __future__ import annotations

import errno
import gzip
import io
import os
import random
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from vocprep.data_dir.receipts import is_unpacked, read_unpacked
from vocprep.downloading.archive import unpack
from vocprep.downloading.members import Archive
from vocprep.errors import ArchiveError, UsageError
from vocprep.files.writing import sha256_hex
from vocprep.manifests import ExpectedFiles, Unpack

LIMIT = 1_000_000
NOISE = random.Random(0).randbytes(40_000)


class Target:
    """A data dir in a folder of its own, so that what leaves it can be seen."""

    def __init__(self, folder: Path) -> None:
        self.outside = folder
        self.data = folder / "data"
        self.data.mkdir()
        (folder / "secret.txt").write_bytes(b"before")

    def archive(self, packed: bytes, **rules: object) -> Archive:
        path = self.outside / "bytes.tar"
        path.write_bytes(packed)
        facts = Unpack(**{"max_bytes": LIMIT, **rules})
        return Archive(name="downloads/a.tar", path=path, sha256=sha256_hex(packed), unpack=facts)

    def assert_refuses(self, packed: bytes, said: str, **rules: object) -> None:
        with pytest.raises(ArchiveError, match=said):
            unpack(self.archive(packed, **rules), self.data)
        self.assert_untouched()

    def assert_untouched(self) -> None:
        outside = sorted(path.name for path in self.outside.iterdir())
        assert outside == ["bytes.tar", "data", "secret.txt"]
        assert (self.outside / "secret.txt").read_bytes() == b"before"
        assert [path for path in self.data.rglob("*") if path.name != ".vocprep"] == []
        assert read_unpacked(self.data, "downloads/a.tar") is None

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.data)): path.read_bytes()
            for path in sorted(self.data.rglob("*"))
            if path.is_file() and ".vocprep" not in path.parts
        }


@pytest.fixture
def target(tmp_path: Path) -> Target:
    return Target(tmp_path)


Member = tuple[tarfile.TarInfo, bytes]


def file(name: str, data: bytes = b"x") -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info, data


def special(name: str, kind: bytes, link: str = "") -> Member:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info, b""


def folder(name: str) -> Member:
    return special(name, tarfile.DIRTYPE)


def tar(*members: Member, form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


GOOD = tar(folder("VOC"), file("VOC/a.jpg", b"one"), file("./VOC/b.jpg", b"two"), file("c.txt"))


def test_a_good_archive_is_unpacked_and_recorded(target: Target):
    tree = unpack(target.archive(GOOD), target.data)
    assert target.files() == {"VOC/a.jpg": b"one", "VOC/b.jpg": b"two", "c.txt": b"x"}
    assert [(item.path, item.size, item.sha256) for item in tree.files] == [
        (path, len(data), sha256_hex(data)) for path, data in target.files().items()
    ]
    assert read_unpacked(target.data, "downloads/a.tar") == tree
    assert is_unpacked(target.data, tree)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_of_every_format_are_read(target: Target, form: int):
    name = "/".join(["folder" * 5] * 4) + "/picture.jpg"
    unpack(target.archive(tar(file(name), form=form)), target.data)
    assert list(target.files()) == [name]


def test_gzip_is_known_by_its_bytes(target: Target):
    unpack(target.archive(gzip.compress(GOOD)), target.data)
    assert len(target.files()) == 3


def test_a_leading_folder_is_taken_away(target: Target):
    packed = tar(folder("Train"), folder("Train/Val"), file("Train/Val/VOC/a.jpg"))
    unpack(target.archive(packed, strip="Train/Val"), target.data)
    assert list(target.files()) == ["VOC/a.jpg"]


def test_two_archives_fill_one_folder(target: Target):
    unpack(target.archive(GOOD), target.data)
    more = target.archive(tar(file("VOC/d.jpg", b"four"), file("VOC/new/e.jpg", b"five")))
    unpack(Archive(**{**vars(more), "name": "downloads/b.tar"}), target.data)
    assert sorted(target.files()) == [
        "VOC/a.jpg",
        "VOC/b.jpg",
        "VOC/d.jpg",
        "VOC/new/e.jpg",
        "c.txt",
    ]
    assert read_unpacked(target.data, "downloads/a.tar") != read_unpacked(
        target.data, "downloads/b.tar"
    )


def test_unpacking_again_mends_the_tree(target: Target):
    tree = unpack(target.archive(GOOD), target.data)
    (target.data / "VOC/a.jpg").write_bytes(b"spoilt")
    (target.data / "c.txt").unlink()
    assert not is_unpacked(target.data, tree)
    unpack(target.archive(GOOD), target.data)
    assert target.files()["VOC/a.jpg"] == b"one"
    assert is_unpacked(target.data, tree)


@pytest.mark.parametrize(
    ("member", "said"),
    [
        (file("/etc/evil"), "'/etc/evil' has an absolute path"),
        (file("../secret.txt"), r"'\.\./secret.txt' has '\.\.'"),
        (file("sources.lock.json"), "would lie among vocprep's own files"),
        (file("Labels.txt"), "would lie among vocprep's own files"),
        (file(".vocprep/receipts/x.json"), "would lie among vocprep's own files"),
        (file("weights/keep.pth"), "would lie among vocprep's own files"),
        (file("VOC/../../secret.txt"), r"has '\.\.'"),
        (folder("../made"), r"has '\.\.'"),
        (special("up", tarfile.SYMTYPE, ".."), "'up' is a link to '..'"),
        (special("root", tarfile.SYMTYPE, "/"), "'root' is a link to '/'"),
        (special("in", tarfile.SYMTYPE, "VOC/a.jpg"), "'in' is a link to 'VOC/a.jpg'"),
        (special("hard", tarfile.LNKTYPE, "../secret.txt"), "'hard' is a hard link"),
        (special("hard", tarfile.LNKTYPE, "VOC/a.jpg"), "'hard' is a hard link"),
        (special("disk", tarfile.BLKTYPE), "'disk' is a device"),
        (special("tty", tarfile.CHRTYPE), "'tty' is a device"),
        (special("pipe", tarfile.FIFOTYPE), "'pipe' is a FIFO"),
        (special("odd", b"Z"), "unknown type b'Z'"),
        (file("VOC/a.jpg"), "'VOC/a.jpg' is in the archive twice"),
        (file("./VOC//a.jpg"), "is in the archive twice"),
        (file("VOC"), "'VOC' is in the archive twice"),
        (file("VOC/A.jpg"), "'VOC/A.jpg' differs from 'VOC/a.jpg' only in the case"),
        (file("voc/new.jpg"), "'voc/new.jpg' differs from 'VOC' only in the case"),
        (file("VOC/a.jpg/b"), "lies below 'VOC/a.jpg', which is a file"),
        (folder("c.txt"), "'c.txt' is in the archive twice"),
        (file("bad\udcff.jpg"), "name that is not UTF-8"),
        (file("line\nbreak.jpg"), "control character"),
        (file("..\\secret.txt"), "backslash"),
    ],
)
def test_a_trick_is_refused(target: Target, member: Member, said: str):
    target.assert_refuses(tar(folder("VOC"), file("VOC/a.jpg"), file("c.txt"), member), said)


def test_a_link_cannot_carry_a_later_member_outside(target: Target):
    out = special("VOC", tarfile.SYMTYPE, str(target.outside))
    target.assert_refuses(tar(out, file("VOC/secret.txt", b"after")), "is a link")


def test_the_names_that_unicode_spells_twice_collide(target: Target):
    target.assert_refuses(tar(file("caf\u00e9.jpg"), file("cafe\u0301.jpg")), "only in the case")


def test_a_pax_path_is_judged_like_any_other(target: Target):
    info, data = file("harmless.txt")
    info.pax_headers = {"path": "/absolute.txt"}
    target.assert_refuses(tar((info, data), form=tarfile.PAX_FORMAT), "absolute path")


@pytest.mark.parametrize(
    "headers",
    [
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "99999999999"},
        {"GNU.sparse.size": "99999999999", "GNU.sparse.map": "0,1"},
        {"GNU.sparse.realsize": "7"},
    ],
)
def test_a_sparse_member_is_refused(target: Target, headers: dict[str, str]):
    info, data = file("hole", b"1\n0\n1\n".ljust(512, b"\0") + b"x")
    info.pax_headers = headers
    target.assert_refuses(tar((info, data), form=tarfile.PAX_FORMAT), "sparse|not a readable tar")


def test_an_old_sparse_member_is_refused(target: Target):
    target.assert_refuses(tar(special("hole", tarfile.GNUTYPE_SPARSE)), "sparse|not a readable tar")


def test_a_gzip_bomb_ends_at_the_bound(target: Target):
    packed = gzip.compress(tar(file("zeros", bytes(20 * LIMIT))))
    assert len(packed) < LIMIT / 10
    target.assert_refuses(
        packed, r"'zeros' alone unpacks to 20000000 bytes, expected at most 1000000"
    )


def test_a_bomb_of_many_small_members_ends_at_the_bound(target: Target):
    packed = gzip.compress(tar(*(file(f"{i}.jpg", bytes(LIMIT // 4)) for i in range(20))))
    target.assert_refuses(packed, "unpacks to more than")


def test_a_bomb_behind_the_last_member_is_never_read(target: Target):
    packed = gzip.compress(GOOD + bytes(20 * LIMIT))
    unpack(target.archive(packed), target.data)
    assert len(target.files()) == 3


def test_a_bomb_in_a_header_is_refused(target: Target):
    info, data = file("a.txt")
    info.pax_headers = {"comment": "x" * (2 << 20)}
    packed = tar((info, data), form=tarfile.PAX_FORMAT)
    target.assert_refuses(packed, "a header of 2097", max_bytes=100 << 20)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda packed: packed[: len(packed) // 2],
        lambda packed: packed[:-20_000],
        lambda packed: packed[:40] + b"\xff" * 8 + packed[48:],
        lambda packed: b"\x1f\x8b" + bytes(100),
    ],
)
def test_a_damaged_gzip_is_refused(target: Target, spoil: Callable[[bytes], bytes]):
    packed = gzip.compress(tar(file("a", NOISE), file("b", NOISE)))
    target.assert_refuses(spoil(packed), "not a readable tar archive|cannot be unpacked")


@pytest.mark.parametrize("packed", [b"", b"<html>", bytes(100), NOISE[:2000], GOOD[:600]])
def test_what_is_no_tar_is_refused(target: Target, packed: bytes):
    target.assert_refuses(packed, "not a readable tar archive")


@pytest.mark.slow
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_mutated_archives_unpack_or_are_refused(target: Target, form: int):
    info, data = file("VOC/" + "long" * 40 + ".jpg")
    info.pax_headers = {"comment": "a word"}
    packed = tar(folder("VOC"), file("VOC/a.jpg", NOISE[:700]), (info, data), form=form)
    draw, outcomes = random.Random(form), set()
    for _ in range(300):
        spoilt = bytearray(packed)
        for _ in range(draw.choice([1, 3, 20])):
            spoilt[draw.randrange(len(packed) - 8192)] = draw.choice([0, 32, 47, 49, 120, 255])
        try:
            unpack(target.archive(bytes(spoilt)), target.data)
            outcomes.add("unpacked")
        except ArchiveError:
            outcomes.add("refused")
        shutil.rmtree(target.data)
        target.data.mkdir()
        target.assert_untouched()
    assert outcomes == {"unpacked", "refused"}


def test_a_tar_that_is_cut_between_members_fails_its_counts(target: Target):
    expect = (ExpectedFiles(folder="VOC", suffix=".jpg", count=2),)
    target.assert_refuses(
        GOOD[:1536] + bytes(1024), "expected 2 .jpg files in VOC, found 1", expect=expect
    )


def test_a_subset_passes_when_partial_is_allowed(target: Target):
    expect = (ExpectedFiles(folder="VOC", suffix=".jpg", count=10_103),)
    unpack(target.archive(GOOD, expect=expect), target.data, partial=True)
    assert len(target.files()) == 3


def test_a_member_outside_the_stripped_folder_is_refused(target: Target):
    packed = tar(file("TrainVal/a.jpg"), file("Other/b.jpg"))
    target.assert_refuses(
        packed, "'Other/b.jpg' lies outside the folder 'TrainVal'", strip="TrainVal"
    )


def test_a_file_in_the_way_of_a_folder_is_named(target: Target):
    (target.data / "VOC").write_bytes(b"mine")
    with pytest.raises(ArchiveError, match="move it away"):
        unpack(target.archive(GOOD), target.data)
    assert (target.data / "VOC").read_bytes() == b"mine"
    assert read_unpacked(target.data, "downloads/a.tar") is None


def test_link_that_leads_nowhere_is_named(target: Target):
    (target.data / "VOC").symlink_to(target.outside / "not mounted")
    with pytest.raises(ArchiveError, match=r"found a link to .*not mounted, where nothing is"):
        unpack(target.archive(GOOD), target.data)
    assert not (target.outside / "not mounted").exists()


@pytest.fixture
def elsewhere(target: Target, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on another file system; where the machine has no second one, renames pretend so."""
    shared = Path("/dev/shm")
    if shared.is_dir() and shared.stat().st_dev != target.data.stat().st_dev:
        with TemporaryDirectory(dir=shared) as folder:
            yield Path(folder)
        return
    place = target.outside / "mount"
    place.mkdir()
    replace = Path.replace

    def across(self: Path, new: Path) -> Path:
        if (place in self.resolve().parents) != (place in new.resolve().parents):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(self), None, str(new))
        return replace(self, new)

    monkeypatch.setattr(Path, "replace", across)
    yield place


DEEP = tar(file("VOC/2010/a.jpg", b"one"), file("VOC/2010/b.jpg", b"two"), file("VOC/c.txt"))


@pytest.mark.parametrize("linked", ["VOC", "VOC/2010"])
@pytest.mark.parametrize("before", [False, True], ids=["empty", "filled"])
def test_folder_on_another_file_system_is_filled(
    linked: str, before: bool, target: Target, elsewhere: Path
):
    link = target.data / linked
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(elsewhere)
    if before:
        (link / "a.jpg").parent.mkdir(exist_ok=True)
        (elsewhere / "2010").mkdir()
        for name in ("2010/a.jpg", "a.jpg", "mine.txt"):
            (elsewhere / name).write_bytes(b"old")
            (elsewhere / name).chmod(0o444)
    tree = unpack(target.archive(DEEP), target.data)
    assert link.is_symlink()
    assert is_unpacked(target.data, tree)
    for name, data in (("VOC/2010/a.jpg", b"one"), ("VOC/2010/b.jpg", b"two"), ("VOC/c.txt", b"x")):
        assert (target.data / name).read_bytes() == data
    assert not [path for path in elsewhere.rglob("*") if path.name.startswith(".tmp-")]
    assert not before or (elsewhere / "mine.txt").read_bytes() == b"old"


def test_what_a_killed_unpacking_left_on_another_file_system_is_cleared_away(
    target: Target, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
):
    (target.data / "VOC").symlink_to(elsewhere)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vocprep.downloading.archive.shutil.copyfile", killed)
        patch.setattr("vocprep.downloading.archive.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            unpack(target.archive(GOOD), target.data)
    assert list(elsewhere.iterdir())
    unpack(target.archive(GOOD), target.data)
    assert {path.name for path in elsewhere.iterdir()} == {"a.jpg", "b.jpg"}


@pytest.mark.parametrize("where", [".vocprep", "VOC"])
def test_unfinished_work_behind_a_link_is_refused(
    where: str, target: Target, elsewhere: Path, tmp_path: Path
):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    if where == "VOC":
        (target.data / "VOC").symlink_to(elsewhere)
    (target.data / where).mkdir(exist_ok=True)
    (target.data / where / ".tmp-unpack-downloads-a.tar").symlink_to(tmp_path / "mine")
    with pytest.raises(UsageError, match=r"found a link to .*mine; delete the link"):
        unpack(target.archive(GOOD), target.data)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["file"]


MOUNTED = """
mount --bind {there} {here} && exec {python} - {packed} {data} <<'END'
import sys
from pathlib import Path
from vocprep.downloading.archive import unpack
from vocprep.downloading.members import Archive
from vocprep.manifests import Unpack
packed, data = map(Path, sys.argv[1:])
unpack(Archive(name="a.tar", path=packed, sha256="0" * 64, unpack=Unpack(max_bytes=10**6)), data)
END
"""


@pytest.mark.slow
def test_mount_point_is_filled(target: Target, tmp_path: Path):
    """Of the same file system, between whose mounts no rename is possible either."""
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mounts without privileges here")
    here, there, packed = target.data / "VOC", tmp_path / "there", tmp_path / "deep.tar"
    here.mkdir()
    there.mkdir()
    packed.write_bytes(DEEP)
    words = {"here": here, "there": there, "packed": packed, "data": target.data}
    script = MOUNTED.format(python=sys.executable, **words)
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    names = {str(path.relative_to(there)) for path in there.rglob("*") if path.is_file()}
    assert names == {"2010/a.jpg", "2010/b.jpg", "c.txt"}
    assert not [path for path in there.rglob("*") if path.name.startswith(".tmp-")]


def test_records_on_another_file_system_do_as_well(target: Target, elsewhere: Path):
    (target.data / ".vocprep").symlink_to(elsewhere)
    unpack(target.archive(GOOD), target.data)
    assert len(target.files()) == 3
    assert {path.name for path in target.data.iterdir()} == {".vocprep", "VOC", "c.txt"}


def test_what_a_killed_unpacking_left_is_cleared_away(
    target: Target, monkeypatch: pytest.MonkeyPatch
):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vocprep.downloading.archive._check_counts", killed)
        patch.setattr("vocprep.downloading.archive.shutil.rmtree", lambda *_, **__: None)
        with pytest.raises(KeyboardInterrupt):
            unpack(target.archive(GOOD), target.data)
    assert list((target.data / ".vocprep").iterdir())
    unpack(target.archive(GOOD), target.data)
    assert [path.name for path in (target.data / ".vocprep").iterdir()] == ["trees"]
    assert len(target.files()) == 3


@pytest.mark.parametrize(
    "moment", ["_write_member", "_check_counts", "_move_into", "write_unpacked"]
)
def test_an_interruption_leaves_nothing_that_looks_complete(
    target: Target, monkeypatch: pytest.MonkeyPatch, moment: str
):
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(f"vocprep.downloading.archive.{moment}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            unpack(target.archive(GOOD), target.data)
    assert read_unpacked(target.data, "downloads/a.tar") is None
    unpack(target.archive(GOOD), target.data)
    assert len(target.files()) == 3


def test_every_unpacked_file_is_flushed_and_no_other_filesystem(
    target: Target, monkeypatch: pytest.MonkeyPatch
):
    flushed, fsync = set(), os.fsync

    def recorded(descriptor: int) -> None:
        flushed.add(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def everything() -> None:
        raise AssertionError("flushes every file system of the machine")

    monkeypatch.setattr("vocprep.downloading.archive.os.fsync", recorded)
    monkeypatch.setattr("vocprep.downloading.archive.os.sync", everything)
    unpack(target.archive(GOOD), target.data)
    for path in ("", "VOC", *target.files()):
        assert (target.data / path).stat().st_ino in flushed, path
