"""Networks that a function in a Python file of one's own makes: ``FILE.py:FUNCTION``.

The code of a file runs only where the user names the file: a recipe, a run or a lock file holds the
name of the function and the digest of the file, never its place, and makes nothing run. What was
named is kept for the life of the process, so that networks of recipes are made again by it.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from vocprep.backbones import NORMALISATIONS, Network, Normalisation
from vocprep.errors import UsageError
from vocprep.features.libraries.maps import (
    DescribedNetwork,
    MapNetwork,
    NetworkChoice,
    UnfitError,
    choose_layers,
    kept_layers,
    measure_layers,
)
from vocprep.files.reading import read_file
from vocprep.files.writing import sha256_hex
from vocprep.geometry import PATCH, Grid
from vocprep.recipe import OWN_FILE, is_own_file
from vocprep.storage.places import local_path
from vocprep.validation import explain, printable

LIBRARY = "module"
OUTPUT = "output"
"""Name of the layer of a network that returns one map."""
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
        return made.float().eval()

    @contextmanager
    def in_words(self, problem: str) -> Iterator[None]:
        """Turn what code of the file raises into one sentence with its line."""
        try:
            yield
        except (Exception, SystemExit) as error:
            raise UsageError(
                f"backbone '{self.file}:{self.name}': {problem} {_what(error)} "
                f"{_where(error, self)}"
            ) from error


_NAMED: dict[tuple[str, str], OwnFunction] = {}
"""By function and digest of its file: what the user named in this process."""


def describe(choice: NetworkChoice) -> DescribedNetwork:
    """Describe the network of ``FILE.py:FUNCTION``, whose code is run; UsageError where unfit."""
    own = load(choice.model)
    model = own.make()
    takes_patches, patch_pixels = _input(own, model)
    grids: Sequence[Grid] = ((1, 1),) if takes_patches else choice.grids
    try:
        names = _names(model, grids[0], patch_pixels)
        given = choice.layers or getattr(model, "layers", None) or names[-1:]
        layers = choose_layers(choice.model, given, names)
        whole = measure_layers(OwnMaps(model, layers), patch_pixels, grids)
    except UnfitError as error:
        line = "" if error.__cause__ is None else f" {_where(error.__cause__, own)}"
        raise UsageError(f"backbone '{choice.model}': {error}{line}") from error
    return DescribedNetwork(
        name=f"{OWN_FILE}:{own.name}",
        network=Network(
            library=LIBRARY,
            source_sha256=own.sha256,
            layers=kept_layers({layer: whole[layer] for layer in layers}, choice.cells),
            patch_pixels=patch_pixels,
            takes_patches=takes_patches,
        ),
        layers=layers,
        normalisation=_normalisation(own, model),
    )


def make(function: str, network: Network) -> OwnMaps:
    """Make the network of a recipe, by a file that was named; UsageError where none was."""
    own = _NAMED.get((function, network.source_sha256 or ""))
    if own is None:
        raise UsageError(_unnamed(function, network))
    return OwnMaps(own.make(), list(network.layers))


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


class OwnMaps(MapNetwork):
    """A network of one's own, and the maps of chosen layers."""

    def __init__(self, model: nn.Module, layers: Sequence[str]) -> None:
        super().__init__(model)
        self.layers = tuple(layers)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """Return the maps."""
        found = _maps(self.model, pixels)
        missing = [name for name in self.layers if name not in found]
        if missing:
            raise UnfitError(f"layer {missing[0]!r} is not among those that it returns")
        return {name: found[name] for name in self.layers}


def _maps(model: nn.Module, pixels: Tensor) -> dict[str, Tensor]:
    """Return what a network gives for pixels, by name, as maps [N, C, h, w]."""
    try:
        output = model(pixels)
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # of many types: it is the user's code
        height, width = pixels.shape[2:]
        raise UnfitError(
            f"a picture of {width}×{height} pixels does not pass it: {_what(error)}"
        ) from error
    maps = output if isinstance(output, Mapping) else {OUTPUT: output}
    if not maps:
        raise UnfitError("expected a map or a dict of maps by name, found an empty one")
    return {name: _as_map(name, value, len(pixels)) for name, value in maps.items()}


def _as_map(name: object, value: object, count: int) -> Tensor:
    if isinstance(name, str) and isinstance(value, Tensor) and value.is_floating_point():
        if value.ndim == 2:
            value = value[:, :, None, None]
        if value.ndim == 4 and len(value) == count:
            return value
    found = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
    raise UnfitError(
        f"layer {printable(str(name))!r}: expected a floating-point map [{count}, C, h, w] of "
        f"{count} inputs, found {found}"
    )


@torch.inference_mode()
def _names(model: nn.Module, grid: Grid, patch_pixels: int) -> list[str]:
    """Return the names of the maps that a network gives for a blank picture, in its order."""
    height, width = (count * patch_pixels for count in grid)
    return list(_maps(model, torch.zeros(1, 3, height, width)))


def _input(own: OwnFunction, model: nn.Module) -> tuple[bool, int]:
    """Return whether patches pass a network alone, and the pixels of a patch's side in its input.

    UsageError for attributes that say something else.
    """
    side, pixels = getattr(model, "input_side", None), getattr(model, "patch_pixels", PATCH)
    if side not in (None, PATCH):
        raise UsageError(
            f"backbone '{own.file}:{own.name}': attribute input_side {side!r}: expected {PATCH} "
            "for patches alone, or none for the whole picture"
        )
    is_number = isinstance(pixels, int) and not isinstance(pixels, bool)
    if not is_number or not 1 <= pixels <= 1024 or (side is not None and pixels != PATCH):
        raise UsageError(
            f"backbone '{own.file}:{own.name}': attribute patch_pixels {pixels!r}: expected the "
            f"pixels that a side of a patch has in its input, 1 to 1024, and {PATCH} for patches "
            "alone"
        )
    return side is not None, pixels


def _normalisation(own: OwnFunction, model: nn.Module) -> Normalisation:
    """Return the constants of a network's attributes ``mean`` and ``std``, else ImageNet's."""
    default = NORMALISATIONS["imagenet"]
    mean, std = getattr(model, "mean", default.mean), getattr(model, "std", default.std)
    try:
        mean, std = (tuple(float(number) for number in each) for each in (mean, std))
        if min(std) <= 0:
            raise ValueError("std must be more than 0")
        return Normalisation(mean=mean, std=std)  # type: ignore[arg-type]  # checked
    except (TypeError, ValueError, UsageError) as error:
        raise UsageError(
            f"backbone '{own.file}:{own.name}': attributes mean and std: expected three numbers "
            f"each, of pixels scaled to 0..1 ({explain(error)})"
        ) from error


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


def _what(error: BaseException) -> str:
    """Return an error's type and the first line of its words."""
    text = printable(str(error).strip().partition("\n")[0], 300)
    return f"{type(error).__name__}: {text}"


def _where(error: BaseException, own: OwnFunction) -> str:
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
