"""What a run is: the configuration that ``run.json`` keeps, and how older ones are read."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any, Self

import numpy as np
import torch

from vocprep.errors import RunError, ShardError, UsageError
from vocprep.files import canonical_json, sha256_hex
from vocprep.heads.model.config import HeadsConfig
from vocprep.heads.runs.options import EXECUTION, RENAMED, TrainOptions
from vocprep.labels.label_space import LabelSpace
from vocprep.recipe import Recipe

RUN_FORMAT_VERSION = 4


def versions() -> dict[str, str]:
    """Return the versions that a run's numbers depend on."""
    return {
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
        "vocprep": metadata.version("vocprep"),
    }


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """What a run is: decided before its first step and kept in ``run.json``."""

    heads: HeadsConfig
    options: TrainOptions
    """Those of the preset are kept; where and how is for each training to say."""
    labels: LabelSpace
    """Of it a run keeps name, void id and class names, so that it needs no manifest."""
    recipe: Recipe
    """Recipe of the shards that it learnt from: backbone, weights digest, normalisation, geometry,
    schema; what ``predict`` must do to a new picture."""
    content_id: str
    source_id: str
    versions: Mapping[str, str] = field(default_factory=versions)
    format_version: int = field(default=RUN_FORMAT_VERSION, compare=False)
    """Of the ``run.json`` that it was read from."""
    run_id_read: str | None = field(default=None, compare=False)

    @property
    def run_id(self) -> str:
        """Sha256 of the canonical JSON of the configuration, as its file has or will have it."""
        return self.run_id_read or sha256_hex(canonical_json(self.to_json()))

    def to_json(self) -> dict[str, Any]:
        """Return plain JSON values; ``from_json`` is the inverse."""
        names = {str(key): name for key, name in sorted(self.labels.names.items())}
        return {
            "run_format_version": RUN_FORMAT_VERSION,
            "heads": asdict(self.heads),
            "options": {
                name: value for name, value in asdict(self.options).items() if name not in EXECUTION
            },
            "labels": {"name": self.labels.name, "void": self.labels.void, "names": names},
            "recipe_id": self.recipe.recipe_id,
            "content_id": self.content_id,
            "source_id": self.source_id,
            "recipe": self.recipe.to_json(),
            "versions": dict(self.versions),
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Self:
        """Rebuild a configuration; RunError says what does not fit."""
        try:
            written, value = value, _upgraded(value)
            labels = value["labels"]
            return cls(
                heads=HeadsConfig(**value["heads"]),
                options=TrainOptions(**value["options"]),
                labels=LabelSpace.of_classes(
                    name=labels["name"],
                    void=labels["void"],
                    names={int(key): name for key, name in labels["names"].items()},
                ),
                recipe=Recipe.from_json(value["recipe"]),
                content_id=value["content_id"],
                source_id=value["source_id"],
                versions=value["versions"],
                format_version=written["run_format_version"],
                run_id_read=sha256_hex(canonical_json(written)),
            )
        except KeyError as error:
            raise RunError(f"expected a field {error}, found none") from error
        except (TypeError, ValueError, IndexError, AttributeError, ShardError, UsageError) as error:
            raise RunError(str(error)) from error


def _upgraded(value: dict[str, Any]) -> dict[str, Any]:
    """Return a run.json's values as this version names them; RunError for an unknown version."""
    version = value["run_format_version"]
    if version == RUN_FORMAT_VERSION:
        return value
    if version not in (1, 2, 3):
        raise RunError(
            f"expected a run_format_version from 1 to {RUN_FORMAT_VERSION}, found {version!r}"
        )
    heads, options, recipe = (dict(value[name]) for name in ("heads", "options", "recipe"))
    if version == 1:
        heads |= {"slots": "area"}
        options |= {"standardise": False, "precision": "fp32", "recipe": "", "slots": "area"}
        # Older shards knew the patch itself and the last layer only.
        recipe = {"windows": [32], "layers": ["layer3"], **recipe}
    if version == 2:
        options["dropout_factor"] = options.pop("dropout")
    for fields in (heads, options):
        for old, new in RENAMED.items():
            if old in fields:
                fields[new] = fields.pop(old)
    return {**value, "heads": heads, "options": options, "recipe": recipe}
