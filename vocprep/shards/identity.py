"""Identities: Merkle roots over the digests of samples (docs/format.md).

Each root is over (id, digest) leaves, one per record or one per image. A quarantined sample has a
leaf too, so that leaving an image out always makes another dataset version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from vocprep.files.ids import is_plain
from vocprep.shards.samples import QuarantinedSample, Sample, SampleEntry, sample_order

QUARANTINED_SHA256 = hashlib.sha256(b"quarantined").hexdigest()
"""The digest that a quarantined sample counts with."""


@dataclass(frozen=True, kw_only=True)
class Identities:
    """The digests of a dataset version's content."""

    source_id: str
    """Over the source files, one leaf per image."""
    content_id: str
    """Over the records."""
    targets_id: str
    """Over the records without embeddings: the same on every machine."""

    @classmethod
    def of(cls, samples: Iterable[SampleEntry], quarantined: Iterable[QuarantinedSample]) -> Self:
        """Compute them from samples.jsonl and quarantine.jsonl, in any order."""
        return cls.of_sorted(sorted((*samples, *quarantined), key=sample_order))

    @classmethod
    def of_sorted(cls, samples: Iterable[Sample]) -> Self:
        """Compute them in one pass over records and quarantined samples in the order of ids."""
        trees = IdentityTrees()
        for sample in samples:
            trees.add(sample)
        return cls(**trees.roots())


class IdentityTrees:
    """The three Merkle trees of a dataset version, to which samples are added in id order."""

    def __init__(self) -> None:
        self._source, self._content, self._targets = MerkleTree(), MerkleTree(), MerkleTree()

    def add(self, sample: Sample) -> None:
        """Add a record or a quarantined sample, whose id follows those before it."""
        if isinstance(sample, SampleEntry):
            record_sha256, targets_sha256 = sample.record_sha256, sample.targets_sha256
        else:
            record_sha256 = targets_sha256 = QUARANTINED_SHA256
        self._content.add(sample.id, record_sha256)
        self._targets.add(sample.id, targets_sha256)
        if is_plain(sample.id):
            self._source.add(sample.id, source_sha256(sample.image_sha256, sample.label_sha256))

    def roots(self) -> dict[str, str]:
        """Return the identities of all samples so far, by their names."""
        return {
            "source_id": self._source.root(),
            "content_id": self._content.root(),
            "targets_id": self._targets.root(),
        }


def source_sha256(image_sha256: str | None, label_sha256: str | None) -> str:
    """Return the digest of a pair of source files; a file that could not be read is None."""
    return hashlib.sha256(f"{image_sha256 or ''}\0{label_sha256 or ''}".encode()).hexdigest()


class MerkleTree:
    """A Merkle tree over (id, hex digest) leaves that are added in id order.

    A leaf is sha256(00 ‖ id ‖ 00 ‖ digest), a node sha256(01 ‖ left ‖ right); a node without a
    partner moves up unchanged. The root of nothing is sha256 of nothing. Of n leaves, the roots of
    at most log2(n) + 1 finished subtrees are in memory.

    >>> tree = MerkleTree()
    >>> tree.root() == hashlib.sha256().hexdigest()
    True
    >>> tree.add("2008_000002", "11" * 32)
    >>> tree.add("2008_000008", "22" * 32)
    >>> tree.root()[:12]
    '1b7d8123109a'
    """

    def __init__(self) -> None:
        self._count = 0
        self._subtrees: list[bytes] = []
        """Roots of full subtrees, the largest first: one per bit of the number of leaves."""

    def add(self, name: str, digest: str) -> None:
        """Add the leaf that follows those before it."""
        node = hashlib.sha256(b"\0" + name.encode() + b"\0" + bytes.fromhex(digest)).digest()
        full = self._count
        while full & 1:
            node = _node(self._subtrees.pop(), node)
            full >>= 1
        self._subtrees.append(node)
        self._count += 1

    def root(self) -> str:
        """Return the root over all leaves so far, as 64 hex digits."""
        if not self._subtrees:
            return hashlib.sha256(b"").hexdigest()
        *left, root = self._subtrees
        for subtree in reversed(left):
            root = _node(subtree, root)
        return root.hex()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()
