"""Tasks, on which methods are compared on the same images: who is better, by how much, and whether that is decided.

A task is a data set, a size, a degradation and a severity. Its entries are methods in sets of samples, of one run or of
several, and the degraded images themselves.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coldbench.core.validation import fingerprint
from coldbench.evaluation.comparison import Difference, compare, difference, no_difference, over_both, overlap, ranks
from coldbench.evaluation.metrics import intervals
from coldbench.evaluation.metrics.intervals import Estimate
from coldbench.evaluation.scores import Score, Scores
from coldbench.report.cells import in_groups
from coldbench.report.entries import (
    KNOWN,
    AllValues,
    Entry,
    Quantity,
    beside,
    distinct,
    entries_of,
    over_seeds,
    preference,
    quantities_of,
    start_of,
)
from coldbench.report.figure_list import watermark_of
from coldbench.report.formats import settings_text
from coldbench.report.layout import budget_rank, in_order


@dataclass(frozen=True)
class Row:
    """An entry in its task: its rank, 0 if it has no value to rank, and by metric its values and differences."""

    entry: Entry
    note: str
    rank: int
    tied: bool
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference]

    @property
    def place(self) -> str:
        """The rank as text; "2=" if others share it."""
        return f"{self.rank}{'=' * self.tied}" if self.rank else "–"


@dataclass(frozen=True)
class DrawPair:
    """A method that knows what was drawn for each image, and the same method with another draw.

    `gains` are the differences by metric, the former minus the latter, as far as both have per-image values.
    """

    known: Row
    other: Row
    gains: Mapping[str, Estimate]


@dataclass(frozen=True)
class Task:
    """A task with its rows, the best one first.

    `n` is the number of images on which all entries with per-image values are compared, 0 without such values.
    `baseline` is the row that differences are against, None without any to compare.
    """

    name: str
    degradation: Mapping[str, Any]
    size: int | None
    severity: int | None
    n: int
    quantities: tuple[Quantity, ...]
    rows: tuple[Row, ...]
    baseline: Row | None
    pairs: tuple[DrawPair, ...]

    @property
    def score(self) -> Score:
        return self.rows[0].entry.score

    @property
    def title(self) -> str:
        return f"{self.score.dataset_title}, {self.degradation.get('name', 'unknown degradation')}"

    @property
    def facts(self) -> str:
        """Degradation, severity, size and number of images as text."""
        shown = {key: value for key, value in self.degradation.items() if key not in ("name", "source")}
        parts = [settings_text(shown)] if shown else []
        parts += [f"severity {self.severity}"] if self.severity else []
        parts += [f"{self.size} × {self.size} pixels"] if self.size else []
        counts = {self.n} if self.n else {row.entry.score.n for row in self.rows if not row.entry.degraded}
        parts.append(f"{' or '.join(f'{n:,}' for n in sorted(counts))} images")
        return "; ".join(parts)

    @property
    def watermark(self) -> str:
        """The warning of the smallest budget; "" if all numbers are at the paper's budget on the paper's data."""
        scores = [row.entry.score for row in self.rows]
        least = max(scores, key=lambda score: (budget_rank(score.budget), score.embedded))
        return watermark_of(least.budget, any(score.embedded for score in scores))

    @property
    def comparisons(self) -> int:
        """The number of comparisons of each metric."""
        return max((sum(q.metric in row.differences for row in self.rows) for q in self.quantities), default=0)

    @property
    def without_values(self) -> tuple[str, ...]:
        """The runs without per-image values."""
        return tuple(dict.fromkeys(row.entry.score.run for row in self.rows if not row.entry.values))

    @property
    def summary(self) -> tuple[tuple[str, str, str, str], ...]:
        """By metric: its name, and which entries are better, worse and undecided against the baseline."""
        lines = []
        for quantity in self.quantities:
            outcomes: dict[str, list[str]] = {"better": [], "worse": [], "undecided": []}
            for row in self.rows:
                if quantity.metric in row.differences:
                    name = ", ".join(filter(None, [row.entry.title, "" if row.entry.degraded else row.note]))
                    known = f" ({KNOWN['redrawn']})" if row.entry.score.known == "redrawn" else ""
                    outcomes[row.differences[quantity.metric].outcome].append(name + known)
            lines.append((quantity.label, *("; ".join(dict.fromkeys(each)) or "–" for each in outcomes.values())))
        return tuple(lines)  # type: ignore[arg-type]


def tasks(scores: Scores, values: AllValues, baseline: str = "tacos") -> list[Task]:
    """Every task with two methods or more. `baseline` is the method to compare with; another one where it is absent."""
    entries = entries_of(scores, values)
    found = []
    for same_images in in_groups(entries, "images_degraded"):
        starts: dict[Any, list[Entry]] = {}
        for entry in same_images:
            starts.setdefault(start_of(entry, same_images), []).append(entry)
        for start, group in starts.items():
            own = over_seeds(distinct(sorted(group, key=preference)))
            if sum(not entry.degraded for entry in own) > 1:
                found.append(_task(own, baseline, start if isinstance(start, int) else None))
    return sorted(found, key=_reading_order)


def _reading_order(task: Task) -> tuple[Any, ...]:
    """The paper's data before embedded ones, and of one degradation the last severity first."""
    severity = math.inf if task.severity is None else task.severity
    return task.score.embedded, task.score.dataset, task.title, -severity, task.name


def _task(entries: list[Entry], baseline: str, severity: int | None) -> Task:
    n = min((entry.images for entry in entries if entry.values), default=0)
    quantities = quantities_of(entries)
    estimates = {e.key: {q.metric: est for q in quantities if (est := _estimate(e, q, n))} for e in entries}
    reference = _baseline(entries, baseline)
    seed = reference.score.seed
    differences: dict[tuple[str, str, str, str], dict[str, Difference]] = {entry.key: {} for entry in entries}
    for quantity in quantities:
        others = (entry for entry in entries if entry is not reference)
        pairs = {entry.key: pair for entry in others if (pair := beside(entry, reference, quantity, n))}
        for key, each in compare(pairs, quantity.statistic, quantity.higher_is_better, seed).items():
            differences[key][quantity.metric] = each
    places = _ranks(entries, quantities[0], estimates, n, seed)
    shared = [place for place in places.values() if list(places.values()).count(place) > 1]
    budgets = len({entry.score.budget for entry in entries}) > 1
    seeds = len({(entry.score.seed, entry.trainings) for entry in entries if not entry.degraded}) > 1
    last = len(entries) + 1
    ordered = sorted(entries, key=lambda e: (places.get(e.key, last), -_order(e, quantities[0], estimates)))
    rows = [
        Row(
            entry=entry,
            note=entry.note(budgets, seeds),
            rank=places.get(entry.key, 0),
            tied=places.get(entry.key) in shared,
            estimates=estimates[entry.key],
            differences=differences[entry.key],
        )
        for entry in ordered
    ]
    return Task(
        name=fingerprint([*entries[0].images_degraded, severity])[:8],
        degradation=entries[0].facts.get("degradation") or {},
        size=entries[0].facts.get("size"),
        severity=severity,
        n=n,
        quantities=quantities,
        rows=tuple(rows),
        baseline=next((row for row in rows if row.entry is reference and reference.values), None),
        pairs=tuple(_pairs(rows, quantities, n, seed)),
    )


def _estimate(entry: Entry, quantity: Quantity, n: int) -> Estimate | None:
    """The score of an entry if it is of the compared images, or else one of these images; None without a value."""
    score, values = entry.scores.get(quantity.metric), quantity.of(entry, n)
    if score is not None and (values is None or score.n == n):
        return Estimate(score.value, score.low, score.high, score.n)
    if values is None:
        return None
    function = intervals.STATISTICS[quantity.statistic]
    estimates = []
    for own in values:
        mean = intervals.mean(own, entry.score.seed)
        value, low, high = function(np.array([mean.value, mean.low, mean.high])).tolist()
        estimates.append(Estimate(value, low, high, n))
    return over_both(estimates)


def _baseline(entries: Sequence[Entry], method: str) -> Entry:
    """The entry to compare with: the first of the method, or of the first method that the task has."""
    methods = [entry.score.method for entry in entries if not entry.degraded]
    name = method if method in methods else next(m for m in ("tacos", *in_order(methods)) if m in methods)
    return next(entry for entry in entries if entry.score.method == name)


def _order(entry: Entry, quantity: Quantity, estimates: Mapping[Any, Mapping[str, Estimate]]) -> float:
    """What sorts entries, the largest first; −∞ without a finite value."""
    estimate = estimates[entry.key].get(quantity.metric)
    if estimate is None or not math.isfinite(estimate.value):
        return -math.inf
    return estimate.value if quantity.higher_is_better else -estimate.value


def _ranks(
    entries: Sequence[Entry], quantity: Quantity, estimates: Mapping[Any, Mapping[str, Estimate]], n: int, seed: int
) -> dict[tuple[str, str, str, str], int]:
    by_key = {entry.key: entry for entry in entries if _order(entry, quantity, estimates) > -math.inf}
    best_first = sorted(by_key, key=lambda key: -_order(by_key[key], quantity, estimates))

    def tied(one: tuple[str, str, str, str], other: tuple[str, str, str, str]) -> bool:
        pair = beside(by_key[one], by_key[other], quantity, n)
        if pair is None:
            return overlap(estimates[one][quantity.metric], estimates[other][quantity.metric])
        return no_difference(*pair, quantity.statistic, seed)

    return ranks(best_first, tied)


def _pairs(rows: Sequence[Row], quantities: Sequence[Quantity], n: int, seed: int) -> Iterable[DrawPair]:
    """The rows that know the draw of their images, each with one of the same model and method that knows another."""
    for row in rows:
        if row.entry.score.known != "drawn":
            continue
        other = next((each for each in rows if each.entry.score.known == "redrawn" and _paired(row, each)), None)
        if other is None:
            continue
        gains = {}
        for quantity in quantities:
            if pair := beside(row.entry, other.entry, quantity, n):
                gains[quantity.metric] = difference(*pair, quantity.statistic, seed)
        yield DrawPair(row, other, gains)


def _paired(a: Row, b: Row) -> bool:
    same = [(row.entry.score.method, row.entry.facts.get("model"), row.entry.score.budget) for row in (a, b)]
    unknown = not (a.entry.settings and b.entry.settings)
    return same[0] == same[1] and (unknown or a.entry.sampler == b.entry.sampler)
