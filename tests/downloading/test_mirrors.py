"""One file over HTTP: every fault of a server ends in the right bytes or the right error."""

from __future__ import annotations

import email.utils
import gzip
import hashlib
import json
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from builders.mirror import (
    Fault,
    Handler,
    Mirror,
    chunked,
    close_after,
    etag,
    ignore_range,
    no_length,
    promise,
    serve,
    span_of,
    stall_after,
    status,
    web_page,
)
from builders.progress import RecordedProgress

from vocprep.data_dir.digests import ExpectedDigests
from vocprep.downloading.http import TransferOptions
from vocprep.downloading.mirrors import FetchedFile, WantedFile, fetch
from vocprep.downloading.partial import PartFile, boot_id
from vocprep.errors import DigestError, SourceUnavailableError

DATA = random.Random(0).randbytes(300_000)
OTHER = random.Random(1).randbytes(300_000)
QUICK = TransferOptions(
    chunk_bytes=16 << 10,
    retries=2,
    backoff_seconds=0.001,
    connect_seconds=20,
    read_seconds=20,
    slow_bytes_per_second=5000,
)


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    with Mirror({"file.bin": DATA}) as server:
        yield server


@pytest.fixture
def second() -> Iterator[Mirror]:
    with Mirror({"file.bin": DATA}) as server:
        yield server


def digests(data: bytes) -> ExpectedDigests:
    return ExpectedDigests(
        sha256=hashlib.sha256(data).hexdigest(),
        sha1=hashlib.sha1(data).hexdigest(),
        md5=hashlib.md5(data).hexdigest(),
    )


class Bench:
    """One target file and what the tests ask of it."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "file.bin"
        self.notes = RecordedProgress()

    def get(
        self,
        *urls: str,
        expected: ExpectedDigests | None = None,
        options: TransferOptions = QUICK,
    ) -> FetchedFile:
        wanted = WantedFile(path=self.path, urls=urls, expected=expected or digests(DATA))
        return fetch(wanted, options, self.notes)

    def hold(
        self,
        data: bytes,
        url: str,
        validator: str | None,
        size: int | None,
        expected: ExpectedDigests | None = None,
    ) -> None:
        """Leave what a run that was killed after these first bytes leaves."""
        with PartFile(self.path, expected or digests(DATA)) as part:
            part.add_source(url, size, validator)
            part.append(data)

    def assert_final(self, data: bytes = DATA) -> None:
        assert self.path.read_bytes() == data
        assert sorted(item.name for item in self.path.parent.iterdir()) == ["file.bin"]

    def assert_nothing_final(self) -> None:
        assert not self.path.exists()


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_good_server_gives_the_file(mirror: Mirror, bench: Bench):
    fetched = bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert fetched.url == mirror.url("file.bin")
    assert fetched.digests.sha256 == hashlib.sha256(DATA).hexdigest()
    assert fetched.digests.size == bench.notes.shown == bench.notes.expected == len(DATA)


def test_a_kept_part_is_not_fetched_again(mirror: Mirror, bench: Bench):
    bench.hold(DATA[:200_000], mirror.url("file.bin"), etag(DATA), len(DATA))
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert mirror.requests == [("file.bin", "bytes=200000-")]
    assert mirror.conditions == [etag(DATA)]
    assert bench.notes.begun == [("file.bin", len(DATA), 0)]
    assert bench.notes.shown == len(DATA)


def test_a_weak_validator_is_not_sent_back_but_compared(mirror: Mirror, bench: Bench):
    bench.hold(DATA[:200_000], mirror.url("file.bin"), "W/" + etag(DATA), len(DATA))
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert mirror.conditions == [None, None]
    assert "the file changed" in bench.notes.lines[0]


def test_a_complete_part_needs_no_server(mirror: Mirror, bench: Bench):
    bench.hold(DATA, mirror.url("file.bin"), etag(DATA), len(DATA))
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert mirror.requests == []


def test_a_part_of_another_edition_is_dropped(mirror: Mirror, bench: Bench):
    bench.hold(DATA[:1000], mirror.url("file.bin"), etag(DATA), len(DATA))
    mirror.files["file.bin"] = OTHER
    bench.get(mirror.url("file.bin"), expected=digests(OTHER))
    bench.assert_final(OTHER)
    assert bench.notes.lines == []


@pytest.mark.parametrize("text", ["", "{", "[]", '{"done": 3}', "\x00"])
def test_a_damaged_state_file_starts_afresh(mirror: Mirror, bench: Bench, text: str):
    bench.hold(OTHER[:1000], mirror.url("file.bin"), etag(DATA), len(DATA))
    bench.path.with_name("file.bin.part.json").write_text(text)
    bench.get(mirror.url("file.bin"))
    bench.assert_final()


@pytest.mark.parametrize("published", [True, False])
def test_after_a_power_cut_bytes_are_kept_only_where_a_digest_can_prove_them(
    mirror: Mirror, bench: Bench, monkeypatch: pytest.MonkeyPatch, published: bool
):
    expected = digests(DATA) if published else ExpectedDigests(size=len(DATA))
    bench.hold(DATA[:50_000], mirror.url("file.bin"), etag(DATA), len(DATA), expected)
    monkeypatch.setattr("vocprep.downloading.partial.boot_id", lambda: "the next start")
    bench.get(mirror.url("file.bin"), expected=expected)
    bench.assert_final()
    assert mirror.requests == [("file.bin", "bytes=50000-" if published else None)]


def test_a_spoilt_part_is_found_by_its_digests_and_fetched_again(mirror: Mirror, bench: Bench):
    bench.hold(OTHER[:1000], mirror.url("file.bin"), etag(DATA), len(DATA))
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert "starting over" in bench.notes.lines[0]


def test_a_server_that_ignores_ranges_gives_the_file(mirror: Mirror, bench: Bench):
    mirror.always = ignore_range
    bench.get(mirror.url("file.bin"))
    bench.assert_final()


def test_a_server_that_ignores_ranges_keeps_what_is_here(mirror: Mirror, bench: Bench):
    mirror.always = ignore_range
    bench.hold(DATA[:200_000], mirror.url("file.bin"), etag(DATA), len(DATA))
    mirror.faults.append(ignore_range)
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert bench.notes.shown == len(DATA)


def test_an_answer_without_a_length_ends_where_it_ends(mirror: Mirror, bench: Bench):
    mirror.always = no_length
    bench.get(mirror.url("file.bin"))
    bench.assert_final()


def test_an_answer_without_a_length_that_ends_early_is_no_file(mirror: Mirror, bench: Bench):
    mirror.always = lambda handler, data: no_length(handler, data[:100_000])
    with pytest.raises(SourceUnavailableError, match="at byte 100000 of 300000, 3 times in a row"):
        bench.get(mirror.url("file.bin"), expected=ExpectedDigests(size=len(DATA)))
    bench.assert_nothing_final()


def test_a_server_may_give_less_than_the_range_asked_for(mirror: Mirror, bench: Bench):
    def at_most(handler: Handler, data: bytes) -> None:
        if span_of(handler, data) is None:
            close_after(70_000)(handler, data)
            return
        start = span_of(handler, data)[0]
        end = min(start + 70_000, len(data))
        where = f"bytes {start}-{end - 1}/{len(data)}"
        handler.answer(206, data[start:end], ETag=etag(data), Content_Range=where)

    mirror.always = at_most
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert len(bench.notes.lines) == 1
    assert len(mirror.requests) == 5


def test_a_total_that_is_not_told_is_the_end_of_the_rest(mirror: Mirror, bench: Bench):
    bench.hold(DATA[:1000], mirror.url("file.bin"), etag(DATA), None)
    mirror.always = lambda handler, data: handler.answer(
        206, data[1000:], Content_Range=f"bytes 1000-{len(data) - 1}/*"
    )
    bench.get(mirror.url("file.bin"))
    bench.assert_final()


def test_a_server_that_gives_another_range_is_passed_over(
    mirror: Mirror, second: Mirror, bench: Bench
):
    bench.hold(DATA[:9], mirror.url("file.bin"), etag(DATA), len(DATA))
    mirror.always = lambda handler, data: handler.answer(
        206, data[5:], Content_Range=f"bytes 5-{len(data) - 1}/{len(data)}"
    )
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"))
    bench.assert_final()
    assert fetched.url == second.url("file.bin")
    assert "answered Content-Range 'bytes 5-299999/300000'" in bench.notes.lines[0]


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (status(403), "403 Forbidden"),
        (status(404), "404 Not Found"),
        (status(416), "416"),
        (web_page(), "web page"),
        (web_page("application/octet-stream"), "web page"),
        (web_page("text/html; charset=utf-8", b"<p>Blocked</p>"), "web page"),
        (status(429, Retry_After="9999"), "requests a wait of more than 300 s"),
        (status(500), "500 Internal Server Error; the next mirror first"),
        (close_after(0), "closed the connection early; the next mirror first"),
    ],
)
def test_a_hopeless_mirror_gives_way_to_the_next(
    mirror: Mirror, second: Mirror, bench: Bench, fault: Fault, said: str
):
    mirror.always = fault
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"))
    bench.assert_final()
    assert fetched.url == second.url("file.bin")
    assert any(said in line for line in bench.notes.lines)


@pytest.mark.parametrize(
    "fault",
    [
        status(429, Retry_After="0"),
        status(429, Retry_After=email.utils.formatdate(usegmt=True)),
        status(429, Retry_After="soon"),
        status(500),
        status(502),
        status(503),
        status(504),
        close_after(0),
        close_after(20_000),
    ],
)
def test_a_passing_fault_is_tried_again(mirror: Mirror, bench: Bench, fault: Fault):
    mirror.faults.extend([fault, None, fault, fault])
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert any("trying again" in line for line in bench.notes.lines)
    assert bench.notes.shown == len(DATA)


def test_retry_after_is_waited_for(mirror: Mirror, bench: Bench, monkeypatch: pytest.MonkeyPatch):
    waits: list[float] = []
    monkeypatch.setattr("vocprep.downloading.mirrors.time.sleep", waits.append)
    mirror.faults.append(status(429, Retry_After="7"))
    bench.get(mirror.url("file.bin"))
    assert max(waits) == pytest.approx(7, abs=0.5)


def test_the_waits_double_with_jitter_up_to_a_bound(
    mirror: Mirror, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    waits: list[float] = []
    monkeypatch.setattr("vocprep.downloading.mirrors.time.sleep", waits.append)
    mirror.always = status(500)
    options = TransferOptions(retries=4, backoff_seconds=1.0, backoff_most_seconds=4.0)
    with pytest.raises(SourceUnavailableError):
        bench.get(mirror.url("file.bin"), options=options)
    bounds = [1.0, 2.0, 4.0, 4.0]
    assert len(waits) == 4
    assert all(bound * 0.4 <= wait <= bound for wait, bound in zip(waits, bounds, strict=True))


def test_a_server_that_closes_at_every_turn_still_gives_the_file(mirror: Mirror, bench: Bench):
    mirror.always = close_after(17_000)
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert mirror.sent <= 1.1 * len(DATA)


def test_a_stall_is_left_and_taken_up_at_the_same_byte(mirror: Mirror, bench: Bench):
    released = threading.Event()
    options = replace(QUICK, retries=50, read_seconds=0.3)
    mirror.faults.append(stall_after(30_000, released))
    try:
        bench.get(mirror.url("file.bin"), options=options)
    finally:
        released.set()
    bench.assert_final()
    assert any(asked and asked.startswith("bytes=30000-") for _, asked in mirror.requests)


def test_a_trickle_counts_as_a_stall(mirror: Mirror, second: Mirror, bench: Bench):
    def trickle(handler: Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        for byte in range(100):
            handler.wfile.write(data[byte : byte + 1])
            handler.wfile.flush()
            if threading.Event().wait(0.02):
                break

    mirror.always = trickle
    options = TransferOptions(retries=0, read_seconds=0.2, least_bytes_per_second=1000)
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"), options=options)
    assert fetched.url == second.url("file.bin")
    assert any(" bytes in " in line for line in bench.notes.lines)


@pytest.mark.parametrize("heed", [True, False], ids=["if-range heeded", "if-range ignored"])
def test_a_file_that_changes_between_two_ranges_is_fetched_anew(
    mirror: Mirror, bench: Bench, heed: bool
):
    def change(handler: Handler, data: bytes) -> None:
        handler.mirror.files["file.bin"] = OTHER
        if not heed:
            del handler.headers["If-Range"]
        serve(handler, OTHER)

    mirror.faults.extend([close_after(30_000), change])
    bench.get(mirror.url("file.bin"), expected=digests(OTHER))
    bench.assert_final(OTHER)
    assert any("the file changed" in line for line in bench.notes.lines)


def test_a_file_that_shrinks_below_the_part_is_fetched_anew(mirror: Mirror, bench: Bench):
    short = OTHER[:100_000]

    def shrink(handler: Handler, data: bytes) -> None:
        handler.mirror.files["file.bin"] = short
        handler.answer(416, b"", Content_Range=f"bytes */{len(short)}")

    mirror.faults.extend([close_after(200_000), shrink])
    bench.get(mirror.url("file.bin"), expected=digests(short))
    bench.assert_final(short)


@pytest.mark.parametrize("digest", [True, False])
def test_a_file_whose_end_was_not_told_ends_where_no_bytes_are_left(
    mirror: Mirror, bench: Bench, digest: bool
):
    def without_last_chunk(handler: Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.send_header("ETag", etag(data))
        handler.end_headers()
        handler.wfile.write(b"%x\r\n" % len(data))
        handler.send(data + b"\r\n")
        handler.close_connection = True

    mirror.faults.append(without_last_chunk)
    bench.get(mirror.url("file.bin"), expected=digests(DATA) if digest else ExpectedDigests())
    bench.assert_final()
    assert mirror.requests == [("file.bin", None), ("file.bin", "bytes=300000-")]


def test_a_file_that_never_keeps_still_is_given_up(mirror: Mirror, bench: Bench):
    def always_new(handler: Handler, data: bytes) -> None:
        data = random.Random(len(handler.mirror.requests)).randbytes(300_000)
        start = int(handler.headers.get("Range", "bytes=0-")[6:].split("-")[0])
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-299999/300000")
        handler.send_header("Content-Length", str(300_000 - start))
        handler.send_header("ETag", etag(data))
        handler.end_headers()
        handler.send(data[start : start + 10_000])
        handler.close_connection = True

    mirror.always = always_new
    with pytest.raises(SourceUnavailableError, match="again and again"):
        bench.get(mirror.url("file.bin"))
    bench.assert_nothing_final()
    assert len(mirror.requests) < 10


def test_a_wrong_length_is_refused_before_its_bytes(mirror: Mirror, second: Mirror, bench: Bench):
    mirror.files["file.bin"] = DATA + b"more"
    expected = ExpectedDigests(size=len(DATA), sha256=hashlib.sha256(DATA).hexdigest())
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"), expected=expected)
    bench.assert_final()
    assert fetched.url == second.url("file.bin")
    assert "offers 300004 bytes, expected 300000" in bench.notes.lines[0]


def test_a_length_that_is_too_short_is_found_by_the_digests(
    mirror: Mirror, second: Mirror, bench: Bench
):
    mirror.always = lambda handler, data: handler.answer(200, data[:250_000])
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"))
    bench.assert_final()
    assert fetched.url == second.url("file.bin")


def test_the_next_mirror_goes_on_from_the_same_byte(mirror: Mirror, second: Mirror, bench: Bench):
    mirror.faults.append(close_after(123_456))
    mirror.always = status(404)
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"))
    bench.assert_final()
    assert fetched.url == second.url("file.bin")
    assert second.requests == [("file.bin", "bytes=123456-")]


def test_a_mirror_of_another_size_does_not_cost_what_is_here(
    mirror: Mirror, second: Mirror, bench: Bench
):
    bench.hold(DATA[:200_000], mirror.url("file.bin"), etag(DATA), len(DATA))
    second.files["file.bin"] = OTHER + b"more"
    bench.get(second.url("file.bin"), mirror.url("file.bin"))
    bench.assert_final()
    assert mirror.requests == [("file.bin", "bytes=200000-")]


def test_when_no_other_mirror_is_left_the_other_size_is_tried(
    mirror: Mirror, second: Mirror, bench: Bench
):
    bench.hold(OTHER[:2000], mirror.url("file.bin"), etag(OTHER), len(OTHER) + 4)
    mirror.always = status(404)
    bench.get(mirror.url("file.bin"), second.url("file.bin"))
    bench.assert_final()


@pytest.mark.parametrize(
    "name", ["sha256", "sha1", "md5", "sha256_prefix", "recorded_sha256", "size"]
)
def test_one_digest_that_disagrees_is_enough(mirror: Mirror, bench: Bench, name: str):
    facts = digests(DATA).to_json() | {name: 7 if name == "size" else "0" * 8}
    with pytest.raises((DigestError, SourceUnavailableError), match="expected") as caught:
        bench.get(mirror.url("file.bin"), expected=ExpectedDigests(**facts))
    bench.assert_nothing_final()
    assert mirror.url("file.bin") in str(caught.value)
    assert not bench.path.with_name("file.bin.part").stat().st_size


def test_wrong_bytes_from_one_mirror_are_replaced_by_the_next(
    mirror: Mirror, second: Mirror, bench: Bench
):
    mirror.files["file.bin"] = OTHER
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"))
    bench.assert_final()
    assert fetched.url == second.url("file.bin")
    assert hashlib.sha256(OTHER).hexdigest() in bench.notes.lines[0]


def test_the_last_check_can_refuse_a_file(mirror: Mirror, bench: Bench):
    wanted = WantedFile(
        path=bench.path,
        urls=[mirror.url("file.bin")],
        expected=digests(DATA),
        check=lambda path: f"{len(path.read_bytes())} bytes are not liked",
    )
    with pytest.raises(DigestError, match="300000 bytes are not liked"):
        fetch(wanted, QUICK, bench.notes)
    bench.assert_nothing_final()


def test_a_file_url_is_a_mirror_too(tmp_path: Path, bench: Bench):
    folder = tmp_path / "a mirror"
    folder.mkdir()
    (folder / "file.bin").write_bytes(DATA)
    bench.path = tmp_path / "to" / "file.bin"
    fetched = bench.get((folder / "none.bin").as_uri(), (folder / "file.bin").as_uri())
    bench.assert_final()
    assert fetched.url.endswith("a%20mirror/file.bin")


def test_a_redirect_is_followed(mirror: Mirror, second: Mirror, bench: Bench):
    mirror.always = status(302, Location=second.url("file.bin"))
    fetched = bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert fetched.url == mirror.url("file.bin")
    assert [name for name, _ in second.requests] == ["file.bin"]


def test_the_environments_proxy_is_used(bench: Bench, monkeypatch: pytest.MonkeyPatch):
    with Mirror({"http://voc.example/file.bin": DATA}) as proxy:
        monkeypatch.setenv("http_proxy", proxy.url())
        bench.get("http://voc.example/file.bin")
    bench.assert_final()


def test_a_file_that_cannot_be_read_back_is_an_error(
    mirror: Mirror, bench: Bench, monkeypatch: pytest.MonkeyPatch
):
    def broken(*_: object) -> bytes:
        raise OSError("the disk is broken")

    bench.hold(DATA[:1000], mirror.url("file.bin"), etag(DATA), len(DATA))
    monkeypatch.setattr("vocprep.downloading.partial.os.pread", broken)
    with pytest.raises(OSError, match="the disk is broken"):
        bench.get(mirror.url("file.bin"))


def test_a_dead_host_and_a_strange_url_are_passed_over(mirror: Mirror, bench: Bench):
    with Mirror({}) as gone:
        dead = gone.url("file.bin")
    fetched = bench.get(dead, "gopher://example.org/file.bin", mirror.url("file.bin"))
    bench.assert_final()
    assert fetched.url == mirror.url("file.bin")
    assert any("refused the connection" in line for line in bench.notes.lines)


def test_an_interrupt_keeps_what_is_here(mirror: Mirror, bench: Bench):
    class Impatient(RecordedProgress):
        def advance(self, count: int) -> None:
            super().advance(count)
            if self.shown > 100_000:
                raise KeyboardInterrupt

    bench.notes = Impatient()
    with pytest.raises(KeyboardInterrupt):
        bench.get(mirror.url("file.bin"))
    bench.assert_nothing_final()
    bench.notes = RecordedProgress()
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    (_, whole), (_, rest) = mirror.requests
    assert whole is None
    assert rest is not None
    assert int(rest.removeprefix("bytes=").removesuffix("-")) > 100_000


@pytest.mark.parametrize("with_state", [True, False])
def test_a_longer_part_of_another_file_leaves_nothing_behind_the_right_bytes(
    mirror: Mirror, bench: Bench, with_state: bool
):
    part = bench.path.with_name("file.bin.part")
    if with_state:
        bench.hold(DATA[:1000], mirror.url("file.bin"), etag(DATA), len(DATA))
    part.write_bytes(OTHER + b"foreign bytes")
    bench.get(mirror.url("file.bin"))
    bench.assert_final()


def test_a_chunked_answer_shorter_than_what_is_held_starts_over(mirror: Mirror, bench: Bench):
    short = DATA[:100_000]
    bench.hold(DATA[:200_000], mirror.url("file.bin"), etag(DATA), None, digests(short))
    mirror.files["file.bin"] = short
    mirror.always = chunked
    bench.get(mirror.url("file.bin"), expected=digests(short))
    bench.assert_final(short)
    assert "the file ended at byte 100000, 200000 bytes are here" in bench.notes.lines[0]


def test_the_encoding_of_a_published_gz_is_part_of_the_file(mirror: Mirror, bench: Bench):
    packed = gzip.compress(DATA)
    mirror.files["file.tar.gz"] = packed

    def encoded(handler: Handler, data: bytes) -> None:
        assert handler.headers["Accept-Encoding"] == "identity"
        handler.answer(200, packed, Content_Encoding="gzip")

    mirror.always = encoded
    bench.get(mirror.url("file.tar.gz"), expected=digests(packed))
    bench.assert_final(packed)


@pytest.mark.parametrize("same", [True, False])
def test_without_a_digest_only_an_equal_validator_lets_the_next_mirror_go_on(
    mirror: Mirror, second: Mirror, bench: Bench, same: bool
):
    mirror.faults.append(close_after(100_000))
    mirror.always = status(404)
    second.files["file.bin"] = DATA if same else OTHER
    bench.get(mirror.url("file.bin"), second.url("file.bin"), expected=ExpectedDigests())
    bench.assert_final(DATA if same else OTHER)
    assert second.requests[0] == ("file.bin", "bytes=100000-")
    assert second.requests[1:] == ([] if same else [("file.bin", None)])


def test_without_validators_a_file_is_not_mixed_from_two_mirrors(
    mirror: Mirror, second: Mirror, bench: Bench
):
    def close(handler: Handler, data: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(data)))
        handler.end_headers()
        handler.send(data[:100_000])
        handler.close_connection = True

    mirror.faults.append(close)
    mirror.always = status(404)
    second.always = lambda handler, _: handler.answer(200, OTHER)
    bench.get(mirror.url("file.bin"), second.url("file.bin"), expected=ExpectedDigests())
    bench.assert_final(OTHER)


def test_a_stalled_mirror_makes_way_and_gets_another_turn(
    mirror: Mirror, second: Mirror, bench: Bench
):
    released = threading.Event()
    mirror.faults.append(stall_after(30_000, released))
    second.faults.append(close_after(50_000))
    second.always = status(404)
    try:
        fetched = bench.get(
            mirror.url("file.bin"), second.url("file.bin"), options=replace(QUICK, read_seconds=0.3)
        )
    finally:
        released.set()
    bench.assert_final()
    assert fetched.url == mirror.url("file.bin")
    assert [asked for _, asked in second.requests] == ["bytes=30000-", "bytes=80000-"]
    assert [asked for _, asked in mirror.requests] == [None, "bytes=80000-"]


def test_a_byte_per_connection_is_no_progress(mirror: Mirror, second: Mirror, bench: Bench):
    mirror.always = close_after(1)
    options = replace(QUICK, least_bytes_per_second=100_000)
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"), options=options)
    bench.assert_final()
    assert fetched.url == second.url("file.bin")
    assert len(mirror.requests) == 1


HASTY = replace(
    QUICK, slow_seconds=0.2, slow_bytes_per_second=5_000_000, least_bytes_per_second=1000
)
"""Finds every mirror slow that is limited."""


def test_a_slow_mirror_alone_is_never_given_up(mirror: Mirror, bench: Bench):
    mirror.rate = 400_000
    bench.get(mirror.url("file.bin"), options=HASTY)
    bench.assert_final()
    assert mirror.requests == [("file.bin", None)]
    assert bench.notes.lines == []


def test_where_all_mirrors_are_slow_the_fastest_goes_on(
    mirror: Mirror, second: Mirror, bench: Bench
):
    mirror.rate, second.rate = 400_000, 50_000
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"), options=HASTY)
    bench.assert_final()
    assert fetched.url == mirror.url("file.bin")
    assert [len(mirror.requests), len(second.requests)] == [2, 1]
    # Nobody reads what a server that was left has still sent: sockets hold some blocks of 16 kB.
    assert mirror.sent + second.sent < 1.3 * len(DATA)


@pytest.mark.slow
def test_a_mirror_that_falls_below_half_of_another_gives_way(
    mirror: Mirror, second: Mirror, bench: Bench
):
    def tires(handler: Handler, data: bytes) -> None:
        start = (span_of(handler, data) or (0, 0))[0]
        promise(handler, data)
        handler.send(data[start : start + 100_000])
        handler.mirror.rate = 120_000
        handler.send(data[start + 100_000 :])

    mirror.rate, second.rate = 400_000, 700_000
    second.faults.append(tires)
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"), options=HASTY)
    bench.assert_final()
    assert fetched.url == mirror.url("file.bin")
    assert [len(mirror.requests), len(second.requests)] == [2, 1]


def test_a_mirror_that_closes_again_and_again_is_slow(mirror: Mirror, second: Mirror, bench: Bench):
    mirror.always = close_after(10_000)
    options = replace(HASTY, backoff_seconds=0.2)
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"), options=options)
    bench.assert_final()
    assert fetched.url == second.url("file.bin")
    assert 2 <= len(mirror.requests) < 5
    assert sum(len(server.requests) for server in (mirror, second)) < 7


def test_after_wrong_bytes_of_two_mirrors_one_gives_all_of_them(
    mirror: Mirror, second: Mirror, bench: Bench
):
    """A mirror that spoils the beginning and leaves cannot keep the others from the file."""
    mirror.files["file.bin"] = OTHER
    mirror.always = close_after(0)
    mirror.faults.append(close_after(100_000))
    second.faults.extend([None, status(503)])
    fetched = bench.get(mirror.url("file.bin"), second.url("file.bin"))
    bench.assert_final()
    assert fetched.url == second.url("file.bin")
    assert [asked for _, asked in second.requests] == ["bytes=100000-", None, None]
    assert len(mirror.requests) == 2


def test_a_mirror_without_the_whole_is_left_for_one_with_another_file(
    mirror: Mirror, second: Mirror, bench: Bench
):
    """Little is here, and no digest is known: it is dropped, not waited for."""
    released = threading.Event()
    mirror.always = stall_after(900, released)
    second.files["file.bin"] = OTHER
    options = replace(QUICK, read_seconds=0.3)
    try:
        fetched = bench.get(
            mirror.url("file.bin"),
            second.url("file.bin"),
            expected=ExpectedDigests(),
            options=options,
        )
    finally:
        released.set()
    bench.assert_final(OTHER)
    assert fetched.url == second.url("file.bin")
    assert len(mirror.requests) == 1


def test_an_empty_file_is_a_file(mirror: Mirror, bench: Bench):
    mirror.files["file.bin"] = b""
    bench.get(mirror.url("file.bin"), expected=digests(b""))
    bench.assert_final(b"")


def test_what_an_earlier_version_left_is_not_taken_over(mirror: Mirror, bench: Bench):
    """Its part file held ranges at their offsets, so that its length says nothing."""
    bench.path.with_name("file.bin.part").write_bytes(bytes(200_000) + DATA[200_000:250_000])
    state = {
        "expected": digests(DATA).to_json(),
        "size": len(DATA),
        "validators": {mirror.url("file.bin"): etag(DATA)},
        "done": [[200_000, 250_000]],
        "flushed": [[200_000, 250_000]],
        "boot": boot_id(),
    }
    bench.path.with_name("file.bin.part.json").write_text(json.dumps(state))
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert bench.notes.lines == []
    assert mirror.requests == [("file.bin", None)]


def test_progress_is_reported_from_one_thread(mirror: Mirror, bench: Bench):
    mirror.faults.append(close_after(30_000))
    bench.get(mirror.url("file.bin"))
    assert bench.notes.threads == {threading.get_ident()}


def test_an_interrupted_fresh_start_leaves_no_byte_of_an_older_part(mirror: Mirror, bench: Bench):
    class Impatient(RecordedProgress):
        def advance(self, count: int) -> None:
            raise KeyboardInterrupt

    bench.path.with_name("file.bin.part").write_bytes(OTHER)
    bench.notes = Impatient()
    with pytest.raises(KeyboardInterrupt):
        bench.get(mirror.url("file.bin"), expected=ExpectedDigests(size=len(DATA)))
    bench.notes = RecordedProgress()
    bench.get(mirror.url("file.bin"), expected=ExpectedDigests(size=len(DATA)))
    bench.assert_final()


def test_a_mirror_that_states_no_size_must_reach_the_one_that_is_known(
    mirror: Mirror, bench: Bench
):
    bench.hold(DATA[:1000], "http://other.example/", etag(DATA), len(DATA))
    mirror.faults.append(lambda handler, data: no_length(handler, data[:150_000]))
    bench.get(mirror.url("file.bin"))
    bench.assert_final()
    assert "closed the connection at byte 150000 of 300000" in bench.notes.lines[0]
