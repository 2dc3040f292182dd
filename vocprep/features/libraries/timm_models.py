"""Models of timm (Wightman, PyTorch Image Models): those whose maps tile the patches."""

from __future__ import annotations

import difflib
import importlib.metadata
from collections.abc import Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vocprep.backbones import Network, Normalisation
from vocprep.errors import DataError, UsageError
from vocprep.features.libraries.maps import (
    DescribedNetwork,
    MapNetwork,
    MissingLibraryError,
    NetworkChoice,
    UnfitError,
    as_map,
    choose_layers,
    first_line,
    kept_layers,
    measure_layers,
    nearest_pixels,
)
from vocprep.geometry import PATCH, SIDE
from vocprep.validation import printable

FINAL = "final"
"""Name of the last map of all, which the classifier takes: after the last norm or convolution."""
_ARGUMENTS = ("dynamic_img_size", "img_size")
"""Arguments of ``timm.create_model`` that a recipe may hold."""
_CONFIG = ("architecture", "tag", "num_classes", "input_size", "mean", "std")
"""What a recipe holds of timm's configuration of a model."""


def describe(choice: NetworkChoice) -> DescribedNetwork:
    """Describe a model of timm; UsageError when there is none, or it does not fit."""
    name = f"timm:{choice.model}"
    timm = _timm(name)
    config = _config(timm, choice.model)
    problem: UnfitError | None = None
    for arguments in _candidates(choice):
        try:
            model = _create(timm, choice.model, arguments)
            layers = choose_layers(name, choice.layers or (FINAL,), feature_names(model), [FINAL])
            patch_pixels = nearest_pixels(_stride(model))
            network = TimmMaps(model, layers)
            whole = measure_layers(network, patch_pixels, choice.grids)
        except UnfitError as error:
            # The first is about the model as it is, the others about ways around.
            problem = problem or error
            continue
        return DescribedNetwork(
            name=name,
            network=Network(
                library=library(),
                config={**config, "arguments": arguments},
                layers=kept_layers({layer: whole[layer] for layer in layers}, choice.cells),
                patch_pixels=patch_pixels,
            ),
            layers=layers,
            normalisation=Normalisation(mean=tuple(config["mean"]), std=tuple(config["std"])),
        )
    native = choice.geometry.geometry == "native"
    advice = "another model, --layers or --geometry" if native else "another model or --layers"
    raise UsageError(f"backbone {name!r}: {problem}; choose {advice}") from problem


def make(model: str, network: Network) -> TimmMaps:
    """Make the model of a recipe, untrained; UsageError where timm does not have it."""
    timm = _timm(f"timm:{model}")
    _require_known(timm, model)
    arguments = network.config.get("arguments", {})
    if not isinstance(arguments, dict) or not set(arguments) <= set(_ARGUMENTS):
        raise DataError(
            f"backbone 'timm:{printable(model)}': recipe with arguments {printable(str(arguments))}"
            f": expected none but {' and '.join(_ARGUMENTS)}"
        )
    made = _create(timm, model, arguments)
    return TimmMaps(
        made, choose_layers(f"timm:{model}", [*network.layers], feature_names(made), [FINAL])
    )


class TimmMaps(MapNetwork):
    """A model of timm, and the maps of chosen layers."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        super().__init__(model)
        places = {name: place for place, name in enumerate(feature_names(model))}
        self.features = sorted((name for name in set(layers) if name in places), key=places.get)  # type: ignore[arg-type]  # all are in it
        self.indices = [places[name] for name in self.features]
        self.has_final = FINAL in layers

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps, all of one pass."""
        model: Any = self.model
        if not self.indices:
            return {FINAL: self._final(model.forward_features(pixels), pixels)}
        found = model.forward_intermediates(
            pixels,
            indices=self.indices,
            output_fmt="NCHW",
            stop_early=not self.has_final,
            intermediates_only=not self.has_final,
        )
        final, maps = found if self.has_final else (None, found)
        named = dict(zip(self.features, maps, strict=True))
        return named if final is None else {**named, FINAL: self._final(final, pixels)}

    def _final(self, found: object, pixels: Tensor) -> Tensor:
        return as_map(FINAL, found, pixels, getattr(self.model, "num_prefix_tokens", 0))


def feature_names(model: nn.Module) -> list[str]:
    """Return timm's names of the layers that a model gives, by their index."""
    features: Any = getattr(model, "feature_info", ())
    return [feature["module"] for feature in features]


def _stride(model: nn.Module) -> int:
    """Return the pixels from one place to the next of the coarsest layer."""
    features: Any = getattr(model, "feature_info", ())
    return max((int(feature["reduction"]) for feature in features), default=PATCH)


def _candidates(choice: NetworkChoice) -> Iterator[dict[str, Any]]:
    """Yield arguments to make a model with: as it is, or for pictures of other sizes."""
    yield {}
    yield {"dynamic_img_size": True}
    if choice.geometry.geometry != "native":
        yield {"img_size": SIDE}


def _create(timm: ModuleType, model: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        # Initial weights are drawn from torch's generator, which is not to be advanced by it.
        with torch.random.fork_rng(devices=[]):
            made: nn.Module = timm.create_model(model, pretrained=False, **arguments)
    except Exception as error:  # of many types, by the model
        raise UnfitError(f"timm does not make it: {first_line(error)}") from error
    if not hasattr(made, "forward_intermediates") or not hasattr(made, "forward_features"):
        raise UnfitError("timm gives no maps of its layers")
    return made.eval()


def _timm(backbone: str) -> ModuleType:
    try:
        import timm  # noqa: PLC0415  # an extra, which takes seconds to load
    except ImportError as error:
        raise MissingLibraryError(
            f"backbone {printable(backbone)!r} needs the extra timm: run pip install "
            "'vocprep[timm]'"
        ) from error
    module: ModuleType = timm
    return module


def library() -> str:
    """Return name and version of the library, without what the version says of its build."""
    return f"timm {importlib.metadata.version('timm').partition('+')[0]}"


def _require_known(timm: ModuleType, model: str) -> None:
    names = timm.list_models()
    architecture, _, tag = model.partition(".")
    if architecture not in names:
        near = difflib.get_close_matches(architecture, names, n=3)
        advice = f"the nearest are {', '.join(near)}" if near else "timm.list_models() names all"
        raise UsageError(
            f"backbone 'timm:{printable(model)}': expected a model of {library()}; {advice}"
        )
    tags = timm.list_pretrained(f"{architecture}.*") if tag else []
    if tag and model not in tags:
        found = ", ".join(name.partition(".")[2] for name in tags) or "none"
        raise UsageError(
            f"backbone 'timm:{printable(model)}': expected one of the tags that {library()} has "
            f"of {architecture}, {found}; or leave the tag out"
        )


def _config(timm: ModuleType, model: str) -> dict[str, Any]:
    """Return timm's configuration of a model as plain JSON values; UsageError where it has none."""
    _require_known(timm, model)
    found = timm.models.get_pretrained_cfg(model)
    values = {} if found is None else found.to_dict()
    config = {name: values.get(name) for name in _CONFIG}
    triples: list[Any] = [config[name] or () for name in ("input_size", "mean", "std")]
    if any(len(triple) != 3 for triple in triples) or triples[0][0] != 3:
        raise UsageError(
            f"backbone 'timm:{model}': expected a model of pictures of three channels, whose "
            "means and deviations timm knows; choose another model"
        )
    plain = {name: list(v) if isinstance(v, tuple) else v for name, v in config.items()}
    return {name: value for name, value in plain.items() if value is not None}


def pretrained_config(model: str) -> Any:
    """Return timm's configuration of a model's published weights; UsageError for unknown models."""
    timm = _timm(f"timm:{model}")
    _require_known(timm, model)
    return timm.models.get_pretrained_cfg(model)
