"""The pages of the tables and the front page: views of scores and run facts, rendered into HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coldbench.report.ablations import METHODS, ablations
from coldbench.report.claims import Claim
from coldbench.report.inputs import Folders, Scores
from coldbench.report.layout import ALSO
from coldbench.report.navigation import INDEX, first_up, render, run_file, size_of, table_file
from coldbench.report.provenance import Run, duration, facts_of, runs_of, spent
from coldbench.report.tables import TableView
from coldbench.report.verdict import KINDS

__all__ = ["Banner", "Hours", "Site", "banner", "index_page", "runs_of", "scorecard", "table_page"]

COMMANDS = (
    ("make smoke", "everything on embedded images at the smoke budget, in minutes"),
    ("snakemake", "everything at this machine's budget: trained for minutes, on the paper's data"),
    ("snakemake reports/table1.html", "one table, running only what is missing"),
    ("snakemake --config experiments=E03", "one experiment"),
    ("snakemake reports/calibration.html", "which reading gives the Degraded columns; needs no trained network"),
    ("snakemake --profile slurm all", "the paper's budget on a cluster"),
    ("make test", "the tests of the suite"),
)
FULL_SIZE = "networks of full size, trained for 20,000 updates"
BUDGETS = {
    "smoke": ("Smoke run", "tiny networks, trained for seconds"),
    "short": ("Short run", FULL_SIZE),
    "gpu-hour": ("GPU-hour run", FULL_SIZE),
    "laptop": ("Laptop run", "networks trained for minutes, not for the paper's hundreds of thousands of updates"),
}


@dataclass(frozen=True)
class Banner:
    """What a reader must know before any number; `watermark` is repeated on every printed page."""

    title: str
    text: str
    watermark: str


@dataclass(frozen=True)
class Site:
    """What a page may know of its surroundings: the pages it may link to, and where the runs' files lie."""

    pages: frozenset[str] = frozenset()
    folders: Folders = field(default_factory=dict)


@dataclass(frozen=True)
class Hours:
    """The time spent on one device at one budget."""

    device: str
    budget: str
    runs: int
    training: str
    sampling: str
    scoring: str


def table_page(view: TableView, scores: Scores, site: Site | None = None) -> str:
    """One table as a page of its own, with the provenance of every cell."""
    mine = tuple(score for score in scores if score.table in (view.number, ALSO.get(view.number)))
    site = site or Site()
    return _precomputed(
        "table.html", table_file(view.number), [view], mine, site, facts=_cell_facts(view, site.folders)
    )


def index_page(
    views: Sequence[TableView],
    scores: Scores,
    claims: Sequence[Claim] = (),
    site: Site | None = None,
    folder: Path | None = None,
) -> str:
    """The front page: scorecard, claims, tables, runs, hours, errata, commands; `folder` is that of the report.

    It states the folder's size, its own among it: hence the second pass.
    """
    site = site or Site()
    values = {"claims": claims, "ablations": ablations(scores), "methods": METHODS}
    files, size = size_of(folder, folder / INDEX) if folder else (0, 0)
    html = _precomputed("index.html", INDEX, views, scores, site, **values, files=files + 1, size=size)
    if not folder:
        return html
    size += len(html.encode())
    return _precomputed("index.html", INDEX, views, scores, site, **values, files=files + 1, size=size)


def _precomputed(
    template: str, here: str, views: Sequence[TableView], scores: Scores, site: Site, **values: Any
) -> str:
    runs = runs_of(scores, site.folders)
    links = {run.score.run: run_file(run.score.run) for run in runs if run_file(run.score.run) in site.pages}
    return render(
        template,
        here,
        site.pages,
        views=views,
        scorecard=scorecard(views),
        banner=banner(scores),
        runs=runs,
        hours=hours(runs),
        spent=spent,
        links=links,
        commands=COMMANDS,
        **values,
    )


def _cell_facts(view: TableView, folders: Folders) -> Mapping[tuple[str, ...], Any]:
    """The provenance of every value of a table, by what identifies it."""
    scores = [cell.ours for row in view.rows + view.extra for cell in row.cells if cell.ours]
    return {(s.run, s.budget, s.set, s.method, s.metric, s.reference): facts_of(s, folders) for s in scores}


def scorecard(views: Iterable[TableView]) -> dict[str, list[int]]:
    """For every kind of verdict, how many of each table's printed cells have it."""
    kinds = [[cell.verdict.kind for cell in view.judged] for view in views]
    return {kind: [table.count(kind) for table in kinds] for kind in KINDS}


def hours(runs: Iterable[Run]) -> list[Hours]:
    """The time spent, by device and budget; "–" where none of its runs has a record."""
    grouped: dict[tuple[str, str], list[Run]] = {}
    for run in runs:
        grouped.setdefault((run.devices, run.score.budget), []).append(run)
    found = []
    for (device, budget), group in sorted(grouped.items()):
        known = [
            [seconds for run in group if (seconds := getattr(run.work, part)) is not None]
            for part in ("training", "sampling", "scoring")
        ]
        found.append(Hours(device, budget, len(group), *(duration(sum(part)) if part else "–" for part in known)))
    return found


def banner(scores: Scores) -> Banner | None:
    """The warning that `scores` call for, or None where every one is at the paper's budget on the paper's data."""
    if not scores:
        return Banner("No results yet", "No run of this configuration has been scored.", "no results")
    short = sorted({s.budget for s in scores if s.budget != "paper"}, key=lambda b: (b != "smoke", b))
    embedded = any(s.embedded for s in scores)
    if not short and not embedded:
        return None
    told = [BUDGETS.get(b, (f"{first_up(b)} run", f"a shorter training than the paper's ({b} budget)")) for b in short]
    title = told[0][0] if told else "Embedded images"
    parts = list(dict.fromkeys(text for _, text in told))
    parts += ["embedded images in place of the paper's data"] * embedded
    if any(s.budget == "paper" and not s.embedded and s.method != "degraded" for s in scores):
        title, rest = (
            f"{title}, in part",
            "What came of that is not a replication of the paper; the other rows are judged.",
        )
    elif any(s.method == "degraded" and not s.embedded and s.row for s in scores):
        rest = (
            "What a network made is not a replication of the paper; the Degraded columns on the paper's data need no "
            "network and are judged."
        )
    else:
        rest = "Nothing here is a replication of the paper."
    text = f"{first_up('; '.join(parts))}. {rest}"
    return Banner(title, text, f"{title}: not a replication")
