"""Networks that a function in a Python file of one's own makes: ``FILE.py:FUNCTION``.

The code of a file runs only where the user names the file: a recipe, a run or a lock file holds the
name of the function and the digest of the file, never its place, and makes nothing run. What was
named is kept for the life of the process, so that networks of recipes are made again by it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from vocprep.backbones import Network
from vocprep.errors import UsageError
from vocprep.files.reading import read_file
from vocprep.files.writing import sha256_hex
from vocprep.recipe import is_own_file
from vocprep.storage.places import local_path
from vocprep.validation import explain, printable

LIBRARY = "module"
_MAX_SOURCE_BYTES = 4 << 20


@dataclass(frozen=True, kw_only=True)
class OwnFunction:
    """A function that makes a network, of a file that was named and loaded."""

    file: Path
    name: str
    sha256: str
    """Digest of the file's bytes, which are those that were run."""
    function: Callable[[], Any]

    @property
    def spec(self) -> str:
        """What the user wrote for it, as an absolute path."""
        return f"{self.file.absolute()}:{self.name}"

    def make(self) -> nn.Module:
        """Call the function; UsageError for what it raises, or returns that is no module."""
        # What it draws without a seed of its own is another each time, so that it can be noticed.
        with torch.random.fork_rng(devices=[]), self.in_words("its function raised"):
            torch.seed()
            with _importable(self.file.parent):
                made = self.function()
        if not isinstance(made, nn.Module):
            raise UsageError(
                f"backbone '{self.file}:{self.name}': expected its function to return a "
                f"torch.nn.Module, found {type(made).__name__}"
            )
        if any(tensor.is_meta for tensor in made.state_dict().values()):
            raise UsageError(
                f"backbone '{self.file}:{self.name}': expected its function to return a network "
                "whose tensors have data, found some on torch's device meta"
            )
        return made.float().eval()

    @contextmanager
    def in_words(self, problem: str) -> Iterator[None]:
        """Turn what code of the file raises into one sentence with its line."""
        try:
            yield
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"backbone '{self.file}:{self.name}': {problem} {what(error)} {where(error, self)}"
            ) from error


_NAMED: dict[tuple[str, str], OwnFunction] = {}
"""By function and digest of its file: what the user named in this process."""


def named(function: str, network: Network) -> OwnFunction:
    """Return the function of a recipe's network; UsageError where its file was not named."""
    own = _NAMED.get((function, network.source_sha256 or ""))
    if own is None:
        raise UsageError(_unnamed(function, network))
    return own


def allow(spec: str | None, backbone: str, network: Network | None) -> None:
    """Load the file that the user names for the network of a recipe.

    UsageError where another file is named than the one it was made by, none is, or one for a
    backbone that no file makes. The code of another file is not run.
    """
    if network is None or network.library != LIBRARY:
        if spec is not None:
            raise UsageError(
                f"backbone {printable(spec)!r}: what is named was made with {printable(backbone)}, "
                "which needs no file; leave --backbone out"
            )
        return
    function = backbone.partition(":")[2]
    if spec is None:
        raise UsageError(_unnamed(function, network))
    load(spec, expected=(function, network.source_sha256 or ""))


def named_file(backbone: str, network: Network | None) -> str | None:
    """Return ``FILE.py:FUNCTION`` that the user named for a network; None for what has no file."""
    if network is None or network.library != LIBRARY:
        return None
    own = _NAMED.get((backbone.partition(":")[2], network.source_sha256 or ""))
    return None if own is None else own.spec


def load(spec: str, expected: tuple[str, str] | None = None) -> OwnFunction:
    """Run a file and return its function; UsageError in words for whatever fails.

    ``expected`` is the function's name and the file's digest: of another file nothing is run.
    """
    if not is_own_file(spec):
        raise UsageError(
            f"backbone {printable(spec)!r}: expected FILE.py:FUNCTION, a file of your own and the "
            "function in it that returns the network"
        )
    path, _, name = spec.rpartition(":")
    file = local_path(path)
    try:
        source = read_file(file, _MAX_SOURCE_BYTES)
    except OSError as error:
        raise UsageError(f"backbone {spec!r}: {file} cannot be read: {explain(error)}") from error
    digest = sha256_hex(source)
    if expected not in (None, (name, digest)):
        function, sha256 = expected
        raise UsageError(
            f"backbone {spec!r}: expected {function} of the file of sha256 {sha256[:12]}…, which "
            f"the embeddings were made with, found {name} of one of {digest[:12]}…; name that file"
        )
    known = _NAMED.get((name, digest))
    if known is None:
        known = _run(spec, file, name, source, digest)
        _NAMED[(name, digest)] = known
    return known


def _run(spec: str, file: Path, name: str, source: bytes, digest: str) -> OwnFunction:
    """Run the source of a file as a module of its own."""
    module = ModuleType(f"vocprep_own_file_{digest[:16]}")
    module.__file__ = str(file.absolute())
    found = OwnFunction(file=file, name=name, sha256=digest, function=lambda: None)
    sys.modules[module.__name__] = module  # where its classes are looked up
    with found.in_words("its file raised"), _importable(file.parent):
        exec(compile(source, str(file), "exec", dont_inherit=True), module.__dict__)
    function = getattr(module, name, None)
    if not callable(function):
        raise UsageError(f"backbone {spec!r}: expected a function {name} in {file}, found none")
    return OwnFunction(file=file, name=name, sha256=digest, function=function)


def _unnamed(function: str, network: Network) -> str:
    return (
        f"backbone 'module:{printable(function)}': is made by a file of one's own, of sha256 "
        f"{(network.source_sha256 or '')[:12]}…, whose code runs only where it is named: add "
        f"--backbone FILE.py:{printable(function)}"
    )


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Let a file import what lies beside it, as a script can."""
    entry = str(folder.absolute())
    sys.path.insert(0, entry)
    try:
        yield
    finally:
        if entry in sys.path:
            sys.path.remove(entry)


def what(error: BaseException) -> str:
    """Return an error's type and the first line of its words."""
    text = printable(str(error).strip().partition("\n")[0], 300)
    return f"{type(error).__name__}: {text}"


def where(error: BaseException, own: OwnFunction) -> str:
    """Return the line of a file that an error comes from, and how to see its traceback.

    The innermost line that is in the file, where there is one.
    """
    file = str(own.file)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    if isinstance(error, SyntaxError) and error.filename == file:
        lines.append(error.lineno)
    at = f"line {lines[-1]} of {file}; " if lines else ""
    call = f"import runpy; runpy.run_path({file!r})[{own.name!r}]()"
    return f'({at}its traceback: python -c "{call}")'
