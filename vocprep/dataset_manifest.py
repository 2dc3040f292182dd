"""The manifest of a dataset: where its images, label maps and splits are, and what they look like.

Folders are below the data dir. Where ``images`` holds ``{split}``, each split has a folder of its
own, and an image id begins with the name of its split, so that ids differ between splits.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BeforeValidator, Field, PrivateAttr, field_validator, model_validator

from vocprep.errors import UsageError
from vocprep.files.names import PLAIN_NAME, is_plain_name
from vocprep.manifest_paths import (
    FolderBelow,
    ManifestModel,
    PathBelow,
    Reference,
    beside,
    each_once,
    locate_reference,
    one_line,
    same_file,
)
from vocprep.validation import printable

DATASET_FILE: Final = "dataset.toml"
"""Manifest that ``vocprep init`` writes."""
SPLIT_FIELD: Final = "{split}"
"""Stands in a path for the name of a split."""
WHOLE: Final = "all"
"""The split of a dataset without splits."""
ImageSuffix = Literal[".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp"]
IMAGE_SUFFIXES: Final[tuple[ImageSuffix, ...]] = (
    *(".jpg", ".jpeg", ".png", ".webp"),
    *(".tif", ".tiff", ".bmp"),
)
"""Of the pictures that builds read; the letter case of a file's suffix does not count."""
LabelKind = Literal["mat", "png", "npy", "tiff", "colours", "panoptic"]
LABEL_SUFFIXES: Final[dict[LabelKind, str]] = {
    "mat": ".mat",
    "png": ".png",
    "npy": ".npy",
    "tiff": ".tif",
    "colours": ".png",
    "panoptic": ".png",
}
"""What follows the image id in the name of a label file, where the manifest does not say."""
LIST_SUFFIXES: Final = (".txt", ".csv", ".json")
"""Of the files of ``split_lists``."""
SplitFlags = Literal["positive", "present", "all"]
"""Which lines of a split file with flags are taken: those with 1, with 1 and 0, or every one."""
_SUFFIX = re.compile(r"[^/\\]*\.\w+")
_COLOUR = re.compile(r"#[0-9a-f]{6}")


def _small_letters(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _raw_id(value: object) -> object:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < (1 << 16) - 1:
        raise ValueError(f"expected an id, 0 to 65534, found {printable(repr(value), 60)}")
    return value


class DatasetManifest(ManifestModel):
    """A named pairing of an image folder with a label source, label spaces and splits."""

    name: str
    title: str
    sources: tuple[Reference, ...] = ()
    """The sources that fill the data dir; none for one's own images."""
    images: FolderBelow
    """Folder of the images below the data dir; may hold ``{split}``."""
    image_suffixes: (
        Annotated[
            tuple[Annotated[ImageSuffix, BeforeValidator(_small_letters)], ...],
            Field(min_length=1),
        ]
        | None
    ) = None
    """Suffixes of the images; any of ``IMAGE_SUFFIXES`` when None."""
    labels: FolderBelow
    """Folder of the label maps below the data dir; may hold ``{split}``."""
    label_kind: LabelKind
    label_suffix: str | None = None
    """What follows the image id in the name of a label file; that of the kind when None."""
    label_variable: Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,62}$")] | None = None
    """``mat``: name of the variable that holds the label map; ``LabelMap`` when None."""
    label_colours: dict[str, Annotated[int, BeforeValidator(_raw_id)]] | None = None
    """``colours``: the raw id of each colour ``#rrggbb`` that occurs, that of void too."""
    label_annotations: PathBelow | None = None
    """``panoptic``: the JSON file of the segments below the data dir; may hold ``{split}``."""
    split_files: FolderBelow | None = None
    """Folder of ``SPLIT.txt`` below the data dir, one image id per line."""
    split_lists: dict[str, Annotated[str, Field(min_length=1)]] | None = None
    """By split: the file that lists its images, ``.txt``, ``.csv`` or ``.json``. The path is
    relative to the manifest's folder."""
    splits: Annotated[tuple[str, ...], Field(min_length=1)]
    """Splits that are built when none is named."""
    split_flags: SplitFlags | None = None
    """Which lines of split files with flags are taken; such files are refused when None."""
    schemas: Annotated[tuple[Reference, ...], Field(min_length=1)]
    """Label spaces that fit the label maps, the default first."""
    label_areas: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")] | None = None
    """Table in ``manifests/label_areas`` that the areas of the raw labels must equal."""

    _file: Path | None = PrivateAttr(default=None)
    _reference: str | None = PrivateAttr(default=None)

    @model_validator(mode="before")
    @classmethod
    def _with_splits(cls, data: Any) -> Any:
        """Fill in the splits that follow from other fields."""
        if not isinstance(data, dict) or "splits" in data:
            return data
        lists = data.get("split_lists")
        if isinstance(lists, dict) and lists:
            return {**data, "splits": list(lists)}
        has_folders = any(SPLIT_FIELD in str(data.get(name)) for name in ("images", "labels"))
        return data if has_folders or "split_files" in data else {**data, "splits": [WHOLE]}

    @field_validator("splits")
    @classmethod
    def _splits_differ(cls, splits: tuple[str, ...]) -> tuple[str, ...]:
        return each_once(splits, splits)

    @field_validator("image_suffixes")
    @classmethod
    def _suffixes_differ(
        cls, suffixes: tuple[ImageSuffix, ...] | None
    ) -> tuple[ImageSuffix, ...] | None:
        return suffixes and each_once(suffixes, suffixes)

    @field_validator("label_suffix")
    @classmethod
    def _is_suffix(cls, suffix: str | None) -> str | None:
        if suffix is not None and not _SUFFIX.fullmatch(one_line(suffix)):
            raise ValueError(
                f"'{printable(suffix)}': expected the end of a file name with its suffix, such as "
                "'.png' or '_L.png'"
            )
        return suffix

    @field_validator("label_colours", mode="before")
    @classmethod
    def _colours_are_written(cls, table: Any) -> Any:
        if not isinstance(table, dict):
            return table
        colours = [str(colour).lower() for colour in table]
        for colour in colours:
            if not _COLOUR.fullmatch(colour):
                raise ValueError(
                    f"'{printable(colour, 60)}': expected a colour as '#rrggbb', e.g. '#c00080'"
                )
        return dict(zip(each_once(tuple(colours), colours), table.values(), strict=True))

    @field_validator("split_lists")
    @classmethod
    def _lists_are_named(cls, lists: dict[str, str] | None) -> dict[str, str] | None:
        for split, path in (lists or {}).items():
            if not is_plain_name(split):
                raise ValueError(f"split '{printable(split, 60)}': {PLAIN_NAME}")
            if not one_line(path).lower().endswith(LIST_SUFFIXES):
                raise ValueError(
                    f"'{printable(path)}': expected the path of a {', '.join(LIST_SUFFIXES)} file"
                )
        return lists

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        self._check_label_fields()
        self._check_split_fields()
        return self

    def _check_label_fields(self) -> None:
        """Raise ValueError for a field of another kind of label maps, or without its own."""
        of_kinds: dict[str, tuple[LabelKind, bool]] = {
            "label_variable": ("mat", False),
            "label_colours": ("colours", True),
            "label_annotations": ("panoptic", True),
        }
        for name, (kind, is_needed) in of_kinds.items():
            value = getattr(self, name)
            if value is not None and self.label_kind != kind:
                raise ValueError(
                    f"{name}: belongs to label_kind '{kind}', found label_kind "
                    f"'{self.label_kind}'; remove one of them"
                )
            if is_needed and not value and self.label_kind == kind:
                raise ValueError(f"{name}: expected with label_kind '{kind}', found none")
        if self.images == self.labels and self.suffixes == (self.label_file_suffix,):
            raise ValueError(
                f"labels: images and label maps are both *{self.label_file_suffix} in "
                f"'{printable(self.labels)}'; give label maps a folder of their own, or say by "
                "label_suffix what their names end with"
            )

    def _check_split_fields(self) -> None:
        """Raise ValueError where it is not clear which images a split has."""
        if self.split_files is not None and self.split_lists is not None:
            raise ValueError("split_lists: found beside split_files; remove one of them")
        if self.split_lists is not None:
            unlisted = [split for split in self.splits if split not in self.split_lists]
            if unlisted:
                raise ValueError(
                    f"splits: '{printable(unlisted[0])}' has no file in split_lists; add it, or "
                    "remove the split"
                )
        elif self.split_files is None and not self._is_cut_by_folders and len(self.splits) > 1:
            raise ValueError(
                "splits: expected one, since nothing says which images a split has, found "
                f"{len(self.splits)}; add split_files or split_lists, or write {SPLIT_FIELD} in "
                "images"
            )

    @property
    def _is_cut_by_folders(self) -> bool:
        return SPLIT_FIELD in self.images or SPLIT_FIELD in self.labels

    @property
    def reference(self) -> str:
        """What a command takes for it: the path that it was read by, or its shipped name."""
        return self._reference or self.name

    @property
    def suffixes(self) -> tuple[ImageSuffix, ...]:
        """Suffixes of the images, in small letters."""
        return self.image_suffixes or IMAGE_SUFFIXES

    @property
    def label_file_suffix(self) -> str:
        """What follows the image id in the name of a label file."""
        return self.label_suffix or LABEL_SUFFIXES[self.label_kind]

    @property
    def has_splits_in_ids(self) -> bool:
        """Whether an image id begins with the name of its split, a folder."""
        return SPLIT_FIELD in self.images

    def located(self, file: Path, reference: str) -> Self:
        """Return the manifest read from ``file`` with the paths of the files that it names."""
        lists = self.split_lists and {
            split: str(beside(path, file)) for split, path in self.split_lists.items()
        }
        made = self.model_copy(
            update={
                "sources": tuple(locate_reference(each, file) for each in self.sources),
                "schemas": tuple(locate_reference(each, file) for each in self.schemas),
                "split_lists": lists,
            }
        )
        made._file, made._reference = file, reference
        return made

    def with_flags(self, flags: SplitFlags | None) -> Self:
        """Return the manifest with another choice of ``split_flags``; itself for None."""
        return self if flags is None else self.model_copy(update={"split_flags": flags})

    def schema_for(self, name: str | None) -> str:
        """Return the label space of a name, the default for None; UsageError when none fits.

        A label space of one's own is named by its file's stem, or by its path, from the current
        folder or as the manifest writes it.
        """
        if name is None:
            return self.schemas[0]
        written = beside(name, self._file) if self._file and name.endswith(".toml") else None
        for schema in self.schemas:
            if name in (schema, Path(schema).stem) or written == Path(schema):
                return schema
            if name.endswith(".toml") and same_file(Path(name), Path(schema)):
                return schema
        raise UsageError(
            f"schema {name!r} does not fit dataset {self.name}: expected one of "
            f"{', '.join(self.schemas)}"
        )
