"""The folder of the report: how a page is rendered, and the bar that links those pages that are there."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from coldbench import __version__

INDEX, CALIBRATION, FIGURES, DISCREPANCIES = "index.html", "calibration.html", "figures.html", "discrepancies.html"
PLACES = (
    ("Front page", INDEX),
    ("Calibration", CALIBRATION),
    ("Figures", FIGURES),
    ("Discrepancies", DISCREPANCIES),
    ("Runs", f"{INDEX}#runs"),
)
TWINS = ("csv", "tex", "json")
NOT_THE_REPORT = ("logs",)


@dataclass(frozen=True)
class Link:
    """One place of the bar; `current` is the value of aria-current, "" elsewhere."""

    label: str
    href: str
    current: str


@dataclass(frozen=True)
class Bar:
    """The navigation of one page: its places in order, and the tables, which stand after the front page."""

    front: tuple[Link, ...]
    tables: tuple[Link, ...]
    places: tuple[Link, ...]

    def __bool__(self) -> bool:
        return len(self.front + self.tables + self.places) > 1


def table_file(number: str) -> str:
    """The page of a table, or of the numbers of a section."""
    return f"table{number}.html"


def run_file(run: str) -> str:
    """The page of a run."""
    return f"runs/{run}.html"


def bar(here: str, pages: Iterable[str]) -> Bar:
    """The navigation of the page `here` (relative to the folder) to those of `pages` that have a place in it."""
    there, root = {here, *pages}, root_of(here)

    def link(label: str, target: str) -> Link:
        current = "page" if target == here else "true" if "#runs" in target and here.startswith("runs/") else ""
        return Link(label, root + target, current)

    links = [link(label, target) for label, target in PLACES if target.partition("#")[0] in there]
    front = tuple(place for place in links if place.label == PLACES[0][0])
    numbers = sorted(found[1] for page in there if (found := re.fullmatch(r"table(.+)\.html", page)))
    tables = tuple(link(number, table_file(number)) for number in numbers)
    return Bar(front, tables, tuple(place for place in links if place not in front))


def root_of(here: str) -> str:
    """The way from a page to the folder of the report: "" or "../"."""
    return "../" * here.count("/")


def first_up(text: str) -> str:
    """`text` with its first letter in upper case and the others as they are."""
    return text[:1].upper() + text[1:]


def anchor(name: object) -> str:
    """A name as a part of an id: "A.7" is "A-7"."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", str(name))


def code(text: str) -> Markup:
    """`text`, escaped, with what stands between backticks as code."""
    parts = text.split("`")
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if k % 2 and k < len(parts) - 1 else escape("`" * (k % 2) + part)
        for k, part in enumerate(parts)
    )


def bytes_of(size: int) -> str:
    """A size as a person says it: "840 kB", "12.3 MB"."""
    return f"{size / 1e3:,.0f} kB" if size < 1e6 else f"{size / 1e6:,.1f} MB"


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("coldbench.report", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["first_up"] = first_up
    environment.filters["anchor"] = anchor
    environment.filters["code"] = code
    environment.filters["bytes"] = bytes_of
    return environment


def render(template: str, here: str = "", pages: Iterable[str] = (), **values: Any) -> str:
    """A page from its template; an undefined variable is an error, and everything is escaped.

    `here` is the page's own path in the folder of the report, `pages` are those that it may link to. Scripts run only
    if they are files of this package.
    """
    there = frozenset(pages)
    common = {"root": root_of(here), "nav": bar(here, there), "pages": there, "version": __version__, "banner": None}
    html = _environment().get_template(template).render({**common, **values})
    return html.replace("script-src 'none'", f"script-src {_allowed(html)}", 1)


def _allowed(html: str) -> str:
    """The hashes of a page's scripts that are files of this package, as a source list of its security policy."""
    ours = {path.read_text("utf-8").strip() for path in _templates().iterdir() if path.name.endswith(".js")}
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)
    known = dict.fromkeys(script for script in scripts if script.strip() in ours)
    digests = [b64encode(sha256(script.encode()).digest()).decode() for script in known]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def _templates() -> Path:
    return Path(str(resources.files("coldbench.report"))) / "templates"


def size_of(folder: Path, *excluded: Path) -> tuple[int, int]:
    """How many files a report's folder holds and their bytes, without logs, `excluded` and other reports within."""
    files = size = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and path.name not in NOT_THE_REPORT and not (path / INDEX).exists():
            more = size_of(path, *excluded)
            files, size = files + more[0], size + more[1]
        elif path.is_file() and not path.name.startswith(".") and path not in excluded:
            files, size = files + 1, size + path.stat().st_size
    return files, size
