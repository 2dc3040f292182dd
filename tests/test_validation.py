"""Checked dataclasses refuse in one sentence, and pydantic's own words never reach a user."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator

from vocprep.errors import UsageError
from vocprep.validation import NotNegative, Positive, checked, explain, from_json, to_json


@checked
class Inner:
    """Nested options."""

    share: Annotated[float, Field(ge=0, le=1)] = 0.5


@checked
class Options:
    """Options of every kind."""

    name: str
    count: Positive = 1
    skip: NotNegative = 0
    mode: Literal["a", "b"] = "a"
    sides: tuple[int, ...] = (32,)
    folder: Path | None = None
    inner: Inner = Inner()


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"name": "x", "count": 0}, "count 0: expected 1 or more"),
        ({"name": "x", "skip": -1}, "skip -1: expected 0 or more"),
        ({"name": "x", "mode": "c"}, "mode 'c': expected one of a, b"),
        ({"name": "x", "count": "many"}, "count 'many': expected a whole number"),
        ({"name": "x", "count": 2.5}, "count 2.5: expected a whole number"),
        ({"name": 3}, "name 3: expected text"),
        ({"name": "x", "sides": 32}, "sides 32: expected a list"),
        ({"name": "x", "sides": ["a"]}, "sides[0] 'a': expected a whole number"),
        ({"name": "x", "inner": {"share": 2}}, "inner.share 2: expected at most 1.0"),
        ({"name": "x", "inner": 5}, "inner 5: expected a table"),
        ({"name": "x", "nmae": 1}, "nmae: no field of this name is known"),
        ({}, "name: expected a value, found none"),
    ],
)
def test_unfit_values_are_one_sentence(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Options(**values)
    assert str(caught.value) == sentence


def test_positional_value_is_refused() -> None:
    with pytest.raises(UsageError, match="0 'x': expected its field by name"):
        Options("x", name="y")  # type: ignore[misc]  # the mistake that is tested


def test_long_values_are_cut() -> None:
    with pytest.raises(UsageError) as caught:
        Options(name="x", mode="c" * 100_000)  # type: ignore[arg-type]
    assert len(str(caught.value)) < 120


def test_options_are_plain_frozen_dataclasses() -> None:
    options = Options(name="x", sides=[64, 32], folder="data")  # type: ignore[arg-type]
    assert options.sides == (64, 32)
    assert options.folder == Path("data")
    assert replace(options, count=3).count == 3
    assert asdict(options)["inner"] == {"share": 0.5}
    assert Options.count == 1
    with pytest.raises(FrozenInstanceError):
        options.count = 2  # type: ignore[misc]
    with pytest.raises(UsageError, match="count 0"):
        replace(options, count=0)


def test_json_round_trip() -> None:
    options = Options(name="x", sides=(1, 2), folder=Path("a/b"), inner=Inner(share=0.25))
    values = to_json(options)
    assert values["sides"] == [1, 2]
    assert list(values) == ["name", "count", "skip", "mode", "sides", "folder", "inner"]
    assert from_json(Options, values) == options


class Model(BaseModel):
    """A manifest with checks of its own."""

    model_config = ConfigDict(extra="forbid")
    path: str
    code: Annotated[str, Field(pattern="^[0-9a-f]+$")] = "0"
    parts: Annotated[tuple[str, ...], Field(min_length=1)] = ("a",)

    @field_validator("path")
    @classmethod
    def _relative(cls, value: str) -> str:
        if value.startswith("/"):
            raise ValueError("expected a relative path")
        return value


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"path": "/a"}, "path: expected a relative path"),
        ({"path": "a", "code": "xyz"}, "code 'xyz': expected text of the form ^[0-9a-f]+$"),
        ({"path": "a", "parts": []}, "parts []: expected at least 1"),
        ({"path": "a", "more": {}}, "more: no field of this name is known"),
        ([], "expected a table, found a list"),
    ],
)
def test_models_are_explained_alike(values: Any, sentence: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Model.model_validate(values)
    assert explain(caught.value) == sentence


def test_broken_json_is_explained() -> None:
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(Options).validate_json(b'{"name": ')
    assert explain(caught.value).startswith("not JSON: ")


def test_other_exceptions_give_their_first_line() -> None:
    assert explain(ValueError("one\ntwo")) == "one"
