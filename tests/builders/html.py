"""Reading the HTML of pages, as a parser sees it."""

from __future__ import annotations

import re
from html import unescape
from html.parser import HTMLParser


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.found if found == tag]


def text_of(html: str, section_id: str) -> str:
    """The text of a section of a report, one space between elements."""
    inner = html.split(f'<section id="{section_id}"')[1].split("</section>", maxsplit=1)[0]
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", f"<{inner}")).split())
