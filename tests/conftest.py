"""What all tests share: a hypothesis profile, a generated tree, the way to real data."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

from vocprep.sources.sample import SampleOptions, write_sample

# Tiny models gain nothing from more threads, and those of tests that run side by side wait for each
# other. Before torch is loaded, and for the processes that tests start too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile("ci", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def sample_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data dir with 12 generated pictures; not to be written to."""
    folder = tmp_path_factory.mktemp("sample_tree")
    write_sample(folder, SampleOptions(images=12))
    return folder


@pytest.fixture(scope="session")
def random_weights() -> str:
    """Backbone weights that need no file."""
    return "random:0"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real pictures, label maps and weights, where a machine has them."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("VOCPREP_SHARED_DATA") or default)
    if not folder.is_dir():
        pytest.skip("no real data: set VOCPREP_SHARED_DATA to a folder that holds it")
    return folder
