"""Where the paper, its README and its code disagree: what we chose, from the grid, and what our numbers say to it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from coldbench.core.files import read_yaml
from coldbench.core.validation import Strict, checked
from coldbench.report.inputs import Score, Scores
from coldbench.report.navigation import DISCREPANCIES, render
from coldbench.report.page import Banner
from coldbench.report.tables import TableView
from coldbench.report.verdict import KINDS, metric_name, shown

UNMADE = "not calibrated yet: `snakemake reports/calibration.html`"

Text = Annotated[str, Field(min_length=1)]


class Selector(Strict):
    """Scores that bear on a question."""

    set: list[Text]
    method: list[Text]
    metric: list[Text]
    reference: list[str]

    def takes(self, score: Score) -> bool:
        return all(getattr(score, key) in getattr(self, key) for key in ("set", "method", "metric", "reference"))


class Question(Strict):
    """One discrepancy; the keys are explained at the head of the file."""

    question: Text
    paper: Text
    released: Text
    also: Annotated[list[Text], Field(default_factory=list)]
    settled: str = ""
    scores: Annotated[list[Selector], Field(default_factory=list)]


class Questions(Strict):
    """The whole file."""

    questions: dict[Annotated[str, Field(pattern=r"^D\d+$")], Question]


@dataclass(frozen=True)
class Choice:
    """A protocol that answers a question, and the experiments that have it so; `chosen` by default."""

    protocol: str
    rationale: str
    experiments: tuple[str, ...]
    chosen: bool
    changes: str


@dataclass(frozen=True)
class Evidence:
    """One reading of a Degraded row beside the printed pair; `verdict` is "" where `missing` says what is needed."""

    table: str
    row: str
    reading: str
    rationale: str
    ours: str
    n: int
    printed: str
    verdict: str
    missing: str


@dataclass(frozen=True)
class Tally:
    """How the printed cells of a run that follows a choice came out."""

    run: Score
    verdicts: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Discrepancy:
    """A question with all that is known to it."""

    key: str
    question: Question
    choices: tuple[Choice, ...]
    evidence: tuple[Evidence, ...]
    tallies: tuple[Tally, ...]
    values: tuple[tuple[Score, str, str], ...]

    @property
    def said(self) -> tuple[tuple[str, int], ...]:
        """How many readings came out in which way."""
        return tuple(Counter(e.verdict for e in self.evidence if e.verdict).most_common())


def mentions(key: str, text: str) -> bool:
    """Whether a reason names a discrepancy: D1 is not in "(D11, D14)"."""
    return re.search(rf"\b{key}\b", text) is not None


def load(path: Path) -> dict[str, Question]:
    """The questions in `path`; ColdbenchError if the file is missing or damaged."""
    value = read_yaml(path)
    return checked(Questions, {"questions": value}, str(path)).questions


def grid_of(path: Path) -> dict[str, Any]:
    """The experiments of a configuration that have protocols of their own."""
    grid = read_yaml(path).get("grid", {})
    return {name: entry for name, entry in grid.items() if "protocols" in entry}


def readings_of(path: Path) -> dict[str, Any]:
    """The rows of the calibration with their readings."""
    return dict(read_yaml(path).get("rows", {}))


def discrepancies(
    questions: dict[str, Question],
    grid: dict[str, Any],
    readings: dict[str, Any],
    lines: Sequence[dict[str, Any]],
    scores: Scores,
    views: Sequence[TableView],
) -> list[Discrepancy]:
    """Every question with our choices, the calibration's readings and the scores that bear on it."""
    return [
        Discrepancy(
            key,
            question,
            tuple(_choices(key, question, grid)),
            tuple(_evidence(key, readings, lines)),
            tuple(_tallies(key, views)),
            tuple(_values(question, scores)),
        )
        for key, question in questions.items()
    ]


def _choices(key: str, question: Question, grid: dict[str, Any]) -> Iterable[Choice]:
    found: dict[tuple[str, str, bool, str], list[str]] = {}
    for name, entry in grid.items():
        for protocol, reading in entry["protocols"].items():
            because = " ".join(reading.get("rationale", "").split())
            if mentions(key, because) or f"{name}.{protocol}" in question.also:
                changes = {part: value for part, value in reading.items() if part != "rationale"}
                place = protocol, because, protocol == entry["protocol"], _words(changes)
                found.setdefault(place, []).append(name)
    ordered = sorted(found.items(), key=lambda item: not item[0][2])
    return [Choice(p, because, tuple(names), chosen, changes) for (p, because, chosen, changes), names in ordered]


def _words(value: dict[str, Any]) -> str:
    """The settings that a protocol changes: "degradation: T 40"."""
    parts = (f"{part}: {json.dumps(change)}" for part, change in value.items())
    return re.sub(r'["{}]', "", "; ".join(parts))


def _evidence(key: str, readings: dict[str, Any], lines: Sequence[dict[str, Any]]) -> Iterable[Evidence]:
    for name, row in readings.items():
        for reading, told in row["interpretations"].items():
            if mentions(key, told["rationale"]):
                pair = [
                    x for x in lines if x["cell"] == name and x.get("interpretation") == reading and x.get("verdict")
                ]
                absent = next((x["missing"] for x in lines if x["cell"] == name and x["missing"]), "")
                yield Evidence(
                    table=str(row["table"]),
                    row=row["row"],
                    reading=reading,
                    rationale=told["rationale"],
                    ours=" / ".join(f"{x['value']:.4f}" for x in pair),
                    n=int(pair[0]["n"]) if pair else 0,
                    printed=" / ".join(x["printed"] or "–" for x in pair),
                    verdict=pair[0]["verdict"] if pair else "",
                    missing="" if pair else f"no data; {absent}" if absent else UNMADE,
                )


def _tallies(key: str, views: Iterable[TableView]) -> Iterable[Tally]:
    rows = [row for view in views for row in view.rows + view.extra]
    for row in rows:
        if row.run and mentions(key, row.run.rationale):
            counts = Counter(cell.verdict.kind for cell in row.cells if cell.paper)
            yield Tally(row.run, tuple((kind, counts[kind]) for kind in KINDS if counts[kind]))


def _values(question: Question, scores: Scores) -> Iterable[tuple[Score, str, str]]:
    for score in scores:
        if any(selector.takes(score) for selector in question.scores):
            spans = score.low == score.low and score.high == score.high
            yield (
                score,
                metric_name(score),
                shown(score.value) + (f" ({shown(score.low)} – {shown(score.high)})" if spans else ""),
            )


def page(found: Sequence[Discrepancy], warning: Banner | None, pages: Iterable[str]) -> str:
    """The page of all discrepancies."""
    return render("discrepancies.html", DISCREPANCIES, pages, found=found, banner=warning)
