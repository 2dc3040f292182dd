"""Where weights were read from: a hint beside what was made with them, proven by their digest."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from vocprep.errors import UsageError
from vocprep.features.weights.published import OWN_MODULE, UNTRAINED, official_weights
from vocprep.features.weights.untrained import RANDOM_PREFIX
from vocprep.files.names import WEIGHTS_HINT
from vocprep.files.reading import read_json
from vocprep.files.writing import write_json
from vocprep.storage.places import Place, local_path
from vocprep.validation import checked, from_json, to_json


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
        """Return the origin of what ``load_weights`` reads; None of what no file of here has.

        Untrained ones need no hint: they follow from the label in the version's index. Those of a
        file of one's own that makes the network come with it.
        """
        if spec is not None:
            return None if spec.startswith(RANDOM_PREFIX) else cls.of(spec, digest)
        if not isinstance(data_dir, Path) or backbone.startswith(OWN_MODULE):
            return None
        return cls.of(str(data_dir / official_weights(backbone).path), digest)

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
