"""Identities: Merkle roots over the digests of samples (docs/format.md).

Each root is over (id, digest) leaves, one per record or one per image. A quarantined sample has a
leaf too, so that leaving an image out always makes another dataset version.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from vocprep.shards.samples import QuarantinedSample, SampleEntry, pair_digests

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
    def of(
        cls, samples: Sequence[SampleEntry], quarantined: Sequence[QuarantinedSample]
    ) -> Identities:
        """Compute them from samples.jsonl and quarantine.jsonl."""
        absent = [(bad.id, QUARANTINED_SHA256) for bad in quarantined]
        sources = pair_digests([*samples, *quarantined])
        return cls(
            source_id=merkle_root((i, source_sha256(*pair)) for i, pair in sources.items()),
            content_id=merkle_root([*((item.id, item.record_sha256) for item in samples), *absent]),
            targets_id=merkle_root(
                [*((item.id, item.targets_sha256) for item in samples), *absent]
            ),
        )


def source_sha256(image_sha256: str | None, label_sha256: str | None) -> str:
    """Return the digest of a pair of source files; a file that could not be read is None."""
    return hashlib.sha256(f"{image_sha256 or ''}\0{label_sha256 or ''}".encode()).hexdigest()


def merkle_root(leaves: Iterable[tuple[str, str]]) -> str:
    """Return the root over (id, hex digest) pairs, sorted by id, as 64 hex digits.

    A leaf is sha256(00 ‖ id ‖ 00 ‖ digest), a node sha256(01 ‖ left ‖ right); a node without a
    partner moves up unchanged. The root of nothing is sha256 of nothing.

    >>> leaves = [("2008_000008", "22" * 32), ("2008_000002", "11" * 32)]
    >>> merkle_root(leaves)[:12]
    '1b7d8123109a'
    >>> merkle_root(reversed(leaves)) == merkle_root(leaves)
    True
    >>> merkle_root([]) == hashlib.sha256().hexdigest()
    True
    """
    level = [
        hashlib.sha256(b"\0" + name.encode() + b"\0" + bytes.fromhex(digest)).digest()
        for name, digest in sorted(leaves)
    ]
    if not level:
        return hashlib.sha256(b"").hexdigest()
    while len(level) > 1:
        pairs = [
            hashlib.sha256(b"\1" + level[i] + level[i + 1]).digest()
            for i in range(0, len(level) - 1, 2)
        ]
        level = pairs + level[len(pairs) * 2 :]
    return level[0].hex()
