"""Write the parts of README.md that are data: `python .ci/readme.py README.md`.

A part stands between `<!-- NAME: … -->` and `<!-- end -->`: what each table takes and what has come out of it so far
(`contract`), the numbers that came out beside the paper's (`results`), and the printed numbers in doubt (`errata`).
"""

import re
import sys
from collections.abc import Iterable
from pathlib import Path

from coldbench.planning import cost, plan
from coldbench.report import inputs, provenance, tables
from coldbench.report.inputs import Folders, PaperCell, Scores
from coldbench.report.layout import ALSO, heading
from coldbench.report.verdict import LABELS, quantity, signed

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
    return inputs.load_paper(ROOT / "workflow/paper/tables.csv")


def views() -> tuple[list[tables.TableView], Scores, Folders]:
    """Every table from the published scores."""
    scores, printed = inputs.load_scores(PUBLISHED), paper()
    found = [tables.table_view(number, scores, printed) for number in tables.tables_of(printed)]
    return found, scores, inputs.folders_of(PUBLISHED)


def contract() -> str:
    """Per table the command, what it costs on GPUs, and how far it has come."""
    on = cost.device(ROOT / "workflow/config/devices.yaml", "h100")
    grid = plan.read([ROOT / "workflow/config/paper.yaml"]) | {"results": "nothing-is-there-yet"}
    jobs = plan.jobs(plan.resolved(grid), on)
    lines = [
        "| | command | jobs | GPU-hours | wall hours | disk | printed cells | so far, of the paper's data |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for view in views()[0]:
        command = f"`snakemake --profile slurm reports/table{view.number}.html`"
        price = _price(plan.row(_asked(view.number, jobs), GPUS))
        lines.append(f"| {view.heading} | {command} | {price} | {len(view.judged)} | {_so_far(view)} |")
    total = _price(plan.row(jobs, GPUS))
    lines.append(f"| all, with ablations and data sets | `snakemake --profile slurm all` | {total} | | |")
    return "\n".join(lines) + "\n"


def _asked(table: str, jobs: list[plan.Job]) -> list[plan.Job]:
    """The jobs that a table's command runs where nothing is there yet: its own, and whatever they need."""
    own = {job.name for job in jobs if job.table == ALSO.get(table, table)}
    for job in reversed(jobs):  # needs are listed first
        if job.name in own:
            own.update(job.needs)
    return [job for job in jobs if job.name in own]


def _price(row: plan.Row) -> str:
    return f"{row.jobs} | {row.hours:,.0f} | {row.wall:,.0f} | {row.disk / 1e9:,.0f} GB"


def _so_far(view: tables.TableView) -> str:
    kinds = [cell.verdict.kind for cell in view.judged if cell.ours]
    counts = {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}
    return ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def results() -> str:
    """The published runs with what they took, and every table's lines that have a value of ours."""
    found, scores, folders = views()
    lines = ["| run | on | what it took |", "|---|---|---|"]
    for run in provenance.runs_of(scores, folders):
        lines.append(f"| {run.score.run}, {run.score.budget} budget | {run.devices} | {provenance.spent(run.work)} |")
    for view in found:
        rows = [row for row in (*view.rows, *view.extra) if row.run]
        if rows:
            head = ["", "", *(column.label for column in view.columns), "verdict"]
            lines += ["", f"**{view.heading}: {view.task}**", "", _line(head), _line(["---"] * len(head))]
            lines += [_line(line) for row in rows for line in _lines(row)]
    pairs = [score for score in scores if score.method == "tacos-direct" and score.row]
    if pairs:
        lines += ["", "**TACoS minus direct reconstruction, on the same images**", ""]
        lines += ["| | metric | difference | 95 % interval | images |", "|---|---|---|---|---|"]
    for score in pairs:
        where = f"{heading(score.table)}, {score.row}"
        value = f"{signed(score.value)} | {signed(score.low)} to {signed(score.high)}"
        lines.append(f"| {where} | {LABELS.get(quantity(score.metric), score.metric)} | {value} | {score.n:,} |")
    return "\n".join(lines) + "\n"


def errata() -> str:
    """The printed numbers that contradict each other or every reading."""
    lines = ["| cells | printed | why it is in doubt |", "|---|---|---|"]
    doubts: dict[tuple[str, str, str], list[PaperCell]] = {}
    for cell in paper():
        if cell.erratum:
            doubts.setdefault((cell.table, cell.row, cell.column), []).append(cell)
    for (table, row, column), cells in doubts.items():
        metrics = " and ".join(LABELS[cell.metric] for cell in cells)
        printed = " / ".join(cell.printed for cell in cells)
        notes = "; ".join(dict.fromkeys(cell.note for cell in cells))
        lines.append(f"| {heading(table)}, {row}, {column}: {metrics} | {printed} | {notes} |")
    return "\n".join(lines) + "\n"


def _lines(row: tables.Row) -> Iterable[list[str]]:
    for name, _, cells in row.lines:
        verdicts: dict[str, list[str]] = {}
        for cell in cells:
            if cell.ours and cell.paper:
                verdicts.setdefault(cell.verdict.kind, []).append(cell.column.label)
        told = "; ".join(f"{kind}: {', '.join(labels)}" for kind, labels in verdicts.items())
        yield [row.label or row.run.run, name, *map(_value, cells), told]


def _value(cell: tables.Cell) -> str:
    return cell.value + (f" ({cell.printed})" if cell.paper else "") if cell.ours else "–"


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    main(Path(sys.argv[1]))
