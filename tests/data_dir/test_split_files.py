"""Split files as people write them: read whole, or refused with the line and what it looks like."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vocprep.data_dir.folders import FileNames, KnownPictures
from vocprep.data_dir.split_files import ListedIds
from vocprep.data_dir.split_files import read_split_file as read
from vocprep.errors import DataDirError
from vocprep.files.reading import MAX_LINE, MAX_TEXT_BYTES
from vocprep.manifests import SplitFlags

IDS = st.text("abcXYZ019_-", min_size=1, max_size=64)


def read_split_file(path: Path, flags: SplitFlags | None = None) -> ListedIds:
    """Read a list of the pictures beside it."""
    names = FileNames(kind="image", accepted=(".jpg", ".png"), ignores_case=True)
    return read(path, KnownPictures(path.parent / "images", names), flags)


def written(folder: Path, data: str | bytes) -> Path:
    path = folder / "train.txt"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def refusal(path: Path, flags: SplitFlags | None = None) -> str:
    with pytest.raises(DataDirError) as caught:
        read_split_file(path, flags)
    said = str(caught.value)
    assert said.startswith(f"{path}: ")
    assert said.isprintable()
    return said.removeprefix(f"{path}: ")


@pytest.mark.parametrize(
    "text",
    [
        *("a\nb\n", "a\nb", "a\r\nb\r\n", "a\rb\r", "a \nb\t\n", "\n a \n\n\tb\n\n", "a\nb\n \n"),
        *("\ufeffa\nb\n", "a\u00a0\nb\n"),
    ],
)
def test_ids_are_read_whatever_stands_around_them(tmp_path: Path, text: str) -> None:
    assert list(read_split_file(written(tmp_path, text))) == ["a", "b"]


def test_the_order_and_the_lines_are_kept(tmp_path: Path) -> None:
    assert read_split_file(written(tmp_path, "b\n\na\nc")) == {"b": 1, "a": 3, "c": 4}
    assert read_split_file(written(tmp_path, "")) == {}


@pytest.mark.parametrize(
    ("line", "advice"),
    [
        ("/JPEGImages/a.jpg /SegmentationClassAug/a.png", "paths of an image and its label .*a al"),
        ("a.jpg a.png", "paths of an image and its label map; write a alone"),
        ("JPEGImages/there.jpg", "it looks like a path; write there alone"),
        ("C:\\pictures\\a.jpg", "it looks like a path; write a alone"),
        ("../a", "it looks like a path; write a alone"),
        ("a.mat", "drop the suffix and write a"),
        ("a.XML", "drop the suffix and write a"),
        ("a,0,train", "row of a table; write a alone"),
        ("a1,a2,a3", "several ids; write one id per line"),
        ("2008_000002 2008_000003", "several ids; write one id per line"),
        ("123,1", "row of a table; write 123 alone"),
        ("id,label", "looks like a header; delete the line"),
        ("Image_ID width height", "looks like a header; delete the line"),
        ("a;1", "row of a table; write a alone"),
        ('{"id": "a"}', "row of a table; write "),
        ('"a"', "drop the quotes and write a"),
        ("a 2", "taken for a flag where it is -1, 0 or 1 only; write a alone"),
        ("a 0.5", "taken for a flag"),
        ("# train", "comment; delete the line"),
        ("b#flip", "expected a file's name or path without its suffix"),
        ("x" * 76, "at most 160 bytes and 75 in each name; rename the image and its label map"),
        ("/".join(["x" * 60] * 3), "it looks like a path"),
        ("a\x0cb", "no control characters"),
        ("a\u2028b", "no control characters"),
        (".a", "no name in it that begins with a dot"),
        ("a\x1b[2Jb", "row of a table"),
    ],
)
def test_other_lines_are_refused_with_what_they_look_like(
    tmp_path: Path, line: str, advice: str
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/there.jpg").touch()
    said = refusal(written(tmp_path, f"ok\n\n{line}\nlast\n"))
    assert re.match(rf"line 3: expected an image id, found '.*': .*({advice})", said), said


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_is_refused_by_name(tmp_path: Path, encoding: str) -> None:
    said = refusal(written(tmp_path, "im001\nim002\n".encode(encoding)))
    assert re.search("UTF-16 text.*save it as UTF-8", said)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    assert "not UTF-8 text: byte 0xff" in refusal(written(tmp_path, b"a\n\xff\xd8\n"))


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_split_file(tmp_path / "none.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    assert "a pipe, no regular file" in refusal(tmp_path / "pipe.txt")
    with (tmp_path / "sparse.txt").open("wb") as stream:
        stream.truncate(5 << 30)
    assert f"where at most {MAX_TEXT_BYTES:,} are expected" in refusal(tmp_path / "sparse.txt")


def test_long_lines_and_many_lines_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = refusal(written(tmp_path, "a\n" + "x" * (MAX_LINE + 1)))
    assert "line 2 has 1,001 characters, where at most 1,000 are expected" in said
    monkeypatch.setattr("vocprep.files.reading.MAX_LINES", 3)
    assert "4 lines, where at most 3 are expected" in refusal(written(tmp_path, "a\nb\nc\nd\n"))


def test_a_repeated_id_is_refused_with_both_lines(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, "a\nb\na\n"))
    assert said == "line 3: image id a is listed twice, in line 1 too; remove one line"


CLASS_FILE = "a  1\nb -1\nc  0\nd +1\n"


@pytest.mark.parametrize(
    ("flags", "ids"), [("positive", "ad"), ("present", "acd"), ("all", "abcd")]
)
def test_flags_choose_lines(tmp_path: Path, flags: SplitFlags, ids: str) -> None:
    assert "".join(read_split_file(written(tmp_path, CLASS_FILE), flags)) == ids


def test_flags_without_a_choice_are_never_taken_for_a_list(tmp_path: Path) -> None:
    said = refusal(written(tmp_path, CLASS_FILE))
    assert "flags follow the image ids (2 with 1, 1 with -1, 1 with 0)" in said
    assert "--split-flags" in said


@pytest.mark.parametrize("flags", [None, "positive", "all"])
def test_a_choice_leaves_files_of_ids_alone(tmp_path: Path, flags: SplitFlags | None) -> None:
    assert list(read_split_file(written(tmp_path, "b\na\n"), flags)) == ["b", "a"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\nimg 0\nb\n", r"line 2: expected an image id alone, as in line 1, found 'img 0'"),
        ("a 1\nb\n", r"line 1: expected an image id alone, as in line 2, found 'a 1'"),
        ("img 0\nimg 1\n", r"line 2: image id img is listed twice, in line 1 too; .*rename"),
        ("a 1\na -1\n", r"line 2: image id a is listed twice"),
    ],
)
@pytest.mark.parametrize("flags", [None, "positive", "all"])
def test_numbers_that_are_no_flags_of_a_class_are_refused(
    tmp_path: Path, text: str, said: str, flags: SplitFlags | None
) -> None:
    assert re.match(said, refusal(written(tmp_path, text), flags))


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    ids=st.lists(IDS, unique=True),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    before=st.sampled_from(["", "\ufeff", "\n", " \t"]),
    after=st.sampled_from(["", " ", "\t ", "\n", "\u00a0"]),
    is_closed=st.booleans(),
)
def test_every_list_of_ids_is_read_back(
    tmp_path: Path, ids: list[str], end: str, before: str, after: str, is_closed: bool
) -> None:
    text = before + (after + end).join(ids) + (end if is_closed else "")
    assert list(read_split_file(written(tmp_path, text))) == ids


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=st.text('ab01- \t\n\r,./\\"#\x0b\x0c\x1c\x85\u2028\ufeff\u00e4\x00', max_size=60),
    flags=st.sampled_from([None, "positive", "present", "all"]),
)
def test_a_line_gives_its_own_id_or_a_refusal(
    tmp_path: Path, text: str, flags: SplitFlags | None
) -> None:
    """No id that is not the whole of a line, and no line that is lost."""
    path = written(tmp_path, text)
    lines = [line.strip() for line in re.split("\r\n|\r|\n", text.removeprefix("\ufeff"))]
    try:
        found = read_split_file(path, flags)
    except DataDirError:
        refusal(path, flags)
        return
    for image_id, number in found.items():
        assert re.fullmatch(rf"{re.escape(image_id)}(\s+(-1|0|\+?1))?", lines[number - 1])
    filled = [line for line in lines if line]
    if any(re.search(r"\s", line) for line in filled):
        chosen = {"positive": "+1 1", "present": "+1 1 0", "all": "+1 1 0 -1"}[str(flags)].split()
        filled = [line for line in filled if line.split()[1] in chosen]
    assert len(found) == len(filled)
