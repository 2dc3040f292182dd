"""Image ids: what they may be, and the names of tar members and of files that are made of them.

An image id is the path of a picture below the folder of the images, without its suffix. Ids are
compared as they are, without Unicode normalisation, and sorted by code point, which is the order of
their UTF-8 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import filterfalse
from typing import Final
from urllib.parse import unquote_to_bytes

FLIP_SUFFIX: Final = "#flip"
"""Follows the image id in the record id of a mirrored view."""
MOST_CROPS: Final = 99
"""Crops that a version may hold of each image: ``#crop1`` to ``#crop99``."""
_VIEW = re.compile(r"#(?:flip|crop[1-9][0-9]?)\Z")
"""What follows the image id in the record id of a view that is not the plain one."""
MAX_SEGMENT: Final = 75
"""Bytes of a name between slashes, once encoded: a tar member has 100 with its suffixes."""
MAX_ID: Final = 160
"""Bytes of an id, once encoded, a slash counted as three."""
ID_RULE: Final = (
    "expected a file's name or path without its suffix, of letters, digits, blanks and "
    "punctuation: no control characters and no backslash, no name in it that begins with a dot or "
    f"begins or ends with a blank, no end as views have it, #flip or #crop1 to #crop{MOST_CROPS}, "
    f"at most {MAX_ID} bytes and {MAX_SEGMENT} in each name"
)
"""What ``is_image_id`` takes, in words."""
_FIRST, _OTHER = r"[^./\\\x00-\x1f\x7f-\x9f]", r"[^/\\\x00-\x1f\x7f-\x9f]"
ID_PATTERN: Final = f"{_FIRST}{_OTHER}*(?:/{_FIRST}{_OTHER}*)*"
"""A regular expression that every id fits: no path that leads elsewhere, no control character."""
_FORM = re.compile(ID_PATTERN)
_UNREADABLE = re.compile(r"[\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]")
"""Line ends, what changes the direction of text, and surrogates."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]{1,64}")
_PLAIN_ALL = re.compile(r"[A-Za-z0-9_-]+")
_UNSAFE = re.compile(r"[\x00-,.:-@\[-^`{-\x7f]")
"""ASCII characters other than ``A-Z a-z 0-9 _ - /``."""


def is_image_id(text: str) -> bool:
    """Return whether a text can be an image id.

    >>> [is_image_id(text) for text in ("2008_000002", "a/b c.d", "дом/猫 (2)")]
    [True, True, True]
    >>> [is_image_id(text) for text in ("../x", "a#flip", "a#crop2")]
    [False, False, False]
    """
    if _PLAIN.fullmatch(text):
        return True
    if not _FORM.fullmatch(text) or _UNREADABLE.search(text) or not is_plain(text):
        return False
    segments = text.split("/")
    if any(segment != segment.strip() for segment in segments):
        return False
    sizes = [len(encode_id(segment).encode()) for segment in segments]
    return max(sizes) <= MAX_SEGMENT and sum(sizes) + 3 * (len(sizes) - 1) <= MAX_ID


def view_suffix(record_id: str) -> str:
    """Return what a view adds to the image id, nothing for the plain view.

    >>> [view_suffix(record_id) for record_id in ("a", "a#flip", "a#crop12", "a#crop0")]
    ['', '#flip', '#crop12', '']
    """
    if "#" not in record_id:  # nearly all
        return ""
    found = _VIEW.search(record_id)
    return "" if found is None else found[0]


def image_id_of(record_id: str) -> str:
    """Return the id of the image that a record is of.

    >>> image_id_of("2008_000002"), image_id_of("2008_000002#crop1")
    ('2008_000002', '2008_000002')
    """
    return record_id[: len(record_id) - len(view_suffix(record_id))]


def is_plain(record_id: str) -> bool:
    """Return whether a record is the plain view of its image."""
    return not view_suffix(record_id)


def encode_id(image_id: str) -> str:
    """Return an id as the name of tar members, without their suffixes.

    Every byte that is ASCII and none of ``A-Z a-z 0-9 _ - /`` becomes ``%XX``, so that no dot
    remains; percent-decoding gives the id back.

    >>> encode_id("a/b c.d"), encode_id("дом/кошка.1"), encode_id("2008_000002")
    ('a/b%20c%2Ed', 'дом/кошка%2E1', '2008_000002')
    """
    return _UNSAFE.sub(lambda match: f"%{ord(match[0]):02X}", image_id)


def is_safe_id(text: str) -> bool:
    """Return whether a text that was read leads to no other folder and holds no control character.

    Earlier versions may hold ids that are none by ``is_image_id``.
    """
    return _FORM.fullmatch(text) is not None


def first_unsafe(texts: Sequence[str]) -> str | None:
    """Return the first of some texts that ``is_safe_id`` refuses, None where there is none."""
    if all(texts) and _PLAIN_ALL.fullmatch("".join(texts)):  # nearly all, at once
        return None
    return next(filterfalse(is_safe_id, texts), None)


def decode_id(name: str) -> str:
    """Return the id of an encoded name; ValueError for a name that ``encode_id`` never gives.

    >>> decode_id("a/b%20c%2Ed")
    'a/b c.d'
    """
    image_id = name
    if "%" in name:
        image_id = unquote_to_bytes(name).decode()
        if encode_id(image_id) != name:
            raise ValueError(f"{name!r} is no encoded image id")
    if not is_safe_id(image_id):
        raise ValueError(f"{name!r} is no image id: it leads out of its folder")
    return image_id


def encode_record_id(record_id: str) -> str:
    """Return a record id as the name of tar members: the encoded image id, then its view's."""
    view = view_suffix(record_id)
    return encode_id(record_id[: len(record_id) - len(view)]) + view


def decode_record_id(name: str) -> str:
    """Return the record id of an encoded name; ValueError for any other name."""
    view = view_suffix(name)
    return decode_id(name[: len(name) - len(view)]) + view


def file_stem(image_id: str) -> str:
    """Return the name, without a suffix, of a file that is written for an image.

    All are in one folder: ``/`` becomes ``%2F``, and ``%`` becomes ``%25``.

    >>> file_stem("a/b c.d"), file_stem("100%")
    ('a%2Fb c.d', '100%25')
    """
    return image_id.replace("%", "%25").replace("/", "%2F")


def id_of_stem(stem: str) -> str | None:
    """Return the image id that a file was written for; None where its name is of none."""
    image_id = stem.replace("%2F", "/").replace("%25", "%")
    return image_id if file_stem(image_id) == stem and is_image_id(image_id) else None


def record_order(record_id: str) -> str:
    """Return what record ids are sorted by: the image id; its plain view, its mirror image, crops.

    >>> sorted(["a#crop10", "a#crop2", "a#flip", "a b", "a"], key=record_order)
    ['a', 'a#flip', 'a#crop2', 'a#crop10', 'a b']
    """
    view = view_suffix(record_id)
    if not view:
        return record_id
    # No id holds a control character, and these precede every character that ids do hold.
    place = "\x01" if view == FLIP_SUFFIX else f"\x02{int(view.removeprefix('#crop')):02d}"
    return record_id[: len(record_id) - len(view)] + place
