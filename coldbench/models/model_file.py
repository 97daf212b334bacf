"""A finished model on disk: safetensors with its experiment in the metadata. Loading executes no code from a file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from coldbench import models
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import atomic
from coldbench.core.validation import checked


def save_model(
    path: Path, weights: dict[str, torch.Tensor], experiment: Experiment, provenance: dict[str, Any] | None = None
) -> None:
    """Write a finished model as safetensors, its experiment and provenance in the metadata, atomically."""
    about = {**experiment.model_dump(), "provenance": provenance or {}}
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
    provenance: dict[str, Any]


def load_model(path: Path, channels: int, device: torch.device) -> Model:
    """The model in a file that `save_model` wrote, on `device`; ColdbenchError if it is not one or does not fit."""
    weights, metadata = load_weights(path)
    try:
        about = json.loads(metadata["experiment"])
        provenance = about.pop("provenance", {})
    except (ValueError, AttributeError, TypeError) as error:
        raise ColdbenchError(f"the experiment in {path} is damaged: {error}") from error
    experiment = checked(Experiment, about, f"the experiment in {path}")
    network = models.build(experiment.network, channels, experiment.size)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ColdbenchError(f"{path} does not fit its network: {' '.join(str(error).split())[:300]}") from error
    return Model(network.eval().to(device), experiment, provenance)
