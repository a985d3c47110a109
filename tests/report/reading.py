"""Reads report.html as tests look at it: its tables, what it tells where one points, its boxes and its text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

NAMES = ('<script>alert("x")</script>', "a & b")
"""Names of classes that a page could choke on."""


class Html(HTMLParser):
    """tables: by section, rows of cells. titles: what is told where one points. tags: how often each occurs. text: all that is read."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.titles: list[str] = []
        self.tags: dict[str, int] = {}
        self.boxes: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self._section = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags[tag] = self.tags.get(tag, 0) + 1
        if tag not in ("meta", "link", "br"):
            self._open.append(tag)
        if tag == "section":
            self._section = values["id"] or ""
        if tag == "tr":
            self.tables.setdefault(self._section, []).append([])
        if tag in ("td", "th"):
            self.tables[self._section][-1].append("")
        if tag == "title" and len(self._open) > 3:
            self.titles.append("")
        if tag == "g" and (values.get("class") or "").startswith("box "):
            self.boxes.append(values["class"] or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, f"{tag} closes something else"

    def handle_data(self, data: str) -> None:
        if self._open[-1:] in (["script"], ["style"]):
            return
        self.text += data
        if self._open[-1:] == ["title"] and self.titles:
            self.titles[-1] += data
        elif {"td", "th"} & set(self._open):
            self.tables[self._section][-1][-1] += data


def read(folder: Path) -> Html:
    return Html((folder / "report.html").read_text("utf-8"))


def column(table: list[list[str]], name: str) -> list[str]:
    place = table[0].index(name)
    return [row[place] for row in table[1:]]
