"""Tables of the label areas that authors logged."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from vocprep.errors import ManifestError
from vocprep.labels.statistics import load_label_areas


def save_label_areas(path: Path, areas: Mapping[str, Mapping[int, int]]) -> None:
    """Write a table; equal areas give equal bytes."""
    image_ids = sorted(areas)
    rows = [(label, areas[key][label]) for key in image_ids for label in sorted(areas[key])]
    stream = io.BytesIO()
    np.savez_compressed(
        stream,
        image_ids=np.array(image_ids, dtype=np.bytes_),
        counts=np.array([len(areas[key]) for key in image_ids], dtype="<u2"),
        labels=np.array([label for label, _ in rows], dtype="<u2"),
        pixels=np.array([pixels for _, pixels in rows], dtype="<u4"),
    )
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(stream.getvalue())


def test_the_shipped_table_holds_what_the_authors_logged():
    areas = load_label_areas("pascal-context")
    assert len(areas) == 10_103
    assert sum(len(labels) for labels in areas.values()) == 65_937
    assert sum(sum(labels.values()) for labels in areas.values()) == 1_808_105_034
    used = {label for labels in areas.values() for label in labels}
    assert (min(used), max(used), len(used)) == (1, 459, 407)
    assert sum(431 in labels for labels in areas.values()) == 3_734
    assert areas["2008_000002"][273] == 9_714


def test_a_table_of_areas_is_read_back_and_has_one_form(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    areas = {"b": {459: 70_000, 1: 2}, "a": {7: 1}}
    path = tmp_path / "label_areas/mine.npz"
    save_label_areas(path, areas)
    first = path.read_bytes()
    save_label_areas(path, dict(reversed(areas.items())))
    assert path.read_bytes() == first
    monkeypatch.setattr("vocprep.labels.statistics.manifests_dir", lambda: tmp_path)
    assert load_label_areas("mine") == areas
    path.write_bytes(first[:-30])
    with pytest.raises(ManifestError, match="table of label areas"):
        load_label_areas("mine")


def test_a_table_without_an_image_is_empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("vocprep.labels.statistics.manifests_dir", lambda: tmp_path)
    save_label_areas(tmp_path / "label_areas/none.npz", {})
    assert load_label_areas("none") == {}


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"counts": np.array([1.5])},
        {"counts": np.array([[1]], dtype="<u2")},
        {"counts": np.array([{}], dtype=object)},
        {"counts": np.array([2], dtype="<u2")},
        {"labels": np.array([1, 2], dtype="<u2")},
        {"image_ids": np.array([b"\xff"])},
    ],
    ids=lambda columns: str(list(columns.values())),
)
def test_table_with_another_column_is_one_sentence(
    columns: dict[str, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.labels.statistics.manifests_dir", lambda: tmp_path)
    good = {
        "image_ids": np.array([b"a"]),
        "counts": np.array([1], dtype="<u2"),
        "labels": np.array([7], dtype="<u2"),
        "pixels": np.array([1], dtype="<u4"),
    }
    path = tmp_path / "label_areas/mine.npz"
    path.parent.mkdir()
    with path.open("wb") as stream:
        np.savez(stream, **({**good, **columns} if columns else {"counts": good["counts"]}))
    with pytest.raises(ManifestError, match=r"mine\.npz") as caught:
        load_label_areas("mine")
    assert "\n" not in str(caught.value)


def test_table_with_any_byte_changed_is_read_or_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.labels.statistics.manifests_dir", lambda: tmp_path)
    path = tmp_path / "label_areas/mine.npz"
    save_label_areas(path, {"b": {459: 70_000, 1: 2}, "a": {7: 1}})
    good = path.read_bytes()
    for place in range(0, len(good), 3):
        for value in {0, 255, good[place] ^ 1} - {good[place]}:
            path.write_bytes(good[:place] + bytes([value]) + good[place + 1 :])
            with suppress(ManifestError):
                load_label_areas("mine")


def test_a_table_that_is_not_shipped_is_named():
    with pytest.raises(ManifestError, match=r"'mine': no such table, expected one of pascal-con"):
        load_label_areas("mine")
