"""The figures of one run: from its sampled trajectories and training log to PNG files and the words beside them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from coldbench import manifest as sampled
from coldbench.config import About
from coldbench.errors import ColdbenchError
from coldbench.files import read_json, write_json
from coldbench.progress import clock
from coldbench.report.figures import Figure, four_columns, progressive, training_curve

METHODS = {"tacos": "TACoS", "naive": "Algorithm 1", "estimated": "estimated noise", "ddpm": "DDPM"}


def draw(manifest: Path, about: About, training_log: Path, out: Path) -> None:
    """Draw the run's figures into the folder `figures` beside `out` and write their list to `out`, last."""
    facts = sampled.facts(manifest)
    folder, imported = out.parent / "figures", facts["origin"].get("imported")
    try:
        log = [json.loads(line) for line in training_log.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ColdbenchError(f"cannot draw {about.run}: {error}") from error
    if not (log or imported) or any({"update", "loss", "images_per_second", "seconds"} - line.keys() for line in log):
        raise ColdbenchError(
            f"{training_log} is no training log of this version; delete it and its model, then run again"
        )
    figures = [
        figure for name in facts["sets"] for figure in _of_set(manifest, facts["sets"][name], name, about, folder)
    ]
    training_curve([{**line, "updates": line["update"]} for line in log], folder / "training.png", about.budget)
    words = (
        (f"{about.title}: imported from {imported}, not trained here.", "An empty plot: there is no training log")
        if imported
        else (
            f"{about.title}: training loss (mean absolute error in [-1, 1]) over {log[-1]['update']:,} updates, "
            f"which took {clock(log[-1]['seconds'])} at {log[-1]['images_per_second']:.0f} images/s.",
            f"Line plot of the training loss, {log[0]['loss']:.3f} at first and {log[-1]['loss']:.3f} at the end",
        )
    )
    figures.append(Figure(about.run, about.title, "training", folder / "training.png", *words))
    write_json(out, [{**asdict(figure), "path": str(figure.path.relative_to(out.parent))} for figure in figures])


def _of_set(manifest: Path, part: dict[str, Any], name: str, about: About, folder: Path) -> list[Figure]:
    """The images in columns and the trajectory of one set."""
    try:
        with np.load(manifest.parent / part["trajectory"]) as arrays:
            shown = {key: arrays[key] for key in arrays}
    except (OSError, ValueError) as error:
        raise ColdbenchError(f"cannot draw {about.run}: {error}") from error
    states, severities, original = shown["states"], shown["severities"].tolist(), shown.get("original")
    method = METHODS.get(str(shown["method"]), str(shown["method"]))
    prefix = "" if name == "test" else f"{name}-"
    columns, progress = folder / f"{prefix}four_columns.png", folder / f"{prefix}progressive.png"
    images = {"degraded": shown["degraded"], "direct": shown["direct"], "sampled": states[-1]}
    four_columns(images | ({} if original is None else {"original": original}), columns, about.budget)
    progressive(severities[:-1], states[:-1], states[-1], progress, about.budget, original=original)
    title = about.title if name == "test" else f"{about.title}, {name}"
    first, last = ("degraded", ", original") if original is not None else ("start x_T", "")
    return [
        Figure(
            about.run,
            about.title,
            "four_columns",
            columns,
            f"{title}: {first}, direct, sampled ({method}){last}.",
            f"Images in columns: {first} at severity {severities[0]}, restored directly, sampled{last}",
        ),
        Figure(
            about.run,
            about.title,
            "progressive",
            progress,
            f"{title}: a trajectory ({method}) from x_T to x_0{', and the original' if last else ''}.",
            f"Rows of images from severity {severities[0]} down to 0, growing clearer"
            + ", then the originals" * bool(last),
        ),
    ]


def load(lists: list[Path]) -> list[Figure]:
    """The figures that `draw` listed."""
    return [Figure(**{**entry, "path": path.parent / entry["path"]}) for path in lists for entry in read_json(path)]
