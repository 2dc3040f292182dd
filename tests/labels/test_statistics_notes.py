"""Label maps that hold mostly void or one class only: a warning that shows what they hold."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from vocprep.cli.main import main
from vocprep.labels.label_space import load_label_space
from vocprep.labels.statistics import LabelStatistics

SPACE = load_label_space("voc21")


def notes(*shares: tuple[int, int]) -> str:
    """Return the warning about one label map of so many pixels of each id."""
    statistics = LabelStatistics(SPACE)
    statistics.add(np.repeat(*np.array(shares).T).astype(np.uint16)[None])
    assert len(statistics.notes) <= 1
    return "".join(statistics.notes)


@pytest.mark.parametrize("shares", [[(0, 50), (15, 1), (255, 49)], [(0, 1), (1, 1), (255, 2)]])
def test_usual_label_maps_get_none(shares: list[tuple[int, int]]) -> None:
    assert notes(*shares) == ""
    assert LabelStatistics(SPACE).notes == ()


def test_masks_of_0_and_255_are_told_that_their_foreground_is_void() -> None:
    text = notes((0, 90), (255, 10))
    assert text.startswith("label maps hold one class only in label space voc21: ")
    assert "found 0 (background) in 90.0 % of the pixels, 255 (void) in 10.0 %" in text
    assert "if 255 marks a class in these masks" in text
    assert "use a label space of your own" in text


def test_mostly_void_is_told_with_the_largest_classes() -> None:
    text = notes(*((label, 10 - label) for label in range(1, 8)), (255, 100))
    assert text.startswith("label maps are void for the most part in label space voc21: found 1 (")
    assert "255 (void) in 70.4 %" in text
    assert "6 (" not in text.split("found")[1]


def test_both_at_once_are_one_warning() -> None:
    assert "hold one class only and are void for the most part" in notes((0, 1), (255, 9))
    assert "hold no class and are void for the most part" in notes((255, 9), (255, 1))


def test_one_class_without_void_is_told_to_check_the_label_space() -> None:
    assert notes((3, 7), (3, 1)).endswith(
        "found 3 (bird) in 100.0 % of the pixels; check that the label maps are those of this "
        "label space"
    )


def test_decode_prints_the_warning_and_json_holds_it(tree: Path, tmp_path: Path) -> None:
    for path in (tree / "VOCdevkit/VOC2010/SegmentationClass").iterdir():
        Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).save(path)
    words = ["decode", "voc2010", "--data-dir", str(tree), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(main, [*words, "--json"], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (note,) = json.loads(done.stdout)["notes"]
    assert "found 0 (background) in 50.0 % of the pixels, 255 (void) in 50.0 %" in note
    assert done.stderr == f"note: {note}\n"
    assert "notes" not in json.loads((tmp_path / "out" / "labels.json").read_text())
