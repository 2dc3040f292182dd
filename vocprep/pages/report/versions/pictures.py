"""Pictures of a version as sections: photographs beside what the shards hold of them.

Shape legend: P patches, H×W = 32·ny × 32·nx pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vocprep.analysis.components import Components
from vocprep.analysis.duplicates import Duplicates, SamePictures, SimilarPair
from vocprep.analysis.photographs import Photographs
from vocprep.analysis.statistics import SplitStatistics, records_of
from vocprep.drawing.label_maps import paint_label_map
from vocprep.drawing.legend import LegendRow, legend_rows
from vocprep.drawing.patches import frame_patches, paint_patches
from vocprep.geometry import PATCH
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.targets import STATE_OTHER, unpack_states
from vocprep.pages.report.page import Picture, Section, section, table
from vocprep.placement import join_patches
from vocprep.progress import Progress
from vocprep.shards.reader import ShardDataset
from vocprep.shards.record import PATCH_FIELDS, Record

_LARGEST = 512
"""Longer side in pixels beyond which pictures are reduced."""
_LEGEND = 8
_MOST_ROWS = 100
"""Of a table of duplicates."""
Panels = list[tuple[Picture, str]]
"""Pictures with their captions."""


@dataclass(frozen=True, kw_only=True)
class Gallery:
    """What draws pictures of a version."""

    space: LabelSpace
    photographs: Photographs | None
    components: Components | None

    def panels(self, record: Record) -> Panels:
        """Return a record's photograph, label map, patches and embeddings side by side."""
        found: Panels = []
        if self.photographs is not None:
            found.append(self.single(record, "photograph"))
        found += [self.labels(record, "label map"), self._patches(record)]
        if self.components is not None:
            colours = self.components.rgb(record.embeddings, record.grid)
            alt = f"Embeddings of {record.image_id}"
            scale = PATCH // _step(record)
            found.append((Picture.of(colours, alt, scale=scale), "embeddings"))
        return found

    def single(self, record: Record, caption: str) -> tuple[Picture, str]:
        """Return a record's photograph, or its label map where there is none."""
        photograph = self._photograph(record)
        if photograph is None:
            return self.labels(record, caption)
        return Picture.of(photograph, f"Photograph {record.image_id}"), caption

    def labels(
        self, record: Record, caption: str, framed: Sequence[int] = ()
    ) -> tuple[Picture, str]:
        """Return a record's label map, over the photograph where there is one.

        ``framed`` are numbers of patches that get a frame.
        """
        painted = paint_label_map(_label_map(record), self.space.style, self._photograph(record))
        painted = frame_patches(painted, framed, PATCH // _step(record))
        return Picture.of(painted, f"Label map of {record.image_id}"), caption

    def _patches(self, record: Record) -> tuple[Picture, str]:
        step = _step(record)
        states = unpack_states(record.slot_planes).reshape(-1, PATCH, PATCH)
        left_out = join_patches(states, record.grid)[::step, ::step] == STATE_OTHER
        style = self.space.style
        painted = paint_patches(_label_map(record), left_out, style, PATCH // step)
        return Picture.of(painted, f"Patches of {record.image_id}"), "patches with their slots"

    def legend(self, record: Record) -> tuple[LegendRow, ...]:
        """Return the classes of a record's label map with their shares."""
        return legend_rows(record.decode_label_map(), self.space.style, _LEGEND)

    def _photograph(self, record: Record) -> NDArray[np.uint8] | None:
        if self.photographs is None:
            return None
        image = self.photographs.read(record.image_id, record.image_sha256)
        return np.asarray(Image.fromarray(image).reduce(_step(record)))


def read_split(
    dataset: ShardDataset, split: str, pictures: int, progress: Progress
) -> tuple[SplitStatistics, list[Record]]:
    """Return the counts of a split, and some of its records, evenly spread over it."""
    statistics = SplitStatistics(split=split, void=dataset.label_space.void)
    total = dataset.count(split)
    wanted = {(2 * number + 1) * total // (2 * pictures) for number in range(pictures)}
    shown = []
    progress.begin(split, total, 0)
    try:
        for number, record in enumerate(records_of(dataset, split)):
            statistics.add(record)
            if number in wanted:
                shown.append(_kept(record))
            progress.advance(1)
    finally:
        progress.end()
    return statistics, shown


def pictures_section(shown: Sequence[tuple[str, Sequence[Record]]], gallery: Gallery) -> Section:
    """Return some pictures of each split with their targets and embeddings."""
    return section(
        "pictures",
        "Pictures",
        "version_pictures.html",
        splits=[
            (
                split,
                [(each.image_id, gallery.panels(each), gallery.legend(each)) for each in records],
            )
            for split, records in shown
        ],
        components=gallery.components,
        has_photographs=gallery.photographs is not None,
    )


def duplicates_section(
    found: Duplicates, dataset: ShardDataset, gallery: Gallery, most: int
) -> Section:
    """Return the pictures that are there twice, those in two splits first."""
    same = sorted(found.same, key=lambda group: (not is_leak(group), group.ids))
    similar = sorted(found.similar, key=lambda pair: (not is_leak(pair), -pair.similarity))
    ordered: list[SamePictures | SimilarPair] = [*same, *similar]
    examples = sorted(ordered, key=lambda each: not is_leak(each))[:most]
    return section(
        "duplicates",
        "Duplicates and leakage",
        "version_duplicates.html",
        found=found,
        leakage=leakage(found) if found.leaks else None,
        same=_same_table(same[:_MOST_ROWS]) if same else None,
        similar=_similar_table(similar[:_MOST_ROWS]) if similar else None,
        most=_MOST_ROWS,
        examples=[_example(each, dataset, gallery) for each in examples],
    )


def is_leak(found: SamePictures | SimilarPair) -> bool:
    """Return whether pictures that are the same are in more than one split."""
    return len(set(found.splits)) > 1


def leakage(found: Duplicates) -> str:
    """Return in a sentence how many pictures are in more than one split."""
    count = len(found.leaks)
    which = f"{count:,} picture{' is' if count == 1 else 's are'}"
    return f"{which} in more than one split: scores on one of them are too good."


def _example(
    found: SamePictures | SimilarPair, dataset: ShardDataset, gallery: Gallery
) -> tuple[str, Panels]:
    """Return the heading of a group or pair, and its first two pictures."""
    words = f"similarity {found.similarity:.2f}" if isinstance(found, SimilarPair) else "the same"
    panels = [
        gallery.single(dataset.record(image_id), f"{image_id}, {split}")
        for image_id, split in list(zip(found.ids, found.splits, strict=True))[:2]
    ]
    return f"{' and '.join(found.ids[:2])}: {words}", panels


def _same_table(groups: Sequence[SamePictures]) -> Any:
    rows = [
        (
            ", ".join(group.ids),
            ", ".join(group.splits),
            "image file" if group.same_file else "embeddings",
            group.same_labels,
        )
        for group in groups
    ]
    head = ("pictures", "splits", "the same", "the same labels")
    return table("The same picture under several ids", head, rows)


def _similar_table(pairs: Sequence[SimilarPair]) -> Any:
    rows = [(*pair.ids, ", ".join(pair.splits), f"{pair.similarity:.3f}") for pair in pairs]
    head = ("picture", "and", "splits", "similarity")
    return table("Pictures that are nearly the same, by their embeddings", head, rows)


def _kept(record: Record) -> Record:
    """Return a record that keeps no part of its shard in memory."""
    names = ("embeddings", *PATCH_FIELDS)
    fields: dict[str, Any] = {name: getattr(record, name).copy() for name in names}
    return replace(record, **fields)


def _label_map(record: Record) -> NDArray[np.uint16]:
    """Return a label map of no more pixels than are shown."""
    step = _step(record)
    return record.decode_label_map()[::step, ::step]


def _step(record: Record) -> int:
    """Return by how much a picture is reduced: a power of two, so that patches stay whole."""
    step, longer = 1, max(record.grid) * PATCH
    while longer > step * _LARGEST and step < PATCH:
        step *= 2
    return step
