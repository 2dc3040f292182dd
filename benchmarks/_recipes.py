"""The rows of ``quality.py``: ways to train heads, and the shards that each learns from."""

from __future__ import annotations

from dataclasses import dataclass

from vocprep.options import BuildChoices
from vocprep.views import Crops, View

VIEWS: tuple[View, ...] = ("identity", "flip")


@dataclass(frozen=True)
class Embeddings:
    """Shards to learn from, as they differ from the usual ones."""

    choices: BuildChoices
    weights: str | None = "cifar100_resnet32.pth"
    """File of the backbone's weights; untrained ones when None."""

    @property
    def views(self) -> int:
        """Views of each picture."""
        crops = self.choices.crops
        return len(self.choices.named_views) + (crops.count if crops else 0)


@dataclass(frozen=True)
class Variant:
    """One row: a preset on some shards, with settings laid over it."""

    title: str
    preset: str = "default"
    shards: str = "base"
    settings: tuple[str, ...] = ()
    batch_size: int | None = None
    """Of this row alone; that of the whole table when None."""


EMBEDDINGS = {
    "base": Embeddings(BuildChoices(views=VIEWS)),
    "wide": Embeddings(
        BuildChoices(views=VIEWS, windows=(32, 64, 128), layers=("layer3", "layer2")),
    ),
    "crops": Embeddings(BuildChoices(views=(*VIEWS, Crops(count=4, seed=0)))),
    "fp32": Embeddings(BuildChoices(views=VIEWS, precision="fp32")),
    "wide-fp32": Embeddings(
        BuildChoices(
            views=VIEWS, windows=(32, 64, 128), layers=("layer3", "layer2"), precision="fp32"
        ),
    ),
    "random": Embeddings(BuildChoices(views=VIEWS), weights=None),
    "imagenet": Embeddings(BuildChoices(views=VIEWS, normalisation="imagenet")),
    "efficientnet": Embeddings(
        BuildChoices(
            views=VIEWS,
            backbone="timm:tf_efficientnet_lite0",
            layers=("final", "blocks.4"),
            cells=2,
        ),
        weights="tf_efficientnet_lite0.safetensors",
    ),
}
PRESETS = {
    "seed": Variant("seed", preset="seed"),
    "default": Variant("default"),
    "quick": Variant("quick", preset="quick"),
    "cells": Variant("cells", preset="cells"),
    "wide": Variant("wide", preset="wide", shards="wide", batch_size=64),
    "linear": Variant("linear", preset="linear"),
}
"""The presets that vocprep has, each on the shards that it is meant for; ``wide`` on those of
windows 32, 64, 128 and layers layer3 + layer2."""
VARIANTS = PRESETS | {
    "none": Variant("cells, mask_head none", preset="cells", settings=("mask_head=none",)),
    "crops": Variant("cells, crops:4 too", preset="cells", shards="crops"),
    "alone": Variant("default, encoder none", settings=("encoder=none",)),
    "spikformer": Variant("default, encoder spikformer", settings=("encoder=spikformer",)),
    "random": Variant("default, untrained backbone", shards="random"),
    "imagenet": Variant("default, ImageNet normalisation", shards="imagenet"),
    "fp32": Variant("default, fp32", shards="fp32"),
    "wide-fp32": Variant("wide, fp32", preset="wide", shards="wide-fp32", batch_size=64),
    "wide-default": Variant("default, embeddings of wide", shards="wide"),
    "wide-cells": Variant("cells, embeddings of wide", preset="cells", shards="wide"),
    "efficientnet-default": Variant("default, EfficientNet-Lite0", shards="efficientnet"),
    "efficientnet-linear": Variant(
        "linear, EfficientNet-Lite0", preset="linear", shards="efficientnet"
    ),
    "efficientnet-cells": Variant(
        "cells, EfficientNet-Lite0", preset="cells", shards="efficientnet"
    ),
}


@dataclass(frozen=True)
class Asked:
    """A number that a row is to reach: by itself, or compared with another row."""

    row: str
    score: str
    """Key of a column."""
    at_least: float
    above: str | None = None
    """The row that it is to exceed by that much."""
    times: str | None = None
    """The row whose number it is to be that many times."""


ASKED = (
    Asked("cells", "miou_frequent", 34.0),
    Asked("cells", "mask_iou", 45.0),
    Asked("wide", "miou_frequent", 43.5),
    Asked("wide", "mask_iou", 50.0),
    Asked("default", "miou_frequent", 30.9),
    Asked("default", "mask_iou", 46.0),
    Asked("efficientnet-linear", "miou_frequent", 58.0),
    Asked("efficientnet-cells", "miou_frequent", 66.0),
    Asked("default", "miou_frequent", 2.0, above="seed"),
    Asked("default", "miou_frequent", 8.0, above="random"),
    Asked("wide", "miou_frequent", 5.0, above="default"),
    Asked("default", "miou_frequent", -0.5, above="fp32"),
    Asked("wide", "miou_frequent", -0.5, above="wide-fp32"),
    Asked("cells", "images_per_second", 3.0, times="default"),
)
