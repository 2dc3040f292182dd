"""The recipe: every choice that decides what the records hold, and nothing else.

Two builds with equal recipes from equal sources hold the same data; ``recipe_id`` is the digest of
one (docs/format.md).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from vocprep.backbones import BACKBONES, Backbone, Network, Normalisation, backbone_of
from vocprep.errors import ShardError, UsageError
from vocprep.files.writing import canonical_json, sha256_hex
from vocprep.geometry import WINDOWS, Geometry
from vocprep.validation import (
    NotNegative,
    Positive,
    checked,
    explain,
    from_json,
    printable,
    to_json,
)
from vocprep.views import Crops, View, check_crops

FORMAT_VERSION = 1
"""The version of docs/format.md that this package writes and reads."""

Precision = Literal["fp32", "tf32", "bf16", "fp16", "exact"]
EmbeddingDtype = Literal["float16", "float32"]

_EMBEDDING_CHOICES = (
    *("backbone", "weights_sha256", "windows", "layers", "geometry", "normalisation"),
    *("precision", "embedding_dtype", "network", "reduction"),
)
_ADDED = ("network", "reduction", "label_rule", "crops")
"""Fields that recipes of earlier versions do not have: left out of the JSON where they are None."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_LONGEST_SHOWN = 200
"""Letters of a value in a line of ``differing_fields``."""
_MOST_SHOWN = 6
"""Lines of ``differing_fields`` in a sentence."""


OWN_FILE = "module"
"""What stands before the colon in the name of a backbone that a file of one's own makes."""
NETWORK_KINDS = ("timm", "torchvision", OWN_FILE)
"""What stands before the colon in the name of a backbone that is not built in."""


def _known_backbone(name: str) -> str:
    kind, _, model = name.partition(":")
    if name not in BACKBONES and not (kind in NETWORK_KINDS and model):
        raise UsageError(
            f"backbone {printable(name)!r}: expected one of {', '.join(BACKBONES)}, or timm:NAME, "
            "torchvision:NAME or FILE.py:FUNCTION"
        )
    return name


BackboneName = Annotated[str, AfterValidator(_known_backbone)]


def is_own_file(name: str) -> bool:
    """Return whether a user names a function of a file of their own: ``FILE.py:FUNCTION``.

    >>> is_own_file("nets/mine.py:make"), is_own_file("timm:resnet18")
    (True, False)
    """
    file, _, function = name.rpartition(":")
    return file.endswith(".py") and function.isidentifier()


def _chosen_backbone(name: str) -> str:
    return name if is_own_file(name) else _known_backbone(name)


ChosenBackbone = Annotated[str, AfterValidator(_chosen_backbone)]
"""What a user may choose: also a file, whose place no recipe holds."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@checked
class SplitIds:
    """Which image ids a split holds, as a count and a digest."""

    count: NotNegative
    ids_sha256: str

    @classmethod
    def of(cls, image_ids: Sequence[str]) -> Self:
        """Describe a split by its ids, in sorted order."""
        text = "".join(f"{image_id}\n" for image_id in sorted(image_ids))
        return cls(count=len(image_ids), ids_sha256=sha256_hex(text.encode()))


@checked
class LabelSpaceId:
    """Which label space: its name for people and its digest for the rest."""

    name: str
    sha256: str
    void_unknown: bool = False


@checked
class LabelRuleId:
    """How label files are decoded, where that does not follow from the files alone."""

    kind: str
    """``label_kind`` of the dataset's manifest."""
    variable: str | None = None
    """The variable of ``.mat`` files."""
    table_sha256: Sha256 | None = None
    """Digest of the table beside the label files: of colours, or of segments."""


@checked
class Reduction:
    """How the numbers of an embedding are made fewer."""

    kind: Literal["projection", "pca"]
    size: Positive
    """D of the stored embeddings."""
    seed: NotNegative | None = None
    """Of a projection's random signs."""
    matrix_sha256: Sha256 | None = None
    """Digest of the matrix that was fitted: None of a projection, and until a build has fitted
    it."""

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Self:
        is_projection = self.kind == "projection"
        if (self.seed is None) == is_projection or (is_projection and self.matrix_sha256):
            raise UsageError(
                f"reduction {self.kind!r}: expected a seed and no matrix of a projection, and no "
                "seed of pca"
            )
        return self


@checked
class Recipe:
    """Everything that decides the content of the records."""

    dataset: str
    schema: LabelSpaceId
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
    network: Network | None = None
    """The backbone, where it is not a built-in one."""
    reduction: Reduction | None = None
    """How embeddings are made smaller, if they are."""
    label_rule: LabelRuleId | None = None
    """How label files are decoded, where the files alone do not decide it."""
    crops: Crops | None = None
    """Random crops as further views, if there are any."""

    @model_serializer(mode="wrap")
    def _without_added(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fields without a value that earlier recipes do not have: their ids stay."""
        values: dict[str, Any] = dump(self)
        return {
            name: value for name, value in values.items() if value is not None or name not in _ADDED
        }

    @model_validator(mode="after")
    def _can_be_built(self) -> Self:
        """Refuse values that no build can follow."""
        if (self.network is None) != (self.backbone in BACKBONES):
            raise UsageError(
                f"backbone {self.backbone!r}: expected a network beside every backbone that is not "
                "built in, and beside no other"
            )
        _check_network(self)
        _check_windows(self)
        _check_reduction(self)
        check_precision(self.precision, self.backbone)
        if self.views[:1] != ("identity",) or len(set(self.views)) != len(self.views):
            raise UsageError(
                f"views {_listed(self.views)}: expected 'identity' first and every view once"
            )
        check_crops(self.crops, self.geometry)
        return self

    @property
    def record_views(self) -> tuple[str, ...]:
        """Names of the views of each image, in the order of its records: crops are the last."""
        return (*self.views, *(self.crops.names if self.crops is not None else ()))

    @property
    def chosen_views(self) -> tuple[View | Crops, ...]:
        """The views as a user chooses them."""
        return (*self.views, *([self.crops] if self.crops is not None else []))

    @property
    def recipe_id(self) -> str:
        """Sha256 of the recipe's canonical JSON."""
        return sha256_hex(canonical_json(self.to_json()))

    @property
    def is_complete(self) -> bool:
        """Whether it names all that decides a version: pca only once its matrix is fitted."""
        reduction = self.reduction
        return reduction is None or reduction.kind != "pca" or reduction.matrix_sha256 is not None

    @property
    def short_name(self) -> str:
        """What people call it, e.g. ``context460-crop224-resnet32-fp32``."""
        backbone = self.described_backbone
        name = self.backbone.split("-")[0] if self.network is None else backbone.title
        parts = [self.schema.name, self.geometry.short_name, name]
        if self.windows != backbone.default_windows:
            parts.append("w" + ".".join(str(window) for window in self.windows))
        if self.network is not None or self.layers != backbone.default_layers:
            parts.append(".".join(self.layers))
        if self.reduction is not None:
            parts.append(f"{self.reduction.kind}{self.reduction.size}")
        return "-".join([*parts, self.precision])

    @property
    def embedding_size(self) -> int:
        """D, the numbers per patch."""
        return self.backbone_size if self.reduction is None else self.reduction.size

    @property
    def backbone_size(self) -> int:
        """The numbers that the backbone gives per patch, before any reduction."""
        return self.described_backbone.embedding_size(self.windows, self.layers)

    @property
    def described_backbone(self) -> Backbone:
        """What is known of the backbone without the library that makes it."""
        return backbone_of(self.backbone, self.network, self.normalisation)

    @property
    def embedding_choices(self) -> dict[str, Any]:
        """The part that decides the embeddings of an image, as plain JSON values."""
        values = self.to_json()
        return {name: values[name] for name in _EMBEDDING_CHOICES if name in values}

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` is the inverse."""
        return to_json(self)

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Rebuild a recipe from ``to_json``'s values; ShardError when they are not such."""
        try:
            recipe = from_json(cls, value)
        except (ValidationError, UsageError) as error:
            raise ShardError(
                f"not a recipe that this version can read: {explain(error)}"
            ) from error
        # A field that was left out would have got its default, and the recipe another id.
        if differing := differing_fields(value, recipe.to_json()):
            raise ShardError(
                f"not a recipe that this version can read: {differing[0]} (found and expected)"
            )
        return recipe


def _check_network(recipe: Recipe) -> None:
    """Refuse a network of another library than the backbone's name says."""
    if recipe.network is None:
        return
    kind = recipe.backbone.partition(":")[0]
    library, is_own = recipe.network.library, recipe.network.source_sha256 is not None
    if library.partition(" ")[0] != kind or is_own != (kind == "module"):
        raise UsageError(
            f"network of library {printable(library)!r}, {'with' if is_own else 'without'} the "
            f"digest of a file, does not go with backbone {printable(recipe.backbone)!r}: expected "
            f"{'module with' if kind == 'module' else f'{kind} without'} one"
        )


def _check_windows(recipe: Recipe) -> None:
    """Refuse windows and layers that a backbone does not have."""
    backbone = recipe.described_backbone
    for name, found in (("windows", recipe.windows), ("layers", recipe.layers)):
        if len(set(found)) != len(found):
            raise UsageError(f"{name} {_listed(found)}: expected each once")
    if not recipe.layers or not set(recipe.layers) <= set(backbone.layers):
        raise UsageError(
            f"layers {_listed(recipe.layers)}: expected some of {', '.join(backbone.layers)}, as "
            f"{recipe.backbone} has"
        )
    if backbone.takes_whole_images:
        side = backbone.input_side
        if recipe.windows:
            raise UsageError(
                f"windows {_listed(recipe.windows)}: {recipe.backbone} takes the whole image; "
                "leave --windows out"
            )
        if side is not None and recipe.geometry.geometry == "native":
            raise UsageError(
                f"geometry 'native' does not go with {recipe.backbone}, whose input is {side}×"
                f"{side} pixels: expected crop or squash"
            )
    elif not recipe.windows or not set(recipe.windows) <= set(WINDOWS):
        raise UsageError(
            f"windows {_listed(recipe.windows)}: expected some of {', '.join(map(str, WINDOWS))}"
        )


def _check_reduction(recipe: Recipe) -> None:
    """Refuse a reduction to more numbers than there are."""
    reduction, found = recipe.reduction, recipe.backbone_size
    if reduction is not None and reduction.size > found:
        raise UsageError(
            f"{reduction.kind} to {reduction.size:,} numbers per patch: expected at most the "
            f"{found:,} that {recipe.backbone} gives with these windows and layers"
        )


def default_precision(backbone: BackboneName) -> Precision:
    """Return the precision of a build that chooses none.

    >>> default_precision("resnet32-cifar100"), default_precision("resnet18-imagenet")
    ('exact', 'fp32')
    """
    return "exact" if _has_exact(backbone) else "fp32"


def check_precision(precision: Precision, backbone: BackboneName) -> None:
    """Raise UsageError for exact arithmetic with a backbone that has none."""
    if precision == "exact" and not _has_exact(backbone):
        having = [name for name, known in BACKBONES.items() if known.has_exact]
        raise UsageError(
            f"precision 'exact' is not defined for {backbone}, only for "
            f"{', '.join(having)}; expected another precision, or --backbone {having[0]}"
        )


def _has_exact(backbone: BackboneName) -> bool:
    return backbone in BACKBONES and BACKBONES[backbone].has_exact


def _listed(values: Sequence[object]) -> str:
    """Return values as a user types them: ``32,64``."""
    return repr(",".join(map(str, values)))


def differing_fields(one: dict[str, Any], other: dict[str, Any], prefix: str = "") -> list[str]:
    """Return one line per field in which two recipes' JSON values differ, dotted for nested ones.

    Of a digest the first twelve digits are shown, as everywhere.

    >>> differing_fields({"precision": "fp32"}, {"precision": "bf16"})
    ["precision: 'fp32' and 'bf16'"]
    """
    lines: list[str] = []
    for key in sorted(one.keys() | other.keys()):
        left, right = one.get(key), other.get(key)
        if isinstance(left, dict) and isinstance(right, dict):
            lines += differing_fields(left, right, f"{prefix}{key}.")
        elif left != right:
            lines.append(printable(f"{prefix}{key}: {_shown(left)} and {_shown(right)}"))
    return lines


def differing_choices(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """Return ``differing_fields`` without the numerics class where it follows from the precision.

    >>> one = {"precision": "fp32", "numerics_class": {"device": "cpu"}}
    >>> differing_choices(one, {"precision": "exact", "numerics_class": {"probe": "1"}})
    ["precision: 'fp32' and 'exact'"]
    """
    if one.get("precision") != other.get("precision"):
        one, other = ({**values, "numerics_class": {}} for values in (one, other))
    return differing_fields(one, other)


def precision_advice(lines: Sequence[str], found: object) -> str:
    """Return advice to choose the precision found, where it is all that lines say to differ.

    >>> precision_advice(["precision: 'fp32' and 'exact'"], "fp32")
    'add --precision fp32, or '
    >>> precision_advice(["layers: 'layer2' and 'layer3'", "precision: 'fp32' and 'exact'"], "fp32")
    ''
    """
    is_all = len(lines) == 1 and lines[0].startswith("precision: ")
    return f"add --precision {found}, or " if is_all and found in get_args(Precision) else ""


def joined_differences(lines: Sequence[str]) -> str:
    """Return the lines of ``differing_fields`` as a part of a sentence; of many, the first few.

    >>> joined_differences([f"{letter}: 1 and 2" for letter in "abcdefghij"])
    'a: 1 and 2; b: 1 and 2; c: 1 and 2; d: 1 and 2; e: 1 and 2; f: 1 and 2; and 4 more'
    """
    more = [f"and {len(lines) - _MOST_SHOWN:,} more"] if len(lines) > _MOST_SHOWN else []
    return printable("; ".join([*lines[:_MOST_SHOWN], *more]))


def _shown(value: Any) -> str:
    if isinstance(value, str) and _DIGEST.fullmatch(value) is not None:
        return f"{value[:12]}…"
    if value is None:
        return "no value"
    is_list = isinstance(value, list) and not any(isinstance(v, list | dict) for v in value)
    text = _listed(value) if is_list else repr(value)
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
