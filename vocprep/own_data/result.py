"""What ``init`` found and wrote, for people and for programs."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vocprep.dataset_manifest import DATASET_FILE
from vocprep.own_data.content.choices import Choices
from vocprep.own_data.content.survey import Size, Survey
from vocprep.own_data.description import Description
from vocprep.own_data.pairing import suffix_counts
from vocprep.own_data.writing.texts import CLASSES_FILE


@dataclass(frozen=True, kw_only=True)
class ClassRow:
    """A value of masks, or a colour, with the class that it stands for."""

    value: str
    """An id, or ``#rrggbb``."""
    id: int | None
    """None where it is a question."""
    name: str
    percent: float
    """Of the pixels that were looked at."""
    masks: int
    """That hold it, of those that were looked at."""


@dataclass(frozen=True, kw_only=True)
class InitResult:
    """What a folder holds, and what was written about it."""

    folder: Path
    out: Path
    name: str
    layout: str
    pictures: Mapping[str, int]
    """By suffix."""
    masks: int
    paired: int
    """Pictures with a mask."""
    looked_at: int
    """Masks that were decoded."""
    modes: Mapping[str, int]
    """Masks by the kind of their pixels."""
    sizes: Mapping[str, tuple[int, int]]
    """``smallest``, ``largest`` and ``most common`` width and height of pictures."""
    classes: tuple[ClassRow, ...]
    void: int | None
    """None where it is a question."""
    void_note: str
    void_percent: float | None
    splits: Mapping[str, int]
    """Pictures by split."""
    notes: tuple[str, ...]
    questions: tuple[str, ...]
    files: tuple[Path, ...]
    """That were written, or would be in a dry run."""
    dry_run: bool

    @property
    def command(self) -> str:
        """The command that builds shards of it."""
        words = ("vocprep", "build-shards", str(self.out / DATASET_FILE))
        more = ("--data-dir", str(self.folder), "--out", f"shards/{self.name}")
        return shlex.join((*words, *more))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "folder": str(self.folder),
            "name": self.name,
            "layout": self.layout,
            "pictures": dict(self.pictures),
            "masks": self.masks,
            "pictures_with_mask": self.paired,
            "masks_looked_at": self.looked_at,
            "modes": dict(self.modes),
            "sizes": {key: list(size) for key, size in self.sizes.items()},
            "classes": [vars(row) for row in self.classes],
            "void": self.void,
            "void_percent": self.void_percent,
            "splits": dict(self.splits),
            "notes": list(self.notes),
            "questions": list(self.questions),
            "files": [str(path) for path in self.files],
            "dry_run": self.dry_run,
            "command": self.command,
        }


def result_of(
    described: Description,
    out: Path,
    files: Sequence[str],
    more_notes: Sequence[str],
    *,
    dry_run: bool,
) -> InitResult:
    """Return the result of a dataset whose manifests are ``files`` below ``out``.

    ``more_notes`` are those on this call alone, which no manifest holds.
    """
    choices, pairs, sums = described.choices, described.pairs, described.survey
    rows = class_rows(choices, sums)
    void = [row.percent for row in rows if row.id == choices.void]
    return InitResult(
        folder=described.root,
        out=out,
        name=described.name,
        layout=described.found.layout,
        pictures=dict(suffix_counts(pairs.pictures)),
        masks=len(pairs.masks),
        paired=len(pairs.image_ids),
        looked_at=sums.looked_at,
        modes=dict(sums.modes),
        sizes=_sizes(sums),
        classes=rows,
        void=choices.void,
        void_note=choices.void_note,
        void_percent=None if choices.void is None else sum(void),
        splits={split: len(ids) for split, ids in described.splits.members.items()},
        notes=(*described.notes, *more_notes),
        questions=tuple(
            f"{out / (CLASSES_FILE if key == 'void' else DATASET_FILE)}: {text}"
            for key, text in choices.questions.items()
        ),
        files=tuple(out / path for path in files),
        dry_run=dry_run,
    )


def class_rows(choices: Choices, sums: Survey) -> tuple[ClassRow, ...]:
    """Return the values or colours of masks with the classes they stand for, by id."""
    by_colour = choices.label_kind == "colours"
    ids: Mapping[str, int | None] = (
        choices.label_colours if by_colour else {str(key): key for key in sums.values}
    )
    counts = {key: sums.pixels_of(key, by_colour=by_colour) for key in ids}
    total = sum(counts.values()) or 1
    rows = [
        ClassRow(
            value=value,
            id=key,
            name=_name(choices, key),
            percent=round(100 * counts[value] / total, 4),
            masks=sums.masks_with(value, by_colour=by_colour),
        )
        for value, key in ids.items()
    ]
    return tuple(sorted(rows, key=lambda row: (row.id is None, row.id or 0)))


def _name(choices: Choices, key: int | None) -> str:
    if key is None:
        return "?"
    return "void" if key == choices.void else choices.names.get(key, f"class {key}")


def _sizes(sums: Survey) -> dict[str, Size]:
    sizes = sums.picture_sizes
    if not sizes:
        return {}
    by_area = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    common = max(sizes.items(), key=lambda item: (item[1], item[0]))[0]
    return {"smallest": by_area[0], "largest": by_area[-1], "most common": common}
