"""The scores of one run on one split: a pass over it, and the tables computed from its counts.

The rows, over the same pixels: the model; *GT top-4*, the best that four slots per patch can
express (a pixel of any other class is wrong); the true classes with the model's masks and the
model's classes with the true masks (``oracles``); the largest class of each patch all over it; and
the *majority class*, a constant prediction: one class everywhere.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.errors import UsageError
from vocprep.features.devices import choose_device
from vocprep.heads.runs.class_shares import Decoding, decoding_for
from vocprep.heads.runs.options import EvaluateOptions, require_split
from vocprep.heads.runs.run import Run
from vocprep.heads.scoring.majority import majority_baseline
from vocprep.heads.scoring.matching import check_fits
from vocprep.heads.scoring.measures.errors import Errors, background_class, errors_apart
from vocprep.heads.scoring.measures.image_scores import by_accuracy
from vocprep.heads.scoring.measures.metrics import ConfusionMatrix
from vocprep.heads.scoring.measures.oracles import RowKind
from vocprep.heads.scoring.measuring import Measurements, measure_split
from vocprep.heads.scoring.scores import (
    Area,
    ClassName,
    ClassScore,
    RunScores,
    ScoreRow,
    ScoreTable,
    TableRow,
)
from vocprep.heads.scoring.whole_image import whole_image_pixels
from vocprep.labels.label_space import LabelSpace, load_label_space
from vocprep.manifests import load_recorded_dataset
from vocprep.options import LoaderOptions
from vocprep.progress import NO_PROGRESS, Progress
from vocprep.shards.feed.pairs import PairLoader
from vocprep.shards.reader import Loader, ShardDataset

PUBLISHED = {"context460": "context59"}
"""Label space of most published scores, by the label space that it is a part of."""
RECALL_NOTE = (
    "recall@4 says little: heads that used a patch's place alone reached 87 % on photographs"
)
TRAIN_SPLIT_NOTE = "the run was trained on this split: the scores are higher than on other images"
WHOLE_NOTE = (
    "whole images are not scored: shards do not hold what the geometry leaves out; give --data-dir"
)
Matrices = dict[RowKind, ConfusionMatrix]


def score_run(
    run: Run,
    dataset: ShardDataset,
    split: str,
    options: EvaluateOptions,
    progress: Progress = NO_PROGRESS,
    decoding: Decoding | None = None,
) -> RunScores:
    """Score a run on a split of a dataset version: plain views, or the means of both views.

    ``decoding`` is how the run predicts (``decoding_for``); made of the options when None. The
    majority class is that of the split that the run was trained on, where the dataset version
    has it, else of ``split`` itself. The run's model is moved to the device. Raises RunError when
    the embeddings or labels are not those that the run was trained for, UsageError when there is no
    such split or no pixel to score, and what ``whole_image_pixels`` raises.
    """
    differences = check_fits(run, dataset.index.recipe)
    require_split(dataset.splits, split, "split")
    space = run.config.labels
    decoding = decoding or decoding_for(run, dataset, options.prior_power, options.tta)
    # The label files of whole images may be missing, so they are read before the long pass.
    whole_pixels = _whole_pixels(dataset, split, options)
    majority = majority_baseline(run, dataset, split, progress)
    loader = _loader(dataset, split, options, decoding, progress)
    model = run.model.to(choose_device(options.device)).eval()
    weights = decoding.weights_on(model.device)
    counts = measure_split(model, loader, space, majority.classes, progress, weights)
    _require_pixels(counts, split)
    whole = _whole_matrices(dataset, counts, whole_pixels)
    notes = (*_notes(run, dataset, split), *(() if whole else (WHOLE_NOTE,)), RECALL_NOTE)
    return RunScores(
        run=run.path.resolve().name,
        epoch=run.epoch,
        split=split,
        prior_power=decoding.prior_power,
        tta=decoding.tta,
        tables=_tables(_covered(counts), whole, space),
        majority_class=_named(majority.classes[0], space),
        majority_split=majority.split,
        worst_images=tuple(by_accuracy(counts.confusions.scores)[: options.worst]),
        notes=(*decoding.notes, *differences, *notes),
        **_scores_of(counts, space),
    )


def _loader(
    dataset: ShardDataset,
    split: str,
    options: EvaluateOptions,
    decoding: Decoding,
    progress: Progress,
) -> Loader | PairLoader:
    """Return the batches that are scored: of plain views, or of these with the mirrored ones."""
    if decoding.tta == "flip":
        return PairLoader(dataset, split, options.batch_size)
    loading = LoaderOptions(batch_size=options.batch_size, mode=options.mode, label_maps=True)
    return dataset.loader(split, loading, progress)


def _require_pixels(counts: Measurements, split: str) -> None:
    if not counts.model.counts.any():
        raise UsageError(
            f"split {split!r}: expected pixels to score, found none that are not void; evaluate "
            "another split"
        )


def _scores_of(counts: Measurements, space: LabelSpace) -> dict[str, Any]:
    """Return the fields of ``RunScores`` that follow from the counts of a pass alone."""
    pixels = counts.model.truth_pixels
    return {
        "images": counts.images,
        "pixels": int(pixels.sum()),
        "schema": space.name,
        "classes_present": int((pixels > 0).sum()),
        "classes_all": len(space.names),
        "loss": counts.class_loss + counts.mask_loss,
        "rows": _rows(counts, space),
        "mean_average_precision": counts.mean_average_precision,
        "masks": counts.masks,
        "masks_by_slots": counts.masks_by_slots,
        "errors": _errors(counts, space),
        "calibration": counts.calibration,
        "classes": _class_scores(counts, space),
        "confusion": counts.model,
        "confusions": counts.confusions,
    }


def _named(class_id: int, space: LabelSpace) -> ClassName:
    return ClassName(id=class_id, name=space.class_name(class_id))


def _notes(run: Run, dataset: ShardDataset, split: str) -> list[str]:
    """Return the notes on a run and a split, beside the differences of recipes."""
    notes = []
    if (run.config.content_id, run.config.options.train_split) == (dataset.index.content_id, split):
        notes.append(TRAIN_SPLIT_NOTE)
    if run.unfinished is not None:
        notes.append(run.unfinished)
    return notes


def _whole_pixels(
    dataset: ShardDataset, split: str, options: EvaluateOptions
) -> NDArray[np.int64] | None:
    """Return the pixels [C] of each class in whole images; None where not needed or not known."""
    recipe = dataset.index.recipe
    if recipe.geometry.covers_all or options.data_dir is None:
        return None
    manifest = load_recorded_dataset(recipe.dataset, options.dataset, options.data_dir)
    return whole_image_pixels(dataset, split, manifest, options.data_dir)


def _whole_matrices(
    dataset: ShardDataset, counts: Measurements, whole_pixels: NDArray[np.int64] | None
) -> Matrices | None:
    """Return the rows' matrices with what the geometry left out; None when it is not known."""
    if dataset.index.recipe.geometry.covers_all:
        return _covered(counts)
    if whole_pixels is None:
        return None
    left_out = whole_pixels - counts.model.truth_pixels
    return {kind: matrix.with_missed(left_out) for kind, matrix in _covered(counts).items()}


def _covered(counts: Measurements) -> Matrices:
    """Return the rows' matrices over the covered area."""
    return {kind: pixels.all for kind, pixels in counts.pixels.items()}


def _errors(counts: Measurements, space: LabelSpace) -> Errors:
    model = counts.pixels[RowKind.MODEL]
    return errors_apart(model.pure, model.mixed, background_class(space))


def _tables(covered: Matrices, whole: Matrices | None, space: LabelSpace) -> tuple[ScoreTable, ...]:
    """Return the tables beside the main one."""
    tables = [] if whole is None else [_table("whole image", whole, space)]
    if space.name in PUBLISHED:
        published = load_label_space(PUBLISHED[space.name])
        tables.append(_table("covered area", _translated(covered, published), published))
        if whole is not None:
            tables.append(_table("whole image", _translated(whole, published), published))
    return tuple(tables)


def _translated(matrices: Matrices, space: LabelSpace) -> Matrices:
    """Return the matrices in another label space, whose raw ids are the matrices' class ids."""
    return {
        kind: matrix.translated(space.raw_to_class, void=space.void, classes=space.outputs)
        for kind, matrix in matrices.items()
    }


def _table(area: Area, matrices: Matrices, space: LabelSpace) -> ScoreTable:
    pixels = matrices[RowKind.MODEL].truth_pixels
    return ScoreTable(
        area=area,
        schema=space.name,
        pixels=int(pixels.sum()),
        classes_present=int((pixels > 0).sum()),
        classes_all=len(space.names),
        rows=tuple(
            TableRow(kind=kind, name=kind.display_name, **_pixel_scores(matrix, space))
            for kind, matrix in matrices.items()
        ),
    )


def _rows(counts: Measurements, space: LabelSpace) -> tuple[ScoreRow, ...]:
    return tuple(
        ScoreRow(
            kind=kind,
            name=kind.display_name,
            **_pixel_scores(pixels.all, space),
            boundary_iou_3=pixels.all.miou_within(pixels.within(3)),
            boundary_iou_8=pixels.all.miou_within(pixels.within(8)),
            mask_iou=counts.mask_ious.get(kind),
            patch_top1=counts.patches[kind].top1.score(),
            recall_at_4=counts.patches[kind].recall.score(),
        )
        for kind, pixels in counts.pixels.items()
    )


def _pixel_scores(matrix: ConfusionMatrix, space: LabelSpace) -> dict[str, float]:
    """Return the scores of a ``TableRow``."""
    return {
        "miou_present": matrix.miou_present(),
        "miou_all": matrix.miou_all(sorted(space.names)),
        "miou_frequent": matrix.miou_frequent(),
        "pixel_accuracy": matrix.pixel_accuracy(),
        "frequency_weighted_iou": matrix.frequency_weighted_iou(),
    }


def _class_scores(counts: Measurements, space: LabelSpace) -> tuple[ClassScore, ...]:
    """Return the scores of the classes in the ground truth, the most pixels first."""
    pixels, ious = counts.model.truth_pixels, counts.model.iou()
    accuracies, oracle = counts.model.class_accuracy(), counts.pixels[RowKind.GT_TOP_4].all.iou()
    order = [int(class_id) for class_id in np.argsort(-pixels, kind="stable") if pixels[class_id]]
    return tuple(
        ClassScore(
            id=class_id,
            name=space.class_name(class_id),
            pixels=int(pixels[class_id]),
            iou=float(ious[class_id]),
            accuracy=float(accuracies[class_id]),
            oracle_iou=float(oracle[class_id]),
        )
        for class_id in order
    )
