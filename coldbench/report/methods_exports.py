"""The comparisons of methods for machines and manuscripts: CSV, JSON with the runs' provenance, and LaTeX."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from coldbench.core import __version__
from coldbench.evaluation.metrics.intervals import Estimate
from coldbench.evaluation.scores import Scores
from coldbench.report.exports import escaped, finite, joined, run_records
from coldbench.report.formats import interval, seconds_each, shown, signed
from coldbench.report.methods import Row, Task
from coldbench.report.provenance import Folders

COLUMNS = (
    *("task", "dataset", "dataset_title", "embedded", "degradation", "size", "severity", "images", "rank", "tied"),
    *("run", "budget", "set", "method", "known", "note", "nfe", "seconds", "seed"),
    *("metric", "direction", "value", "low", "high", "n"),
    *(
        "baseline",
        "difference",
        "difference_low",
        "difference_high",
        "p",
        "p_holm",
        "comparisons",
        "outcome",
        "trainings",
    ),
)
"""The columns of the CSV; `rank` is that within the task by its first metric."""
SYMBOLS = {"better": "+", "worse": "-", "undecided": "?"}
"""The symbol of each outcome, in the mathematics mode of LaTeX."""


def frame_of(tasks: Sequence[Task]) -> pd.DataFrame:
    """The values and differences of all tasks: a row for each entry and metric."""
    rows = [
        _record(task, row, metric) for task in tasks for row in task.rows for metric in row.estimates
    ]  # fmt: skip
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(
        dict.fromkeys(("size", "severity", "seed", "rank"), "Int64")
    )


def _record(task: Task, row: Row, metric: str) -> dict[str, Any]:
    score, estimate, difference = row.entry.score, row.estimates[metric], row.differences.get(metric)
    quantity = next(each for each in task.quantities if each.metric == metric)
    record = {name: getattr(score, name) for name in COLUMNS if hasattr(score, name)}
    record |= {
        "task": task.name, "degradation": json.dumps(task.degradation, sort_keys=True), "size": task.size,
        "severity": task.severity, "images": task.n, "rank": row.rank or None, "tied": row.tied, "note": row.note,
        "metric": metric, "direction": "higher" if quantity.higher_is_better else "lower", "nfe": row.entry.nfe,
        "value": estimate.value, "low": estimate.low, "high": estimate.high, "n": estimate.n,
        "baseline": "/".join(task.baseline.entry.key) if task.baseline else "",
        "comparisons": task.comparisons, "outcome": "",
    }  # fmt: skip
    if difference:
        record |= {
            "difference": difference.estimate.value, "difference_low": difference.estimate.low,
            "difference_high": difference.estimate.high, "p": difference.p, "p_holm": difference.corrected,
            "outcome": difference.outcome,
        }  # fmt: skip
    return record


def methods_json(tasks: Sequence[Task], baseline: str, scores: Scores, folders: Folders) -> str:
    """The same as JSON text, with the provenance of every run; absent and infinite values are null."""
    frame = frame_of(tasks)
    value = {
        "coldbench": __version__,
        "baseline": baseline,
        "interval": "95 % bootstrap over images; of several trainings with Student's t over them",
        "test": "paired t test over images and trainings, corrected by Holm's method within a task and metric",
        "watermarks": {task.name: task.watermark for task in tasks if task.watermark},
        "comparisons": frame.astype(object).where(frame.notna(), None).to_dict("records"),
        "runs": run_records(scores, set(zip(frame.run, frame.budget, strict=True)), folders),
    }
    return json.dumps(finite(value), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def methods_tex(tasks: Sequence[Task]) -> str:
    """A table for booktabs of every task: values with intervals, and differences from the baseline."""
    return "\n\n".join("\n".join(_table(task)) for task in tasks) + "\n"


def _table(task: Task) -> list[str]:
    count = len(task.quantities)
    against = task.baseline.entry.title if task.baseline else ""
    heads = [r"\multicolumn{2}{c}{" + escaped(quantity.label) + "}" for quantity in task.quantities]
    rules = "".join(rf"\cmidrule(lr){{{6 + 2 * k}-{7 + 2 * k}}}" for k in range(count))
    mark = f" {task.watermark[:1].upper()}{task.watermark[1:]}." if task.watermark else ""
    lines = [
        r"\begin{table}",
        r"\centering",
        r"\caption{" + escaped(f"{task.title} ({task.facts}): methods on the same images.{mark}") + "}",
        rf"\label{{tab:coldbench-methods-{task.name}}}",
        r"\footnotesize",
        r"\setlength{\tabcolsep}{3pt}",
        r"\begin{tabular}{rllrr" + "rr" * count + "}",
        r"\toprule",
        joined(["", "", "", "", "", *heads]),
        rules,
        joined(["", "Method", "Knows", "NFE", "Time", *["Value", "Difference"] * count]),
        r"\midrule",
    ]
    for row in task.rows:
        lines += _lines(task, row)
    legend = ", ".join(f"${symbol}$~{outcome}" for outcome, symbol in SYMBOLS.items())
    text = f"Differences from {against} on the same images, with 95 % intervals: " if against else ""
    test = f"; paired t test over images and trainings, corrected for {task.comparisons} comparisons by Holm's method."
    return [
        *lines,
        r"\bottomrule",
        r"\end{tabular}",
        *([r"\par\smallskip", r"\scriptsize " + escaped(text) + legend + escaped(test)] if against else []),
        r"\end{table}",
    ]


def _lines(task: Task, row: Row) -> list[str]:
    entry = row.entry
    nfe = f"{entry.nfe:g}" if math.isfinite(entry.nfe) else "–"
    title = ", ".join(filter(None, [entry.title, row.note]))
    texts = [row.place, title, entry.known, nfe, seconds_each(entry.score.seconds)]
    values, bounds = [escaped(text) for text in texts], ["", r"\scriptsize " + escaped(entry.score.run), "", "", ""]
    for quantity in task.quantities:
        estimate, difference = row.estimates.get(quantity.metric), row.differences.get(quantity.metric)
        values.append(escaped(shown(estimate.value)) if estimate else "--")
        bounds.append(_bounds(estimate))
        symbol = f"$^{{{SYMBOLS[difference.outcome]}}}$" if difference else ""
        values.append(escaped(signed(difference.estimate.value)) + symbol if difference else "--")
        bounds.append(_bounds(difference.estimate if difference else None))
    return [joined(values), joined(bounds)]


def _bounds(estimate: Estimate | None) -> str:
    text = interval(estimate.low, estimate.high) if estimate else ""
    return rf"\scriptsize {escaped(text)}" if text else ""
