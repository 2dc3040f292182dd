"""Manifests: what a source and a dataset are, read from TOML and checked.

``manifests/sources/NAME.toml`` says which files there are, where they come from and what proves
them. ``manifests/datasets/NAME.toml`` pairs an image folder with a label source, label
spaces and splits; a user's own data in VOC's layout is one more such file, given by path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from vocprep.errors import ManifestError, UsageError
from vocprep.files import read_toml
from vocprep.validation import explain


def _relative(path: str) -> str:
    """Refuse a path that could leave the data dir."""
    parts = Path(path).parts
    if not parts or Path(path).is_absolute() or ".." in parts:
        raise ValueError(f"{path!r} must be a relative path without '..'")
    return path


class _Manifest(BaseModel):
    """Frozen, and an unknown key is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ExpectedFiles(_Manifest):
    """How many files of one suffix an official archive puts into a folder."""

    folder: str
    suffix: str
    count: int


class Unpack(_Manifest):
    """What unpacking an archive must yield."""

    max_bytes: int
    """Upper bound of the unpacked size: what exceeds it is a bomb."""
    strip: str = ""
    """Leading folder of every member, taken away."""
    expect: tuple[ExpectedFiles, ...] = ()


Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


class SourceFile(_Manifest):
    """One file of a source: every digest listed must agree."""

    path: str
    """Where it is kept, below the data dir."""
    urls: tuple[str, ...]
    """Mirrors, the best first."""
    bytes: int | None = None
    """Exact size, where published; checked."""
    about_bytes: int | None = None
    """Size for people, where only a rough or doubtful one is published; not checked."""
    sha256: Hex | None = None
    sha1: Hex | None = None
    md5: Hex | None = None
    sha256_prefix: Hex | None = None
    tensors_sha256: Hex | None = None
    """Tensor digest of a weights file (see ``vocprep.features.weights.tensor_digest``)."""
    unpack: Unpack | None = None

    _path_is_relative = field_validator("path")(_relative)


class SourceManifest(_Manifest):
    """A named set of files to download."""

    name: str
    title: str
    homepage: str = ""
    terms: str
    files: tuple[SourceFile, ...]


class DatasetManifest(_Manifest):
    """A named pairing of an image folder with a label source, label spaces and splits."""

    name: str
    title: str
    sources: tuple[str, ...] = ()
    """The sources that fill the data dir; none for one's own images."""
    images: str
    """Folder of ``ID.jpg`` below the data dir."""
    labels: str
    """Folder of ``ID.mat`` or ``ID.png`` below the data dir."""
    label_kind: Literal["mat", "png"]
    split_files: str
    """Folder of ``SPLIT.txt`` below the data dir, one image id per line."""
    splits: Annotated[tuple[str, ...], Field(min_length=1)]
    """Splits that are built when none is named."""
    schemas: Annotated[tuple[str, ...], Field(min_length=1)]
    """Label spaces that fit the label maps, the default first."""
    label_areas: str | None = None
    """Table in ``manifests/label_areas`` that the areas of the raw labels must equal."""

    _paths_are_relative = field_validator("images", "labels", "split_files")(_relative)

    def schema_for(self, name: str | None) -> str:
        """Return the label space of a name, the default for None; UsageError when none fits."""
        if name is None:
            return self.schemas[0]
        for schema in self.schemas:
            if name in (schema, Path(schema).stem):  # a path matches by its file's name, too
                return schema
        raise UsageError(
            f"schema {name!r} does not fit dataset {self.name}: expected one of "
            f"{', '.join(self.schemas)}"
        )


def manifests_dir() -> Path:
    """Return the folder of the manifests: inside an installed wheel, else beside the package."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "shipped_manifests", package.parent / "manifests"):
        if candidate.is_dir():
            return candidate
    raise ManifestError(
        f"no manifests folder in {package} or beside it: the installation is incomplete; "
        "install vocprep again"
    )


_ONE_OF = {"sources": "source", "datasets": "dataset", "labels": "label space"}


def find_manifest(kind: str, name_or_path: str) -> Path:
    """Return the TOML file of a manifest, by shipped name or by the path of one's own file.

    ``kind`` is ``sources``, ``datasets`` or ``labels``. Raises UsageError with the known names.
    """
    shipped = manifests_dir() / kind / f"{name_or_path}.toml"
    if "/" not in name_or_path and shipped.is_file():
        return shipped
    if name_or_path.endswith(".toml"):
        own = Path(name_or_path)
        if own.is_file():
            return own
        raise ManifestError(f"{own}: no such manifest file")
    known = ", ".join(manifest_names(kind))
    raise UsageError(
        f"{_ONE_OF[kind]} {name_or_path!r} is not known: expected one of {known}, or the path of a "
        ".toml file"
    )


def manifest_names(kind: str) -> list[str]:
    """Return the shipped manifest names of one kind, sorted."""
    return sorted(path.stem for path in (manifests_dir() / kind).glob("*.toml"))


def load_source(name_or_path: str) -> SourceManifest:
    """Read a source manifest by shipped name or by the path of a TOML file."""
    return read_manifest(SourceManifest, find_manifest("sources", name_or_path))


def load_dataset(name_or_path: str | Path) -> DatasetManifest:
    """Read a dataset manifest by shipped name or by the path of a TOML file."""
    return read_manifest(DatasetManifest, find_manifest("datasets", str(name_or_path)))


Model = TypeVar("Model", bound=BaseModel)


def read_manifest(model: type[Model], path: Path) -> Model:
    """Read a TOML file into a model; the manifest's name, where it has one, is the file's stem.

    ManifestError naming the file and the first field that does not fit.
    """
    named = {"name": path.stem} if "name" in model.model_fields else {}
    try:
        return model.model_validate({**named, **read_toml(path)})
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: {explain(error)}") from error
