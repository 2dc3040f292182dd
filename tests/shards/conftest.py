"""Dataset versions of the generated tree, built once a session."""

from __future__ import annotations

from pathlib import Path

import pytest
from building import Built, build

from vocprep.geometry import Geometry
from vocprep.recipe import Choices, Layout


@pytest.fixture(scope="session")
def crop_hdf5(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The default recipe, five pictures a shard."""
    layout = Layout(samples_per_shard=5)
    return build(sample_tree, tmp_path_factory.mktemp("crop") / "out", Choices(), layout)


@pytest.fixture(scope="session")
def crop_tar(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The same records as tars, cut elsewhere."""
    layout = Layout(format="webdataset", samples_per_shard=4)
    return build(sample_tree, tmp_path_factory.mktemp("tar") / "out", Choices(), layout)


NATIVE = Choices(
    limit=2,
    geometry=Geometry(geometry="native", edge="pad"),
    views=("identity", "flip"),
    embedding_dtype="float32",
)


@pytest.fixture(scope="session")
def native_hdf5(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Pictures of unequal patch numbers, two views, float32."""
    layout = Layout(samples_per_shard=3)
    return build(sample_tree, tmp_path_factory.mktemp("native") / "out", NATIVE, layout)


@pytest.fixture(scope="session")
def native_tar(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    layout = Layout(format="webdataset", samples_per_shard=1)
    return build(sample_tree, tmp_path_factory.mktemp("native-tar") / "out", NATIVE, layout)
