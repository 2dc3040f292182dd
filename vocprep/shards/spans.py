"""Which records a shard spans: what an index has to tell of them, so that no list of them is read.

Version 3 of dataset.json states it of each shard; of earlier versions it is computed from
samples.jsonl.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Self

from vocprep.shards.record import FLIP_SUFFIX
from vocprep.shards.samples import Count, Entry, RecordId, Sha256


class ShardSpan(Entry):
    """The records of one shard, in id order."""

    images: Count
    """Records that are not mirrored."""
    first_id: RecordId
    last_id: RecordId
    ids_sha256: Sha256
    """``ids_sha256`` of the record ids in row order."""

    @classmethod
    def of(cls, record_ids: Sequence[str]) -> Self:
        """Describe the records of a shard by their ids in row order, at least one.

        >>> span = ShardSpan.of(["a", "a#flip", "b"])
        >>> span.images, span.first_id, span.last_id
        (2, 'a', 'b')
        """
        return cls(
            images=sum(not is_mirrored(record_id) for record_id in record_ids),
            first_id=min(record_ids),
            last_id=max(record_ids),
            ids_sha256=ids_sha256(record_ids),
        )

    def spans(self, record_id: str) -> bool:
        """Return whether a record of this id can be in the shard."""
        return self.first_id <= record_id <= self.last_id


def ids_sha256(record_ids: Iterable[str]) -> str:
    """Return the digest of ids in this order: of each of them, followed by a line feed."""
    digest = hashlib.sha256()
    for record_id in record_ids:
        digest.update(f"{record_id}\n".encode())
    return digest.hexdigest()


def is_mirrored(record_id: str) -> bool:
    """Return whether a record is a mirrored view."""
    return record_id.endswith(FLIP_SUFFIX)
