"""The page about a dataset version: what it says of what the shards hold."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from builders.html import Elements, text_of
from builders.records import make_record, record_of
from builders.versions import Built, build, first_jpeg, write_records, write_splits

import vocprep
from vocprep.labels.label_space import load_label_space
from vocprep.options import BuildChoices, Layout, ShardFormat
from vocprep.pages.report.options import ReportOptions

pytestmark = pytest.mark.slow


def write(path: Path, out: Path, **options: object) -> str:
    vocprep.report(path, out / "page.html", ReportOptions(**options))  # type: ignore[arg-type]
    return (out / "page.html").read_text()


@pytest.fixture(scope="module")
def html(crop_hdf5: Built, sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    return write(crop_hdf5.path, tmp_path_factory.mktemp("page"), data_dir=sample_tree, pictures=2)


def test_identities_and_counts_are_there(html: str, crop_hdf5: Built) -> None:
    index = crop_hdf5.index
    identities = text_of(html, "identity")
    for name in ("recipe_id", "source_id", "content_id", "targets_id"):
        assert f"{name} " in identities
        assert getattr(index, name) in identities
    overview = text_of(html, "overview")
    for split, facts in index.statistics["splits"].items():
        assert re.search(rf"{split} {facts['records']} {facts['patches']}", overview)


def test_every_class_that_occurs_is_listed_with_its_pixels(html: str, crop_hdf5: Built) -> None:
    classes, space = text_of(html, "classes"), crop_hdf5.dataset.label_space
    table = classes.split("All classes that occur")[1]
    pixels = crop_hdf5.index.statistics["label_pixels"]
    for label in pixels:
        assert f" {space.names[int(label)]} {label} " in table
    largest = max(pixels, key=lambda label: (pixels[label], -int(label)))
    assert classes.index(space.names[int(largest)]) < classes.index("All")


def test_pictures_are_shown_with_and_without_photographs(
    html: str, crop_hdf5: Built, tmp_path: Path
) -> None:
    plain = write(crop_hdf5.path, tmp_path, pictures=2)
    shown, bare = text_of(html, "pictures"), text_of(plain, "pictures")
    assert shown.count("label map") == bare.count("label map") == 4
    assert (shown.count(" photograph"), bare.count(" photograph ")) == (4, 0)
    assert "--data-dir adds their photographs" in bare
    assert all(image["alt"] for image in Elements(html).all("img"))


def test_no_pictures_where_none_are_wanted(crop_hdf5: Built, tmp_path: Path) -> None:
    assert 'id="pictures"' not in write(crop_hdf5.path, tmp_path, pictures=0)


def test_a_version_without_records_has_a_page(crop_hdf5: Built, tmp_path: Path) -> None:
    path = write_records(tmp_path / "out", [])
    html = write(path, tmp_path)
    assert "This version holds no record." in text_of(html, "overview")
    assert 'id="classes"' not in html


def test_mirrored_views_are_not_counted(native_hdf5: Built, tmp_path: Path) -> None:
    html = write(native_hdf5.path, tmp_path, pictures=1)
    assert "Mirrored views, which the shards hold too, are counted nowhere" in text_of(
        html, "overview"
    )
    pictures = sum(entry.records for entry in native_hdf5.index.shards) // 2
    assert f"pictures {pictures} " in text_of(html, "overview")


HOSTILE_ID = "<script>alert(1)</script>\"'&\u202e" + "x" * 150


def test_hostile_ids_are_text(tmp_path: Path) -> None:
    records = [make_record(HOSTILE_ID, (1, 2)), make_record("plain", (1, 2))]
    html = write(
        write_records(tmp_path / "out", sorted(records, key=lambda r: r.image_id)), tmp_path
    )
    page = Elements(html)
    assert not page.all("script")
    assert "\u202e" not in html
    assert "<script>alert(1)</script>" in page.text


def test_what_is_in_quarantine_is_listed_with_its_reason(tree: Path, tmp_path: Path) -> None:
    broken = first_jpeg(tree)
    broken.write_bytes(broken.read_bytes()[:100])
    built = build(tree, tmp_path / "out", BuildChoices(limit_per_split=2), max_failures=1)
    found = text_of(write(built.path, tmp_path), "quarantine")
    assert "1 image is left out" in found
    line = next(iter(built.dataset.quarantined))
    assert f"{line.id} {line.split} {line.stage} {line.reason}" in found


def leaking(tmp_path: Path) -> Path:
    """A version in which the first picture of train is in val too."""
    train = [make_record(name, (2, 2), dim=8) for name in "abc"]
    val = [
        replace(train[0], image_id="z", split="val"),
        make_record("y", (2, 2), dim=8, split="val"),
    ]
    return write_splits(tmp_path / "out", {"train": train, "val": val})


def test_pictures_in_two_splits_are_a_warning(tmp_path: Path) -> None:
    html = write(leaking(tmp_path), tmp_path)
    warning = "1 picture is in more than one split"
    assert warning in text_of(html, "overview")
    duplicates = text_of(html, "duplicates")
    assert warning in duplicates
    assert "a, z train, val image file yes" in duplicates
    assert re.search(r"0\.\d\d and more counts as nearly the same", duplicates)


def test_of_very_many_pictures_digests_alone_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.pages.report.versions.page.MOST_COMPARED", 4)
    duplicates = text_of(write(leaking(tmp_path), tmp_path), "duplicates")
    assert "a, z train, val image file yes" in duplicates
    assert "Pictures that are nearly the same were not looked for" in duplicates


def test_classes_that_only_val_holds_are_named(tmp_path: Path) -> None:
    label_maps = [np.full((32, 32), label, dtype=np.uint16) for label in (44, 420)]
    path = write_splits(
        tmp_path / "out",
        {
            "train": [record_of("a", label_maps[0])],
            "val": [record_of("b", label_maps[1], split="val")],
        },
    )
    names = load_label_space("context460").names
    classes = text_of(write(path, tmp_path), "classes")
    assert f"1 class occurs in val, but in no picture of train: {names[420]}" in classes
    assert "457 classes occur in no picture" in classes


def test_pictures_are_spread_over_their_split(tmp_path: Path) -> None:
    records = [make_record(f"id{number}", (1, 1), dim=8) for number in range(9)]
    html = write(write_records(tmp_path / "out", records), tmp_path, pictures=3)
    assert re.findall(r"id\d", text_of(html, "pictures")) == ["id1", "id4", "id7"]


def test_large_pictures_are_reduced_with_whole_patches(tmp_path: Path) -> None:
    path = write_records(tmp_path / "out", [make_record("a", (40, 17), dim=8)])
    labels, patches, embeddings = Elements(write(path, tmp_path)).all("img")[:3]
    assert (labels["width"], labels["height"]) == ("136", "320")
    assert (patches["width"], patches["height"]) == ("136", "320")
    assert (embeddings["width"], embeddings["height"]) == ("136", "320")


def test_train_is_what_other_splits_are_compared_with(tmp_path: Path) -> None:
    splits = {split: [make_record(split, (1, 1), dim=8, split=split)] for split in ("train", "dev")}
    html = write(write_splits(tmp_path / "out", splits), tmp_path)
    assert re.search(r" train 1 1 .* dev 1 1 ", text_of(html, "overview"))


def test_splits_without_records_are_a_warning(tmp_path: Path) -> None:
    splits = {"train": [make_record("a", (1, 1), dim=8)], "val": []}
    html = write(write_splits(tmp_path / "out", splits), tmp_path)
    assert "No record is in split val." in text_of(html, "overview")


def test_how_to_load_it_says_what_kind_of_files_it_has(tmp_path: Path) -> None:
    record = make_record("a", (1, 1), dim=8)
    layouts = {name: Layout(format=name) for name in get_args(ShardFormat)}
    found = {
        name: text_of(write(write_records(tmp_path / name, [record], layout), tmp_path), "use")
        for name, layout in layouts.items()
    }
    assert [name for name, text in found.items() if "The tars are read" in text] == ["webdataset"]
    assert all('dataset.loader("train"' in text for text in found.values())
