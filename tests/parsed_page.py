"""A page read back: its tables, images and text, what it refers to, and every number in its tables."""

from __future__ import annotations

from html.parser import HTMLParser


class Page(HTMLParser):
    """A page's tables as lists of cells (text, value), its images by description, its text, and what it refers to; in a
    cell an exponent has an e before it, as numbers do. `open` is empty where all elements are closed, in order."""

    VOID = frozenset({"meta", "br", "link", "img", "path", "use", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self.images: dict[str, str] = {}
        self.references: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = dict(attrs)
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        self.references += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "data", "action", "srcset")]
        if tag == "img":
            self.images[attributes["alt"] or ""] = attributes["src"] or ""
        elif tag == "table":
            self.rows = self.tables[attributes["id"] or ""] = []
        elif tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append(("", attributes.get("data-value")))

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"style", "svg"} & set(self.open):
            return
        self.text += data
        if {"td", "th"} & set(self.open):
            text, value = self.rows[-1][-1]
            self.rows[-1][-1] = (text + ("e" if self.open[-1] == "sup" else "") + data, value)


def values(rows: list[list[tuple[str, str | None]]]) -> list[float]:
    return [float(value) for row in rows for _, value in row if value is not None]


def all_values(page: Page) -> set[float]:
    return {value for rows in page.tables.values() for value in values(rows)}
