"""A backbone is added by an entry of the table and a maker: nothing else may have to know it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from builders.versions import WEIGHTS, build
from torch import Tensor, nn

from vocprep.backbones import BACKBONES, NORMALISATIONS, Backbone, Layer
from vocprep.features.networks import MAKERS
from vocprep.geometry import Geometry
from vocprep.heads.predict import PredictOptions, predict
from vocprep.heads.runs.options import EvaluateOptions, TrainOptions
from vocprep.heads.scoring.evaluate import evaluate
from vocprep.heads.training.train import train
from vocprep.options import BuildChoices

NAME = "tiny-imagenet"


class TinyNetwork(nn.Module):
    """Two convolutions with biases, in stages of its own names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=4, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 6, 3, stride=2, padding=1)
        self.head = nn.Linear(6, 2)

    def stages(self) -> dict[str, nn.Module]:
        early = nn.Sequential(self.first, self.norm, nn.ReLU())
        return {"early": early, "late": self.second}

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages().values():
            x = stage(x)
        return self.head(x.mean(dim=(2, 3)))


@pytest.fixture(params=["patches", "whole images"])
def backbone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backbone]:
    whole = request.param == "whole images"
    layers = {"late": Layer(channels=6, cells=1), "early": Layer(channels=4, cells=2)}
    entry = Backbone(
        title="Tiny",
        citation="nobody",
        layers={"early": Layer(channels=4, cells=1)} if whole else layers,
        normalisation=NORMALISATIONS["imagenet"],
        **({"input_side": 224, "default_windows": ()} if whole else {}),
    )
    monkeypatch.setitem(BACKBONES, NAME, entry)
    monkeypatch.setitem(MAKERS, NAME, Shrinking if whole else TinyNetwork)
    return entry


class Shrinking(TinyNetwork):
    """The same for whole images: a map of 7×7 places."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 32, stride=32)


@pytest.mark.slow
def test_it_is_built_trained_evaluated_and_predicted_with(
    backbone: Backbone, sample_tree: Path, tmp_path: Path
) -> None:
    choices = BuildChoices(backbone=NAME, limit_per_split=2)
    torch.manual_seed(1)
    made = build(sample_tree, tmp_path / "shards", choices)
    torch.manual_seed(2)
    assert build(sample_tree, tmp_path / "again", choices).index.content_id == made.index.content_id
    record = next(iter(made.records.values()))
    assert record.embeddings.shape == (49, backbone.layers[backbone.default_layers[0]].size)
    assert made.index.recipe.short_name == "context460-crop224-tiny-fp32"
    assert record.embeddings.std() > 0

    run = tmp_path / "run"
    train(made.dataset, run, TrainOptions(epochs=1, encoder="none", device="cpu"))
    (scores,) = evaluate(run, made.path, options=EvaluateOptions(device="cpu")).runs
    assert scores.images == 2
    image = sample_tree / "VOCdevkit/VOC2010/JPEGImages/2010_000002.jpg"
    result = predict(run, image, options=PredictOptions(weights=WEIGHTS, device="cpu"))
    assert result.images[0].label_map.shape == (224, 224)
    citation = (made.path / "croissant.json").read_text()
    assert '"citeAs": "nobody; see the card' in citation


def test_windows_and_layers_are_those_of_its_entry(sample_tree: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patched:
        layers = {"late": Layer(channels=6, cells=1), "early": Layer(channels=4, cells=2)}
        entry = Backbone(
            title="Tiny", citation="nobody", layers=layers, normalisation=NORMALISATIONS["cifar100"]
        )
        patched.setitem(BACKBONES, NAME, entry)
        patched.setitem(MAKERS, NAME, TinyNetwork)
        choices = BuildChoices(
            backbone=NAME,
            limit_per_split=1,
            windows=(32, 64),
            layers=("early", "late"),
            geometry=Geometry(geometry="native"),
        )
        made = build(sample_tree, tmp_path / "shards", choices)
        record = next(iter(made.records.values()))
    assert record.embeddings.shape[1] == 2 * (4 * 4 + 6)
