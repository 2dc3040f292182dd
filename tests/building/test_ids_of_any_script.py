"""Versions whose image ids are what people call their files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vocprep
from vocprep.options import BuildChoices, BuildOptions, Layout, ShardFormat, VerifyOptions

IDS = ["a", "a b", "a#b", "a/b c.d", "x%20y", "дом/кошка.1", "猫 (2)"]
"""In their order; between the views of ``a`` lie, by their characters, those of ``a b``."""


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    for number, image_id in enumerate(IDS):
        image, label = tmp_path / f"images/{image_id}.JPG", tmp_path / f"masks/{image_id}.png"
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((64, 64, 3), 30 * number, np.uint8)).save(image)
        Image.fromarray(np.full((64, 64), number, np.uint8)).save(label)
    Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(tmp_path / "images/alone.jpg")
    fields = {"title": "t", "images": "images", "labels": "masks", "label_kind": "png"}
    lines = [f'{key} = "{value}"\n' for key, value in fields.items()]
    path = tmp_path / "mine.toml"
    path.write_text("".join([*lines, 'schemas = ["voc21"]\n']))
    return path


@pytest.mark.slow
def test_both_containers_hold_them_and_every_check_passes(manifest: Path, tmp_path: Path) -> None:
    choices = BuildChoices(precision="fp32", views=("identity", "flip"))
    formats: tuple[ShardFormat, ...] = ("hdf5", "webdataset")
    for container in formats:
        built = vocprep.build(
            manifest,
            out=tmp_path / container,
            data_dir=tmp_path,
            weights="random:0",
            choices=choices,
            layout=Layout(format=container, samples_per_shard=3),
            options=BuildOptions(workers=2, device="cpu"),
        )
        assert built.notes[0] == "1 image without a label map is left out"
        options = VerifyOptions(level="content")
        assert vocprep.verify(tmp_path / container, options).ok
        version = vocprep.ShardDataset.open(tmp_path / container)
        assert [sample.id for sample in version.samples] == [
            image_id + view for image_id in IDS for view in ("", "#flip")
        ]
        for image_id in ("a#b#flip", "a/b c.d"):
            assert version.record(image_id).image_id == image_id
    assert vocprep.diff(tmp_path / "hdf5", tmp_path / "webdataset").same_content
    vocprep.lock(tmp_path / "hdf5", tmp_path / "lock.json")
    out = tmp_path / "labels"
    vocprep.decode(manifest, out=out, data_dir=tmp_path)
    names = {path.name for path in out.iterdir()} - {"labels.json"}
    assert names == {f"{i.replace('%', '%25').replace('/', '%2F')}.png" for i in IDS}
