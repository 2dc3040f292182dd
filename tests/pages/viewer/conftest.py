"""The viewers that tests look at; each is started once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from builders.heads import make_dataset, make_record
from builders.shown import Shown, make_shown

from vocprep.pages.viewer.options import ViewOptions
from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.web.server import Server

LONG = 1200
"""Pictures of the long list."""


@pytest.fixture(scope="session")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Shown:
    """Two versions of 24 generated pictures, one of which cannot be read, and two runs."""
    return make_shown(tmp_path_factory.mktemp("viewer"))


@pytest.fixture(scope="session")
def viewer(shown: Shown) -> Iterator[Server]:
    """The viewer of one version with photographs and two runs."""
    with Server(Session.open([shown.version, *shown.runs], shown.options)) as server:
        yield server


@pytest.fixture(scope="session")
def compared_viewer(shown: Shown) -> Iterator[Server]:
    """The viewer of two versions."""
    with Server(Session.open([shown.version, shown.other], shown.options)) as server:
        yield server


@pytest.fixture(scope="session")
def long_viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The viewer of a version of many small pictures, without photographs and runs."""
    label_maps = [np.full((32, 64), number, dtype=np.uint16) for number in range(6)]
    embeddings = np.eye(4, 256, dtype=np.float16)
    records = [
        make_record(f"im{i:05d}", "train", label_maps[i % 6], embeddings[[i % 4, i % 3]])
        for i in range(LONG)
    ]
    folder = tmp_path_factory.mktemp("long") / "long"
    make_dataset(folder, {"train": records})
    with Server(Session.open([folder], ViewOptions())) as server:
        yield server
