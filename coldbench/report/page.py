"""The pages: views of tables, figures and run facts, rendered into HTML that needs no other file."""

from __future__ import annotations

import json
import struct
from base64 import b64encode
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from coldbench import __version__
from coldbench.errors import ColdbenchError
from coldbench.report.ablations import METHODS, ablations
from coldbench.report.figures import Figure
from coldbench.report.inputs import Score, Scores
from coldbench.report.tables import ALSO, TableView
from coldbench.report.verdict import KINDS

COMMANDS = (
    ("make smoke", "everything on embedded images at the smoke budget, in minutes"),
    ("snakemake", "everything at this machine's budget: trained for minutes, on the paper's data"),
    ("snakemake reports/table1.html", "one table, running only what is missing"),
    ("snakemake reports/calibration.html", "which reading gives the Degraded columns; needs no trained network"),
    ("snakemake --profile slurm all", "the paper's budget on a cluster"),
    ("make test", "the tests of the suite"),
)
BUDGETS = {
    "smoke": "tiny networks, trained for seconds",
    "short": "networks of full size, trained for 20,000 updates",
    "laptop": "networks trained for minutes, not for the paper's hundreds of thousands of updates",
}


@dataclass(frozen=True)
class Picture:
    """A figure ready to embed: `src` is a data URI, or "" where the file is missing."""

    figure: Figure
    src: str
    width: int
    height: int


@dataclass(frozen=True)
class Banner:
    """What a reader must know before any number; `mark` is repeated on every printed page."""

    title: str
    text: str
    mark: str


@dataclass(frozen=True)
class Run:
    """The facts of one run: any of its scores, and its provenance as (name, values) pairs."""

    score: Score
    facts: tuple[tuple[str, str], ...]

    def fact(self, name: str) -> str:
        return dict(self.facts).get(name, "–")


def table_page(view: TableView, scores: Scores) -> str:
    """One table as a page of its own."""
    mine = tuple(score for score in scores if score.table in (view.number, ALSO.get(view.number)))
    return _tables("table.html", [view], mine)


def index_page(views: Sequence[TableView], scores: Scores, figures: Iterable[Figure]) -> str:
    """The whole report as one page: scorecard, tables, figures, run facts, errata, commands."""
    pictures: dict[tuple[str, str], list[Picture]] = {}
    for figure in figures:
        pictures.setdefault((figure.run, figure.title), []).append(_picture(figure))
    return _tables("index.html", views, scores, pictures=pictures, ablations=ablations(scores), methods=METHODS)


def _tables(template: str, views: Sequence[TableView], scores: Scores, **values: Any) -> str:
    return render(
        template,
        views=views,
        scorecard=scorecard(views),
        banner=banner(scores),
        runs=runs_of(scores),
        commands=COMMANDS,
        **values,
    )


def scorecard(views: Iterable[TableView]) -> dict[str, list[int]]:
    """For every kind of verdict, how many of each table's printed cells have it."""
    kinds = [[cell.verdict.kind for row in view.rows for cell in row.cells if cell.paper] for view in views]
    return {kind: [table.count(kind) for table in kinds] for kind in KINDS}


def banner(scores: Scores) -> Banner | None:
    """The warning that `scores` call for, or None where every one is at the paper's budget on the paper's data."""
    if not scores:
        return Banner("No results yet", "No run of this configuration has been scored.", "no results")
    short = sorted({s.budget for s in scores if s.budget != "paper"}, key=lambda b: (b != "smoke", b))
    embedded = any(s.embedded for s in scores)
    if not short and not embedded:
        return None
    title = f"{short[0].capitalize()} run" if short else "Embedded images"
    parts = [BUDGETS.get(budget, f"a shorter training than the paper's ({budget} budget)") for budget in short]
    parts += ["embedded images in place of the paper's data"] * embedded
    judged = any(s.method == "degraded" and not s.embedded and s.row for s in scores)
    rest = (
        "What a network made is not a replication of the paper; the Degraded columns on the paper's data need no "
        "network and are judged."
        if judged
        else "Nothing here is a replication of the paper."
    )
    text = f"{first_up('; '.join(parts))}. {rest}"
    return Banner(title, text, f"{title}: not a replication")


def first_up(text: str) -> str:
    """`text` with its first letter in upper case and the others as they are."""
    return text[:1].upper() + text[1:]


def runs_of(scores: Scores) -> list[Run]:
    """The runs behind `scores` in the order of their names, with the provenance of all their values merged."""
    grouped: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        grouped.setdefault((score.run, score.budget), []).append(score)
    return [Run(group[0], _facts(group)) for _, group in sorted(grouped.items())]


def _facts(scores: Iterable[Score]) -> tuple[tuple[str, str], ...]:
    merged: dict[str, dict[str, None]] = {}  # inner dict: an ordered set of values
    for score in scores:
        for name, value in _provenance(score).items():
            text = value if isinstance(value, str) else json.dumps(value)
            merged.setdefault(name, {})[text] = None
    return tuple((name, "; ".join(list(values)[:4]) + " …" * (len(values) > 4)) for name, values in merged.items())


def _provenance(score: Score) -> dict[str, Any]:
    try:
        value = json.loads(score.provenance or "{}")
    except ValueError as error:
        raise ColdbenchError(f"{score.run}: provenance is not JSON: {error}") from error
    return value if isinstance(value, dict) else {"provenance": value}


def _picture(figure: Figure) -> Picture:
    try:
        data = figure.path.read_bytes()
    except FileNotFoundError:
        return Picture(figure, "", 0, 0)
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        raise ColdbenchError(f"{figure.path} is not a PNG file; delete it and run again")
    width, height = struct.unpack(">II", data[16:24])
    return Picture(figure, f"data:image/png;base64,{b64encode(data).decode()}", width, height)


def render(template: str, **values: Any) -> str:
    """A page from its template; an undefined variable is an error, and everything is escaped."""
    environment = Environment(
        loader=PackageLoader("coldbench.report", "templates"),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["first_up"] = first_up
    environment.filters["anchor"] = lambda number: str(number).replace(".", "-")
    return environment.get_template(template).render(version=__version__, **values)
