"""The tests' own S3 server and its proxy: what other tests build on."""

from __future__ import annotations

import hashlib
import os

import pytest
from builders.s3 import S3, busy, call_once, cut

from vocprep.storage.places import parse_place
from vocprep.storage.store import StorePath


def _path(url: str) -> StorePath:
    place = parse_place(url)
    assert isinstance(place, StorePath)
    return place


def test_objects_are_those_of_the_server_seen_from_beside(s3: S3) -> None:
    data = os.urandom(100_000)
    _path(s3.url("a/b c.bin")).put(data, hashlib.sha256(data).hexdigest())
    s3.put("d.bin", b"beside")
    assert s3.get("a/b c.bin") == data
    assert _path(s3.url("d.bin")).read(100) == b"beside"
    assert s3.names() == ["a/b c.bin", "d.bin"]
    assert {each.name: each.bytes for each in _path(s3.url()).list()} == {
        "a/b c.bin": 100_000,
        "d.bin": 6,
    }
    s3.delete("d.bin")
    assert _path(s3.url("d.bin")).facts() is None


def test_a_killed_server_comes_back_with_its_objects(s3: S3) -> None:
    s3.put("kept", b"kept")
    s3.server.kill()
    assert not s3.server.is_running
    s3.server.start()
    assert _path(s3.url("kept")).read(100) == b"kept"


def test_proxy_forwards_and_counts(s3: S3) -> None:
    data = os.urandom(3_000_000)
    with s3.through_proxy() as proxy:
        path = _path(s3.url("é ü/x+y.bin"))
        path.put(data, "0" * 64)
        assert path.read(len(data)) == data
        assert [each.name for each in _path(s3.url()).list()] == ["é ü/x+y.bin"]
        assert proxy.count("PUT", "x+y.bin") == proxy.count("GET", "x+y.bin") == 1
        assert proxy.count("LIST") == 1
        assert proxy.sent[path.key] == len(data)


def test_each_fault_happens(s3: S3) -> None:
    data = os.urandom(200_000)
    s3.put("cut.bin", data)
    called: list[str] = []
    faults = (
        busy(every=2),
        cut("cut.bin", 1000),
        call_once("cut.bin", lambda: called.append("once")),
    )
    with s3.through_proxy(*faults) as proxy:
        path = _path(s3.url("cut.bin"))
        assert path.read(len(data)) == data
        assert proxy.count("GET") == 3  # cut, busy, the rest
        assert called == ["once"]
        assert proxy.sent[path.key] == len(data)


def test_proxy_refuses_and_accepts_again(s3: S3, impatient: None) -> None:
    s3.put("x", b"x")
    with s3.through_proxy() as proxy:
        path = _path(s3.url("x"))
        with proxy.refusing(), pytest.raises(OSError, match="x"):
            path.read(10)
        assert path.read(10) == b"x"
