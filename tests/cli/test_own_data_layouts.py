"""Each layout of own data through the command line: init, build-shards, train, predict."""

from __future__ import annotations

import json
import shlex
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from builders.own_data import classes_below, file_digests
from click.testing import Result
from PIL import Image

from vocprep.labels.label_space import load_label_space
from vocprep.synthetic.dataset import sample
from vocprep.synthetic.layouts import SampleLayout

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
IMAGES = 8
WITHOUT_NAMES = {  # what lies below some ids of layouts that name none
    "camvid": {
        0: {"sky"},
        1: {"building", "wall", "ceiling", "window", "door", "curtain"},
        2: {"bottle", "pottedplant"},
        6: {"sign"},
        9: {"person"},
    },
    "plain": {1: {"sky"}, 2: {"wall"}, 3: {"tree"}, 16: {"dog"}},
}
OTHER_NAMES = {
    "diningtable": "table",
    "airplane": "aeroplane",
    "motorcycle": "motorbike",
    "railroad": "track",
    "pavement": "sidewalk",
}


@dataclass(frozen=True)
class Case:
    """A layout, the options of ``init`` that it needs, and what is to be found."""

    layout: SampleLayout
    options: Sequence[str] = ()
    splits: tuple[int, ...] = (6, 2)
    is_older: bool = False
    """labelme's output of earlier years."""


CASES = {
    "voc": Case("voc"),
    "labelme": Case("labelme", ("--split", "75/25")),
    "labelme of earlier years": Case("labelme", is_older=True, splits=(8,)),
    "camvid": Case("camvid", ("--void", "11")),
    "cvat": Case("cvat", ("--split", "75/25", "--seed", "3")),
    "coco": Case("coco"),
    "plain": Case("plain", ("--split", "75/25")),
}


def write(folder: Path, case: Case) -> None:
    sample(folder, images=IMAGES, layout=case.layout)
    if case.is_older:
        (folder / "SegmentationClass").rename(folder / "SegmentationClassPNG")
        (folder / "SegmentationClassNpy").rename(folder / "SegmentationClass")


def succeed(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_recognised_built_trained_and_predicted(
    name: str, tmp_path: Path, vocprep: Run, sample_tree: Path
) -> None:
    case, folder = CASES[name], tmp_path / "mine"
    write(folder, case)
    before = file_digests(folder)
    found = json.loads(succeed(vocprep("init", folder, *case.options, "--json")))
    assert (found["questions"], tuple(found["splits"].values())) == ([], case.splits)
    assert {path: file_digests(folder).get(path) for path in before} == before
    verb, *words = shlex.split(found["command"])[1:]
    words[words.index("--out") + 1] = shards = str(tmp_path / "shards")
    succeed(vocprep(verb, *words, "--weights", "random:0", "--device", "cpu"))
    lines = (Path(shards) / "samples.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["split"] for line in lines) == sorted(
        split for split, count in found["splits"].items() for _ in range(count)
    )
    run, out = tmp_path / "run", tmp_path / "out"
    succeed(vocprep("train", shards, "--out", run, "--preset", "quick", "--epochs", 1))
    picture = next(path for path in sorted(before) if path.suffix in (".jpg", ".png"))
    words = ["--out", out, "--weights", "random:0", "--device", "cpu"]
    succeed(vocprep("predict", run, folder / picture, *words))
    with Image.open(out / f"{picture.stem}.labels.png") as predicted:
        assert predicted.size == (224, 224)
    check_classes(folder, tmp_path / "maps", vocprep, sample_tree, case.layout)


def check_classes(folder: Path, out: Path, vocprep: Run, tree: Path, layout: str) -> None:
    """Check the class of every pixel by the scenes that the data were made of."""
    manifest = folder / "dataset.toml"
    succeed(vocprep("decode", manifest, "--data-dir", folder, "--out", out))
    paths = sorted(out.glob("*.png"), key=lambda path: unquote(path.stem).rpartition("/")[2])
    assert len(paths) == IMAGES
    found = classes_below([np.asarray(Image.open(path)) for path in paths], tree)
    (schema,) = tomllib.loads(manifest.read_text())["schemas"]
    space = load_label_space(str(folder / schema) if schema.endswith(".toml") else schema)
    if layout != "cvat":  # which has background only
        assert "" in found.pop(space.void)
    expected = WITHOUT_NAMES.get(layout)
    if expected is not None:
        assert all(found[value] <= names for value, names in expected.items() if value in found)
        return
    for value, below in found.items():
        name = space.names[value].removesuffix("-merged").removesuffix("-other")
        if "background" not in name:
            assert below == {OTHER_NAMES.get(name, name)}
    assert len(found) >= 13
