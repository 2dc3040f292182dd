"""Label files → label maps, by the rule that a dataset's manifest gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vocprep.dataset_manifest import SPLIT_FIELD, DatasetManifest, LabelKind
from vocprep.errors import LabelDecodeError
from vocprep.files.reading import system_reason
from vocprep.formats.errors import FormatError, UnreadError
from vocprep.labels.arrays import read_npy_ids, read_tiff_ids
from vocprep.labels.colours import ColourTable, read_colour_png
from vocprep.labels.label_space import LabelSpace
from vocprep.labels.mat import decode_mat
from vocprep.labels.panoptic import PanopticTables
from vocprep.labels.png import decode_png
from vocprep.recipe import LabelRuleId
from vocprep.storage.places import Place
from vocprep.storage.reading import read_source
from vocprep.validation import explain

MAX_BYTES = 1 << 29
"""Of a label file: twice what the largest label map takes as MATLAB's double numbers."""


@dataclass(frozen=True, kw_only=True)
class LabelRule:
    """How the label files of a dataset are decoded, with all that is not in the files themselves.

    It pickles; ``only`` cuts it down to some files.
    """

    kind: LabelKind = "png"
    variable: str | None = None
    """``mat``: the variable, which may be of any class then; uint16 ``LabelMap`` when None."""
    colours: ColourTable | None = None
    segments: PanopticTables | None = None

    @property
    def rule_id(self) -> LabelRuleId | None:
        """What a recipe says of the rule; None where the label files alone decide the ids."""
        table = self.colours or self.segments
        if table is None and self.variable is None:
            return None
        digest = None if table is None else table.sha256
        return LabelRuleId(kind=self.kind, variable=self.variable, table_sha256=digest)

    def only(self, paths: Iterable[Place]) -> LabelRule:
        """Return the rule for some label files, without what belongs to others."""
        if self.segments is None:
            return self
        return replace(self, segments=self.segments.only(paths))

    def decode(self, data: bytes, path: Place) -> NDArray[np.uint16]:
        """Return the raw label map uint16 [H, W] of a label file's bytes.

        Raises LabelDecodeError naming ``path``.
        """
        if self.kind == "png":
            return decode_png(data, str(path))
        if self.kind == "mat":
            return decode_mat(data, str(path), self.variable)
        try:
            return self._decode_other(data, path)
        except UnreadError as error:
            raise LabelDecodeError(f"{path}: {error}") from error
        except FormatError as error:
            raise LabelDecodeError(
                f"{path}: label map does not decode: {error}; replace it by a sound copy"
            ) from error

    def _decode_other(self, data: bytes, path: Place) -> NDArray[np.uint16]:
        if self.kind == "npy":
            return read_npy_ids(data)
        if self.kind == "tiff":
            return read_tiff_ids(data)
        if self.colours is not None:
            return self.colours.apply(read_colour_png(data))
        segments = None if self.segments is None else self.segments.of(path)
        if segments is None:
            raise UnreadError(
                "no annotation is of this file; check that label_annotations in the manifest lists "
                "it by its name, as file_name"
            )
        return segments.apply(data)


def label_rule(
    dataset: DatasetManifest, data_dir: Place, splits: Sequence[str] | None = None
) -> LabelRule:
    """Return how the label files of some splits of a dataset are decoded, by default of its own.

    Raises DataDirError where the annotations of panoptic label maps cannot be read.
    """
    colours, segments = None, None
    if dataset.label_colours is not None:
        colours = ColourTable.of(dataset.label_colours)
    if dataset.label_annotations is not None:
        segments = _read_segments(dataset, data_dir, splits or dataset.splits)
    return LabelRule(
        kind=dataset.label_kind,
        variable=dataset.label_variable,
        colours=colours,
        segments=segments,
    )


def _read_segments(
    dataset: DatasetManifest, data_dir: Place, splits: Sequence[str]
) -> PanopticTables:
    """Read the annotations of each split; one file that all splits share is read once."""
    pairs = {
        (dataset.labels.replace(SPLIT_FIELD, split), annotations.replace(SPLIT_FIELD, split))
        for split in splits
        if (annotations := dataset.label_annotations) is not None
    }
    return PanopticTables.read([(folder, data_dir / file) for folder, file in sorted(pairs)])


_BY_SUFFIX = {
    ".mat": LabelRule(kind="mat"),
    ".png": LabelRule(kind="png"),
    ".npy": LabelRule(kind="npy"),
    ".tif": LabelRule(kind="tiff"),
    ".tiff": LabelRule(kind="tiff"),
}


def decode_label_map(data: bytes, path: Place, rule: LabelRule | None = None) -> NDArray[np.uint16]:
    """Return the raw label map uint16 [H, W] of a label file's bytes.

    Without a ``rule`` the suffix is the kind: values in a file of numbers, never colours. Raises
    LabelDecodeError naming ``path``.
    """
    if rule is None:
        rule = _BY_SUFFIX.get(path.suffix.lower())
    if rule is None:
        raise LabelDecodeError(
            f"{path}: expected a label map as {', '.join(_BY_SUFFIX)}, found {path.suffix!r}"
        )
    return rule.decode(data, path)


def read_label_file(path: Place) -> bytes:
    """Return a label file's bytes; LabelDecodeError when it cannot be read."""
    try:
        return read_source(path, MAX_BYTES)
    except OSError as error:
        problem = f"{path}: label map cannot be read: {explain(error)}"
        recorded = f"{path}: label map cannot be read: {system_reason(error)}"
        raise LabelDecodeError(problem, recorded=recorded) from error


def read_label_map(
    path: Place, space: LabelSpace, rule: LabelRule | None = None
) -> NDArray[np.uint16]:
    """Return a file's label map uint16 [H, W] in a label space.

    Raises LabelDecodeError naming the file when it cannot be read or holds other ids.
    """
    return space.apply(decode_label_map(read_label_file(path), path, rule), str(path))
