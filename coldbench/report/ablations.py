"""What no table of the paper holds: samples made with something changed, beside the same model's ordinary ones."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from coldbench.report.inputs import Score, Scores
from coldbench.report.verdict import shown

METHODS = {"degraded": "Degraded", "tacos": "TACoS", "direct": "Direct", "naive": "Naive"}
METRICS = ("ssim", "rmse")


@dataclass(frozen=True)
class Line:
    """One set of samples: per method its SSIM and RMSE with their intervals, "" where there is none."""

    label: str
    ordinary: bool
    cells: tuple[tuple[tuple[str, str], ...], ...]


@dataclass(frozen=True)
class Ablation:
    """One experiment without a cell in the paper."""

    run: Score
    lines: tuple[Line, ...]


def ablations(scores: Scores) -> list[Ablation]:
    """Every run that stands in no table and restores images, in the order of their names."""
    found = []
    for name in sorted({s.run for s in scores if not s.table}):
        mine = [s for s in scores if s.run == name and not s.table]
        if not any(s.metric in METRICS for s in mine):
            continue
        model = _model(mine[0])
        base = [s for s in scores if s.table and s.set == "test" and s.budget == mine[0].budget and _model(s) == model]
        first = sorted({s.run for s in base})[:1]  # protocols that differ in the sampling alone share a model
        lines = [_line(f"{run}, as it is", True, [s for s in base if s.run == run]) for run in first]
        lines += [_line(part.replace("_", " "), False, [s for s in mine if s.set == part]) for part in _sets(mine)]
        found.append(Ablation(mine[0], tuple(lines)))
    return found


def _sets(scores: list[Score]) -> list[str]:
    """In natural order: every 2 before every 10."""
    return sorted(
        {s.set for s in scores}, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]
    )


def _model(score: Score) -> str:
    return str(json.loads(score.provenance or "{}").get("model", ""))


def _line(label: str, ordinary: bool, scores: list[Score]) -> Line:
    there = {(s.method, s.metric): s for s in scores}
    cells = tuple(tuple(_texts(there.get((method, metric))) for metric in METRICS) for method in METHODS)
    return Line(label, ordinary, cells)


def _texts(score: Score | None) -> tuple[str, str]:
    if score is None:
        return "", ""
    return shown(score.value), f"{shown(score.low)} – {shown(score.high)}"
