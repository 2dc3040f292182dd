"""What is odd about a version as a whole is told at the end of each build of it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from builders.jpeg import exif_of
from builders.versions import ENGINE, JPEGS, TWO_PER_SHARD, make_plan
from click.testing import CliRunner
from PIL import Image
from scipy.io import savemat

from vocprep.building.local import BuildResult, build_plan
from vocprep.cli.main import main
from vocprep.options import BuildChoices

pytestmark = pytest.mark.slow

FEW = BuildChoices(limit_per_split=3)


def built(tree: Path, out: Path) -> BuildResult:
    return build_plan(make_plan(tree, FEW, TWO_PER_SHARD), out, ENGINE)


def turn(tree: Path, *image_ids: str) -> None:
    for image_id in image_ids:
        path = tree / JPEGS / f"{image_id}.jpg"
        with Image.open(path) as picture:
            picture.save(path, "JPEG", exif=exif_of(6))


@pytest.fixture
def image_ids(tree: Path) -> list[str]:
    return [sample.image_id for sample in make_plan(tree, FEW).samples]


def test_pictures_with_an_orientation_are_named_by_every_build(
    tree: Path, tmp_path: Path, image_ids: list[str]
) -> None:
    plain = built(tree, tmp_path / "plain")
    assert plain.notes == ()
    turn(tree, image_ids[0], image_ids[4])
    first = built(tree, tmp_path / "out")
    (note,) = first.notes
    named = ", ".join(sorted([image_ids[0], image_ids[4]]))
    assert f"state an orientation: 2 ({named});" in note
    assert "drawn on the upright pictures do not fit" in note
    assert first.index.shards[0].records == plain.index.shards[0].records
    again = built(tree, tmp_path / "out")
    assert (again.up_to_date, again.notes) == (True, (note,))


def test_pictures_of_an_interrupted_run_are_named_too(
    tree: Path, tmp_path: Path, image_ids: list[str]
) -> None:
    def stop(_version: object, _folder: object) -> None:
        raise KeyboardInterrupt

    turn(tree, *image_ids)
    plan, out = make_plan(tree, FEW, TWO_PER_SHARD), tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        build_plan(plan, out, ENGINE, check=stop)
    resumed = build_plan(plan, out, ENGINE)
    assert resumed.made == 0
    assert f"state an orientation: 5 ({', '.join(sorted(image_ids))});" in resumed.notes[0]


def test_the_command_prints_notes_and_json_holds_them(
    tree: Path, tmp_path: Path, image_ids: list[str]
) -> None:
    turn(tree, image_ids[0])
    for path in (tree / "trainval").iterdir():
        with Image.open(tree / JPEGS / f"{path.stem}.jpg") as picture:
            ids = np.zeros((picture.height, picture.width), dtype=np.uint16)
        ids[: picture.height // 3] = 5
        savemat(str(path), {"LabelMap": ids}, do_compression=True)
    words = ["build-shards", "pascal-context", "--data-dir", str(tree), "--weights", "random:0"]
    words += ["--limit-per-split", "1", "--device", "cpu", "--out", str(tmp_path / "out"), "--json"]
    done = CliRunner().invoke(main, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    notes = json.loads(done.stdout)["notes"]
    assert [f"note: {note}" for note in notes] == done.stderr.splitlines()
    told = "hold one class only and are void for the most part in label space context460"
    assert told in notes[0]
    assert f"1 ({image_ids[0]})" in notes[1]
