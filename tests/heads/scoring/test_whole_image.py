"""Scores over whole images: pixels outside the geometry count as wrong."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.heads import CPU, VOID, always_says, make_dataset, make_record, run_for
from numpy.typing import NDArray
from PIL import Image

from vocprep.errors import DataError, LabelDecodeError, UsageError
from vocprep.geometry import Geometry
from vocprep.heads.runs.options import EvaluateOptions
from vocprep.heads.scoring.measures.oracles import RowKind
from vocprep.heads.scoring.run_scores import WHOLE_NOTE, score_run
from vocprep.heads.scoring.whole_image import whole_image_pixels
from vocprep.labels.label_space import load_label_space
from vocprep.manifests import load_dataset
from vocprep.placement import place_labels
from vocprep.recipe import LabelSpaceId
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

FOLDER = "VOCdevkit/VOC2012/SegmentationClass"
CROP, NATIVE = Geometry(), Geometry(geometry="native")
SIZES = {"v0": (50, 100), "v1": (70, 40), "v2": (64, 32)}


def label_maps() -> dict[str, NDArray[np.uint16]]:
    """Label maps whose borders hold other labels than their middles, and void."""
    rng = np.random.default_rng(0)
    maps = {}
    for name, (height, width) in SIZES.items():
        label_map = rng.choice([1, 2, 3, VOID], size=(height, width)).astype(np.uint16)
        label_map[-10:], label_map[:, -7:] = 4, 5
        maps[name] = label_map
    return maps


def make_tree(tmp_path: Path, geometry: Geometry, **recipe: object) -> tuple[ShardDataset, Path]:
    """Shards of one geometry, and the data dir with the label files that they came from."""
    data = tmp_path / "data"
    (data / FOLDER).mkdir(parents=True)
    records = []
    for name, label_map in label_maps().items():
        path = data / FOLDER / f"{name}.png"
        Image.fromarray(label_map.astype(np.uint8)).save(path)
        placed = place_labels(label_map, geometry, VOID)
        embeddings = np.zeros((placed.size // 1024, 256), dtype=np.float16)
        made = make_record(name, "val", placed, embeddings)
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        records.append(replace(made, label_sha256=digest))
    flipped = replace(records[0], image_id="v0#flip")
    dataset = make_dataset(
        tmp_path / "shards",
        {"val": [records[0], flipped, *records[1:]]},
        dataset="voc2012",
        geometry=geometry,
        views=("identity", "flip"),
        **recipe,
    )
    return dataset, data


def resized_by_hand(label_map: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The shorter side at 256, each pixel the one under its centre."""
    height, width = label_map.shape
    scale = 256 / min(height, width)
    target = [256 * side // min(height, width) for side in (height, width)]
    picked = [
        [label_map[int((y + 0.5) / scale), int((x + 0.5) / scale)] for x in range(target[1])]
        for y in range(target[0])
    ]
    return np.array(picked)


@pytest.mark.parametrize("geometry", [NATIVE, CROP], ids=["native", "crop"])
def test_what_the_geometry_leaves_out_is_wrong(tmp_path: Path, geometry: Geometry):
    dataset, data = make_tree(tmp_path, geometry)
    options = replace(CPU, data_dir=data)
    scores = score_run(run_for(dataset, always_says(1)), dataset, "val", options)
    (whole,) = scores.tables
    maps = label_maps().values()
    if geometry == CROP:
        maps = [resized_by_hand(label_map) for label_map in maps]
    pixels = Counter(int(label) for label_map in maps for label in label_map.ravel())
    del pixels[VOID]
    covered = {score.id: score.pixels for score in scores.classes}
    assert (whole.area, whole.schema, whole.pixels) == ("whole image", "voc21", pixels.total())
    assert whole.pixels > scores.pixels == sum(covered.values())
    model = next(row for row in whole.rows if row.kind is RowKind.MODEL)
    # The model says 1 wherever it says anything: all that is covered.
    assert model.pixel_accuracy == pytest.approx(covered[1] / pixels.total())
    iou = covered[1] / (sum(covered.values()) + pixels[1] - covered[1])
    assert model.miou_present == pytest.approx(iou / len(pixels))
    assert model.miou_all == pytest.approx(iou / 21)
    assert [row.name for row in whole.rows] == [row.name for row in scores.rows]
    assert all(row.pixel_accuracy < 1 for row in whole.rows)
    assert WHOLE_NOTE not in scores.notes


def test_void_among_the_outputs_is_left_out(tmp_path: Path):
    schema = load_label_space("context59")
    identity = LabelSpaceId(name="context59", sha256=schema.sha256)
    dataset, data = make_tree(tmp_path, NATIVE, schema=identity)
    found = whole_image_pixels(dataset, "val", load_dataset("voc2012"), data)
    raw = Counter(int(label) for label_map in label_maps().values() for label in label_map.ravel())
    # Of the ids in these maps, 2 is aeroplane in the base; the others are in no class of the 59.
    assert schema.names[1] == load_label_space("context460").names[2] == "aeroplane"
    assert {k for k in raw if schema.raw_to_class[k] != schema.void} == {2}
    expected = np.zeros(60, dtype=np.int64)
    expected[1] = raw[2]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "geometry", [Geometry(geometry="squash"), Geometry(geometry="native", edge="pad")]
)
def test_a_geometry_that_covers_all_needs_no_data_dir(tmp_path: Path, geometry: Geometry):
    dataset, _ = make_tree(tmp_path, geometry)
    scores = score_run(run_for(dataset, always_says(1)), dataset, "val", CPU)
    (whole,) = scores.tables
    assert whole.pixels == scores.pixels
    majority = next(row for row in whole.rows if row.kind is RowKind.MAJORITY)
    assert majority.pixel_accuracy == scores.row(RowKind.MAJORITY).pixel_accuracy


def test_another_label_file_is_refused(tmp_path: Path):
    dataset, data = make_tree(tmp_path, NATIVE)
    run, options = run_for(dataset), replace(CPU, data_dir=data)
    path = data / FOLDER / "v1.png"
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(DataError, match=r"v1\.png: expected the label map that the shards"):
        score_run(run, dataset, "val", options)
    path.unlink()
    with pytest.raises(LabelDecodeError, match=r"v1\.png: label map cannot be read"):
        score_run(run, dataset, "val", options)


def test_the_dataset_of_the_data_dir_can_be_named(tmp_path: Path):
    dataset, data = make_tree(tmp_path, NATIVE)
    own = tmp_path / "mine.toml"
    own.write_text(
        f'title = "mine"\nimages = "x"\nlabels = "{FOLDER}"\nlabel_kind = "png"\n'
        'split_files = "x"\nsplits = ["val"]\nschemas = ["voc21"]\n'
    )
    run = run_for(dataset)
    named = score_run(run, dataset, "val", replace(CPU, data_dir=data, dataset=str(own)))
    assert named.tables == score_run(run, dataset, "val", replace(CPU, data_dir=data)).tables
    with pytest.raises(UsageError, match="give --data-dir too"):
        EvaluateOptions(dataset=str(own))
