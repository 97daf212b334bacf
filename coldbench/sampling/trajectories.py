"""A few whole trajectories of a set, from x_T to x_0, for the figures and the player."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coldbench import models
from coldbench.core.files import atomic
from coldbench.core.images import to_unit_interval
from coldbench.core.interrupts import Stop
from coldbench.core.logs import log
from coldbench.core.validation import fingerprint
from coldbench.sampling import starts
from coldbench.sampling.samplers import sample

SHOWN = 6
"""Images whose trajectory is kept for the figures."""
LANDMARKS = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256)
"""After how many steps the paper's figures show a trajectory; kept of a long one beside evenly spaced iterates."""


def keep(
    folder: Path,
    restore: models.Restorer,
    origin: starts.Origin,
    methods: list[Any],
    frames: int | None,
    stop: Stop,
) -> Path:
    """The file with the trajectories of the set's first images, made unless it is there and whole.

    Its name tells what it holds; one of other methods, frames or fewer images is removed.
    """
    about = {"methods": methods, "max_frames": frames, "images": min(SHOWN, origin.images)}
    path = folder / f"trajectory-{fingerprint(about)}.npz"
    if path.exists() and not _whole(path):
        log.warning("%s is damaged; it is made again", path)
        path.unlink()
    if not path.exists():
        _write(path, restore, origin, methods, frames, stop)
    for other in folder.glob("trajectory*.npz"):
        if other != path:
            other.unlink()
    return path


def _whole(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (OSError, zipfile.BadZipFile):
        return False


def _write(
    path: Path,
    restore: models.Restorer,
    origin: starts.Origin,
    methods: list[Any],
    frames: int | None,
    stop: Stop,
) -> None:
    """The first SHOWN images: the original (of a restoration), x_T, R(x_T), and iterates with their severities.

    The iterates are those of the set's best method, TACoS where it is one of them, and beside them Algorithm 1's; of
    many, `frames` are kept.
    """
    method = next((m for m in ("tacos", "estimated") if m in methods), methods[-1])
    begin = origin.begin(range(min(SHOWN, origin.images)))
    severities = [*origin.visited(method), 0]
    kept = _kept(len(severities), frames)

    def states(method: str) -> tuple[Tensor, Tensor]:
        """R(x_T), and the kept iterates from x_T on."""
        found, direct = [begin.x], begin.x
        steps = sample(restore, origin.degradation, begin.x, begin.drawn, method, **origin.options, redraw=begin.redraw)
        for place, step in enumerate(steps, start=1):
            stop.check()
            if place == 1:
                direct = step.x0_hat
            if place in kept:
                found.append(step.x)
        return direct, torch.stack(found)

    direct, best = states(method)
    arrays = {"degraded": begin.x, "direct": direct, "states": best}
    if "naive" in methods and method not in ("naive", "direct"):
        arrays["naive"] = states("naive")[1]
    if begin.x0 is not None:
        arrays["original"] = begin.x0
    unit = {name: to_unit_interval(value).cpu().numpy() for name, value in arrays.items()}
    shown = np.array([severity for place, severity in enumerate(severities) if place in kept])
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, severities=shown, method=np.array(method), **unit)  # type: ignore[arg-type]


def _kept(count: int, frames: int | None) -> set[int]:
    """Which of `count` iterates are kept: all, or `frames` of them, evenly spaced but for LANDMARKS among many."""
    if frames is None or frames >= count:
        return set(range(count))
    landmarks = {place for place in LANDMARKS if place < count} if frames >= 2 * len(LANDMARKS) else set()
    return landmarks | set(np.linspace(0, count - 1, frames - len(landmarks)).round().astype(int).tolist())
