"""The recipe, and the options of a build.

A Recipe is every choice that decides what the records hold, and nothing else: two builds with
equal recipes from equal sources hold the same data. Choices are what a user chooses of it. Layout
and EngineOptions are how the records are laid out and who makes them; they decide no content.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_args

from vocprep.errors import ShardError, UsageError
from vocprep.files import canonical_json, sha256_hex
from vocprep.geometry import WINDOWS, Geometry

FORMAT_VERSION = 1
"""The version of docs/format.md that this package writes and reads."""

Precision = Literal["fp32", "tf32", "bf16", "fp16"]
Decoder = Literal["simplejpeg", "nvjpeg"]
BackboneName = Literal["resnet32-cifar100", "resnet18-imagenet"]
NormalisationName = Literal["cifar100", "imagenet"]
EmbeddingDtype = Literal["float16", "float32"]
View = Literal["identity", "flip"]
ShardFormat = Literal["hdf5", "webdataset"]
IfExists = Literal["resume", "overwrite", "fail"]

_EMBEDDING_CHOICES = (
    *("backbone", "weights_sha256", "windows", "layers", "geometry", "normalisation"),
    *("precision", "embedding_dtype"),
)
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Per-channel mean and standard deviation (RGB, of pixels scaled to 0..1)."""

    mean: tuple[float, float, float] = (0.5070, 0.4865, 0.4409)
    """CIFAR-100's, which the backbone was trained with."""
    std: tuple[float, float, float] = (0.2673, 0.2564, 0.2761)
    """CIFAR-100's likewise."""


NORMALISATIONS: dict[NormalisationName, Normalisation] = {
    "cifar100": Normalisation(),
    "imagenet": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}
"""By the data that networks are trained on with them."""
DEFAULT_NORMALISATION: dict[BackboneName, NormalisationName] = {
    "resnet32-cifar100": "cifar100",
    "resnet18-imagenet": "imagenet",
}
LAYERS: dict[BackboneName, tuple[str, ...]] = {
    "resnet32-cifar100": ("layer3", "layer2"),
    "resnet18-imagenet": ("layer4",),
}
"""Layers that embeddings can be taken from."""
DEFAULT_LAYERS: dict[BackboneName, tuple[str, ...]] = {
    "resnet32-cifar100": ("layer3",),
    "resnet18-imagenet": ("layer4",),
}
DEFAULT_WINDOWS: dict[BackboneName, tuple[int, ...]] = {
    "resnet32-cifar100": (32,),
    "resnet18-imagenet": (),
}
"""ResNet-18 sees the whole picture and knows no windows."""


@dataclass(frozen=True, kw_only=True)
class SplitIds:
    """Which image ids a split holds, as a count and a digest."""

    count: int
    ids_sha256: str

    @classmethod
    def of(cls, image_ids: Sequence[str]) -> Self:
        """Describe a split by its ids, in sorted order."""
        text = "".join(f"{image_id}\n" for image_id in sorted(image_ids))
        return cls(count=len(image_ids), ids_sha256=sha256_hex(text.encode()))


@dataclass(frozen=True, kw_only=True)
class SchemaIdentity:
    """Which label space: its name for people and its digest for the rest."""

    name: str
    sha256: str
    void_unknown: bool = False


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Everything that decides the content of the records."""

    dataset: str
    schema: SchemaIdentity
    splits: dict[str, SplitIds]
    backbone: BackboneName
    weights_sha256: str
    """Tensor digest of the backbone's weights, whatever file carried them."""
    windows: tuple[int, ...] = (32,)
    """Sides of the windows around each patch that pass the backbone, in the embedding's order."""
    layers: tuple[str, ...] = ("layer3",)
    """Layers of the backbone that an embedding is taken from, in its order."""
    geometry: Geometry = field(default_factory=Geometry)
    normalisation: Normalisation = field(default_factory=Normalisation)
    precision: Precision = "fp32"
    embedding_dtype: EmbeddingDtype = "float16"
    views: tuple[View, ...] = ("identity",)
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Refuse values that no build can follow."""
        _one_of("precision", self.precision, Precision)
        _one_of("embedding_dtype", self.embedding_dtype, EmbeddingDtype)
        _one_of("backbone", self.backbone, BackboneName)
        _check_windows(self)
        for view in self.views:
            _one_of("views", view, View)
        if self.views[:1] != ("identity",) or len(set(self.views)) != len(self.views):
            raise UsageError(f"views {self.views!r}: expected 'identity' first and every view once")

    @property
    def recipe_id(self) -> str:
        """Sha256 of the recipe's canonical JSON."""
        return sha256_hex(canonical_json(self.to_json()))

    @property
    def short_name(self) -> str:
        """What people call it, e.g. ``context460-crop224-resnet32-fp32``."""
        parts = [self.schema.name, self.geometry.short_name, self.backbone.split("-")[0]]
        if self.windows != DEFAULT_WINDOWS[self.backbone]:
            parts.append("w" + ".".join(str(window) for window in self.windows))
        if self.layers != DEFAULT_LAYERS[self.backbone]:
            parts.append(".".join(self.layers))
        return "-".join([*parts, self.precision])

    @property
    def embedding_choices(self) -> dict[str, Any]:
        """The part that decides the embeddings of a picture, as plain JSON values."""
        return {name: self.to_json()[name] for name in _EMBEDDING_CHOICES}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` is the inverse."""
        return {name: _plain(getattr(self, name)) for name in _names(Recipe)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild a recipe from ``to_json``'s values; ShardError when they are not such."""
        try:
            geometry, normalisation = value["geometry"], value["normalisation"]
            return cls(
                **{
                    **value,
                    "schema": SchemaIdentity(**value["schema"]),
                    "splits": {k: SplitIds(**v) for k, v in value["splits"].items()},
                    "geometry": Geometry(**geometry),
                    "normalisation": Normalisation(
                        mean=tuple(normalisation["mean"]), std=tuple(normalisation["std"])
                    ),
                    "views": tuple(value["views"]),
                    "windows": tuple(value["windows"]),
                    "layers": tuple(value["layers"]),
                }
            )
        except (KeyError, TypeError, AttributeError, UsageError) as error:
            raise ShardError(f"not a recipe that this version can read: {error}") from error


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What a user chooses of a recipe; the rest follows from the dataset and the weights."""

    splits: tuple[str, ...] | None = None
    """Splits to build; the dataset's own when None."""
    limit: int | None = None
    """At most so many pictures of each split, the first by id: for a quick trial."""
    schema: str | None = None
    """Label space; the dataset's first when None."""
    void_unknown: bool = False
    """Make the label "unknown" void."""
    geometry: Geometry = field(default_factory=Geometry)
    backbone: BackboneName = "resnet32-cifar100"
    """Frozen network: ResNet-32 for each patch alone, or ResNet-18 for the whole picture."""
    windows: tuple[int, ...] | None = None
    """Sides of the windows around each patch; the patch itself when None."""
    layers: tuple[str, ...] | None = None
    """Layers that an embedding is taken from; the backbone's last when None."""
    normalisation: NormalisationName | None = None
    """Constants of the input; those that the backbone was trained with when None."""
    precision: Precision = "fp32"
    embedding_dtype: EmbeddingDtype = "float16"
    views: tuple[View, ...] = ("identity",)

    def __post_init__(self) -> None:
        """Refuse what no recipe can hold."""
        _one_of("backbone", self.backbone, BackboneName)
        if self.normalisation is not None:
            _one_of("normalisation", self.normalisation, NormalisationName)
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"limit {self.limit}: expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How the records are laid out in files; never changes what they hold."""

    format: ShardFormat = "hdf5"
    samples_per_shard: int = 500
    """Pictures a shard."""

    def __post_init__(self) -> None:
        """Refuse an unknown format and empty shards."""
        _one_of("format", self.format, ShardFormat)
        if self.samples_per_shard < 1:
            raise UsageError(f"samples_per_shard {self.samples_per_shard}: expected 1 or more")


@dataclass(frozen=True, kw_only=True)
class MaxFailures:
    """How many samples may be quarantined before a build stops: a count, or a share of all."""

    count: int = 0
    percent: float | None = None
    """0 to 100; used in place of ``count`` where it is given."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``N`` or ``P%``; UsageError for anything else."""
        try:
            if text.endswith("%"):
                return cls(percent=float(text[:-1]))
            return cls(count=int(text))
        except ValueError as error:
            raise UsageError(
                f"max_failures {text!r}: expected a number of samples or a percentage, e.g. 10 "
                "or 0.5%"
            ) from error

    def __post_init__(self) -> None:
        """Refuse less than none and more than all."""
        if self.count < 0 or (self.percent is not None and not 0 <= self.percent <= 100):
            raise UsageError(f"max_failures {self}: expected 0 or more, or 0% to 100%")

    def __str__(self) -> str:
        return f"{self.count}" if self.percent is None else f"{self.percent:g}%"

    def allowed(self, samples: int) -> int:
        """Return the number of failures that a build of so many samples survives."""
        return self.count if self.percent is None else int(samples * self.percent / 100)


def usable_cores() -> int:
    """Return how many cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """How a build is run; never changes what it makes."""

    device: str = "auto"
    """``auto`` (all GPUs where there are any), ``cpu``, ``cuda`` (all of them) or ``cuda:N``."""
    workers: int = field(default_factory=usable_cores)
    """Threads that read and decode; as many as there are cores by default."""
    compiled: bool | None = None
    """Compile the backbone: the same bits, sooner; None decides by the size of the build."""
    decoder: Decoder = "simplejpeg"
    """Who decodes the pictures: ``nvjpeg`` does it on the GPU and is a numerics class of its own,
    since its pixels differ a little."""
    if_exists: IfExists = "resume"
    """What to do when the output folder holds a dataset, finished or not: go on from what is right
    of it, make it anew, or refuse."""
    max_failures: MaxFailures = field(default_factory=MaxFailures)
    """Samples that may be bad before the build stops; they are listed, never dropped silently."""
    reuse: Path | None = None
    """A dataset version whose embeddings are taken over where picture and recipe agree."""

    def __post_init__(self) -> None:
        """Refuse a build without anybody to do it."""
        _one_of("if_exists", self.if_exists, IfExists)
        _one_of("decoder", self.decoder, Decoder)
        if self.workers < 1:
            raise UsageError(f"workers {self.workers}: expected 1 or more")


def _check_windows(recipe: Recipe) -> None:
    """Refuse windows and layers that a backbone does not have."""
    known = LAYERS[recipe.backbone]
    for name, found in (("windows", recipe.windows), ("layers", recipe.layers)):
        if len(set(found)) != len(found):
            raise UsageError(f"{name} {found!r}: expected each once")
    if not recipe.layers or not set(recipe.layers) <= set(known):
        raise UsageError(
            f"layers {recipe.layers!r}: expected some of {', '.join(known)}, as {recipe.backbone} "
            "has"
        )
    if recipe.backbone == "resnet18-imagenet":
        if recipe.windows:
            raise UsageError(
                f"windows {recipe.windows!r}: resnet18-imagenet sees the whole picture; leave "
                "--windows out"
            )
        if recipe.geometry.geometry == "native":
            raise UsageError(
                "geometry 'native' does not go with resnet18-imagenet, which wants 224×224 "
                "pixels: expected crop or squash"
            )
    elif not recipe.windows or not set(recipe.windows) <= set(WINDOWS):
        raise UsageError(
            f"windows {recipe.windows!r}: expected some of {', '.join(map(str, WINDOWS))}"
        )


def differing_fields(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one line a field in which two recipes' JSON values differ, dotted for nested ones.

    Of a digest the first twelve digits are shown, as everywhere.
    """
    lines: list[str] = []
    for key in sorted(one.keys() | other.keys()):
        left, right = one.get(key), other.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differing_fields(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(f"{prefix}{key}: {_shown(left)} and {_shown(right)}")
    return lines


def _shown(value: Any) -> str:
    is_digest = isinstance(value, str) and _DIGEST.fullmatch(value) is not None
    return f"{value[:12]}…" if is_digest else repr(value)


def is_plain_name(name: str) -> bool:
    """Say whether an image id or a split's name can be part of a file name in every container."""
    return _PLAIN_NAME.fullmatch(name) is not None


def _one_of(name: str, value: str, allowed: Any) -> None:
    if value not in get_args(allowed):
        raise UsageError(f"{name} {value!r}: expected one of {', '.join(get_args(allowed))}")


def _names(cls: Any) -> list[str]:
    return [item.name for item in fields(cls)]


def _plain(value: Any) -> Any:
    """Turn dataclasses and tuples into the dicts and lists that JSON has."""
    if hasattr(value, "__dataclass_fields__"):
        return {name: _plain(getattr(value, name)) for name in _names(value)}
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value
