"""Dataset versions that the tests of checks share; not to be written to."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from builders.versions import TWO_PER_SHARD, TWO_VIEWS, Built, build, first_jpeg

from vocprep.options import Layout


@pytest.fixture(scope="session")
def two_views(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Four images in two views each, two images per shard."""
    return build(
        sample_tree, tmp_path_factory.mktemp("two_views") / "out", TWO_VIEWS, TWO_PER_SHARD
    )


@pytest.fixture
def copied(two_views: Built, tmp_path: Path) -> Path:
    """A copy of it, to be damaged."""
    shutil.copytree(two_views.path, tmp_path / "copied")
    return tmp_path / "copied"


@pytest.fixture(scope="session")
def bad_tree(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample tree with an image that does not decode: the first."""
    tree = tmp_path_factory.mktemp("bad_tree") / "tree"
    shutil.copytree(sample_tree, tree)
    jpeg = first_jpeg(tree)
    jpeg.write_bytes(jpeg.read_bytes()[:900])
    return tree


@pytest.fixture(scope="session")
def quarantined(
    bad_tree: Path, two_views: Built, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    """The same recipe with that image quarantined."""
    out = tmp_path_factory.mktemp("quarantined") / "out"
    return build(bad_tree, out, TWO_VIEWS, TWO_PER_SHARD, max_failures=1, reuse=two_views.path)


@pytest.fixture(scope="session")
def quarantined_tar(
    bad_tree: Path, two_views: Built, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    """Likewise, in other shards."""
    out = tmp_path_factory.mktemp("quarantined_tar") / "out"
    layout = Layout(format="webdataset", samples_per_shard=1)
    return build(bad_tree, out, TWO_VIEWS, layout, max_failures=1, reuse=two_views.path)
