"""What is known of one picture and of its patches.

Shape legend: P patches of the picture, K = 4 classes that a run predicts of a patch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vocprep.geometry import PATCH
from vocprep.heads.predict_image import LabelMapPrediction
from vocprep.pages.viewer.answers.pictures import (
    change_word,
    class_shares,
    number,
    quality_of,
    slots,
)
from vocprep.pages.viewer.queries import NotFoundError, Query
from vocprep.pages.viewer.shown.runs import ShownRun
from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.shown.versions import ShownVersion
from vocprep.shards.record import Record


def describe_picture(session: Session, query: Query) -> dict[str, Any]:
    """Return what is known of one picture and of its patches."""
    query.only(("v", "id"))
    version = session.version(query)
    place = version.place(query.text("id"))
    record = version.record(place)
    ny, nx = record.grid
    classes, void_percent = class_shares(record.decode_label_map(), version.space.void)
    predictions, audited = _predictions(session, version, record), version.audited
    qualities = None if audited is None else audited.patch_qualities(place)
    return {
        "id": record.image_id,
        "split": record.split,
        "grid": [ny, nx],
        "width": nx * PATCH,
        "height": ny * PATCH,
        "image_sha256": record.image_sha256,
        "label_sha256": record.label_sha256,
        "classes": classes,
        "void_percent": void_percent,
        "quality": quality_of(version, place),
        "suspected": None if audited is None else audited.suspicion(place),
        "changed": change_word(session.changes(version), place),
        "runs": {
            key: _scores(session.runs[key], record.image_id, prediction)
            for key, prediction in predictions.items()
        },
        "patches": _patches(record, qualities, predictions),
    }


def _predictions(
    session: Session, version: ShownVersion, record: Record
) -> dict[str, LabelMapPrediction]:
    """Return the predictions of the runs of the same classes whose version has the same grid."""
    found = {}
    for key, run in session.runs.items():
        if run.version.space != version.space:  # its ids are those of other classes
            continue
        try:
            prediction = run.predict(run.place(record.image_id))
        except NotFoundError:  # only the other version holds it
            continue
        if prediction.grid == record.grid:
            found[key] = prediction
    return found


def _scores(run: ShownRun, record_id: str, prediction: LabelMapPrediction) -> dict[str, Any]:
    place = run.place(record_id)
    classes, void_percent = class_shares(prediction.label_map, run.version.space.void)
    return {
        "pixel_accuracy": number(run.accuracies[place]),
        "miou": number(run.mious[place]),
        "loss": number(run.losses[place]),
        "classes": classes,
        "void_percent": void_percent,
    }


def _patches(
    record: Record,
    qualities: NDArray[np.float32] | None,
    predictions: dict[str, LabelMapPrediction],
) -> list[dict[str, Any]]:
    embeddings = record.embeddings.astype(np.float64)
    norms = np.sqrt((embeddings * embeddings).sum(axis=1))
    return [
        {
            "labels": slots(record.slot_labels[patch], record.slot_pixels[patch]),
            "label_count": int(record.label_count[patch]),
            "norm": number(norms[patch]),
            "quality": None if qualities is None else number(qualities[patch]),
            "predicted": {key: _predicted(found, patch) for key, found in predictions.items()},
        }
        for patch in range(len(norms))
    ]


def _predicted(prediction: LabelMapPrediction, patch: int) -> list[dict[str, Any]]:
    labels = prediction.patch_labels[patch].tolist()
    shares = prediction.patch_probabilities[patch].tolist()
    return [
        {"id": label, "probability": number(share)}
        for label, share in zip(labels, shares, strict=True)
    ]
