"""Planted errors: what evidence looks like where a label map is wrong, learnt from known errors.

Out-of-fold probabilities of a picture do not depend on its labels, so that any label map can be
tried with them. Each picture is tried with four wrong ones; a softmax regression over the evidence
tells them from the given ones, which are mostly right.

Shape legend: N pictures, E kinds of evidence, K classes of a picture.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve

from vocprep.auditing.evidence import Believed, Usual, gather_evidence, tried_with_others
from vocprep.auditing.maps import DIRECTIONS, LEAST_AREA, LabelMaps, blocks, read_maps, rows_of
from vocprep.auditing.patches import Patches
from vocprep.progress import Progress

Kind = Literal["class", "other picture", "moved", "erased"]
KINDS: tuple[Kind, ...] = ("class", "other picture", "moved", "erased")
_RATES = np.array([0.03, 0.03, 0.003, 0.01])
"""How many pictures have an error of each kind, before anything is known of them. Moved maps look
much like right ones at the scale of patches, so that what is taken for one is seldom one."""
_STEPS = 60
_RIDGE = 1e-3
_FURTHEST = 4.0
"""Deviations beyond which evidence counts no more."""
Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Suspicions:
    """What is to be thought of N label maps."""

    quality: Doubles
    """[N] the probability that a map has none of the errors."""
    kinds: Doubles
    """[N, 4] the probabilities of the errors, as ``KINDS``."""
    ranks: Doubles
    """[N] the part of other pictures' maps that fit a picture better than its own."""


def judge(
    patches: Patches, logs: NDArray[np.float16], usual: Usual, progress: Progress
) -> Suspicions:
    """Return the suspicions against each picture's label map."""
    pictures, rows, kinds = [], [], []
    ranks = np.zeros(len(patches.ids))
    progress.begin("label maps", len(patches.ids), 0)
    try:
        for maps in blocks(patches):
            believed = Believed.of(logs[rows_of(patches, maps.pictures.tolist())])
            others = tried_with_others(usual, believed, maps.grid)
            for kind, (wrong, possible) in enumerate(_variants(patches, maps, usual)):
                evidence = gather_evidence(wrong, believed, usual, others)
                table = np.stack(list(evidence.values()), axis=1)
                rows.append(table[possible])
                pictures.append(maps.pictures[possible])
                kinds.append(np.full(int(possible.sum()), kind))
                if kind == 0:
                    ranks[maps.pictures] = evidence["rank_among_others"]
            progress.advance(len(maps.pictures))
    finally:
        progress.end()
    evidence_of, kind_of = np.concatenate(rows), np.concatenate(kinds)
    given = kind_of == 0
    odds = _odds(evidence_of, kind_of, given)
    probabilities = np.zeros((len(ranks), 1 + len(KINDS)))
    probabilities[np.concatenate(pictures)[given]] = odds
    return Suspicions(quality=probabilities[:, 0], kinds=probabilities[:, 1:], ranks=ranks)


def _odds(evidence: Doubles, kinds: NDArray[np.int64], given: NDArray[np.bool_]) -> Doubles:
    """Return the probabilities [N, 5] of the given maps to be right or to have an error."""
    centre = np.median(evidence[given], axis=0)
    spread = evidence[given].std(axis=0) + 1e-6
    scaled = np.clip((evidence - centre) / spread, -_FURTHEST, _FURTHEST)
    inputs = np.concatenate([np.ones((len(scaled), 1)), scaled, scaled**2], axis=1)
    likelihoods = _softmax(inputs[given] @ _fit(inputs, kinds))
    rates = np.concatenate([[1 - _RATES.sum()], _RATES])
    weighed = likelihoods * rates
    odds: Doubles = weighed / weighed.sum(axis=1, keepdims=True)
    return odds


def _fit(inputs: Doubles, kinds: NDArray[np.int64]) -> Doubles:
    """Return the weights [·, 5] of a softmax regression in which every kind counts as much."""
    counts = np.bincount(kinds, minlength=1 + len(KINDS))
    weights = (1 / np.maximum(counts, 1))[kinds]
    weights /= weights.sum()
    targets = np.eye(1 + len(KINDS))[kinds]
    bound = 0.5 * (inputs * weights[:, np.newaxis]).T @ inputs + _RIDGE * np.eye(inputs.shape[1])
    factor = cho_factor(bound)
    result = ahead = np.zeros((inputs.shape[1], 1 + len(KINDS)))
    momentum = 1.0
    for _ in range(_STEPS):
        errors = (_softmax(inputs @ ahead) - targets) * weights[:, np.newaxis]
        step = ahead - cho_solve(factor, inputs.T @ errors + _RIDGE * ahead)
        following = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = step + (momentum - 1) / following * (step - result)
        result, momentum = step, following
    return result


def _variants(
    patches: Patches, maps: LabelMaps, usual: Usual
) -> list[tuple[LabelMaps, NDArray[np.bool_]]]:
    """Return the given maps and those with an error of each kind, with the pictures that have one.

    What is planted in a picture follows from its id alone, and from the pictures that there are.
    """
    randoms = [_random(patches.ids[picture]) for picture in maps.pictures]
    chosen = np.array([_choose(row, usual.ground) for row in _judged(maps)])
    has_object = chosen >= 0
    return [
        (maps, np.ones(len(chosen), dtype=bool)),
        (_with_other_class(maps, chosen, usual, randoms), has_object & (len(usual.prior) > 2)),
        (_of_others(patches, maps, randoms), np.full(len(chosen), len(patches.ids) > 1)),
        (_moved(maps, randoms), has_object),
        (_erased(maps, chosen, usual.ground), has_object),
    ]


def _random(image_id: str) -> np.random.Generator:
    return np.random.default_rng(list(hashlib.sha256(image_id.encode()).digest()))


def _judged(maps: LabelMaps) -> list[tuple[NDArray[np.int64], NDArray[np.floating]]]:
    return list(zip(maps.classes, maps.totals, strict=True))


def _choose(row: tuple[NDArray[np.int64], NDArray[np.floating]], ground: int) -> int:
    """Return the place in K of a picture's largest object, −1 where it has none."""
    classes, totals = row
    for place, (found, total) in enumerate(zip(classes, totals, strict=True)):
        if found != ground and total >= LEAST_AREA:
            return place
    return -1


def _with_other_class(
    maps: LabelMaps, chosen: NDArray[np.int64], usual: Usual, randoms: list[np.random.Generator]
) -> LabelMaps:
    classes = maps.classes.copy()
    for row, random in enumerate(randoms):
        present = {*classes[row, maps.totals[row] > 0].tolist(), usual.ground}
        free = [place for place in range(len(usual.prior)) if place not in present]
        if chosen[row] >= 0 and free:
            new = free[random.integers(len(free))]
            # It may stand in the list without an area.
            classes[row, classes[row] == new] = classes[row, chosen[row]]
            classes[row, chosen[row]] = new
    return LabelMaps(pictures=maps.pictures, classes=classes, areas=maps.areas)


def _of_others(patches: Patches, maps: LabelMaps, randoms: list[np.random.Generator]) -> LabelMaps:
    count = len(patches.ids)
    if count == 1:
        return maps
    others = [
        (int(picture) + int(random.integers(1, count))) % count
        for picture, random in zip(maps.pictures, randoms, strict=True)
    ]
    found = [read_maps(patches, [other]).brought_to(maps.grid) for other in others]
    return LabelMaps(
        pictures=maps.pictures,
        classes=np.concatenate([each.classes for each in found]),
        areas=np.concatenate([each.areas for each in found]),
    )


def _moved(maps: LabelMaps, randoms: list[np.random.Generator]) -> LabelMaps:
    """Return maps moved by a patch in some direction, mirrored, or turned over."""
    moved = [maps.moved(direction).areas for direction in DIRECTIONS.values()]
    moved += [maps.areas[:, :, ::-1], maps.areas[:, ::-1]]
    areas = np.stack([moved[random.integers(len(moved))][n] for n, random in enumerate(randoms)])
    return LabelMaps(pictures=maps.pictures, classes=maps.classes, areas=areas)


def _erased(maps: LabelMaps, chosen: NDArray[np.int64], ground: int) -> LabelMaps:
    """Return maps whose largest object is of the largest other class, or of the ground."""
    classes, areas = maps.classes.copy(), maps.areas.copy()
    for row, place in enumerate(chosen):
        if place < 0:
            continue
        rest = [k for k in range(classes.shape[1]) if k != place and maps.totals[row, k] > 0]
        if rest:
            areas[row, ..., rest[0]] += areas[row, ..., place]
            areas[row, ..., place] = 0
        else:
            classes[row, classes[row] == ground] = classes[row, place]
            classes[row, place] = ground
    return LabelMaps(pictures=maps.pictures, classes=classes, areas=areas)


def _softmax(scores: Doubles) -> Doubles:
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Doubles = powers / powers.sum(axis=1, keepdims=True)
    return result
