"""Decoded label maps on disk, and the counts beside them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from builders.mat import Mat
from builders.progress import CountedProgress, Interrupting
from numpy.typing import NDArray
from PIL import Image

from vocprep.data_dir.layout import SampleRef
from vocprep.errors import DataError, LabelDecodeError, UsageError
from vocprep.files.replacing import Replacement
from vocprep.labels.export import STATISTICS_FILE, write_label_maps
from vocprep.labels.label_space import load_label_space
from vocprep.labels.statistics import LabelStatistics, label_areas

SPACE = load_label_space("context460")


def maps() -> dict[str, NDArray[np.uint16]]:
    draw = np.random.default_rng(0)
    return {
        "a": draw.integers(0, 5, (9, 7), dtype=np.uint16),
        "b": np.zeros((4, 4), dtype=np.uint16),
        "c": draw.choice(np.array([431, 459, 1], dtype=np.uint16), (6, 5)),
    }


@pytest.fixture
def samples(tmp_path: Path) -> list[SampleRef]:
    folder = tmp_path / "mats"
    folder.mkdir()
    for image_id, label_map in maps().items():
        (folder / f"{image_id}.mat").write_bytes(Mat().file(label_map))
    return [
        SampleRef(image_id=i, split="val", image_path=folder, label_path=folder / f"{i}.mat")
        for i in maps()
    ]


def test_pngs_hold_the_label_maps(samples: list[SampleRef], tmp_path: Path) -> None:
    out, progress = tmp_path / "new" / "out", CountedProgress()
    write_label_maps(samples, SPACE, out, progress=progress)
    assert {path.name for path in out.iterdir()} == {"a.png", "b.png", "c.png", STATISTICS_FILE}
    for image_id, label_map in maps().items():
        with Image.open(out / f"{image_id}.png") as picture:
            assert picture.mode == "I;16"
            np.testing.assert_array_equal(np.asarray(picture), label_map)
    assert (progress.total, progress.count, progress.ended) == (3, 3, True)


def test_statistics_equal_naive_counts(samples: list[SampleRef], tmp_path: Path) -> None:
    statistics = write_label_maps(samples, SPACE, tmp_path / "out")
    written = json.loads((tmp_path / "out" / STATISTICS_FILE).read_text())
    assert written == statistics.to_json()
    pixels, images, images_by_classes = Counter[int](), Counter[int](), Counter[int]()
    for label_map in maps().values():
        flat = label_map.ravel().tolist()
        pixels.update(flat)
        held = set(flat) - {0}
        images.update(held)
        images_by_classes[len(held)] += 1
    held_anywhere = sorted(images)
    assert written == {
        "schema": "context460",
        "void": 0,
        "images": 3,
        "pixels": 9 * 7 + 16 + 30,
        "void_pixels": pixels[0],
        "mean_classes_per_image": sum(images.values()) / 3,
        "classes_per_image": [
            {"classes": n, "images": images_by_classes[n]} for n in sorted(images_by_classes)
        ],
        "classes": [
            {"id": n, "name": SPACE.names[n], "images": images[n], "pixels": pixels[n]}
            for n in held_anywhere
        ],
        "unused": [n for n in range(1, 460) if n not in images],
    }


def test_void_counts_as_no_label_where_it_is_not_zero() -> None:
    statistics = LabelStatistics(load_label_space("voc21"))
    statistics.add(np.array([[0, 0, 255], [20, 255, 255]], dtype=np.uint16))
    assert (statistics.pixels, statistics.void_pixels) == (6, 3)
    assert statistics.pixels_of == {0: 2, 20: 1}
    assert statistics.mean_classes == 2
    assert statistics.unused == list(range(1, 20))


def test_statistics_of_nothing() -> None:
    assert LabelStatistics(SPACE).to_json()["mean_classes_per_image"] == 0


def test_label_areas() -> None:
    assert label_areas(np.array([[65535, 3], [3, 0]], dtype=np.uint16)) == {0: 1, 3: 2, 65535: 1}


def test_a_label_space_is_applied(samples: list[SampleRef], tmp_path: Path) -> None:
    space = load_label_space("context460", void_unknown=True)
    statistics = write_label_maps(samples, space, tmp_path / "out")
    assert 431 not in statistics.pixels_of
    with Image.open(tmp_path / "out" / "c.png") as picture:
        assert 431 not in np.asarray(picture)


@pytest.mark.parametrize("damage", [b"nonsense", None, Mat().file(np.array([[1, 460]]))])
def test_a_bad_file_leaves_nothing(
    samples: list[SampleRef], tmp_path: Path, damage: bytes | None
) -> None:
    bad = samples[1].label_path
    if damage is None:
        bad.unlink()
    else:
        bad.write_bytes(damage)
    with pytest.raises(LabelDecodeError, match=r"mats/b\.mat: "):
        write_label_maps(samples, SPACE, tmp_path / "out")
    assert [item.name for item in tmp_path.iterdir()] == ["mats"]


def test_an_interruption_leaves_the_earlier_output(
    samples: list[SampleRef], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_label_maps(samples[:1], SPACE, out)

    with pytest.raises(KeyboardInterrupt):
        write_label_maps(samples, SPACE, out, progress=Interrupting())
    assert {path.name for path in out.iterdir()} == {"a.png", STATISTICS_FILE}
    assert {path.name for path in tmp_path.iterdir()} == {"mats", "out"}


def test_its_own_earlier_output_is_replaced(samples: list[SampleRef], tmp_path: Path) -> None:
    out = tmp_path / "out"
    write_label_maps(samples, SPACE, out)
    write_label_maps(samples[2:], SPACE, out)
    assert {path.name for path in out.iterdir()} == {"c.png", STATISTICS_FILE}


@pytest.mark.parametrize("nth", range(1, 14))
@pytest.mark.parametrize("end", ["call fails", "kill"])
def test_earlier_output_is_whole_or_replaced_whatever_call_fails(
    nth: int,
    end: str,
    samples: list[SampleRef],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each call that moves files fails once, or the process ends there."""
    out, calls = tmp_path / "out", iter(range(1, 100))
    write_label_maps(samples[:2], SPACE, out)
    old = {path.name: path.read_bytes() for path in out.iterdir()}
    write_label_maps(samples[1:], SPACE, tmp_path / "whole")
    new = {path.name: path.read_bytes() for path in (tmp_path / "whole").iterdir()}

    def failing(original: Callable[..., Path]) -> Callable[..., Path]:
        def call(*arguments: object, **words: object) -> Path:
            if next(calls) == nth:
                raise OSError(5, "Input/output error") if end == "call fails" else KeyboardInterrupt
            return original(*arguments, **words)

        return call

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", failing(Path.rename))
        patched.setattr(Path, "mkdir", failing(Path.mkdir))
        if end == "kill":
            patched.setattr(Replacement, "restore", lambda _: None)
        with suppress(DataError, KeyboardInterrupt):
            write_label_maps(samples[1:], SPACE, out)
    found = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
    if end == "call fails":
        assert found in (old, new)
    else:
        assert found in (old, new) or STATISTICS_FILE not in found
    write_label_maps(samples[1:], SPACE, out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == new


def test_linked_folder_is_filled_and_stays_a_link(samples: list[SampleRef], tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "here").symlink_to(tmp_path / "there")
    for _ in range(2):
        write_label_maps(samples, SPACE, tmp_path / "here")
        assert (tmp_path / "here").is_symlink()
        assert len(list((tmp_path / "there").iterdir())) == 4


def test_own_file_beside_earlier_output_is_refused_and_kept(
    samples: list[SampleRef], tmp_path: Path
) -> None:
    write_label_maps(samples, SPACE, tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match=r"such as 'notes.txt'"):
        write_label_maps(samples, SPACE, tmp_path / "out")
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"


def test_an_empty_folder_is_taken(samples: list[SampleRef], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_label_maps(samples, SPACE, tmp_path / "out")
    assert (tmp_path / "out" / "a.png").is_file()


def test_clutter_of_the_system_is_passed_over(samples: list[SampleRef], tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / ".DS_Store").write_bytes(b"macOS")
    write_label_maps(samples, SPACE, tmp_path / "out")
    write_label_maps(samples, SPACE, tmp_path / "out")
    assert (tmp_path / "out" / ".DS_Store").read_bytes() == b"macOS"


def test_a_foreign_folder_is_refused(samples: list[SampleRef], tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "holiday.jpg").write_bytes(b"precious")
    with pytest.raises(UsageError, match="holds other things than decoded label maps"):
        write_label_maps(samples, SPACE, out)
    assert [path.name for path in out.iterdir()] == ["holiday.jpg"]


def test_a_file_in_the_place_of_the_folder_is_refused(
    samples: list[SampleRef], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    out.write_bytes(b"precious")
    with pytest.raises(UsageError, match="out: "):
        write_label_maps(samples, SPACE, out)
    assert out.read_bytes() == b"precious"
