"""The values of a request's query: each is known by name, given once and bounded."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import parse_qsl

from vocprep.errors import UsageError, VocprepError
from vocprep.validation import printable

MOST_BYTES = 4096
"""Of a query: an id has at most 255 characters."""
_MOST_FIELDS = 24
_LONGEST = 300
"""Characters of a value."""
_LONGEST_SHOWN = 60


class NotFoundError(VocprepError):
    """Something that a request names is not there."""


class NotReadyError(VocprepError):
    """Something that a request needs is still being computed."""


class Query:
    """The fields of one request; every method raises UsageError where a value is none of its kind.

    >>> query = Query.parse("v=a&offset=20")
    >>> query.text("v"), query.whole("offset", 0, most=100), query.whole("limit", 10, most=100)
    ('a', 20, 10)
    """

    def __init__(self, values: dict[str, str]) -> None:
        self._values = values

    @classmethod
    def parse(cls, text: str) -> Query:
        """Return the fields of a query string, decoded."""
        if len(text) > MOST_BYTES:
            raise UsageError(f"query: expected at most {MOST_BYTES:,} bytes, found {len(text):,}")
        try:
            fields = parse_qsl(
                text,
                keep_blank_values=True,
                strict_parsing=bool(text),
                errors="strict",
                max_num_fields=_MOST_FIELDS,
            )
        except ValueError as error:  # UnicodeDecodeError is one
            raise UsageError("query: expected name=value pairs in UTF-8") from error
        values = dict(fields)
        if len(values) != len(fields):
            raise UsageError("query: expected each name once")
        for name, value in fields:
            if len(value) > _LONGEST:
                raise UsageError(
                    f"{printable(name, _LONGEST_SHOWN)}: expected at most {_LONGEST} characters, "
                    f"found {len(value)}"
                )
        return cls(values)

    def only(self, names: Sequence[str]) -> None:
        """Refuse fields of other names."""
        for name in self._values:
            if name not in names:
                raise UsageError(
                    f"{printable(name, _LONGEST_SHOWN)!r}: expected a query of {', '.join(names)}"
                )

    def text(self, name: str) -> str:
        """Return a value that must be there."""
        if name not in self._values:
            raise UsageError(f"{name}: expected a value, found none")
        return self._values[name]

    def maybe(self, name: str) -> str | None:
        """Return a value; None where it is absent or empty."""
        return self._values.get(name) or None

    def whole(self, name: str, default: int | None, *, most: int) -> int:
        """Return a whole number 0..``most``; it must be there where there is no default."""
        value = self._values.get(name)
        if value is None and default is not None:
            return default
        value = self.text(name)
        is_number = value.isascii() and value.isdigit() and len(value) <= len(str(most))
        if not is_number or int(value) > most:
            shown = printable(value, _LONGEST_SHOWN)
            raise UsageError(f"{name} {shown!r}: expected a whole number from 0 to {most:,}")
        return int(value)

    def choice(self, name: str, expected: Sequence[str], default: str | None = None) -> str:
        """Return one of the expected words; it must be there where there is no default."""
        value = self._values.get(name, default)
        if value is None or value not in expected:
            shown = printable(value or "", _LONGEST_SHOWN)
            raise UsageError(f"{name} {shown!r}: expected one of {', '.join(expected)}")
        return value
