"""The disagreements of the paper, its README and its code, our choices from the grid, and our evidence."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from pydantic import Field

from coldbench.core.config import Config
from coldbench.core.files import read_yaml
from coldbench.core.validation import Strict, check_layer, checked
from coldbench.evaluation.interpretations import Calibration
from coldbench.evaluation.scores import Score, Scores
from coldbench.report.calibration import Record
from coldbench.report.formats import interval, metric_name, shown
from coldbench.report.navigation import DISCREPANCIES, ReportFolder
from coldbench.report.pages import Banner
from coldbench.report.verdict import KINDS

NOT_CALIBRATED = "not calibrated yet. To calibrate: `snakemake reports/calibration.html`"

Text = Annotated[str, Field(min_length=1)]


class Selector(Strict):
    """Scores that are evidence for a question."""

    set: list[Text]
    method: list[Text]
    metric: list[Text]
    reference: list[str]

    def selects(self, score: Score) -> bool:
        return all(getattr(score, key) in getattr(self, key) for key in ("set", "method", "metric", "reference"))


class Question(Strict):
    """One discrepancy; the head of the file explains the keys."""

    question: Text
    paper: Text
    released: Text
    protocols: Annotated[list[Text], Field(default_factory=list)]
    decision: str = ""
    scores: Annotated[list[Selector], Field(default_factory=list)]


class Questions(Strict):
    """The whole file."""

    questions: dict[Annotated[str, Field(pattern=r"^D\d+$")], Question]


@dataclass(frozen=True)
class Choice:
    """A protocol that answers a question, and its experiments; `selected` by default."""

    protocol: str
    rationale: str
    experiments: tuple[str, ...]
    selected: bool
    changes: str


@dataclass(frozen=True)
class Evidence:
    """One interpretation of a Degraded row beside the printed pair. Without a `verdict`, `missing` gives the reason."""

    table: str
    row: str
    interpretation: str
    rationale: str
    ours: str
    n: int
    printed: str
    verdict: str
    missing: str


@dataclass(frozen=True)
class Tally:
    """The verdicts on the printed cells of a run that follows a choice."""

    run: Score
    verdicts: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Discrepancy:
    """A question with our choices and the evidence."""

    key: str
    question: Question
    choices: tuple[Choice, ...]
    evidence: tuple[Evidence, ...]
    tallies: tuple[Tally, ...]
    values: tuple[tuple[Score, str, str], ...]

    @property
    def verdict_counts(self) -> tuple[tuple[str, int], ...]:
        """The number of interpretations with each verdict."""
        return tuple(Counter(e.verdict for e in self.evidence if e.verdict).most_common())


@dataclass(frozen=True)
class Sources:
    """What the evidence is read from: the grid, the interpretations of the calibration, and its rows."""

    grid: dict[str, Any]
    interpretations: dict[str, Any]
    calibration: Sequence[Record]


def mentions(key: str, text: str) -> bool:
    """Whether a text names a discrepancy: "(D11, D14)" does not name D1."""
    return re.search(rf"\b{key}\b", text) is not None


def load(path: Path) -> dict[str, Question]:
    """The questions in the YAML file `path`. Raises ColdbenchError if the file is missing or invalid."""
    return checked(Questions, {"questions": read_yaml(path)}, str(path)).questions


def load_grid(path: Path) -> dict[str, Any]:
    """The experiments of a configuration that have protocols of their own; ColdbenchError for a wrong one."""
    values = read_yaml(path)
    check_layer(Config, values, str(path))
    return {name: entry for name, entry in values.get("grid", {}).items() if "protocols" in entry}


def load_interpretations(path: Path) -> dict[str, Any]:
    """The rows of the calibration with their interpretations; ColdbenchError for a wrong one."""
    values = read_yaml(path)
    check_layer(Calibration, values, str(path))
    return dict(values.get("rows", {}))


def discrepancies(
    questions: dict[str, Question], sources: Sources, scores: Scores, frame: pd.DataFrame
) -> list[Discrepancy]:
    """Every question with our choices, the calibrated interpretations, and the scores and table cells (`frame`)."""
    return [
        Discrepancy(
            key,
            question,
            tuple(_choices(key, question, sources.grid)),
            tuple(_evidence(key, sources)),
            tuple(_tallies(key, scores, frame)),
            tuple(_values(question, scores)),
        )
        for key, question in questions.items()
    ]


def _choices(key: str, question: Question, grid: dict[str, Any]) -> Iterable[Choice]:
    experiments: dict[tuple[str, str, bool, str], list[str]] = {}
    for name, entry in grid.items():
        for protocol, settings in entry["protocols"].items():
            rationale = " ".join(str(settings.get("rationale", "")).split())
            if mentions(key, rationale) or f"{name}.{protocol}" in question.protocols:
                changes = _settings({part: value for part, value in settings.items() if part != "rationale"})
                choice = protocol, rationale, protocol == entry["protocol"], changes
                experiments.setdefault(choice, []).append(name)
    ordered = sorted(experiments.items(), key=lambda item: not item[0][2])
    return [Choice(p, rationale, tuple(names), chosen, changes) for (p, rationale, chosen, changes), names in ordered]


def _settings(values: dict[str, Any]) -> str:
    """The settings that a protocol changes, as text: "degradation: T: 40"."""
    parts = (f"{part}: {json.dumps(value)}" for part, value in values.items())
    return re.sub(r'["{}]', "", "; ".join(parts))


def _evidence(key: str, sources: Sources) -> Iterable[Evidence]:
    for name, row in sources.interpretations.items():
        records = [record for record in sources.calibration if record.cell == name]
        no_data = next((record.missing for record in records if record.missing), "")
        for interpretation, settings in row["interpretations"].items():
            if not mentions(key, settings["rationale"]):
                continue
            pair = [r for r in records if r.interpretation == interpretation and r.verdict]
            missing = f"no data; {no_data}" if no_data else NOT_CALIBRATED
            yield Evidence(
                table=str(row["table"]),
                row=row["row"],
                interpretation=interpretation,
                rationale=settings["rationale"],
                ours=" / ".join(f"{record.value:.4f}" for record in pair),
                n=pair[0].n if pair else 0,
                printed=" / ".join(record.printed or "–" for record in pair),
                verdict=pair[0].verdict if pair else "",
                missing="" if pair else missing,
            )


def _tallies(key: str, scores: Scores, frame: pd.DataFrame) -> Iterable[Tally]:
    runs: dict[Any, Score] = {(s.run, s.budget): s for s in reversed(scores)}
    for (_, *run), cells in frame[frame.run != ""].groupby(["table", "run", "budget"], sort=False):
        score = runs[tuple(run)]
        if mentions(key, score.rationale):
            counts = Counter(cells.verdict[cells.paper != ""])
            yield Tally(score, tuple((kind, counts[kind]) for kind in KINDS if counts[kind]))


def _values(question: Question, scores: Scores) -> Iterable[tuple[Score, str, str]]:
    for score in scores:
        if any(selector.selects(score) for selector in question.scores):
            bounds = interval(score.low, score.high)
            yield score, metric_name(score), shown(score.value) + (f" ({bounds})" if bounds else "")


def page(entries: Sequence[Discrepancy], warning: Banner | None, folder: ReportFolder) -> str:
    """The page of all discrepancies."""
    return folder.render("discrepancies.html", DISCREPANCIES, discrepancies=entries, banner=warning)
