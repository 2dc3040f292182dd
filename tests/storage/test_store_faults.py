"""Object stores that fail: what passes is waited for, what stays is one sentence."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import pickle
import ssl
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from builders.faulty import Exchange, FaultyServer
from builders.s3 import (
    ACCESS_KEY,
    BUCKET,
    S3,
    SECRET_KEY,
    busy,
    call_once,
    cut,
    slow,
)
from builders.s3 import Exchange as Forwarded
from builders.tls import PEM

from vocprep.errors import UsageError
from vocprep.storage import client
from vocprep.storage.store import StoreError, StorePath

DATA = bytes(range(256)) * 40_000


def path_of(url: str) -> StorePath:
    return StorePath.parse(url)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# What passes


def test_every_tenth_answer_of_503_changes_nothing(s3: S3) -> None:
    with s3.through_proxy(busy(every=10)) as proxy:
        for number in range(12):
            path = path_of(s3.url(f"{number}.bin"))
            assert path.put_new(DATA[:number], sha256(DATA[:number]))
            assert path.read(100) == DATA[:number]
            facts = path.facts()
            assert facts is not None
            assert (facts.bytes, facts.sha256) == (number, sha256(DATA[:number]))
        assert len(list(path_of(s3.url()).list())) == 12
        assert proxy.requests.total() == 41  # 37, and one more for every tenth


def test_an_answer_that_breaks_off_is_gone_on_with(s3: S3) -> None:
    s3.put("x", DATA)
    with s3.through_proxy(cut("x", 4_000_000, times=2)) as proxy:
        path = path_of(s3.url("x"))
        assert b"".join(path.chunks()) == DATA
        assert proxy.count("GET") == 3
        assert proxy.sent[path.key] == len(DATA)  # nothing twice


def test_an_answer_is_gone_on_with_after_the_patience_of_its_request(
    s3: S3, impatient: None
) -> None:
    s3.put("x", DATA)
    with s3.through_proxy(cut("x", 9_000_000)) as proxy:
        path = path_of(s3.url("x"))
        chunks = path.chunks()
        read = [bytes(next(chunks))]
        time.sleep(0.5)
        assert b"".join([*read, *chunks]) == DATA
        assert proxy.count("GET") == 2


def test_an_object_replaced_while_it_is_read_is_an_error(s3: S3, impatient: None) -> None:
    s3.put("x", DATA)
    with s3.through_proxy(cut("x", 9_000_000)):
        chunks = path_of(s3.url("x")).chunks()
        next(chunks)
        s3.put("x", DATA[::-1])
        time.sleep(0.5)
        with pytest.raises(StoreError, match="the object was replaced while it was read"):
            list(chunks)


def test_a_store_that_is_away_for_a_while_is_waited_for(s3: S3) -> None:
    s3.put("x", DATA)
    with s3.through_proxy() as proxy:
        proxy.refuse_for(2)
        begun = time.monotonic()
        assert path_of(s3.url("x")).read(len(DATA)) == DATA
        assert 1.5 < time.monotonic() - begun < 10
        assert proxy.count("GET") == 1


def test_a_long_wait_is_noted_once(
    s3: S3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(client, "_SECONDS_UNTIL_NOTE", 0.05)
    monkeypatch.setattr(client, "_waited_for", set())
    s3.put("a.bin", DATA)
    path = path_of(s3.url("a.bin"))
    with s3.through_proxy(slow(0.3)):
        assert [path.read(len(DATA)) for _ in range(2)] == [DATA, DATA]
    assert caplog.messages == [
        f"note: still waiting for {path}; a store that is away or busy is asked again for half a "
        "minute"
    ]


def test_a_connection_that_breaks_while_an_object_is_written(s3: S3) -> None:
    def break_off(_: Forwarded) -> None:
        if proxy.requests.total() <= 3:
            raise ConnectionResetError

    with s3.through_proxy(break_off) as proxy:
        assert path_of(s3.url("x")).put_new(DATA, sha256(DATA))
        assert proxy.count("PUT") == 4
    assert s3.get("x") == DATA


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_writing(s3: S3) -> None:
    with s3.through_proxy(call_once("x", s3.server.kill_and_start, method="PUT")) as proxy:
        path_of(s3.url("x")).put(DATA, sha256(DATA))
        assert proxy.count("PUT") > 1
    s3.server.wait()
    assert s3.get("x") == DATA


@pytest.mark.slow
def test_a_server_killed_in_the_middle_of_reading(s3: S3) -> None:
    s3.put("x", DATA)

    def cut_and_kill(exchange: Forwarded) -> None:
        if proxy.requests.total() == 1:
            exchange.cut_after = 5_000_000
            exchange.after = s3.server.kill_and_start

    with s3.through_proxy(cut_and_kill) as proxy:
        path = path_of(s3.url("x"))
        assert b"".join(path.chunks()) == DATA
        assert proxy.count("GET") > 1
        assert proxy.sent[path.key] < len(DATA) + 1_000_000  # answers of errors too


def test_a_write_that_the_server_did_and_did_not_confirm(s3: S3) -> None:
    def lose_the_answer(exchange: Forwarded) -> None:
        if exchange.method == "PUT" and not lost:
            lost.append(1)
            exchange.status, exchange.forward_first = 503, True

    lost: list[int] = []
    with s3.through_proxy(lose_the_answer):
        path = path_of(s3.url("x"))
        assert not path.put_new(b"data", sha256(b"data"))  # it is there: its caller compares
        facts = path.facts()
        assert facts is not None
        assert facts.sha256 == sha256(b"data")


# What stays


def test_a_missing_object_is_a_missing_file(s3: S3) -> None:
    path = path_of(s3.url("none"))
    for act in (lambda: path.read(9), lambda: list(path.chunks()), lambda: path.read_range(0, 3)):
        with pytest.raises(FileNotFoundError) as caught:
            act()
        assert (caught.value.strerror, caught.value.filename) == ("no such object", str(path))
    assert path.facts() is None
    assert list(path.list()) == []
    path.delete()


def test_a_missing_bucket_is_named(s3: S3) -> None:
    path = path_of("s3://no-such-bucket/x")
    host = urlsplit(s3.server.endpoint).netloc
    words = f"there is no bucket s3://no-such-bucket at {host}; check its name and AWS_ENDPOINT_URL"
    for act in (
        lambda: path.read(9),
        lambda: path.put(b"x", sha256(b"x")),
        lambda: list(path.parent.list()),
    ):
        with pytest.raises(StoreError) as caught:
            act()
        assert caught.value.strerror == words
    assert path.facts() is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"AWS_SECRET_ACCESS_KEY": "another-secret"},
            "refuses the credentials (SignatureDoesNotMatch); check AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY",
        ),
        ({"AWS_ACCESS_KEY_ID": "another-key"}, "refuses the credentials (InvalidAccessKeyId)"),
        ({"AWS_SKIP_SIGNATURE": "true"}, "does not allow this (403 AccessDenied)"),
    ],
)
def test_refused_credentials_say_which_to_check(
    s3: S3, changes: dict[str, str], words: str
) -> None:
    s3.put("x", b"x")
    for name, value in changes.items():
        s3.environment.setenv(name, value)
    path = path_of(s3.url("x"))
    with pytest.raises(PermissionError) as caught:
        path.read(9)
    assert words in str(caught.value.strerror)
    assert urlsplit(s3.server.endpoint).netloc in str(caught.value.strerror)
    with pytest.raises(PermissionError):
        path.facts()


def test_no_credentials_at_all(s3: S3, impatient: None) -> None:
    def none(exchange: Exchange) -> None:
        exchange.send(b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n")

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        s3.environment.delenv(name)
    with FaultyServer(b"", {"none": none}, alone="none") as metadata:
        # A machine of the cloud has its credentials from a server at a fixed address.
        s3.environment.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{metadata.port}")
        with pytest.raises(PermissionError) as caught:
            path_of(s3.url("x")).read(9)
    assert caught.value.strerror == (
        "no credentials in the environment; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
        "AWS_SKIP_SIGNATURE=true for a public bucket"
    )


def _answers(status: int, body: bytes = b"", head: bytes = b"") -> Callable[[Exchange], None]:
    return lambda exchange: exchange.send(
        b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n%s\r\n%s" % (status, len(body), head, body)
    )


def _error(code: str, more: str = "") -> bytes:
    return f"<Error><Code>{code}</Code>{more}</Error>".encode()


ANSWERS = {
    "region": (
        _answers(400, _error("AuthorizationHeaderMalformed", "<Region>eu-west-1</Region>")),
        f"s3://{BUCKET} is in the region eu-west-1, not in the one that is set; set AWS_REGION to "
        "eu-west-1",
    ),
    "redirect": (
        _answers(301, _error("PermanentRedirect")),
        f"s3://{BUCKET} is in another region, not in the one that is set; set AWS_REGION to the "
        "bucket's region",
    ),
    "expired": (
        _answers(403, _error("ExpiredToken")),
        "the credentials have expired (ExpiredToken); renew them",
    ),
    "clock": (
        _answers(403, _error("RequestTimeTooSkewed", f"<X>{SECRET_KEY}</X>")),
        "this machine's clock differs from that of HOST; set the clock",
    ),
    "unauthenticated": (
        _answers(401, b"who?"),
        "HOST does not allow this (401); check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and "
        "what they may do with the bucket",
    ),
    "broken": (_answers(500, b"boom"), "HOST answers 500; try again later"),
    "busy": (_answers(429, _error("SlowDown")), "HOST answers 429 SlowDown; try again later"),
    "odd": (_answers(418, b"<html>"), "HOST answers 418"),
    "garbage": (
        lambda exchange: exchange.send(b"SSH-2.0-OpenSSH\r\n\r\n"),
        "HOST does not answer as an object store does; check AWS_ENDPOINT_URL",
    ),
    "no length": (
        lambda exchange: exchange.send(b"HTTP/1.1 200 OK\r\n\r\nabc"),
        "the store of s3:// does not answer as an object store does; check AWS_ENDPOINT_URL",
    ),
    "closed": (
        lambda _: None,
        "HOST breaks connections; check AWS_ENDPOINT_URL and the network",
    ),
    "stalled": (
        lambda exchange: exchange.stall(),
        "HOST does not answer in time; check AWS_ENDPOINT_URL and the network",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answers_that_stay_are_one_sentence(
    s3: S3, impatient: None, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault, words = ANSWERS[name]
    monkeypatch.setattr(client, "_READ_SECONDS", 0.5)
    with FaultyServer(b"", {"fault": fault}, alone="fault") as server:
        host = f"127.0.0.1:{server.port}"
        s3.environment.setenv("AWS_ENDPOINT_URL", f"http://{host}")
        with pytest.raises(OSError, match=r".") as caught:
            path_of(s3.url("x")).read(9)
    assert caught.value.strerror == words.replace("HOST", host)


def test_addresses_where_no_store_is(s3: S3, impatient: None) -> None:
    with FaultyServer(b"", {}) as server:
        closed = server.port
    cases = {
        f"http://127.0.0.1:{closed}": f"127.0.0.1:{closed} cannot be reached: Connection refused;",
        "http://no-host.invalid:80": "the host no-host.invalid:80 is not known;",
    }
    for address, words in cases.items():
        s3.environment.setenv("AWS_ENDPOINT_URL", address)
        with pytest.raises(StoreError) as caught:
            path_of(s3.url("x")).read(9)
        assert words in str(caught.value.strerror)
        assert "AWS_ENDPOINT_URL" in str(caught.value.strerror)


def test_an_address_without_tls(s3: S3, impatient: None) -> None:
    with FaultyServer(b"", {}, alone="good") as server:
        s3.environment.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.port}")
        with pytest.raises(StoreError, match="not answer by TLS; write http:// in AWS_ENDPOINT_U"):
            path_of(s3.url("x")).read(9)


def test_a_certificate_that_is_not_accepted(s3: S3, impatient: None, tmp_path: Path) -> None:
    (tmp_path / "pem").write_text(PEM)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "pem")
    with FaultyServer(b"", {}, alone="good", tls=context) as server:
        s3.environment.setenv("AWS_ENDPOINT_URL", f"https://127.0.0.1:{server.port}")
        with pytest.raises(StoreError, match=r"the certificate of 127\.0\.0\.1:\d+ is not acc"):
            path_of(s3.url("x")).read(9)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ENDPOINT_URL", "127.0.0.1:9000"),
        ("AWS_ENDPOINT_URL", f"http://{ACCESS_KEY}:{SECRET_KEY}@127.0.0.1"),
        ("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1/?key={SECRET_KEY}"),
        ("AWS_SECRET_ACCESS_KEY", f"{SECRET_KEY}\n"),
        ("AWS_ACCESS_KEY_ID", f"é{SECRET_KEY}"),
        ("AWS_REGION", "us-east-1\r"),
        ("AWS_SESSION_TOKEN", f"{SECRET_KEY}\x01"),
        ("AWS_CONDITIONAL_PUT", f"bad {SECRET_KEY}"),
        ("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", f"bad {SECRET_KEY}"),
    ],
)
def test_settings_that_no_request_can_be_made_of(s3: S3, name: str, value: str) -> None:
    s3.environment.setenv(name, value)
    with pytest.raises(
        UsageError, match=rf"^({name}: |s3://.*: expected settings in the env)"
    ) as caught:
        path_of(s3.url("x")).read(9)
    assert SECRET_KEY not in str(caught.value)


def test_credentials_are_in_nothing_that_is_shown_or_kept(
    s3: S3, impatient: None, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    s3.environment.setenv("AWS_SESSION_TOKEN", "marked-token")
    s3.put("x", b"x")
    texts: list[str] = []
    echo = f"<AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><StringToSign>{SECRET_KEY}</StringToSign>"
    faults = {
        "denied": _answers(403, _error("SignatureDoesNotMatch", echo)),
        "bad": _answers(400, _error("Bad", echo), f"x-echo: {SECRET_KEY}\r\n".encode()),
        "away": _answers(503, echo.encode()),
    }
    for fault in faults.values():
        with FaultyServer(b"", {"fault": fault}, alone="fault") as server:
            s3.environment.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.port}")
            path = path_of(s3.url("x"))
            for act in (
                lambda: path.read(9),  # noqa: B023  # called at once
                lambda: list(path.list()),  # noqa: B023
                lambda: path.put(b"x", sha256(b"x")),  # noqa: B023
            ):
                with pytest.raises(OSError, match=r".") as caught:
                    act()
                error = caught.value
                texts += [str(error), repr(error), repr(vars(error)), repr(pickle.dumps(error))]
                output = io.StringIO()
                traceback.print_exception(error, file=output)
                texts.append(output.getvalue())
    texts += [repr(path), str(path), repr(pickle.dumps(path)), caplog.text, *capfd.readouterr()]
    for text in texts:
        for secret in (ACCESS_KEY, SECRET_KEY, "marked-token", "Authorization"):
            assert secret not in text


def test_too_large_for_one_request_or_for_its_reader(s3: S3) -> None:
    s3.put("x", b"x" * 11)
    with pytest.raises(StoreError, match="11 bytes, where at most 10 are expected"):
        path_of(s3.url("x")).read(10)

    class Large(bytes):
        def __len__(self) -> int:
            return (5 << 30) + 1

    with pytest.raises(StoreError, match=r"5,368,709,121 bytes, where an object store takes at"):
        path_of(s3.url("y")).put(Large(), "0" * 64)
    assert s3.names() == ["x"]


def test_errors_pickle(s3: S3) -> None:
    for path in (path_of(s3.url("none")), path_of("s3://no-such-bucket/x")):
        with pytest.raises(OSError, match=r".") as caught:
            path.read(9)
        again = pickle.loads(pickle.dumps(caught.value))
        assert (type(again), str(again)) == (type(caught.value), str(caught.value))


def test_other_settings_hold_at_once(s3: S3) -> None:
    s3.put("x", b"x")
    path = path_of(s3.url("x"))
    s3.environment.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(PermissionError):
        path.read(9)
    s3.environment.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    assert path.read(9) == b"x"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET_KEY
