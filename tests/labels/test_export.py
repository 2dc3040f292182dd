"""Decoded label maps on disk, and the counts beside them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from builders.mat import Mat
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import LabelDecodeError, UsageError
from vocprep.labels.export import STATISTICS_FILE, export_label_maps
from vocprep.labels.label_space import load_label_space
from vocprep.labels.statistics import LabelStatistics, label_areas

SCHEMA = load_label_space("context460")


def maps() -> dict[str, NDArray[np.uint16]]:
    draw = np.random.default_rng(0)
    return {
        "a": draw.integers(0, 5, (9, 7), dtype=np.uint16),
        "b": np.zeros((4, 4), dtype=np.uint16),
        "c": draw.choice(np.array([431, 459, 1], dtype=np.uint16), (6, 5)),
    }


@pytest.fixture
def items(tmp_path: Path) -> list[tuple[str, Path]]:
    folder = tmp_path / "mats"
    folder.mkdir()
    for image_id, label_map in maps().items():
        (folder / f"{image_id}.mat").write_bytes(Mat().file(label_map))
    return [(image_id, folder / f"{image_id}.mat") for image_id in maps()]


def test_pngs_hold_the_label_maps(items: list[tuple[str, Path]], tmp_path: Path) -> None:
    out, steps = tmp_path / "new" / "out", []
    export_label_maps(items, SCHEMA, out, on_image=lambda: steps.append(1))
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png", "c.png", STATISTICS_FILE}
    for image_id, label_map in maps().items():
        with Image.open(out / f"{image_id}.png") as picture:
            assert picture.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(picture), label_map)
    assert len(steps) == 3


def test_statistics_equal_naive_counts(items: list[tuple[str, Path]], tmp_path: Path) -> None:
    statistics = export_label_maps(items, SCHEMA, tmp_path / "out")
    written = json.loads((tmp_path / "out" / STATISTICS_FILE).read_text())
    assert written == statistics.to_json()
    pixels, images, labels_an_image = Counter[int](), Counter[int](), Counter[str]()
    for label_map in maps().values():
        flat = label_map.ravel().tolist()
        pixels.update(flat)
        held = set(flat) - {0}
        images.update(held)
        labels_an_image[str(len(held))] += 1
    held_anywhere = sorted(images)
    assert written == {
        "schema": "context460",
        "void": 0,
        "images": 3,
        "pixels": 9 * 7 + 16 + 30,
        "void_pixels": pixels[0],
        "mean_labels_an_image": sum(images.values()) / 3,
        "labels_an_image": labels_an_image,
        "labels": [
            {"id": n, "name": SCHEMA.names[n], "images": images[n], "pixels": pixels[n]}
            for n in held_anywhere
        ],
        "unused": [n for n in range(1, 460) if n not in images],
    }


def test_void_counts_as_no_label_where_it_is_not_zero() -> None:
    statistics = LabelStatistics(load_label_space("voc21"))
    statistics.add(np.array([[0, 0, 255], [20, 255, 255]], dtype=np.uint16))
    assert (statistics.pixels, statistics.void_pixels) == (6, 3)
    assert statistics.pixels_of == {0: 2, 20: 1}
    assert statistics.mean_labels == 2
    assert statistics.unused == list(range(1, 20))


def test_statistics_of_nothing() -> None:
    assert LabelStatistics(SCHEMA).to_json()["mean_labels_an_image"] == 0


def test_label_areas() -> None:
    assert label_areas(np.array([[65535, 3], [3, 0]], dtype=np.uint16)) == {0: 1, 3: 2, 65535: 1}


def test_a_schema_is_applied(items: list[tuple[str, Path]], tmp_path: Path) -> None:
    schema = load_label_space("context460", void_unknown=True)
    statistics = export_label_maps(items, schema, tmp_path / "out")
    assert 431 not in statistics.pixels_of
    with Image.open(tmp_path / "out" / "c.png") as picture:
        assert 431 not in np.asarray(picture)


@pytest.mark.parametrize("damage", [b"nonsense", None, Mat().file(np.array([[1, 460]]))])
def test_a_bad_file_leaves_nothing(
    items: list[tuple[str, Path]], tmp_path: Path, damage: bytes | None
) -> None:
    bad = items[1][1]
    if damage is None:
        bad.unlink()
    else:
        bad.write_bytes(damage)
    with pytest.raises(LabelDecodeError, match=r"mats/b\.mat: "):
        export_label_maps(items, SCHEMA, tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["mats"]


def test_an_interruption_leaves_the_earlier_output(
    items: list[tuple[str, Path]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_label_maps(items[:1], SCHEMA, out)

    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export_label_maps(items, SCHEMA, out, on_image=interrupt)
    assert {path.name for path in out.iterdir()} == {"a.png", STATISTICS_FILE}
    assert {path.name for path in tmp_path.iterdir()} == {"mats", "out"}


def test_its_own_earlier_output_is_replaced(items: list[tuple[str, Path]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_label_maps(items, SCHEMA, out)
    export_label_maps(items[2:], SCHEMA, out)
    assert {path.name for path in out.iterdir()} == {"c.png", STATISTICS_FILE}


def test_an_empty_folder_is_taken(items: list[tuple[str, Path]], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export_label_maps(items, SCHEMA, tmp_path / "out")
    assert (tmp_path / "out" / "a.png").is_file()


def test_a_foreign_folder_is_refused(items: list[tuple[str, Path]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(UsageError, match="holds other things than decoded label maps"):
        export_label_maps(items, SCHEMA, out)
    assert [path.name for path in out.iterdir()] == ["holiday.jpg"]


def test_a_file_in_the_place_of_the_folder_is_refused(
    items: list[tuple[str, Path]], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"precious")
    with pytest.raises(UsageError, match="out: "):
        export_label_maps(items, SCHEMA, out)
    assert out.read_bytes() == b"precious"
