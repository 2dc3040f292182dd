"""How many images a quick trial takes of each split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vocprep.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Limit:
    """At most so many images: of all splits together, of each, or both."""

    total: int | None = None
    per_split: int | Mapping[str, int] | None = None
    """One number for all splits, or one for each; a split that is not named has no limit."""

    def of(self, counts: Mapping[str, int]) -> dict[str, int]:
        """Return how many images each split gives of those that it has, at least one.

        The total is shared in proportion to the images of the splits.

        >>> Limit(total=10).of({"train": 700, "val": 250, "test": 50})
        {'train': 7, 'val': 2, 'test': 1}
        """
        named = self.per_split if isinstance(self.per_split, Mapping) else {}
        if unknown := sorted(named.keys() - counts.keys()):
            raise UsageError(
                f"limit_per_split of {unknown[0]!r}: expected some of the splits "
                f"{', '.join(counts)}"
            )
        counts = {split: min(count, self._most_of(split, count)) for split, count in counts.items()}
        whole = sum(counts.values())
        if self.total is None or self.total >= whole:
            return counts
        if self.total < len(counts):
            raise UsageError(
                f"limit {self.total}: expected at least {len(counts)}, an image of each of the "
                f"splits {', '.join(counts)}; raise it, or name fewer with --splits"
            )
        shares = {split: self.total * count for split, count in counts.items()}
        taken = {split: max(1, share // whole) for split, share in shares.items()}
        while sum(taken.values()) > self.total:
            taken[max(taken, key=lambda split: taken[split])] -= 1
        by_rest = sorted(shares, key=lambda split: -(shares[split] % whole))
        rounded_down = [split for split in by_rest if shares[split] >= whole]
        for split in rounded_down[: self.total - sum(taken.values())]:
            taken[split] += 1
        return taken

    def _most_of(self, split: str, count: int) -> int:
        if self.per_split is None or isinstance(self.per_split, int):
            return count if self.per_split is None else self.per_split
        return self.per_split.get(split, count)
