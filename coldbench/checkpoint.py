"""Saving and loading: the state of a training, and the finished model.

A training state is complete (weights, average, optimizer, position) and written atomically; the one before it is kept,
so that a damaged file costs one interval. A model is safetensors with its experiment in the metadata: loading either
never executes code from the file.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from coldbench import models
from coldbench.errors import ColdbenchError
from coldbench.experiment import Experiment, from_json
from coldbench.files import atomic
from coldbench.progress import log

NEWEST, PREVIOUS = "newest.pt", "previous.pt"


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` as the newest of `folder`; the newest so far becomes the previous one."""
    newest = folder / NEWEST
    try:
        with atomic(newest) as temporary:
            torch.save(state, temporary)
            if newest.exists():
                newest.replace(folder / PREVIOUS)
    except RuntimeError as error:  # torch reports a full disk or a lost file system as RuntimeError
        raise ColdbenchError(f"cannot write a checkpoint in {folder}: {str(error).splitlines()[0]}") from error


def load_state(folder: Path, device: torch.device) -> dict[str, Any] | None:
    """The newest state in `folder` that is whole, or None. A damaged one is reported and passed over."""
    for name in (NEWEST, PREVIOUS):
        path = folder / name
        if not path.exists():
            continue
        try:
            with zipfile.ZipFile(path) as archive:  # torch itself passes over wrong checksums
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            return state
        except Exception as error:  # the file decides what goes wrong: zip, pickle, end of file, memory
            log.warning("checkpoint %s is damaged (%s); trying the one before", path, type(error).__name__)
    return None


def save_model(path: Path, weights: dict[str, torch.Tensor], experiment: Experiment) -> None:
    """Write a finished model as safetensors, its experiment in the metadata, atomically."""
    metadata = {"experiment": experiment.model_dump_json()}  # one key: safetensors writes several in random order
    try:
        with atomic(path) as temporary:
            safetensors.torch.save_file({k: v.contiguous().cpu() for k, v in weights.items()}, temporary, metadata)
    except safetensors.SafetensorError as error:
        raise ColdbenchError(f"cannot write {path}: {error}") from error


def load_model(path: Path, channels: int, device: torch.device) -> tuple[nn.Module, Experiment]:
    """The network with its weights, in evaluation mode on `device`, and the experiment that trained it."""
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            weights = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise ColdbenchError(f"cannot read model {path}: {error}") from error
    if "experiment" not in metadata:
        raise ColdbenchError(f"{path} holds no experiment; it was not written by coldbench")
    experiment = from_json(Experiment, metadata["experiment"], f"the experiment in {path}")
    network = models.build(experiment.network, channels)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ColdbenchError(f"{path} does not fit its network: {' '.join(str(error).split())[:300]}") from error
    return network.eval().to(device), experiment
