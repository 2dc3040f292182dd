"""The table of classes and the confusion matrix of a split, and the patches behind its cells."""

from __future__ import annotations

from typing import Any

import numpy as np

from vocprep.heads.scoring.measures.metrics import ConfusionMatrix
from vocprep.heads.scoring.measures.oracles import mask_ious_of
from vocprep.pages.viewer.queries import Query
from vocprep.pages.viewer.shown.runs import SplitScores
from vocprep.pages.viewer.shown.session import Session

MOST_CLASSES = 200
"""Rows of a confusion matrix."""
MOST_LISTED = 500
_LARGEST_ID = 65535


def class_table(session: Session, query: Query) -> dict[str, Any]:
    """Return each class with its pixels and pictures, and how well a run finds it."""
    query.only(("v", "r", "split"))
    version, split = session.version_and_split(query)
    totals = version.columns.ask().totals(version.catalogue.of_split(split))
    held = {class_id: (pixels, pictures) for class_id, pixels, pictures in totals}
    scores = session.scored_run(query, version).scores_of(split) if query.maybe("r") else None
    own = {} if scores is None else _class_scores(scores.model)
    return {
        "classes": [
            {
                "id": class_id,
                "name": name,
                "pixels": held.get(class_id, (0, 0))[0],
                "pictures": held.get(class_id, (0, 0))[1],
                **own.get(class_id, {"iou": None, "accuracy": None}),
            }
            for class_id, name in sorted(version.space.names.items())
        ],
        "rows": [] if scores is None else _ladder(scores),
    }


def _class_scores(matrix: ConfusionMatrix) -> dict[int, dict[str, float | None]]:
    """Return the scores of the classes that the split holds, by id."""
    ious, accuracies = matrix.iou(), matrix.class_accuracy()
    return {
        class_id: {"iou": float(ious[class_id]), "accuracy": float(accuracies[class_id])}
        for class_id in np.flatnonzero(matrix.truth_pixels).tolist()
    }


def _ladder(scores: SplitScores) -> list[dict[str, Any]]:
    rows = []
    for kind, pixels in scores.pixels.items():
        matrix = pixels.all
        mask_iou, own_mask_iou = mask_ious_of(scores.mask_ious, kind)
        rows.append(
            {
                "name": scores.chance if kind.is_constant else kind.display_name,
                "miou": matrix.miou_present(),
                "miou_frequent": matrix.miou_frequent(),
                "pixel_accuracy": matrix.pixel_accuracy(),
                "boundary_iou_3": matrix.miou_within(pixels.within(3)),
                "boundary_iou_8": matrix.miou_within(pixels.within(8)),
                "mask_iou": mask_iou,
                "own_mask_iou": own_mask_iou,
            }
        )
    return rows


def confusion_table(session: Session, query: Query) -> dict[str, Any]:
    """Return the confusions between the classes with the most pixels."""
    query.only(("v", "r", "split", "limit"))
    version, split = session.version_and_split(query)
    run = session.scored_run(query, version)
    matrix = run.scores_of(split).model
    limit = query.whole("limit", 30, most=MOST_CLASSES)
    classes = largest_classes(matrix, limit)
    rows = matrix.counts[classes]
    chosen = rows[:, classes]
    return {
        "classes": classes,
        "counts": chosen.tolist(),
        "other": (rows.sum(axis=1) - chosen.sum(axis=1)).tolist(),
    }


def largest_classes(matrix: ConfusionMatrix, most: int) -> list[int]:
    """Return the ids of the classes with the most true pixels, none without any."""
    pixels = matrix.truth_pixels
    order = np.argsort(-pixels, kind="stable")[:most]
    return [class_id for class_id in order.tolist() if pixels[class_id]]


def confused_patches(session: Session, query: Query) -> dict[str, Any]:
    """Return the patches that hold most pixels of a true class predicted as another."""
    query.only(("v", "r", "split", "truth", "predicted", "offset", "limit"))
    version, split = session.version_and_split(query)
    run = session.scored_run(query, version)
    wrong = run.scores_of(split).wrong
    span = wrong.of(
        query.whole("truth", None, most=_LARGEST_ID),
        query.whole("predicted", None, most=_LARGEST_ID),
    )
    first = span.start + query.whole("offset", 0, most=1 << 40)
    stop = min(span.stop, first + query.whole("limit", 50, most=MOST_LISTED))
    catalogue = run.version.catalogue
    patches = []
    for entry in range(first, stop):
        place, patch = int(wrong.places[entry]), int(wrong.patches[entry])
        grid = catalogue.grid(place)
        patches.append(
            {
                "id": catalogue.ids[place],
                "patch": patch,
                "row": patch // grid[1],
                "column": patch % grid[1],
                "grid": list(grid),
                "pixels": int(wrong.pixels[entry]),
            }
        )
    return {"total": span.stop - span.start, "patches": patches}
