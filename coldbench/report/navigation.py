"""The folder of the report: pages rendered from templates, and links to those pages that the folder holds."""

from __future__ import annotations

import os
import re
from base64 import b64encode
from collections.abc import Iterable
from functools import cache, partial
from hashlib import sha256
from importlib import resources
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

from coldbench import __version__
from coldbench.core.files import write_text
from coldbench.report import cells, formats
from coldbench.report.layout import METHODS, TABLES, run_page

INDEX, CALIBRATION, FIGURES, DISCREPANCIES = "index.html", "calibration.html", "figures.html", "discrepancies.html"
NOT_COUNTED = ("logs",)
"""Folders within the report that do not belong to it."""


def anchor(name: object) -> str:
    """A name as a part of an id: "A.7" is "A-7"."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", str(name))


def pages_in(folder: Path | None) -> frozenset[str]:
    """The pages that the folder of a report holds, by their paths in it."""
    if folder is None:
        return frozenset()
    return frozenset(
        str(path.relative_to(folder)) for place in ("*.html", "runs/*.html") for path in folder.glob(place)
    )


def render(template: str, here: str, folder: Path | None = None, soon: Iterable[str] = (), **values: Any) -> str:
    """The page `here` (its path in the report's `folder`) from its template.

    It links the pages that the folder holds, and the pages `soon` to be written. An undefined variable is an error,
    and all values are escaped. Scripts run only if they are files of this package.
    """
    pages = pages_in(folder) | {here, *soon}
    common: dict[str, Any] = {"here": here, "root": _root(here), "pages": pages, "version": __version__, "banner": None}
    common |= {"link": partial(_link, here, pages), "navigation": _navigation(here, pages)}
    html = _environment().get_template(template).render({**common, **values})
    return html.replace("script-src 'none'", f"script-src {_allowed(html)}", 1)


def refresh(folder: Path, soon: Iterable[str] = ()) -> None:
    """Update the navigation and the links of every page in a report's folder to the pages that are in it now.

    A page keeps its modification time, because Snakemake would take a newer page for a reason to render others again.
    """
    pages = pages_in(folder) | frozenset(soon)
    for here in sorted(pages_in(folder)):
        path = folder / here
        text, times = path.read_text("utf-8"), path.stat()
        new = _with_links(text, here, pages)
        if new != text:
            write_text(path, new)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


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
        others=(("Calibration", CALIBRATION), ("Figures", FIGURES), ("Discrepancies", DISCREPANCIES)),
    )  # fmt: skip
    return Markup(f"<!--navigation-->\n{html if len(pages) > 1 else ''}\n<!--/navigation-->")


def _root(here: str) -> str:
    """The relative path from a page to the folder of the report: "" or "../"."""
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
        "file_size": formats.file_size,
        "number": formats.shown,
        "number_or_dash": formats.shown_or_dash,
        "signed": formats.signed,
        "in_groups": cells.in_groups,
        "rows": cells.table_rows,
        "line_name": cells.line_name,
    }
    environment.globals |= {"interval": formats.interval, "run_page": run_page, "TABLES": TABLES, "METHODS": METHODS}
    return environment


def _allowed(html: str) -> str:
    """The hashes of a page's scripts that are files of this package, as a source list of its security policy."""
    files = Path(str(resources.files("coldbench.report"))) / "templates"
    known = {path.read_text("utf-8").strip() for path in files.glob("*.js")}
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", html, re.DOTALL)
    digests = [sha256(script.encode()).digest() for script in dict.fromkeys(scripts) if script.strip() in known]
    return " ".join(f"'sha256-{b64encode(digest).decode()}'" for digest in digests) or "'none'"


def size_of(folder: Path, *excluded: Path) -> tuple[int, int]:
    """The number of files in a report's folder and their bytes, without logs, `excluded` and other reports within."""
    files = size = 0
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.is_dir() and path.name not in NOT_COUNTED and not (path / INDEX).exists():
            more = size_of(path, *excluded)
            files, size = files + more[0], size + more[1]
        elif path.is_file() and not path.name.startswith(".") and path not in excluded:
            files, size = files + 1, size + path.stat().st_size
    return files, size
