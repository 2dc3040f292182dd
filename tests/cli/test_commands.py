"""Each command: its help, options, output and JSON."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from builders.verbs import build_words
from click.testing import Result
from PIL import Image
from safetensors.numpy import load_file

from vocprep.cli.main import main
from vocprep.geometry import Geometry
from vocprep.heads.runs.options import EXECUTION, TrainOptions
from vocprep.heads.runs.presets import PRESET_FIELDS
from vocprep.heads.runs.tracking.events import EVENTS_DIR
from vocprep.options import BuildChoices, BuildOptions, Layout

pytestmark = pytest.mark.slow

Run = Callable[..., Result]
COMMANDS = sorted(main.commands)


def assert_done(result: Result) -> str:
    assert result.exit_code == 0, result.output
    return result.stdout


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


# All commands


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example_of_itself(name: str, vocprep: Run) -> None:
    text = assert_done(vocprep(name, "--help"))
    assert "Example:" in text
    example = text[text.index("Example:") :]
    assert f"vocprep {name}" in example


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_can_be_understood_from_its_help_or_its_name(name: str) -> None:
    command = main.commands[name]
    assert command.get_short_help_str()
    for option in command.params:
        if isinstance(option, click.Option):
            flag = option.opts[0]
            assert flag.startswith("--")
            assert flag == flag.lower()
            assert "_" not in flag
            assert option.help or option.show_default, f"{name} {flag}"


def test_examples_in_the_help_parse() -> None:
    """Every example line names a command and options that it has."""
    for name in COMMANDS:
        help_text = main.commands[name].help or ""
        lines = [line.split() for line in help_text.splitlines()]
        lines = [words for words in lines if words[:1] == ["vocprep"]]
        assert lines, name
        for _, verb, *words in lines:
            command = main.commands[verb]
            with command.make_context(verb, words) as context:
                assert context.params


@pytest.mark.parametrize("words", [[], ["--help"]])
def test_program_alone_lists_every_command(words: list[str], vocprep: Run) -> None:
    result = vocprep(*words)
    for name in COMMANDS:
        assert name in result.output


def test_unknown_command_and_option_are_usage_errors(vocprep: Run) -> None:
    for words in (["nonsense"], ["inspect", "--nonsense"], ["build-shards"]):
        result = vocprep(*words)
        assert result.exit_code == 2
        assert "Traceback" not in result.stderr


def defaults_of(name: str) -> dict[str, Any]:
    """What a command gets when it is called with its arguments and --out alone."""
    with main.commands[name].make_context(name, ["x", "--out", "y"]) as context:
        return context.params


def test_options_of_build_shards_are_the_fields_with_their_defaults() -> None:
    found = defaults_of("build-shards")
    found["format"] = found.pop("shard_format")
    for options in (BuildChoices(), Layout(), BuildOptions(), Geometry()):
        for field in fields(options):
            if isinstance(options, BuildChoices) and field.name in ("geometry", "views"):
                continue  # in parts, and without the identity that is always there
            assert found.pop(field.name) == getattr(options, field.name), field.name
    assert set(found) == {
        *("dataset", "data_dir", "out", "weights", "views", "lock", "dry_run", "as_json"),
    }


def test_options_of_train_are_fields_with_their_defaults() -> None:
    """Flags that say where and how have the field's default, those over the recipe none."""
    options, found = TrainOptions(), defaults_of("train")
    for name in set(found) - {"shards", "out", "as_json", "seeds", "sweep", "settings", "weights"}:
        expected = getattr(options, name)
        over = (*PRESET_FIELDS, "preset")
        assert found[name] == (None if name in over else expected), name
    assert set(EXECUTION) <= set(found)
    assert found["settings"] == ()


# build-shards and inspect


def test_dry_run_prints_the_plan_and_writes_nothing(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    before = sorted(sample_tree.rglob("*"))
    text = assert_done(vocprep(*build_words(sample_tree, tmp_path / "out", "--dry-run")))
    assert "samples  4\n" in text
    assert "patches  196\n" in text
    assert "train-00001-of-00002.h5" in text
    assert "untrained (random:0)" in text
    assert "nothing was written" in text
    assert list(tmp_path.iterdir()) == []
    assert sorted(sample_tree.rglob("*")) == before


def test_dry_run_says_what_the_build_makes(
    shards: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = build_words(sample_tree, tmp_path / "out", "--dry-run", "--json")
    plan = json.loads(assert_done(vocprep(*words)))
    index = json.loads((shards / "dataset.json").read_text())
    assert plan["recipe_id"] == index["recipe_id"]
    assert plan["patches"] == sum(shard["patches"] for shard in index["shards"])
    assert plan["samples"] == sum(shard["records"] for shard in index["shards"])
    assert [shard["name"] for shard in plan["shards"]] == [s["name"] for s in index["shards"]]
    size = sum(shard["bytes"] for shard in index["shards"])
    assert plan["estimated_bytes"] == pytest.approx(size, rel=0.25)


def test_json_of_build_shards_and_inspect_is_the_index(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    built = json.loads(assert_done(vocprep(*build_words(sample_tree, out, "--json"))))
    assert built.pop("notes") == []
    did = built.pop("build")
    assert (did["images"], did["made"], did["reused"], did["published"]) == (4, 4, 0, True)
    assert did["shards"] == {"made": 4, "resumed": 0, "kept": 0}
    assert did["stage_seconds"] == built["statistics"]["seconds"]
    assert 0 < did["stage_seconds"]["write"] < did["seconds"]
    assert built == json.loads((out / "dataset.json").read_text())
    inspected = json.loads(assert_done(vocprep("inspect", out, "--json")))
    assert {name: inspected[name] for name in built} == built
    assert inspected["short_id"] == f"context460-crop224-resnet32-exact@{built['content_id'][:12]}"


def test_inspect_shows_the_identities(shards: Path, vocprep: Run) -> None:
    index = json.loads((shards / "dataset.json").read_text())
    inspected = assert_done(vocprep("inspect", shards))
    for name in ("recipe_id", "source_id", "content_id"):
        assert index[name] in inspected
    assert f"context460-crop224-resnet32-exact@{index['content_id'][:12]}" in inspected
    assert "untrained (random:0)" in inspected
    embedding = f"embed {index['statistics']['seconds']['embed']:.1f}, "
    assert embedding in inspected
    for shard in index["shards"]:
        assert shard["name"] in inspected
        assert shard["sha256"][:12] in inspected
    assert "torch" in inspected


def test_build_with_every_choice_of_content(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = build_words(
        *(sample_tree, tmp_path / "out", "--splits", "val", "--schema", "context59"),
        *("--geometry", "native", "--edge", "pad", "--views", "flip"),
        *("--embedding-dtype", "float32", "--format", "webdataset", "--json"),
    )
    index = json.loads(assert_done(vocprep(*words)))
    recipe = index["recipe"]
    assert list(recipe["splits"]) == ["val"]
    assert recipe["schema"]["name"] == "context59"
    assert recipe["geometry"] == {"geometry": "native", "edge": "pad"}
    assert recipe["views"] == ["identity", "flip"]
    assert recipe["embedding_dtype"] == "float32"
    assert index["container"] == "webdataset"
    assert [shard["records"] for shard in index["shards"]] == [2, 2]


def test_own_dataset_manifest_is_taken_by_path(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    own = tmp_path / "own.toml"
    own.write_text(
        'title = "Mine"\nimages = "VOCdevkit/VOC2010/JPEGImages"\n'
        'labels = "VOCdevkit/VOC2010/SegmentationClass"\nlabel_kind = "png"\n'
        'split_files = "VOCdevkit/VOC2010/ImageSets/Main"\nsplits = ["val"]\nschemas = ["voc21"]\n'
    )
    words = ["--data-dir", sample_tree, "--out", tmp_path / "out", "--weights", "random:0"]
    index = json.loads(assert_done(vocprep("build-shards", own, *words, "--json")))
    assert index["recipe"]["dataset"] == "own"
    assert index["recipe"]["schema"]["name"] == "voc21"


def test_data_dir_may_come_from_the_environment(
    sample_tree: Path, tmp_path: Path, vocprep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOCPREP_DATA_DIR", str(sample_tree))
    words = ["--out", tmp_path / "out", "--weights", "random:0", "--dry-run"]
    assert "samples  12\n" in assert_done(vocprep("build-shards", "pascal-context", *words))


# decode


def test_decode_writes_16_bit_maps_statistics_and_a_chart(
    sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    out, chart = tmp_path / "out", tmp_path / "charts" / "labels.png"
    words = ["--data-dir", sample_tree, "--out", out, "--splits", "val"]
    text = assert_done(vocprep("decode", "pascal-context", *words, "--chart", chart))
    assert "2 label maps in label space context460" in text
    assert files(out) == ["2010_000002.png", "2010_000008.png", "labels.json"]
    with Image.open(out / "2010_000002.png") as label_map:
        assert label_map.mode == "I;16"
        assert np.asarray(label_map).max() < 460
    with Image.open(chart) as picture:
        picture.load()
    found = json.loads(assert_done(vocprep("decode", "pascal-context", *words, "--json")))
    assert found.pop("notes") == []
    assert found == json.loads((out / "labels.json").read_text())
    assert found["images"] == 2
    assert (
        sum(item["pixels"] for item in found["classes"]) + found["void_pixels"] == found["pixels"]
    )


# train, evaluate, predict


def test_train_leaves_a_run_with_curves(run: Path) -> None:
    expected = ["curves.png", "metrics.jsonl", "model.safetensors", "options.toml", "run.json"]
    expected.append("weights.json")
    assert [name for name in files(run) if name != EVENTS_DIR] == expected
    with Image.open(run / "curves.png") as picture:
        picture.load()


def test_json_of_train_and_evaluate_parses(shards: Path, tmp_path: Path, vocprep: Run) -> None:
    out = tmp_path / "run"
    words = ["--epochs", 1, "--device", "cpu", "--batch-size", 1, "--no-position", "--json"]
    trained = json.loads(assert_done(vocprep("train", shards, "--out", out, *words)))
    assert trained["run"] == str(out)
    stored = load_file(out / "model.safetensors")
    trainable = [found for name, found in stored.items() if "standardise" not in name]
    assert trained["parameters"] == sum(found.size for found in trainable)
    assert [epoch["epoch"] for epoch in trained["history"]] == [1]
    assert trained["history"][0]["val_miou"] is not None
    options = json.loads((out / "run.json").read_text())["options"]
    assert (options["batch_size"], options["position"]) == (1, False)
    assert (options["preset"], options["mask_head"]) == ("cells", "cells")

    words = ["--device", "cpu", "--json"]
    scores = json.loads(assert_done(vocprep("evaluate", out, shards, *words)))
    assert [row["name"] for row in scores["rows"]][:2] == ["model", "GT top-4"]
    assert scores["split"] == "val"
    assert scores["images"] == 2
    trained_scores = trained["history"][0]
    assert scores["rows"][0]["miou_present"] == pytest.approx(trained_scores["val_miou"])


def test_train_says_what_of_the_data_matters_to_its_scores(
    shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = ["--epochs", 1, "--set", "encoder=none", "--val-split", "train"]
    plain = vocprep("train", shards, "--out", tmp_path / "plain", *words)
    assert "val scores are of the split that is trained on" in plain.stderr
    assert "no mirrored views in" in plain.stderr
    words = ["--epochs", 1, "--set", "encoder=none", "--set", "flip=false"]
    assert "note" not in vocprep("train", shards, "--out", tmp_path / "no-flip", *words).stderr


def test_train_says_what_resuming_came_to(shards: Path, tmp_path: Path, vocprep: Run) -> None:
    words = ["--epochs", 2, "--set", "encoder=none", "--checkpoint-every", 0, "--out"]
    whole, out = tmp_path / "whole", tmp_path / "run"
    new = vocprep("train", shards, *words, whole, "--resume")
    assert "nothing to resume in" in new.stderr
    assert "2 epochs in" in assert_done(new)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("vocprep.cli.train.print_epoch", _interrupt)
        often = ["--validate-every", 1]
        stopped = vocprep("train", shards, *words, out, *often)
    assert stopped.exit_code == 130
    assert "the same command with --resume continues" in stopped.stderr
    # Its own options need no repeating.
    gone_on = assert_done(vocprep("train", shards, "--out", out, "--resume"))
    assert "1 epoch, resumed after 1 epoch, in" in gone_on
    found, expected = (load_file(path / "model.safetensors") for path in (out, whole))
    assert all(np.array_equal(found[name], tensor) for name, tensor in expected.items())


def _interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


def test_train_with_a_preset_and_settings(shards: Path, tmp_path: Path, vocprep: Run) -> None:
    out, again = tmp_path / "run", tmp_path / "again"
    words = ["--preset", "seed", "--set", "encoder=spikformer", "--set", "slots=predicted"]
    text = assert_done(vocprep("train", shards, "--out", out, *words, "--epochs", 1))
    assert "te.blocks.3.contract.lif" in text
    options = json.loads((out / "run.json").read_text())["options"]
    expected = {"preset": "seed", "encoder": "spikformer", "slots": "predicted", "epochs": 1}
    expected |= {"class_loss": "multi_hot", "position": False, "standardise": False}
    assert options.items() >= expected.items()
    words = ["--preset", out / "options.toml", "--json"]
    trained = json.loads(assert_done(vocprep("train", shards, "--out", again, *words)))
    assert (again / "options.toml").read_text().splitlines()[1:] == (
        (out / "options.toml").read_text().splitlines()[1:]
    )
    assert len(trained["history"][0]["spike_rates"]) == 29


def test_train_resumes_a_finished_run_by_saying_what_it_came_to(
    run: Path, shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "run"
    shutil.copytree(run, out)
    before = (out / "model.safetensors").read_bytes()
    words = ["--epochs", 1, "--device", "cpu", "--resume"]
    said = vocprep("train", shards, "--out", out, *words)
    assert assert_done(said) == f"{out}: finished before, after 1 epoch\n"
    assert (out / "model.safetensors").read_bytes() == before


def test_evaluate_prints_the_model_beside_its_oracles_and_chance(
    run: Path, shards: Path, vocprep: Run
) -> None:
    text = assert_done(vocprep("evaluate", run, shards, "--device", "cpu", "--classes"))
    rows = [line.split("  ")[0] for line in text.splitlines()]
    for expected in (
        *("model", "GT top-4", "GT classes, model masks", "model classes, GT masks"),
        "GT majority of each patch",
    ):
        # Pixels of 459 classes and of 59, and what is scored of borders, masks and patches.
        assert rows.count(expected) == 3, expected
    for expected in (
        *("chance", "majority of train", "of 459 classes present", "of 59 classes present"),
        *("mIoU all 459", "mIoU all 59", "mIoU ≥1 %", "mask IoU", "macro mAP", "worst images"),
        *("recall@4 says little", "whole images are not scored"),
    ):
        assert expected in text, expected
    assert "IoU GT top-4" in text
    words = ["--device", "cpu", "--worst", 0]
    text = assert_done(vocprep("evaluate", run, shards, *words))
    assert "IoU GT top-4" not in text
    assert "worst images" not in text


def test_evaluate_scores_whole_images_with_the_data_dir(
    run: Path, shards: Path, sample_tree: Path, vocprep: Run
) -> None:
    words = ["--device", "cpu", "--data-dir", sample_tree]
    text = assert_done(vocprep("evaluate", run, shards, *words))
    assert "context460, whole image: " in text
    assert "whole images are not scored" not in text
    value = json.loads(assert_done(vocprep("evaluate", run, shards, *words, "--json")))
    areas = [(table["schema"], table["area"]) for table in value["tables"]]
    assert areas == [
        ("context460", "whole image"),
        ("context59", "covered area"),
        ("context59", "whole image"),
    ]
    whole, covered = value["tables"][0], value["pixels"]
    assert whole["pixels"] > covered
    # What is left out is wrong: hits stay, pixels grow.
    for row, inside in zip(whole["rows"], value["rows"], strict=True):
        expected = inside["pixel_accuracy"] * covered / whole["pixels"]
        assert row["pixel_accuracy"] == pytest.approx(expected)


def test_evaluate_of_several_runs_is_one_table(
    run: Path, shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    other = tmp_path / "other"
    shutil.copytree(run, other)
    words = ["evaluate", run, other, shards, "--device", "cpu"]
    text = assert_done(vocprep(*words, "--classes"))
    lines = text.splitlines()
    assert sum(line.startswith(f"{run.name} (epoch 1)") for line in lines) == 1
    assert sum(line.startswith("other (epoch 1)") for line in lines) == 1
    assert f"IoU {run.name}  IoU other" in text
    # In the main table, in that of borders, masks and patches, and in that of context59.
    assert sum(line.startswith(("GT top-4", "GT majority", "chance: w")) for line in lines) == 9
    (head,) = [n for n, line in enumerate(lines) if line.startswith("mIoU ≥1 %  ")]
    assert lines[head].split("  ")[1].strip() == "model"
    assert "GT classes, model masks  model classes, GT masks" in lines[head]
    assert [line.split()[0] for line in lines[head + 1 : head + 3]] == [run.name, "other"]
    one, two = json.loads(assert_done(vocprep(*words, "--json")))
    assert (one["run"], two["run"]) == (run.name, "other")
    assert one["rows"] == two["rows"]


def test_evaluate_scores_each_run_on_the_shards_that_fit_it(
    run: Path, shards: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = ["--data-dir", sample_tree, "--limit-per-split", 2, "--device", "cpu"]
    weights = ["--weights", "random:1"]
    assert_done(
        vocprep("build-shards", "pascal-context", *words, *weights, "--out", tmp_path / "s1")
    )
    quick = ["--epochs", 1, "--set", "encoder=none", "--out", tmp_path / "r1"]
    assert_done(vocprep("train", tmp_path / "s1", *quick))
    alone = json.loads(assert_done(vocprep("evaluate", tmp_path / "r1", tmp_path / "s1", "--json")))

    paths = [run, tmp_path / "r1", shards, tmp_path / "s1"]
    _, second = json.loads(assert_done(vocprep("evaluate", *paths, "--json")))
    assert {**second, "difference": None} == {**alone, "difference": None}
    paths = [shards, run, tmp_path / "r1", tmp_path / "s1"]
    assert "2 runs on split val" in assert_done(vocprep("evaluate", *paths))

    unfit = vocprep("evaluate", tmp_path / "r1", shards, shards)
    assert (unfit.exit_code, "weights_sha256" in unfit.stderr) == (3, True)
    for wrong in ([run], [shards, shards]):
        refused = vocprep("evaluate", *wrong)
        assert refused.exit_code == 2
        assert "at least one run and the shards" in refused.stderr


def test_evaluate_does_not_compare_runs_on_other_pictures(
    run: Path, shards: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = [
        "--data-dir",
        sample_tree,
        "--limit-per-split",
        1,
        "--device",
        "cpu",
        "--weights",
        "random:1",
    ]
    assert_done(vocprep("build-shards", "pascal-context", *words, "--out", tmp_path / "s1"))
    quick = ["--epochs", 1, "--set", "encoder=none", "--out", tmp_path / "r1"]
    assert_done(vocprep("train", tmp_path / "s1", *quick))
    compared = vocprep("evaluate", run, tmp_path / "r1", shards, tmp_path / "s1")
    assert (compared.exit_code, compared.stdout) == (2, "")
    assert "expected the images, geometry and labels of" in compared.stderr


def test_evaluate_draws_and_writes_the_confusion_matrix(
    run: Path, shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    out = tmp_path / "out"
    words = ["evaluate", run, shards, "--device", "cpu", "--out", out, "--json"]
    value = json.loads(assert_done(vocprep(*words)))
    assert files(out) == [f"{run.name}.confusion.csv", f"{run.name}.confusion.png"]
    with Image.open(out / f"{run.name}.confusion.png") as picture:
        picture.load()
    lines = (out / f"{run.name}.confusion.csv").read_text().splitlines()[1:]
    assert sum(int(line.split(",")[2]) for line in lines) == value["pixels"]


def test_runs_of_one_name_are_told_apart_and_one_run_counts_once(
    run: Path, shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    other = tmp_path / "elsewhere" / run.name
    shutil.copytree(run, other)
    one, two = json.loads(assert_done(vocprep("evaluate", run, other, shards, "--json")))
    assert (one["run"], two["run"]) == (str(run), str(other))
    assert (
        json.loads(assert_done(vocprep("evaluate", run, run, shards, "--json")))["run"] == run.name
    )
    assert "on split val" in assert_done(vocprep("evaluate", shards, run))


def test_a_data_dir_without_the_label_maps_is_told_at_once(
    run: Path, shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    refused = vocprep("evaluate", run, shards, "--data-dir", tmp_path)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "found no such folder; give the data dir of the build" in refused.stderr


def test_runs_of_one_name_do_not_overwrite_each_others_matrices(
    run: Path, shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    other = tmp_path / "elsewhere" / run.name
    shutil.copytree(run, other)
    words = ["--device", "cpu", "--out", tmp_path / "out"]
    result = vocprep("evaluate", run, other, shards, *words)
    assert result.exit_code == 2
    assert str(other) in result.stderr
    assert not (tmp_path / "out").exists()


def test_predict_finds_the_weights_of_the_run(
    run: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    image = sample_tree / "VOCdevkit/VOC2010/JPEGImages/2010_000002.jpg"
    words = ["--out", tmp_path / "out", "--data-dir", tmp_path, "--device", "cpu"]
    assert_done(vocprep("predict", run, image, *words))


def test_predict_draws_an_overlay_and_a_label_map_a_picture(
    run: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    folder = sample_tree / "VOCdevkit/VOC2010/JPEGImages"
    holiday = tmp_path / "my holiday.png"
    Image.new("RGB", (300, 260), "green").save(holiday)
    words = ["--out", tmp_path / "out", "--weights", "random:0", "--device", "cpu"]
    text = assert_done(vocprep("predict", run, folder / "2010_000002.jpg", holiday, *words))
    assert files(tmp_path / "out") == [
        "2010_000002.labels.png",
        "2010_000002.overlay.png",
        "my holiday.labels.png",
        "my holiday.overlay.png",
    ]
    assert text.splitlines() == [
        str(tmp_path / "out" / f"{name}.overlay.png") for name in ("2010_000002", "my holiday")
    ]
    with Image.open(tmp_path / "out" / "my holiday.labels.png") as labels:
        assert (labels.mode, labels.size) == ("I;16", (224, 224))
        assert np.asarray(labels).max() < 460
    with Image.open(tmp_path / "out" / "my holiday.overlay.png") as sheet:
        assert sheet.width > 2 * 224


def test_predict_writes_the_confidence_too(run: Path, tmp_path: Path, vocprep: Run) -> None:
    Image.new("RGB", (300, 260), "green").save(tmp_path / "wide.png")
    words = ["--weights", "random:0", "--device", "cpu", "--confidence", "--json"]
    text = assert_done(vocprep("predict", run, tmp_path / "wide.png", "--out", tmp_path, *words))
    (made,) = json.loads(text)["images"]
    with Image.open(made["confidence"]) as confidence, Image.open(made["labels"]) as labels:
        assert (confidence.mode, confidence.size) == ("L", labels.size)


def test_predict_labels_every_pixel_in_native_geometry(
    run: Path, tmp_path: Path, vocprep: Run
) -> None:
    Image.new("RGB", (301, 90), "green").save(tmp_path / "wide.png")
    words = ["--out", tmp_path / "out", "--weights", "random:0", "--device", "cpu"]
    assert_done(vocprep("predict", run, tmp_path / "wide.png", *words, "--geometry", "native"))
    with Image.open(tmp_path / "out" / "wide.labels.png") as labels:
        assert labels.size == (301, 90)
    assert_done(vocprep("predict", run, tmp_path / "wide.png", *words, "--geometry", "crop"))
    with Image.open(tmp_path / "out" / "wide.labels.png") as labels:
        assert labels.size == (224, 224)


def test_pictures_of_one_name_do_not_overwrite_each_other(
    run: Path, tmp_path: Path, vocprep: Run
) -> None:
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png"]
    for path in paths:
        path.parent.mkdir()
        Image.new("RGB", (256, 256)).save(path)
    words = ["--out", tmp_path / "out", "--weights", "random:0", "--device", "cpu"]
    result = vocprep("predict", run, *paths, *words)
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert str(paths[1]) in result.stderr
    assert not (tmp_path / "out").exists()


def test_sample_says_what_it_made_and_repeats_itself(tmp_path: Path, vocprep: Run) -> None:
    words = ["sample", tmp_path / "data", "--images", 2, "--seed", 3]
    text = assert_done(vocprep(*words))
    assert "2 images (1 train, 1 val)" in text
    assert assert_done(vocprep(*words)) == text


def test_json_of_predict_says_what_was_made(
    run: Path, sample_tree: Path, tmp_path: Path, vocprep: Run
) -> None:
    picture = sample_tree / "VOCdevkit/VOC2010/JPEGImages/2010_000002.jpg"
    words = ["--out", tmp_path / "out", "--weights", "random:0", "--device", "cpu", "--json"]
    value = json.loads(assert_done(vocprep("predict", run, picture, *words)))
    (made,) = value["images"]
    assert (value["ok"], value["errors"], made["image"]) == (True, [], str(picture))
    with Image.open(made["labels"]) as labels:
        ids, counts = np.unique(np.asarray(labels), return_counts=True)
    expected = dict(zip(ids.tolist(), counts.tolist(), strict=True))
    assert {item["id"]: item["pixels"] for item in made["classes"]} == expected
    assert sum(item["percent"] for item in made["classes"]) == pytest.approx(100)
    assert all(item["name"] for item in made["classes"])
    assert Path(made["overlay"]).is_file()


def test_json_of_predict_lists_the_images_that_failed(
    run: Path, tmp_path: Path, vocprep: Run
) -> None:
    bad = tmp_path / "bad.jpg"
    bad.write_text("no image")
    words = ["--out", tmp_path / "out", "--weights", "random:0", "--json"]
    result = vocprep("predict", run, bad, *words)
    value = json.loads(result.stdout)
    assert (result.exit_code, value["ok"], value["images"]) == (3, False, [])
    assert value["errors"][0]["image"] == str(bad)
    assert result.stderr == f"error: {value['errors'][0]['error']}\n"
