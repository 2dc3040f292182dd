"""Evidence: numbers that tell how far a picture's label map is from what the model makes of it.

Each is judged against what is usual for the classes of the picture, since the model knows some
classes better than others. All follow from out-of-fold probabilities.

Shape legend: N pictures, P = ny·nx patches, K classes of a picture, C classes that occur.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vocprep.auditing.maps import DIRECTIONS, LEAST_AREA, LabelMaps, blocks, read_maps, rows_of
from vocprep.auditing.patches import Patches

_OTHERS = 64
"""Label maps of other pictures that each picture is tried with."""
_SHRINK = 10
"""Pictures that what is usual for all classes weighs as, beside those of one class."""
_NONE = -9.0
"""Evidence where there is nothing to judge."""
_WORST = 0.2
"""Part of the patches that the worst are."""
_SEED = 15
Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Believed:
    """What the model makes of N pictures of one grid."""

    logs: Floats
    """[N, P, C] log probabilities."""
    means: Floats
    """[N, C] logs of the mean probability over the picture."""
    peaks: Floats
    """[N, C] logs of the mean, half of it over the quarter of the patches with the most."""

    @classmethod
    def of(cls, logs: NDArray[np.floating]) -> Self:
        """Sum up log probabilities [N, P, C]."""
        probabilities = np.exp(logs.astype(np.float32))
        means = probabilities.mean(axis=1)
        quarter = -(-probabilities.shape[1] // 4)
        largest = np.partition(probabilities, -quarter, axis=1)[:, -quarter:].mean(axis=1)
        return cls(
            logs=logs.astype(np.float32),
            means=np.log(means + 1e-4),
            peaks=np.log((means + largest) / 2 + 1e-4),
        )

    def of_classes(self, classes: NDArray[np.int64]) -> Floats:
        """Return the log probabilities [N, P, K] of the given classes [N, K] of each picture."""
        return np.take_along_axis(self.logs, classes[:, np.newaxis], axis=2)


@dataclass(frozen=True, kw_only=True)
class Match:
    """How the classes of label maps agree with what the model makes of their areas."""

    own: Floats
    """[N, K] mean log probability of a class over its area."""
    gain: Floats
    """[N, K] how much more another class would have there."""
    better: NDArray[np.int64]
    """[N, K] which one."""

    @classmethod
    def of(cls, maps: LabelMaps, believed: Believed) -> Self:
        """Compare label maps with probabilities."""
        areas = maps.areas.reshape(*believed.logs.shape[:2], -1)
        total = areas.sum(axis=1)[..., np.newaxis] + 1e-6
        means = areas.transpose(0, 2, 1) @ believed.logs / total  # [N, K, C]
        places = maps.classes[..., np.newaxis]
        own = np.take_along_axis(means, places, axis=2)[..., 0]
        np.put_along_axis(means, places, -np.inf, axis=2)
        better = means.argmax(axis=2)
        best = np.take_along_axis(means, better[..., np.newaxis], axis=2)[..., 0]
        return cls(own=own, gain=np.where(np.isfinite(best), best - own, 0), better=better)


@dataclass(frozen=True, kw_only=True)
class Usual:
    """What is usual of each class [C] in the pictures of a version."""

    ground: int
    """The class with the most pixels."""
    loss: Doubles
    """Mean loss of its pixels."""
    prior: Doubles
    """Log of its mean probability."""
    own: Doubles
    gain: Doubles
    peak: Doubles
    """Medians over pictures that have the class."""
    absent: Doubles
    spread: Doubles
    """Median and deviation of the peak over pictures that lack the class."""
    others: tuple[LabelMaps, ...]
    """Label maps, one each, that every picture is tried with."""

    @classmethod
    def of(cls, patches: Patches, logs: NDArray[np.float16]) -> Self:
        """Gather what is usual from all pictures."""
        gathered = _Gathered(len(patches.classes))
        for maps in blocks(patches):
            gathered.add(maps, Believed.of(logs[rows_of(patches, maps.pictures.tolist())]))
        random = np.random.default_rng(_SEED)
        chosen = random.permutation(len(patches.ids))[:_OTHERS].tolist()
        return cls(
            ground=gathered.ground,
            **gathered.summary(),
            others=tuple(read_maps(patches, [picture]) for picture in chosen),
        )


class _Gathered:
    """Sums over pictures, and the values whose medians are wanted."""

    def __init__(self, classes: int) -> None:
        self._classes = classes
        self._loss, self._area, self._probability = np.zeros((3, classes))
        self._patches = 0
        self._values: list[tuple[NDArray[np.int64], Floats]] = []
        self._absent: list[tuple[NDArray[np.bool_], Floats]] = []

    def add(self, maps: LabelMaps, believed: Believed) -> None:
        """Add pictures."""
        areas = maps.areas.reshape(*believed.logs.shape[:2], -1)
        losses = -(areas * believed.of_classes(maps.classes)).sum(axis=1)
        np.add.at(self._loss, maps.classes, losses)
        np.add.at(self._area, maps.classes, areas.sum(axis=1))
        self._probability += np.exp(believed.logs).sum(axis=(0, 1), dtype=np.float64)
        self._patches += areas.shape[0] * areas.shape[1]
        match, large = Match.of(maps, believed), maps.totals >= LEAST_AREA
        peaks = np.take_along_axis(believed.peaks, maps.classes, axis=1)
        values = np.stack([match.own, match.gain, peaks], axis=-1)
        self._values.append((maps.classes[large], values[large]))
        present = np.zeros(believed.peaks.shape, dtype=bool)
        np.put_along_axis(present, maps.classes, maps.totals > 0, axis=1)
        self._absent.append((present, believed.peaks))

    @property
    def ground(self) -> int:
        """The class with the most pixels."""
        return int(self._area.argmax())

    def summary(self) -> dict[str, Doubles]:
        """Return what is usual of each class."""
        medians = self._medians()
        absent, spread = self._lacking()
        return {
            "loss": self._loss / (self._area + 50),
            "prior": np.log(self._probability / self._patches + 1e-4),
            "own": medians[:, 0],
            "gain": medians[:, 1],
            "peak": medians[:, 2],
            "absent": absent,
            "spread": spread,
        }

    def _medians(self) -> Doubles:
        """Return the medians [C, 3] of values, those of few pictures drawn to that of all."""
        classes = np.concatenate([classes for classes, _ in self._values])
        values = np.concatenate([values for _, values in self._values]).astype(np.float64)
        whole = np.median(values, axis=0) if len(values) else np.zeros(3)
        medians = np.tile(whole, (self._classes, 1))
        for place in np.unique(classes):
            own = values[classes == place]
            weighed = np.median(own, axis=0) * len(own) + whole * _SHRINK
            medians[place] = weighed / (len(own) + _SHRINK)
        return medians

    def _lacking(self) -> tuple[Doubles, Doubles]:
        """Return median and deviation [C] of the peaks of pictures that lack a class."""
        present = np.concatenate([present for present, _ in self._absent])
        peaks = np.concatenate([peaks for _, peaks in self._absent]).astype(np.float64)
        medians, spreads = np.zeros(self._classes), np.ones(self._classes)
        for place in range(self._classes):
            lacking = peaks[~present[:, place], place]
            if len(lacking) > 3:
                medians[place] = np.median(lacking)
                spreads[place] = 1.4826 * np.median(np.abs(lacking - medians[place])) + 0.3
        return medians, spreads


def tried_with_others(usual: Usual, believed: Believed, grid: tuple[int, int]) -> Floats:
    """Return how well [N, S] each of the sample of label maps fits pictures of a grid."""
    return np.concatenate(
        [
            _fit(other.brought_to(grid), believed, usual.prior, len(believed.logs))
            for other in usual.others
        ],
        axis=1,
    )


def _fit(maps: LabelMaps, believed: Believed, prior: Doubles, pictures: int) -> Floats:
    """Return how much more probable [N, 1] maps are than their classes are anywhere, per pixel.

    ``maps`` are those of the pictures, or one map that is tried with each of them.
    """
    classes = np.broadcast_to(maps.classes, (pictures, maps.classes.shape[1]))
    areas = maps.areas.reshape(len(maps.areas), believed.logs.shape[1], -1)
    evidence = believed.of_classes(classes) - prior[classes][:, np.newaxis]
    fits: Floats = (areas * evidence).sum(axis=(1, 2)) / (areas.sum(axis=(1, 2)) + 1e-6)
    return fits[:, np.newaxis].astype(np.float32)


def gather_evidence(
    maps: LabelMaps, believed: Believed, usual: Usual, others: Floats
) -> dict[str, Doubles]:
    """Return evidence [N] by name for label maps; the larger, the likelier one is wrong.

    ``others`` [N, S] are from ``tried_with_others``.
    """
    match, large = Match.of(maps, believed), maps.totals >= LEAST_AREA
    own_fit = _fit(maps, believed, usual.prior, len(believed.logs))
    evidence = {
        **_of_patches(maps, believed, usual),
        "fit": -own_fit[:, 0],
        "fit_beside_others": (others.mean(axis=1) - own_fit[:, 0]) / (others.std(axis=1) + 1e-3),
        "rank_among_others": (others > own_fit).mean(axis=1),
        **_of_classes(maps, believed, usual, match),
        **_of_transformed(maps, believed),
        "largest_class": maps.totals.max(axis=1) / (maps.totals.sum(axis=1) + 1e-6),
        "classes": large.sum(axis=1),
        "uncertainty": -(np.exp(believed.logs) * believed.logs).sum(axis=2).mean(axis=1),
        "expected": (maps.totals * np.exp(_of_maps(believed.means, maps))).sum(axis=1),
    }
    return {name: np.clip(value.astype(np.float64), -20, 20) for name, value in evidence.items()}


def _of_patches(maps: LabelMaps, believed: Believed, usual: Usual) -> dict[str, Doubles]:
    """Return the loss beyond what is usual of the classes: of a picture, and its worst patches."""
    areas = maps.areas.reshape(*believed.logs.shape[:2], -1)
    beyond = -believed.of_classes(maps.classes) - usual.loss[maps.classes][:, np.newaxis]
    losses = (areas * beyond).sum(axis=2)
    worst = max(1, round(_WORST * losses.shape[1]))
    return {
        "loss": losses.sum(axis=1) / (areas.sum(axis=(1, 2)) + 1e-6),
        "worst_patches": np.sort(losses, axis=1)[:, -worst:].mean(axis=1),
    }


def _of_classes(
    maps: LabelMaps, believed: Believed, usual: Usual, match: Match
) -> dict[str, Doubles]:
    """Return evidence against the least likely class of a picture, and for one that it lacks."""
    large = maps.totals >= LEAST_AREA
    judged = large & (maps.classes != usual.ground)
    means, peaks = _of_maps(believed.means, maps), _of_maps(believed.peaks, maps)
    lacking = (believed.peaks - usual.absent) / usual.spread
    np.put_along_axis(
        lacking, maps.classes, np.where(maps.totals > 0, _NONE, 0) + _of_maps(lacking, maps), 1
    )

    def largest(values: NDArray[np.floating], where: NDArray[np.bool_]) -> Doubles:
        found: Doubles = np.where(where, values, _NONE).max(axis=1)
        return found

    return {
        "gain": largest(match.gain, judged),
        "gain_beyond": largest(match.gain - usual.gain[maps.classes], large),
        "unlikely": largest(-match.own, judged),
        "unlikely_beyond": largest(usual.own[maps.classes] - match.own, large),
        "missing": largest(-means, judged),
        "missing_beyond": largest(usual.peak[maps.classes] - peaks, large),
        "unlabelled": lacking.max(axis=1),
    }


def _of_maps(values: NDArray[np.floating], maps: LabelMaps) -> NDArray[np.floating]:
    """Return values [N, C] of the classes [N, K] of maps."""
    found: NDArray[np.floating] = np.take_along_axis(values, maps.classes, axis=1)
    return found


def _of_transformed(maps: LabelMaps, believed: Believed) -> dict[str, Doubles]:
    """Return how much better a picture's own map fits when it is moved, mirrored or turned over."""
    gains = transformation_gains(maps, believed)
    mirrored, turned = gains.pop("mirrored"), gains.pop("upside down")
    return {
        "shift": np.max(list(gains.values()), axis=0),
        "mirrored": mirrored,
        "upside_down": turned,
    }


def transformation_gains(maps: LabelMaps, believed: Believed) -> dict[str, Doubles]:
    """Return how much better [N] maps fit when transformed, in log probability per patch."""
    logs = believed.of_classes(maps.classes).reshape(maps.areas.shape)
    whole = maps.areas.shape[1] * maps.areas.shape[2]
    still = (maps.areas * logs).sum(axis=(1, 2, 3)) / whole
    return {
        **{words: _shift_gain(maps.areas, logs, step) for words, step in DIRECTIONS.items()},
        "mirrored": (maps.areas[:, :, ::-1] * logs).sum(axis=(1, 2, 3)) / whole - still,
        "upside down": (maps.areas[:, ::-1] * logs).sum(axis=(1, 2, 3)) / whole - still,
    }


def _shift_gain(areas: Floats, logs: Floats, direction: tuple[int, int]) -> Doubles:
    """Return how much better maps fit when moved by a patch, where they cover the picture then."""
    sizes = areas.shape[1:3]
    to, origin = (
        tuple(
            slice(max(sign * step, 0), size + min(sign * step, 0))
            for step, size in zip(direction, sizes, strict=True)
        )
        for sign in (1, -1)
    )
    moved, still = areas[:, *origin], areas[:, *to]
    if not moved.shape[1] * moved.shape[2]:
        return np.full(len(areas), _NONE)
    gain: Doubles = ((moved - still) * logs[:, *to]).mean(axis=(1, 2)).sum(axis=1)
    return gain.astype(np.float64)
