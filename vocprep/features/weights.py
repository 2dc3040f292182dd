"""The weights of backbones: reading them strictly, their digest, and where they were read from."""

from __future__ import annotations

import hashlib
import io
import pickle
import reprlib
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from torch import Tensor, nn

from vocprep.backbones import BACKBONES, DEFAULT_BACKBONE, Network, Normalisation
from vocprep.errors import SourceUnavailableError, UsageError, WeightsError
from vocprep.features.exact_integers import derive_integers
from vocprep.features.libraries.kinds import make_model
from vocprep.features.networks import CifarResNet
from vocprep.files.reading import read_json
from vocprep.files.writing import write_json
from vocprep.manifests import SourceFile, load_source, manifest_names
from vocprep.storage.cache import DigestMismatchError
from vocprep.storage.places import Place, local_path
from vocprep.storage.reading import open_listed, read_bytes, read_source, why_unread
from vocprep.storage.store import StorePath
from vocprep.validation import checked, explain, from_json, to_json

RANDOM_PREFIX = "random:"
OFFICIAL = "official "
"""Begins the label of a backbone's published weights in a version's index."""
UNTRAINED = "untrained ("
"""Begins the label of untrained weights in a version's index; their ``random:SEED`` follows."""
WEIGHTS_HINT = ".weights.json"
"""In the folder of a dataset version, no part of it: where the build read the weights from."""
MAX_WEIGHTS_BYTES = 4 << 30
"""Of one weights file: those of the backbones here have 2 to 45 MB."""
_DTYPES = (torch.float32, torch.int64)

StateDict = Mapping[str, Tensor]


def tensor_digest(weights: StateDict) -> str:
    """Return the identity of weights, whatever kind of file they were read from.

    Sha256 over, for each name in sorted order: name, NUL, dtype, NUL, comma-joined shape, NUL,
    little-endian bytes.
    """
    digest = hashlib.sha256()
    for name in sorted(weights):
        array = weights[name].detach().cpu().contiguous().numpy()
        shape = ",".join(str(size) for size in array.shape)
        digest.update(f"{name}\0{array.dtype}\0{shape}\0".encode())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes())
    return digest.hexdigest()


def file_tensor_digest(path: Path) -> str:
    """Return the tensor digest of a weights file."""
    return tensor_digest(_read_weights(path))


@checked
class WeightsOrigin:
    """Where weights were read from: a hint beside what was made with them, proven by the digest."""

    weights: str
    """The absolute path of a file, or ``random:SEED``."""
    tensors_sha256: str

    @classmethod
    def of(cls, spec: str, tensors_sha256: str) -> Self:
        """Describe weights by what ``load_weights`` was given."""
        if not spec.startswith(RANDOM_PREFIX):
            spec = str(local_path(spec).absolute())
        return cls(weights=spec, tensors_sha256=tensors_sha256)

    @classmethod
    def of_version(cls, path: Place, label: str, tensors_sha256: str) -> Self | None:
        """Return the origin of a dataset version's weights; None when it is not known.

        ``label`` is what its index says of them, ``tensors_sha256`` their digest. A version in an
        object store has no hint: its weights lie on some machine.
        """
        if label.startswith(UNTRAINED):
            return cls.of(label.removeprefix(UNTRAINED).removesuffix(")"), tensors_sha256)
        origin = cls.read(path / WEIGHTS_HINT) if isinstance(path, Path) else None
        return origin if origin and origin.tensors_sha256 == tensors_sha256 else None

    @classmethod
    def of_build(cls, spec: str | None, data_dir: Place, backbone: str, digest: str) -> Self | None:
        """Return the origin of what ``load_weights`` reads; None of untrained ones, or of a URL's.

        The former need no hint: they follow from the label in the version's index.
        """
        if spec.startswith(RANDOM_PREFIX) if spec is not None else not isinstance(data_dir, Path):
            return None
        return cls.of(spec or str(data_dir / official_weights(backbone).path), digest)

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Read a hint; None when there is none, or none that can be read."""
        try:
            return from_json(cls, read_json(path))
        except (OSError, ValueError, UsageError):
            return None

    def write(self, path: Path) -> None:
        """Write the hint."""
        write_json(path, to_json(self))


def official_weights(backbone: str) -> SourceFile:
    """Return the file of a backbone's official weights: where it is kept, and its digests.

    Without URLs and digests for a backbone that has no source manifest.
    """
    if backbone not in manifest_names("sources"):
        return SourceFile(path=f"weights/{backbone}.pt", urls=())
    (file,) = load_source(backbone).files
    return file


def load_weights(
    spec: str | None,
    data_dir: Place,
    backbone: str = DEFAULT_BACKBONE,
    network: Network | None = None,
) -> dict[str, Tensor]:
    """Return a backbone's state dict.

    ``spec`` is the path of a ``.pt``/``.pth``/``.safetensors`` file, ``random:SEED`` for an
    untrained network, or None for the official weights below ``data_dir``; ``network`` is that of
    a backbone that is not built in. Raises SourceUnavailableError when those are not there,
    WeightsError when a file does not fit.
    """
    if spec is None:
        official = official_weights(backbone)
        if not official.urls:
            raise SourceUnavailableError(
                f"{backbone}: no weights are published for it; give --weights PATH"
            )
        path = data_dir / official.path
        if not isinstance(path, Path):
            return _fetch_weights(path, official)
        if not path.is_file():
            raise SourceUnavailableError(
                f"{path}: backbone weights are not there; run: vocprep download {backbone} "
                f"--data-dir {data_dir}, or give --weights PATH"
            )
        return _read_weights(path)
    if spec.startswith(RANDOM_PREFIX):
        return _random_weights(spec, make_model(backbone, network))
    return _read_weights(local_path(spec))


def load_strictly(network: nn.Module, weights: StateDict) -> None:
    """Load a state dict; WeightsError unless all names, shapes and types fit and all is finite."""
    expected = network.state_dict()
    for name in sorted(expected.keys() ^ weights.keys()):
        problem = (
            f"{name} is missing"
            if name in expected
            else f"{reprlib.repr(name)} is not part of the network"
        )
        raise WeightsError(f"weights: tensor {problem}: expected those of the backbone")
    for name, tensor in expected.items():
        found = weights[name]
        if found.shape != tensor.shape:
            raise WeightsError(
                f"weights: tensor {name} has shape {tuple(found.shape)}: expected "
                f"{tuple(tensor.shape)}"
            )
        if found.dtype != tensor.dtype:
            raise WeightsError(
                f"weights: tensor {name} is of type {found.dtype}: expected {tensor.dtype}"
            )
        if found.is_floating_point() and not bool(torch.isfinite(found).all()):
            raise WeightsError(f"weights: tensor {name} holds values that are not finite")
    network.load_state_dict(dict(weights))


def load_fitting_weights(
    weights: str | None,
    data_dir: Place,
    backbone: str,
    exact: Normalisation | None = None,
    network: Network | None = None,
) -> dict[str, Tensor]:
    """Load the weights for a build and check that they fit the backbone.

    With ``exact``, the normalisation of a build in exact arithmetic, also that they have integers.
    """
    try:
        state = load_weights(weights, data_dir, backbone, network)
    except SourceUnavailableError as error:
        raise SourceUnavailableError(
            f"{error}, or --weights random:0 for an untrained backbone"
        ) from error
    where = weights or data_dir / official_weights(backbone).path
    model = make_model(backbone, network)
    try:
        load_strictly(model, state)
    except WeightsError as error:
        raise WeightsError(f"{where}: {error} for {backbone}") from error
    if exact is not None:
        try:
            derive_integers(cast(CifarResNet, model), exact)
        except WeightsError as error:
            raise WeightsError(f"{where}: {error}") from error
    return state


def weights_label(weights: str | None, digest: str, backbone: str) -> str:
    """Return what a version's index calls weights that ``load_weights`` read, by their digest."""
    published = official_weights(backbone).tensors_sha256
    if digest == published or (weights is None and published is None):
        known = BACKBONES.get(backbone)
        return f"{OFFICIAL}{backbone.partition(':')[2] if known is None else known.title}"
    is_random = weights is not None and weights.startswith(RANDOM_PREFIX)
    return f"{UNTRAINED}{weights})" if is_random else f"own ({digest[:12]}…)"


def _fetch_weights(path: StorePath, official: SourceFile) -> dict[str, Tensor]:
    """Read official weights of an object store, by way of the cache where their digest is known."""
    try:
        if official.sha256 is None or official.bytes is None:
            return _read_weights(path, read_source(path, MAX_WEIGHTS_BYTES))
        with open_listed(path, official.sha256, official.bytes) as stream:
            return _read_weights(path, stream.read())
    except DigestMismatchError as error:
        raise WeightsError(
            f"{path}: expected the published weights, {official.bytes:,} bytes of sha256 "
            f"{official.sha256}, found {error}; copy them there again, or give --weights PATH"
        ) from error
    except FileNotFoundError as error:
        raise SourceUnavailableError(
            f"{path}: backbone weights are not there; copy them there, or give --weights PATH"
        ) from error
    except OSError as error:
        found, advice = why_unread(path, error)
        raise SourceUnavailableError(f"{path}: cannot be read: {found}; {advice}") from error


def _read_weights(path: Place, data: bytes | None = None) -> dict[str, Tensor]:
    """Read a state dict without running code that a file may contain."""
    try:
        data = read_bytes(path, MAX_WEIGHTS_BYTES) if data is None else data
        value = _load_safetensors(data) if path.suffix == ".safetensors" else _load_pickle(data)
    except FileNotFoundError as error:
        raise WeightsError(f"{path}: no such weights file; check --weights") from error
    except OSError as error:
        raise WeightsError(f"{path}: weights cannot be read: {explain(error)}") from error
    # torch's own message advises to load such a file without protection, so it is not shown.
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path}: weights cannot be read: damaged, or more than tensors inside; expected a "
            "dictionary of tensors, as torch.save(network.state_dict(), PATH) writes it"
        ) from error
    # torch.load raises whatever unpickling damaged bytes raises.
    except Exception as error:
        raise WeightsError(
            f"{path}: weights cannot be read: damaged, or no weights file; expected a dictionary "
            "of tensors as torch.save or safetensors writes it; copy it again from where it came, "
            "or run vocprep download for published weights"
        ) from error
    return _checked(value, path, len(data))


def _load_safetensors(data: bytes) -> Any:
    from safetensors.torch import load  # noqa: PLC0415  # few weights come this way

    return load(data)


def _load_pickle(data: bytes) -> Any:
    if data.startswith(b"PK"):  # torch.save stores members as they are; deflated ones may be bombs
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sum(member.file_size for member in archive.infolist()) > len(data):
                raise ValueError("larger unpacked than packed")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's warnings about old pickle formats
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _checked(value: Any, path: Place, size: int) -> dict[str, Tensor]:
    """Return the value of a file; WeightsError unless it is a dictionary of usable tensors.

    ``size`` is the file's: a tensor of strides 0 could be declared larger than any memory.
    """
    if not isinstance(value, dict):
        raise WeightsError(
            f"{path}: expected a dictionary of tensors, found {type(value).__name__}"
        )
    for name, item in value.items():
        is_tensor = isinstance(name, str) and isinstance(item, Tensor) and item.device.type == "cpu"
        if not is_tensor or item.dtype not in _DTYPES or item.layout != torch.strided:
            raise WeightsError(
                f"{path}: expected a dictionary of float32 and int64 tensors, found "
                f"{reprlib.repr(name)}: {_kind(item)}{_advice(name, item)}"
            )
    declared = sum(item.numel() * item.element_size() for item in value.values())
    if declared > size:
        raise WeightsError(
            f"{path}: its tensors are declared to have {declared:,} bytes: expected no more than "
            f"the {size:,} bytes of the file; save copies, which share no memory"
        )
    return dict(value)


def _kind(item: Any) -> str:
    if not isinstance(item, Tensor):
        return type(item).__name__
    return f"{item.dtype}" + (", without data" if item.device.type == "meta" else "")


def _advice(name: Any, item: Any) -> str:
    if not isinstance(item, dict):
        return ""
    return f"; save that dictionary alone: torch.save(torch.load(PATH)[{reprlib.repr(name)}], NEW)"


def _random_weights(spec: str, network: nn.Module) -> dict[str, Tensor]:
    """Return untrained weights that are the same bits on every machine.

    Uniform after He et al. 2015 from numpy's generator, since torch's normal numbers differ
    between instruction sets; the last batch norm of each block is damped so that the activations
    of stacked blocks keep their size.
    """
    try:
        seed = int(spec.removeprefix(RANDOM_PREFIX))
    except ValueError as error:
        raise UsageError(
            f"weights {reprlib.repr(spec)}: expected {RANDOM_PREFIX}SEED with a whole number, "
            "e.g. random:0"
        ) from error
    if seed < 0:
        raise UsageError(f"weights {reprlib.repr(spec)}: expected a seed of 0 or more")
    generator = np.random.default_rng(seed)
    weights = network.state_dict()
    for name in sorted(weights):
        tensor = weights[name]
        if tensor.ndim >= 2:
            bound = np.float32((6 / tensor[0].numel()) ** 0.5)
            uniform = generator.random(tuple(tensor.shape), dtype=np.float32)
            weights[name] = torch.from_numpy((uniform * 2 - 1) * bound)
        elif name.endswith("bias"):
            weights[name] = torch.zeros_like(tensor)
        elif name.endswith("bn2.weight"):
            weights[name] = torch.full_like(tensor, 0.5)
    return dict(weights)
