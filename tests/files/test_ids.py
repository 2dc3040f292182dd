"""Image ids: which texts are ids, and names that are made of them and give them back."""

from __future__ import annotations

import io
import re
import tarfile
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vocprep.files.ids import (
    decode_id,
    decode_record_id,
    encode_record_id,
    file_stem,
    id_of_stem,
    image_id_of,
    is_image_id,
    record_order,
)

CHARACTERS = "aB0_- .,%#!'()&+=@~дёé猫🐈٣\u0301\u200d"
SEGMENTS = st.text(CHARACTERS, min_size=1, max_size=20)
IDS = st.lists(SEGMENTS, min_size=1, max_size=4).map("/".join).filter(is_image_id)


@pytest.mark.parametrize(
    "text",
    [
        "2008_000002",
        "a/b c.d",
        "дом/кошка.1",
        "猫 (2)",
        "x%20y",
        "a#b",
        "a#flips",
        "a#crop0",
        "a#crop100",
        "x" * 75,
        "a.",
    ],
)
def test_names_of_files_without_their_suffix_are_ids(text: str) -> None:
    assert is_image_id(text)


@pytest.mark.parametrize(
    "text",
    [
        *[
            "",
            "/a",
            "a/",
            "a//b",
            "..",
            "../x",
            "a/../b",
            ".",
            "a/.b",
            ".tmp-a",
            "a\\b",
            " a",
            "a ",
        ],
        *[
            "a ",
            "a/ b",
            "a\0b",
            "a\nb",
            "a\x85b",
            "a\u2028b",
            "a\u202eb",
            "\ufeffa",
            "\udce9",
            "a#flip",
            "a#crop1",
            "a#crop99",
        ],
        *["x" * 76, "é" * 38, "." + "a", "(" * 26, "/".join(["x" * 55] * 3), "/".join("a" * 41)],
    ],
)
def test_what_leads_elsewhere_or_fits_no_container_is_no_id(text: str) -> None:
    assert not is_image_id(text)


@given(IDS, st.sampled_from(["", "#flip", "#crop1", "#crop99"]))
def test_names_of_members_give_their_record_back(image_id: str, view: str) -> None:
    record_id = image_id + view
    name = encode_record_id(record_id)
    assert decode_record_id(name) == record_id
    assert unquote(name) == record_id  # as any reader does it
    assert not re.search(r"[\x00-,.:-@\[-^`{-\x7f]", name.removesuffix(view).replace("%", ""))
    if re.fullmatch(r"[A-Za-z0-9_/-]+", image_id):
        assert name == record_id


@given(IDS, st.sampled_from(["", "#flip", "#crop1", "#crop99"]))
def test_every_member_name_fits_a_plain_tar_header(image_id: str, view: str) -> None:
    name = f"{encode_record_id(image_id + view)}.label_map.png16"
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name))
    with tarfile.open(fileobj=io.BytesIO(stream.getvalue())) as archive:
        assert archive.getnames() == [name]


@pytest.mark.parametrize("name", ["%61", "a%2", "%2e", "%FF", "a%2F..%2Fb", "%2E%2E/x", "%00", ""])
def test_names_that_no_id_has_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"id|decode"):
        decode_id(name)


@given(IDS)
def test_names_of_files_are_in_one_folder_and_give_the_id_back(image_id: str) -> None:
    assert "/" not in file_stem(image_id)
    assert id_of_stem(file_stem(image_id)) == image_id
    assert len(f"{file_stem(image_id)}.overlay.png".encode()) <= 255


@pytest.mark.parametrize("stem", ["a%2fb", "%", "a%20b", "%2F", "..", "a\nb"])
def test_other_names_of_files_are_of_no_image(stem: str) -> None:
    assert id_of_stem(stem) is None


@given(st.lists(IDS, unique=True, max_size=8))
@example(["a", "a b", "a!", "a#b", "a/b"])
def test_views_follow_their_image(ids: list[str]) -> None:
    views = ("", "#flip", "#crop1", "#crop2", "#crop10")
    records = [image_id + view for image_id in ids for view in reversed(views)]
    ordered = sorted(records, key=record_order)
    assert ordered == [image_id + view for image_id in sorted(ids) for view in views]
    assert [image_id_of(record_id) for record_id in ordered] == [
        image_id for image_id in sorted(ids) for _ in views
    ]
