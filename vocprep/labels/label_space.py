"""Label spaces: class ids with names, and the mapping from raw label ids to class ids.

``manifests/labels/NAME.toml`` holds a label space: its void id and its class names. One with a
``base`` has the base's raw ids and maps them by class name; an id without a class becomes void.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from vocprep.drawing.palette import ClassStyle, rgb_of
from vocprep.errors import LabelDecodeError, ManifestError, UsageError
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.labels.label_space_files import OUTSIDE, LabelSpaceManifest, StoredLabelSpace
from vocprep.manifest_paths import locate_reference
from vocprep.manifests import find_manifest, read_manifest
from vocprep.validation import explain, from_json

UNKNOWN = "unknown"
"""The class that ``void_unknown`` makes void."""


def _no_colours() -> Mapping[int, str]:
    return MappingProxyType({})


@dataclass(frozen=True, kw_only=True)
class LabelSpace:
    """A label space: class ids with names, the void id, and the mapping from raw ids."""

    name: str
    title: str
    void: int
    """Id of pixels that are neither trained on nor scored."""
    names: Mapping[int, str]
    """Class ids and names, void not among them."""
    void_unknown: bool
    raw_to_class: Mapping[int, int]
    """Every raw id that may occur, and the class id (or void) it becomes."""
    colours: Mapping[int, str] = field(default_factory=_no_colours, compare=False)
    """``#rrggbb`` of the class ids that have a colour of their own. They decide how classes are
    drawn and nothing else: neither equality nor ``sha256`` counts them."""
    _table: NDArray[np.uint16] = field(repr=False, compare=False)
    """``raw_to_class`` over all uint16 values, 65535 where a raw id may not occur."""
    _unchanged: int = field(repr=False, compare=False)
    """Raw ids below this one stay as they are."""
    _keeps_void: bool = field(repr=False, compare=False)
    """Whether the void id stays as it is."""

    def __repr__(self) -> str:
        return f"LabelSpace({self.name!r}, {len(self.names)} classes, void {self.void})"

    @classmethod
    def made(
        cls,
        *,
        name: str,
        title: str,
        void: int,
        names: Mapping[int, str],
        void_unknown: bool,
        raw_to_class: Mapping[int, int],
    ) -> Self:
        """Make a label space from its parts."""
        table = np.full(65536, OUTSIDE, dtype=np.uint16)
        table[list(raw_to_class)] = list(raw_to_class.values())
        changed = np.flatnonzero(table != np.arange(len(table)))
        return cls(
            name=name,
            title=title,
            void=void,
            names=MappingProxyType(dict(names)),
            void_unknown=void_unknown,
            raw_to_class=MappingProxyType(dict(raw_to_class)),
            _table=table,
            _unchanged=int(changed[0]) if len(changed) else len(table),
            _keeps_void=bool(table[void] == void),
        )

    @classmethod
    def of_classes(cls, *, name: str, void: int, names: Mapping[int, str]) -> Self:
        """Make a label space whose raw ids are its class ids.

        This is the part that trained heads keep of a label space, which may have been mapped from
        other raw ids.

        >>> space = LabelSpace.of_classes(name="pets", void=255, names={1: "cat", 2: "dog"})
        >>> space.outputs, space.class_name(2), space.class_name(9)
        (3, 'dog', 'class 9')
        """
        return cls.made(
            name=name,
            title=name,
            void=void,
            names=names,
            void_unknown=False,
            raw_to_class={key: key for key in (void, *names)},
        )

    def with_colours(self, colours: Mapping[int, str]) -> Self:
        """Return the same label space with ``#rrggbb`` of the classes that have such a colour."""
        return replace(self, colours=MappingProxyType(dict(colours)))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` is the inverse."""
        return {
            "name": self.name,
            "title": self.title,
            "void": self.void,
            "void_unknown": self.void_unknown,
            "names": {str(key): name for key, name in self.names.items()},
            "raw_to_class": {str(key): value for key, value in self.raw_to_class.items()},
            **self.colours_to_json(),
        }

    def colours_to_json(self) -> dict[str, dict[str, str]]:
        """Return the field of colours; none where no colour was given, as in older files."""
        colours = {str(key): colour for key, colour in sorted(self.colours.items())}
        return {"colours": colours} if colours else {}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Self:
        """Rebuild a label space; ManifestError when the values are not those of one."""
        try:
            stored = from_json(StoredLabelSpace, value)
        except (TypeError, ValueError) as error:
            raise ManifestError(f"not a label space: {explain(error)}") from error
        parts = dict(stored)
        colours = parts.pop("colours") or {}
        return cls.made(**parts).with_colours(colours)

    def __reduce__(self) -> tuple[Any, ...]:
        return LabelSpace.from_json, (self.to_json(),)  # a mapping proxy does not pickle

    @property
    def outputs(self) -> int:
        """C, the outputs of the heads: the largest class id plus one, so that an index is an id."""
        return max(self.names) + 1

    @cached_property
    def style(self) -> ClassStyle:
        """How the classes are drawn."""
        given = {key: rgb_of(colour) for key, colour in self.colours.items()}
        return ClassStyle.of(self.names, self.void, self.class_name, given)

    @property
    def sha256(self) -> str:
        """Digest of the label space; title, name and colours do not count."""
        return sha256_hex(
            canonical_json(
                {
                    "void": self.void,
                    "names": {str(key): name for key, name in self.names.items()},
                    "raw": {str(key): value for key, value in self.raw_to_class.items()},
                }
            )
        )

    def apply(self, raw: NDArray[np.uint16], where: str) -> NDArray[np.uint16]:
        """Return the label map [H, W] of a raw one, in this label space.

        Raises LabelDecodeError naming ``where`` when a raw id is outside the label space.

        >>> space = LabelSpace.of_classes(name="pets", void=255, names={1: "cat"})
        >>> space.apply(np.array([[1, 255]], dtype=np.uint16), "a.png").tolist()
        [[1, 255]]
        """
        below = raw < self._unchanged
        # Of most label spaces, void is the only id above the classes.
        if below.all() or (self._keeps_void and (below | (raw == self.void)).all()):
            return raw
        mapped: NDArray[np.uint16] = self._table.take(raw)
        if mapped.max(initial=0) == OUTSIDE:
            row, column = np.argwhere(mapped == OUTSIDE)[0]
            raise LabelDecodeError(
                f"{where}: label id {int(raw[row, column])} at row {row}, column {column} is "
                f"outside schema {self.name}: expected {_ranges(self.raw_to_class)}; "
                "check --schema or the file"
            )
        return mapped

    def class_name(self, class_id: int) -> str:
        """Return a class's name for people: void is called void, other unnamed ids by number."""
        return "void" if class_id == self.void else self.names.get(class_id, f"class {class_id}")


def load_label_space(name_or_path: str | Path, *, void_unknown: bool = False) -> LabelSpace:
    """Read a label space by shipped name or by the path of a TOML file.

    ``void_unknown`` makes the class "unknown" (Pascal Context's 431) void; UsageError when the
    label space has no such class.

    >>> space = load_label_space("voc21")
    >>> space.void, space.outputs, space.class_name(15)
    (255, 21, 'person')
    """
    path = find_manifest("labels", str(name_or_path))
    manifest = read_manifest(LabelSpaceManifest, path)
    raw_to_class = _raw_to_class(path, manifest)
    names, colours = dict(manifest.names), dict(manifest.colours or {})
    if void_unknown:
        unknown = next((key for key, name in names.items() if name == UNKNOWN), None)
        if unknown is None:
            raise UsageError(
                f"label space {path.stem} has no class {UNKNOWN!r} to make void: leave "
                "--void-unknown out"
            )
        del names[unknown]
        colours.pop(unknown, None)
        raw_to_class[unknown] = manifest.void
    return LabelSpace.made(
        name=path.stem,
        title=manifest.title,
        void=manifest.void,
        names=names,
        void_unknown=void_unknown,
        raw_to_class=raw_to_class,
    ).with_colours(colours)


def _raw_to_class(path: Path, manifest: LabelSpaceManifest) -> dict[int, int]:
    """Return every raw id that may occur with the id it becomes."""
    if manifest.base is None:
        return {key: key for key in [manifest.void, *manifest.names]}
    try:
        base = read_manifest(
            LabelSpaceManifest, find_manifest("labels", locate_reference(manifest.base, path))
        )
    except UsageError as error:
        raise ManifestError(f"{path}: base: {error}") from error
    base_ids = {name: key for key, name in base.names.items()}
    mapping = dict.fromkeys([base.void, *base.names], manifest.void)
    for key, name in manifest.names.items():
        base_name = manifest.base_names.get(name, name)
        if base_name not in base_ids:
            raise ManifestError(
                f"{path}: class {name!r} is not a class of {manifest.base}; add it to base_names"
            )
        mapping[base_ids[base_name]] = key
    return mapping


def _ranges(ids: Mapping[int, int]) -> str:
    """Write ids for people: ``0..20, 255``."""
    parts: list[list[int]] = []
    for key in sorted(ids):
        if parts and key == parts[-1][-1] + 1:
            parts[-1][1:] = [key]
        else:
            parts.append([key])
    return ", ".join("..".join(str(end) for end in part) for part in parts)
