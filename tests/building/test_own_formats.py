"""Versions of pictures and label maps in every format: the same records as from JPEG and PNG."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.tiff import tiff_of
from builders.workers_here import Here
from numpy.typing import NDArray
from PIL import Image
from scipy.io import savemat

import vocprep
from vocprep.building.local import build
from vocprep.building.plan import plan
from vocprep.building.processes import build as processes
from vocprep.errors import DataError, UsageError
from vocprep.geometry import Geometry
from vocprep.options import BuildChoices, BuildOptions, Layout, VerifyOptions

pytestmark = pytest.mark.slow

CHOICES = BuildChoices(geometry=Geometry(geometry="native"))
OPTIONS = BuildOptions(device="cpu", workers=1, compiled=False)
COLOURS = {"#000000": 0, "#ff0000": 1, "#00ff00": 2, "#ffffff": 255}
IDS = ("a1", "b2")


def label_map(number: int) -> NDArray[np.uint8]:
    blocks = np.random.default_rng(number).integers(0, 4, (4, 6))
    return np.array([0, 1, 2, 255], np.uint8)[np.kron(blocks, np.ones((16, 16), int))]


def picture(number: int) -> NDArray[np.uint8]:
    draw = np.random.default_rng(number + 9)
    return np.kron(draw.integers(0, 256, (8, 12, 3)), np.ones((8, 8, 1))).astype(np.uint8)


def as_png(ids: NDArray[np.uint8], path: Path) -> None:
    Image.fromarray(ids).save(path.with_suffix(".png"))


def as_npy(ids: NDArray[np.uint8], path: Path) -> None:
    np.save(path.with_suffix(".npy"), np.where(ids == 255, -1, ids.astype(np.int32)))


def as_tiff(ids: NDArray[np.uint8], path: Path) -> None:
    path.with_suffix(".tif").write_bytes(tiff_of(ids.astype(np.uint16)))


def as_mat(ids: NDArray[np.uint8], path: Path) -> None:
    savemat(path.with_suffix(".mat"), {"GTcls": ids.astype(float)})


def as_colours(ids: NDArray[np.uint8], path: Path) -> None:
    table = np.zeros((256, 3), np.uint8)
    for colour, label in COLOURS.items():
        table[label] = list(bytes.fromhex(colour[1:]))
    Image.fromarray(table[ids]).save(path.with_suffix(".png"))


def as_panoptic(ids: NDArray[np.uint8], path: Path) -> None:
    """Write segments whose numbers are 1000 more than the ids."""
    segments = ids.astype(np.uint32) + 1000
    pixels = np.stack([segments % 256, segments // 256, segments * 0], axis=2)
    Image.fromarray(pixels.astype(np.uint8)).save(path.with_suffix(".png"))


KINDS: dict[str, tuple[Callable[[NDArray[np.uint8], Path], None], str]] = {
    "png": (as_png, ""),
    "npy": (as_npy, ""),
    "tiff": (as_tiff, ""),
    "mat": (as_mat, 'label_variable = "GTcls"\n'),
    "colours": (
        as_colours,
        "[label_colours]\n" + "".join(f'"{key}" = {label}\n' for key, label in COLOURS.items()),
    ),
    "panoptic": (as_panoptic, 'label_annotations = "segments.json"\n'),
}
SPACE = (
    'title = "three classes"\nvoid = 255\n\n[names]\n0 = "ground"\n1 = "cat"\n2 = "dog"\n'
    '3 = "never"\n'
)


def write_tree(folder: Path, kind: str = "png", suffix: str = ".png") -> Path:
    """Write a dataset; return its manifest."""
    write, more = KINDS[kind]
    for name in ("images", "masks", "splits"):
        (folder / name).mkdir(parents=True)
    annotations = []
    for number, image_id in enumerate(IDS):
        options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
        Image.fromarray(picture(number)).save(folder / "images" / f"{image_id}{suffix}", **options)
        write(label_map(number), folder / "masks" / image_id)
        segments = [
            {"id": 1000 + label, "category_id": label or 3}
            for label in np.unique(label_map(number)).tolist()
        ]
        annotations.append({"file_name": f"{image_id}.png", "segments_info": segments})
    (folder / "segments.json").write_text(json.dumps({"annotations": annotations}))
    (folder / "splits" / "train.txt").write_text("".join(f"{image_id}\n" for image_id in IDS))
    (folder / "space.toml").write_text(SPACE)
    manifest = folder / "mine.toml"
    manifest.write_text(
        f'title = "mine"\nimages = "images"\nlabels = "masks"\nlabel_kind = "{kind}"\n'
        f'split_files = "splits"\nsplits = ["train"]\nschemas = ["space.toml"]\n{more}'
    )
    return manifest


def build_tree(folder: Path, out: str = "out", **options: object) -> vocprep.ShardDataset:
    build(
        folder / "mine.toml",
        out=folder / out,
        data_dir=folder,
        weights="random:0",
        choices=CHOICES,
        options=replace(OPTIONS, **options),  # type: ignore[arg-type]
    )
    return vocprep.open(folder / out)


def label_maps(dataset: vocprep.ShardDataset) -> list[NDArray[np.uint16]]:
    shards = (dataset.read_shard(shard.name) for shard in dataset.index.shards)
    return [record.label_map for records in shards for record in records]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_label_map_gives_the_same_records(tmp_path: Path, kind: str) -> None:
    write_tree(tmp_path, kind)
    dataset = build_tree(tmp_path)
    expected = [label_map(number).astype(np.uint16) for number in range(len(IDS))]
    if kind == "panoptic":
        expected = [np.where(each == 0, 3, each).astype(np.uint16) for each in expected]
    for found, each in zip(label_maps(dataset), expected, strict=True):
        np.testing.assert_array_equal(found, each)
    has_rule = kind in ("mat", "colours", "panoptic")
    assert ("label_rule" in dataset.index.recipe.to_json()) == has_rule
    content = VerifyOptions(level="content", datasets=(str(tmp_path / "mine.toml"),), workers=1)
    assert vocprep.verify(tmp_path, content).ok
    decoded = vocprep.decode(tmp_path / "mine.toml", out=tmp_path / "decoded", data_dir=tmp_path)
    assert decoded.images == len(IDS)
    with Image.open(tmp_path / "decoded" / "a1.png") as picture_of_ids:
        np.testing.assert_array_equal(np.asarray(picture_of_ids), expected[0])


def test_a_version_is_made_again_by_its_rule_and_no_other(tmp_path: Path) -> None:
    manifest = write_tree(tmp_path, "colours")
    before = build_tree(tmp_path).index
    options = VerifyOptions(
        level="recompute",
        data_dir=tmp_path,
        datasets=(str(tmp_path / "mine.toml"),),
        weights="random:0",
        workers=1,
        device="cpu",
    )
    assert vocprep.verify(tmp_path / "out", options).ok
    manifest.write_text(manifest.read_text().replace('"#ff0000" = 1', '"#ff0000" = 3'))
    with pytest.raises(DataError, match=r"label_rule.table_sha256: [0-9a-f]{12}… and "):
        vocprep.verify(tmp_path / "out", options)
    with pytest.raises(UsageError, match=r"of another recipe or layout, .*label_rule.table_sha256"):
        build_tree(tmp_path)
    after = build_tree(tmp_path, if_exists="overwrite")
    assert after.index.recipe.recipe_id != before.recipe.recipe_id
    expected = label_map(0).astype(np.uint16)
    np.testing.assert_array_equal(label_maps(after)[0], np.where(expected == 1, 3, expected))


def test_orders_carry_the_segments_of_their_own_files(tmp_path: Path) -> None:
    write_tree(tmp_path, "panoptic")
    decided = plan(
        tmp_path / "mine.toml",
        data_dir=tmp_path,
        weights="random:0",
        choices=CHOICES,
        layout=Layout(samples_per_shard=1),
    )
    orders = vocprep.shard_orders(decided, tmp_path / "out", OPTIONS)
    tables = [order.label_rule.segments for order in orders]
    assert [list(table.by_path) for table in tables if table is not None] == [
        ["masks/a1.png"],
        ["masks/b2.png"],
    ]
    setup = vocprep.WorkerSetup(
        data_dir=tmp_path, out=tmp_path / "out", weights="random:0", device="cpu"
    )
    built = [vocprep.build_shard(pickle.loads(pickle.dumps(order)), setup) for order in orders]
    assert [shard.problems for shard in built] == [(), ()]


def test_processes_have_the_segments_of_all_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "WorkerPool", Here)
    write_tree(tmp_path, "panoptic")
    one, two = (
        vocprep.build(
            tmp_path / "mine.toml",
            out=tmp_path / str(count),
            data_dir=tmp_path,
            weights="random:0",
            choices=CHOICES,
            layout=Layout(samples_per_shard=1),
            options=replace(OPTIONS, processes=count),
        )
        for count in (1, 2)
    )
    assert len(Here.jobs) == 2
    assert two.index.content_id == one.index.content_id


def test_one_picture_has_one_embedding_in_every_format(tmp_path: Path) -> None:
    write_tree(tmp_path)
    ids = []
    for suffix in (".png", ".webp", ".tif", ".bmp", ".TIFF"):
        ids.append(f"c{len(ids)}")
        options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
        Image.fromarray(picture(0)).save(tmp_path / "images" / f"{ids[-1]}{suffix}", **options)
        as_png(label_map(0), tmp_path / "masks" / ids[-1])
    (tmp_path / "splits" / "train.txt").write_text("".join(f"{each}\n" for each in ids))
    dataset = build_tree(tmp_path)
    assert not dataset.quarantined
    shards = (dataset.read_shard(shard.name) for shard in dataset.index.shards)
    found = [record.embeddings.tobytes() for records in shards for record in records]
    assert len(found) == len(ids)
    assert len(set(found)) == 1
