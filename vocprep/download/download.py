"""Bring sources to a data dir: fetch, verify and unpack what the plan says is not there.

One writer a file: every file is worked on under a lock of its own, so that two runs side by side
share the work.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import quote, urlsplit

from filelock import FileLock, Timeout

from vocprep.data_dir.digests import ExpectedDigests, FileDigests, differences, hash_file
from vocprep.data_dir.receipts import Receipt, records_dir, write_receipt
from vocprep.data_dir.source_digests import add_source_digest, read_source_digests
from vocprep.download.archive import unpack
from vocprep.download.fetch import Wanted, fetch
from vocprep.download.members import Archive
from vocprep.download.outcomes import Outcome, outcome_of
from vocprep.download.plan import PlannedFile, plan_file
from vocprep.download.transfer import TransferOptions
from vocprep.errors import DataError, DigestError, SourceUnavailableError, UsageError, VocprepError
from vocprep.files import atomic_path
from vocprep.manifests import SourceFile, SourceManifest
from vocprep.progress import Progress

TensorDigest = Callable[[Path], str]


@dataclass(frozen=True, kw_only=True)
class DownloadOptions:
    """Where files may come from and how far to go with them."""

    mirrors: tuple[str, ...] = ()
    """Folders (http, https or file URLs) that are asked before the manifest's mirrors."""
    from_dir: Path | None = None
    """Folder of files that the user already has; they are verified, then linked or copied."""
    offline: bool = False
    """Use no network: what is neither here, in ``from_dir`` nor at a file URL is an error."""
    extract: bool = True
    """Whether to unpack archives."""
    partial: bool = False
    """Whether an archive may hold another number of files than the official one."""
    transfer: TransferOptions = field(default_factory=TransferOptions)

    def __post_init__(self) -> None:
        """Refuse what cannot be asked."""
        for mirror in self.mirrors:
            if urlsplit(mirror).scheme not in ("http", "https", "file"):
                raise UsageError(f"mirror {mirror!r}: expected an http, https or file URL")
        if self.transfer.connections < 1:
            raise UsageError(f"connections {self.transfer.connections}: expected 1 or more")
        if self.from_dir is not None and not self.from_dir.is_dir():
            raise UsageError(f"{self.from_dir}: no such folder of archives; check --from")


def download(
    data_dir: Path,
    sources: Sequence[SourceManifest],
    options: DownloadOptions,
    progress: Progress,
    tensor_digest: TensorDigest | None = None,
) -> list[Outcome]:
    """Bring every file of the sources to the data dir; return how each ended, in order.

    A file that fails does not keep the others from coming: its outcome holds the error.
    ``tensor_digest`` checks weights by their tensors; without it that check is left out. Raises
    DataError when the lock file or a record of an earlier run is damaged.
    """
    job = _Job(data_dir, options, progress, tensor_digest)
    return [job.bring(source.name, file) for source in sources for file in source.files]


@dataclass(frozen=True)
class _Job:
    """What all files of one run share."""

    data_dir: Path
    options: DownloadOptions
    progress: Progress
    tensor_digest: TensorDigest | None

    def bring(self, source: str, file: SourceFile) -> Outcome:
        """Do what one file needs; an error becomes its outcome."""
        planned = self._plan(source, file)
        try:
            if planned.steps:
                with self._locked(file.path):
                    # Another run may have done the work while this one waited for the lock.
                    planned = self._plan(source, file)
                    done = self._act(planned)
            else:
                done = []
        except VocprepError as error:
            return outcome_of(planned, None, "failed", error)
        except OSError as error:
            return outcome_of(
                planned, None, "failed", _disk_error(self.data_dir / file.path, error)
            )
        receipt = self._plan(source, file).on_disk.receipt if done else planned.on_disk.receipt
        return outcome_of(planned, receipt, ", ".join(done) or "present")

    def _plan(self, source: str, file: SourceFile) -> PlannedFile:
        lock = read_source_digests(self.data_dir)
        return plan_file(self.data_dir, source, file, lock, extract=self.options.extract)

    def _act(self, planned: PlannedFile) -> list[str]:
        """Go through the steps of one file; return what was done, in words."""
        done = []
        if "verify" in planned.steps:
            done.append(self._verify(planned))
        if "fetch" in planned.steps:
            done.append(self._fetch(planned))
        if "unpack" in planned.steps:
            self._unpack(planned)
            done.append("unpacked")
        return done

    def _verify(self, planned: PlannedFile) -> str:
        """Hash a file that is there; a wrong one is set aside and fetched again."""
        path = self.data_dir / planned.file.path
        found = self._hash(path, planned.expected)
        problem = "; ".join(differences(planned.expected, found)) or self._check(planned.file, path)
        if not problem:
            self._accept(planned, found, str(path.parent))
            return "verified"
        aside = path.with_name(path.name + ".wrong")
        path.replace(aside)
        self.progress.note(f"{path}: {problem}; it was set aside as {aside.name}")
        return self._fetch(planned)

    def _fetch(self, planned: PlannedFile) -> str:
        """Get a file from the user's folder, else from the mirrors."""
        path, file = self.data_dir / planned.file.path, planned.file
        had = self._take_from_dir(planned, path)
        if had is not None:
            return had
        urls = mirror_urls(file, self.options)
        if not urls:
            raise SourceUnavailableError(
                f"{path}: is missing and --offline forbids to fetch it; run without --offline, or "
                f"put {path.name} into a folder and name that with --from"
            )
        wanted = Wanted(
            path=path,
            urls=urls,
            expected=planned.expected,
            check=lambda part: self._check(file, part),
        )
        fetched = fetch(wanted, self.options.transfer, self.progress)
        self._accept(planned, fetched.found, fetched.url)
        return "fetched"

    def _take_from_dir(self, planned: PlannedFile, path: Path) -> str | None:
        """Link or copy a file that the user has; None when the folder lacks it or has it wrong."""
        folder = self.options.from_dir
        if folder is None:
            return None
        wrong = []
        for candidate in (folder / planned.file.path, folder / path.name):
            if not candidate.is_file():
                continue
            found = self._hash(candidate, planned.expected)
            problem = "; ".join(differences(planned.expected, found))
            problem = problem or self._check(planned.file, candidate) or ""
            if not problem:
                how = _link_or_copy(candidate.resolve(), path)
                self._accept(planned, found, str(folder))
                return how
            wrong.append(f"{candidate}: {problem}")
            self.progress.note(wrong[-1])
        if wrong and self.options.offline:
            raise DigestError(f"{wrong[0]}; nothing was taken; use the official file")
        return None

    def _unpack(self, planned: PlannedFile) -> None:
        file, path = planned.file, self.data_dir / planned.file.path
        receipt = self._plan(planned.source, file).on_disk.receipt
        if file.unpack is None or receipt is None:
            raise DataError(f"{path}: has no record of its digests; run the same command again")
        archive = Archive(
            name=file.path, path=path, sha256=receipt.digests["sha256"], unpack=file.unpack
        )
        with self._shown(f"{path.name} (unpacking)", path.stat().st_size):
            unpack(
                archive,
                self.data_dir,
                partial=self.options.partial,
                advance=self.progress.advance,
            )

    def _hash(self, path: Path, expected: ExpectedDigests) -> FileDigests:
        with self._shown(f"{path.name} (checking)", path.stat().st_size):
            return hash_file(path, expected.algorithms, self.progress.advance)

    def _check(self, file: SourceFile, path: Path) -> str | None:
        """Compare the tensors of a weights file; None when they agree or cannot be read here."""
        if file.tensors_sha256 is None or self.tensor_digest is None:
            return None
        try:
            found = self.tensor_digest(path)
        except DataError as error:
            return str(error)
        if found == file.tensors_sha256:
            return None
        return f"expected tensor digest {file.tensors_sha256}, found {found}"

    def _accept(self, planned: PlannedFile, found: FileDigests, mirror: str) -> None:
        """Record a file that has its final name and its right bytes."""
        file = planned.file
        if file.sha256 is None and planned.expected.recorded_sha256 is None:
            add_source_digest(self.data_dir, file.path, found.sha256, found.size)
        receipt = Receipt.of(self.data_dir, file.path, dict(found.digests), mirror)
        tensors = file.tensors_sha256 if self.tensor_digest is not None else None
        write_receipt(self.data_dir, replace(receipt, tensors_sha256=tensors))

    @contextmanager
    def _shown(self, name: str, total: int) -> Iterator[None]:
        self.progress.begin(name, total, 0)
        try:
            yield
        finally:
            self.progress.end()

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        """Hold a file's lock; wait for another run that holds it."""
        folder = records_dir(self.data_dir) / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"{quote(name, safe='')}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            self.progress.note(f"{name}: waiting for another vocprep that works on it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()


def mirror_urls(file: SourceFile, options: DownloadOptions) -> list[str]:
    """Return where a file may be asked for, in order: the user's mirrors first.

    Offline only file URLs are left.
    """
    name = quote(Path(file.path).name)
    extra = [
        url if url.endswith(f"/{name}") else f"{url.rstrip('/')}/{name}" for url in options.mirrors
    ]
    urls = [*extra, *file.urls]
    if options.offline:
        urls = [url for url in urls if urlsplit(url).scheme == "file"]
    return urls


def _link_or_copy(source: Path, path: Path) -> str:
    """Give a file a second name, or copy it where the filesystem or its owner forbids that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, path)
        return "linked"
    except OSError:
        with atomic_path(path) as temporary:
            shutil.copyfile(source, temporary)
        return "copied"


def _disk_error(path: Path, error: OSError) -> DataError:
    return DataError(
        f"{path}: cannot be written: {error}; mend the disk or choose another --data-dir, then "
        "run the same command again: what is there already is kept"
    )
