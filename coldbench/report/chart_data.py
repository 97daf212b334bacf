"""The data of the plots: values with their intervals, by method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from coldbench.core.logs import clock
from coldbench.evaluation.scores import Score, Scores
from coldbench.report.cells import in_groups
from coldbench.report.figure_list import RunFigures, watermark_of
from coldbench.report.formats import metric_label, quantity, shown
from coldbench.report.layout import is_method, method_title
from coldbench.sampling.manifest import SampledSet

ORDER = ("tacos", "direct", "naive", "estimated", "resampled", "naive_resampled", "ddpm")
"""The methods in the order of the legend; plug-ins' follow."""
DISTANCE = "frechet_gabor"


@dataclass(frozen=True)
class Point:
    """A value `y` at `x` with its interval (NaN: none). In a dot plot, x counts the rows and `label` names one."""

    method: str
    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Series:
    """The points of one method, or of one run, from left to right; `hollow` ones are drawn so."""

    method: str
    label: str
    points: tuple[Point, ...]
    hollow: bool = False


@dataclass(frozen=True)
class Axes:
    """One small plot; `axis` names its values, and `levels` are values without an x, each with its name.

    `name` is that of its file. `watermark` says what its values are not, "" for those of the paper's budget and data.
    """

    name: str
    title: str
    axis: str
    lines: tuple[Series, ...]
    levels: tuple[tuple[str, float], ...] = ()
    watermark: str = ""

    @property
    def alt(self) -> str:
        """The plot as text: the first and the last value of every series."""
        texts = []
        for line in self.lines:
            first, last = line.points[0], line.points[-1]
            end = f", {shown(last.y)} at {last.label}" if last != first else ""
            texts.append(f"{line.label} {shown(first.y)} at {first.label}{end}")
        texts += [f"{name} {shown(value)}" for name, value in self.levels]
        return f"{self.title}, {self.axis}: {'; '.join(texts)}"


@dataclass(frozen=True)
class Chart:
    """Small plots of one kind; `style` is line, dots or curve. Without any, `command` runs what is `missing`."""

    name: str
    title: str
    caption: str
    x_label: str
    style: str
    panels: tuple[Axes, ...]
    missing: str = ""
    command: str = ""
    log: bool = False


@dataclass(frozen=True)
class Subject:
    """The run that a plot shows: its name for a file, unlike that of any other run, its title and its watermark."""

    name: str
    title: str
    watermark: str


def subject_of(score: Score, scores: Scores) -> Subject:
    """The run of a score. The title names the budget if `scores` hold another run of this name."""
    budgets = {each.budget for each in scores if each.run == score.run}
    return _subject(score.run, score.budget, budgets, score.title, score.seed, score.embedded)


def _subject_in(runs: Iterable[RunFigures], run: RunFigures) -> Subject:
    """A run of `runs`, as `subject_of`."""
    about = run.metadata
    budgets = {each.metadata.budget for each in runs if each.metadata.run == about.run}
    return _subject(about.run, about.budget, budgets, about.title, run.experiment.seed, run.embedded)


def _subject(run: str, budget: str, budgets: set[str], title: str, seed: int, embedded: bool) -> Subject:
    parts = [title, f"seed {seed}" if seed else "", f"{budget} budget" if len(budgets) > 1 else ""]
    return Subject(f"{budget}/{run}", ", ".join(filter(None, parts)), watermark_of(budget, embedded))


def charts(scores: Scores, runs: Sequence[RunFigures]) -> list[Chart]:
    """Every chart of finished models, also those without data."""
    runs = [run for run in runs if not run.experiment.snapshot]
    return [
        Chart(
            "steps", "Quality against sampling steps",
            "The same model restores the same images in fewer and larger steps. Direct reconstruction takes one step.",
            "network evaluations per image", "line", tuple(_fewer_steps(scores, runs)),
            "there is no run of A4", "snakemake --config experiments='[E01,A4]'", log=True,
        ),
        Chart(
            "number", "Fréchet distance against the number of images",
            "The distance of a part of the samples from the whole reference set. A distance of few images is too "
            "large, so only distances of equal numbers are comparable.",
            "images", "line", tuple(_image_counts(scores, runs)), "there is no scored run", "snakemake", log=True,
        ),
        Chart(
            "ladder", "One set of samples under many protocols of FID",
            "The protocols differ in the resizing and rounding of images and in the weights of the network. The "
            "reference is the training or the test set. The samples are the same.",
            "", "dots", tuple(_fid_protocols(scores)), "there is no FID",
            "snakemake --config fid='[paper-float,legacy_pytorch,legacy_tensorflow,clean]'",
        ),
        Chart(
            "wrong", "The sampler with wrong knowledge of the degradation",
            "The sampler assumes another mask, snow or severity than the true one. The images and the model stay the "
            "same.",
            "", "dots", tuple(_wrong_knowledge(scores, runs)), "there are no runs of A1 to A3",
            "snakemake --config experiments='[E01,E04,E10,A1,A2,A3]'",
        ),
        training(runs),
    ]  # fmt: skip


def training(runs: Sequence[RunFigures]) -> Chart:
    """The training loss of every model, once."""
    return Chart(
        "training", "Training", "The mean absolute error in [-1, 1] against the training step, on logarithmic axes.",
        "step", "curve", tuple(_loss(group[0], runs) for group in _models(runs) if group[0].training),
        "no model was trained here", "snakemake", log=True,
    )  # fmt: skip


def _loss(run: RunFigures, runs: Iterable[RunFigures]) -> Axes:
    points = [Point("", line.step, line.loss, math.nan, math.nan, f"step {line.step:,.0f}") for line in run.training]
    last, subject = run.training[-1], _subject_in(runs, run)
    title = f"{subject.title}: {clock(last.seconds)} at {last.images_per_second:.0f} images/s"
    line = Series("", "training loss", tuple(points))
    return Axes(f"{subject.name}/training", title, "loss", (line,), watermark=subject.watermark)


def _fewer_steps(scores: Scores, runs: Sequence[RunFigures]) -> Iterator[Axes]:
    """For every model that was sampled with several strides: quality against NFE."""
    for group in _models(runs):
        sets = [(run, name, sampled) for run in group for name, sampled in run.sets.items() if _is_plain(sampled)]
        if len({sampled.stride for *_, sampled in sets}) < 2:
            continue
        for metric in ("ssim", "rmse", DISTANCE):
            points: dict[tuple[str, int], Point] = {}
            for run, name, sampled in sets:
                for score in _scores_of(scores, run, name, metric):
                    nfe = 1 if score.method == "direct" else math.ceil(run.T / sampled.stride)
                    points.setdefault((score.method, nfe), _point(nfe, score, f"{nfe:,}"))
            yield from by_method(f"steps-{metric}", _subject_in(runs, group[0]), metric, points.values())


def _image_counts(scores: Scores, runs: Sequence[RunFigures]) -> Iterator[Axes]:
    """For every set: the distance of its first images and of all."""
    for run in runs:
        for name, sampled in run.sets.items():
            parts = [each for each in run.distances if each.set == name]
            points = [Point(d.method, d.n, d.value, d.low, d.high, f"n = {d.n:,}") for d in parts]
            methods = {point.method for point in points}
            reference = "test" if sampled.start is None else "train"
            for score in _scores_of(scores, run, name, DISTANCE):
                if score.method in methods and score.reference == reference:
                    points.append(_point(score.n, score, f"n = {score.n:,}"))
            yield from by_method(f"number-{name}", _subject_in(runs, run), DISTANCE, points, _suffix(name))


def _fid_protocols(scores: Scores) -> Iterator[Axes]:
    """For every set: FID, and KID, under each protocol and reference."""
    usable = [s for s in scores if quantity(s.metric) in ("fid", "kid") and s.finite and is_method(s.method)]
    for (_, _, name, kind), each in groupby(sorted(usable, key=_samples), key=_samples):
        group = [(score, (score.metric.partition("_")[2], score.reference)) for score in each]
        places = sorted({place for _, place in group})
        points = [_point(places.index(place), score, ", ".join(place)) for score, place in group]
        yield from by_method(f"ladder-{name}-{kind}", subject_of(group[0][0], scores), kind, points, _suffix(name))


def _samples(score: Score) -> tuple[str, str, str, str]:
    return score.run, score.budget, score.set, quantity(score.metric)


def _wrong_knowledge(scores: Scores, runs: Sequence[RunFigures]) -> Iterator[Axes]:
    """For every run whose sampler assumes something else than the truth: quality by assumption."""
    for group in _models(runs):
        for run in group:
            sets = _sets_with_wrong_knowledge(run, group)
            for metric in ("ssim", "rmse"):
                points = [
                    _point(k, score, _knowledge(r, name))
                    for k, (r, name) in enumerate(sets)
                    for score in _scores_of(scores, r, name, metric)
                ]
                yield from by_method(f"wrong-{metric}", _subject_in(runs, run), metric, points)


def by_method(kind: str, subject: Subject, metric: str, points: Iterable[Point], suffix: str = "") -> Iterator[Axes]:
    """A plot of some kind with a line for every method; none without points."""
    methods = {line[0].method: line for line in in_groups(sorted(points, key=lambda point: point.x), "method")}
    order = [*(method for method in ORDER if method in methods), *sorted(methods.keys() - set(ORDER))]
    lines = [Series(method, method_title(method), tuple(methods[method])) for method in order]
    if lines:
        title = subject.title + suffix
        yield Axes(f"{subject.name}/{kind}", title, metric_label(metric), tuple(lines), (), subject.watermark)


def _models(runs: Iterable[RunFigures]) -> list[list[RunFigures]]:
    """The runs that share a model, those of a table first."""
    ordered = sorted(runs, key=lambda r: (not r.metadata.cell.table, r.metadata.run))
    return in_groups(ordered, "model")


def _sets_with_wrong_knowledge(run: RunFigures, group: Sequence[RunFigures]) -> list[tuple[RunFigures, str]]:
    """The restoring sets of a run with a wrong assumption, after one of its model without; none without the former."""
    if all(sampling.assumed_severity is None and sampling.known == "drawn" for sampling in run.sets.values()):
        return []
    ordered = sorted(run.sets.items(), key=lambda item: (item[1].assumed_severity or 0, item[0]))
    sets = [(run, name) for name, sampling in ordered if sampling.start is None]
    if any(_knows_the_truth(run.sets[name]) for _, name in sets):
        return sets
    others = ((r, name) for r in group for name, sampling in r.sets.items() if _knows_the_truth(sampling))
    return [*[other for other in [next(others, None)] if other], *sets]


def _is_plain(sampling: SampledSet) -> bool:
    """Whether a set restores images from severity T as Algorithm 2 does."""
    return _knows_the_truth(sampling) and sampling.severity is None and not sampling.released_shift


def _knows_the_truth(sampling: SampledSet) -> bool:
    """Whether a set restores images, and its sampler knows the true draw and severity."""
    return sampling.start is None and sampling.assumed_severity is None and sampling.known == "drawn"


def _knowledge(run: RunFigures, name: str) -> str:
    """A set by what its sampler assumes."""
    sampling = run.sets[name]
    if sampling.known != "drawn":
        return name.replace("_", " ")
    true = sampling.severity or run.T
    return f"assumes {sampling.assumed_severity}, true {true}" if sampling.assumed_severity else "true severity"


def _suffix(name: str) -> str:
    return "" if name == "test" else f", {name.replace('_', ' ')}"


def _scores_of(scores: Scores, run: RunFigures, name: str, metric: str) -> list[Score]:
    """The finite values of one metric on one set of a run, by method."""
    key = (run.metadata.run, run.metadata.budget, name, metric)
    return [s for s in scores if (s.run, s.budget, s.set, s.metric) == key and s.finite and is_method(s.method)]


def _point(x: float, score: Score, label: str) -> Point:
    return Point(score.method, x, score.value, score.low, score.high, label)
