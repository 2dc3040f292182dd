"""sources.lock.json: what it pins, and what is no such file."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vocprep.data_dir.source_digests import (
    SOURCE_DIGESTS_FILE,
    add_source_digest,
    read_source_digests,
)
from vocprep.errors import DataError


def test_digests_are_added_and_read(tmp_path: Path) -> None:
    assert read_source_digests(tmp_path) == {}
    add_source_digest(tmp_path, "b.tar", "22" * 32, 2)
    add_source_digest(tmp_path, "a.tar", "11" * 32, 1)
    assert read_source_digests(tmp_path) == {"a.tar": "11" * 32, "b.tar": "22" * 32}


FILES = {"a.tar": {"sha256": "11" * 32, "bytes": 1}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "not JSON"),
        ("[" * 100_000, "not JSON: recursion limit"),
        ("[]", "expected a table"),
        (json.dumps({"version": 2, "files": FILES}), "version 2: expected 1"),
        (json.dumps({"version": "1", "files": FILES}), "version '1': expected 1"),
        (json.dumps({"version": 1}), "files: expected a value"),
        ('{"version": 1, "files": {"a": {"sha256": NaN}}}', "NaN|expected value"),
        ('{"version": 1, "files": {"a": {"sha256": "\\ud800"}}}', "not JSON"),
        ('{"version": 1, "files": {"a": {"sha256": "beautiful"}}}', "expected text of the form"),
        ('{"version": 1, "files": {"a": {"sha256": 5}}}', "sha256 5: expected text"),
    ],
)
def test_what_is_no_such_file_is_refused(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / SOURCE_DIGESTS_FILE
    path.write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        read_source_digests(tmp_path)
    assert str(caught.value).startswith(f"{path}: cannot be read as source digests (")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / SOURCE_DIGESTS_FILE)
    with pytest.raises(DataError, match="a pipe, no regular file"):
        read_source_digests(tmp_path)
