"""Checked values: pydantic dataclasses for options and recipes, and its errors as one sentence.

pydantic checks everything that comes from outside: options, manifests, JSON files. ``explain`` is
the only place where its errors become words for a user.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeVar, dataclass_transform

import pydantic.dataclasses
from pydantic import BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails, PydanticKnownError

from vocprep.errors import UsageError

T = TypeVar("T")

LARGEST = 2**63 - 1
"""Integer that arrays hold at most."""
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
NotNegative = Annotated[int, Field(ge=0)]


def _no_other_number(value: object) -> object:
    if isinstance(value, bool | float):
        raise PydanticKnownError("int_type")
    return value


WholeNumber = BeforeValidator(_no_other_number)
"""Of a ``Literal`` of whole numbers, which by itself takes true and 1.0 for 1."""

_LONGEST_SHOWN = 60
_LONGEST_LINE = 1000
_KINDS = {
    "bool": "true or false",
    "int": "a whole number",
    "float": "a number",
    "finite": "a finite number",
    "string": "text",
    "tuple": "a list",
    "list": "a list",
    "dict": "a table",
    "mapping": "a table",
    "model": "a table",
    "dataclass": "a table",
    "path": "a path",
    "unexpected": "its field by name, as in field=value",  # unexpected_positional_argument
}
"""By the first word of pydantic's error types: what was expected."""


@dataclass_transform(frozen_default=True, kw_only_default=True)
def checked(cls: type[T]) -> type[T]:
    """Make a class a frozen keyword-only dataclass whose values are checked when it is made.

    Values are converted as pydantic does (a list to a tuple, text to a Path); a value of another
    type or outside its bounds is a UsageError that names the field.

    >>> @checked
    ... class Options:
    ...     workers: Positive = 1
    >>> Options(workers=0)
    Traceback (most recent call last):
    ...
    vocprep.errors.UsageError: workers 0: expected 1 or more
    """
    made: Any = pydantic.dataclasses.dataclass(
        frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False)
    )(cls)
    made.__init__ = _with_usage_errors(made.__init__)
    return made  # type: ignore[no-any-return]  # the class that was given, with checks


def _with_usage_errors(init: Callable[..., None]) -> Callable[..., None]:
    @wraps(init)
    def wrapped(*args: Any, **values: Any) -> None:
        try:
            init(*args, **values)
        except ValidationError as error:
            raise UsageError(explain(error)) from error

    return wrapped


def to_json(value: Any) -> dict[str, Any]:
    """Return the plain JSON values of a checked dataclass, in the order of its fields."""
    plain: dict[str, Any] = TypeAdapter(type(value)).dump_python(value, mode="json")
    return plain


def from_json(cls: type[T], value: Any) -> T:
    """Rebuild a checked dataclass or a model from plain JSON values; ValueError when unfit.

    Nothing is converted that JSON itself can tell apart: ``"5"`` and ``5.0`` are no whole numbers.

    >>> from_json(dict[str, Positive], {"rows": "5"})
    Traceback (most recent call last):
    ...
    pydantic_core._pydantic_core.ValidationError: 1 validation error for dict[str,...
    """
    try:
        text = json.dumps(value, allow_nan=False)
    except ValueError as error:
        raise ValueError("expected finite numbers, found one that is too large") from error
    return TypeAdapter(cls).validate_json(text, strict=True)


def explain(error: Exception) -> str:
    """Return what is wrong with a value in one line: the field, what was expected, what was found.

    Takes pydantic's ValidationError, of which the first problem counts, and any other exception,
    of which the first line does, or the reason that the system gives.

    >>> try:
    ...     TypeAdapter(dict[str, Positive]).validate_python({"epochs": "ten"})
    ... except ValidationError as error:
    ...     explain(error)
    "epochs 'ten': expected a whole number"
    """
    return printable(_problem(error))


def printable(text: str, longest: int = _LONGEST_LINE) -> str:
    """Return a text as one readable line of bounded length, whatever was put into it.

    >>> printable("a\\nb\\x1b[2J" + "é" * 3)
    'a\\\\nb\\\\x1b[2Jééé'
    """
    shown = "".join(
        char if char.isprintable() else repr(char)[1:-1] for char in text[: longest + 1]
    )
    return shown if len(shown) <= longest else f"{shown[:longest]}…"


def _problem(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return _validation_problem(error.errors(include_url=False)[0])
    reason = error.strerror if isinstance(error, OSError) else None
    return reason or str(error).split("\n", maxsplit=1)[0]


def _validation_problem(first: ErrorDetails) -> str:
    where = _field(first["loc"])
    context = first.get("ctx", {})
    kind = first["type"]
    if kind == "missing":
        return f"{where}: expected a value, found none"
    if kind in ("extra_forbidden", "unexpected_keyword_argument"):
        return f"{where}: no field of this name is known"
    if kind in ("value_error", "assertion_error"):
        return f"{where}: {context['error']}" if where else str(context["error"])
    if kind == "json_invalid":
        return f"not JSON: {context['error']}"
    expected = _expected(kind, context, first["msg"])
    if not where and expected == f"expected {_KINDS['dict']}":  # of the whole file
        return f"{expected}, found {_kind(first['input'])}"
    return f"{where} {_shown(first['input'])}: {expected}".lstrip()


def _field(place: tuple[int | str, ...]) -> str:
    """Return the name of a nested field: ``shards[3].bytes``."""
    # Pydantic calls a key of a table "[key]".
    parts = [_cut(part) if isinstance(part, str) else part for part in place if part != "[key]"]
    inner = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in parts[1:]]
    return "".join([*map(str, parts[:1]), *inner])


def _expected(kind: str, context: dict[str, Any], message: str) -> str:
    """Return what pydantic expected, in words."""
    if kind in ("literal_error", "enum"):
        names = str(context["expected"]).replace("'", "").replace(" or ", ", ")
        return f"expected one of {names}" if ", " in names else f"expected {names}"
    if kind == "string_pattern_mismatch":
        return f"expected text of the form {context['pattern']}"
    unit = " characters" if kind.startswith("string_") else ""
    if kind in ("too_short", "string_too_short"):
        return f"expected at least {context['min_length']}{unit}"
    if kind in ("too_long", "string_too_long"):
        return f"expected at most {context['max_length']}{unit}"
    bounds = {
        "greater_than_equal": ("ge", "{} or more"),
        "greater_than": ("gt", "more than {}"),
        "less_than_equal": ("le", "at most {}"),
        "less_than": ("lt", "less than {}"),
    }
    if kind in bounds:
        name, words = bounds[kind]
        return "expected " + words.format(context[name])
    expected = _KINDS.get(kind.split("_", maxsplit=1)[0])
    return f"expected {expected}" if expected else message[:1].lower() + message[1:]


def _kind(value: object) -> str:
    """Return in words what kind of JSON value one is.

    >>> [_kind(value) for value in ([], "abc", True, None)]
    ['a list', 'text', 'true or false', 'null']
    """
    names = {"str": "string", "NoneType": "null"}
    name = names.get(type(value).__name__, type(value).__name__)
    return _KINDS.get(name, name)


def _shown(value: Any) -> str:
    """Return a found value for people, no longer than a few words."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, dict):
        return "(a table)"
    text = repr(value[: _LONGEST_SHOWN + 1] if isinstance(value, str | bytes) else value)
    return _cut(text)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…"
