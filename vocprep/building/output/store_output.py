"""The output of a build: a URL of an object store, or a folder, behind one interface."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vocprep.building.output.publish import (
    Output,
    open_output,
    refuse_differing,
    refuse_other_recipe,
    share_output,
)
from vocprep.building.output.staging import (
    FinishedShards,
    Staging,
)
from vocprep.building.output.store_publish import (
    check_objects,
    claimed,
    object_names,
    published_at,
    store_errors,
)
from vocprep.building.output.store_staging import StoreStaging
from vocprep.building.plan import BuildKey, BuildPlan
from vocprep.errors import DataError, UsageError
from vocprep.options import BuildOptions, IfExists
from vocprep.shards.version import Version
from vocprep.storage.places import Place
from vocprep.storage.store import StorePath

_KEPT = "the finished shards"


@dataclass(frozen=True, kw_only=True)
class StoreOutput:
    """A URL that a version is built at."""

    path: StorePath
    staging: StoreStaging
    earlier: Version | None
    """The finished version that is there, unless it is to be overwritten."""
    is_part: bool = False
    """Whether a part of a build is made, not all of it."""
    notes: tuple[str, ...] = ()

    @property
    def made_at(self) -> StorePath:
        """Where the shards are before the version is published."""
        return self.path

    def publish(self, version: Version, plan: BuildPlan) -> bool:
        """Publish a version whose shards are there; False where it was published already."""
        del plan  # says where its weights were read from, which no other machine can use
        return self.staging.publish(version.index)

    def refuse_succession(self, *, is_same: bool) -> None:
        """Raise UsageError where the version that is there is not the one that would be made."""
        url, earlier = self.path, self.earlier
        if earlier is None:
            return
        if not is_same:
            raise UsageError(
                f"{url}: holds a finished dataset version of other images or label maps, and a "
                "version in an object store is never changed in place; choose another URL, with "
                f"--reuse {url} to take its embeddings over, or --if-exists overwrite"
            )
        try:
            check_objects(url, earlier.index.shards)
        except DataError as error:
            problem = str(error).partition(": ")[0]
            raise UsageError(
                f"{problem}: is not the shard that dataset.json lists; choose another URL, or "
                "--if-exists overwrite"
            ) from error


AnyOutput = Output | StoreOutput


@contextmanager
def open_place(
    out: Place, key: BuildKey, if_exists: IfExists, note: Callable[[str], None]
) -> Iterator[AnyOutput]:
    """Open a folder or a URL as the output of a build (``open_output``, ``open_store_output``)."""
    if isinstance(out, StorePath):
        with open_store_output(out, key, if_exists) as at_url:
            yield at_url
    else:
        with open_output(out, key, if_exists, note) as in_folder:
            yield in_folder


@contextmanager
def share_place(
    out: Place, key: BuildKey, note: Callable[[str], None] = lambda _text: None
) -> Iterator[AnyOutput]:
    """Open a folder or a URL for processes that make parts of one build (``share_output``)."""
    if isinstance(out, StorePath):
        with open_store_output(out, key, "resume", is_part=True) as at_url:
            yield at_url
    else:
        with share_output(out, key, note) as in_folder:
            yield in_folder


def refuse_own_reuse(out: Place, options: BuildOptions) -> None:
    """Raise UsageError where a version would be overwritten whose embeddings are to be reused."""
    if isinstance(out, StorePath) and options.if_exists == "overwrite" and options.reuse == out:
        raise UsageError(
            f"{out}: --reuse of the version that --if-exists overwrite deletes; choose another "
            "--out, and delete that version when the new one is there"
        )


@contextmanager
def joined_staging(out: Place, build: str) -> Iterator[FinishedShards]:
    """Let another process of a build, given by its key's digest, keep shards where ``out`` is.

    UsageError when another build is there at the beginning or, by now, at the end.
    """
    with store_errors(_KEPT), tempfile.TemporaryDirectory(prefix="vocprep-") as folder:
        staging = Staging(out) if isinstance(out, Path) else StoreStaging(out, Path(folder))
        staging.join(build)
        yield staging
        staging.join(build)


@contextmanager
def open_store_output(
    url: StorePath, key: BuildKey, if_exists: IfExists, *, is_part: bool = False
) -> Iterator[StoreOutput]:
    """Check that a version may be built at a URL, and claim it for this build.

    Shards that are finished stay there whatever happens. Raises UsageError when the URL holds other
    things, another version, or the unfinished work on one.
    """
    with store_errors(_KEPT), tempfile.TemporaryDirectory(prefix="vocprep-") as folder:
        staging = StoreStaging(url, Path(folder))
        names = object_names(url)
        if if_exists == "fail" and names:
            raise UsageError(
                f"{url}: holds objects and --if-exists is fail; nothing was done: choose another "
                "--out, or --if-exists resume or overwrite"
            )
        overwrites, is_new = if_exists == "overwrite", False
        staging.prepare(key, overwrites=overwrites)
        earlier = None if overwrites else _read_earlier(url, key)
        if earlier is None:
            if not overwrites:
                _refuse_other_claim(url, staging, key)
            is_new = staging.begin()
            if is_new and not overwrites:
                earlier = _read_earlier(url, key)  # published before the claim was there
        try:
            yield StoreOutput(path=url, staging=staging, earlier=earlier, is_part=is_part)
        except BaseException:
            if is_new and not is_part:
                staging.give_up()
            raise


def _read_earlier(url: StorePath, key: BuildKey) -> Version | None:
    """Return the version at a URL; UsageError when it is of another recipe or layout."""
    index = published_at(url)
    if index is None:
        return None
    refuse_other_recipe(url, index, key)
    return Version.read(url)


def _refuse_other_claim(url: StorePath, staging: StoreStaging, key: BuildKey) -> None:
    claim = staging.read_claim()
    if claim is None:
        return
    found = claim.get("key")
    if isinstance(found, dict):
        refuse_differing(url, "an unfinished build", found, key.to_json())
    else:
        raise UsageError(
            f"{url}: holds {claimed(claim)}; choose another --out, or --if-exists overwrite"
        )
