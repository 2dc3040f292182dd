"""What the splits of a version hold, as sections: classes, void, patches by number of labels.

Of several splits, each is a series of the same chart, so that train and val stand side by side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from markupsafe import Markup

from vocprep.analysis.statistics import SplitStatistics
from vocprep.drawing.palette import ClassStyle
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import SLOTS
from vocprep.pages.report.charts import Axes, Bar, bars, histogram
from vocprep.pages.report.page import Section, section, swatch, table
from vocprep.pages.report.page import name as shown_name
from vocprep.pages.report.versions.pictures import Panels

_CLASSES = 24
"""Classes whose bars are drawn; the table below them has all."""
_LEFT_OUT = 12
_MOST_VOID = 10
_MOST_LABELS = 6
"""Patches of more classes are counted together."""
_VOID_BINS = 20
_VOID_WIDTHS = (1.0, 2.5, 5.0)
"""Of a bin in per cent: the first that is enough, so that a little void is seen too."""
_MOST_NAMES = 12
"""Classes that a sentence names."""


def split_table(splits: Sequence[SplitStatistics]) -> Markup:
    """Return the counts of each split as a table."""
    rows = [
        (
            each.split,
            each.pictures,
            each.patches,
            len(each.pixels_of),
            each.pictures_of.total() / max(each.pictures, 1),
            percent(each.void_pixels, each.pixels),
            percent(each.left_out, each.labelled_pixels),
        )
        for each in splits
    ]
    head = (
        *("split", "pictures", "patches", "classes", "classes per picture"),
        *("void, % of pixels", f"outside the top {SLOTS}, % of labelled pixels"),
    )
    return table("What each split holds", head, rows)


def classes_section(
    splits: Sequence[SplitStatistics], space: LabelSpace, notes: Sequence[str]
) -> Section:
    """Return the classes, those with the most pixels first, split beside split."""
    ids = ranked(splits, lambda each: each.pixels_of)
    rows = [
        Bar(
            label=space.class_name(i),
            values=[percent(each.pixels_of[i], each.labelled_pixels) for each in splits],
            colour=space.style.colour(i),
        )
        for i in ids[:_CLASSES]
    ]
    return section(
        "classes",
        "Classes",
        "version_classes.html",
        found=len(ids),
        known=len(space.names),
        notes=notes,
        chart=bars(
            "Share of each split's labelled pixels (%), the largest classes first",
            [each.split for each in splits],
            rows,
            shown=_CLASSES,
        ),
        table=table(
            "All classes that occur, the largest first",
            ("class", "id", *_per_split(splits, "pixels"), *_per_split(splits, "pictures")),
            [
                (
                    class_label(i, space.style),
                    i,
                    *(each.pixels_of[i] for each in splits),
                    *(each.pictures_of[i] for each in splits),
                )
                for i in ids
            ],
        ),
    )


def void_section(splits: Sequence[SplitStatistics], examples: Panels) -> Section:
    """Return how much of the pictures is void, and the pictures with the most of it."""
    most = max((max(each.void_shares, default=0.0) for each in splits), default=0.0)
    width = next(width for width in _VOID_WIDTHS if width * _VOID_BINS >= 100 * most)
    edges = width * np.arange(_VOID_BINS + 1)
    charts = []
    for number, each in enumerate(splits):
        counts, _ = np.histogram(100 * np.asarray(each.void_shares), edges)
        charts.append(
            histogram(
                f"{each.split}: pictures by their share of void",
                edges.tolist(),
                counts.tolist(),
                Axes(x="void, % of the picture", y="pictures"),
                series=number,
            )
        )
    return section(
        "void",
        "Void",
        "version_void.html",
        shares=[(each.split, share_text(each.void_pixels, each.pixels)) for each in splits],
        charts=charts if most else [],
        examples=examples,
        table=table(
            "Pictures with the most void",
            ("picture", "split", "void %"),
            [(image_id, split, 100 * share) for image_id, split, share in most_void(splits)],
        ),
    )


def most_void(splits: Sequence[SplitStatistics]) -> list[tuple[str, str, float]]:
    """Return the pictures with the most void: id, split and share, the largest first."""
    found = [
        (-share, image_id, each.split) for each in splits for image_id, share in each.most_void
    ]
    return [(image_id, split, -share) for share, image_id, split in sorted(found)[:_MOST_VOID]]


def patches_section(splits: Sequence[SplitStatistics], left_out: Markup | None) -> Section:
    """Return patches by number of classes, and what the slots leave out."""
    rows = [
        Bar(
            label=_label_count(labels),
            values=[percent(_patches_with(each, labels), each.patches) for each in splits],
        )
        for labels in range(_MOST_LABELS + 1)
    ]
    return section(
        "patches",
        "Patches and slots",
        "version_patches.html",
        slots=SLOTS,
        splits=[
            (
                each.split,
                share_text(each.crowded_patches, each.patches),
                share_text(each.left_out, each.labelled_pixels),
                share_text(each.patches_by_labels[0], each.patches),
            )
            for each in splits
        ],
        chart=bars(
            "Share of each split's patches (%) by number of classes in the patch",
            [each.split for each in splits],
            rows,
        ),
        left_out=left_out,
    )


def left_out_table(splits: Sequence[SplitStatistics], space: LabelSpace) -> Markup | None:
    """Return the classes that lose the most pixels to larger ones; None where none does."""
    ids = ranked(splits, lambda each: each.left_out_of)[:_LEFT_OUT]
    if not ids:
        return None
    rows = []
    for class_id in ids:
        lost = sum(each.left_out_of[class_id] for each in splits)
        total = sum(each.pixels_of[class_id] for each in splits)
        rows.append((class_label(class_id, space.style), lost, percent(lost, total)))
    return table(
        "Classes with the most pixels outside the slots, all splits together",
        ("class", "pixels left out", "% of the class"),
        rows,
    )


def class_label(class_id: int, style: ClassStyle) -> Markup:
    """Return a class's name beside its colour."""
    return swatch(style.colour(class_id)) + shown_name(style.name(class_id))


def percent(part: float, whole: float) -> float:
    """Return a share in per cent, 0 of nothing."""
    return 100 * part / whole if whole else 0.0


def share_text(part: float, whole: float) -> str:
    """Write a share in per cent, so that only nothing is written as 0.

    >>> share_text(0, 5), share_text(1, 1_000_000), share_text(1, 3)
    ('0 %', '<0.01 %', '33.33 %')
    """
    found = percent(part, whole)
    return f"{found:.2f} %" if found >= 0.005 else "<0.01 %" if found else "0 %"


def ranked(
    splits: Sequence[SplitStatistics], counts: Callable[[SplitStatistics], Counter[int]]
) -> list[int]:
    """Return the class ids that are counted, the largest sum over all splits first, ties by id."""
    total: Counter[int] = Counter()
    for each in splits:
        total.update(counts(each))
    return sorted((key for key, count in total.items() if count), key=lambda i: (-total[i], i))


def _per_split(splits: Sequence[SplitStatistics], noun: str) -> list[str]:
    return [f"{noun}, {each.split}" for each in splits]


def _patches_with(split: SplitStatistics, labels: int) -> int:
    """Return how many patches hold so many classes; of ``_MOST_LABELS``, so many or more."""
    counts = split.patches_by_labels
    if labels < _MOST_LABELS:
        return counts[labels]
    return sum(count for found, count in counts.items() if found >= labels)


def _label_count(labels: int) -> str:
    """Write a number of classes of a patch.

    >>> [_label_count(labels) for labels in (0, 1, _MOST_LABELS)]
    ['none: all void', '1 class', '6 classes or more']
    """
    if not labels:
        return "none: all void"
    return _counted(labels) + (" or more" if labels == _MOST_LABELS else "")


def class_notes(splits: Sequence[SplitStatistics], space: LabelSpace) -> Iterator[str]:
    """Yield in words which classes occur nowhere, or not in the first split but in another.

    The first one is the one that is trained on.
    """
    first, others = splits[0], splits[1:]
    missing = sorted({i for each in others for i in each.pixels_of} - first.pixels_of.keys())
    if missing:
        where = " or ".join(each.split for each in others)
        yield f"{_occur(missing)} in {where}, but in no picture of {first.split}: " + names(
            missing, space
        )
    unused = sorted(set(space.names) - set(ranked(splits, lambda each: each.pixels_of)))
    if unused:
        yield f"{_occur(unused)} in no picture: {names(unused, space)}"


def _occur(ids: Sequence[int]) -> str:
    return f"{_counted(len(ids))} occur{'s' if len(ids) == 1 else ''}"


def _counted(count: int) -> str:
    return f"{count:,} class{'' if count == 1 else 'es'}"


def names(ids: Sequence[int], space: LabelSpace) -> str:
    """Return the names of classes with commas between them, the first few of many."""
    more = f" and {len(ids) - _MOST_NAMES:,} more" if len(ids) > _MOST_NAMES else ""
    return ", ".join(space.class_name(i) for i in ids[:_MOST_NAMES]) + more
