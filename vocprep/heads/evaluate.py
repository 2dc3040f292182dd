"""Evaluation: a split's scores, beside what an oracle and a constant would get.

Three rows, over the same pixels: the model; the *GT top-4* oracle, which is the best that four
slots a patch can say (a pixel of any other label is wrong); and the *majority label*, which is
chance: one label everywhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from vocprep.errors import RunError, UsageError
from vocprep.features.embed import choose_device
from vocprep.heads.metrics import ConfusionMatrix, PatchRecall, constant_prediction
from vocprep.heads.options import EvaluateOptions, require_split
from vocprep.heads.run import LabelSpace, Run
from vocprep.heads.score import SplitCounts, embedding_dim, most_frequent_labels, score_split
from vocprep.recipe import Recipe, differing_fields
from vocprep.shards.reader import LoaderOptions, ShardDataset

MUST_AGREE = ("backbone", "weights_sha256", "normalisation", "schema")
"""Recipe fields without which a run's heads mean nothing on a dataset."""


@dataclass(frozen=True, kw_only=True)
class ScoreRow:
    """One line of the table; every score lies in 0..1 and larger is better."""

    name: str
    miou_present: float
    """Mean IoU over the classes that the split's ground truth holds."""
    miou_all: float
    """Mean IoU over all classes of the schema, an absent class being 0."""
    pixel_accuracy: float
    recall_at_4: float
    """``metrics.PatchRecall``."""


@dataclass(frozen=True, kw_only=True)
class ClassScore:
    """One class of the split's ground truth."""

    label: int
    name: str
    pixels: int
    iou: float
    """The model's."""
    oracle_iou: float


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """The scores of a run on a split."""

    run: str
    """Name of the run's folder."""
    epoch: int
    split: str
    images: int
    pixels: int
    """Pixels scored: those that are not void."""
    classes_present: int
    classes_all: int
    loss: float
    """Category and mask loss together, in nats."""
    rows: tuple[ScoreRow, ...]
    """Model, GT top-4, majority label."""
    majority_label: str
    majority_split: str
    """The split whose most frequent label by pixels the majority row predicts."""
    classes: tuple[ClassScore, ...]
    """Classes present in the ground truth, the most pixels first."""
    notes: tuple[str, ...]
    """What differs between the run's shards and these without spoiling the scores' meaning."""

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values, keys as the fields are called."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class MajorityBaseline:
    """What the majority row predicts: one label everywhere, four labels a patch for the recall."""

    split: str
    labels: tuple[int, ...]
    """The split's up to four most frequent labels by pixels, most first."""


def evaluate(
    run: Run, dataset: ShardDataset, split: str, options: EvaluateOptions | None = None
) -> Evaluation:
    """Score a run on a split of a dataset (identity view only).

    The majority label is that of the split that the run learnt from, where the dataset has it,
    else of ``split`` itself. The run's model is moved to the device. Raises RunError when the
    dataset's embeddings or labels are not those that the run was trained for, UsageError when
    there is no such split or no pixel to score.
    """
    options = options or EvaluateOptions()
    notes = check_fits(run, dataset.index.recipe)
    require_split(dataset.splits, split, "split")
    _check_dim(run, dataset, split)
    device = choose_device(options.device)
    loader_options = LoaderOptions(
        batch_size=options.batch_size, mode=options.mode, label_maps=True
    )
    majority = _majority(run, dataset, split, loader_options)
    model = run.model.to(device).eval()
    loader = dataset.loader(split, loader_options)
    counts = score_split(model, loader, run.config.labels, majority.labels)
    if not counts.model.counts.any():
        raise UsageError(
            f"split {split!r}: expected pixels to score, found none that are not void; evaluate "
            "another split"
        )
    return _evaluation(run, split, majority, counts, notes)


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


def _evaluation(
    run: Run,
    split: str,
    majority: MajorityBaseline,
    counts: SplitCounts,
    notes: tuple[str, ...],
) -> Evaluation:
    labels = run.config.labels
    constant = constant_prediction(counts.model, majority.labels[0])
    oracle_recall = PatchRecall(total=counts.recall.patches, patches=counts.recall.patches)
    present = counts.model.truth_pixels
    return Evaluation(
        run=run.path.resolve().name,
        epoch=run.epoch,
        split=split,
        images=counts.images,
        pixels=int(present.sum()),
        classes_present=int((present > 0).sum()),
        classes_all=len(labels.names),
        loss=counts.category_loss + counts.mask_loss,
        rows=(
            _row("model", counts.model, counts.recall, labels),
            _row("GT top-4", counts.oracle, oracle_recall, labels),
            _row("majority label", constant, counts.constant_recall, labels),
        ),
        majority_label=labels.label_name(majority.labels[0]),
        majority_split=majority.split,
        classes=_class_scores(counts, labels),
        notes=notes,
    )


def _row(name: str, matrix: ConfusionMatrix, recall: PatchRecall, labels: LabelSpace) -> ScoreRow:
    return ScoreRow(
        name=name,
        miou_present=matrix.miou_present(),
        miou_all=matrix.miou_all(sorted(labels.names)),
        pixel_accuracy=matrix.pixel_accuracy(),
        recall_at_4=recall.score(),
    )


def _class_scores(counts: SplitCounts, labels: LabelSpace) -> tuple[ClassScore, ...]:
    pixels, model, oracle = counts.model.truth_pixels, counts.model.iou(), counts.oracle.iou()
    order = [int(label) for label in np.argsort(-pixels, kind="stable") if pixels[label]]
    return tuple(
        ClassScore(
            label=label,
            name=labels.label_name(label),
            pixels=int(pixels[label]),
            iou=float(model[label]),
            oracle_iou=float(oracle[label]),
        )
        for label in order
    )
