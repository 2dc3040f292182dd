"""Damage to text: JSON values, TOML tables, lists of lines, and the encodings of all of them."""

from __future__ import annotations

import copy
import json
import random
import tomllib
from collections.abc import Iterator
from typing import Any

Place = tuple[Any, Any]
"""A container, and the key or number of one of its values."""


class Raw:
    """A value that is written as it is, whether or not the format has such a value."""

    def __init__(self, text: str) -> None:
        self.text = text


RAW_JSON = (
    *("NaN", "Infinity", "-Infinity", "1e400", "-0.0", "0x10", "01", "1.", "+1", "'a'", "tru"),
    *('"\\ud800"', '"\\udfff x"', '"\\u0000"', '"\\ud83d\\ude00"', '"\\x"', "9" * 5000, "[,]"),
    *("[" * 300 + "]" * 300, "[" * 100_000, '{"a":' * 250 + "1" + "}" * 250, "{}" * 2, ""),
)
RAW_TOML = (
    *("nan", "inf", "-inf", "1e400", "0x10", "0b1", "1_000", "1979-05-27", "07:32:00"),
    *('"\\ud800"', '"\\u0000"', "9" * 5000, "[" * 300 + "]" * 300, "[" * 60_000, "'''a\nb'''"),
    *("{a = " * 200 + "1" + "}" * 200, "", "yes", '"""'),
)
ODD_TEXTS = (
    *("", " ", "a", "0", "-1", "1e9", "null", "None", "NaN", "true", "../../etc/passwd", "/etc"),
    *("a/b", "a\\b", ".", "..", "~", "con", "a\nb", "a\rb", "\x1b[2J\x1b[31m", "\x00", "\u202ea"),
    *("é" * 300, "x" * 100_000, "x" * 1100, "%s%n{0}", "http://127.0.0.1:1/", "00" * 32, "g" * 64),
    *(
        "\u2028",
        "\ufeff",
        "²",
        "\u0661",
        "/dev/zero",
        "random:-1",
        "random:x",
        "sha256",
        "#flip",
        "*",
    ),
)
ODD_NUMBERS = (
    *(0, 1, -1, 2, 3, 255, 256, 459, 65535, 65536, 2**31 - 1, 2**31, -(2**31), 2**63 - 1, 2**63),
    *(10**30, -(10**30), 0.0, 0.5, -0.5, 1.0, 5.5, 1e-300, 1e300, 10**6, 10**9, 10**15),
)
ODD_OTHERS: tuple[Any, ...] = (None, True, False, [], {}, [[]], [None], {"": None}, [0] * 20_000)


def damaged_json(draw: random.Random, data: bytes) -> bytes:
    """Return a JSON text with one to three of its values or names changed."""
    try:
        value = json.loads(data)
    except ValueError:
        return data
    value = changed_value(draw, value, RAW_JSON)
    text = json_text(value, draw)
    return encoded(draw, text)


def damaged_jsonl(draw: random.Random, data: bytes) -> bytes:
    """Return lines of JSON of which one is damaged, or lines are swapped, doubled or left out."""
    lines = data.splitlines()
    if not lines or draw.random() < 0.25:
        return changed_lines(draw, data)
    number = draw.randrange(len(lines))
    lines[number] = damaged_json(draw, lines[number]).replace(b"\n", b" ")
    return b"\n".join(lines) + b"\n" * draw.choice([0, 1, 1, 1, 2])


def damaged_toml(draw: random.Random, data: bytes) -> bytes:
    """Return a TOML text with one to three of its values or names changed."""
    try:
        value = tomllib.loads(data.decode())
    except (ValueError, RecursionError):
        return data
    value = changed_value(draw, value, RAW_TOML)
    if not isinstance(value, dict):
        value = {"value": value}
    lines = [f"{_toml_key(key)} = {toml_text(item)}" for key, item in value.items()]
    if draw.random() < 0.05 and lines:
        lines.append(draw.choice(lines))
    return encoded(draw, "\n".join(lines) + "\n")


def changed_value(draw: random.Random, value: Any, raw: tuple[str, ...]) -> Any:
    """Return a copy of JSON values that differs in one to three places."""
    holder = [copy.deepcopy(value)]
    for _ in range(draw.choice([1, 1, 1, 2, 3])):
        places = list(_places(holder))
        if not places:
            break
        # Half of the changes are near the root, where few values decide much.
        near_root = places[: 1 + len(places) // 8]
        container, key = draw.choice(draw.choice([places, near_root]))
        _change_place(draw, container, key, raw, draw.choice(places))
    return holder[0] if holder else {}


def _places(value: Any) -> Iterator[Place]:
    items: Any = ()
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))[:200]
    for key, item in items:
        yield value, key
        yield from _places(item)


def _change_place(
    draw: random.Random, container: Any, key: Any, raw: tuple[str, ...], other: Place
) -> None:
    """Change one value, or its name, or exchange it for that of another place."""
    value = container[key]
    kind = draw.randrange(12)
    if kind <= 3:
        container[key] = near(draw, value)
    elif kind == 4:
        container[key] = draw.choice(ODD_NUMBERS)
    elif kind == 5:
        container[key] = draw.choice(ODD_TEXTS)
    elif kind == 6:
        container[key] = copy.deepcopy(draw.choice(ODD_OTHERS))
    elif kind == 7:
        container[key] = Raw(draw.choice(raw))
    elif kind == 8:
        container[key] = copy.deepcopy(other[0][other[1]])
    elif kind == 9:
        del container[key]
    elif isinstance(container, dict):
        name = draw.choice([f"{key}_", str(key).upper(), *ODD_TEXTS[:20], "shards", "version"])
        container[name] = container.pop(key) if kind == 10 else copy.deepcopy(value)
    else:
        container.insert(draw.randrange(len(container) + 1), copy.deepcopy(value))


def near(draw: random.Random, value: Any) -> Any:
    """Return a value that is almost the given one: another type, sign, size, order or length."""
    if isinstance(value, bool):
        return draw.choice([not value, int(value), str(value).lower()])
    if isinstance(value, int):
        others = [str(value), float(value), value + 1, value - 1, -value, value * 1000, [value]]
        return draw.choice([*others, value + 0.5, Raw(f"{value}e0"), value + 2**64])
    if isinstance(value, float):
        return draw.choice([str(value), -value, value * 1e9, int(value), Raw("NaN"), Raw("nan")])
    if isinstance(value, str):
        return _near_text(draw, value)
    if isinstance(value, list):
        items = list(value)
        draw.shuffle(items)
        choices = [
            items,
            value[1:],
            value[:-1],
            value * 2,
            [value],
            dict(enumerate(map(str, value))),
        ]
        return copy.deepcopy(draw.choice(choices))
    if isinstance(value, dict):
        items = list(value.items())
        draw.shuffle(items)
        return copy.deepcopy(draw.choice([dict(items[1:]), list(value), dict(items), [value]]))
    return draw.choice([0, "", [], {}])


def _near_text(draw: random.Random, text: str) -> Any:
    place = draw.randrange(len(text) + 1)
    letter = draw.choice("0aZ_ ./#\u0308\u0000\n-")
    choices: list[Any] = [text[:place], text + text, text.upper(), f" {text}", f"{text}\n", [text]]
    choices += [text[:place] + letter + text[place + 1 :], f"../{text}", f"{text}/", f"./{text}"]
    choices += [f"{text}.jpg", text * 200, text.encode().hex()]
    with_number = [int(text)] if text.isdecimal() and len(text) < 20 else []
    return draw.choice(choices + with_number)


def json_text(value: Any, draw: random.Random | None = None) -> str:
    """Return JSON text of values of which some may be ``Raw``, sometimes with a key twice."""
    raw: list[str] = []

    def mark(item: object) -> str:
        raw.append(item.text if isinstance(item, Raw) else "null")
        return f"\ufdd0{len(raw) - 1}\ufdd1"

    indent = draw.choice([None, 2]) if draw else None
    text = json.dumps(value, default=mark, indent=indent, ensure_ascii=False, skipkeys=True)
    for number, shown in enumerate(raw):
        text = text.replace(f'"\ufdd0{number}\ufdd1"', shown)
    if draw and draw.random() < 0.04 and isinstance(value, dict) and value:
        name = draw.choice(list(value))
        text = text[:-1].rstrip() + f", {json.dumps(name)}: {draw.choice(['1', 'null', '[]'])}}}"
    return text


def toml_text(value: Any) -> str:
    """Return a value as TOML, tables in one line; what TOML lacks is written as text."""
    if isinstance(value, Raw):
        return value.text
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        items = (f"{_toml_key(key)} = {toml_text(item)}" for key, item in value.items())
        return "{" + ", ".join(items) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml_text, value)) + "]"
    if isinstance(value, int | float):
        return repr(value)
    return json.dumps(str(value))


def _toml_key(key: object) -> str:
    return json.dumps(str(key))


def encoded(draw: random.Random, text: str) -> bytes:
    """Return text as bytes, now and then in another encoding than UTF-8."""
    kind = draw.randrange(40)
    if kind == 0:
        return text.encode("utf-8-sig", "surrogatepass")
    if kind == 1:
        return text.encode(draw.choice(["utf-16", "utf-16-le", "utf-32"]), "surrogatepass")
    if kind == 2:
        return text.encode("utf-8", "surrogatepass").replace(b"\n", b"\r\n")
    if kind == 3:
        return text.encode("latin-1", "replace") + b"\xff\xfe"
    return text.encode("utf-8", "surrogatepass")


def changed_lines(draw: random.Random, data: bytes) -> bytes:
    """Return lines in another order, doubled, left out, or as people and other programs write."""
    lines = data.splitlines() or [b"a1"]
    number = draw.randrange(len(lines))
    line = lines[number]
    odd = draw.choice(ODD_TEXTS).encode("utf-8", "surrogatepass")
    kind = draw.randrange(14)
    if kind == 0:
        draw.shuffle(lines)
    elif kind == 1:
        lines.insert(number, draw.choice(lines))
    elif kind == 2:
        del lines[number]
    elif kind == 3:
        lines[number] = line + draw.choice([b" 1", b" -1", b"  0", b" b", b"\t1", b" /b.png"])
    elif kind == 4:
        lines[number] = line + draw.choice([b".jpg", b".png", b".mat", b" ", b"\r", b",", b"\xa0"])
    elif kind == 5:
        lines[number] = odd
    elif kind == 6:
        lines[number] = line + b" " + odd
    elif kind == 7:
        lines += [b"", b"  ", b"# comment", b"\x00"][: draw.randrange(1, 5)]
    elif kind == 8:
        lines += [b"zz%06d" % item for item in range(draw.choice([1, 100, 2_000]))]
    elif kind == 9:
        lines[number] = line.swapcase()
    elif kind == 10:
        lines = [b"".join(lines)]
    elif kind == 11:
        lines[number] = b"JPEGImages/" + line + b".jpg SegmentationClass/" + line + b".png"
    elif kind == 12:
        lines = []
    ending = draw.choice([b"\n", b"\n", b"\n", b"\r\n", b"\r", b"\x0b", b"\xe2\x80\xa8"])
    text = ending.join(lines) + ending
    if kind == 13:
        return encoded(random.Random(draw.randrange(4) + 100), text.decode("utf-8", "replace"))
    return draw.choice([b"", b"", b"", b"\xef\xbb\xbf"]) + text
