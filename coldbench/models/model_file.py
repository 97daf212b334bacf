"""A finished model on disk: safetensors with its experiment in the metadata. Loading executes no code of the file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import atomic
from coldbench.core.validation import checked
from coldbench.models import registry

HEADS = ("final_conv.1.weight", "conv_out.weight")
"""The last convolution of each network; it has a kernel per channel of the images."""


@dataclass(frozen=True)
class Model:
    """A finished model: its network in evaluation mode, its experiment, the channels of its images, its provenance."""

    network: nn.Module
    experiment: Experiment
    channels: int
    provenance: dict[str, Any]


def save_model(
    path: Path,
    weights: dict[str, torch.Tensor],
    experiment: Experiment,
    channels: int,
    provenance: dict[str, Any] | None = None,
) -> None:
    """Write a finished model of images with `channels` channels as safetensors, atomically."""
    metadata = {**experiment.model_dump(), "channels": channels, "provenance": provenance or {}}
    save_weights(path, weights, {"experiment": json.dumps(metadata)})


def save_weights(path: Path, weights: dict[str, torch.Tensor], metadata: dict[str, str]) -> None:
    """Write tensors as safetensors, atomically; one key of metadata, because several would be in random order."""
    try:
        with atomic(path) as temporary:
            safetensors.torch.save_file({k: v.contiguous().cpu() for k, v in weights.items()}, temporary, metadata)
    except safetensors.SafetensorError as error:
        raise ColdbenchError(f"cannot write {path}: {error}") from error


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """The tensors and the metadata of a model; ColdbenchError if the file cannot be read or names no experiment."""
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            metadata = stream.metadata() or {}
            weights = {key: stream.get_tensor(key) for key in stream.keys()}  # noqa: SIM118 (not a mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise ColdbenchError(f"cannot read model {path}: {error}") from error
    if "experiment" not in metadata:
        raise ColdbenchError(f"{path} holds no experiment; it was not written by coldbench")
    return weights, metadata


def read_metadata(path: Path, metadata: dict[str, str]) -> tuple[Experiment, int | None, dict[str, Any]]:
    """The experiment, the channels (None in older files) and the provenance of the model in `path`."""
    try:
        fields = json.loads(metadata["experiment"])
        channels, provenance = fields.pop("channels", None), fields.pop("provenance", {})
    except (ValueError, AttributeError, TypeError) as error:
        raise ColdbenchError(f"the experiment in {path} is damaged: {error}") from error
    return checked(Experiment, fields, f"the experiment in {path}"), channels, provenance


def load_model(path: Path, device: torch.device, channels: int | None = None) -> Model:
    """The model that `save_model` wrote to `path`, on `device`.

    Raises ColdbenchError if the file is damaged, does not fit its own experiment, or restores images with another
    number of channels than `channels`.
    """
    weights, metadata = load_weights(path)
    experiment, stored, provenance = read_metadata(path, metadata)
    own_channels = stored or next((len(weights[key]) for key in HEADS if key in weights), 3)
    if channels not in (None, own_channels):
        raise ColdbenchError(f"{path} restores images with {own_channels} channels, not {channels}")
    network = registry.build(experiment.network, own_channels, experiment.size)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ColdbenchError(f"{path} does not fit its network: {' '.join(str(error).split())[:300]}") from error
    return Model(network.eval().to(device), experiment, own_channels, provenance)
