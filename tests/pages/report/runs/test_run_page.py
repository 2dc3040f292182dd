"""Pages about runs: every number that was counted is there, and hostile names are harmless."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from html import unescape
from pathlib import Path

import pytest
import torch
from builders.heads import (
    CPU,
    cell_heads,
    epoch_metrics,
    make_dataset,
    random_records,
    run_for,
    save_run,
)
from builders.versions import Built
from playwright.sync_api import Page, expect

import vocprep
from vocprep.errors import RunError, UsageError
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.model.tfdet import TFDetHeads
from vocprep.heads.runs.options import TrainOptions
from vocprep.heads.runs.run import Run
from vocprep.heads.scoring.evaluate import evaluate
from vocprep.labels.label_space import LabelSpace
from vocprep.pages.report.options import ReportOptions
from vocprep.shards.reader import ShardDataset

pytestmark = pytest.mark.slow

HOSTILE = "<script>document.title='broken'</script>"
HOSTILE_RUN = '<img src=x onerror="alert(1)">\u202e & <b>run' + "w" * 100
GRIDS = [(1, 2), (2, 2), (1, 1), (3, 1)]


def made_run(dataset: ShardDataset, seed: int, labels: LabelSpace, bias: float = 0.5) -> Run:
    """Heads that score the classes of the ground truth high, and a little by chance.

    Those of the second run have cells.
    """
    run = run_for(dataset)
    heads = HeadsConfig(outputs=labels.outputs, encoder="none")
    if seed:
        heads = cell_heads(labels.outputs)
    torch.manual_seed(seed)
    model = TFDetHeads.from_config(heads)
    with torch.no_grad():
        model.cat.bias[:6] += bias
    options = TrainOptions(epochs=7, encoder="none", preset="quick", seed=seed)
    config = replace(run.config, heads=heads, options=options, labels=labels)
    return replace(run, model=model.eval(), config=config)


@dataclass(frozen=True)
class Runs:
    """A version without photographs, and two runs with hostile names."""

    version: Path
    first: Path
    second: Path

    def report(self, out: Path, *runs: Path, **options: object) -> str:
        """Return the page about runs."""
        chosen = ReportOptions(device="cpu", **options)  # type: ignore[arg-type]
        vocprep.report([*runs, self.version], out, chosen)
        return out.read_text()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    splits = {"train": random_records("train", [(1, 1)]), "val": random_records("val", GRIDS)}
    dataset = make_dataset(folder / "shards", splits)
    space = dataset.label_space
    names = {**space.names, 1: HOSTILE, 2: "\u202eesrever"}
    labels = LabelSpace.of_classes(name=space.name, void=space.void, names=names)
    val_losses = [None, 1.5, None, 1.0, None, 1.5, None]
    log = [epoch_metrics(n, 4 / n, loss) for n, loss in enumerate(val_losses, start=1)]
    paths = []
    for seed, name in ((0, HOSTILE_RUN), (1, "second")):
        run = made_run(dataset, seed, labels, bias=seed)
        paths.append(save_run(run, folder / name, log))
    return Runs(dataset.path, *paths)


@pytest.fixture(scope="module")
def one(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> str:
    return runs.report(tmp_path_factory.mktemp("one") / "page.html", runs.second, pictures=2)


@pytest.fixture(scope="module")
def two(runs: Runs, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("two") / "page.html"
    runs.report(out, runs.first, runs.second, pictures=2)
    return out


def part(html: str, section_id: str) -> str:
    """A section's text, spaces between elements."""
    inner = html.split(f'<section id="{section_id}"')[1].split("</section>", maxsplit=1)[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", inner)).split())


def test_scores_are_those_of_evaluate(runs: Runs, one: str) -> None:
    (scores,) = evaluate(runs.second, runs.version, options=CPU).runs
    shown = part(one, "scores")
    for row in scores.rows:
        name = re.escape(row.name) if not row.kind.is_constant else "chance: .*"
        values = (row.miou_present, row.miou_all, row.miou_frequent, row.pixel_accuracy)
        numbers = " ".join(f"{100 * value:,.1f}" for value in values)
        assert re.search(f"{name} {numbers}", shown), row.name
    assert "recall@4 says little" in shown
    assert "whole images are not scored" in shown
    classes = part(one, "classes").split("All numbers of all classes")[1]
    for item in scores.classes[3:]:
        assert f" {item.name} {item.id} {item.pixels:,} " in classes
    confidence = part(one, "calibration")
    found = scores.calibration
    numbers = (found.confidence, found.accuracy, found.expected_error)
    assert "second " + " ".join(f"{100 * value:.1f}" for value in numbers) in confidence
    masks = part(one, "masks")
    for slots, label in ((2, "two"), (3, "three"), (4, "four or more")):
        quality = scores.masks_by_slots[slots]
        if quality.slots:
            words = f"patches of {label} ({quality.slots:,} slots) {100 * quality.iou:.1f}"
            assert words in masks


def test_what_a_run_is_and_how_it_went(one: str, runs: Runs) -> None:
    about = part(one, "about")
    told = ("preset quick", "epochs 7 of 7", "encoder transformer", "cpu, fp32", "torch 2.")
    for words in (*told, "mask head cells, 2×2 per patch"):
        assert words in about
    for row in ("encoder transformer none", "epochs 12 7", "seed 0 1"):
        assert row in about, row
    assert ShardDataset.open(runs.version).index.content_id[:12] in about
    training = part(one, "curves")
    assert "lowest after epoch 4 (1.000) and ends 50 % above that" in training
    assert "validation mIoU is highest after epoch 6" in training


def test_best_and_worst_pictures_are_shown_each_once(one: str, runs: Runs) -> None:
    (scores,) = evaluate(runs.second, runs.version, options=CPU).runs
    worst_first = [image.image_id for image in scores.worst_images]
    shown = re.findall(r"val_\d\d(?= : pixel accuracy)", part(one, "pictures"))
    assert shown == [*worst_first[:2], *worst_first[:1:-1]]
    assert part(one, "pictures").count(" prediction ") == 4
    assert "--data-dir adds their photographs" in part(one, "pictures")


def test_two_runs_are_compared_as_evaluate_compares_them(runs: Runs, two: Path) -> None:
    html = two.read_text()
    result = evaluate([runs.first, runs.second], runs.version, options=CPU)
    (compared,) = result.differences
    shown = part(html, "differences")
    for item in compared.scores:
        values = f"{100 * item.first:.1f} {100 * item.second:.1f}"
        numbers = f"{100 * item.difference:+.1f} {100 * item.low:+.1f} to {100 * item.high:+.1f}"
        assert f"{values} {numbers}".replace("-", "−") in shown, item.score
    for section_id in ("confusions-1", "confusions-2", "calibration", "masks", "about"):
        assert part(html, section_id)
    accuracies = [
        {score.image_id: score.pixel_accuracy for score in scores.confusions.scores}
        for scores in result.runs
    ]
    pictures = part(html, "pictures")
    listed = re.findall(r"(val_\d\d) : pixel accuracy ([\d.]+) % and ([\d.]+) %", pictures)
    gains = sorted(accuracies[1][each] - accuracies[0][each] for each in accuracies[0])
    assert len(listed) == sum(gain > 0 for gain in gains[-2:]) + sum(g < 0 for g in gains[:2])
    for image_id, *numbers in listed:
        assert numbers == [f"{100 * each[image_id]:.1f}" for each in accuracies]


def test_the_same_input_gives_the_same_file(runs: Runs, two: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.html"
    runs.report(again, runs.first, runs.second, pictures=2)
    assert again.read_bytes() == two.read_bytes()


def test_three_runs_have_tables_and_curves_together(runs: Runs, tmp_path: Path) -> None:
    dataset = ShardDataset.open(runs.version)
    made = made_run(dataset, 2, dataset.label_space)
    third = save_run(made, tmp_path / "third")
    html = runs.report(tmp_path / "page.html", runs.first, runs.second, third)
    assert part(html, "differences").count("pixel accuracy") == 2
    assert "third has no log of its epochs" in part(html, "curves")
    assert "Validation loss" in part(html, "curves")
    assert 'id="confusions' not in html
    assert 'id="pictures"' not in html
    paths = [save_run(made, tmp_path / str(number)) for number in range(7)]
    with pytest.raises(UsageError, match="expected one to six runs, found 7 runs"):
        runs.report(tmp_path / "page.html", *paths)


@pytest.mark.parametrize(
    ("val_losses", "words"),
    [
        ([None, None], "was trained without validation"),
        ([None, 1.0], "was trained with one validation, after epoch 2"),
    ],
)
def test_few_validations_are_told(
    runs: Runs, tmp_path: Path, val_losses: list[float | None], words: str
) -> None:
    dataset = ShardDataset.open(runs.version)
    log = [epoch_metrics(n, 4 / n, loss) for n, loss in enumerate(val_losses, start=1)]
    path = save_run(made_run(dataset, 2, dataset.label_space), tmp_path / "few", log)
    training = part(runs.report(tmp_path / "page.html", path, pictures=0), "curves")
    assert f"few {words}" in training
    assert "Scores" not in training
    assert "Losses" in training


def test_what_does_not_fit_is_one_sentence(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    with pytest.raises(UsageError, match="split 'test': expected one of train, val"):
        runs.report(out, runs.second, split="test")
    with pytest.raises(UsageError, match="needs the dataset version that it is scored on"):
        vocprep.report(runs.second, out)
    splits = {"val": random_records("val", GRIDS)}
    other = make_dataset(tmp_path / "other", splits, weights_sha256="cd" * 32)
    with pytest.raises(RunError, match="trained on other embeddings or labels"):
        vocprep.report([runs.second, other.path], out)
    damaged = tmp_path / "damaged"
    dataset = ShardDataset.open(runs.version)
    save_run(made_run(dataset, 2, dataset.label_space), damaged)
    (damaged / "metrics.jsonl").write_text("{}\n")
    with pytest.raises(RunError, match="line 1: expected the metrics of epoch 1"):
        runs.report(out, damaged)
    assert not out.exists()


def test_errors_stand_beside_the_prediction_of_each_run(two: Path) -> None:
    pictures = part(two.read_text(), "pictures")
    assert pictures.count(" errors, ") == pictures.count(" prediction, ") > 0


def test_photographs_are_shown_where_there_is_a_data_dir(
    crop_hdf5: Built, sample_tree: Path, tmp_path: Path
) -> None:
    dataset = crop_hdf5.dataset
    path = save_run(made_run(dataset, 0, dataset.label_space), tmp_path / "run")
    options = ReportOptions(device="cpu", data_dir=sample_tree, pictures=1)
    vocprep.report([path, crop_hdf5.path], tmp_path / "page.html", options)
    html = (tmp_path / "page.html").read_text()
    pictures = part(html, "pictures")
    assert pictures.count("photograph") == 2
    assert "--data-dir" not in pictures
    assert "whole image: " in part(html, "scores")
    assert "context59, covered area" in part(html, "scores")


@pytest.mark.slow
def test_in_a_browser_names_are_harmless_and_all_can_be_reached(page: Page, two: Path) -> None:
    page.goto(two.as_uri())
    expect(page.get_by_role("heading", level=1)).to_contain_text("<b>run")
    assert "Runs " in page.title()
    assert page.locator("script, img[src='x'], main b").count() == 0
    names = page.get_by_role("navigation").get_by_role("link")
    assert names.count() == page.get_by_role("region").filter(has=page.locator("h2")).count()
    for link in names.all():
        assert page.locator(link.get_attribute("href") or "#none").count() == 1
    summary = page.locator("#classes summary", has_text="All numbers of all classes")
    summary.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#classes details[open]").get_by_text(HOSTILE).first).to_be_visible()
    for width in (400, 1280):
        page.set_viewport_size({"width": width, "height": 900})
        wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wide <= 0, f"the page is wider than a window of {width}"


def test_the_command_names_runs_in_json(runs: Runs, tmp_path: Path) -> None:
    chosen = ReportOptions(device="cpu", pictures=0)
    paths = [runs.second, runs.version, runs.second]  # a path that is given twice counts once
    result = vocprep.report(paths, tmp_path / "page.html", chosen)
    value = json.loads(json.dumps(result.to_json()))
    assert (value["kind"], value["title"]) == ("run", "Run second")
    assert value["sections"] == [
        *("Scores", "Training", "Classes", "Confusions", "Errors", "Confidence", "Masks"),
        "About the run",
    ]
