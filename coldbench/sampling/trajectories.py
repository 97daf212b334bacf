"""Whole trajectories of a set's first images, from x_T to x_0, for the figures and the player."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench.core.checksums import find_hashed, write_hashed
from coldbench.core.images import to_unit_interval
from coldbench.core.interrupts import Stop
from coldbench.core.validation import fingerprint
from coldbench.models import Restorer
from coldbench.sampling.starts import InitialState, SamplingTask

SHOWN = 6
"""Images whose trajectories are stored."""
LANDMARKS = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256)
"""Numbers of steps after which the paper's figures show a trajectory; long ones store them as well."""


def update(folder: Path, restore: Restorer, task: SamplingTask, max_frames: int | None, stop: Stop) -> Path:
    """The file in `folder` with the trajectories of the set's first images, written if it is missing or damaged.

    Its name holds a hash of methods, max_frames and number of images.
    """
    images = min(SHOWN, task.images)
    settings: dict[str, Any] = {"methods": list(task.methods), "max_frames": max_frames, "images": images}
    if samplers := {label: spec for label, spec in task.methods.items() if spec != {"name": label}}:
        settings["samplers"] = samplers
    stem = f"trajectory-{fingerprint(settings)}"
    path = find_hashed(folder, stem, ".npz")
    if path is None:
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **_trajectories(restore, task, max_frames, stop))
        path = write_hashed(folder, stem, ".npz", buffer.getbuffer())
    return path


def _trajectories(restore: Restorer, task: SamplingTask, max_frames: int | None, stop: Stop) -> dict[str, Any]:
    """The arrays of the file: x_T (`degraded`), R(x_T) (`direct`), `original` in a restoration, and the iterates.

    `states` are the iterates (frames, N, C, H, W) of the set's best method, TACoS if the set has it; `naive` are those
    of Algorithm 1. Images are float32 in [0, 1] units, not clamped. `severities` (frames,) int64, `method` a string.
    """
    method = next((name for name in ("tacos", "estimated") if name in task.methods), list(task.methods)[-1])
    initial = task.initial_state(range(min(SHOWN, task.images)))
    severities = [*task.severities(method), 0]
    frames = stored_frames(len(severities), max_frames)
    direct, states = _iterates(restore, task, method, initial, frames, stop)
    images = {"degraded": initial.x, "direct": direct, "states": states}
    if "naive" in task.methods and method not in ("naive", "direct"):
        _, images["naive"] = _iterates(restore, task, "naive", initial, frames, stop)
    if initial.x0 is not None:
        images["original"] = initial.x0
    arrays: dict[str, npt.NDArray[Any]] = {
        name: to_unit_interval(value).cpu().numpy() for name, value in images.items()
    }
    return {**arrays, "severities": np.array([severities[frame] for frame in frames]), "method": np.array(method)}


def _iterates(
    restore: Restorer, task: SamplingTask, method: str, initial: InitialState, frames: list[int], stop: Stop
) -> tuple[Tensor, Tensor]:
    """R(x_T), and the iterates at `frames`, counted from x_T."""
    direct, iterates = initial.x, [initial.x]
    for number, step in enumerate(task.steps(restore, method, initial), start=1):
        stop.check()
        if number == 1:
            direct = step.x0_hat
        if number in frames:
            iterates.append(step.x)
    return direct, torch.stack(iterates)


def stored_frames(count: int, max_frames: int | None) -> list[int]:
    """Which of `count` iterates are stored: all, or at most `max_frames`, evenly spaced apart from LANDMARKS."""
    if max_frames is None or max_frames >= count:
        return list(range(count))
    landmarks = {number for number in LANDMARKS if number < count} if max_frames >= 2 * len(LANDMARKS) else set()
    spaced = np.linspace(0, count - 1, max_frames - len(landmarks)).round().astype(int)
    return sorted(landmarks | set(spaced.tolist()))
