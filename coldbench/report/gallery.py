"""The figures of one run: from its sampled trajectories and training log to PNG files and the words beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np

from coldbench import manifest as sampled
from coldbench.errors import ColdbenchError
from coldbench.experiment import About, Experiment
from coldbench.files import read_json, write_json
from coldbench.progress import clock
from coldbench.report.figures import four_columns, progressive, training_curve
from coldbench.report.page import Figure


def draw(manifest: Path, about: About, training_log: Path, out: Path) -> None:
    """Draw the run's figures beside `out` and write their list (kind, file, caption, alt text) to it, last."""
    facts = sampled.facts(manifest)
    experiment = Experiment.model_validate(facts["experiment"])
    folder, budget = out.parent, experiment.budget
    try:
        with np.load(manifest.parent / facts["trajectory"]) as arrays:
            shown = {name: arrays[name] for name in arrays}
        log = [json.loads(line) for line in training_log.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ColdbenchError(f"cannot draw {experiment.run}: {error}") from error
    imported = facts.get("origin", {}).get("imported")
    if not (log or imported) or any({"update", "loss", "images_per_second", "seconds"} - line.keys() for line in log):
        raise ColdbenchError(
            f"{training_log} is no training log of this version; delete it and its model, then run again"
        )
    states, severities = shown["states"], shown["severities"].tolist()
    columns = {"degraded": shown["degraded"], "direct": shown["direct"], "sampled": states[-1]}
    four_columns({**columns, "original": shown["original"]}, folder / "four_columns.png", budget)
    progressive(
        severities[:-1], states[:-1], states[-1], folder / "progressive.png", budget, original=shown["original"]
    )
    training_curve([{**line, "updates": line["update"]} for line in log], folder / "training.png", budget)
    title = about.title
    words = {
        "four_columns": (
            f"{title}: degraded, direct, sampled (TACoS), original.",
            f"Test images in four columns: degraded at T = {severities[0]}, restored directly, sampled, original",
        ),
        "progressive": (
            f"{title}: a TACoS trajectory from x_T to x_0, and the original.",
            f"Rows of test images from severity {severities[0]} down to 0, growing clearer, then the originals",
        ),
        "training": (
            f"{title}: imported from {imported}, not trained here.",
            "An empty plot: there is no training log",
        )
        if imported
        else (
            f"{title}: training loss (mean absolute error in [-1, 1]) over {log[-1]['update']:,} updates, "
            f"which took {clock(log[-1]['seconds'])} at {log[-1]['images_per_second']:.0f} images/s.",
            f"Line plot of the training loss, {log[0]['loss']:.3f} at first and {log[-1]['loss']:.3f} at the end",
        ),
    }
    figures = [
        Figure(experiment.run, title, kind, folder / f"{kind}.png", caption, alt)
        for kind, (caption, alt) in words.items()
    ]
    write_json(out, [{**asdict(figure), "path": figure.path.name} for figure in figures])


def load(lists: list[Path]) -> list[Figure]:
    """The figures that `draw` listed."""
    return [Figure(**{**entry, "path": path.parent / entry["path"]}) for path in lists for entry in read_json(path)]
