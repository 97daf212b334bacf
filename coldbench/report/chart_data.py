"""What the plots show, as plain data: values with their intervals, by method, each plot's numbers also a table."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coldbench.core.logs import clock
from coldbench.report.gallery import METHODS, Pictures
from coldbench.report.inputs import Score, Scores
from coldbench.report.verdict import LABELS, quantity, shown

SHOWN = ("tacos", "direct", "naive", "estimated", "resampled", "naive_resampled", "ddpm")
DISTANCE = "frechet_gabor"


@dataclass(frozen=True)
class Point:
    """A value at x, with its interval (NaN: none); in a plot of dots x counts the rows, and `label` names one."""

    x: float
    y: float
    low: float
    high: float
    label: str


@dataclass(frozen=True)
class Line:
    """Points of one method, or of one run."""

    method: str
    label: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Axes:
    """One small plot; `axis` names its values."""

    name: str
    title: str
    axis: str
    lines: tuple[Line, ...]

    @property
    def alt(self) -> str:
        """The plot in a sentence per line: its first and last value."""
        told = []
        for line in self.lines:
            first, last = line.points[0], line.points[-1]
            reach = f" at {first.label}" + (f", {shown(last.y)} at {last.label}" if last != first else "")
            told.append(f"{line.label} {shown(first.y)}{reach}")
        return f"{self.title}, {self.axis}: {'; '.join(told)}"


@dataclass(frozen=True)
class Chart:
    """Small plots of one kind; `style` is line, dots or curve. Without any, `missing` and `command` tell why."""

    name: str
    title: str
    shows: str
    across: str
    style: str
    panels: tuple[Axes, ...]
    missing: str = ""
    command: str = ""
    log: bool = False


def charts(scores: Scores, runs: Sequence[Pictures]) -> list[Chart]:
    """Every plot, also those for which there is nothing yet."""
    return [
        fewer_steps(scores, runs),
        by_number(scores, runs),
        ladder(scores),
        told_wrong(scores, runs),
        training(runs),
    ]


def fewer_steps(scores: Scores, runs: Sequence[Pictures]) -> Chart:
    """Quality against the number of network calls, for models that were also sampled in larger steps."""
    panels = []
    for group in _models(runs):
        taken = [(run, name, part) for run in group for name, part in run.sets.items() if _plain(part)]
        if len({part["stride"] for *_, part in taken}) < 2:
            continue
        title = next((r.metadata.title for r in group if r.metadata.cell.table), group[0].metadata.title)
        for metric in ("ssim", "rmse", DISTANCE):
            found: dict[str, dict[float, Score]] = {}
            for run, name, part in taken:
                for score in _of(scores, run, name, metric):
                    calls = 1 if score.method == "direct" else math.ceil(run.T / part["stride"])
                    found.setdefault(score.method, {}).setdefault(calls, score)
            lines = tuple(
                Line(m, METHODS[m], tuple(_point(x, s, f"{x:,.0f}") for x, s in sorted(found[m].items())))
                for m in SHOWN
                if m in found
            )
            if lines:
                panels.append(Axes(f"steps-{group[0].metadata.run}-{metric}", title, LABELS[metric], lines))
    return Chart(
        "steps", "Quality against sampling steps",
        "The same model on the same images, in fewer and larger steps; direct reconstruction takes one.",
        "network calls per image", "line", tuple(panels), "run A4 missing", "snakemake --config experiments='[E01,A4]'",
        log=True,
    )  # fmt: skip


def by_number(scores: Scores, runs: Sequence[Pictures]) -> Chart:
    """How a Fréchet distance falls with the number of images it is taken from."""
    panels = []
    for run in runs:
        for name in run.sets:
            found: dict[str, list[Point]] = {}
            for row in run.distances:
                if row["set"] == name:
                    point = Point(row["n"], row["value"], row["low"], row["high"], f"n = {row['n']:,}")
                    found.setdefault(row["method"], []).append(point)
            for score in _of(scores, run, name, DISTANCE):
                if score.method in found and score.reference == _reference(run, name):
                    found[score.method].append(_point(score.n, score, f"n = {score.n:,}"))
            lines = tuple(Line(m, METHODS[m], tuple(sorted(found[m], key=lambda p: p.x))) for m in SHOWN if m in found)
            if lines:
                words = run.metadata.title + ("" if name == "test" else f", {name.replace('_', ' ')}")
                panels.append(Axes(f"number-{run.metadata.run}-{name}", words, LABELS[DISTANCE], lines))
    return Chart(
        "number", "Fréchet distance against the number of images",
        "The same samples, fewer of them: a distance from few images is too large, so only equal numbers compare. "
        "The reference stays whole.",
        "images", "line", tuple(panels), "no scored run", "snakemake", log=True,
    )  # fmt: skip


def ladder(scores: Scores) -> Chart:
    """FID and KID of the same samples under each protocol and reference."""
    panels = []
    groups: dict[tuple[str, str, str], list[Score]] = {}
    for score in scores:
        if quantity(score.metric) in ("fid", "kid") and score.finite and score.method in METHODS:
            groups.setdefault((score.run, score.set, quantity(score.metric)), []).append(score)
    for (run, name, kind), group in sorted(groups.items()):
        rungs = sorted({(s.metric.partition("_")[2], s.reference) for s in group})
        labels = [f"{protocol}, {split}" for protocol, split in rungs]
        lines = []
        for method in SHOWN:
            mine = {(s.metric.partition("_")[2], s.reference): s for s in group if s.method == method}
            points = [_point(k, mine[rung], labels[k]) for k, rung in enumerate(rungs) if rung in mine]
            lines += [Line(method, METHODS[method], tuple(points))] if points else []
        title = group[0].title + ("" if name == "test" else f", {name.replace('_', ' ')}")
        panels.append(Axes(f"ladder-{run}-{name}-{kind}", title, LABELS[kind], tuple(lines)))
    return Chart(
        "ladder", "One set of samples, many FIDs",
        "The protocols of FID differ in how images are resized and rounded and in the network's weights; the reference "
        "is the training or the test set. The samples are the same.",
        "", "dots", tuple(panels), "no FID was computed",
        "snakemake --config fid='[paper-float,legacy_pytorch,legacy_tensorflow,clean]'",
    )  # fmt: skip


def told_wrong(scores: Scores, runs: Sequence[Pictures]) -> Chart:
    """What becomes of the images if the sampler is told another mask, snow or severity than the true one."""
    panels = []
    for group in _models(runs):
        for run in group:
            misled = [n for n, part in run.sets.items() if part["assumed_severity"] or part["known"] != "drawn"]
            if not misled:
                continue
            ordered = sorted(run.sets.items(), key=lambda item: (item[1]["assumed_severity"] or 0, item[0]))
            sets = [(run, name) for name, part in ordered if part["start"] is None]
            if not any(_true(run.sets[name]) for _, name in sets):
                base = next(((r, n) for r in group for n, part in r.sets.items() if _true(part)), None)
                sets = [base, *sets] if base else sets
            for metric in ("ssim", "rmse"):
                labels = [_words(r, name) for r, name in sets]
                lines = []
                for method in SHOWN:
                    here = [{s.method: s for s in _of(scores, r, name, metric)} for r, name in sets]
                    points = [_point(k, mine[method], labels[k]) for k, mine in enumerate(here) if method in mine]
                    lines += [Line(method, METHODS[method], tuple(points))] if points else []
                if lines:
                    panels.append(
                        Axes(f"told-{run.metadata.run}-{metric}", run.metadata.title, LABELS[metric], tuple(lines))
                    )
    return Chart(
        "told", "What if the sampler is told something wrong?",
        "Another mask or snow than the true one, or another severity; the images and the model stay the same.",
        "", "dots", tuple(panels), "runs A1 to A3 missing", "snakemake --config experiments='[E01,E04,E10,A1,A2,A3]'",
    )  # fmt: skip


def training(runs: Iterable[Pictures]) -> Chart:
    """The training loss of every model, once."""
    panels = [training_of(group[0]) for group in _models(runs) if group[0].training]
    return Chart(
        "training", "Training", "Mean absolute error in [-1, 1] over the updates, both axes logarithmic.", "max_steps",
        "curve", tuple(panels), "no model was trained here", "snakemake", log=True,
    )  # fmt: skip


def training_of(run: Pictures) -> Axes:
    """The training loss of one run's model."""
    points = tuple(Point(u, loss, math.nan, math.nan, f"step {u:,.0f}") for u, loss, *_ in run.training)
    _, _, speed, seconds = run.training[-1]
    words = f"{run.metadata.title}: {clock(seconds)} at {speed:.0f} images/s"
    return Axes(f"training-{run.metadata.run}", words, "loss", (Line("", "training loss", points),))


def _models(runs: Iterable[Pictures]) -> list[list[Pictures]]:
    """The runs that sample one model, those of a table first."""
    groups: dict[str, list[Pictures]] = {}
    for run in sorted(runs, key=lambda r: (not r.metadata.cell.table, r.metadata.run)):
        groups.setdefault(run.model, []).append(run)
    return list(groups.values())


def _plain(part: dict[str, object]) -> bool:
    """Whether a set restores images from severity T and is told the truth."""
    return _true(part) and part["severity"] is None and not part["released_shift"]


def _true(part: dict[str, object]) -> bool:
    return part["start"] is None and part["assumed_severity"] is None and part["known"] == "drawn"


def _words(run: Pictures, name: str) -> str:
    """A set by what its sampler is told."""
    part = run.sets[name]
    if part["known"] != "drawn":
        return name.replace("_", " ")
    true = part["severity"] or run.T
    return f"told {part['assumed_severity']}, is {true}" if part["assumed_severity"] else "told the truth"


def _reference(run: Pictures, name: str) -> str:
    return "test" if run.sets[name]["start"] is None else "train"


def _of(scores: Scores, run: Pictures, name: str, metric: str) -> list[Score]:
    """The finite values of one metric on one set of a run, by a method of ours."""
    wanted = (run.metadata.run, run.metadata.budget, name, metric)
    return [s for s in scores if (s.run, s.budget, s.set, s.metric) == wanted and s.finite and s.method in METHODS]


def _point(x: float, score: Score, label: str) -> Point:
    return Point(x, score.value, score.low, score.high, label)
