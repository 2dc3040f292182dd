"""Exceptions: exit codes, and the way from one process to another."""

from __future__ import annotations

import importlib
import inspect
import pickle
from pathlib import Path

import pytest

import vocprep
from vocprep.building.stages import SampleError
from vocprep.downloading.faults import MirrorError, Remedy
from vocprep.errors import ImageDecodeError, LabelDecodeError, VocprepError
from vocprep.shards.samples import QuarantinedSample

PACKAGE = Path(vocprep.__file__).parent


def exceptions() -> list[type[Exception]]:
    """Return every exception class that a module of vocprep defines."""
    found = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        if not name.endswith("__main__"):
            for _, value in inspect.getmembers(importlib.import_module(name), inspect.isclass):
                if issubclass(value, Exception) and value.__module__.startswith("vocprep."):
                    found.add(value)
    return sorted(found, key=lambda cls: (cls.__module__, cls.__name__))


def example(cls: type[Exception]) -> Exception:
    """Return an exception of a class, with what it holds beside its message."""
    if cls is SampleError:
        values = {"id": "2008_000002", "split": "train", "stage": "decode", "file": "x.jpg"}
        lost = QuarantinedSample(**values, reason="x.jpg: damaged")  # type: ignore[arg-type]
        return SampleError("x.jpg: damaged", lost)
    if issubclass(cls, MirrorError):
        return cls("answers with 404", Remedy.ELSEWHERE)
    own = next(base.__init__ for base in cls.__mro__ if "__init__" in vars(base))
    given = inspect.signature(own).parameters.values() if inspect.isfunction(own) else ()
    needed = [p for p in given if p.kind is p.POSITIONAL_OR_KEYWORD and p.default is p.empty]
    values = [1 if parameter.annotation == "int" else "the message" for parameter in needed[1:]]
    return cls(*(values or ["the message"]))


@pytest.mark.parametrize("cls", exceptions(), ids=lambda cls: cls.__name__)
def test_every_exception_comes_back_from_another_process(cls: type[Exception]) -> None:
    error = example(cls)
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again), again.args) == (cls, str(error), error.args)
    assert vars(again) == vars(error)


@pytest.mark.parametrize("cls", [ImageDecodeError, LabelDecodeError])
def test_what_is_recorded_of_a_bad_file_comes_back_too(cls: type[ImageDecodeError]) -> None:
    error = cls("x.jpg: its pixel data end early", recorded="x.jpg: does not decode")
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.recorded) == (str(error), error.recorded)


def test_every_error_of_the_library_has_an_exit_code_that_is_documented() -> None:
    codes = {cls.exit_code for cls in exceptions() if issubclass(cls, VocprepError)}
    assert codes == {2, 3, 4, 5}
