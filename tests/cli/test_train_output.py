"""What ``vocprep train`` prints while it trains."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from builders.heads import make_dataset, random_records
from click.testing import Result

from vocprep.cli.time_left import TimeLeft, seconds_left
from vocprep.cli.train_lines import print_epoch
from vocprep.heads.runs.log import EpochMetrics
from vocprep.heads.runs.options import TrainOptions

Run = Callable[..., Result]
QUICK = ("--set", "encoder=none", "--device", "cpu")


VAL = {"val_loss": 1.2, "val_miou": 0.089, "val_pixel_accuracy": 1.0}


def metrics(epoch: int, seconds: float, **scores: float) -> EpochMetrics:
    losses = {"loss": 1.5, "class_loss": 1.0, "mask_loss": 0.5}
    return EpochMetrics(
        epoch=epoch, lr=1e-4, images_per_second=54.4, seconds=seconds, **losses, **scores
    )


@pytest.mark.slow
def test_every_epoch_has_a_line(shards: Path, tmp_path: Path, vocprep: Run) -> None:
    words = ("--epochs", 3, "--validate-every", 2, *QUICK)
    result = vocprep("train", shards, "--out", tmp_path / "run", *words)
    assert result.exit_code == 0, result.output
    *epochs, last = result.stdout.splitlines()
    speed = r"loss \d+\.\d{3} +[\d,]+ images/s"
    scores = r"train/val loss \d+\.\d{3}/\d+\.\d{3}  mIoU .{11}  pixel accuracy +\d+\.\d/\d+\.\d"
    left = r" +\d+(\.\d)? s left"
    expected = [
        rf"epoch 1 of 3  {speed}{left}",
        rf"epoch 2 of 3  {speed}{left}",
        rf" {{14}}{scores}",
        rf"epoch 3 of 3  {speed}",
        rf" {{14}}{scores}",
    ]
    for line, pattern in zip(epochs, expected, strict=True):
        assert re.fullmatch(pattern, line), line
    for word in ("images/s", "mIoU"):
        assert len({line.index(word) for line in epochs if word in line}) == 1
    assert ", 3 epochs in " in last


@pytest.mark.slow
def test_epochs_that_are_not_validated_have_lines_too(
    shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    words = ("--epochs", 2, "--val-split", "", *QUICK)
    result = vocprep("train", shards, "--out", tmp_path / "run", *words)
    lines = result.stdout.splitlines()
    assert [line[:13] for line in lines[:2]] == ["epoch 1 of 2 ", "epoch 2 of 2 "]
    assert lines[1].endswith("images/s")


@pytest.mark.slow
def test_json_is_all_that_is_printed_of_it(shards: Path, tmp_path: Path, vocprep: Run) -> None:
    words = ("--epochs", 2, "--json", *QUICK)
    result = vocprep("train", shards, "--out", tmp_path / "run", *words)
    assert [epoch["epoch"] for epoch in json.loads(result.stdout)["history"]] == [1, 2]
    assert all(line.startswith("note: ") for line in result.stderr.splitlines())


@pytest.mark.slow
def test_one_split_of_any_name_is_trained_on_scored_and_reported(
    tmp_path: Path, vocprep: Run
) -> None:
    shards, run = tmp_path / "shards", tmp_path / "run"
    make_dataset(shards, {"pictures": random_records("pictures", [(1, 2), (1, 1)])})
    trained = vocprep("train", shards, "--out", run, "--epochs", 1, "--json", *QUICK)
    assert trained.exit_code == 0, trained.output
    (note, *_) = json.loads(trained.stdout)["notes"]
    assert note.startswith(f"no split 'val' in {shards}: the heads are trained on 'pictures' with")
    assert f"note: {note}" in trained.stderr.splitlines()
    scored = vocprep("evaluate", run, shards, "--json", "--device", "cpu")
    assert json.loads(scored.stdout)["split"] == "pictures"
    page = tmp_path / "run.html"
    assert vocprep("report", run, shards, "--out", page, "--device", "cpu").exit_code == 0
    assert "was trained without validation" in page.read_text()
    assert "Scored on split pictures" in page.read_text()
    refused = vocprep("evaluate", run, shards, "--split", "val")
    assert "split 'val': expected one of pictures, the dataset's splits" in refused.stderr


def _history(*seconds: float) -> Iterator[list[EpochMetrics]]:
    trained: list[EpochMetrics] = []
    for number, each in enumerate(seconds, start=1):
        trained.append(metrics(number, each))
        yield trained


def test_time_left_follows_both_kinds_of_epochs() -> None:
    options = TrainOptions(epochs=6, validate_every=3)
    left = [seconds_left(trained, options) for trained in _history(2, 4, 10, 3, 3, 8)]
    # Before the first validation, one is taken to be as long as the epochs without.
    assert left == pytest.approx([10, 12, 2 * 3 + 10, 3 + 10, 10, 0])


def test_time_left_is_that_of_the_latest_epochs() -> None:
    """The first epoch may be one in which the step is compiled."""
    options = TrainOptions(epochs=100, validate_every=100)
    *_, trained = _history(90, *[1.0] * 10)
    assert seconds_left(trained, options) == pytest.approx(89)


def test_time_left_of_a_resumed_training_is_of_what_was_trained_now() -> None:
    options = TrainOptions(epochs=10, validate_every=10)
    assert seconds_left([metrics(8, 5.0)], options) == pytest.approx(10)


@pytest.mark.parametrize(
    ("epoch", "epochs", "left", "scores", "expected"),
    [
        (7, 60, 2_500.0, {}, "epoch  7 of 60  loss 1.500      54 images/s  42 min left"),
        (
            *(60, 60, 0.0, VAL),
            "epoch 60 of 60  loss 1.500      54 images/s\n"
            "                val loss 1.200  mIoU 8.9    pixel accuracy 100.0",
        ),
        (
            *(60, 60, 0.0, {**VAL, "train_loss": 1.0, "train_pixel_accuracy": 0.5}),
            "epoch 60 of 60  loss 1.500      54 images/s\n"
            "                train/val loss 1.000/1.200  mIoU     -/8.9    "
            "pixel accuracy  50.0/100.0",
        ),
    ],
)
def test_lines_of_epochs(  # their columns stand below one another
    epoch: int,
    epochs: int,
    left: float,
    scores: dict[str, Any],
    expected: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    print_epoch(metrics(epoch, 1.0, **scores), epochs, left)
    assert capsys.readouterr().out == f"{expected}\n"


def test_time_left_of_several_runs_is_that_of_all_together(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    left = TimeLeft(epochs=4, runs=3, on_one_pass=False)
    now = 106.0
    assert left.after(0, 1) == pytest.approx(11 * 6)
    # Seed 7 is resumed after two epochs: 8 are left of all, two came in 6 seconds.
    assert left.after(7, 3) == pytest.approx(8 * 3)


@pytest.mark.slow
def test_lines_of_several_seeds_tell_whose_they_are(
    shards: Path, tmp_path: Path, vocprep: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vocprep.heads.training.seeds.usable_cores", lambda: 1)
    out, words = tmp_path / "out", ("--epochs", 1, *QUICK)
    result = vocprep("train", shards, "--out", out, "--seeds", "0, 10", *words)
    assert result.exit_code == 0, result.output
    *epochs, _, _, last = result.stdout.splitlines()
    assert [line[:24] for line in epochs] == [
        "seed  0  epoch 1 of 1  l",
        "seed  0                t",
        "seed 10  epoch 1 of 1  l",
        "seed 10                t",
    ]
    assert last.startswith(f"{out}: 2 runs in ")
    more = vocprep("train", shards, "--out", out, "--seeds", "0,10,2", "--resume", "--json")
    assert more.exit_code == 0, more.output
    result_json = json.loads(more.stdout)
    assert result_json["seeds"] == [0, 10, 2]
    assert [run["resumed_from"] for run in result_json["runs"]] == [1, 1, 0]
    assert result_json["runs"][2]["run"] == str(out / "seed-2")
    assert json.loads((out / "seed-2" / "run.json").read_text())["options"]["epochs"] == 1


@pytest.mark.parametrize("more", [("--seed", 1), ("--set", "seed = 1")])
def test_a_seed_and_seeds_are_refused(tmp_path: Path, vocprep: Run, more: tuple[Any, ...]) -> None:
    result = vocprep("train", tmp_path, "--out", tmp_path / "out", "--seeds", "0,1", *more)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        "error: seed and seeds: expected one of them; leave --seed out, or --seeds\n"
    )


@pytest.mark.parametrize("bad", ["", "0,", "a", "0-2", "-1", "1e3", "9" * 20])
def test_bad_lists_of_seeds_are_refused(tmp_path: Path, vocprep: Run, bad: str) -> None:
    result = vocprep("train", tmp_path, "--out", tmp_path / "out", "--seeds", bad)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith(f"error: seeds {bad!r}: expected whole numbers from 0 with")


def test_a_sweep_ends_with_the_table_of_its_values(
    shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    out, words = tmp_path / "out", ("--epochs", 2, "--val-split", "train", *QUICK)
    words += ("--set", "validate_every=2")
    result = vocprep("train", shards, "--out", out, "--sweep", "weight_decay=0, 0.05", *words)
    assert result.exit_code == 0, result.output
    *epochs, head, one, other, last = result.stdout.splitlines()
    assert [line[:32] for line in epochs] == [
        "weight_decay    0  epoch 1 of 2 ",  # of the others only what is validated
        "weight_decay    0  epoch 2 of 2 ",
        "weight_decay    0               ",
        "weight_decay 0.05  epoch 2 of 2 ",
        "weight_decay 0.05               ",
    ]
    assert head.split("  ")[0] == "weight_decay"
    assert [line.split()[0] for line in (one, other)] == ["0", "0.05"]
    table = json.loads((out / "sweep.json").read_text())
    assert [line.endswith("  best") for line in (one, other)] == [
        row["value"] == table["best"] for row in table["rows"]
    ]
    assert last.startswith(f"{out}: 2 runs in ")
    assert f"the best by val mIoU is weight_decay {table['best']:g}; this table is in " in last
    words = ("--sweep", "weight_decay=0,0.05,1", "--resume", "--json")
    more = json.loads(vocprep("train", shards, "--out", out, *words).stdout)
    assert [run["resumed_from"] for run in more["runs"]] == [2, 2, 0]
    assert [row["value"] for row in more["rows"]] == [0, 0.05, 1]
    scored = vocprep("evaluate", out, shards, "--split", "train", "--device", "cpu", "--json")
    names = [each["run"] for each in json.loads(scored.stdout)]
    assert names == ["weight_decay-0", "weight_decay-0.05", "weight_decay-1"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ("epochs=1,2",),
            "sweep 'epochs=1,2': expected OPTION=VALUE,VALUE… with an option of weig",
        ),
        (("lr",), "sweep 'lr': expected numbers with commas between them, such as lr=0.01,0.1"),
        (("lr=0.1,",), "sweep 'lr=0.1,': expected numbers with commas between them"),
        (("lr=0.1,0.1",), "sweep of lr: expected values, each once, found '0.1, 0.1'"),
        (("lr=0.1,-1",), "lr -1.0: expected more than 0"),
        (("lr=0.1,nan",), "values[1] nan: expected a finite number"),
        (
            ("clip=" + ",".join(map(str, range(101))),),
            "sweep of clip: expected 100 values at most, found 101; divide them between",
        ),
        (("lr=1", "--lr", 1), "lr and sweep: expected one of them; leave --lr out, or --sweep"),
        (
            ("clip=1,2", "--set", "clip=3"),
            "clip and sweep: expected one of them; leave --set clip out, or --sweep",
        ),
        (("lr=1,2", "--seeds", "0,1"), "seeds and sweep: expected one of them; choose a value by"),
    ],
)
def test_bad_sweeps_are_refused(
    tmp_path: Path, vocprep: Run, words: tuple[Any, ...], expected: str
) -> None:
    result = vocprep("train", tmp_path, "--out", tmp_path / "out", "--sweep", *words)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert result.stderr.startswith(f"error: {expected}")


def test_shards_that_mlflow_took_for_its_store_are_told(
    shards: Path, tmp_path: Path, vocprep: Run
) -> None:
    for taken in (str(shards), "s3://bucket/voc"):
        result = vocprep("train", "--out", tmp_path / "out", "--mlflow", taken)
        assert (result.exit_code, result.stdout) == (2, "")
        assert result.stderr == (
            f"error: --mlflow {taken}: expected the URI of a tracking store, found that of a "
            "dataset version; give SHARDS first, and --mlflow behind it\n"
        )
