"""Methods in sets of samples as entries of a comparison: their scores, per-image values and settings."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.metrics.intervals import Values
from coldbench.evaluation.metrics.psnr import psnr_of
from coldbench.evaluation.scores import Score, Scores
from coldbench.evaluation.tables import VALUES, read_facts, read_table, why_not_beside
from coldbench.evaluation.trainings import over_trainings
from coldbench.report.formats import metric_label
from coldbench.report.layout import budget_rank, is_method, method_title, run_page
from coldbench.report.provenance import folders_of, provenance

FIRST = ("ssim", "rmse", "psnr")
"""The metrics of every task, before those of plug-ins. The first one ranks."""
LEFT_OUT = ("rmse_per_image", "ssim_signed", "rmse_signed")
"""Metrics that say the same as one of FIRST."""
KNOWN = {"severity": "the severity", "drawn": "the image's own draw", "redrawn": "another draw"}
"""What a method knows of the degradation, as text."""


@dataclass(frozen=True)
class RunValues:
    """Per-image values of a run by set and method, then by name, with what its file states about them."""

    values: Mapping[tuple[str, str], Mapping[str, Values]]
    sets: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    averages: Mapping[str, str] = field(default_factory=dict)


AllValues = Mapping[tuple[str, str], RunValues]
"""The values by run and budget."""


def images_of(scores: Iterable[Path]) -> list[Path]:
    """The files with per-image values that exist beside files of scores."""
    return [path for path in (each.with_name(VALUES) for each in scores) if path.exists()]


def load_values(scores: Iterable[Path]) -> dict[tuple[str, str], RunValues]:
    """The per-image values beside files of scores, as far as they exist.

    ColdbenchError if a file is damaged, or was not made with the scores.
    """
    scores = [each for each in scores if each.with_name(VALUES).exists()]
    for each in scores:
        if why := why_not_beside(each.with_name(VALUES), each):
            raise ColdbenchError(why)
    return {key: _load(folder / VALUES) for key, folder in folders_of(scores).items()}


def _load(path: Path) -> RunValues:
    facts, frame = read_facts(path), read_table(path)
    names = [name for name in frame.columns if name not in ("set", "method", "image")]
    values = {
        (str(part), str(method)): {name: own[name].to_numpy(np.float64) for name in names if own[name].notna().any()}
        for (part, method), own in frame.sort_values("image").groupby(["set", "method"], sort=False)
    }
    return RunValues(values, facts.get("sets", {}), facts.get("averages", {}))


@dataclass(frozen=True)
class Quantity:
    """A metric of a task: whether more is better, and how it follows from per-image values."""

    metric: str
    higher_is_better: bool
    column: str
    statistic: str

    @property
    def label(self) -> str:
        return metric_label(self.metric)

    @property
    def hint(self) -> str:
        return "more is better" if self.higher_is_better else "less is better"

    def of(self, entry: Entry, n: int) -> Values | None:
        """The values (trainings, n) of the first n images; None if they are unknown."""
        values = entry.values.get(self.column)
        if values is None or not n:
            return None
        return psnr_of(values[:, :n]) if self.metric == "psnr" else values[:, :n]


@dataclass(frozen=True)
class Entry:
    """A method in a set of samples of a run, or the degraded images of the set.

    `scores` go by metric. `settings` are those of the set, {} if unknown, and `values` the values (trainings, images)
    by name, {} if unknown. `models` are the hashes of the trainings' models, () if unknown or without one. `also` names
    further runs: with the very same images, or of further trainings.
    """

    scores: Mapping[str, Score]
    settings: Mapping[str, Any]
    values: Mapping[str, Values]
    averages: Mapping[str, str]
    models: tuple[str, ...] = ()
    also: tuple[str, ...] = ()

    @cached_property
    def score(self) -> Score:
        """Any of the scores, for what they share."""
        return next(iter(self.scores.values()))

    @cached_property
    def facts(self) -> dict[str, Any]:
        """The provenance."""
        return provenance(self.score)

    @cached_property
    def images_degraded(self) -> tuple[str, ...]:
        """What decides the images and their degradation: data, size and D. Unknown images are those of a run alone."""
        images = self.facts.get("data") or f"{self.score.budget}/{self.score.run}"
        D = json.dumps(self.facts.get("degradation"), sort_keys=True)
        return str(images), str(self.facts.get("size")), D, self.score.dataset

    @property
    def key(self) -> tuple[str, str, str, str]:
        return self.score.run, self.score.budget, self.score.set, self.score.method

    @property
    def degraded(self) -> bool:
        return self.score.method == "degraded"

    @property
    def title(self) -> str:
        return "Degraded" if self.degraded else method_title(self.score.method)

    @property
    def page(self) -> str:
        return run_page(self.score.budget, self.score.run)

    @property
    def known(self) -> str:
        """What the method knows of the degradation, as text."""
        if self.score.known == "severity" and self.settings.get("assumed_severity"):
            return "a wrong severity"
        return "–" if self.degraded else KNOWN.get(self.score.known, self.score.known or "–")

    @property
    def nfe(self) -> float:
        """Network evaluations for an image; NaN if unknown."""
        return 0.0 if self.degraded else self.score.nfe

    @property
    def images(self) -> int:
        """The number of images with values."""
        return min((values.shape[1] for values in self.values.values()), default=0)

    @property
    def trainings(self) -> int:
        """The number of trainings that the scores are means over."""
        return self.score.trainings

    @property
    def sampler(self) -> tuple[Any, ...]:
        """The settings of the sampler."""
        names = ("stride", "assumed_severity", "released_shift")
        return tuple(self.settings.get(name) for name in names) if self.settings else (self.score.set,)

    def note(self, budgets: bool, seeds: bool) -> str:
        """What sets the entry apart from others of its method; with its budget and seed if these differ in the task."""
        settings, score = self.settings, self.score
        parts = ["the input of the network"] if self.degraded else []
        if not settings and score.set != "test":
            parts.append(score.set.replace("_", " "))
        if settings.get("stride", 1) > 1:
            parts.append(f"{settings['stride']} severities a step")
        if settings.get("assumed_severity"):
            parts.append(f"assumes severity {settings['assumed_severity']}")
        if settings.get("released_shift"):
            parts.append("D one severity too low, as released")
        parts += [f"{score.budget} budget"] * budgets
        parts += [f"seed {score.seed}"] * (seeds and self.trainings == 1 and not self.degraded)
        parts += [f"mean of {self.trainings} trainings"] * (self.trainings > 1)
        return ", ".join(parts)


def entries_of(scores: Scores, values: AllValues) -> list[Entry]:
    """Every method and the degraded images, in every set that restores images."""
    groups: dict[tuple[str, str, str, str], dict[str, Score]] = {}
    for score in scores:
        shown = is_method(score.method) or score.method == "degraded"
        if shown and not score.reference and score.metric not in LEFT_OUT:
            groups.setdefault((score.run, score.budget, score.set, score.method), {})[score.metric] = score
    nothing = RunValues({})
    entries = []
    for (run, budget, part, method), own in groups.items():
        known = values.get((run, budget), nothing)
        images = {name: each[None] for name, each in known.values.get((part, method), {}).items()}
        model = None if method == "degraded" else provenance(next(iter(own.values()))).get("model")
        models = (str(model),) if model else ()
        entries.append(Entry(own, known.sets.get(part, {}), images, known.averages, models))
    return entries


def over_seeds(entries: Sequence[Entry]) -> list[Entry]:
    """The entries with those of several trainings as one, which differ in nothing but the seed."""
    groups: dict[tuple[Any, ...], list[Entry]] = {}
    for entry in entries:
        score = entry.score
        same = score.experiment, score.protocol, score.budget, score.set, score.method, score.known, entry.degraded
        groups.setdefault((*same, json.dumps(entry.settings, sort_keys=True)), []).append(entry)
    return [each for group in groups.values() for each in _as_one(group)]


def _as_one(group: list[Entry]) -> list[Entry]:
    group = sorted(group, key=lambda entry: entry.score.seed)
    if len({entry.score.seed for entry in group}) < len(group) or group[0].degraded or len(group) == 1:
        return group
    metrics = [metric for metric in group[0].scores if all(metric in entry.scores for entry in group)]
    scores = {metric: over_trainings(entry.scores[metric] for entry in group) for metric in metrics}
    if not metrics or any(len(each) > 1 for each in scores.values()):
        return group  # of other numbers of images
    n = min(entry.images for entry in group)
    names = [name for name in group[0].values if all(name in entry.values for entry in group)] if n else []
    values = {name: np.concatenate([entry.values[name][:, :n] for entry in group]) for name in names}
    runs = dict.fromkeys(run for entry in group for run in (entry.score.run, *entry.also))
    first = {metric: each[0] for metric, each in scores.items()}
    also = tuple(run for run in runs if run != group[0].score.run)
    models = tuple(model for entry in group for model in entry.models)
    return [Entry(first, group[0].settings, values, group[0].averages, models, also)]


def start_of(entry: Entry, others: Sequence[Entry]) -> int | str | None:
    """What tells images at another severity than the last from those of `others`, None for the last severity.

    It is the severity that the file of the run states. Where it states none, it follows from the scores of the degraded
    images: those of the set, or else of its run if it has only one.
    """
    if entry.settings:
        severity = entry.settings.get("severity")
        return None if severity is None else int(severity)
    degraded = [other for other in sorted(others, key=preference) if other.degraded]
    own = [other for other in degraded if other.key[:2] == entry.key[:2]]
    in_set = [other for other in own if other.key[2] == entry.key[2]]
    starts = {other.score.value for other in in_set or own}
    if len(starts) != 1 or starts == {degraded[0].score.value}:
        return None
    return f"degraded {starts.pop()!r}"


def preference(entry: Entry) -> tuple[Any, ...]:
    """What stands for others of its method: true knowledge, single steps, the default protocol, the fullest budget."""
    score, settings = entry.score, entry.settings
    plain = score.known != "redrawn" and not settings.get("assumed_severity") and settings.get("stride", 1) == 1
    return (
        not entry.values, not plain, score.set != "test", not score.default, budget_rank(score.budget), not score.table,
        score.seed, score.run, score.set,
    )  # fmt: skip


def distinct(entries: Iterable[Entry]) -> list[Entry]:
    """The entries without repetitions: runs that share a model have the very same direct reconstructions."""
    kept: list[Entry] = []
    for entry in entries:
        same = next((k for k, other in enumerate(kept) if _same(entry, other)), None)
        if same is None:
            kept.append(entry)
        else:
            first = kept[same]
            also = dict.fromkeys([*first.also, entry.score.run])
            kept[same] = replace(first, also=tuple(run for run in also if run != first.score.run))
    return kept


def _same(a: Entry, b: Entry) -> bool:
    if (a.score.method, a.score.known) != (b.score.method, b.score.known):
        return False
    if not a.degraded and a.facts.get("model") != b.facts.get("model"):
        return False
    if a.values and b.values:
        n = min(a.images, b.images)
        pairs = [(a.values[name][:, :n], b.values.get(name, a.values[name][:0])[:, :n]) for name in a.values]
        return a.values.keys() == b.values.keys() and all(np.array_equal(*pair) for pair in pairs)
    values = ({metric: (score.value, score.n) for metric, score in each.scores.items()} for each in (a, b))
    return len({json.dumps(each, sort_keys=True) for each in values}) == 1


def beside(a: Entry, b: Entry, quantity: Quantity, n: int) -> tuple[Values, Values] | None:
    """The values of both for the first n images, of the models that they share, if any; None if values are unknown.

    Models of one configuration differ, so a method of one model is compared with another method of that very model.
    """
    values = quantity.of(a, n), quantity.of(b, n)
    if values[0] is None or values[1] is None:
        return None
    shared = [model for model in a.models if model in b.models]
    if not shared:
        return values[0], values[1]
    return values[0][list(map(a.models.index, shared))], values[1][list(map(b.models.index, shared))]


def quantities_of(entries: Iterable[Entry]) -> tuple[Quantity, ...]:
    """The metrics that any entry has, those of FIRST first."""
    scores = {metric: (score, entry) for entry in entries for metric, score in entry.scores.items()}
    names = [*(metric for metric in FIRST if metric in scores), *(metric for metric in scores if metric not in FIRST)]
    found = []
    for metric in names:
        score, entry = scores[metric]
        higher = score.direction == "higher" if score.direction else metric in ("ssim", "psnr")
        column = "squared_error" if metric in ("rmse", "psnr") else metric
        statistic = "root_mean" if metric == "rmse" else entry.averages.get(metric, "mean")
        found.append(Quantity(metric, higher, column, statistic))
    return tuple(found)
