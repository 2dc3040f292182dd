"""Where libraries publish the weights of their models."""

from __future__ import annotations

from dataclasses import dataclass

from vocprep.errors import UsageError
from vocprep.features.libraries.timm_models import pretrained_config
from vocprep.validation import printable


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """Where the weights of a model are, as its library states it."""

    repository: str | None = None
    """On the Hugging Face hub."""
    url: str | None = None
    """Of a file that is in no repository."""
    license: str | None = None


def pretrained_model(backbone: str) -> PretrainedModel:
    """Return where weights are published by ``timm:NAME`` or ``torchvision:NAME``.

    UsageError for an unknown model and for one without published weights.
    """
    kind, _, model = backbone.partition(":")
    found = _of_timm(model) if kind == "timm" else _of_torchvision(model)
    if found.repository is None and found.url is None:
        raise UsageError(
            f"{backbone}: {kind} publishes no weights of it that can be downloaded; give a file of "
            "your own to build-shards with --weights PATH"
        )
    return found


def _of_timm(model: str) -> PretrainedModel:
    config = pretrained_config(model)
    repository = getattr(config, "hf_hub_id", None)
    return PretrainedModel(repository=repository or None, license=getattr(config, "license", None))


def _of_torchvision(model: str) -> PretrainedModel:
    from torchvision.models import get_model_weights, list_models  # noqa: PLC0415  # slow to load

    if model not in list_models():
        raise UsageError(
            f"backbone 'torchvision:{printable(model)}': torchvision has no such model"
        )
    weights = getattr(get_model_weights(model), "DEFAULT", None)
    return PretrainedModel(url=None if weights is None else weights.url)
