"""The paper's claims beside our evidence: an interval for every run, and the status that it supports."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, FiniteFloat, model_validator

from coldbench.core.errors import unknown
from coldbench.core.files import read_yaml
from coldbench.core.sampling_settings import REDRAWN
from coldbench.core.validation import Strict, checked
from coldbench.evaluation.scores import Score, Scores
from coldbench.report.cells import in_groups
from coldbench.report.formats import LABELS, metric_label, quantity, shown, signed
from coldbench.report.layout import TABLES, budget_rank
from coldbench.report.paper import PaperCell

STATUSES = ("supported", "contradicted", "undecided", "no data")

Text = Annotated[str, Field(min_length=1)]
Estimate = tuple[float, float, float]
"""A value with the bounds of its interval."""


class Reference(Strict):
    """The other side of a difference: another set of the same run, or another method."""

    set: Text
    method: Text


class Criterion(Strict):
    """One way to judge a claim by the scores; the head of the file explains the keys."""

    question: Text
    tables: Annotated[list[Text], Field(min_length=1)]
    set: Text
    method: Text
    minus: Reference | None = None
    metrics: Text
    threshold: FiniteFloat = 0.0
    expected: Literal["below", "above"]
    paper: tuple[str, str, Literal["fid", "ssim", "rmse"]] | None = None

    @model_validator(mode="after")
    def _one_comparison(self) -> Criterion:
        paired = "-" in self.method
        if self.minus and (self.threshold or paired):
            raise ValueError("minus excludes threshold and a paired difference")
        if not (self.minus or self.threshold or paired):
            raise ValueError("nothing to compare with: give minus, threshold, or a paired difference as method")
        return self


class Statement(Strict):
    """One claim in our own words, its place in the paper, and its criteria."""

    title: Text
    source: Text
    text: Text
    criteria: Annotated[list[Criterion], Field(min_length=1)]


class Statements(Strict):
    """The whole file: the claims, and the named lists of metrics of their criteria."""

    metrics: dict[str, list[tuple[str, str]]]
    claims: dict[str, Statement]


@dataclass(frozen=True)
class Evidence:
    """The result of one criterion on one run: the value with its interval, the paper's own number, and the status.

    `knows_draw` marks a value whose sampler knows what was drawn for each image; `redrawn` is then the value where it
    knows another draw, with its interval, "" if there is none. `paper_disagrees` marks a number of the paper that
    contradicts its own claim. `would_be` is the status by a metric that stands in for that of the claim, and then
    `status` is undecided: FD-Gabor decides no claim that was made of FID, because other features can rank otherwise.
    """

    run: Score
    question: str
    metric: str
    value: str
    interval: str
    printed: str
    paper_disagrees: bool
    status: str
    knows_draw: bool
    redrawn: str
    trainings: int
    would_be: str = ""

    @property
    def limits(self) -> str:
        """What limits the evidence: "" for several trainings at the paper's budget on the paper's data."""
        parts = [f"at the {self.run.budget} budget"] if self.run.budget != "paper" else []
        parts += ["from one training"] * (self.trainings == 1)
        return ", ".join(parts + ["on embedded images"] * self.run.embedded)

    @property
    def rank(self) -> tuple[bool, int]:
        """Smaller for better evidence: real data before embedded images, then the fuller budget (`BUDGETS`)."""
        return self.run.embedded, budget_rank(self.run.budget)


@dataclass(frozen=True)
class Claim:
    """A claim with its evidence."""

    key: str
    statement: Statement
    evidence: tuple[Evidence, ...]

    @property
    def deciding(self) -> tuple[Evidence, ...]:
        """The best evidence, which alone decides the status."""
        usable = [evidence for evidence in self.evidence if evidence.status != "no data"]
        best = min((evidence.rank for evidence in usable), default=None)
        return tuple(evidence for evidence in usable if evidence.rank == best)

    @property
    def status(self) -> str:
        """One of STATUSES; a claim is supported or contradicted only if all deciding evidence agrees."""
        statuses = {evidence.status for evidence in self.deciding}
        if not statuses:
            return "no data"
        return statuses.pop() if len(statuses) == 1 else "undecided"

    @property
    def limits(self) -> str:
        """What limits the deciding evidence: of the fewest trainings, if their numbers differ."""
        return min(self.deciding, key=lambda evidence: evidence.trainings).limits if self.deciding else ""

    @property
    def counts(self) -> str:
        """The statuses of the deciding evidence: "6 supported, 1 undecided at the laptop budget"."""
        counts = Counter(evidence.status for evidence in self.deciding)
        text = ", ".join(f"{counts[status]} {status}" for status in STATUSES if counts[status])
        return f"{text} {self.limits}".strip()

    @property
    def by_run(self) -> tuple[tuple[Score, tuple[Evidence | None, ...]], ...]:
        """The evidence as a table: a row for each run, a column for each criterion."""
        questions = [criterion.question for criterion in self.statement.criteria]
        runs: dict[tuple[str, str], dict[str, Evidence]] = {}
        for evidence in self.evidence:
            runs.setdefault((evidence.run.run, evidence.run.budget), {})[evidence.question] = evidence
        return tuple(
            (next(iter(row.values())).run, tuple(row.get(question) for question in questions)) for row in runs.values()
        )

    def on(self, question: str) -> Claim:
        """The claim with the evidence of one criterion alone."""
        return Claim(self.key, self.statement, tuple(e for e in self.evidence if e.question == question))

    @property
    def tables(self) -> tuple[str, ...]:
        """The tables whose runs are evidence."""
        return tuple(dict.fromkeys(number for criterion in self.statement.criteria for number in criterion.tables))


def load(path: Path) -> Statements:
    """The claims in the YAML file `path`. Raises ColdbenchError if the file is missing or invalid."""
    statements = checked(Statements, read_yaml(path), str(path))
    for statement in statements.claims.values():
        for criterion in statement.criteria:
            names: list[tuple[str, str, Iterable[str]]] = [("metrics", criterion.metrics, statements.metrics)]
            for key, name, choices in [*names, *(("table", number, TABLES) for number in criterion.tables)]:
                if name not in choices:
                    raise unknown(f"{key} of '{criterion.question}' in {path}", name, choices)
    return statements


def judged(statements: Statements, scores: Scores, paper: Sequence[PaperCell]) -> list[Claim]:
    """Every claim with the evidence of all runs in `scores`."""
    runs = sorted(in_groups(scores, "run", "budget"), key=lambda run: (run[0].run, run[0].budget))
    return [
        Claim(key, statement, tuple(_evidence(statement, statements.metrics, runs, paper)))
        for key, statement in statements.claims.items()
    ]


def _evidence(
    statement: Statement,
    metrics: dict[str, list[tuple[str, str]]],
    runs: Iterable[Sequence[Score]],
    paper: Sequence[PaperCell],
) -> Iterable[Evidence]:
    for criterion in statement.criteria:
        for run in runs:
            if run[0].table not in criterion.tables:
                continue
            measured = _measured(criterion, metrics[criterion.metrics], run)
            if measured:
                yield _judged(criterion, run[0], measured, paper)


@dataclass(frozen=True)
class _Measured:
    """The value of a criterion in one metric, and the value where samplers know another draw; None without such."""

    metric: str
    estimate: Estimate
    knows_draw: bool
    redrawn: Estimate | None
    trainings: int


def _measured(criterion: Criterion, metrics: Iterable[tuple[str, str]], run: Iterable[Score]) -> _Measured | None:
    """The value of a criterion in the first metric that a run has for both of its sides."""
    scores = {(s.set, s.method, s.metric, s.reference): s for s in run}
    for metric, reference in metrics:
        ours = scores.get((criterion.set, criterion.method, metric, reference))
        if ours is None:
            continue
        estimate: Estimate | None = ours.value, ours.low, ours.high
        if criterion.minus:
            other = scores.get((criterion.minus.set, criterion.minus.method, metric, reference))
            estimate = difference(ours, other) if other else None
        if estimate:
            own = scores.get((criterion.set, criterion.method.partition("-")[0], metric, reference))
            knows_draw = own is not None and own.known == "drawn"
            return _Measured(
                metric, estimate, knows_draw, _redrawn(criterion, metric, reference, scores), ours.trainings
            )
    return None


def _redrawn(
    criterion: Criterion, metric: str, reference: str, scores: Mapping[tuple[str, str, str, str], Score]
) -> Estimate | None:
    """The value of a criterion where samplers know another draw. Its two sides are sampled sets of different draws."""
    method, _, subtracted = criterion.method.partition("-")
    ours = scores.get((REDRAWN.format(criterion.set), method, metric, reference))
    minus = criterion.minus or (Reference(set=criterion.set, method=subtracted) if subtracted else None)
    if ours is None:
        return None
    if minus is None:
        return ours.value, ours.low, ours.high
    sets = (REDRAWN.format(minus.set), minus.set)
    other = next((s for name in sets if (s := scores.get((name, minus.method, metric, reference)))), None)
    return difference(ours, other) if other else None


def difference(one: Score, other: Score) -> Estimate:
    """One value minus another, with an interval from both intervals (Zou and Donner, for independent estimates).

    Two sets of samples of one model are not independent, so their interval is wider than necessary, never narrower.
    """
    gap = one.value - other.value
    low = gap - math.hypot(one.value - one.low, other.high - other.value)
    high = gap + math.hypot(one.high - one.value, other.value - other.low)
    return gap, low, high


def status_of(estimate: Estimate, expected: str, threshold: float = 0.0) -> str:
    """The status of a claim that expects a value on one side of `threshold`: its whole interval must be there."""
    value, low, high = estimate
    if not math.isfinite(value):
        return "no data"
    if not (math.isfinite(low) and math.isfinite(high)) or low <= threshold <= high:
        return "undecided"
    return "supported" if (high < threshold) == (expected == "below") else "contradicted"


def _judged(criterion: Criterion, run: Score, measured: _Measured, paper: Sequence[PaperCell]) -> Evidence:
    metric, (value, low, high) = measured.metric, measured.estimate
    text = shown if criterion.threshold else signed
    bounded = math.isfinite(low) and math.isfinite(high)
    printed = _printed(criterion, run, paper)
    other = criterion.paper is not None and quantity(metric) != criterion.paper[2]
    prefix = f"{LABELS[criterion.paper[2]]} " if criterion.paper and other else ""
    exact = None if printed is None else (printed, printed, printed)
    status = status_of(measured.estimate, criterion.expected, criterion.threshold)
    stands_in = other and status != "no data"
    return Evidence(
        run=run,
        question=criterion.question,
        metric=metric_label(metric),
        value=text(value) if math.isfinite(value) else shown(value),
        interval=f"{text(low)} to {text(high)}" if bounded else "",
        printed="" if printed is None else prefix + _short(printed, not criterion.threshold),
        paper_disagrees=exact is not None
        and status_of(exact, criterion.expected, criterion.threshold) == "contradicted",
        status="undecided" if stands_in else status,
        would_be=status if stands_in else "",
        knows_draw=measured.knows_draw,
        trainings=measured.trainings,
        redrawn=_with_interval(*measured.redrawn, text) if measured.redrawn else "",
    )


def _with_interval(value: float, low: float, high: float, text: Callable[[float], str]) -> str:
    bounded = math.isfinite(low) and math.isfinite(high)
    return text(value) + (f" ({text(low)} to {text(high)})" if bounded else "")


def _short(value: float, sign: bool) -> str:
    text = f"{value:+.3f}" if sign else f"{value:.3f}"
    return (text.removesuffix("0") if abs(value) >= 0.2 else text).replace("-", "−")


def _printed(criterion: Criterion, run: Score, paper: Iterable[PaperCell]) -> float | None:
    """The value of a criterion from the paper's own numbers in the row of a run; None if a number is not printed."""
    if criterion.paper is None or not run.row:
        return None
    column, minus, metric = criterion.paper
    values = {
        cell.column: cell.value
        for cell in paper
        if cell.row == run.row and cell.metric == metric and run.table in TABLES[cell.table].sources
    }
    if column not in values or (minus and minus not in values):
        return None
    return values[column] - (values[minus] if minus else 0.0)
