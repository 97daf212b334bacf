"""Where a number comes from: the facts of a score and of its run, as words, and the hours behind them."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldbench.core.errors import ColdbenchError
from coldbench.report.inputs import Folders, Score, Scores


@dataclass(frozen=True)
class Work:
    """What a run took, in seconds; None where no record of it is at hand (a borrowed model trains elsewhere)."""

    training: float | None
    sampling: float | None
    scoring: float | None

    @property
    def total(self) -> float:
        return sum(part for part in (self.training, self.sampling, self.scoring) if part)


@dataclass(frozen=True)
class Run:
    """One run: any of its scores, its provenance as (name, values) pairs, its time, and where its logs lie."""

    score: Score
    facts: tuple[tuple[str, str], ...]
    work: Work
    logs: str

    def fact(self, name: str) -> str:
        return dict(self.facts).get(name, "–")

    @property
    def devices(self) -> str:
        """What trained, sampled and scored it, each once."""
        # Older records say "1 threads": the same device.
        names = [self.fact(name).replace(", 1 threads,", ", 1 thread,") for name in ("trained_on", "device")]
        return "; ".join(dict.fromkeys(name for name in names if name != "–")) or "–"


def provenance(score: Score) -> dict[str, Any]:
    """The provenance of a score; ColdbenchError if it is not JSON."""
    try:
        value = json.loads(score.provenance or "{}")
    except ValueError as error:
        raise ColdbenchError(f"{score.run}: provenance is not JSON: {error}") from error
    return value if isinstance(value, dict) else {"provenance": value}


def runs_of(scores: Scores, folders: Folders | None = None) -> list[Run]:
    """The runs behind `scores` in the order of their names, with the provenance of all their values merged."""
    grouped: dict[tuple[str, str], list[Score]] = {}
    for score in scores:
        grouped.setdefault((score.run, score.budget), []).append(score)
    places = folders or {}
    return [
        Run(group[0], _merged(group), work_of(group[0], places.get(key)), logs_of(places.get(key)))
        for key, group in sorted(grouped.items())
    ]


def _merged(scores: Iterable[Score]) -> tuple[tuple[str, str], ...]:
    merged: dict[str, dict[str, None]] = {}  # inner dict: an ordered set of values
    for score in scores:
        for name, value in provenance(score).items():
            merged.setdefault(name, {})[_text(value)] = None
    return tuple((name, "; ".join(list(values)[:4]) + " …" * (len(values) > 4)) for name, values in merged.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def facts_of(score: Score, folders: Folders) -> tuple[tuple[str, str], ...]:
    """What made one value, as (name, text) pairs; what the provenance does not hold is left out."""
    told = provenance(score)
    folder = folders.get((score.run, score.budget))
    work = work_of(score, folder)
    facts = [
        ("experiment", f"{score.experiment}: {score.title}"),
        ("run", f"{score.run}, {score.budget} budget"),
        ("protocol", f"{score.protocol}: {score.rationale}"),
        ("set, method", f"{score.set}, {score.method}"),
        ("metric", f"{score.metric}{f' against {score.reference}' if score.reference else ''}"),
        ("images", f"{score.n:,} of {score.dataset_title}{' (embedded)' if score.embedded else ''}"),
        ("seed", str(score.seed)),
        ("configuration", told.get("fingerprint")),
        ("commit", told.get("commit")),
        ("data", told.get("data")),
        ("model", told.get("model")),
        ("trained on", told.get("trained_on")),
        ("scored on", told.get("device")),
        ("wall time", spent(work)),
        ("logs", logs_of(folder)),
    ]
    return tuple((name, _text(value)) for name, value in facts if value)


def logs_of(folder: Path | None) -> str:
    """Where the logs of a run lie, as the workflow names it."""
    return f"{folder}/logs/" if folder else ""


def work_of(score: Score, folder: Path | None) -> Work:
    """The time behind a run: from its training log, the workflow's record of its sampling, and its provenance."""
    seconds = provenance(score).get("seconds")
    scoring = float(seconds) if isinstance(seconds, int | float) else None
    return Work(_training(folder), _sampling(folder), scoring) if folder else Work(None, None, scoring)


def _training(folder: Path) -> float | None:
    try:
        last = (folder / "model.jsonl").read_text("utf-8").splitlines()[-1]
        return float(json.loads(last)["seconds"])
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return None  # imported, borrowed, or the report was rendered without the run's folder


def _sampling(folder: Path) -> float | None:
    try:
        with (folder / "logs" / "sample.tsv").open(encoding="utf-8", newline="") as stream:
            return float(next(csv.DictReader(stream, delimiter="\t"))["s"])
    except (OSError, ValueError, KeyError, StopIteration):
        return None


def spent(work: Work) -> str:
    """A run's time in words: "training 16 min, sampling 2 min, scoring 40 s"; "" if nothing is known."""
    parts = (("training", work.training), ("sampling", work.sampling), ("scoring", work.scoring))
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts if seconds is not None)


def duration(seconds: float) -> str:
    """A time as a person says it: "1.4 s", "35 s", "16 min", "3.2 h"."""
    if seconds < 99.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:,.1f} h"
