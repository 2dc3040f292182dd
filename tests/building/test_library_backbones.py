"""Versions over a network of a library: identities, and everything that is done with them later."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
from builders.networks import CONVOLUTIONS, NATIVE, TOKENS_16
from builders.versions import ENGINE, WEIGHTS, Built, build, first_jpeg, make_plan, version_files

import vocprep
from vocprep.building.describe import describe_plan
from vocprep.building.local import build_plan
from vocprep.building.orders import ShardOrder, refuse_unfit
from vocprep.building.plan import BuildKey
from vocprep.errors import UsageError
from vocprep.features.devices import choose_devices, numerics_class
from vocprep.heads.predict import PredictOptions
from vocprep.heads.runs.options import EvaluateOptions, TrainOptions
from vocprep.options import BuildChoices, VerifyOptions

TWO = BuildChoices(backbone=TOKENS_16, limit_per_split=2)


@pytest.fixture(scope="module")
def built(sample_tree: Path, tmp_path_factory: pytest.TempPathFactory) -> Built:
    return build(sample_tree, tmp_path_factory.mktemp("library") / "shards", TWO)


@pytest.fixture
def without_timm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)


def test_the_recipe_says_what_must_be_known_without_the_library(built: Built) -> None:
    recipe = built.index.recipe
    assert recipe.short_name == "context460-crop224-test_vit-final-fp32"
    assert recipe.embedding_size == 256
    network = recipe.to_json()["network"]
    assert network == {
        "library": f"timm {timm.__version__}",
        "source_sha256": None,
        "config": {
            **{"architecture": "test_vit", "tag": "r160_in1k", "num_classes": 1000},
            **{"input_size": [3, 160, 160], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
            "arguments": {},
        },
        "layers": {"final": {"channels": 64, "cells": 2}},
        "patch_pixels": 32,
        "takes_patches": False,
    }
    assert recipe.normalisation.mean == (0.5, 0.5, 0.5)


def test_the_same_choices_give_the_same_recipe_and_others_another(sample_tree: Path) -> None:
    def id_of(**choices: object) -> str:
        chosen = replace(BuildChoices(backbone=CONVOLUTIONS, limit_per_split=2), **choices)  # type: ignore[arg-type]
        return make_plan(sample_tree, chosen).recipe.recipe_id

    one = id_of(layers=("blocks.4", "blocks.3"))
    assert id_of(layers=("-1", "3"), cells=2) == one
    others = [
        id_of(layers=("blocks.4", "blocks.3"), cells=1),
        id_of(layers=("blocks.3", "blocks.4")),
        id_of(layers=("blocks.4", "blocks.3"), normalisation="cifar100"),
        id_of(),
    ]
    assert len({one, *others}) == 5


def test_windows_exact_and_cells_of_built_in_ones_are_refused(sample_tree: Path) -> None:
    for choices, expected in (
        ({"backbone": TOKENS_16, "windows": (32,)}, "takes the whole image; leave --windows out"),
        ({"backbone": TOKENS_16, "precision": "exact"}, "'exact' is not defined for timm:test_vit"),
        ({"cells": 2}, "resnet32-cifar100 has cells of its own; leave --cells out"),
        ({"backbone": "timm:"}, "or timm:NAME, torchvision:NAME or FILE.py:FUNCTION"),
    ):
        with pytest.raises(UsageError, match=expected):
            make_plan(sample_tree, BuildChoices(limit_per_split=1, **choices))  # type: ignore[arg-type]


def test_long_embeddings_are_warned_of_with_their_bytes(sample_tree: Path, built: Built) -> None:
    assert describe_plan(built.plan).warning is None
    choices = BuildChoices(backbone=CONVOLUTIONS, limit_per_split=1, layers=("blocks.0",), cells=16)
    warning = describe_plan(make_plan(sample_tree, choices)).warning
    assert warning is not None
    # 16 channels of 16×16 cells, as float16, of 49 patches
    assert warning.startswith("4,096 numbers per patch, more than 2,048: 401,408 bytes per picture")


def test_a_worker_with_another_release_of_the_library_is_refused(built: Built) -> None:
    devices = choose_devices("cpu")
    key = BuildKey(plan=built.plan, numerics_class=numerics_class(devices, "simplejpeg", "fp32"))
    order = ShardOrder.of(key, built.plan.shards[0], "simplejpeg", compiled=False)
    refuse_unfit(order, devices)
    assert order.recipe.network is not None
    older = replace(order.recipe, network=replace(order.recipe.network, library="timm 0.1"))
    with pytest.raises(UsageError, match=r"library: 'timm 0\.1' and 'timm 1"):
        refuse_unfit(replace(order, recipe=older, recipe_id=older.recipe_id), devices)


@pytest.mark.slow
def test_it_is_built_again_reused_recomputed_and_locked(
    sample_tree: Path, built: Built, tmp_path: Path
) -> None:
    again = build(sample_tree, tmp_path / "again", TWO)
    assert version_files(again.path).keys() == version_files(built.path).keys()
    assert again.index.content_id == built.index.content_id
    options = replace(ENGINE, reuse=built.path)
    assert build_plan(make_plan(sample_tree, TWO), tmp_path / "reused", options).reused == 4
    checked = vocprep.verify(
        built.path, VerifyOptions(level="recompute", data_dir=sample_tree, device="cpu")
    )
    assert all(not report.differences for report in checked.reports)
    vocprep.lock(built.path, tmp_path / "lock.json")
    result = vocprep.build_locked(
        tmp_path / "lock.json", out=tmp_path / "locked", data_dir=sample_tree, options=ENGINE
    )
    assert result.index.content_id == built.index.content_id  # type: ignore[union-attr]
    other = build(sample_tree, tmp_path / "other", replace(TWO, cells=1))
    found = vocprep.diff(built.path, other.path)
    assert any(
        "network.layers.final.cells: 2 and 1" in line for line in map(str, [found.to_json()])
    )


@pytest.mark.slow
def test_versions_and_runs_are_used_where_timm_is_not_installed(
    sample_tree: Path, built: Built, tmp_path: Path, without_timm: None
) -> None:
    run = tmp_path / "run"
    vocprep.train(built.path, run, TrainOptions(epochs=1, encoder="none", device="cpu"))
    (scores,) = vocprep.evaluate(run, built.path, options=EvaluateOptions(device="cpu")).runs
    assert scores.images == 2
    checked = vocprep.verify(built.path, VerifyOptions(level="content"))
    assert all(not report.differences for report in checked.reports)
    assert vocprep.inspect(built.path).to_json()
    vocprep.report(built.path, out=tmp_path / "report.html")
    assert "test_vit" in (tmp_path / "report.html").read_text()
    assert "timm:test_vit" in (built.path / "README.md").read_text()
    cited = (built.path / "croissant.json").read_text()
    assert f'"citeAs": "test_vit (timm {timm.__version__}); see the card' in cited
    expected = r"backbone 'timm:test_vit' needs the extra timm: run pip install 'vocprep\[timm\]'"
    with pytest.raises(UsageError, match=expected):
        vocprep.predict(run, first_jpeg(sample_tree), options=PredictOptions(device="cpu"))
    with pytest.raises(UsageError, match=expected):
        build(sample_tree, tmp_path / "again", TWO)


@pytest.mark.slow
def test_native_pictures_are_built_and_predicted(sample_tree: Path, tmp_path: Path) -> None:
    choices = BuildChoices(backbone=TOKENS_16, limit_per_split=2, geometry=NATIVE, cells=1)
    made = build(sample_tree, tmp_path / "shards", choices)
    grids = {record.grid for record in made.records.values()}
    assert all(record.embeddings.shape[1] == 64 for record in made.records.values())
    assert len(grids) > 1
    run = tmp_path / "run"
    vocprep.train(made.path, run, TrainOptions(epochs=1, encoder="none", device="cpu"))
    options = PredictOptions(weights=WEIGHTS, device="cpu")
    result = vocprep.predict(run, first_jpeg(sample_tree), options=options)
    assert result.images[0].label_map.size > 0
