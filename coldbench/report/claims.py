"""The paper's claims beside our evidence: for every run an interval, and the word that it allows."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from coldbench.core.errors import unknown
from coldbench.core.files import read_yaml
from coldbench.core.validation import Strict, checked
from coldbench.report.inputs import PaperCell, Score, Scores
from coldbench.report.layout import BUDGETS
from coldbench.report.verdict import LABELS, quantity, shown, signed

WORDS = ("supported", "contradicted", "undecided", "no data")

Text = Annotated[str, Field(min_length=1)]


class Other(Strict):
    """What a value is set against: another set of the same run, or another method."""

    set: Text
    method: Text


class Comparison(Strict):
    """One way to judge a claim by the scores; the keys are explained at the head of the file."""

    what: Text
    tables: Annotated[list[Text], Field(min_length=1)]
    set: Text
    ours: Text
    against: Other | None = None
    metrics: Text
    beyond: float = 0.0
    expected: Literal["below", "above"]
    paper: Annotated[list[str], Field(min_length=3, max_length=3)] | None = None

    @model_validator(mode="after")
    def _one_comparison(self) -> Comparison:
        if self.against and (self.beyond or "-" in self.ours):
            raise ValueError("against stands beside neither beyond nor a paired difference")
        if not (self.against or self.beyond or "-" in self.ours):
            raise ValueError("nothing to compare with: against, beyond, or a paired difference as ours")
        return self


class Statement(Strict):
    """One claim in our own words, where the paper makes it, and its tests."""

    title: Text
    where: Text
    says: Text
    tests: Annotated[list[Comparison], Field(min_length=1)]


class Statements(Strict):
    """The whole file: the claims, and the named lists of metrics that their tests choose from."""

    metrics: dict[str, list[Annotated[list[str], Field(min_length=2, max_length=2)]]]
    claims: dict[str, Statement]


@dataclass(frozen=True)
class Line:
    """What one run says about one test: the tested value with its interval, the paper's own number, and the word."""

    run: Score
    what: str
    metric: str
    value: str
    interval: str
    printed: str
    against_itself: bool  # the paper's own numbers lie on the other side
    word: str

    @property
    def budget(self) -> str:
        """What must be said beside the word: "" for a run at the paper's budget on the paper's data."""
        parts = [f"at the {self.run.budget} budget"] if self.run.budget != "paper" else []
        return ", ".join(parts + ["on embedded images"] * self.run.embedded)


@dataclass(frozen=True)
class Claim:
    """A claim with its evidence."""

    key: str
    statement: Statement
    lines: tuple[Line, ...]

    @property
    def deciding(self) -> tuple[Line, ...]:
        """The evidence that the word rests on: real data before embedded ones, then the fullest budget there is."""
        found = [line for line in self.lines if line.word != "no data"]
        best = min((_rank(line) for line in found), default=None)
        return tuple(line for line in found if _rank(line) == best)

    @property
    def word(self) -> str:
        """One of WORDS: a claim is supported, or contradicted, only by all of its evidence together."""
        words = {line.word for line in self.deciding}
        if not words:
            return "no data"
        return words.pop() if len(words) == 1 else "undecided"

    @property
    def rows(self) -> tuple[tuple[Score, tuple[Line | None, ...]], ...]:
        """The evidence as a table: a row per run, a cell per test."""
        cells = {(line.run.run, line.run.budget, line.what): line for line in self.lines}
        runs = {(line.run.run, line.run.budget): line.run for line in self.lines}
        wanted = [test.what for test in self.statement.tests]
        return tuple((run, tuple(cells.get((*key, what)) for what in wanted)) for key, run in runs.items())

    def word_on(self, what: str) -> str:
        """The word on one of the tests alone."""
        return Claim(self.key, self.statement, tuple(line for line in self.lines if line.what == what)).word

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables whose runs bear on it."""
        return tuple(dict.fromkeys(number for test in self.statement.tests for number in test.tables))

    @property
    def counts(self) -> str:
        """How the evidence divides: "6 supported, 1 undecided at the laptop budget"."""
        counts = Counter(line.word for line in self.deciding)
        told = ", ".join(f"{counts[word]} {word}" for word in WORDS if counts[word])
        return f"{told} {self.budget}".strip()

    @property
    def budget(self) -> str:
        """What must be said beside the claim's word."""
        return self.deciding[0].budget if self.deciding else ""


def _rank(line: Line) -> tuple[bool, int]:
    budget = line.run.budget
    return line.run.embedded, BUDGETS.index(budget) if budget in BUDGETS else len(BUDGETS)


def load(path: Path) -> Statements:
    """The claims in `path`; ColdbenchError if the file is missing or says something that makes no sense."""
    statements = checked(Statements, read_yaml(path), str(path))
    for statement in statements.claims.values():
        for test in statement.tests:
            if test.metrics not in statements.metrics:
                raise unknown(f"metrics of '{test.what}' in {path}", test.metrics, statements.metrics)
    return statements


def judged(statements: Statements, scores: Scores, paper: Sequence[PaperCell]) -> list[Claim]:
    """Every claim with the evidence of all runs in `scores`."""
    runs: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        runs.setdefault((score.run, score.budget), []).append(score)
    ordered = [runs[key] for key in sorted(runs)]
    return [
        Claim(key, statement, tuple(_lines(statement, statements.metrics, ordered, paper)))
        for key, statement in statements.claims.items()
    ]


def _lines(
    statement: Statement,
    metrics: dict[str, list[list[str]]],
    runs: Iterable[Sequence[Score]],
    paper: Sequence[PaperCell],
) -> Iterable[Line]:
    for test in statement.tests:
        for run in runs:
            if run[0].table in test.tables and (found := _measured(test, metrics[test.metrics], run)):
                yield _line(test, run[0], *found, paper)


Estimate = tuple[float, float, float]


def _measured(test: Comparison, metrics: Iterable[list[str]], run: Iterable[Score]) -> tuple[str, Estimate] | None:
    """The first metric that both sides of a test have in a run, and the tested value with its interval."""
    there = {(s.set, s.method, s.metric, s.reference): s for s in run}
    for metric, reference in metrics:
        ours = there.get((test.set, test.ours, metric, reference))
        if ours is None:
            continue
        if test.against is None:
            return metric, (ours.value, ours.low, ours.high)
        other = there.get((test.against.set, test.against.method, metric, reference))
        if other:
            return metric, difference(ours, other)
    return None


def difference(one: Score, other: Score) -> Estimate:
    """One value minus another with an interval from both intervals (Zou and Donner's, for independent estimates).

    Samples of one model share what is not drawn anew, which makes the interval wider than it need be, not narrower.
    """
    gap = one.value - other.value
    low = gap - math.hypot(one.value - one.low, other.high - other.value)
    high = gap + math.hypot(one.high - one.value, other.value - other.low)
    return gap, low, high


def word_of(estimate: Estimate, expected: str, beyond: float = 0.0) -> str:
    """What an interval allows to say of a value that is expected on one side of `beyond`."""
    value, low, high = estimate
    if not math.isfinite(value):
        return "no data"
    if not (math.isfinite(low) and math.isfinite(high)):
        return "undecided"
    if low <= beyond <= high:
        return "undecided"
    return "supported" if (high < beyond) == (expected == "below") else "contradicted"


def _line(test: Comparison, run: Score, metric: str, estimate: Estimate, paper: Sequence[PaperCell]) -> Line:
    value, low, high = estimate
    text = shown if test.beyond else signed
    spans = math.isfinite(low) and math.isfinite(high)
    label = LABELS.get(quantity(metric), metric)
    printed = _printed(test, run, paper)
    there = f"{LABELS[test.paper[2]]} " if test.paper and quantity(metric) != test.paper[2] else ""
    return Line(
        run=run,
        what=test.what,
        metric=label,
        value=text(value) if math.isfinite(value) else shown(value),
        interval=f"{text(low)} to {text(high)}" if spans else "",
        printed="" if printed is None else there + _short(printed, not test.beyond),
        against_itself=printed is not None
        and word_of((printed, printed, printed), test.expected, test.beyond) == "contradicted",
        word=word_of(estimate, test.expected, test.beyond),
    )


def _short(value: float, sign: bool) -> str:
    """A difference of printed numbers without the digits that they do not have."""
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return (text.removesuffix("0") if abs(value) >= 0.2 else text).replace("-", "−")


def _printed(test: Comparison, run: Score, paper: Iterable[PaperCell]) -> float | None:
    """What the paper's own numbers give for the test in this run's row; None where it prints none."""
    if test.paper is None or not run.row:
        return None
    column, minus, metric = test.paper
    cells: dict[str, Any] = {
        cell.column: cell.value
        for cell in paper
        if cell.row == run.row and cell.metric == metric and cell.table in (run.table, *_BESIDE.get(run.table, ()))
    }
    if column not in cells or (minus and minus not in cells):
        return None
    return float(cells[column] - (cells[minus] if minus else 0.0))


_BESIDE = {"5": ("A.7",)}
"""Where else the paper prints numbers of a table's models."""
