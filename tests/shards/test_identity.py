"""Identities of versions: Merkle roots over records."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

from builders.records import make_record
from hypothesis import given
from hypothesis import strategies as st

from vocprep.shards.identity import Identities, MerkleTree
from vocprep.shards.samples import QuarantinedSample, SampleEntry

DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
LEAVES = st.dictionaries(st.text("abc_#0é", min_size=1, max_size=6), DIGESTS, max_size=12)


def sha(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def naive_root(leaves: dict[str, str]) -> str:
    """Split at the largest power of two below the count, and recurse: RFC 6962's way to say it."""

    def root(nodes: list[bytes]) -> bytes:
        if len(nodes) == 1:
            return nodes[0]
        half = 1
        while half * 2 < len(nodes):
            half *= 2
        return sha(b"\x01" + root(nodes[:half]) + root(nodes[half:]))

    if not leaves:
        return hashlib.sha256().hexdigest()
    nodes = [
        sha(b"\x00" + name.encode() + b"\x00" + bytes.fromhex(leaves[name]))
        for name in sorted(leaves)
    ]
    return root(nodes).hex()


def merkle_root(leaves: Iterable[tuple[str, str]]) -> str:
    tree = MerkleTree()
    for name, digest in leaves:
        tree.add(name, digest)
    return tree.root()


def level_by_level(leaves: dict[str, str]) -> str:
    """Hash neighbours in pairs, level by level; the last of an odd number moves up: format.md."""
    level = [
        sha(b"\x00" + name.encode() + b"\x00" + bytes.fromhex(digest))
        for name, digest in sorted(leaves.items())
    ]
    while len(level) > 1:
        above = [sha(b"\x01" + one + other) for one, other in zip(*[iter(level)] * 2, strict=False)]
        level = above + ([level[-1]] if len(level) % 2 else [])
    return level[0].hex() if level else hashlib.sha256().hexdigest()


@given(LEAVES)
def test_merkle_root_is_that_of_the_recursive_definition(leaves: dict[str, str]) -> None:
    assert merkle_root(sorted(leaves.items())) == naive_root(leaves)


@given(st.integers(0, 300), st.randoms(use_true_random=False))
def test_merkle_root_in_one_pass_is_that_of_the_levels(count: int, random: Any) -> None:
    leaves = {f"{number:04d}": random.randbytes(32).hex() for number in range(count)}
    assert merkle_root(leaves.items()) == level_by_level(leaves) == naive_root(leaves)


def test_merkle_tree_grows_after_its_root_was_read() -> None:
    leaves = {f"{number:02d}": f"{number:064x}" for number in range(20)}
    tree = MerkleTree()
    for count, (name, digest) in enumerate(leaves.items()):
        assert tree.root() == level_by_level(dict(list(leaves.items())[:count]))
        tree.add(name, digest)


@given(LEAVES.filter(bool), st.data())
def test_merkle_root_changes_with_every_leaf(leaves: dict[str, str], data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(leaves)))
    flipped = bytearray.fromhex(leaves[name])
    flipped[data.draw(st.integers(0, 31))] ^= 1 << data.draw(st.integers(0, 7))
    without = {key: digest for key, digest in leaves.items() if key != name}
    roots = {
        merkle_root(sorted(leaves.items())),
        merkle_root(sorted((leaves | {name: flipped.hex()}).items())),
        merkle_root(sorted(without.items())),
        merkle_root(sorted((without | {name + "x": leaves[name]}).items())),
        merkle_root(sorted((leaves | {name + "x": leaves[name]}).items())),
    }
    assert len(roots) == 5


def test_two_digests_that_change_places_change_the_root() -> None:
    one, other = "00" * 32, "11" * 32
    assert merkle_root([("a", one), ("b", other)]) != merkle_root([("a", other), ("b", one)])


def make_samples() -> list[SampleEntry]:
    records = [make_record("a"), make_record("a#flip"), make_record("b", (1, 1))]
    return [SampleEntry.of(record, "shard", row) for row, record in enumerate(records)]


def quarantined(image_sha256: str | None = None) -> QuarantinedSample:
    return QuarantinedSample(
        id="c", split="train", stage="read", file="c.jpg", reason="", image_sha256=image_sha256
    )


def source_leaf(image_sha256: str, label_sha256: str) -> str:
    return hashlib.sha256(f"{image_sha256}\0{label_sha256}".encode()).hexdigest()


def test_identities_are_roots_over_pictures_and_over_records() -> None:
    samples = make_samples()
    found = Identities.of(samples, [])
    pictures = {
        s.id: source_leaf(s.image_sha256, s.label_sha256) for s in samples if "#" not in s.id
    }
    assert found.source_id == naive_root(pictures)
    assert found.content_id == naive_root({s.id: s.record_sha256 for s in samples})
    assert found.targets_id == naive_root({s.id: s.targets_sha256 for s in samples})


def test_quarantined_sample_is_part_of_every_identity() -> None:
    samples = make_samples()
    found = Identities.of(samples, [quarantined("ab" * 32)])
    absent = hashlib.sha256(b"quarantined").hexdigest()
    pictures = {
        s.id: source_leaf(s.image_sha256, s.label_sha256) for s in samples if "#" not in s.id
    }
    assert found.source_id == naive_root({**pictures, "c": source_leaf("ab" * 32, "")})
    assert found.content_id == naive_root({**{s.id: s.record_sha256 for s in samples}, "c": absent})
    assert found.targets_id == naive_root(
        {**{s.id: s.targets_sha256 for s in samples}, "c": absent}
    )
    unreadable = Identities.of(samples, [quarantined()])
    assert unreadable.source_id == naive_root({**pictures, "c": source_leaf("", "")})
    assert unreadable.content_id == found.content_id


def test_identities_do_not_depend_on_the_order_of_samples() -> None:
    samples = make_samples()
    assert Identities.of(samples[::-1], []) == Identities.of(samples, [])
