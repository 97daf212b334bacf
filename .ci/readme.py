"""Write the parts of README.md that are data: `python .ci/readme.py README.md`.

A part stands between `<!-- NAME: … -->` and `<!-- end -->`: what each table takes and what has come out of it so far
(`contract`), the numbers that came out beside the paper's (`results`), and the printed numbers in doubt (`errata`).
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from coldbench.evaluation.scores import Scores, read_scores, without_snapshots
from coldbench.evaluation.trainings import over_trainings
from coldbench.planning import cost, layers, plan
from coldbench.report import cells, provenance
from coldbench.report.cells import Cell
from coldbench.report.formats import LABELS, metric_label, shown, signed
from coldbench.report.layout import TABLES
from coldbench.report.paper import PaperCell, load_paper

ROOT = Path(__file__).parents[1]
PUBLISHED = sorted((ROOT / "results" / "published").glob("*/*/*/scores.parquet"))
GPUS = 8


def main(readme: Path) -> None:
    """Rewrite the parts of `readme`."""
    text = readme.read_text("utf-8")
    for name, part in (("contract", contract()), ("results", results()), ("errata", errata())):
        text, found = re.subn(rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)", rf"\g<1>{part}\2", text, flags=re.DOTALL)
        if found != 1:
            sys.exit(f"{readme} has {found} parts called {name}")
    readme.write_text(text, "utf-8")


def paper() -> list[PaperCell]:
    return load_paper(ROOT / "workflow/paper/tables.csv")


def finished_scores() -> Scores:
    """The published scores, those of several trainings as one."""
    return over_trainings(without_snapshots(read_scores(PUBLISHED)))


def table_cells() -> dict[str, list[Cell]]:
    """The cells of every table from the published scores."""
    frame = cells.cell_frame(finished_scores(), paper())
    return {str(number): cells.cells_of(part) for number, part in frame.groupby("table", sort=False)}


def contract() -> str:
    """Per table the command, what it costs on GPUs, and how far it has come."""
    on = cost.device(ROOT / "workflow/config/devices.yaml", "h100")
    grid = layers.read([ROOT / "workflow/config/paper.yaml"]) | {"results": "nothing-is-there-yet"}
    jobs = plan.jobs(plan.resolved(grid), on)
    lines = [
        "| | command | jobs | GPU-hours | wall hours | disk | printed cells | so far, of the paper's data |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for number, entries in table_cells().items():
        table, printed = TABLES[number], [cell for cell in entries if cell.in_paper and cell.paper]
        command = f"`snakemake --profile slurm reports/{table.page}`"
        price = _price(plan.total(_asked(number, jobs), GPUS))
        lines.append(f"| {table.heading} | {command} | {price} | {len(printed)} | {_so_far(printed)} |")
    total = _price(plan.total(jobs, GPUS))
    lines.append(f"| all, with ablations and data sets | `snakemake --profile slurm all` | {total} | | |")
    return "\n".join(lines) + "\n"


def _asked(table: str, jobs: list[plan.Job]) -> list[plan.Job]:
    """The jobs that a table's command runs where nothing is there yet: its own, and whatever they need."""
    own = {job.name for job in jobs if job.table == (TABLES[table].models_of or table)}
    for job in reversed(jobs):  # needs are listed first
        if job.name in own:
            own.update(job.needs)
    return [job for job in jobs if job.name in own]


def _price(row: plan.Total) -> str:
    return f"{row.jobs} | {row.hours:,.0f} | {row.wall:,.0f} | {row.disk / 1e9:,.0f} GB"


def _so_far(printed: Iterable[Cell]) -> str:
    kinds = [cell.verdict for cell in printed if cell.metric]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def results() -> str:
    """The published runs with their times, and the rows of every table that have a run."""
    scores, folders = finished_scores(), provenance.folders_of(PUBLISHED)
    lines = ["| run | on | what it took |", "|---|---|---|"]
    for run in provenance.runs_of(scores, folders):
        lines.append(f"| {run.score.run}, {run.score.budget} budget | {run.devices} | {provenance.spent(run.work)} |")
    for number, entries in table_cells().items():
        table, rows = TABLES[number], [row for row in cells.table_rows(entries) if row[0].run]
        if rows:
            head = ["", "", *(column.label for column in table.columns), "verdict"]
            lines += ["", f"**{table.heading}: {table.task}**", "", _line(head), _line(["---"] * len(head))]
            lines += [_line(line) for row in rows for line in _lines(row)]
    pairs = [score for score in scores if score.method == "tacos-direct" and score.row]
    if pairs:
        lines += ["", "**TACoS minus direct reconstruction, on the same images**", ""]
        lines += ["| | metric | difference | 95 % interval | images |", "|---|---|---|---|---|"]
    for score in pairs:
        where = f"{TABLES[score.table].heading}, {score.row}"
        value = f"{signed(score.value)} | {signed(score.low)} to {signed(score.high)}"
        lines.append(f"| {where} | {metric_label(score.metric)} | {value} | {score.n:,} |")
    return "\n".join(lines) + "\n"


def errata() -> str:
    """The printed numbers that contradict each other or every reading."""
    lines = ["| cells | printed | why it is in doubt |", "|---|---|---|"]
    doubts: dict[tuple[str, str, str], list[PaperCell]] = {}
    for cell in paper():
        if cell.erratum:
            doubts.setdefault((cell.table, cell.row, cell.column), []).append(cell)
    for (table, row, column), doubted in doubts.items():
        metrics = " and ".join(LABELS[cell.metric] for cell in doubted)
        printed = " / ".join(cell.printed for cell in doubted)
        notes = "; ".join(dict.fromkeys(cell.note for cell in doubted))
        lines.append(f"| {TABLES[table].heading}, {row}, {column}: {metrics} | {printed} | {notes} |")
    return "\n".join(lines) + "\n"


def _lines(row: Iterable[Cell]) -> Iterable[list[str]]:
    for line in cells.in_groups(row, "measure"):
        verdicts: dict[str, list[str]] = {}
        for cell in line:
            if cell.metric and cell.paper:
                verdicts.setdefault(cell.verdict, []).append(cell.column)
        text = "; ".join(f"{kind}: {', '.join(columns)}" for kind, columns in verdicts.items())
        yield [line[0].row or line[0].run, cells.line_name(line), *map(_value, line), text]


def _value(cell: Cell) -> str:
    return shown(cell.value) + (f" ({cell.printed})" if cell.paper else "") if cell.metric else "–"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
