"""Digests: everything published must agree, and each disagreement is said."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from vocprep.data_dir.digests import ExpectedDigests, FileDigests, differences, hash_file

DATA = b"some bytes"
SHA256 = hashlib.sha256(DATA).hexdigest()
FOUND = FileDigests(
    size=len(DATA),
    digests={name: hashlib.new(name, DATA).hexdigest() for name in ("sha256", "sha1", "md5")},
)


def test_a_file_is_hashed_once_for_all_algorithms(tmp_path: Path):
    path, seen = tmp_path / "file", []
    path.write_bytes(DATA)
    assert hash_file(path, ("sha256", "sha1", "md5"), seen.append) == FOUND
    assert sum(seen) == len(DATA)
    assert hash_file(path).digests == {"sha256": SHA256}


def test_only_what_is_published_is_computed_and_sha256():
    assert ExpectedDigests().algorithms == ("sha256",)
    assert ExpectedDigests(md5="00").algorithms == ("sha256", "md5")


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        ({"size": 9}, "expected 9 bytes, found 10"),
        ({"sha256": "ab"}, f"expected sha256 ab, found {SHA256}"),
        ({"sha1": "ab"}, "expected sha1 ab, found "),
        ({"md5": "ab"}, "expected md5 ab, found "),
        ({"sha256_prefix": "84213ce6"}, f"begins 84213ce6, found {SHA256}"),
        ({"recorded_sha256": "ab"}, "expected sha256 ab (recorded in sources.lock.json)"),
    ],
)
def test_each_fact_that_is_broken_is_said(facts: dict, said: str):
    (phrase,) = differences(ExpectedDigests(**facts), FOUND)
    assert said in phrase


def test_nothing_is_said_of_facts_that_hold():
    facts = ExpectedDigests(
        size=len(DATA), recorded_sha256=SHA256, sha256_prefix=SHA256[:8], **FOUND.digests
    )
    assert differences(facts, FOUND) == []
    assert differences(ExpectedDigests(), FOUND) == []
