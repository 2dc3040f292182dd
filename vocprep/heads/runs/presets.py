"""Presets: named sets of training options in small TOML files, and overrides of them.

A preset names the fields of ``TrainOptions`` that it decides; the others keep their defaults.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields
from importlib import resources
from pathlib import Path
from typing import Any, get_args, get_type_hints

from vocprep.errors import UsageError
from vocprep.heads.runs.options import EXECUTION, RENAMED, TrainOptions

_SUFFIX = ".toml"
_SHIPPED = resources.files("vocprep.heads.runs") / "shipped"
_TYPES: dict[str, Any] = {
    name: kind
    for name, kind in get_type_hints(TrainOptions).items()
    if name not in (*EXECUTION, "preset")
}
"""The fields that a preset may decide, with their types."""
PRESET_FIELDS = tuple(_TYPES)
_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


def preset_names() -> list[str]:
    """Return the names of the shipped presets, sorted."""
    names = [item.name for item in _SHIPPED.iterdir()]
    return sorted(name.removesuffix(_SUFFIX) for name in names if name.endswith(_SUFFIX))


def load_options(
    preset: str | TrainOptions = TrainOptions.preset,
    settings: Sequence[str] = (),
    overrides: Mapping[str, Any] | None = None,
) -> TrainOptions:
    """Return the options of a preset, ``settings`` ("key=value") and ``overrides`` laid over it.

    ``preset`` is a shipped name, the path of one's own file, or that of other options. Raises
    UsageError naming the field and what is known of it.
    """
    if isinstance(preset, TrainOptions):
        name, values = preset.preset, {key: getattr(preset, key) for key in PRESET_FIELDS}
    else:
        name = Path(preset).stem if preset.endswith(_SUFFIX) else preset
        values = _read(preset)
    for setting in settings:
        values |= _parse_setting(setting)
    return TrainOptions(**{"preset": name, **values, **(overrides or {})})


def options_toml(options: TrainOptions) -> str:
    """Return options as a preset of their own: what ``load_options`` reads back."""
    # JSON writes text, numbers and booleans as TOML does.
    lines = [f"{name} = {json.dumps(getattr(options, name))}" for name in PRESET_FIELDS]
    head = f"# The options of this run, overrides included; they began as preset {options.preset}."
    return "\n".join([head, *lines, ""])


def differing_options(one: TrainOptions, other: TrainOptions) -> list[str]:
    """Return one line per preset field in which two options differ."""
    return [
        f"{name}: {getattr(one, name)!r} and {getattr(other, name)!r}"
        for name in (field.name for field in fields(TrainOptions))
        if name in _TYPES and getattr(one, name) != getattr(other, name)
    ]


def _read(preset: str) -> dict[str, Any]:
    names = preset_names()
    if preset in names:
        text = (_SHIPPED / f"{preset}{_SUFFIX}").read_text(encoding="utf-8")
    elif preset.endswith(_SUFFIX):
        try:
            text = Path(preset).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"preset {preset}: cannot be read ({error})") from error
    else:
        raise UsageError(
            f"preset {preset!r}: expected one of {', '.join(names)}, or the path of a .toml file"
        )
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"preset {preset}: expected TOML, found otherwise ({error})") from error
    return {
        (name := RENAMED.get(key, key)): _checked(name, value, f"preset {preset}")
        for key, value in values.items()
    }


def _parse_setting(setting: str) -> dict[str, Any]:
    """Return {key: value} of "key=value"; the value is TOML, or text that needs no quotes."""
    key, equals, text = setting.partition("=")
    key, text = key.strip(), text.strip()
    if not equals:
        raise UsageError(f"setting {setting!r}: expected KEY=VALUE")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    return {key: _checked(key, value, f"setting {setting!r}")}


def _checked(key: str, value: Any, where: str) -> Any:
    """Return a field's value in its type; UsageError for another field or another type."""
    if key not in _TYPES:
        raise UsageError(f"{where}: no field {key!r}: expected one of {', '.join(_TYPES)}")
    kind = _TYPES[key]
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    accepted = kind if isinstance(kind, type) else str
    # A bool is an int to Python and a mistake to everybody else.
    if not isinstance(value, accepted) or isinstance(value, bool) != (accepted is bool):
        words = _WORDS[kind] if isinstance(kind, type) else ", ".join(get_args(kind))
        raise UsageError(f"{where}: {key}: expected {words}, found {value!r}")
    return value
