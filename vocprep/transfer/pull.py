"""``pull``: fetch a dataset version from an object store into a folder."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocprep.building.output.publish import refuse_foreign_files, version_exchange
from vocprep.building.output.staging import STAGING
from vocprep.building.output.store_publish import (
    another_version,
    is_same_version,
    store_errors,
)
from vocprep.errors import DataError, ShardError, UsageError
from vocprep.files.locking import LOCK, file_lock
from vocprep.files.names import PULLING, TEMPORARY_PREFIX, UNFINISHED, found_at
from vocprep.files.reading import MAX_JSON_BYTES, open_regular
from vocprep.files.writing import (
    atomic_file,
    check_output_folder,
    disk_advice,
    link_or_copy,
    remove_path,
    write_atomic,
)
from vocprep.options import IfExists, TransferOptions
from vocprep.parallel import map_ordered
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.index import (
    DATASET_FILE,
    DatasetIndex,
    FileEntry,
    has_index,
    is_of_index,
    read_index,
)
from vocprep.shards.listed import FileProblem, foreign_file, is_unchanged
from vocprep.storage.cache import cached_path
from vocprep.storage.places import Place, local_path, parse_place
from vocprep.storage.store import CHUNK, StorePath
from vocprep.validation import explain

_KEPT = "what was fetched"


@dataclass(frozen=True, kw_only=True)
class PullResult:
    """A version that is in a folder, and what bringing it there took."""

    path: Path
    index: DatasetIndex
    files: int
    """Of the version, dataset.json included."""
    fetched: int
    """Of them, those that were not there; 0 when the folder was up to date."""
    fetched_bytes: int
    seconds: float

    def __repr__(self) -> str:
        return f"PullResult('{self.path}': {self.index.short_id}, {self.fetched:,} fetched)"

    @property
    def up_to_date(self) -> bool:
        """Whether nothing had to be fetched."""
        return self.fetched == 0

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "path": str(self.path),
            "short_id": self.index.short_id,
            "content_id": self.index.content_id,
            "up_to_date": self.up_to_date,
            "files": self.files,
            "fetched": self.fetched,
            "fetched_bytes": self.fetched_bytes,
            "seconds": self.seconds,
        }


def pull(
    url: str | Place,
    out: str | Path,
    options: TransferOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> PullResult:
    """Fetch the dataset version at the URL of an object store into a folder.

    Files are digested while they come in, several at once. They wait in a folder inside ``out``,
    where the next call finds them after an interruption, and get their names together once all of
    them are there, dataset.json last. Raises UsageError for places of other kinds and where another
    version is, ShardError when there is no version or an object of it is damaged, DataError where
    the store fails.
    """
    started = time.perf_counter()
    options = options or TransferOptions()
    source, folder = _source(url), local_path(out)
    with store_errors(_KEPT):
        index, data = _read_index(source)
        with _locked(folder, progress.note):
            call = _Pull(source=source, folder=folder, index=index, data=data)
            here = call.index_here(options.if_exists)
            is_here = here is not None and is_same_version(here, index)
            if is_here and call.is_whole(options.workers):
                fetched, count = [], 0
            else:
                fetched = call.fetch(options.workers, progress)
                count = len(fetched) + 1
            call.clean()
    return PullResult(
        path=folder,
        index=index,
        files=len(index.shards) + len(index.files) + 1,
        fetched=count,
        fetched_bytes=sum(entry.bytes for entry in fetched) + (len(data) if count else 0),
        seconds=time.perf_counter() - started,
    )


def _source(url: str | Place) -> StorePath:
    """Return the URL of a version; UsageError for a folder."""
    source = parse_place(url)
    if isinstance(source, StorePath):
        return source
    raise UsageError(
        f"{source}: expected the URL of an object store, such as s3://bucket/shards, found a "
        "folder of this machine; use the version where it is, or copy it with cp -r"
    )


def _read_index(source: StorePath) -> tuple[DatasetIndex, bytes]:
    """Return the index of the version at a URL, and the bytes of dataset.json."""
    data = b""
    with suppress(FileNotFoundError):  # of which read_index has the sentence
        data = (source / DATASET_FILE).read(MAX_JSON_BYTES)
    index = read_index(source)
    if not is_of_index(data, index):
        raise ShardError(f"{source}: was replaced while it was read; run the same command again")
    return index, data


@contextmanager
def _locked(out: Path, note: Callable[[str], None]) -> Iterator[None]:
    """Make the output folder and hold its file lock, which builds hold too."""
    check_output_folder(out)
    busy = f"{out}: another vocprep is writing there; wait for it or choose another folder"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(
            f"{out}: cannot be written to: {explain(error)}; {disk_advice(error)}, or choose "
            "another folder"
        ) from error
    with file_lock(out / LOCK, busy=busy, note=note):
        yield


@dataclass(frozen=True, kw_only=True)
class _Pull:
    """A version, and where it goes."""

    source: StorePath
    folder: Path
    index: DatasetIndex
    data: bytes
    """Of dataset.json."""

    @property
    def staged(self) -> Path:
        return self.folder / PULLING

    @property
    def entries(self) -> tuple[FileEntry, ...]:
        return (*self.index.shards, *self.index.files)

    def index_here(self, if_exists: IfExists) -> DatasetIndex | None:
        """Return the index of the version in the folder, if any.

        UsageError where what the folder holds is not to be replaced.
        """
        folder = self.folder
        version_exchange(folder, self.staged).restore()
        refuse_foreign_files(folder, "an empty folder")
        is_unfinished = (folder / STAGING).is_dir()
        if if_exists == "fail" and (has_index(folder) or is_unfinished or self.staged.is_dir()):
            raise UsageError(
                f"{folder}: holds {found_at(folder)} and --if-exists is fail; nothing was done: "
                "choose another folder, or --if-exists resume or overwrite"
            )
        if if_exists == "overwrite":
            return None
        here = read_index(folder) if has_index(folder) else None
        if here is not None and not is_same_version(here, self.index):
            raise another_version(folder, here, self.index)
        if here is None and is_unfinished:
            raise UsageError(
                f"{folder}: holds {UNFINISHED}; choose another folder, or --if-exists overwrite"
            )
        return here

    def is_whole(self, workers: int) -> bool:
        """Return whether all files of the version are in the folder."""

        def is_here(entry: FileEntry) -> bool:
            return is_unchanged(self.folder / entry.name, entry)

        return all(map_ordered(is_here, self.entries, workers))

    def fetch(self, workers: int, progress: Progress) -> list[FileEntry]:
        """Give the folder all files of the version; return those that the store was read for."""
        self._prepare()
        fetched = []
        progress.begin("pull", sum(entry.bytes for entry in self.entries), 0)
        try:
            results = map_ordered(self._stage, self.entries, workers, ahead=1)
            for entry, is_fetched in zip(self.entries, results, strict=True):
                progress.advance(entry.bytes)
                if is_fetched:
                    fetched.append(entry)
        finally:
            progress.end()
        write_atomic(self.staged / DATASET_FILE, self.data)
        names = {DATASET_FILE, *(entry.name for entry in self.entries)}
        version_exchange(self.folder, self.staged).commit(names)
        return fetched

    def clean(self) -> None:
        """Delete what unfinished work left in the folder."""
        for path in self.folder.glob(f"{TEMPORARY_PREFIX}*"):
            with suppress(OSError):  # the next writer deletes it
                remove_path(path)

    def _prepare(self) -> None:
        """Make the folder that files are fetched into, without what is of no use in it."""
        self.staged.mkdir(exist_ok=True)
        names = {entry.name for entry in self.entries}
        for path in list(self.staged.iterdir()):
            if path.name not in names or path.is_dir() or path.is_symlink():
                remove_path(path)

    def _stage(self, entry: FileEntry) -> bool:
        """Put a file into the staging folder; return whether it had to be fetched for that."""
        target = self.staged / entry.name
        if is_unchanged(target, entry):
            return False
        target.unlink(missing_ok=True)
        if is_unchanged(self.folder / entry.name, entry):
            link_or_copy(self.folder / entry.name, target)
            return False
        with suppress(OSError, _OtherBytesError):  # it is not there, or damaged
            _copy_cached(target, entry)
            return False
        try:
            chunks = (self.source / entry.name).chunks
            _write_proved(target, entry, chunks())
        except _OtherBytesError as error:
            problem = FileProblem.of_mismatch(entry.bytes, error.size, error.sha256)
        except FileNotFoundError as error:
            problem = FileProblem.of_error(self.source / entry.name, error)
        else:
            return True
        raise foreign_file(self.source, self.index, entry, problem)


class _OtherBytesError(Exception):
    """Bytes that are not those of a listed file."""

    def __init__(self, size: int, sha256: str) -> None:
        super().__init__(size, sha256)
        self.size, self.sha256 = size, sha256


def _copy_cached(target: Path, entry: FileEntry) -> None:
    """Copy a file from the cache of what was read, where that has it whole."""
    with open_regular(cached_path(entry.sha256)) as stream:
        _write_proved(target, entry, iter(lambda: stream.read(CHUNK), b""))


def _write_proved(target: Path, entry: FileEntry, chunks: Iterable[bytes | memoryview]) -> None:
    """Write a file whose bytes are digested on their way.

    _OtherBytesError, and no file, when they are not those of the entry.
    """
    digest, count = hashlib.sha256(), 0
    with atomic_file(target) as stream:
        for chunk in chunks:
            count += len(chunk)
            if count > entry.bytes:
                break
            digest.update(chunk)
            stream.write(chunk)
        if count != entry.bytes or digest.hexdigest() != entry.sha256:
            raise _OtherBytesError(count, digest.hexdigest())
