"""The page about two dataset versions: what differs, and the counts of both."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from builders.html import Elements, text_of
from builders.records import make_record, record_of
from builders.versions import write_records
from numpy.typing import NDArray

import vocprep
from vocprep.labels.label_space import load_label_space
from vocprep.pages.report.options import ReportOptions
from vocprep.recipe import LabelSpaceId
from vocprep.shards.record import Record


def label_map(*columns: int) -> NDArray[np.uint16]:
    """One patch whose columns have these classes."""
    return np.repeat(np.array(columns, dtype=np.uint16), 32 // len(columns))[None].repeat(32, 0)


def write(tmp_path: Path, a: list[Record], b: list[Record], **recipe: object) -> str:
    paths = [
        write_records(tmp_path / "a", a),
        write_records(tmp_path / "b", b, **recipe),
    ]
    out = tmp_path / "page.html"
    result = vocprep.report(paths, out, ReportOptions(pictures=2))
    assert result.kind == "versions"
    return out.read_text()


def test_what_differs_is_said_with_the_classes_and_the_pictures(tmp_path: Path) -> None:
    space = load_label_space("context460")
    before = [record_of(name, label_map(44, 420)) for name in ("a", "b", "gone")]
    after = [record_of("a", label_map(44, 360)), before[1], record_of("new", label_map(44, 44))]
    html = write(tmp_path, before, after)
    assert "Records that both hold and that differ: 1 (targets 1)." in text_of(html, "overview")
    differences = text_of(html, "differences")
    assert "1 in B only: new" in differences
    assert "1 in A only: gone" in differences
    assert f"{space.names[420]} {space.names[360]} 512" in differences
    images = [image["alt"] for image in Elements(html).all("img")]
    assert images == ["Label map of a", "Label map of a", "Changed pixels of a"]


def test_counts_stand_side_by_side(tmp_path: Path) -> None:
    before = [record_of(name, label_map(44, 420)) for name in "abc"]
    html = write(tmp_path, before, [record_of("a", label_map(44, 44, 44, 0))])
    overview = text_of(html, "overview")
    assert "A train 3 3 2 2.0 0.0 0.0 B train 1 1 1 1.0 25.0 0.0" in overview
    classes = text_of(html, "classes")
    name = load_label_space("context460").names[44]
    assert f"{name} 50.0 100.0" in classes
    assert f"{name} 44 1,536 768 3 1" in classes


def test_the_same_version_twice_differs_in_nothing(tmp_path: Path) -> None:
    html = write(tmp_path, [make_record("a", dim=8)], [make_record("a", dim=8)])
    assert "Both hold the same data by the same recipe." in text_of(html, "overview")
    assert "Nothing." in text_of(html, "differences")
    assert 'id="changed"' not in html
    assert text_of(html, "identity").count(" yes") == 4


def test_classes_of_other_label_spaces_are_matched_by_name(tmp_path: Path) -> None:
    """Id 15 is person in voc21, id 284 in context460."""
    spaces = {name: load_label_space(name) for name in ("context460", "voc21")}
    ids = {
        name: next(key for key, label in space.names.items() if label == "person")
        for name, space in spaces.items()
    }
    assert len(set(ids.values())) == 2
    known = set(spaces["context460"].names.values())
    alone = [key for key, label in spaces["voc21"].names.items() if label not in known][:2]
    html = write(
        tmp_path,
        [record_of("a", label_map(ids["context460"]))],
        [record_of("a", label_map(ids["voc21"], ids["voc21"], *alone), void=255)],
        schema=LabelSpaceId(name="voc21", sha256=spaces["voc21"].sha256),
    )
    classes = text_of(html, "classes")
    assert "person 100.0 50.0" in classes
    assert "Classes of B only: background" in classes
    for key in alone:
        assert f"{spaces['voc21'].names[key]} 0 25.0" in classes
    assert "schema.name: 'context460' and 'voc21'" in text_of(html, "differences")


def test_versions_without_records_have_a_page(tmp_path: Path) -> None:
    html = write(tmp_path, [make_record("a", dim=8)], [])
    assert "1 in A only: a" in text_of(html, "differences")
    assert "B train" not in text_of(html, "overview")
