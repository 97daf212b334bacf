"""The provenance of a score and of a run as text, and the time that a run took."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.scores import Score, Scores
from coldbench.report.cells import in_groups
from coldbench.report.formats import duration
from coldbench.report.layout import run_page

Folders = dict[tuple[str, str], Path]
"""The folder of each run and budget."""


@dataclass(frozen=True)
class Work:
    """The time of a run, in seconds; None without a record (another run trained its model, or it was imported)."""

    training: float | None
    sampling: float | None
    scoring: float | None

    @property
    def total(self) -> float:
        return sum(part for part in (self.training, self.sampling, self.scoring) if part)


@dataclass(frozen=True)
class RunRecord:
    """One run: any of its scores, its provenance as (name, values) pairs, its time, and the folder of its logs."""

    score: Score
    facts: tuple[tuple[str, str], ...]
    work: Work
    logs: str

    @property
    def page(self) -> str:
        """The page of the run in the folder of the report."""
        return run_page(self.score.budget, self.score.run)

    def fact(self, name: str) -> str:
        return dict(self.facts).get(name, "–")

    @property
    def devices(self) -> str:
        """The devices of training and scoring, each once."""
        # Older records say "1 threads": the same device.
        names = [self.fact(name).replace(", 1 threads,", ", 1 thread,") for name in ("trained_on", "device")]
        return "; ".join(dict.fromkeys(name for name in names if name != "–")) or "–"


def folders_of(paths: Iterable[Path]) -> Folders:
    """The folder of every run in the scores files at `paths`."""
    folders: Folders = {}
    for path in paths:
        runs = pd.read_parquet(path, columns=["run", "budget"]).drop_duplicates()
        folders |= {(str(run), str(budget)): path.parent for run, budget in runs.itertuples(index=False)}
    return folders


def provenance(score: Score) -> dict[str, Any]:
    """The provenance of a score; ColdbenchError if it is not JSON."""
    try:
        value = json.loads(score.provenance or "{}")
    except (ValueError, RecursionError) as error:
        raise ColdbenchError(f"{score.run}: provenance is not JSON: {error}") from error
    return value if isinstance(value, dict) else {"provenance": value}


def runs_of(scores: Scores, folders: Folders) -> list[RunRecord]:
    """The runs behind `scores` in the order of their names, with the provenance of all their values merged."""
    records = []
    for group in sorted(in_groups(scores, "run", "budget"), key=lambda group: (group[0].run, group[0].budget)):
        folder = folders.get((group[0].run, group[0].budget))
        records.append(RunRecord(group[0], _merged(group), work_of(group, folder), logs_of(folder)))
    return records


def _merged(scores: Iterable[Score]) -> tuple[tuple[str, str], ...]:
    merged: dict[str, dict[str, None]] = {}  # inner dict: an ordered set of values
    for score in scores:
        for name, value in provenance(score).items():
            merged.setdefault(name, {})[_text(value)] = None
    return tuple((name, "; ".join(list(values)[:4]) + " …" * (len(values) > 4)) for name, values in merged.items())


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def facts_of(score: Score, run: RunRecord) -> tuple[tuple[str, str], ...]:
    """The provenance of one value of `run` as (name, text) pairs, without the facts that were not recorded."""
    record = provenance(score)
    facts = [
        ("experiment", f"{score.experiment}: {score.title}"),
        ("run", f"{score.run}, {score.budget} budget"),
        ("protocol", f"{score.protocol}: {score.rationale}"),
        ("set, method", f"{score.set}, {score.method}"),
        ("metric", f"{score.metric}{f' against {score.reference}' if score.reference else ''}"),
        ("images", f"{score.n:,} of {score.dataset_title}{' (embedded)' if score.embedded else ''}"),
        ("seed", str(score.seed)),
        ("configuration", record.get("fingerprint")),
        ("commit", record.get("commit")),
        ("data", record.get("data")),
        ("model", record.get("model")),
        ("trained on", record.get("trained_on")),
        ("scored on", record.get("device")),
        ("wall time", spent(run.work)),
        ("logs", run.logs),
    ]
    return tuple((name, _text(value)) for name, value in facts if value)


def logs_of(folder: Path | None) -> str:
    """The folder of a run's logs, "" without a folder of the run."""
    return f"{folder}/logs/" if folder else ""


def work_of(scores: Sequence[Score], folder: Path | None) -> Work:
    """The time of a run, from its training log, its sampling, and its provenance.

    The workflow records the time of the last sampling job. A job that went on from finished shards took less than
    sampling did, so the time of all shards counts if it is longer.
    """
    scoring = _seconds(provenance(scores[0]).get("seconds"))
    if folder is None:
        return Work(None, None, scoring)
    try:
        last = json.loads((folder / "model.jsonl").read_text("utf-8").splitlines()[-1])
        training = _seconds(last["seconds"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        training = None  # the model was imported or belongs to another run, or the run's folder is not here
    try:
        with (folder / "logs" / "sample.tsv").open(encoding="utf-8", newline="") as stream:
            recorded = _seconds(next(csv.DictReader(stream, delimiter="\t"))["s"])
    except (OSError, ValueError, LookupError, StopIteration, csv.Error):
        recorded = None
    shards = {(score.set, score.method): score.seconds * score.n for score in scores if math.isfinite(score.seconds)}
    known = [seconds for seconds in (recorded, sum(shards.values())) if seconds]
    return Work(training, max(known, default=None), scoring)


def _seconds(value: Any) -> float | None:
    """A recorded time; None if there is none, or if it is no number."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None


def spent(work: Work) -> str:
    """A run's time as text: "training 16 min, sampling 2 min, scoring 40 s"; "" without any record."""
    parts = (("training", work.training), ("sampling", work.sampling), ("scoring", work.scoring))
    return ", ".join(f"{name} {duration(seconds)}" for name, seconds in parts if seconds is not None)
