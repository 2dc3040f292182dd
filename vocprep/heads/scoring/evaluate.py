"""Evaluation: a split's scores, beside what oracles and a constant would get.

The rows, over the same pixels: the model; *GT top-4*, the best that four slots a patch can say (a
pixel of any other label is wrong); the true labels with the model's masks and the model's labels
with the true masks (``ladder``); the largest label of each patch all over it; and the *majority
label*, which is chance: one label everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import RunError, UsageError
from vocprep.features.embed import choose_device
from vocprep.heads.runs.options import EvaluateOptions, require_split
from vocprep.heads.runs.run import Run
from vocprep.heads.scoring.evaluation import (
    Area,
    ClassScore,
    Evaluation,
    ScoreRow,
    ScoreTable,
    TableRow,
)
from vocprep.heads.scoring.metrics import ConfusionMatrix
from vocprep.heads.scoring.score import (
    GT_TOP_4,
    Measurements,
    embedding_dim,
    measure_split,
    most_frequent_labels,
)
from vocprep.heads.scoring.whole_image import whole_image_pixels
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.manifests import load_dataset
from vocprep.options import LoaderOptions
from vocprep.recipe import Recipe, differing_fields
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import FLIP_SUFFIX

MUST_AGREE = ("backbone", "weights_sha256", "windows", "layers", "normalisation", "schema")
"""Recipe fields without which a run's heads mean nothing on a dataset."""
PUBLISHED = {"context460": "context59"}
"""Label space of most published scores, by the schema that it is a part of."""
RECALL_NOTE = (
    "recall@4 says little: in a trial on photographs, heads that knew nothing but a patch's place "
    "reached 87 %"
)
LEARNT_NOTE = "these are the very pictures that the run learnt from: the scores flatter it"
WHOLE_NOTE = (
    "whole images are not scored: the shards do not hold what the geometry leaves out; give "
    "--data-dir"
)
Matrices = dict[str, ConfusionMatrix]
"""A row of the ladder each."""


@dataclass(frozen=True, kw_only=True)
class MajorityBaseline:
    """What the majority row predicts: one label everywhere, four labels a patch for the recall."""

    split: str
    labels: tuple[int, ...]
    """The split's up to four most frequent labels by pixels, most first."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """What an evaluation counted, before it is put into words."""

    counts: Measurements
    whole: Matrices | None
    majority: MajorityBaseline
    notes: tuple[str, ...]


def evaluate(
    run: Run, dataset: ShardDataset, split: str, options: EvaluateOptions | None = None
) -> Evaluation:
    """Score a run on a split of a dataset (identity view only).

    The majority label is that of the split that the run learnt from, where the dataset has it,
    else of ``split`` itself. The run's model is moved to the device. Raises RunError when the
    dataset's embeddings or labels are not those that the run was trained for, UsageError when
    there is no such split or no pixel to score, and what ``whole_image_pixels`` raises.
    """
    options = options or EvaluateOptions()
    notes = check_fits(run, dataset.index.recipe)
    require_split(dataset.splits, split, "split")
    _check_dim(run, dataset, split)
    device = choose_device(options.device)
    loader_options = LoaderOptions(
        batch_size=options.batch_size, mode=options.mode, label_maps=True
    )
    # First what may not be there, then what takes long.
    whole_pixels = _whole_pixels(dataset, split, options)
    majority = _majority(run, dataset, split, loader_options)
    model = run.model.to(device).eval()
    loader = dataset.loader(split, loader_options)
    counts = measure_split(model, loader, run.config.labels, majority.labels)
    if not counts.model.counts.any():
        raise UsageError(
            f"split {split!r}: expected pixels to score, found none that are not void; evaluate "
            "another split"
        )
    if (run.config.content_id, run.config.options.train_split) == (dataset.index.content_id, split):
        notes = (*notes, LEARNT_NOTE)
    if run.unfinished is not None:
        notes = (*notes, run.unfinished)
    whole = _whole_image(dataset, counts, whole_pixels)
    if whole is None:
        notes = (*notes, WHOLE_NOTE)
    found = _Found(counts=counts, whole=whole, majority=majority, notes=(*notes, RECALL_NOTE))
    return _evaluation(run, split, found, options.worst)


def choose_dataset(run: Run, datasets: Sequence[ShardDataset]) -> ShardDataset:
    """Return the dataset that the run learnt from, else the first that fits it.

    Raises RunError, as ``check_fits`` does, when none does.
    """
    own = [d for d in datasets if d.index.content_id == run.config.content_id]
    refusals = []
    for dataset in [*own, *datasets]:
        try:
            check_fits(run, dataset.index.recipe)
        except RunError as error:
            refusals.append(error)
        else:
            return dataset
    raise refusals[0]


def require_one_truth(datasets: Sequence[ShardDataset], split: str) -> None:
    """Raise UsageError when datasets hold other pictures or ground truth in a split.

    Scores on them must not stand side by side.
    """
    truths = []
    for dataset in datasets:
        require_split(dataset.splits, split, "split")
        truths.append(
            {
                sample.id: (sample.image_sha256, sample.targets_sha256)
                for sample in dataset.samples
                if sample.split == split and not sample.id.endswith(FLIP_SUFFIX)
            }
        )
    for dataset, truth in zip(datasets, truths, strict=True):
        if truth != truths[0]:
            raise UsageError(
                f"{dataset.path}: expected the pictures, geometry and labels of "
                f"{datasets[0].path} in split {split}, found others; evaluate the runs one by one"
            )


def check_fits(run: Run, recipe: Recipe) -> tuple[str, ...]:
    """Return notes on how a dataset's recipe differs from the run's in what does not matter much.

    Raises RunError naming the fields when it differs in what does.
    """
    learnt, given = run.config.recipe.to_json(), recipe.to_json()
    blocking = differing_fields(
        {key: learnt[key] for key in MUST_AGREE}, {key: given[key] for key in MUST_AGREE}
    )
    if blocking:
        raise RunError(
            f"{run.path}: the run was trained on other embeddings or labels than the dataset "
            f"holds: expected and found {'; '.join(blocking)}; build shards with the run's recipe "
            "or train on these"
        )
    soft = ("dataset", "geometry", "embedding_dtype", "precision")
    differing = differing_fields(
        {key: learnt[key] for key in soft}, {key: given[key] for key in soft}
    )
    return tuple(f"trained and evaluated with different {line}" for line in differing)


def _check_dim(run: Run, dataset: ShardDataset, split: str) -> None:
    expected, found = run.config.heads.embedding_dim, embedding_dim(dataset, split)
    if found != expected:
        raise RunError(
            f"{run.path}: expected embeddings of {expected} numbers, found {found} in "
            f"{dataset.path}; build shards with the backbone that the run was trained on"
        )


def _majority(
    run: Run, dataset: ShardDataset, split: str, loader_options: LoaderOptions
) -> MajorityBaseline:
    learnt_from = run.config.options.train_split
    source = learnt_from if learnt_from in dataset.splits else split
    labels = most_frequent_labels(dataset.loader(source, loader_options), run.config.labels)
    return MajorityBaseline(split=source, labels=tuple(labels))


def _whole_pixels(
    dataset: ShardDataset, split: str, options: EvaluateOptions
) -> NDArray[np.int64] | None:
    """Return the pixels [C] of each class in whole images; None without need or data dir."""
    recipe = dataset.index.recipe
    if recipe.geometry.covers_all or options.data_dir is None:
        return None
    manifest = load_dataset(options.dataset or recipe.dataset)
    return whole_image_pixels(dataset, split, manifest, Path(options.data_dir))


def _whole_image(
    dataset: ShardDataset, counts: Measurements, whole_pixels: NDArray[np.int64] | None
) -> Matrices | None:
    """Return the rows' matrices with what the geometry left out; None when it is not known."""
    if dataset.index.recipe.geometry.covers_all:
        return counts.pixels
    if whole_pixels is None:
        return None
    left_out = whole_pixels - counts.model.truth_pixels
    return {name: matrix.with_missed(left_out) for name, matrix in counts.pixels.items()}


def _evaluation(run: Run, split: str, found: _Found, worst: int) -> Evaluation:
    labels, counts = run.config.labels, found.counts
    present = counts.model.truth_pixels
    images = sorted(counts.images_scored, key=lambda image: (image.pixel_accuracy, image.image_id))
    return Evaluation(
        run=run.path.resolve().name,
        epoch=run.epoch,
        split=split,
        images=counts.images,
        pixels=int(present.sum()),
        schema=labels.name,
        classes_present=int((present > 0).sum()),
        classes_all=len(labels.names),
        loss=counts.class_loss + counts.mask_loss,
        rows=_rows(counts, labels),
        mean_average_precision=counts.mean_average_precision,
        masks=counts.masks,
        tables=_tables(counts.pixels, found.whole, labels),
        majority_label=labels.label_name(found.majority.labels[0]),
        majority_split=found.majority.split,
        classes=_class_scores(counts, labels),
        worst_images=tuple(images[:worst]),
        notes=found.notes,
        confusion=counts.model,
    )


def _tables(
    covered: Matrices, whole: Matrices | None, labels: LabelSpace
) -> tuple[ScoreTable, ...]:
    """Return the tables beside the main one."""
    tables = [] if whole is None else [_table("whole image", whole, labels)]
    if labels.name in PUBLISHED:
        schema = load_label_space(PUBLISHED[labels.name])
        areas: list[tuple[Area, Matrices | None]] = [
            ("covered area", covered),
            ("whole image", whole),
        ]
        for area, matrices in areas:
            if matrices is not None:
                translated = {
                    name: matrix.translated(
                        schema.raw_to_class, void=schema.void, categories=schema.outputs
                    )
                    for name, matrix in matrices.items()
                }
                tables.append(_table(area, translated, schema))
    return tuple(tables)


def _table(area: Area, matrices: Matrices, labels: LabelSpace) -> ScoreTable:
    pixels = next(iter(matrices.values())).truth_pixels
    return ScoreTable(
        area=area,
        schema=labels.name,
        pixels=int(pixels.sum()),
        classes_present=int((pixels > 0).sum()),
        classes_all=len(labels.names),
        rows=tuple(TableRow(name=name, **_scores(m, labels)) for name, m in matrices.items()),
    )


def _rows(counts: Measurements, labels: LabelSpace) -> tuple[ScoreRow, ...]:
    return tuple(
        ScoreRow(
            name=name,
            **_scores(matrix, labels),
            patch_top1=counts.patches[name].top1.score(),
            recall_at_4=counts.patches[name].recall.score(),
        )
        for name, matrix in counts.pixels.items()
    )


def _scores(matrix: ConfusionMatrix, labels: LabelSpace) -> dict[str, float]:
    """Return the fields of ``TableRow`` but for its name."""
    return {
        "miou_present": matrix.miou_present(),
        "miou_all": matrix.miou_all(sorted(labels.names)),
        "miou_frequent": matrix.miou_frequent(),
        "pixel_accuracy": matrix.pixel_accuracy(),
        "frequency_weighted_iou": matrix.frequency_weighted_iou(),
    }


def _class_scores(counts: Measurements, labels: LabelSpace) -> tuple[ClassScore, ...]:
    pixels, ious = counts.model.truth_pixels, counts.model.iou()
    accuracies, oracle = counts.model.class_accuracy(), counts.pixels[GT_TOP_4].iou()
    order = [int(label) for label in np.argsort(-pixels, kind="stable") if pixels[label]]
    return tuple(
        ClassScore(
            label=label,
            name=labels.label_name(label),
            pixels=int(pixels[label]),
            iou=float(ious[label]),
            accuracy=float(accuracies[label]),
            oracle_iou=float(oracle[label]),
        )
        for label in order
    )
