"""What a user writes, and the place that it names."""

from __future__ import annotations

import pickle
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocprep.errors import UsageError
from vocprep.storage.places import local_path, parse_place, path_below, shown_url, url_scheme
from vocprep.storage.store import StorePath

SCHEMES = st.sampled_from(["s3", "gs", "az", "S3", "Gs"])
BUCKETS = st.from_regex(r"[a-z0-9][a-z0-9._-]{2,20}", fullmatch=True)
PARTS = st.text(string.ascii_letters + string.digits + " %+=é日-_~!,", min_size=1, max_size=9)


@given(SCHEMES, BUCKETS, st.lists(PARTS, max_size=4), st.integers(0, 3))
def test_a_url_is_read_and_printed_again(
    scheme: str, bucket: str, parts: list[str], slashes: int
) -> None:
    url = "/".join([f"{scheme}://{bucket}", *parts])
    place = parse_place(url + "/" * slashes)
    assert isinstance(place, StorePath)
    assert (place.scheme, place.bucket, place.key) == (scheme.lower(), bucket, "/".join(parts))
    assert str(place) == "/".join([f"{scheme.lower()}://{bucket}", *parts])
    assert parse_place(str(place)) == parse_place(place) == pickle.loads(pickle.dumps(place))
    walked = parse_place(f"{scheme}://{bucket}")
    for part in parts:
        assert isinstance(walked, StorePath)
        walked = walked / part
        assert walked.name == part
        below = path_below(place, walked)
        assert below is not None
        assert walked / below == place
    assert walked == place


@given(st.text(max_size=30))
def test_any_text_is_a_place_or_one_sentence(text: str) -> None:
    try:
        place = parse_place(text)
    except UsageError as error:
        words = str(error)
        assert len(words.splitlines()) == 1
        assert url_scheme(text) is not None
    else:
        assert isinstance(place, Path) == (url_scheme(text) in (None, "file"))


@pytest.mark.parametrize(
    "text", ["data", "./s3", "C:\\data", "a:b", "/s3/bucket", "s3", "~/x", "x@y:/data", "1s3://x"]
)
def test_paths_stay_paths(text: str) -> None:
    assert parse_place(text) == local_path(text) == Path(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("file:///data/a%20b%25", "/data/a b%"),
        ("file:///data/a b", "/data/a b"),
        ("file://localhost/data", "/data"),
        ("FILE:///data", "/data"),
    ],
)
def test_urls_of_files(text: str, path: str) -> None:
    assert parse_place(text) == local_path(text) == Path(path)


@pytest.mark.parametrize(
    "text",
    [
        *("s3://", "s3:///x", "s3://user:secret@bucket/x", "s3://bucket/x?versionId=secret"),
        *("s3://bucket/x#secret", "s3://bucket/../x", "s3://bucket/a/./b", "s3://bucket/a\nsecret"),
        *(
            "http://user:secret@host/x?secret",
            "ftp://host/x",
            "file://host/x",
            "file:x",
            "hdfs://x",
        ),
        *("s3://a b/x", "s3://bücket/x", "s3://bucket:80/x", "s3://b/x"),
    ],
)
def test_urls_that_are_none_are_one_sentence_without_what_may_be_secret(text: str) -> None:
    if text == "file:x":
        assert parse_place(text) == Path(text)
        return
    with pytest.raises(UsageError) as caught:
        parse_place(text)
    assert "secret" not in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_what_a_path_makes_of_a_url_is_the_url() -> None:
    assert parse_place(Path("s3://bucket/x")) == parse_place("s3://bucket/x")


def test_the_folder_above_a_bucket_is_the_bucket() -> None:
    bucket = parse_place("s3://bucket")
    assert isinstance(bucket, StorePath)
    assert bucket.parent == bucket
    assert bucket.name == ""
    assert (bucket / "x").parent == bucket


def test_a_shown_url_has_no_user_and_no_query() -> None:
    assert shown_url("https://user:pw@host/a?b=c") == "https://host/a"
