"""The page about one run, or about several side by side, scored on a split of one version."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.runs.log import HISTORY_FILE, EpochMetrics, read_history
from vocprep.heads.runs.options import EvaluateOptions, TrainOptions
from vocprep.heads.runs.presets import PRESET_FIELDS
from vocprep.heads.runs.run import load_run
from vocprep.heads.scoring.evaluate import Evaluation, evaluate
from vocprep.heads.scoring.matching import choose_dataset
from vocprep.pages.report.options import ReportOptions
from vocprep.pages.report.page import Page, Section, digest, section, table
from vocprep.pages.report.runs.classes import classes_section, confusion_sections
from vocprep.pages.report.runs.comparison import differences_section
from vocprep.pages.report.runs.curves import curves_section
from vocprep.pages.report.runs.pictures import pictures_sections
from vocprep.pages.report.runs.quality import calibration_section, errors_section, masks_section
from vocprep.pages.report.runs.scored import ScoredRun, names
from vocprep.pages.report.runs.scores import scores_section
from vocprep.progress import Progress
from vocprep.shards.reader import ShardDataset

_NOT_CHOSEN = ("lanes",)
"""Fields that a training sets by itself where they are not given."""


def run_page(
    paths: Sequence[Path],
    datasets: Sequence[ShardDataset],
    options: ReportOptions,
    progress: Progress,
) -> Page:
    """Return the page about runs on the dataset versions that fit them.

    Raises what ``load_run`` and ``evaluate`` raise, RunError for a log that cannot be read, and
    what ``Photographs`` raises where there is a data dir.
    """
    trained = [load_run(path) for path in paths]
    histories = [_history(path) for path in paths]
    dataset = None if options.dataset is None else str(options.dataset)
    evaluation = evaluate(
        trained,
        datasets,
        options.split,
        EvaluateOptions(device=options.device, data_dir=options.data_dir, dataset=dataset),
        progress=progress,
    )
    runs = [
        ScoredRun(run=run, scores=scores, history=history, dataset=choose_dataset(run, datasets))
        for run, scores, history in zip(trained, evaluation.runs, histories, strict=True)
    ]
    first = runs[0].scores
    return Page(
        title=f"{'Run' if len(runs) == 1 else 'Runs'} {names(runs)}",
        lead=f"Scored on split {first.split}: {first.images:,} images, {first.pixels:,} pixels of "
        f"{first.classes_present} classes of label space “{first.schema}”",
        sections=tuple(_sections(runs, evaluation, options)),
    )


def _sections(
    runs: Sequence[ScoredRun], evaluation: Evaluation, options: ReportOptions
) -> list[Section]:
    several = len(runs) > 1
    return [
        *([differences_section(runs, evaluation.differences)] if several else []),
        scores_section(runs, evaluation.notes),
        curves_section(runs),
        classes_section(runs),
        *confusion_sections(runs),
        *pictures_sections(runs, options),
        errors_section(runs),
        calibration_section(runs),
        masks_section(runs),
        _about(runs),
    ]


def _history(run_dir: Path) -> list[EpochMetrics]:
    """Return the log of a run; nothing where its folder has none."""
    return read_history(run_dir) if (run_dir / HISTORY_FILE).exists() else []


def _about(runs: Sequence[ScoredRun]) -> Section:
    """Return what the runs are: preset, options, embeddings, versions of libraries."""
    return section(
        "about",
        "About the run" if len(runs) == 1 else "About the runs",
        "run_about.html",
        facts=table("What was trained, on what", ("", *_heads(runs)), _facts(runs)),
        options=_options(runs),
    )


def _heads(runs: Sequence[ScoredRun]) -> list[str]:
    return [run.name for run in runs]


def _facts(runs: Sequence[ScoredRun]) -> list[tuple[Any, ...]]:
    """Return a row per fact, a column per run."""
    columns = []
    for each in runs:
        config, model, last = each.run.config, each.run.model, each.history[-1:]
        columns.append(
            {
                "preset": config.options.preset,
                "epochs": f"{each.run.epoch:,} of {config.options.epochs:,}",
                "encoder": config.heads.encoder,
                "mask head": _mask_head(config.heads),
                "parameters": f"{sum(p.numel() for p in model.parameters()):,}",
                "trained on split": config.options.train_split,
                "dataset": f"{config.recipe.dataset}, {config.labels.name}",
                "content_id trained on": digest(config.content_id),
                "content_id scored on": digest(each.dataset.index.content_id),
                "backbone": f"{config.recipe.backbone}, {config.recipe.precision}",
                "device": ", ".join(f"{m.device}, {m.precision}" for m in last if m.device) or None,
                "last epoch": next((f"{m.images_per_second:,.0f} images/s" for m in last), None),
                **dict(config.versions),
            }
        )
    rows = {name: None for column in columns for name in column}
    return [(name, *(column.get(name) for column in columns)) for name in rows]


def _mask_head(heads: HeadsConfig) -> str:
    """Return the name of a mask head, with its cells."""
    if heads.mask_head != "cells":
        return heads.mask_head
    return f"{heads.mask_head}, {heads.cells}×{heads.cells} per patch"


def _options(runs: Sequence[ScoredRun]) -> Any:
    """Return a table of the options that differ from the defaults in any run; None without any."""
    defaults = {field.name: field.default for field in fields(TrainOptions)}
    rows = []
    for name in PRESET_FIELDS:
        values = [getattr(each.run.config.options, name) for each in runs]
        if name not in _NOT_CHOSEN and any(value != defaults[name] for value in values):
            rows.append((name, *map(_option, (defaults[name], *values))))
    if not rows:
        return None
    return table(
        "Options that are not those of preset default", ("option", "default", *_heads(runs)), rows
    )


def _option(value: object) -> str:
    """Write the value of an option as ``--set`` takes it."""
    return str(value).lower() if isinstance(value, bool) else str(value)
