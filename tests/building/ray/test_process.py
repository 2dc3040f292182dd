"""The task on a node: what its errors become."""

from __future__ import annotations

import errno
import importlib.util
import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from vocprep.building import orders
from vocprep.building.orders import WorkerSetup
from vocprep.building.ray.process import WorkerError, build_on_node
from vocprep.errors import DataDirError, DataError, OutOfMemoryError, UsageError

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None, reason="Ray is not installed: pip install -e '.[dev]'"
)
ORDER = SimpleNamespace(shard=SimpleNamespace(name="train-1.h5"))


@pytest.mark.parametrize(
    ("raised", "kind", "text"),
    [
        (UsageError("train-1.h5: other versions"), UsageError, "other versions$"),
        (DataError("a.jpg: damaged", recorded="damaged"), DataError, "a.jpg: damaged$"),
        (OSError(errno.ENOSPC, "no room", "/out/x"), DataError, "/out/x: .*; make room, and run"),
        (MemoryError(), OutOfMemoryError, r"the memory does not suffice; give each task more"),
        (ValueError("odd\nvalue"), WorkerError, "ValueError: odd value$"),
    ],
)
def test_error_names_shard_and_node_and_pickles(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    raised: Exception,
    kind: type[Exception],
    text: str,
) -> None:
    def fail(*_: object) -> Any:
        raise raised

    monkeypatch.setattr(orders, "build_shard", fail)
    with pytest.raises(kind, match=rf"^train-1\.h5 on Ray node \S+ \(\S+\): {text}") as caught:
        build_on_node(pickle.dumps((ORDER, WorkerSetup(data_dir=tmp_path, out=tmp_path))))
    assert type(caught.value) is kind
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.parametrize("option", ["data_dir", "out"])
def test_folder_that_a_node_does_not_have_is_named(tmp_path: Path, option: str) -> None:
    folders = {"data_dir": tmp_path, "out": tmp_path, option: tmp_path / "none"}
    flag = "--" + option.replace("_", "-")
    with pytest.raises(DataDirError, match=f"none: is not there; all nodes use the path of {flag}"):
        build_on_node(pickle.dumps((ORDER, WorkerSetup(**folders))))
