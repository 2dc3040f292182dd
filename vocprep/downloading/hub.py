"""Weights of libraries' models: which file of which revision is fetched, and what proves it.

The revision of a repository of the Hugging Face hub is resolved once, to a commit, with the size
and the sha256 that the hub states of the file; ``sources.lock.json`` keeps it.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field

from vocprep.data_dir.library_weights import HUB_FILE, hub_url
from vocprep.data_dir.source_digests import RecordedFile
from vocprep.downloading.faults import MirrorError, RefusedError, Remedy, TemporaryError
from vocprep.downloading.http import RangeRequest, TransferOptions, open_range
from vocprep.errors import SourceUnavailableError
from vocprep.files.reading import parse_json
from vocprep.manifests import MOST_BYTES, Count, SourceFile
from vocprep.validation import explain, from_json, printable

_MAX_ANSWER_BYTES = 4 << 20
"""Of what the hub states of a repository; it grows with the files in it."""
_RELEASE_DIGITS = re.compile(r"-([0-9a-f]{8,64})\.[a-z.]+$")
"""Digits of its sha256 in the name of a published file."""
_BY_HAND = (
    "fetch the file by hand and give its folder with --offline --from DIR, or the file to "
    "build-shards"
)


@dataclass(frozen=True, kw_only=True)
class LocatedModel:
    """Where the weights of a model are fetched, and what is known of them before."""

    file: SourceFile
    """With its URL, and the size and digest that are stated of it."""
    repository: str | None = None
    revision: str | None = None
    license: str | None = None

    def record(self, sha256: str, size: int, tensors_sha256: str) -> RecordedFile:
        """Return what is recorded of the file once it is here."""
        return RecordedFile(
            sha256=sha256,
            bytes=size,
            tensors_sha256=tensors_sha256,
            repository=self.repository,
            revision=self.revision,
            url=None if self.repository else self.file.urls[0],
            license=self.license,
        )


def locate_model(name: str, file: SourceFile, options: TransferOptions) -> LocatedModel:
    """Return where the weights of ``timm:NAME`` or ``torchvision:NAME`` are, as of now.

    Raises UsageError for a model without any, SourceUnavailableError where the hub does not say.
    """
    from vocprep.features.libraries.pretrained import pretrained_model  # noqa: PLC0415  # torch

    published = pretrained_model(name)
    if published.repository is None:
        return _at_url(file, published.url or "")
    repository = published.repository.partition("@")[0]
    url = hub_url(f"api/models/{repository}", "revision", "main")
    stated = _read_answer(name, f"{url}?blobs=true", options)
    found = next((each for each in stated.siblings if each.rfilename == HUB_FILE), None)
    if found is None:
        names = ", ".join(printable(each.rfilename, 80) for each in stated.siblings[:8]) or "none"
        raise SourceUnavailableError(
            f"{name}: expected a file {HUB_FILE} in {hub_url(repository)}, found {names}; convert "
            "what is there, and give it to build-shards with --weights PATH"
        )
    if (found.size or 0) > MOST_BYTES:
        raise SourceUnavailableError(
            f"{name}: {HUB_FILE} in {hub_url(repository)} has {found.size:,} bytes: expected at "
            f"most {MOST_BYTES:,}; {_BY_HAND} with --weights PATH"
        )
    located = file.model_copy(
        update={
            "urls": (hub_url(repository, "resolve", stated.sha, HUB_FILE),),
            "bytes": found.size,
            "sha256": found.lfs.sha256 if found.lfs else None,
        }
    )
    return LocatedModel(
        file=located, repository=repository, revision=stated.sha, license=published.license
    )


def _at_url(file: SourceFile, url: str) -> LocatedModel:
    digits = _RELEASE_DIGITS.search(PurePosixPath(urlsplit(url).path).name)
    prefix = digits[1] if digits else None
    return LocatedModel(file=file.model_copy(update={"urls": (url,), "sha256_prefix": prefix}))


class _Stated(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _LargeFile(_Stated):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class _File(_Stated):
    rfilename: str
    size: Count | None = None
    lfs: _LargeFile | None = None


class _Repository(_Stated):
    """What the hub states of a revision of a repository."""

    sha: str = Field(pattern=r"^[0-9a-f]{40}$")
    siblings: list[_File]


def _read_answer(name: str, url: str, options: TransferOptions) -> _Repository:
    """Return what the hub states; SourceUnavailableError where it does not, or something else."""
    try:
        return from_json(_Repository, parse_json(_fetch(url, options)))
    except MirrorError as error:
        again = error.remedy in (Remedy.CONNECTION, Remedy.LATER)
        advice = f"{error.remedy.value}, or " if again else ""
        raise SourceUnavailableError(
            f"{name}: its revision is not known: {url} {error}; {advice}{_BY_HAND} with "
            "--weights PATH"
        ) from error
    except ValueError as error:
        raise SourceUnavailableError(
            f"{name}: its revision is not known: {url} answered what is no description of a "
            f"repository ({explain(error)}); check $HF_ENDPOINT, or {_BY_HAND} with --weights PATH"
        ) from error


def _fetch(url: str, options: TransferOptions) -> bytes:
    """Return the bytes at a URL, with retries; MirrorError where they do not come."""
    for fault in range(options.retries + 1):
        try:
            return _fetch_once(url, options)
        except TemporaryError as error:
            wait = max(error.wait_seconds, options.backoff_seconds * 2.0**fault)
            if fault == options.retries or wait > options.retry_after_most_seconds:
                raise
            time.sleep(min(wait, options.backoff_most_seconds))
    raise AssertionError("unreachable")


def _fetch_once(url: str, options: TransferOptions) -> bytes:
    data = b""
    with open_range(RangeRequest(url=url), options) as response:
        for chunk in response.chunks:
            data += chunk
            if len(data) > _MAX_ANSWER_BYTES:
                raise RefusedError(f"sends more than {_MAX_ANSWER_BYTES:,} bytes")
    if response.size not in (None, len(data)):
        raise TemporaryError("closed the connection early")
    return data
