"""Hash a file while it is being downloaded, in one pass behind the writers."""

from __future__ import annotations

from functools import partial as bind

from vocprep.data_dir.digests import BLOCK_BYTES, FileDigests, new_hasher
from vocprep.download.partial import Partial


class Follower:
    """One thread an algorithm, each reading what stands in one piece from the file's start.

    The bytes are still in the page cache, and hashing leaves Python's lock: the digests are ready
    a moment after the last byte. What an earlier run fetched is read again first. The threads end
    when the partial file is closed.
    """

    def __init__(self, partial: Partial, algorithms: tuple[str, ...]) -> None:
        self._partial = partial
        self._algorithms = algorithms
        self._digests: dict[tuple[str, int], str] = {}
        self._fault: OSError | None = None
        for name in algorithms:
            partial.run_beside(bind(self._follow, name))

    def result(self) -> FileDigests:
        """Wait for the digests of a file that is complete; OSError when it cannot be read."""
        partial = self._partial
        with partial.condition:
            keys = {name: (name, partial.generation) for name in self._algorithms}
            partial.condition.wait_for(
                lambda: self._fault or all(key in self._digests for key in keys.values())
            )
            if self._fault:
                raise self._fault
            digests = {name: self._digests[key] for name, key in keys.items()}
            return FileDigests(size=partial.size or 0, digests=digests)

    def _follow(self, algorithm: str) -> None:
        """Hash the file, and again from the start each time that its bytes were forgotten."""
        partial = self._partial
        while not partial.closed:
            generation, digest = partial.generation, None
            try:
                digest = self._digest(algorithm, generation)
            except OSError as error:
                self._fault = error
            with partial.condition:
                if digest is not None:
                    self._digests[algorithm, generation] = digest
                partial.condition.notify_all()
                partial.condition.wait_for(
                    lambda: partial.closed or partial.generation != generation  # noqa: B023 - waits here
                )

    def _digest(self, algorithm: str, generation: int) -> str | None:
        hasher, position = new_hasher(algorithm), 0
        with self._partial.path.open("rb", buffering=0) as stream:
            while (prefix := self._partial.wait_for_prefix(position, generation)) is not None:
                if prefix == position:
                    return hasher.hexdigest()
                while position < prefix:
                    block = stream.read(min(BLOCK_BYTES, prefix - position))
                    if not block:
                        break
                    hasher.update(block)
                    position += len(block)
        return None
