"""Presets: named sets of training options in small TOML files, and overrides of them.

A preset names the fields of ``TrainOptions`` that it sets; the others keep their defaults.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from vocprep.errors import UsageError
from vocprep.files.reading import parse_toml, read_toml
from vocprep.heads.runs.options import DEFAULT_PRESET, EXECUTION, OLDER, RENAMED, TrainOptions
from vocprep.storage.places import local_path
from vocprep.validation import explain

OPTIONS_FILE = "options.toml"
"""In every run: the preset that trains another like it."""
_SUFFIX = ".toml"
_SHIPPED = resources.files("vocprep.heads.runs") / "shipped"
PRESET_FIELDS = tuple(
    field.name for field in fields(TrainOptions) if field.name not in (*EXECUTION, "preset")
)
"""The fields that a preset may set."""
_IN_EVERY_RUN = {
    *("encoder", "position", "standardise", "class_loss", "slots", "flip", "dropout_factor"),
    *("epochs", "batch_size", "lr", "weight_decay", "warmup", "clip", "precision", "seed"),
    *("train_split", "val_split", "validate_every"),
}
"""Fields that ``options.toml`` of any run has: one without the newer ones is of an older run."""


def preset_names() -> list[str]:
    """Return the names of the shipped presets, sorted.

    >>> preset_names()
    ['cells', 'default', 'linear', 'quick', 'seed', 'wide']
    """
    names = [item.name for item in _SHIPPED.iterdir()]
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def load_options(
    preset: str | Path | TrainOptions = DEFAULT_PRESET,
    settings: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> TrainOptions:
    """Return the options of a preset with ``settings`` ("KEY=VALUE"), then ``overrides`` applied.

    ``preset`` is a shipped name, the path of a ``.toml`` file, or other options, of which the
    preset's fields are taken. Raises UsageError naming the field and what was expected of it.

    >>> options = load_options("quick", ["encoder=none"], {"epochs": 3})
    >>> options.preset, options.encoder, options.epochs, options.batch_size
    ('quick', 'none', 3, 32)
    """
    if isinstance(preset, TrainOptions):
        name, values = preset.preset, {key: getattr(preset, key) for key in PRESET_FIELDS}
    else:
        preset = str(preset)
        name = Path(preset).stem if preset.endswith(_SUFFIX) else preset
        values = _read(preset)
    for setting in settings:
        values |= _parse_setting(setting)
    return TrainOptions(**{"preset": name, **values, **(overrides or {})})


def options_toml(options: TrainOptions) -> str:
    """Return options as a preset of their own: what ``load_options`` reads back."""
    # JSON writes text, numbers and booleans as TOML does.
    values = {name: getattr(options, name) for name in PRESET_FIELDS}
    # TOML has no null: a field without a value is left out.
    lines = [f"{name} = {json.dumps(value)}" for name, value in values.items() if value is not None]
    head = f"# The options of this run, overrides included; they began as preset {options.preset}."
    return "\n".join([head, *lines, ""])


def differing_options(one: TrainOptions, other: TrainOptions) -> list[str]:
    """Return one line per preset field in which two options differ."""
    return [
        f"{name}: {getattr(one, name)!r} and {getattr(other, name)!r}"
        for name in PRESET_FIELDS
        if getattr(one, name) != getattr(other, name)
    ]


def _read(preset: str) -> dict[str, Any]:
    """Return the values of a preset by its name or path."""
    names = preset_names()
    if preset not in names and not preset.endswith(_SUFFIX):
        own = Path(preset) / OPTIONS_FILE
        advice = f"; that of a run is {own}" if own.is_file() else ""
        raise UsageError(
            f"preset {preset!r}: expected one of {', '.join(names)}, or the path of a .toml file"
            f"{advice}"
        )
    path = (
        Path(str(_SHIPPED / f"{preset}{_SUFFIX}"))
        if preset in names
        else local_path(preset, "preset")
    )
    try:
        values = read_toml(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"preset {path}: {explain(error)}; expected one of {', '.join(names)}, or a TOML file "
            "as options.toml of a run is"
        ) from error
    values = {RENAMED.get(key, key): value for key, value in values.items()}
    if values.keys() >= _IN_EVERY_RUN:
        values = {**OLDER, **values}
    return _checked_values(values, f"preset {preset}")


def _parse_setting(setting: str) -> dict[str, Any]:
    """Return {key: value} of "KEY=VALUE"; the value is TOML, or text that needs no quotes."""
    key, equals, text = setting.partition("=")
    if not equals:
        raise UsageError(f"setting {setting!r}: expected KEY=VALUE")
    try:
        value = parse_toml(f"value = {text.strip()}")["value"]
    except ValueError:
        value = text.strip()
    key = key.strip()
    return _checked_values({RENAMED.get(key, key): value}, f"setting {setting!r}")


def _checked_values(values: dict[str, Any], where: str) -> dict[str, Any]:
    """Return preset fields of the types that ``TrainOptions`` has; UsageError for others.

    Strictly: a bool is no number here, and 2.5 or "3" no whole number.
    """
    types = get_type_hints(TrainOptions, include_extras=True)
    checked = {}
    for key, value in values.items():
        if key not in PRESET_FIELDS:
            raise UsageError(
                f"{where}: no field {key!r}: expected one of {', '.join(PRESET_FIELDS)}"
            )
        try:
            checked[key] = TypeAdapter(types[key]).validate_python(value, strict=True)
        except ValidationError as error:
            raise UsageError(f"{where}: {key} {explain(error)}") from error
    return checked
