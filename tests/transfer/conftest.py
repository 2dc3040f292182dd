"""What the tests of push and pull share."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.records import make_record, write_version


@pytest.fixture(scope="session")
def version(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of nine small records in five shards; not to be written to."""
    return _write(tmp_path_factory.mktemp("version") / "out", seed=0)


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A version of the same images with other records; not to be written to."""
    return _write(tmp_path_factory.mktemp("other") / "out", seed=1)


def _write(out: Path, seed: int) -> Path:
    write_version(out, [make_record(f"id_{n}", (1, 1 + n % 3), seed=seed) for n in range(9)])
    return out
