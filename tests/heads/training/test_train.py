"""Training: what a run holds, what its options decide, the same bits by the same seed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from builders.heads import (
    TRAINED_HEADS,
    banded_records,
    make_dataset,
    make_two_splits,
    random_records,
)
from builders.progress import RecordedProgress
from PIL import Image
from torch import nn

import vocprep.heads.runs.options as run_options
from vocprep.errors import RunError, UsageError
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.log import EpochMetrics, read_history
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.presets import load_options
from vocprep.heads.runs.run import load_run
from vocprep.heads.runs.tracking.events import EVENTS_DIR
from vocprep.heads.scoring.evaluate import evaluate
from vocprep.heads.scoring.measures.oracles import RowKind
from vocprep.heads.scoring.run_scores import TRAIN_SPLIT_NOTE
from vocprep.heads.training.feed import ResidentFeed
from vocprep.heads.training.steps import learning_rate, parameter_groups, uses_bf16
from vocprep.heads.training.train import train
from vocprep.shards.feed.batches import Batch
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

TIMES = ("seconds", "images_per_second")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    return make_two_splits(tmp_path_factory.mktemp("data") / "shards")


def quick(**changes: object) -> TrainOptions:
    defaults = {"epochs": 2, "batch_size": 2, "device": "cpu", "validate_every": 2}
    return TrainOptions(**{**defaults, **changes})


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def lines_but_for_times(run_dir: Path) -> list[dict[str, object]]:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [{key: v for key, v in line.items() if key not in TIMES} for line in lines]


def test_a_run_holds_what_the_design_says(dataset: ShardDataset, tmp_path: Path):
    seen: list[EpochMetrics] = []
    summary = train(dataset, tmp_path / "run", quick(epochs=3), seen.append)
    names = {path.name for path in (tmp_path / "run").iterdir() if path.is_file()} - {".lock"}
    assert names == {"curves.png", "metrics.jsonl", "model.safetensors", "options.toml", "run.json"}
    assert seen == list(summary.history) == read_history(tmp_path / "run")
    assert [metrics.epoch for metrics in seen] == [1, 2, 3]
    assert [metrics.val_miou is not None for metrics in seen] == [False, True, True]
    assert all(metrics.images_per_second > 0 for metrics in seen)
    assert summary.final.loss == summary.final.class_loss + summary.final.mask_loss
    assert summary.images == 3
    assert {(metrics.device, metrics.precision) for metrics in seen} == {("cpu", summary.precision)}
    run = load_run(tmp_path / "run")
    assert run.epoch == 3
    assert run.config.recipe == dataset.index.recipe
    assert run.config.content_id == dataset.index.content_id
    assert run.config.heads.outputs == 21
    assert run.config.heads.embedding_dim == 256
    assert summary.parameters == sum(p.numel() for p in run.model.parameters())
    text = (tmp_path / "run" / "run.json").read_text()
    assert str(tmp_path) not in text


def test_a_user_of_the_library_gets_what_the_command_writes(dataset: ShardDataset, tmp_path: Path):
    path = tmp_path / "tiny.toml"
    path.write_text('encoder = "none"\nepochs = 1\nprecision = "fp32"\n')
    progress = RecordedProgress()
    summary = train(str(dataset.path), str(tmp_path / "run"), str(path), progress=progress)
    notes = progress.lines
    assert notes == [f"no mirrored views in {dataset.path}: build-shards --views flip makes them"]
    assert summary.notes == tuple(notes)
    with Image.open(tmp_path / "run" / "curves.png") as curves:
        curves.load()
    assert load_run(str(tmp_path / "run")).config.options.preset == "tiny"
    value = json.loads(json.dumps(summary.to_json()))
    assert value["history"] == [asdict(metrics) for metrics in summary.history]
    assert (value["run"], value["notes"]) == (str(tmp_path / "run"), notes)


@pytest.mark.parametrize(
    ("mode", "read"),
    [
        ("resident", [("reading train", 1), ("reading val", 1), ("reading train", 1)]),
        ("streaming", [("means of the embeddings", 1)]),
    ],
)
def test_all_that_may_take_long_is_reported(
    dataset: ShardDataset, tmp_path: Path, mode: str, read: list[tuple[str, int]]
):
    progress = RecordedProgress()
    train(dataset, tmp_path / "run", quick(epochs=3, mode=mode), progress=progress)
    epochs = [(f"epoch {number} of 3", 2) for number in (1, 2, 3)]
    validations = [(f"validation after epoch {number}", 2) for number in (2, 3)]
    expected = [*read, *epochs[:2], validations[0], epochs[2], validations[1]]
    assert progress.begun == [(name, total, 0) for name, total in expected]
    assert progress.shown == sum(total for _, total in expected)
    assert len(progress.threads) == 1


def test_same_seed_same_bits_and_another_seed_others(dataset: ShardDataset, tmp_path: Path):
    torch.manual_seed(1)
    train(dataset, tmp_path / "one", quick(seed=3))
    torch.manual_seed(2)
    train(dataset, tmp_path / "two", quick(seed=3))
    train(dataset, tmp_path / "other", quick(seed=4))
    one, two, other = (load_run(tmp_path / name).model for name in ("one", "two", "other"))
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name
    assert not torch.equal(one.cat.weight, other.cat.weight)
    assert lines_but_for_times(tmp_path / "one") == lines_but_for_times(tmp_path / "two")
    assert lines_but_for_times(tmp_path / "one") != lines_but_for_times(tmp_path / "other")


def test_scoring_on_the_way_changes_nothing_in_the_weights(dataset: ShardDataset, tmp_path: Path):
    train(dataset, tmp_path / "often", quick(validate_every=1))
    train(dataset, tmp_path / "never", quick(val_split=""))
    often, never = (load_run(tmp_path / name).model.cat.weight for name in ("often", "never"))
    assert torch.equal(often, never)


def test_without_a_val_split_training_names_the_other_splits(tmp_path: Path):
    records = {name: random_records(name, [(1, 1)]) for name in ("train", "valid")}
    made = make_dataset(tmp_path / "shards", records)
    summary = train(made, tmp_path / "run", quick(encoder="none", flip=False))
    assert summary.notes[0].endswith("keeps the last epoch; --val-split chooses another of valid")


@pytest.mark.parametrize(("name", "mode"), [("train", "resident"), ("all", "streaming")])
def test_without_a_val_split_training_says_so_and_goes_on(tmp_path: Path, name: str, mode: str):
    made = make_dataset(tmp_path / "shards", {name: random_records(name, [(1, 2), (1, 1)])})
    progress = RecordedProgress()
    chosen = quick(encoder="none", flip=False, mode=mode)
    summary = train(made, tmp_path / "run", chosen, progress=progress)
    said = (
        f"no split 'val' in {made.path}: the heads are trained on {name!r} without validation, and "
        "the run keeps the last epoch"
    )
    assert progress.lines == list(summary.notes) == [said]
    assert {metrics.val_miou for metrics in summary.history} == {None}
    run = load_run(tmp_path / "run")
    assert run.epoch == chosen.epochs
    assert (run.config.options.train_split, run.config.options.val_split) == (name, "")
    scores = evaluate(run, made).runs[0]
    assert scores.split == name
    assert TRAIN_SPLIT_NOTE in scores.notes


@pytest.mark.parametrize(
    ("splits", "train_split", "val_split"),
    [
        ({"train", "val"}, "train", "val"),
        ({"train", "test"}, "train", ""),
        ({"training"}, "training", ""),
        ({"val"}, "train", "val"),  # what heads are scored on is not trained on unless it is named
        ({"left", "right"}, "train", ""),
    ],
)
def test_splits_that_were_not_named_follow_the_version(
    splits: set[str], train_split: str, val_split: str
):
    found = run_options.fit_splits(TrainOptions(), splits)
    assert (found.train_split, found.val_split) == (train_split, val_split)
    named = TrainOptions(train_split="left", val_split="right")
    assert run_options.fit_splits(named, splits) == named


@pytest.mark.parametrize("splits", [["val"], ["left", "right"]])
def test_what_to_train_on_is_named_where_it_is_not_plain(tmp_path: Path, splits: list[str]):
    made = make_dataset(tmp_path / "shards", {n: random_records(n, [(1, 1)]) for n in splits})
    with pytest.raises(UsageError, match=f"train_split 'train': expected one of {splits[0]}"):
        train(made, tmp_path / "run", quick())


def test_mirrored_views_are_learnt_from_and_not_scored(tmp_path: Path):
    record = random_records("train", [(1, 1)])[0]
    views = [record, replace(record, image_id=f"{record.image_id}#flip")]
    made = make_dataset(tmp_path / "shards", {"train": views}, views=("identity", "flip"))
    summary = train(made, tmp_path / "run", quick(epochs=1, val_split="train"))
    assert summary.images == 2
    assert evaluate(load_run(tmp_path / "run"), made, "train").runs[0].images == 1


def test_every_epoch_has_an_order_of_its_own(
    dataset: ShardDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    epochs: list[int] = []
    batches = ResidentFeed.batches

    def recorded(self: ResidentFeed, epoch: int) -> Iterator[Batch]:
        epochs.append(epoch)
        return batches(self, epoch)

    monkeypatch.setattr(ResidentFeed, "batches", recorded)
    train(dataset, tmp_path / "run", quick(epochs=2))
    assert epochs == [1, 2]


@pytest.mark.parametrize("name", TRAINED_HEADS)
def test_a_streamed_split_teaches_the_same_bits(dataset: ShardDataset, tmp_path: Path, name: str):
    for mode in ("resident", "streaming"):
        train(dataset, tmp_path / mode, quick(mode=mode, **TRAINED_HEADS[name]))
    one, two = (load_run(tmp_path / mode).model.state_dict() for mode in ("resident", "streaming"))
    assert all(torch.equal(tensor, two[name]) for name, tensor in one.items())


def test_embeddings_are_standardised_by_the_train_split_unless_told_not_to(
    dataset: ShardDataset, tmp_path: Path
):
    train(dataset, tmp_path / "on", quick(epochs=1, encoder="none"))
    train(dataset, tmp_path / "off", quick(epochs=1, encoder="none", standardise=False))
    records = dataset.read_shard(dataset.shard_names("train")[0])
    patches = np.concatenate([record.embeddings for record in records]).astype(np.float64)
    on, off = (load_run(tmp_path / name).model.standardise for name in ("on", "off"))
    np.testing.assert_allclose(on.mean.numpy(), patches.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(on.std.numpy(), patches.std(axis=0), rtol=1e-5)
    assert (off.mean.unique().item(), off.std.unique().item()) == (0, 1)


def test_the_options_decide_the_heads(dataset: ShardDataset, tmp_path: Path):
    options = quick(epochs=1, encoder="none", class_loss="multi_hot", slots="area", position=False)
    train(dataset, tmp_path / "run", options)
    run = load_run(tmp_path / "run")
    found = run.model.config
    assert (found.encoder, found.class_loss, found.slots) == ("none", "multi_hot", "area")
    assert not found.position
    assert run.config.options == replace(options, device="auto", lanes=1)


def test_embeddings_of_another_size_are_trained_on(tmp_path: Path):
    records = random_records("train", [(1, 2), (2, 2)])
    wide = [
        replace(record, embeddings=np.tile(record.embeddings, 2)[:, :300]) for record in records
    ]
    made = make_dataset(tmp_path / "shards", {"train": wide})
    train(made, tmp_path / "run", quick(epochs=1, val_split="train"))
    assert load_run(tmp_path / "run").model.project.weight.shape == (256, 300)


def test_mirrored_views_can_be_left_out(tmp_path: Path):
    record = random_records("train", [(1, 1)])[0]
    views = [record, replace(record, image_id=f"{record.image_id}#flip")]
    made = make_dataset(tmp_path / "shards", {"train": views}, views=("identity", "flip"))
    options = quick(epochs=1, val_split="", flip=False, encoder="none")
    assert train(made, tmp_path / "run", options).images == 1


def test_dropout_is_what_the_factor_says(dataset: ShardDataset, tmp_path: Path):
    losses = []
    changes = {"mask_dropout": 0.4, "val_split": "", "lr": 1e-30, "overwrite": True}
    for dropout in (0.0, 0.0, 1.0):
        options = quick(epochs=1, dropout_factor=dropout, **changes)
        losses.append(train(dataset, tmp_path / "run", options).final.loss)
    assert losses[0] == losses[1] != losses[2]
    untrained = load_run(tmp_path / "run").model
    parts = [p.p for p in untrained.modules() if isinstance(p, nn.Dropout)]
    assert {0.1, 0.4} == set(parts)


def test_bf16_is_the_precision_of_the_products_only(dataset: ShardDataset, tmp_path: Path):
    found = {}
    for precision in ("fp32", "bf16"):
        summary = train(
            dataset, tmp_path / precision, quick(precision=precision, dropout_factor=0.0)
        )
        assert summary.precision == precision
        found[precision] = summary.final.loss
        state = load_run(tmp_path / precision).model.state_dict()
        assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert found["bf16"] != found["fp32"]
    assert found["bf16"] == pytest.approx(found["fp32"], rel=0.02)


def test_precision_is_chosen_by_the_hardware_only_when_not_told():
    cpu = torch.device("cpu")
    assert uses_bf16("bf16", cpu)
    assert not uses_bf16("fp32", cpu)
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    if hasattr(torch.cpu, "get_capabilities") and flags:
        assert uses_bf16("auto", cpu) == ("avx512_bf16" in flags)


@pytest.mark.parametrize("mask_head", ["slots", "cells", "none"])
def test_spiking_heads_of_every_kind_learn_and_report_their_rates(tmp_path: Path, mask_head: str):
    made = make_dataset(tmp_path / "shards", {"train": banded_records("train", 3)})
    options = quick(encoder="spikformer", mask_head=mask_head, val_split="", epochs=10, lr=2e-3)
    first, *_, final = train(made, tmp_path / "run", options).history
    assert final.class_loss < 0.7 * first.class_loss
    assert final.spike_rates is not None
    assert len(final.spike_rates) == 29
    assert all(0 <= rate <= 1 for rate in final.spike_rates.values())
    assert final.spike_rates["te.lif"] > 0
    assert read_history(tmp_path / "run")[-1] == final


def test_heads_without_spikes_have_no_rates(dataset: ShardDataset, tmp_path: Path):
    assert train(dataset, tmp_path / "none", quick(encoder="none")).final.spike_rates is None


def test_events_hold_the_curves_where_tensorboard_is_installed(
    dataset: ShardDataset, tmp_path: Path
):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator", exc_type=ImportError
    )
    history = train(dataset, tmp_path / "run", quick(encoder="none")).history
    events = accumulator.EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    losses = [(event.step, event.value) for event in events.Scalars("loss")]
    assert losses == [(m.epoch, pytest.approx(m.loss)) for m in history]
    assert [event.step for event in events.Scalars("val_miou")] == [2]


def test_gradients_are_clipped(dataset: ShardDataset, tmp_path: Path):
    # Far below AdamW's epsilon, so that a clipped step moves nothing.
    train(dataset, tmp_path / "run", quick(clip=1e-30, weight_decay=0.0))
    run = load_run(tmp_path / "run")
    torch.manual_seed(0)
    initial = TFDetHeads.from_config(run.config.heads).cat.weight
    torch.testing.assert_close(run.model.cat.weight, initial, atol=1e-7, rtol=0)


def test_decay_pulls_on_matrices_only():
    heads = TFDetHeads(outputs=5)
    matrices, vectors = parameter_groups(heads, weight_decay=0.3)
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    counted = sum(p.numel() for group in (matrices, vectors) for p in group["params"])
    assert counted == sum(p.numel() for p in heads.parameters())
    named = {id(p): name for name, p in heads.named_parameters()}
    assert all("weight" in named[id(p)] for p in matrices["params"])
    assert all("bias" in named[id(p)] or "norm" in named[id(p)] for p in vectors["params"])


def test_the_callers_random_state_is_left_alone(dataset: ShardDataset, tmp_path: Path):
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    train(dataset, tmp_path / "run", quick(epochs=1))
    assert torch.equal(torch.rand(1), expected)


def test_the_loop_learns_a_tiny_dataset_by_heart(tmp_path: Path):
    dataset = make_dataset(tmp_path / "shards", {"train": banded_records("train", 3)})
    options = quick(
        epochs=40, lr=5e-4, batch_size=3, val_split="", validate_every=100, dropout_factor=0.5
    )
    summary = train(dataset, tmp_path / "run", options)
    assert summary.final.val_miou is None
    assert summary.final.mask_loss < 0.3 * summary.history[0].mask_loss
    (scores,) = evaluate(load_run(tmp_path / "run"), dataset, "train").runs
    model, oracle, majority = map(scores.row, (RowKind.MODEL, RowKind.GT_TOP_4, RowKind.MAJORITY))
    assert oracle.pixel_accuracy == 1
    assert model.pixel_accuracy > 0.95
    assert model.miou_present > 0.9
    assert majority.pixel_accuracy < 0.5


def test_a_folder_that_holds_a_run_is_refused_and_kept(dataset: ShardDataset, tmp_path: Path):
    run_dir = tmp_path / "run"
    train(dataset, run_dir, quick(epochs=1))
    old_curves = (run_dir / "curves.png").read_bytes()
    before = contents(run_dir)
    with pytest.raises(UsageError, match="expected a folder without a run"):
        train(dataset, run_dir, quick())
    with pytest.raises(UsageError, match="val_split 'test'"):
        train(dataset, run_dir, quick(overwrite=True, val_split="test"))
    assert contents(run_dir) == before
    train(dataset, run_dir, quick(epochs=1, seed=1, overwrite=True))
    assert len(read_history(run_dir)) == 1
    assert load_run(run_dir).config.options.seed == 1
    assert (run_dir / "curves.png").read_bytes() != old_curves


@pytest.mark.parametrize("text", ['{"tool": "mine"}', "[1, 2]", "not JSON"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_the_run_of_another_tool_is_left_alone(
    dataset: ShardDataset, tmp_path: Path, text: str, overwrite: bool
):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    for name in ("options.toml", "metrics.jsonl", "model.safetensors"):
        (run_dir / name).write_text("mine")
    (run_dir / "run.json").write_text(text)
    before = contents(run_dir)
    with pytest.raises(UsageError, match="expected one that `vocprep train` wrote"):
        train(dataset, run_dir, quick(overwrite=overwrite))
    with pytest.raises(UsageError, match="expected one that `vocprep train` wrote"):
        train(dataset, run_dir, quick(resume=True))
    assert contents(run_dir) == before


def test_replacing_a_run_leaves_what_is_not_its_own(dataset: ShardDataset, tmp_path: Path):
    run_dir = tmp_path / "run"
    train(dataset, run_dir, quick(epochs=1))
    (run_dir / EVENTS_DIR).mkdir(exist_ok=True)
    own = [run_dir / "notes.txt", run_dir / EVENTS_DIR / "notes.txt"]
    event = run_dir / EVENTS_DIR / "events.out.tfevents.1"
    for path in (*own, event):
        path.write_text("mine")
    train(dataset, run_dir, quick(epochs=1, overwrite=True))
    assert [path.read_text() for path in own] == ["mine", "mine"]
    assert not event.exists()


@pytest.mark.parametrize("option", ["train_split", "val_split"])
def test_a_missing_split_is_named(dataset: ShardDataset, tmp_path: Path, option: str):
    with pytest.raises(UsageError, match=f"{option} 'test': expected one of train, val"):
        train(dataset, tmp_path / "run", quick(**{option: "test"}))
    assert not (tmp_path / "run").exists()


def test_cells_do_not_learn_by_the_seeds_rules(dataset: ShardDataset, tmp_path: Path):
    options = load_options("seed", ["mask_head=cells"], {"device": "cpu"})
    with pytest.raises(UsageError, match="expected class_loss soft_cross_entropy, found multi_h"):
        train(dataset, tmp_path / "run", options)
    assert not (tmp_path / "run").exists()


def test_a_missing_device_is_named(dataset: ShardDataset, tmp_path: Path):
    with pytest.raises(UsageError, match="device 'tpu9'"):
        train(dataset, tmp_path / "run", quick(device="tpu9"))
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path):
    records = random_records("train", [(1, 1)])
    records[0].embeddings[:] = float("nan")
    dataset = make_dataset(tmp_path / "shards", {"train": records})
    with pytest.raises(RunError, match="expected a finite loss in epoch 1, found nan"):
        train(dataset, tmp_path / "run", quick(val_split=""))
    assert not (tmp_path / "run" / "model.safetensors").exists()


def test_learning_rate_rises_to_the_peak_and_falls_to_nothing():
    options = TrainOptions(lr=0.1, warmup=0.2)
    rates = [learning_rate(step, 100, options) for step in range(100)]
    assert rates[0] == pytest.approx(0.1 / 20)
    assert rates[19] == rates[20] == pytest.approx(0.1)
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)
    assert 0 < rates[-1] < 0.001
    assert rates[60] == pytest.approx(0.05)
    flat = TrainOptions(lr=0.1, warmup=0.0)
    assert learning_rate(0, 1, flat) == 0.1


def test_every_option_has_its_words():
    source = Path(run_options.__file__).read_text()
    for field in fields(TrainOptions):
        _, after = source.split(f"    {field.name}: ", 1)
        assert after.split("\n")[1].lstrip().startswith('"""'), field.name
