"""The frozen backbones: everything to be known of each without torch.

To add a built-in one: an entry in ``BACKBONES`` and a maker in
``vocprep.features.networks.MAKERS``. Where its weights can be downloaded, also a source manifest of
the same name (mirrors, digests). Normalisation constants that no other backbone has are an entry in
``NORMALISATIONS``.

Any other network, of a library or of one's own, is described by a ``Network``, which recipes keep:
versions and runs are read where its library is not installed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from vocprep.errors import DataError
from vocprep.geometry import PATCH, SIDE
from vocprep.validation import Positive, checked, printable

MAX_PATCH_PIXELS = 1024
"""Of a side of a patch in a network's input: pictures resized to more would not fit any memory."""
NormalisationName = Literal["cifar100", "imagenet"]


@checked
class Normalisation:
    """Per-channel mean and standard deviation (RGB, of pixels scaled to 0..1)."""

    mean: tuple[float, float, float] = (0.5070, 0.4865, 0.4409)
    """CIFAR-100's, which the ResNet-32 was trained with."""
    std: tuple[float, float, float] = (0.2673, 0.2564, 0.2761)
    """CIFAR-100's, too."""


NORMALISATIONS: dict[NormalisationName, Normalisation] = {
    "cifar100": Normalisation(),
    "imagenet": Normalisation(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
}
"""By the dataset that networks are trained on with them."""


def normalisation_name(constants: Normalisation) -> NormalisationName:
    """Return the name of constants in ``NORMALISATIONS``; DataError for any others."""
    for name, known in NORMALISATIONS.items():
        if known == constants:
            return name
    raise DataError(
        f"normalisation {constants}: expected that of {' or '.join(NORMALISATIONS)}; this "
        "version of vocprep makes no other"
    )


@checked
class Layer:
    """A layer that embeddings can be taken from: a feature map averaged over square cells."""

    channels: Positive
    cells: Positive
    """Cells per side of a patch that each channel is averaged to."""

    @property
    def size(self) -> int:
        """Numbers that the layer gives per patch."""
        return self.channels * self.cells**2


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """A frozen network: its layers, normalisation and input, without torch."""

    title: str
    citation: str
    """Publication of the network, for the descriptions of dataset versions."""
    layers: Mapping[str, Layer]
    """Layers that embeddings can be taken from; the first is the default."""
    normalisation: Normalisation
    """Constants that it was trained with."""
    input_side: int | None = PATCH
    """Side in pixels of one input: a patch, or a whole image; None for whole images of any grid of
    patches."""
    patch_pixels: int = PATCH
    """Side in pixels of a patch in the network's input: a whole image is resized to it."""
    default_windows: tuple[int, ...] = field(default=(PATCH,))
    """Windows around each patch that pass the network; none where it takes whole images."""
    has_exact: bool = False
    """Whether the precision ``exact`` is defined for it, which is then the default."""

    @property
    def takes_whole_images(self) -> bool:
        """Whether one input is a whole image, which gives the embeddings of all its patches."""
        return self.input_side != PATCH

    @property
    def default_layers(self) -> tuple[str, ...]:
        """The layer that embeddings are taken from unless others are chosen."""
        return (next(iter(self.layers)),)

    def embedding_size(self, windows: Sequence[int], layers: Sequence[str]) -> int:
        """Return D, the numbers per patch.

        >>> BACKBONES["resnet32-cifar100"].embedding_size((32, 64), ("layer3", "layer2"))
        1536
        """
        return sum(self.layers[name].size for name in layers) * max(1, len(windows))


def _layer_name(name: str) -> str:
    if not 1 <= len(name) <= _LONGEST_NAME or "," in name or not name.isprintable():
        raise ValueError(
            f"layer {printable(name, 60)!r}: expected a name of 1 to {_LONGEST_NAME} printable "
            "characters without commas"
        )
    return name


_LONGEST_NAME = 200
LayerName = Annotated[str, AfterValidator(_layer_name)]


@checked
class Network:
    """A backbone that is not built in, as recipes keep it: all that is known without its library.

    Its name in the recipe is ``timm:NAME``, ``torchvision:NAME``, or ``module:FUNCTION``.
    """

    library: Annotated[str, Field(max_length=200)]
    """Name and version of the library that makes the network; ``module`` for a file of one's
    own."""
    source_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """Digest of the file of one's own that makes the network."""
    config: dict[str, Any] = field(default_factory=dict)
    """What the library states of the model, as plain JSON values."""
    layers: Annotated[dict[LayerName, Layer], Field(min_length=1)]
    """The layers that embeddings are taken from, with the cells that are kept."""
    patch_pixels: Annotated[int, Field(ge=1, le=MAX_PATCH_PIXELS)] = PATCH
    """Side in pixels of a patch in the network's input: a whole image is resized to it."""
    takes_patches: bool = False
    """Whether each patch passes the network alone, as with ResNet-32; else the whole image does."""


def backbone_of(name: str, network: Network | None, normalisation: Normalisation) -> Backbone:
    """Return the description of a recipe's backbone: a built-in one, or that of its network.

    ``normalisation`` is that of the recipe, which a network that is not built in takes.
    """
    if network is None:
        return BACKBONES[name]
    return Backbone(
        title=name.partition(":")[2],
        citation=f"{name.partition(':')[2]} ({network.library})",
        layers=network.layers,
        normalisation=normalisation,
        input_side=PATCH if network.takes_patches else None,
        patch_pixels=network.patch_pixels,
        default_windows=(PATCH,) if network.takes_patches else (),
    )


BACKBONES: dict[str, Backbone] = {
    "resnet32-cifar100": Backbone(
        title="CIFAR-100 ResNet-32",
        citation="He et al., CVPR 2016 (ResNet)",
        layers={
            "layer3": Layer(channels=64, cells=2),
            "layer2": Layer(channels=32, cells=4),
        },
        normalisation=NORMALISATIONS["cifar100"],
        has_exact=True,
    ),
    "resnet18-imagenet": Backbone(
        title="ImageNet ResNet-18",
        citation="He et al., CVPR 2016 (ResNet)",
        layers={"layer4": Layer(channels=512, cells=1)},
        normalisation=NORMALISATIONS["imagenet"],
        input_side=SIDE,
        default_windows=(),
    ),
}
"""By name: as in ``--backbone``, in recipes, and of the source that the weights come from."""
DEFAULT_BACKBONE = next(iter(BACKBONES))


def listed_without_exact() -> str:
    """Return the names of the backbones that exact arithmetic is not defined for.

    >>> listed_without_exact()
    'resnet18-imagenet'
    """
    return ", ".join(name for name, backbone in BACKBONES.items() if not backbone.has_exact)


def listed_by_input() -> str:
    """Return the titles of all backbones for a help text, by what one input of the network is.

    >>> listed_by_input()
    'CIFAR-100 ResNet-32 for each patch alone, ImageNet ResNet-18 for the whole image'
    """
    words = {False: "for each patch alone", True: "for the whole image"}
    titles: dict[bool, list[str]] = {}
    for backbone in BACKBONES.values():
        titles.setdefault(backbone.takes_whole_images, []).append(backbone.title)
    return ", ".join(f"{' or '.join(names)} {words[key]}" for key, names in titles.items())
