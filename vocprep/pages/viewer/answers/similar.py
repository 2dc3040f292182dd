"""The most similar patches of a split."""

from __future__ import annotations

import time
from typing import Any

from vocprep.analysis.neighbours import PatchIndex
from vocprep.pages.viewer.answers.pictures import slots
from vocprep.pages.viewer.queries import Query
from vocprep.pages.viewer.shown.session import Session
from vocprep.pages.viewer.shown.versions import ShownVersion

MOST_LISTED = 100


def similar_patches(session: Session, query: Query) -> dict[str, Any]:
    """Return the patches of a split whose embeddings are the nearest to that of a patch."""
    query.only(("v", "id", "patch", "split", "limit"))
    version = session.version(query)
    place = version.place(query.text("id"))
    record = version.record(place)
    patch = query.whole("patch", None, most=len(record.embeddings) - 1)
    split = query.choice("split", version.catalogue.split_names, record.split)
    limit = query.whole("limit", 24, most=MOST_LISTED)
    index = version.similar[split].ask()
    began = time.perf_counter()
    own = index.number(record.image_id, patch)
    found = index.nearest(record.embeddings[patch], limit, without=own)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "patches": [
            _near(version, index, number, similarity)
            for number, similarity in zip(
                found.numbers.tolist(), found.similarities.tolist(), strict=True
            )
        ],
    }


def _near(
    version: ShownVersion, index: PatchIndex, number: int, similarity: float
) -> dict[str, Any]:
    record_id, patch = index.locate(number)
    ny, nx = version.catalogue.grid(version.catalogue.place(record_id))
    patches = index.patches
    return {
        "id": record_id,
        "patch": patch,
        "row": patch // nx,
        "column": patch % nx,
        "grid": [ny, nx],
        "similarity": similarity,
        "labels": slots(patches.slot_labels[number], patches.slot_pixels[number]),
    }
