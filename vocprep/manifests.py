"""Manifests: what a source and a dataset are, read from TOML and checked.

``manifests/sources/NAME.toml`` says which files there are, where they come from and what proves
them. ``manifests/datasets/NAME.toml`` pairs an image folder with a label source, label
spaces and splits (``vocprep.dataset_manifest``); a user's own data is one more such file, given
by path.
A manifest names others by their shipped names, or by paths relative to its own folder
(``vocprep.manifest_paths``).
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, field_validator

from vocprep.dataset_manifest import DATASET_FILE, DatasetManifest, SplitFlags
from vocprep.errors import ManifestError, UsageError
from vocprep.files.reading import MAX_TOML_BYTES, decode_text, parse_toml, read_file, read_toml
from vocprep.manifest_paths import ManifestModel, PathBelow, each_once, exists, one_line
from vocprep.open_questions import first_open_question
from vocprep.storage.places import Place
from vocprep.validation import Positive, explain

__all__ = [
    "MOST_BYTES",
    "DatasetManifest",
    "ExpectedFiles",
    "Hex",
    "SourceFile",
    "SourceManifest",
    "SplitFlags",
    "Unpack",
    "find_manifest",
    "lists_files",
    "load_dataset",
    "load_recorded_dataset",
    "load_source",
    "manifest_names",
    "manifests_dir",
    "read_manifest",
]


def _no_text(value: object) -> object:
    """Refuse numbers in quotes, and true and false, which pydantic would take for numbers."""
    if isinstance(value, str | bool):
        raise ValueError(f"expected a whole number, found {value!r}")
    return value


Count = Annotated[int, Field(ge=0), BeforeValidator(_no_text)]
Url = Annotated[str, AfterValidator(one_line)]


class ExpectedFiles(ManifestModel):
    """How many files of one suffix an official archive puts into a folder."""

    folder: str
    suffix: str
    count: Count


class Unpack(ManifestModel):
    """What unpacking an archive must yield."""

    max_bytes: Count
    """Upper bound of the unpacked size: what exceeds it is a bomb."""
    strip: str = ""
    """Leading folder of every member, taken away."""
    expect: tuple[ExpectedFiles, ...] = ()


Hex = Annotated[str, Field(pattern=r"^[0-9a-f]+$")]


MOST_BYTES = 20_000_000_000
"""The most that is accepted of a file of which no size is known at all."""
_ABOUT = 4
"""How many times larger than its rough size a file may be."""


class SourceFile(ManifestModel):
    """One file of a source: every digest listed must agree."""

    path: PathBelow
    """Where it is kept, below the data dir."""
    urls: tuple[Url, ...]
    """Mirrors, the best first."""
    bytes: Count | None = None
    """Exact size, where published; checked."""
    about_bytes: Count | None = None
    """Size for people, where only a rough or doubtful one is published; a file may be four times
    as large."""
    max_bytes: Positive | None = None
    """The most that is accepted of a file whose ``bytes`` are not published."""
    sha256: Hex | None = None
    sha1: Hex | None = None
    md5: Hex | None = None
    sha256_prefix: Hex | None = None
    tensors_sha256: Hex | None = None
    """Tensor digest of a weights file (see ``vocprep.features.weights.tensor_digest``)."""
    unpack: Unpack | None = None

    @property
    def most_bytes(self) -> int:
        """The most that is accepted of the file, whatever a mirror sends."""
        if self.bytes is not None:
            return self.bytes
        return self.max_bytes or _ABOUT * (self.about_bytes or 0) or MOST_BYTES


class SourceManifest(ManifestModel):
    """A named set of files to download."""

    name: str
    title: str
    homepage: str = ""
    terms: str
    files: tuple[SourceFile, ...]

    @field_validator("files")
    @classmethod
    def _paths_differ(cls, files: tuple[SourceFile, ...]) -> tuple[SourceFile, ...]:
        return each_once(files, [file.path for file in files])


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
        if exists(own):
            return own
        is_to_be_written = kind == "datasets" and own.name == DATASET_FILE and own.parent.is_dir()
        advice = f"; run {_init_of(own.parent)} first" if is_to_be_written else ""
        raise ManifestError(f"{own}: no such manifest file of a {_ONE_OF[kind]}{advice}")
    own = Path(f"{name_or_path}.toml")
    if "\0" not in name_or_path and exists(own):
        raise UsageError(
            f"{_ONE_OF[kind]} {name_or_path!r} is not a shipped one; to read {own}, write {own}"
        )
    if kind == "datasets" and name_or_path and Path(name_or_path).is_dir():
        raise UsageError(_of_folder(Path(name_or_path)))
    known = ", ".join(manifest_names(kind))
    raise UsageError(
        f"{_ONE_OF[kind]} {name_or_path!r} is not known: expected one of {known}, or the path of a "
        ".toml file"
    )


def _of_folder(folder: Path) -> str:
    """Return what to do where a folder was named in the place of its manifest."""
    own = folder / DATASET_FILE
    if exists(own):
        return f"dataset {str(folder)!r} is a folder; name its manifest, {own}"
    return f"dataset {str(folder)!r} is a folder without {own.name}; run {_init_of(folder)} first"


def _init_of(folder: Path) -> str:
    return shlex.join(("vocprep", "init", str(folder)))


def manifest_names(kind: str) -> list[str]:
    """Return the shipped manifest names of one kind, sorted."""
    return sorted(path.stem for path in (manifests_dir() / kind).glob("*.toml"))


def load_source(name_or_path: str) -> SourceManifest:
    """Read a source manifest by shipped name or by the path of a TOML file."""
    return read_manifest(SourceManifest, find_manifest("sources", name_or_path))


def load_dataset(name_or_path: str | Path) -> DatasetManifest:
    """Read a dataset manifest by shipped name or by the path of a TOML file.

    Its sources and label spaces of one's own are paths from the current folder in the result,
    relative to the manifest in the file.
    """
    path = find_manifest("datasets", str(name_or_path))
    return read_manifest(DatasetManifest, path).located(path, str(name_or_path))


def load_recorded_dataset(
    recorded: str, given: str | Path | None, data_dir: Place
) -> DatasetManifest:
    """Return the dataset whose name a dataset version recorded.

    Its manifest is the one given, else the shipped one, else ``dataset.toml`` of the data dir where
    that is of this name, as ``vocprep init`` writes it. UsageError when there is none.
    """
    if given is not None or recorded in manifest_names("datasets"):
        return load_dataset(recorded if given is None else given)
    beside = data_dir / DATASET_FILE
    found = "no such file"
    if not isinstance(beside, Path):
        found = "an object store, of which manifests are not read"
    elif exists(beside):
        dataset = load_dataset(beside)
        if dataset.name == recorded:
            return dataset
        found = f"that of {dataset.name!r}"
    raise UsageError(
        f"dataset {recorded!r}, which the shards were built from, is not a shipped one: expected "
        f"its manifest at {beside}, found {found}; name it with --dataset, e.g. --dataset "
        f"{recorded}.toml"
    )


def lists_files(path: Path) -> bool:
    """Return whether a manifest is a source's, which lists files, and not a dataset's."""
    try:
        return "files" in read_toml(path)
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: {explain(error)}") from error


Model = TypeVar("Model", bound=BaseModel)


def read_manifest(model: type[Model], path: Path) -> Model:
    """Read a TOML file into a model; the manifest's name, where it has one, is the file's stem.

    ManifestError naming the file and the first field that does not fit, or the first question that
    is not answered (``vocprep.open_questions``).
    """
    named = {"name": path.stem} if "name" in model.model_fields else {}
    try:
        text = decode_text(read_file(path, MAX_TOML_BYTES))
        question = first_open_question(text)
        if question is not None:
            raise ManifestError(f"{path}: {question}")
        return model.model_validate({**named, **parse_toml(text)})
    except (OSError, ValueError) as error:
        raise ManifestError(f"{path}: {explain(error)}") from error
