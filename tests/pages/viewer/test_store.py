"""A version in an object store: single pictures by ranges, the rest when it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders.heads import make_dataset, random_records
from builders.s3 import S3
from builders.viewing import get, refused

from vocprep.pages.viewer.options import ViewOptions
from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.web.server import Server

pytestmark = pytest.mark.slow


def test_a_version_in_a_store(s3: S3, tmp_path: Path) -> None:
    grids = [(1, 2), (2, 1), (1, 1)]
    splits = {name: random_records(name, grids) for name in ("train", "val")}
    path = make_dataset(tmp_path / "out", splits).path
    assert isinstance(path, Path)
    s3.put_folder(path)
    with s3.through_proxy() as proxy, Server(Session.open([s3.url()], ViewOptions())) as server:
        assert [row["classes"] for row in get(server, "pictures")["pictures"]] == [[]] * 6
        (version,) = get(server, "state")["versions"]
        assert version["columns"]["state"] == "waiting"
        assert len(get(server, "picture", id="val_01")["patches"]) == 2
        assert get(server, "state")["versions"][0]["columns"]["state"] == "waiting"

        expected = [r.image_id for r in splits["val"] if (r.label_map == 3).any()]
        found = get(server, "pictures", class_=3, split="val")["pictures"]
        assert [row["id"] for row in found] == expected
        near = get(server, "similar", id="train_00", patch=0, limit=9)["patches"]
        assert len(near) == 4
        whole = proxy.count("GET", ".h5")
        get(server, "classes", split="train")
        get(server, "similar", id="train_01", patch=0)
        assert proxy.count("GET", ".h5") == whole  # from the cache


def test_a_store_that_is_lost_is_told(s3: S3, tmp_path: Path) -> None:
    records = random_records("val", [(1, 2), (2, 1)])
    path = make_dataset(tmp_path / "out", {"val": records}).path
    assert isinstance(path, Path)
    s3.put_folder(path)
    session = Session.open([s3.url()], ViewOptions())
    with Server(session) as server:
        s3.delete("val-00000-of-00001.h5")
        assert "val-00000" in refused(server, 500, "picture", id="val_00")
        assert get(server, "pictures")["total"] == 2
