"""Complete a data dir: fetch, verify and unpack the files of sources that are not there yet.

Every file is worked on under a file lock of its own, so that it has one writer and two runs side
by side share the work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self
from urllib.parse import quote, urlsplit

from pydantic import model_validator

from vocprep.data_dir.digests import ExpectedDigests, FileDigests, differences, hash_file
from vocprep.data_dir.library_weights import is_library_model, library_source, recorded_urls
from vocprep.data_dir.place import default_data_dir
from vocprep.data_dir.receipts import Receipt, records_dir, write_receipt
from vocprep.data_dir.source_digests import (
    add_recorded_file,
    add_source_digest,
    read_recorded_file,
    read_source_digests,
)
from vocprep.downloading.archive import unpack
from vocprep.downloading.http import TransferOptions
from vocprep.downloading.hub import locate_model
from vocprep.downloading.members import Archive
from vocprep.downloading.mirrors import WantedFile, fetch
from vocprep.downloading.outcomes import (
    DownloadOutcome,
    disk_error,
    failed_outcome,
    outcome_of,
)
from vocprep.downloading.partial import remove_state
from vocprep.downloading.plan import PlannedFile, SourceName, plan_file, resolve_sources
from vocprep.errors import DataError, DigestError, SourceUnavailableError, UsageError, VocprepError
from vocprep.files.locking import file_lock
from vocprep.files.writing import check_output_folder, link_or_copy
from vocprep.manifests import SourceFile
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.storage.places import LocalPath, local_path
from vocprep.validation import checked, explain


@checked
class DownloadOptions:
    """Which places files may come from, and what is done with them."""

    mirrors: tuple[str, ...] = ()
    """Folders (http, https or file URLs) that are requested before the manifest's mirrors."""
    from_dir: LocalPath | None = None
    """Folder of files that the user already has; they are verified, then linked or copied."""
    offline: bool = False
    """Use no network: what is neither here, in ``from_dir`` nor at a file URL is an error."""
    extract: bool = True
    """Whether to unpack archives."""
    partial: bool = False
    """Whether an archive may hold another number of files than the official one."""
    transfer: TransferOptions = field(default_factory=TransferOptions)
    """Timeouts and retries."""

    @model_validator(mode="after")
    def _places_exist(self) -> Self:
        for mirror in self.mirrors:
            if url_scheme(mirror) not in ("http", "https", "file"):
                raise UsageError(f"mirror {mirror!r}: expected an http, https or file URL")
        if self.from_dir is not None and not self.from_dir.is_dir():
            raise UsageError(f"{self.from_dir}: no such folder of archives; check --from")
        return self


def download(
    names: SourceName | Sequence[SourceName],
    data_dir: str | Path | None = None,
    options: DownloadOptions | None = None,
    progress: Progress = NO_PROGRESS,
) -> list[DownloadOutcome]:
    """Fetch, verify and unpack what datasets need; return the outcome of each file, in order.

    A name is a dataset (all its sources), a source, the path of a ``.toml`` manifest, a loaded
    SourceManifest, or a model whose weights a library publishes: ``timm:NAME``. ``data_dir`` is
    ``$VOCPREP_DATA_DIR``, else ``./data``, by default. A file that fails does not stop the others:
    ``raise_failures(outcomes)`` turns failures into one error.
    Raises UsageError for an unknown name, DataError for damaged records of an earlier run.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     outcomes = download("voc2012", folder, DownloadOptions(offline=True))
    >>> outcomes[0].path, outcomes[0].ok, outcomes[0].state
    ('downloads/VOCtrainval_11-May-2012.tar', False, 'failed')
    """
    folder = default_data_dir() if data_dir is None else local_path(data_dir)
    job = _Job(folder, options or DownloadOptions(), progress)
    sources = resolve_sources(names)
    check_output_folder(folder, "data dir")
    check_output_folder(records_dir(folder), "folder of records")
    return [job.complete(source.name, file) for source in sources for file in source.files]


@dataclass(frozen=True)
class _Job:
    """What all files of one download share."""

    data_dir: Path
    options: DownloadOptions
    progress: Progress
    noted: set[str] = field(default_factory=set)
    """Notes that one download gives once."""

    def complete(self, source: str, file: SourceFile) -> DownloadOutcome:
        """Do what one file needs; an error becomes its outcome."""
        planned, done = self._plan(source, file), []
        try:
            if planned.steps:
                with self._file_lock(file.path):
                    # Another process may have done the work while this one waited.
                    planned = self._plan(source, file)
                    done = self._act(planned)
        except VocprepError as error:
            return failed_outcome(planned, error)
        except OSError as error:
            path = self.data_dir / file.path
            return failed_outcome(planned, disk_error(path, error))
        return outcome_of(self._plan(source, file) if done else planned, done)

    def _plan(self, source: str, file: SourceFile) -> PlannedFile:
        recorded = read_source_digests(self.data_dir)
        return plan_file(self.data_dir, source, file, recorded, extract=self.options.extract)

    def _act(self, planned: PlannedFile) -> list[str]:
        """Execute the steps of one file; return what was done, in words."""
        planned, done = self._located(planned), []
        if "verify" in planned.steps:
            done.append(self._verify(planned))
        if "fetch" in planned.steps:
            done.append(self._fetch(planned))
        if "unpack" in planned.steps:
            self._unpack(planned)
            done.append("unpacked")
        return done

    def _located(self, planned: PlannedFile) -> PlannedFile:
        """Return the plan with where the weights of a library's model are, recorded or as of now.

        Offline nothing can be known of what is not recorded: a file of that name is accepted.
        """
        name, file = planned.source, planned.file
        if not is_library_model(name) or not planned.steps:
            return planned
        recorded = read_recorded_file(self.data_dir, file.path)
        if recorded is not None and recorded_urls(recorded):
            known = library_source(name, recorded).files[0]
            return replace(planned, file=known.model_copy(update={"tensors_sha256": None}))
        if self.options.offline:
            return planned
        found = locate_model(name, file, self.options.transfer)
        expected = ExpectedDigests.of(found.file, planned.expected.recorded_sha256)
        return replace(planned, file=found.file, expected=expected, model=found)

    def _verify(self, planned: PlannedFile) -> str:
        """Hash a file that is there; a wrong one is set aside and fetched again."""
        path = self.data_dir / planned.file.path
        problem = _wrong_size(planned, path)
        if problem is None:
            digests = self._hash(path, planned.expected)
            problem = self._problem(planned, path, digests)
            if problem is None:
                self._accept(planned, digests, str(path.parent))
                return "verified"
        aside = path.with_name(path.name + ".wrong")
        path.replace(aside)
        self.progress.note(f"{path}: {problem}; it was set aside as {aside.name}")
        return self._fetch(planned)

    def _fetch(self, planned: PlannedFile) -> str:
        """Get a file from the user's folder, else from the mirrors."""
        path, file = self.data_dir / planned.file.path, planned.file
        taken = self._take_from_dir(planned, path)
        if taken is not None:
            return taken
        urls = mirror_urls(file, self.options)
        if not urls:
            raise SourceUnavailableError(
                f"{path}: is missing and --offline forbids to fetch it; run without --offline, or "
                f"put {path.name} into a folder and name that with --from"
            )
        wanted = WantedFile(
            path=path,
            urls=urls,
            expected=planned.expected,
            max_bytes=file.most_bytes,
            check=lambda part: _tensor_problem(file, part),
        )
        url, digests = fetch(wanted, self.options.transfer, self.progress)
        self._accept(planned, digests, url)
        return "fetched"

    def _take_from_dir(self, planned: PlannedFile, path: Path) -> str | None:
        """Link or copy a file of the user; None when the folder has none that is right."""
        folder = self.options.from_dir
        if folder is None:
            return None
        wrong: list[DataError] = []
        for candidate in (folder / planned.file.path, folder / path.name):
            try:
                if not candidate.is_file():
                    continue
                problem = _wrong_size(planned, candidate)
                if problem is None:
                    digests = self._hash(candidate, planned.expected)
                    problem = self._problem(planned, candidate, digests)
            except OSError as error:
                wrong.append(DataError(f"{candidate}: cannot be read ({explain(error)})"))
            else:
                if problem is None:
                    path.parent.mkdir(parents=True, exist_ok=True)
                    how = link_or_copy(candidate.resolve(), path)
                    self._accept(planned, digests, str(folder))
                    return how
                wrong.append(DigestError(f"{candidate}: {problem}; use the official file"))
            self.progress.note(f"{wrong[-1]}; nothing was taken")
        if wrong and self.options.offline:
            raise wrong[0]
        return None

    def _unpack(self, planned: PlannedFile) -> None:
        file, path = planned.file, self.data_dir / planned.file.path
        receipt = self._plan(planned.source, file).on_disk.receipt
        if file.unpack is None or receipt is None:
            raise DataError(f"{path}: has no record of its digests; run the same command again")
        archive = Archive(
            name=file.path, path=path, sha256=receipt.digests["sha256"], unpack=file.unpack
        )
        with self._shown(f"{path.name} (unpacking)", path):
            unpack(
                archive,
                self.data_dir,
                partial=self.options.partial,
                advance=self.progress.advance,
            )

    def _hash(self, path: Path, expected: ExpectedDigests) -> FileDigests:
        with self._shown(f"{path.name} (checking)", path):
            return hash_file(path, expected.algorithms, self.progress.advance)

    def _problem(self, planned: PlannedFile, path: Path, digests: FileDigests) -> str | None:
        """Return what is wrong with a file that is here, None when everything agrees."""
        wrong = differences(planned.expected, digests)
        return "; ".join(wrong) or _tensor_problem(planned.file, path)

    def _accept(self, planned: PlannedFile, digests: FileDigests, mirror: str) -> None:
        """Record a file that has its final name and its right bytes."""
        file = planned.file
        if planned.model is not None:
            tensors = tensor_digest(self.data_dir / file.path)
            recorded = planned.model.record(digests.sha256, digests.size, tensors)
            add_recorded_file(self.data_dir, file.path, recorded)
        elif file.sha256 is None and planned.expected.recorded_sha256 is None:
            add_source_digest(self.data_dir, file.path, digests.sha256, digests.size)
        receipt = Receipt.of(self.data_dir, file.path, dict(digests.digests), mirror)
        write_receipt(self.data_dir, replace(receipt, tensors_sha256=file.tensors_sha256))
        remove_state(self.data_dir / file.path)  # a kill just after the download leaves it

    @contextmanager
    def _shown(self, name: str, path: Path) -> Iterator[None]:
        """Report a task that reads a whole file."""
        self.progress.begin(name, path.stat().st_size, 0)
        try:
            yield
        finally:
            self.progress.end()

    @contextmanager
    def _file_lock(self, name: str) -> Iterator[None]:
        """Hold a file's lock; wait for another process that holds it."""
        folder = records_dir(self.data_dir) / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        lock, busy = f"{quote(name, safe='')}.lock", f"{name}: waiting for another vocprep"
        with file_lock(folder / lock, busy=busy, note=self._note_once, wait=True):
            yield

    def _note_once(self, text: str) -> None:
        if text not in self.noted:
            self.noted.add(text)
            self.progress.note(text)


def mirror_urls(file: SourceFile, options: DownloadOptions) -> list[str]:
    """Return the URLs of a file in the order of their use: the user's mirrors first.

    Offline only file URLs are left.
    """
    name = quote(Path(file.path).name)
    extra = [
        url if url.endswith(f"/{name}") else f"{url.rstrip('/')}/{name}" for url in options.mirrors
    ]
    urls = [*extra, *file.urls]
    if options.offline:
        urls = [url for url in urls if url_scheme(url) == "file"]
    return urls


def url_scheme(url: str) -> str:
    """Return the scheme of a URL, nothing for what is none.

    >>> url_scheme("https://host.example/"), url_scheme("http://[")
    ('https', '')
    """
    try:
        return urlsplit(url).scheme
    except ValueError:
        return ""


def _wrong_size(planned: PlannedFile, path: Path) -> str | None:
    """Compare a file's size with the published one, before all of it is read; None if equal."""
    expected, found = planned.expected.size, path.stat().st_size
    return None if expected in (None, found) else f"expected {expected} bytes, found {found}"


def _tensor_problem(file: SourceFile, path: Path) -> str | None:
    """Compare the tensors of a weights file with the manifest; None when they agree."""
    if file.tensors_sha256 is None:
        return None
    try:
        found = tensor_digest(path)
    except DataError as error:
        return str(error)
    if found == file.tensors_sha256:
        return None
    return f"expected tensor digest {file.tensors_sha256}, found {found}"


def tensor_digest(path: Path) -> str:
    """Return the digest of a weights file's tensors; torch is loaded only when there are any."""
    from vocprep.features.weights import file_tensor_digest  # noqa: PLC0415

    return file_tensor_digest(path)
