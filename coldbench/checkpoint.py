"""Saving and loading: the state of a training, and the finished model.

A training state is complete (weights, average, optimizer, position) and written atomically; the one before it is kept,
so that a damaged file costs one interval. A model is safetensors with its experiment in the metadata: loading either
never executes code from the file.
"""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from coldbench import models
from coldbench.errors import ColdbenchError
from coldbench.experiment import Experiment, checked
from coldbench.files import atomic, write_text
from coldbench.progress import log

KEPT = 2
"""How many checkpoints of a training are kept: a damaged newest one costs one interval."""
ARCHIVE_EVERY = 100_000
"""Checkpoints of every so many updates are never deleted (protocol 1.5)."""
POINTER = "newest"
NUMBERED = re.compile(r"update-\d{9}\.pt")


def save_state(folder: Path, done: int, state: dict[str, Any]) -> None:
    """Write `state` after update `done` as the newest of `folder`, and delete those that are not to be kept.

    Those of later updates are not: a training that went on from before a damaged one has yet to come to them.
    """
    path = folder / f"update-{done:09d}.pt"
    try:
        with atomic(path) as temporary:
            torch.save(state, temporary)
        write_text(folder / POINTER, path.name + "\n")
    except RuntimeError as error:  # torch reports a full disk or a lost file system as RuntimeError
        full = shutil.disk_usage(folder).free < 1 << 24 if folder.is_dir() else False
        reason = "no space left on device" if full else str(error).splitlines()[0]
        raise ColdbenchError(f"cannot write a checkpoint in {folder}: {reason}") from error
    numbers = {other: int(other.stem.removeprefix("update-")) for other in _states(folder)}
    for other in [other for other, number in numbers.items() if number > done]:
        other.unlink(missing_ok=True)
        del numbers[other]
    for other in list(numbers)[KEPT:]:
        if numbers[other] % ARCHIVE_EVERY:
            other.unlink(missing_ok=True)


def newest(folder: Path) -> Path | None:
    """The checkpoint that a training in `folder` would go on from, if there is one."""
    return next(iter(_states(folder)), None)


def load_state(folder: Path, device: torch.device, belongs: dict[str, Any]) -> dict[str, Any] | None:
    """The newest state in `folder` that is whole, or None. A damaged one is reported and passed over.

    Raises ColdbenchError, naming the differing field, if it was saved by another experiment or from other images.
    """
    for path in _states(folder):
        try:
            with zipfile.ZipFile(path) as archive:  # torch itself passes over wrong checksums
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            found = state["belongs"]
        except Exception as error:  # the file decides what goes wrong: zip, pickle, end of file, memory
            log.warning("checkpoint %s is damaged (%s); trying the one before", path, type(error).__name__)
            continue
        if found != belongs:
            field, there, here = _first_difference(found, belongs)
            raise ColdbenchError(
                f"{path} belongs to another training: {field} is {there} there and {here} here; "
                "delete that folder or give another --work"
            )
        return state
    return None


def _states(folder: Path) -> list[Path]:
    """The checkpoints in `folder`: what the pointer names first, then from the newest to the oldest."""
    found = sorted((path for path in folder.glob("update-*.pt") if NUMBERED.fullmatch(path.name)), reverse=True)
    pointer = folder / POINTER
    named = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    return sorted(found, key=lambda path: path.name != named)


def _first_difference(there: Any, here: Any, path: str = "") -> tuple[str, Any, Any]:
    """The first field, in the order of their names, in which two nested mappings differ, and both its values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            if there.get(key) != here.get(key):
                return _first_difference(there.get(key), here.get(key), f"{path}.{key}" if path else key)
    return path.removeprefix("experiment."), there, here


def save_model(
    path: Path, weights: dict[str, torch.Tensor], experiment: Experiment, origin: dict[str, Any] | None = None
) -> None:
    """Write a finished model as safetensors, its experiment and origin in the metadata, atomically."""
    about = {**experiment.model_dump(), "origin": origin or {}}
    save_weights(path, weights, {"experiment": json.dumps(about)})


def save_weights(path: Path, weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors as safetensors, atomically; one key of metadata, as safetensors writes several in random order."""
    try:
        with atomic(path) as temporary:
            safetensors.torch.save_file({k: v.contiguous().cpu() for k, v in weights.items()}, temporary, metadata)
    except safetensors.SafetensorError as error:
        raise ColdbenchError(f"cannot write {path}: {error}") from error


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors of a model file and its metadata; ColdbenchError if it cannot be read or holds no experiment."""
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            weights = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise ColdbenchError(f"cannot read model {path}: {error}") from error
    if "experiment" not in metadata:
        raise ColdbenchError(f"{path} holds no experiment; it was not written by coldbench")
    return weights, metadata


@dataclass(frozen=True)
class Model:
    """A finished model: its network in evaluation mode, the experiment it stands for, and where it came from."""

    network: nn.Module
    experiment: Experiment
    origin: dict[str, Any]


def load_model(path: Path, channels: int, device: torch.device) -> Model:
    """The model in a file that `save_model` wrote, on `device`; ColdbenchError if it is not one or does not fit."""
    weights, metadata = load_weights(path)
    try:
        about = json.loads(metadata["experiment"])
        origin = about.pop("origin", {})
    except (ValueError, AttributeError, TypeError) as error:
        raise ColdbenchError(f"the experiment in {path} is damaged: {error}") from error
    experiment = checked(Experiment, about, f"the experiment in {path}")
    network = models.build(experiment.network, channels, experiment.size)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ColdbenchError(f"{path} does not fit its network: {' '.join(str(error).split())[:300]}") from error
    return Model(network.eval().to(device), experiment, origin)
