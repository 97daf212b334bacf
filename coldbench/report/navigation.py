"""The folder of the report: pages rendered from templates, and links to those pages that the folder holds."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, partial
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from coldbench.core import __version__
from coldbench.core.files import write_text
from coldbench.report import cells, formats
from coldbench.report.layout import TABLES, method_title, run_page

INDEX, CALIBRATION, FIGURES, DISCREPANCIES = "index.html", "calibration.html", "figures.html", "discrepancies.html"
METHODS = "methods.html"
NOT_COUNTED = ("logs",)
"""Folders within the report that do not belong to it."""


def anchor(name: object) -> str:
    """A name as a part of an id: "A.7" is "A-7"."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", str(name))


@dataclass(frozen=True)
class ReportFolder:
    """The folder of a report. Its pages state the hashes of what decided their content, and of their exports."""

    path: Path
    made_from: str = ""
    exports: str = ""

    def pages(self) -> frozenset[str]:
        """The pages that the folder holds, by their paths in it."""
        found = (path for place in ("*.html", "runs/*/*.html") for path in self.path.glob(place) if path.is_file())
        return frozenset(str(path.relative_to(self.path)) for path in found)

    def render(self, template: str, here: str, soon: Iterable[str] = (), **values: Any) -> str:
        """The page `here`, a path in the folder, from its template.

        It links the pages that the folder holds, and the pages `soon` to be written. An undefined variable is an error,
        and all values are escaped. Scripts run only if they are files of this package.
        """
        pages = self.pages() | {here, *soon}
        common: dict[str, Any] = {"here": here, "root": _root(here), "pages": pages, "banner": None}
        common |= {"version": __version__, "made_from": self.made_from, "exports": self.exports}
        common |= {"link": partial(_link, here, pages), "navigation": _navigation(here, pages)}
        html = _environment().get_template(template).render({**common, **values})
        return html.replace("script-src 'none'", f"script-src {_allowed(html)}", 1)

    def refresh(self, soon: Iterable[str] = ()) -> None:
        """Update the navigation and the links of every page to the pages that the folder holds now.

        A page keeps its modification time, because Snakemake would take a newer page for a reason to render others
        again. Pages that no version of this package rendered stay as they are.
        """
        pages = self.pages() | frozenset(soon)
        for here in sorted(self.pages()):
            path = self.path / here
            try:
                text, times = path.read_text("utf-8"), path.stat()
            except (OSError, UnicodeDecodeError):
                continue
            new = _with_links(text, here, pages)
            if new != text:
                write_text(path, new)
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    def size(self, without: str) -> tuple[int, int]:
        """The number of files and their bytes, except the page `without`, logs, and other reports inside the folder."""
        sizes = []
        for parent, folders, names in os.walk(self.path):
            place = Path(parent)
            folders[:] = [name for name in folders if name not in NOT_COUNTED and not (place / name / INDEX).exists()]
            files = [place / name for name in names if not name.startswith(".")]
            sizes += [path.stat().st_size for path in files if path.is_file() and path != self.path / without]
        return len(sizes), sum(sizes)


def _with_links(html: str, here: str, pages: frozenset[str]) -> str:
    """The text of a page with navigation and links to those of `pages` that it names."""

    def link(match: re.Match[str]) -> str:
        return _link(here, pages, unquote(match[1]), Markup(match[2]))

    def navigation(_: re.Match[str]) -> str:
        return _navigation(here, pages)

    html = re.sub(r"<!--navigation-->.*?<!--/navigation-->", navigation, html, flags=re.DOTALL)
    return re.sub(r"<!--link ([^>]*)-->(?:<a [^>]*>)?(.*?)(?:</a>)?<!--/link-->", link, html)


def _link(here: str, pages: Iterable[str], target: str, text: str) -> Markup:
    """`text` as a link to a page of the report, or alone if the page does not exist; `refresh` finds both."""
    place = quote(target, safe="/#")
    exists = target.partition("#")[0] in pages
    inner = Markup('<a href="{}">{}</a>').format(_root(here) + place, text) if exists else escape(text)
    return Markup("<!--link {}-->{}<!--/link-->").format(place, inner)


def _navigation(here: str, pages: frozenset[str]) -> Markup:
    """The navigation of a page, between the comments by which `refresh` finds it; empty if there is no other page."""
    html = _environment().get_template("_navigation.html").render(
        here=here,
        root=_root(here),
        pages=pages,
        tables=[table for table in TABLES.values() if table.page in pages],
        others=(
            ("Methods", METHODS),
            ("Calibration", CALIBRATION),
            ("Figures", FIGURES),
            ("Discrepancies", DISCREPANCIES),
        ),
    )  # fmt: skip
    return Markup(f"<!--navigation-->\n{html if len(pages) > 1 else ''}\n<!--/navigation-->")


def _root(here: str) -> str:
    """The relative path from a page to the folder of the report: "" or some "../"."""
    return "../" * here.count("/")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("coldbench.report", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "first_up": formats.first_up,
        "anchor": anchor,
        "code": formats.code,
        "css_text": formats.css_text,
        "file_size": formats.file_size,
        "number": formats.shown,
        "number_or_dash": formats.shown_or_dash,
        "signed": formats.signed,
        "signed_or_dash": formats.signed_or_dash,
        "in_groups": cells.in_groups,
        "rows": cells.table_rows,
        "line_name": cells.line_name,
        "method_title": method_title,
    }
    environment.globals |= {"interval": formats.interval, "run_page": run_page, "TABLES": TABLES}
    return environment


def _allowed(html: str) -> str:
    """The hashes of a page's scripts that are files of this package, as a source list of its security policy."""
    files = Path(str(resources.files("coldbench.report"))) / "templates"
    known = {path.read_text("utf-8").strip() for path in files.glob("*.js")}
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)
    digests = [sha256(script.encode()).digest() for script in dict.fromkeys(scripts) if script.strip() in known]
    return " ".join(f"'sha256-{b64encode(digest).decode()}'" for digest in digests) or "'none'"
