"""Sets of byte ranges: sorted lists of half-open (start, end) that neither touch nor overlap."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

Span = tuple[int, int]


def add_span(spans: Sequence[Span], start: int, end: int) -> list[Span]:
    """Return the set with one range more; touching and overlapping ranges become one."""
    before = [span for span in spans if span[1] < start]
    after = [span for span in spans if span[0] > end]
    joined = spans[len(before) : len(spans) - len(after)]
    if joined:
        start, end = min(start, joined[0][0]), max(end, joined[-1][1])
    return [*before, (start, end), *after]


def missing_spans(spans: Sequence[Span], size: int) -> list[Span]:
    """Return the ranges of 0..size that the set lacks."""
    edges = [(0, 0), *spans, (size, size)]
    gaps = [(left[1], right[0]) for left, right in itertools.pairwise(edges)]
    return [gap for gap in gaps if gap[0] < gap[1]]


def first_gap(spans: Sequence[Span]) -> int:
    """Return how many bytes from the file's start on are all there."""
    return spans[0][1] if spans and spans[0][0] == 0 else 0


def total(spans: Sequence[Span]) -> int:
    """Return how many bytes the set holds."""
    return sum(end - start for start, end in spans)
