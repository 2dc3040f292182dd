"""Label quality of an audit in lists and pictures of the version that it is of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from builders.heads import make_dataset, random_records
from builders.viewing import get, refused

from vocprep.analysis.duplicates import Duplicates
from vocprep.auditing.result import AuditedPicture, AuditResult
from vocprep.errors import DataError
from vocprep.pages.viewer.options import ViewOptions
from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.web.server import Server
from vocprep.shards.reader import ShardDataset

QUALITIES = {"train_00": 0.5, "train_02": 0.125}


@pytest.fixture
def dataset(tmp_path: Path) -> ShardDataset:
    records = random_records("train", [(1, 2), (2, 1), (1, 3)])
    return make_dataset(tmp_path / "out", {"train": records})


def audited(record_id: str, quality: float, patches: int, **changes: Any) -> AuditedPicture:
    fields: dict[str, Any] = {
        "suspected": None,
        "given": None,
        "believed": None,
        "confidence": 0.0,
        "patches": (),
        "fits_better": None,
        "other_maps_fit_better": 0.0,
        "void_percent": 0.0,
        "void_outlier": False,
        "patch_quality": tuple((number + 1) / 8 for number in range(patches)),
    }
    return AuditedPicture(id=record_id, split="train", quality=quality, **{**fields, **changes})


def write_audit(path: Path, dataset: ShardDataset, *pictures: AuditedPicture, **of: str) -> Path:
    audit = AuditResult(
        **{"content_id": dataset.content_id, "short_id": "mine@1", **of},
        folds=4,
        splits=("train",),
        pixel_accuracy=0.5,
        top=5,
        pictures=pictures,
        duplicates=Duplicates(same=(), similar=(), is_cut=False, threshold=0.9),
    )
    path.write_text(json.dumps(audit.to_json()))
    return path


def test_pictures_are_sorted_by_the_quality_of_their_labels(
    dataset: ShardDataset, tmp_path: Path
) -> None:
    swapped = {"suspected": "class", "given": "cat", "believed": "dog", "confidence": 0.75}
    audit = write_audit(
        tmp_path / "audit.json",
        dataset,
        audited("train_02", 0.125, 3, **swapped),
        audited("train_00", 0.5, 2),
    )
    session = Session.open([dataset.path], ViewOptions(audit=audit))
    with Server(session) as server:
        assert get(server, "state")["versions"][0]["has_audit"] is True
        for order, expected in (
            ("asc", ["train_02", "train_00", "train_01"]),
            ("desc", ["train_00", "train_02", "train_01"]),  # the last was not audited
        ):
            rows = get(server, "pictures", sort="quality", order=order)["pictures"]
            assert [row["id"] for row in rows] == expected
            assert [row["quality"] for row in rows] == [QUALITIES.get(i) for i in expected]
        picture = get(server, "picture", id="train_02")
        assert picture["quality"] == 0.125
        assert picture["suspected"] == (
            "suspected: an object has the wrong class; labelled cat, believed to be dog (75 %)"
        )
        assert [patch["quality"] for patch in picture["patches"]] == [0.125, 0.25, 0.375]
        assert get(server, "picture", id="train_00")["suspected"] is None
        plain = get(server, "picture", id="train_01")
        assert (plain["quality"], plain["patches"][0]["quality"]) == (None, None)


def test_without_an_audit_there_is_no_quality(dataset: ShardDataset) -> None:
    with Server(Session.open([dataset.path], ViewOptions())) as server:
        assert get(server, "state")["versions"][0]["has_audit"] is False
        assert "expected one of" in refused(server, 400, "pictures", sort="quality")


def test_an_audit_of_something_else_is_refused(dataset: ShardDataset, tmp_path: Path) -> None:
    for audit, words in {
        write_audit(tmp_path / "1.json", dataset, content_id="ab" * 32): "is of mine@1, not of",
        write_audit(tmp_path / "2.json", dataset, audited("x", 1, 2)): "'x' is not one of",
        write_audit(tmp_path / "3.json", dataset, audited("train_00", 1, 3)): "'train_00' is not",
    }.items():
        with pytest.raises(DataError, match=words):
            Session.open([dataset.path], ViewOptions(audit=audit))
