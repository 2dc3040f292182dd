"""What the tests of shards share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from builders.records import make_record, write_version
from builders.versions import Built

from vocprep.shards.reader import ShardDataset


@pytest.fixture(scope="session", autouse=True)
def _workers_end_at_once() -> None:
    """After an error torch waits for each worker process before it ends it: five seconds.

    That is when the error's traceback is deleted, in some later test.
    """
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.2


@pytest.fixture
def copied(native_hdf5: Built, tmp_path: Path) -> Path:
    """A version to be damaged."""
    shutil.copytree(native_hdf5.path, tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture(scope="session")
def nine(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    """Nine small records in five shards; not to be written to."""
    records = [make_record(f"id_{number}", (1, 1 + number % 3)) for number in range(9)]
    return write_version(tmp_path_factory.mktemp("nine"), records)


@pytest.fixture(params=["native_hdf5", "native_tar"])
def built(request: pytest.FixtureRequest, native_hdf5: Built, native_tar: Built) -> Built:
    """The same records in each of the containers."""
    return {"native_hdf5": native_hdf5, "native_tar": native_tar}[request.param]
