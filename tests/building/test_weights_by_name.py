"""A network of timm whose weights were downloaded by name: build, training, prediction, check."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.hub import FIRST, REPOSITORY, publish
from builders.mirror import Mirror
from builders.verbs import invoke
from safetensors.torch import save

from vocprep.building.local import build
from vocprep.errors import SourceUnavailableError
from vocprep.features.weights.untrained import untrained_weights
from vocprep.options import BuildChoices
from vocprep.shards.index import read_index

timm = pytest.importorskip("timm")
NAME = "timm:test_vit"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    with Mirror({}) as mirror:
        publish(mirror, save(untrained_weights("random:1", timm.create_model("test_vit"))))
        monkeypatch.setenv("HF_ENDPOINT", mirror.url())
        yield mirror


def test_a_build_without_them_names_the_download(sample_tree: Path, tmp_path: Path) -> None:
    path = sample_tree / "weights/timm/test_vit.safetensors"
    expected = (
        f"^{path}: backbone weights are not there; run: vocprep download {NAME} --data-dir "
        f"{sample_tree}, or give --weights PATH, or --weights random:0 for an untrained backbone$"
    )
    choices = BuildChoices(backbone=NAME, limit=2)
    with pytest.raises(SourceUnavailableError, match=expected):
        build("pascal-context", data_dir=sample_tree, out=tmp_path / "out", choices=choices)


@pytest.mark.slow
def test_from_the_name_to_a_prediction(hub: Mirror, tree: Path, tmp_path: Path) -> None:
    data, out, run = ("--data-dir", tree), tmp_path / "out", tmp_path / "run"
    device, lock = ("--device", "cpu"), tmp_path / "a.lock.json"
    assert invoke("download", NAME, *data).exit_code == 0
    asked = len(hub.requests)
    built = invoke(
        *("build-shards", "pascal-context", *data, "--out", out, "--limit", 2, *device),
        *("--backbone", NAME),
    )
    assert built.exit_code == 0, built.output
    label = f"official {REPOSITORY}, revision {FIRST[:12]}"
    assert read_index(out).weights == label
    card = (out / "README.md").read_text()
    assert label in card
    assert "Weights of timm:test_vit: apache-2.0." in card
    checked = invoke("verify", out, "--level", "recompute", *data, *device)
    assert checked.exit_code == 0, checked.output

    assert invoke("inspect", out, "--lock", lock).exit_code == 0
    again = invoke("build-shards", "--lock", lock, *data, "--out", tmp_path / "again", *device)
    assert again.exit_code == 0, again.output

    trained = ("--set", "epochs=1", "--set", "encoder=none", *device)
    assert invoke("train", out, "--out", run, *trained).exit_code == 0
    image = sorted((tree / "VOCdevkit/VOC2010/JPEGImages").iterdir())[0]
    predict = ("predict", run, image, "--out", tmp_path / "found", *device)
    assert invoke(*predict).exit_code == 0  # the file is found by the run's hint
    (run / "weights.json").unlink()
    elsewhere = invoke(*predict, "--data-dir", tmp_path)
    assert elsewhere.exit_code == 4
    assert "or give --weights PATH: those of tensor digest" in elsewhere.output
    assert f"vocprep download {NAME}" in elsewhere.output
    assert invoke(*predict, *data).exit_code == 0
    assert len(hub.requests) == asked
    shutil.rmtree(tree / "weights")
    gone = invoke("build-shards", "--lock", lock, *data, "--out", tmp_path / "third")
    assert (gone.exit_code, f"run: vocprep download {NAME}" in gone.output) == (4, True)
