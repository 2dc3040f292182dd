"""Runs on disk: saving, loading, overwriting, and refusal of what does not fit."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from builders.heads import as_older_run, cell_heads, make_recipe, random_records
from safetensors.torch import load_file, save_file

from vocprep.backbones import Layer
from vocprep.errors import RunError, UsageError
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.heads.model.tfdet import HeadsConfig, TFDetHeads
from vocprep.heads.runs.config import RunConfig, embedding_layers
from vocprep.heads.runs.folder import begin_or_resume, hold_folder
from vocprep.heads.runs.log import EpochMetrics, append_epoch, read_history, truncate_history
from vocprep.heads.runs.options import OLDER, TrainOptions
from vocprep.heads.runs.presets import differing_options, load_options
from vocprep.heads.runs.run import load_run
from vocprep.heads.runs.state import save_weights
from vocprep.labels.label_space import load_label_space
from vocprep.recipe import Reduction

pytestmark = pytest.mark.slow


def make_config(overwrite: bool = False, seed: int = 0) -> RunConfig:
    labels = load_label_space("voc21")
    return RunConfig(
        heads=HeadsConfig(outputs=labels.outputs),
        options=TrainOptions(**OLDER, slots="predicted", overwrite=overwrite, seed=seed),
        labels=labels,
        recipe=make_recipe({"train": random_records("train", [(1, 1)])}),
        content_id="cd" * 32,
        source_id="ef" * 32,
    )


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(1)
    config, saved = make_config(), tmp_path_factory.mktemp("runs") / "run"
    begin_or_resume(saved, config, None)
    save_weights(saved, config, TFDetHeads.from_config(config.heads), epoch=3)
    return saved


@pytest.fixture
def run_dir(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def test_round_trip(run_dir: Path):
    run = load_run(run_dir)
    assert run.config.to_json() == make_config().to_json()
    assert run.config.run_id == make_config().run_id
    assert run.epoch == 3
    assert not run.model.training
    torch.manual_seed(1)
    expected = TFDetHeads.from_config(run.config.heads).state_dict()
    found = run.model.state_dict()
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_loading_leaves_the_random_state_alone(run_dir: Path):
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    load_run(run_dir)
    assert torch.equal(torch.rand(1), expected)


def test_saved_twice_gives_the_same_bytes(run_dir: Path, tmp_path: Path):
    run = load_run(run_dir)
    begin_or_resume(tmp_path / "again", run.config, None)
    save_weights(tmp_path / "again", run.config, run.model, epoch=3)
    for name in names_in(run_dir):
        assert (tmp_path / "again" / name).read_bytes() == (run_dir / name).read_bytes()
    assert names_in(run_dir) == ["model.safetensors", "options.toml", "run.json"]


def test_a_folder_that_holds_a_run_is_refused_and_kept(run_dir: Path):
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    with pytest.raises(UsageError, match=r"found run\.json, .*model\.safetensors, .*--overwrite"):
        begin_or_resume(run_dir, make_config(seed=5), None)
    assert {path.name: path.read_bytes() for path in run_dir.iterdir()} == before


def test_overwrite_replaces_the_run_and_nothing_else(run_dir: Path):
    (run_dir / "notes.txt").write_text("mine")
    append_epoch(run_dir, metrics(1))
    begin_or_resume(run_dir, make_config(overwrite=True), None)
    assert names_in(run_dir) == ["notes.txt", "options.toml", "run.json"]


def test_what_a_killed_training_left_unfinished_is_removed(tmp_path: Path):
    """A folder among it too, which ``unlink`` does not remove."""
    run_dir = tmp_path / "run"
    (run_dir / ".tmp-01234567-tensorboard").mkdir(parents=True)
    (run_dir / ".tmp-01234567-tensorboard" / "events").write_text("torn")
    (run_dir / ".tmp-01234567-run.json").write_text("{")
    begin_or_resume(run_dir, make_config(), None)
    assert names_in(run_dir) == ["options.toml", "run.json"]


def test_a_file_in_the_place_of_the_run_is_refused(tmp_path: Path):
    (tmp_path / "run").write_text("mine")
    with (
        pytest.raises(UsageError, match="expected a folder, found the file"),
        hold_folder(tmp_path / "run", print),
    ):
        pass
    assert (tmp_path / "run").read_text() == "mine"


@pytest.mark.parametrize("made_before", [False, True])
def test_a_folder_in_which_nothing_was_begun_is_left_as_it_was(tmp_path: Path, made_before: bool):
    run_dir = tmp_path / "run"
    if made_before:
        run_dir.mkdir()
    with hold_folder(run_dir, print):
        assert names_in(run_dir) == [".lock"]
    assert run_dir.exists() == made_before
    assert not made_before or names_in(run_dir) == []


def test_a_folder_of_other_files_is_refused_untouched(tmp_path: Path):
    (tmp_path / "thesis.txt").write_text("mine")
    with (
        pytest.raises(UsageError, match=r"found 'thesis\.txt' in it"),
        hold_folder(tmp_path, print),
    ):
        pass
    assert names_in(tmp_path) == ["thesis.txt"]


def test_clutter_of_the_system_is_passed_over(tmp_path: Path):
    (tmp_path / ".DS_Store").write_text("macOS")
    with hold_folder(tmp_path, print):
        pass
    assert ".DS_Store" in names_in(tmp_path)


def test_no_run_there(tmp_path: Path):
    with pytest.raises(RunError, match=r"expected a run, .* found an empty folder; check the path"):
        load_run(tmp_path)
    with pytest.raises(RunError, match=r"expected a run, .* found nothing; check the path"):
        load_run(tmp_path / "nowhere")


def test_no_weights_yet(run_dir: Path):
    (run_dir / "model.safetensors").unlink()
    with pytest.raises(RunError, match=r"model\.safetensors: .*found no file"):
        load_run(run_dir)


@pytest.mark.parametrize("data", [b"", b"\xff" * 100, b"\x08\0\0\0\0\0\0\0{}"])
def test_weights_that_do_not_read(run_dir: Path, data: bytes):
    (run_dir / "model.safetensors").write_bytes(data)
    with pytest.raises(RunError, match=r"model\.safetensors: expected"):
        load_run(run_dir)


def test_weights_cut_short(run_dir: Path):
    path = run_dir / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(RunError, match="does not read"):
        load_run(run_dir)


def test_weights_of_another_run(run_dir: Path, tmp_path: Path):
    other = make_config(seed=9)
    begin_or_resume(tmp_path / "other", other, None)
    (tmp_path / "other" / "model.safetensors").write_bytes(
        (run_dir / "model.safetensors").read_bytes()
    )
    with pytest.raises(RunError, match=other.run_id[:12]):
        load_run(tmp_path / "other")


@pytest.mark.parametrize("about", [None, "[]", "nothing", '{"epoch": 1}'])
def test_weights_that_name_no_run(run_dir: Path, about: str | None):
    state = load_file(run_dir / "model.safetensors")
    metadata = None if about is None else {"vocprep": about}
    save_file(state, run_dir / "model.safetensors", metadata=metadata)
    with pytest.raises(RunError, match=r"model\.safetensors: expected"):
        load_run(run_dir)


def test_tensors_of_another_shape(run_dir: Path):
    config = make_config()
    save_weights(run_dir, config, TFDetHeads(outputs=7), epoch=1)
    with pytest.raises(RunError, match=r"cat\.weight: expected \[21, 256\], found \[7, 256\]"):
        load_run(run_dir)


def test_given_colours_are_kept_and_are_no_field_where_there_are_none(run_dir: Path):
    plain = make_config()
    assert sorted(plain.to_json()["labels"]) == ["name", "names", "void"]
    config = replace(plain, labels=plain.labels.with_colours({15: "#1e90ff"}))
    again = RunConfig.from_json(json.loads(json.dumps(config.to_json())))
    assert again.labels.style.colour(15) == (30, 144, 255)
    assert again.labels.names == plain.labels.names
    resuming = replace(config, options=replace(config.options, resume=True))
    resumed = begin_or_resume(run_dir, resuming, None)
    assert resumed.run_id == plain.run_id
    assert not resumed.labels.colours


def test_a_run_of_the_third_format_still_opens(run_dir: Path):
    """``format_3.json`` is as that version wrote it."""
    shutil.copy(Path(__file__).with_name("format_3.json"), run_dir / "run.json")
    run_id = sha256_hex(canonical_json(json.loads((run_dir / "run.json").read_text())))
    about = json.dumps({"run_id": run_id, "epoch": 3})
    state = load_file(run_dir / "model.safetensors")
    save_file(state, run_dir / "model.safetensors", metadata={"vocprep": about})
    config, expected = load_run(run_dir).config, make_config()
    assert config.run_id == run_id
    written = {"preset": "seed", "lanes": 1, "epochs": 60, "batch_size": 128, "lr": 3e-4}
    assert config.options == replace(expected.options, **written)
    assert config.heads == expected.heads
    assert config.to_json()["labels"] == expected.to_json()["labels"]
    assert config.recipe == expected.recipe


def test_a_run_of_the_fifth_format_still_opens(run_dir: Path):
    """It had four masks per patch only, and the transformer's own sizes."""
    before = load_run(run_dir)
    as_older_run(run_dir, 5, lambda value: None)
    heads = json.loads((run_dir / "run.json").read_text())["heads"]
    assert sorted(heads) == [
        *("class_loss", "embedding_dim", "encoder", "outputs", "position", "slots")
    ]
    after = load_run(run_dir)
    assert after.config.heads == before.config.heads
    assert after.config.options == TrainOptions(**OLDER, slots="predicted")
    assert torch.equal(after.model.reg[4].weight, before.model.reg[4].weight)


def test_masks_of_runs_of_the_sixth_format_are_taught_by_all_pixels(run_dir: Path):
    as_older_run(run_dir, 6, lambda value: value["heads"].update(norm_first=True))
    config = load_run(run_dir).config
    assert (config.heads.mask_loss, config.options.mask_loss) == ("all", "all")
    assert config.heads.norm_first
    assert TrainOptions().mask_loss == "mixed"


def test_a_run_of_cells_opens_with_its_layers(tmp_path: Path):
    config = replace(make_config(), heads=cell_heads())
    begin_or_resume(tmp_path / "run", config, None)
    saved = TFDetHeads.from_config(config.heads)
    save_weights(tmp_path / "run", config, saved, epoch=3)
    run = load_run(tmp_path / "run")
    assert run.config.heads == cell_heads()
    assert torch.equal(run.model.cells.own.linear.weight, saved.cells.own.linear.weight)


def test_an_embedding_is_the_layers_of_its_recipe():
    recipe = make_recipe({}, windows=(32, 64), layers=("layer2", "layer3"))
    layers = (Layer(channels=32, cells=4), Layer(channels=64, cells=2))
    assert embedding_layers(recipe, 1536) == (layers * 2, (32, 32, 64, 64))
    one = (Layer(channels=100, cells=1),)
    assert embedding_layers(recipe, 100) == (one, (32,))  # of another network
    reduced = replace(recipe, reduction=Reduction(kind="projection", size=100, seed=0))
    assert embedding_layers(reduced, 100) == (one, (32,))


def test_a_run_of_the_sixth_format_takes_cells_as_it_did(tmp_path: Path):
    """The cells of a larger window counted as those of the patch, and none knew those around it."""
    layers = (Layer(channels=32, cells=4), Layer(channels=32, cells=4))
    heads = cell_heads(embedding_dim=1024, layers=layers, cell_context=0)
    config = replace(make_config(), heads=heads)
    begin_or_resume(tmp_path / "run", config, None)
    save_weights(tmp_path / "run", config, TFDetHeads.from_config(heads), epoch=3)
    as_older_run(tmp_path / "run", 6, lambda value: None)
    before, run = TFDetHeads.from_config(heads), load_run(tmp_path / "run")
    assert run.config.heads == heads
    assert (heads.windows, heads.input_dropout) == ((), 0)
    before.load_state_dict(run.model.state_dict())
    new = TFDetHeads.from_config(replace(heads, windows=(32, 64)))
    new.load_state_dict(run.model.state_dict())
    given = (torch.randn(1, 6, 1024), None, torch.tensor([[2, 3]]))
    found, same, other = (model.eval()(*given)[1] for model in (run.model, before, new))
    assert torch.equal(found, same)
    assert not torch.allclose(found, other)


def test_a_run_of_the_second_format_still_opens(run_dir: Path):
    """Its factor on the dropout rates was called as if it were a rate."""

    def changes(value: dict[str, Any]) -> None:
        del value["options"]["dropout_factor"]
        value["options"] |= {"dropout": 0.5, "device": "cpu", "checkpoint_every": 3.0}
        del value["recipe"]["windows"], value["recipe"]["layers"]  # as the first of them

    as_older_run(run_dir, 2, changes)
    options = load_run(run_dir).config.options
    assert options.dropout_factor == 0.5
    again = load_options(options, ["epochs=7"])
    assert differing_options(again, replace(options, epochs=7)) == []


def test_a_run_of_the_first_format_still_opens(run_dir: Path):
    """As version 1 wrote it: without the newer fields and without statistics."""

    def changes(value: dict[str, Any]) -> None:
        for name in ("encoder", "category_loss", "slots"):
            del value["heads"][name]
        older = ("epochs", "batch_size", "lr", "weight_decay", "warmup", "clip", "seed")
        older += ("position", "train_split", "val_split", "validate_every")
        value["options"] = {name: value["options"][name] for name in older}
        value["options"] |= {"device": "cpu", "mode": "streaming", "overwrite": False}
        del value["recipe"]["windows"], value["recipe"]["layers"]

    state = load_file(run_dir / "model.safetensors")
    run_id = as_older_run(run_dir, 1, changes)
    del state["standardise.mean"], state["standardise.std"]
    about = json.dumps({"run_id": run_id, "epoch": 3})
    save_file(state, run_dir / "model.safetensors", metadata={"vocprep": about})

    run = load_run(run_dir)
    assert run.epoch == 3
    assert run.config.run_id == run_id
    assert run.config.recipe == make_config().recipe
    assert (run.config.heads.slots, run.config.options.slots) == ("area", "area")
    assert run.config.heads.class_loss == "soft_cross_entropy"
    assert not run.config.options.standardise
    assert torch.equal(run.model.standardise(torch.ones(256)), torch.ones(256))
    assert torch.equal(run.model.cat.weight, state["cat.weight"])


def test_a_missing_tensor(run_dir: Path):
    run = load_run(run_dir)
    del run.model.cat.bias
    save_weights(run_dir, run.config, run.model, epoch=1)
    with pytest.raises(RunError, match=r"tensor cat\.bias: expected \[21\], found no tensor"):
        load_run(run_dir)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ("[]", r"run\.json: expected a table, found a list; use the version"),
        ("7", "expected a table, found a whole number"),
        ('"abc"', "expected a table, found text"),
        ("1e999999", "expected finite numbers, found one that is too large"),
        ('{"run_format_version": 3, "heads": [], "options": 1, "recipe": 1}', "expected a table"),
        ("{}", "expected a field 'run_format_version'"),
        ('{"run_format_version": 99}', "expected a run_format_version from 1 to 7, found 99"),
        pytest.param(
            f'{{"run_format_version": {[0] * 20_000}}}',
            r"found \[0, [0, .]{1,40}\]; use the version",
            id="a long list",
        ),
    ],
)
def test_config_that_does_not_read(run_dir: Path, text: str, message: str):
    (run_dir / "run.json").write_text(text)
    with pytest.raises(RunError, match=message):
        load_run(run_dir)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("heads", "outputs"), 0),
        (("heads", "outputs"), 22),
        (("heads", "outputs"), 10**9),
        (("heads", "embedding_dim"), 10**9),
        (("heads", "position"), 1),
        (("heads", "width"), 3),
        (("heads", "depth"), 65),
        (("heads", "windows"), [10**400]),
        (("heads", "cell_context"), 10**9),
        (("heads", "cells"), True),
        (("options", "cells"), 2.0),
        (("options", "ema"), 1.0),
        (("options", "crops"), 1),
        (("options", "epochs"), 0),
        (("options", "epochs"), "5"),
        (("options", "epochs"), 5.0),
        (("options", "lr"), "NaN"),
        (("labels", "void"), -1),
        (("labels", "void"), "255"),
        (("labels", "names"), {"a": "cat"}),
        (("labels", "names"), 5),
        (("recipe", "geometry"), {"geometry": "round"}),
        (("recipe", "splits"), {"train": {"count": -1, "ids_sha256": ""}}),
    ],
)
def test_config_with_a_wrong_field(run_dir: Path, path: tuple[str, str], value: object):
    config = json.loads((run_dir / "run.json").read_text())
    config[path[0]][path[1]] = value
    (run_dir / "run.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"run\.json: "):
        load_run(run_dir)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("class_pixels", {"20": 1, "21": 5}, "class_pixels: id 21 is not a class of labels"),
        ("class_pixels", {"01": 5}, "'01' is no id: expected a whole number, as 1 or 20"),
        ("labels", "", "labels: expected a table"),
    ],
)
def test_config_with_a_field_that_says_nothing(
    run_dir: Path, field: str, value: object, message: str
):
    config = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**config, field: value}))
    with pytest.raises(RunError, match=rf"run\.json: .*{message}; use the version"):
        load_run(run_dir)


def test_heads_that_are_far_larger_than_their_file_are_not_made(run_dir: Path):
    config = json.loads((run_dir / "run.json").read_text())
    sizes = {"depth": 64, "feedforward": 1 << 16}  # 8 GB of weights
    config["heads"] |= sizes
    config["options"] |= sizes
    (run_dir / "run.json").write_text(json.dumps(config))
    with pytest.raises(RunError, match=r"model\.safetensors: .* 8,\d{3},\d{3},\d{3} bytes, found"):
        load_run(run_dir)
    resuming = replace(RunConfig.from_json(config).options, resume=True)
    with pytest.raises(RunError, match="copy both files from one run folder"):
        begin_or_resume(run_dir, replace(make_config(), options=resuming), None)


def test_config_of_another_kind_of_file_is_refused_at_once(run_dir: Path):
    path = run_dir / "run.json"
    text = path.read_text()
    path.write_text(text.replace("0.0005", "NaN"))
    with pytest.raises(RunError, match=r"run\.json: cannot be read as JSON"):
        load_run(run_dir)
    os.truncate(path, 5 << 30)
    with pytest.raises(RunError, match=r"5,368,709,120 bytes, where at most"):
        load_run(run_dir)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(RunError, match="a pipe, no regular file"):
        load_run(run_dir)
    with pytest.raises(UsageError, match="found another or a damaged one"):
        begin_or_resume(run_dir, make_config(overwrite=True), None)


def metrics(epoch: int) -> EpochMetrics:
    return EpochMetrics(
        epoch=epoch,
        lr=1e-4,
        loss=2.0,
        class_loss=1.5,
        mask_loss=0.5,
        images_per_second=10.0,
        seconds=1.0,
    )


def test_history_round_trip(tmp_path: Path):
    for epoch in (1, 2):
        append_epoch(tmp_path, metrics(epoch))
    assert read_history(tmp_path) == [metrics(1), metrics(2)]


def test_history_of_older_runs_is_read(tmp_path: Path):
    append_epoch(tmp_path, replace(metrics(1), val_class_loss=1.25))
    path = tmp_path / "metrics.jsonl"
    line = json.loads(path.read_text())
    old = {key: value for key, value in line.items() if not key.startswith("train_")}
    path.write_text(json.dumps(old).replace("class_loss", "category_loss"))
    assert read_history(tmp_path) == [replace(metrics(1), val_class_loss=1.25)]


def test_history_is_cut_back_to_an_epoch_torn_line_and_all(tmp_path: Path):
    for epoch in (1, 2, 3):
        append_epoch(tmp_path, metrics(epoch))
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 4, "lr"')
    assert truncate_history(tmp_path, 2) == read_history(tmp_path) == [metrics(1), metrics(2)]
    assert truncate_history(tmp_path, 0) == read_history(tmp_path) == []
    with pytest.raises(RunError, match=r"expected 2 lines, .*, found 0;"):
        truncate_history(tmp_path, 2)


LINE = json.dumps(asdict(metrics(2)))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (LINE.replace("2.0", "NaN"), "not JSON"),
        (LINE.replace("2.0", "1e999"), ""),
        (LINE.replace("2.0", '"2.0"'), "loss '2.0': expected a number"),
        (LINE.replace("2.0", "1e308"), "expected at most 1e.39"),
        (LINE.replace('"val_miou": null', '"val_miou": 1e307'), "expected at most 1"),
        (LINE.replace('"epoch": 2', '"epoch": 1'), "epoch 1: expected 2"),
        (LINE.replace('"epoch": 2', '"epoch": -2'), "epoch -2: expected 1 or more"),
        (LINE.replace('"epoch": 2', '"epoch": 2.0'), "epoch 2.0: expected a whole number"),
        (LINE.replace('"loss"', '"cost"'), ""),
        (LINE.replace("{", '{"reward": 1, ', 1), "reward: no field of this name is known"),
        ("[2]", ""),
        ("[" * 100_000, "recursion limit"),
        ("\udcff", ""),
    ],
)
def test_a_line_that_no_training_wrote_is_refused_before_anything_changes(
    tmp_path: Path, line: str, said: str
):
    for epoch in (1, 2, 3):
        append_epoch(tmp_path, metrics(epoch))
    path = tmp_path / "metrics.jsonl"
    first, _, last = path.read_text().splitlines()
    path.write_bytes("\n".join([first, line, last, ""]).encode(errors="surrogateescape"))
    before = path.read_bytes()
    for read in (read_history, lambda folder: truncate_history(folder, 3)):
        with pytest.raises(RunError, match=f"metrics.jsonl, line 2: .*{said}") as refused:
            read(tmp_path)
        assert str(refused.value).isprintable()
    assert path.read_bytes() == before
    assert truncate_history(tmp_path, 1) == [metrics(1)]


def test_a_history_of_another_kind_of_file_is_refused_at_once(tmp_path: Path):
    path = tmp_path / "metrics.jsonl"
    os.mkfifo(path)
    for read in (read_history, lambda folder: truncate_history(folder, 1)):
        with pytest.raises(RunError, match="a pipe, no regular file"):
            read(tmp_path)


def test_a_history_that_lost_its_last_line_end_goes_on_in_the_next_line(tmp_path: Path):
    for epoch in (1, 2):
        append_epoch(tmp_path, metrics(epoch))
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-1])
    truncate_history(tmp_path, 2)
    append_epoch(tmp_path, metrics(3))
    assert [item.epoch for item in read_history(tmp_path)] == [1, 2, 3]


def test_history_missing_or_broken(tmp_path: Path):
    with pytest.raises(RunError, match=r"metrics\.jsonl: cannot be read"):
        read_history(tmp_path)
    append_epoch(tmp_path, metrics(1))
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"epoch": 2, "lr"')
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 2: expected the metrics of epoch 2"):
        read_history(tmp_path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("batch_size", 0),
        ("validate_every", 0),
        ("lr", 0.0),
        ("lr", float("nan")),
        ("lr", float("inf")),
        ("clip", -1.0),
        ("weight_decay", -0.1),
        ("warmup", 1.0),
        ("seed", -1),
        ("mode", "lazy"),
        ("encoder", "mamba"),
        ("class_loss", "hinge"),
        ("slots", "random"),
        ("precision", "fp8"),
        ("dropout_factor", 2.0),
        ("dropout_factor", -0.1),
        ("checkpoint_every", -1.0),
    ],
)
def test_options_refuse_what_cannot_work(field: str, value: object):
    with pytest.raises(UsageError, match=field):
        TrainOptions(**{field: value})


def test_options_refuse_to_both_resume_and_overwrite():
    with pytest.raises(UsageError, match="resume and overwrite"):
        TrainOptions(resume=True, overwrite=True)


@pytest.mark.parametrize("field", ["encoder", "class_loss", "slots"])
def test_heads_refuse_what_means_nothing(field: str):
    with pytest.raises(UsageError, match=f"{field} 'odd': expected one of"):
        HeadsConfig(**{"outputs": 2, field: "odd"})
