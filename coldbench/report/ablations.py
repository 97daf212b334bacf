"""Runs that stand in no table of the paper: one thing in the sampling is changed, beside the unchanged samples."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from coldbench.evaluation.scores import Score, Scores
from coldbench.report.cells import in_groups
from coldbench.report.formats import interval, shown
from coldbench.report.layout import is_method, method_title
from coldbench.report.provenance import provenance

METHODS = {"degraded": "Degraded", "tacos": "TACoS", "direct": "Direct", "naive": "Naive"}
"""The columns of every ablation; other methods of its sets follow."""
METRICS = ("ssim", "rmse")


@dataclass(frozen=True)
class AblationSet:
    """One set of samples: per method its SSIM and RMSE as (value, interval), "" for a value that does not exist."""

    label: str
    values: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True)
class Ablation:
    """One experiment without a number in the paper; `methods` are the titles of its columns."""

    run: Score
    methods: tuple[str, ...]
    sets: tuple[AblationSet, ...]


def ablations(scores: Scores) -> list[Ablation]:
    """Every run that stands in no table and restores images, in the order of their names and budgets."""
    own = sorted((score for score in scores if not score.table), key=lambda score: (score.run, score.budget))
    runs = in_groups(own, "run", "budget")
    return [_ablation(run, scores) for run in runs if any(score.metric in METRICS for score in run)]


def _ablation(own: list[Score], scores: Scores) -> Ablation:
    model, budget = _model(own[0]), own[0].budget
    base = [s for s in scores if s.table and s.set == "test" and s.budget == budget and _model(s) == model]
    # Protocols that differ in the sampling alone share a model. One of them is enough.
    first = sorted({s.run for s in base})[:1]
    methods = {
        **METHODS,
        **{s.method: method_title(s.method) for s in own if is_method(s.method) and s.method not in METHODS},
    }
    sets = [_set(f"{run}, unchanged", methods, [s for s in base if s.run == run]) for run in first]
    names = sorted({score.set for score in own}, key=_natural)
    sets += [_set(name.replace("_", " "), methods, [s for s in own if s.set == name]) for name in names]
    return Ablation(own[0], tuple(methods.values()), tuple(sets))


def _natural(name: str) -> list[str | int]:
    """A key that sorts "every_2" before "every_10"."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


def _model(score: Score) -> str:
    return str(provenance(score).get("model", ""))


def _set(label: str, methods: Iterable[str], scores: list[Score]) -> AblationSet:
    values = {(s.method, s.metric): (shown(s.value), interval(s.low, s.high)) for s in scores}
    return AblationSet(label, tuple(tuple(values.get((m, metric), ("", "")) for metric in METRICS) for m in methods))
