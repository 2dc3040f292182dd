"""What lies beside an unfinished download is never trusted, whoever put it there."""

from __future__ import annotations

import hashlib
import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from builders.mirror import Mirror, etag
from builders.progress import RecordedProgress

from vocprep.data_dir.digests import ExpectedDigests
from vocprep.downloading.download import DownloadOptions, download
from vocprep.downloading.http import TransferOptions
from vocprep.downloading.outcomes import DownloadOutcome
from vocprep.downloading.partial import PartFile
from vocprep.manifests import SourceFile, SourceManifest

DATA = random.Random(3).randbytes(50_000)
HELD = 20_000
SHA256 = hashlib.sha256(DATA).hexdigest()
OPTIONS = DownloadOptions(transfer=TransferOptions(retries=1, backoff_seconds=0.001))
LIMIT = 100_000


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror({"file.bin": DATA}) as server:
        yield server


class Place:
    """A data dir with an unfinished download, and a file that must not be touched."""

    def __init__(self, folder: Path, url: str) -> None:
        self.url = url
        self.data = folder / "data"
        self.final = self.data / "file.bin"
        self.part = self.data / "file.bin.part"
        self.state = self.data / "file.bin.part.json"
        self.precious = folder / "precious"
        self.precious.write_bytes(b"precious")

    def hold(self, expected: ExpectedDigests) -> None:
        with PartFile(self.final, expected) as part:
            part.add_source(self.url, None, etag(DATA))
            part.append(DATA[:HELD])

    def edit(self, **values: object) -> None:
        self.state.write_text(json.dumps(json.loads(self.state.read_text()) | values))

    def fetch(self, sha256: str | None) -> DownloadOutcome:
        file = SourceFile(path="file.bin", urls=(self.url,), sha256=sha256, max_bytes=LIMIT)
        source = SourceManifest(name="s", title="t", terms="t", files=(file,))
        return download(source, self.data, OPTIONS, RecordedProgress())[0]

    def replace(self, path: Path, make: Callable[[Path], object]) -> None:
        path.unlink(missing_ok=True)
        make(path)

    def link(self, path: Path) -> None:
        path.symlink_to(self.precious)

    def name_twice(self, path: Path) -> None:
        path.hardlink_to(self.precious)


def long_and_empty(path: Path) -> None:
    """Five terabytes that no disk holds."""
    path.touch()
    os.truncate(path, 5 << 40)


Damage = Callable[[Place], object]
DAMAGES: dict[str, Damage] = {
    "part is a link": lambda place: place.replace(place.part, place.link),
    "part has two names": lambda place: place.replace(place.part, place.name_twice),
    "part is a pipe": lambda place: place.replace(place.part, os.mkfifo),
    "part is empty": lambda place: place.part.write_bytes(b""),
    "part is of another file": lambda place: place.part.write_bytes(bytes(HELD)),
    "part is longer than the file": lambda place: place.part.write_bytes(bytes(90_000)),
    "part is five terabytes": lambda place: place.replace(place.part, long_and_empty),
    "state is a link": lambda place: place.replace(place.state, place.link),
    "state is a pipe": lambda place: place.replace(place.state, os.mkfifo),
    "state is endless": lambda place: place.replace(
        place.state, lambda path: path.symlink_to("/dev/zero")
    ),
    "state is deep": lambda place: place.state.write_text("[" * 100_000),
    "state is cut": lambda place: os.truncate(place.state, 40),
    "new state is a link": lambda place: place.link(place.data / "file.bin.part.json.new"),
    "new state is a pipe": lambda place: os.mkfifo(place.data / "file.bin.part.json.new"),
    "size as text": lambda place: place.edit(size="50000"),
    "size as a fraction": lambda place: place.edit(size=50000.0),
    "size below zero": lambda place: place.edit(size=-1),
    "size beyond all": lambda place: place.edit(size=10**30),
    "size of the part": lambda place: place.edit(size=HELD),
    "size below the part": lambda place: place.edit(size=7),
    "version of tomorrow": lambda place: place.edit(version=3),
    "other digests": lambda place: place.edit(expected={"sha256": "00"}),
    "no digests": lambda place: place.edit(expected=None),
    "validator with a header": lambda place: place.edit(validators={place.url: "a\r\nHost: b"}),
    "validator of surrogates": lambda place: place.edit(validators={place.url: "\ud800"}),
    "validator beyond Latin": lambda place: place.edit(validators={place.url: "\u4e2d"}),
    "validator of a megabyte": lambda place: place.edit(validators={place.url: "x" * (1 << 20)}),
    "validators in a list": lambda place: place.edit(validators=[place.url]),
    "another start of the machine": lambda place: place.edit(boot="?"),
}


CASES = [(name, SHA256) for name in DAMAGES] + [
    (name, None) for name in DAMAGES if name != "part is of another file"
]


@pytest.mark.parametrize(
    ("name", "sha256"),
    CASES,
    ids=[f"{name}{'' if known else ', no digest'}" for name, known in CASES],
)
def test_a_damaged_partial_state_costs_a_transfer_at_most(
    mirror: Mirror, tmp_path: Path, name: str, sha256: str | None
):
    place = Place(tmp_path, mirror.url("file.bin"))
    place.hold(ExpectedDigests(sha256=sha256))
    DAMAGES[name](place)
    outcome = place.fetch(sha256)
    assert outcome.error is None
    assert place.final.read_bytes() == DATA
    assert not place.final.is_symlink()
    assert sorted(path.name for path in place.data.glob("file*")) == ["file.bin"]
    assert place.precious.read_bytes() == b"precious"


@pytest.mark.parametrize("suffix", ["part", "part.json", "part.json.new"])
def test_a_folder_in_the_way_is_named(mirror: Mirror, tmp_path: Path, suffix: str):
    place = Place(tmp_path, mirror.url("file.bin"))
    folder = place.data / f"file.bin.{suffix}"
    folder.mkdir(parents=True)
    outcome = place.fetch(SHA256)
    assert outcome.exit_code == 3
    assert str(outcome.error).startswith(f"{folder}: cannot be read or written: ")
    assert "move what is in the way" in str(outcome.error)
    assert not place.final.exists()


def test_what_is_complete_without_a_digest_is_asked_for_again(mirror: Mirror, tmp_path: Path):
    """The state says that the file ends here, and nothing shows that it does."""
    place = Place(tmp_path, mirror.url("file.bin"))
    with PartFile(place.final, ExpectedDigests()) as part:
        part.add_source(place.url, HELD, etag(DATA))
        part.append(DATA[:HELD])
    assert place.fetch(None).error is None
    assert place.final.read_bytes() == DATA


def test_a_folder_in_the_place_of_the_state_leaves_no_temporary_file(
    tmp_path: Path, mirror: Mirror
) -> None:
    place = Place(tmp_path, mirror.url("file.bin"))
    place.state.mkdir(parents=True)
    outcome = place.fetch(SHA256)
    assert f"{place.state}: cannot be read or written" in str(outcome.error)
    found = {path.name for path in place.data.iterdir()}
    assert found <= {".vocprep", place.part.name, place.state.name}
