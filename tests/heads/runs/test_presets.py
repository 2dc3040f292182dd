"""Presets of training options: shipped ones, own files, overrides, errors."""

from __future__ import annotations

import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from vocprep.errors import UsageError
from vocprep.heads.runs.options import EXECUTION, OLDER, TrainOptions
from vocprep.heads.runs.presets import (
    PRESET_FIELDS,
    differing_options,
    load_options,
    options_toml,
    preset_names,
)


def options_of_older_runs(options: TrainOptions) -> dict[str, object]:
    return {name: getattr(options, name) for name in OLDER}


def test_the_shipped_presets_are_those_of_the_docs():
    assert preset_names() == ["cells", "default", "linear", "quick", "seed", "wide"]


def test_a_preset_decides_everything_but_where_and_how():
    names = {field.name for field in fields(TrainOptions)}
    assert set(PRESET_FIELDS) == names - set(EXECUTION) - {"preset"}


def test_the_default_preset_writes_every_default_out():
    path = Path(load_options.__code__.co_filename).with_name("shipped") / "default.toml"
    # Lanes follow from the mode, cells from the embeddings, crops from ``flip``.
    expected = [name for name in PRESET_FIELDS if name not in ("lanes", "cells", "crops")]
    assert list(tomllib.loads(path.read_text())) == expected
    assert load_options("default") == TrainOptions()
    assert load_options() == load_options("cells")


def test_what_the_presets_say():
    seed, default, quick, wide = (
        load_options(name) for name in ("seed", "default", "quick", "wide")
    )
    assert (seed.position, seed.standardise, seed.flip) == (False, False, False)
    assert (seed.class_loss, seed.slots, seed.mask_loss) == ("multi_hot", "area", "all")
    assert options_of_older_runs(seed) == OLDER
    assert (default.position, default.standardise, default.flip) == (True, True, True)
    assert (default.class_loss, default.slots) == ("soft_cross_entropy", "area")
    assert (default.mask_head, default.mask_loss, default.mask_dropout) == ("slots", "mixed", 0)
    assert quick == replace(load_options("cells"), epochs=4, validate_every=4, preset="quick")
    assert wide.standardise
    assert wide.input_dropout > 0
    assert [options.preset for options in (seed, quick, wide)] == ["seed", "quick", "wide"]
    linear, cells = load_options("linear"), load_options("cells")
    assert (linear.mask_head, linear.encoder, linear.position) == ("cells", "none", False)
    for options in (cells, wide):
        assert (options.mask_head, options.encoder, options.depth) == ("cells", "transformer", 2)
        assert options.cell_context


def test_settings_lie_over_the_preset_and_overrides_over_settings():
    settings = ["encoder=spikformer", "lr = 1e-3", 'val_split=""', "clip=2", "flip=false"]
    options = load_options("quick", settings, {"lr": 0.5, "device": "cpu"})
    expected = {"encoder": "spikformer", "lr": 0.5, "val_split": "", "clip": 2.0, "flip": False}
    expected |= {"epochs": 4, "device": "cpu", "preset": "quick"}
    assert asdict(options).items() >= expected.items()
    assert isinstance(options.clip, float)


def test_a_preset_of_ones_own_by_path(tmp_path: Path):
    path = tmp_path / "mine.toml"
    path.write_text('encoder = "none"\nepochs = 3\n')
    options = load_options(str(path))
    assert (options.preset, options.encoder, options.epochs) == ("mine", "none", 3)
    assert options.lr == TrainOptions.lr


def test_a_resolved_preset_reads_back(tmp_path: Path):
    options = load_options("seed", ["encoder=none", "epochs=7", "warmup=0", "lr=1e-30"])
    path = tmp_path / "run.toml"
    path.write_text(options_toml(options))
    again = load_options(str(path))
    assert differing_options(options, again) == []
    assert again.epochs == 7


def test_the_options_of_an_older_run_read_too(tmp_path: Path):
    path = tmp_path / "recipe.toml"
    path.write_text('category_loss = "multi_hot"\n')
    assert load_options(str(path)).class_loss == "multi_hot"


def test_the_options_file_of_an_older_run_means_what_it_did(tmp_path: Path):
    path = tmp_path / "options.toml"
    lines = options_toml(TrainOptions(lr=0.1)).splitlines()
    path.write_text("\n".join(line for line in lines if line.split(" = ")[0] not in OLDER))
    found = load_options(str(path))
    assert options_of_older_runs(found) == OLDER
    assert found.lr == 0.1
    assert load_options(str(path), ["mask_loss=mixed"]).mask_loss == "mixed"


def test_differing_options_are_those_of_the_preset():
    one = TrainOptions(epochs=3, device="cpu")
    other = TrainOptions(epochs=4, lr=0.1, mode="streaming", preset="mine")
    assert differing_options(one, other) == ["epochs: 3 and 4", "lr: 0.0005 and 0.1"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("epochs", "expected KEY=VALUE"),
        ("epoch=3", "no field 'epoch': expected one of encoder, .*epochs"),
        ("device=cpu", "no field 'device'"),
        ("epochs=many", "epochs 'many': expected a whole number"),
        ("epochs=2.5", "epochs 2.5: expected a whole number"),
        ("epochs=true", "epochs True: expected a whole number"),
        ("position=1", "position 1: expected true or false"),
        ("position=yes", "position 'yes': expected true or false"),
        ("lr=true", "lr True: expected a number"),
        ("encoder=3", "encoder 3: expected one of transformer, spikformer, none"),
        ("encoder=mamba", "encoder 'mamba': expected one of transformer, spikformer, none"),
        ("epochs=0", "epochs 0: expected 1 or more"),
        ("lr=", "lr '': expected a number"),
    ],
)
def test_settings_that_cannot_be_followed(setting: str, message: str):
    with pytest.raises(UsageError, match=message):
        load_options("default", [setting])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epochs = ", "not TOML"),
        ("epochs = 'x'", "epochs 'x': expected a whole number"),
        ("layers = 3", "no field 'layers'"),
        ("[heads]\nepochs = 3", "no field 'heads'"),
    ],
)
def test_preset_files_that_cannot_be_followed(tmp_path: Path, text: str, message: str):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=message) as raised:
        load_options(str(path))
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("name", ["best", "nowhere.toml"])
def test_unknown_presets_are_named(name: str):
    with pytest.raises(UsageError, match=rf"preset .*{name}.*: "):
        load_options(name)


def test_setting_may_have_the_name_of_earlier_versions():
    assert load_options("quick", ["category_loss=multi_hot"]).class_loss == "multi_hot"


def test_the_folder_of_a_run_in_the_place_of_its_preset_is_told_the_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected one of cells, .*, or the path of a \.toml"):
        load_options(tmp_path)
    (tmp_path / "options.toml").write_text(options_toml(TrainOptions(epochs=3)))
    with pytest.raises(UsageError, match=r"; that of a run is .*/options\.toml$"):
        load_options(tmp_path)
    assert load_options(tmp_path / "options.toml").epochs == 3


def test_cells_are_a_choice_of_their_head_only():
    assert load_options("cells", ["cells=4"]).cells == 4
    with pytest.raises(UsageError, match=r"cells 2: a choice of mask_head cells, found .* slots"):
        load_options("default", ["cells=2"])
    with pytest.raises(UsageError, match="cells 3: expected one of 1, 2, 4"):
        load_options("cells", ["cells=3"])
