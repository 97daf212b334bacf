"""A finished model on disk: safetensors with its experiment in the metadata. Loading executes no code of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from coldbench.core.checksums import UNSEALED, check_seal, seal
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import atomic
from coldbench.core.logs import log
from coldbench.models import registry
from coldbench.models.header import ModelHeader, read_header


@dataclass(frozen=True)
class Model(ModelHeader):
    """A finished model: what its file says of it, and its network in evaluation mode."""

    network: nn.Module


def save_model(
    path: Path,
    weights: dict[str, torch.Tensor],
    experiment: Experiment,
    channels: int,
    provenance: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Write a finished model of images with `channels` channels as safetensors, atomically.

    `identity` names the hashes of the images that it was trained on: `data`, and `partner` if there is one.
    """
    origin = {"data": None, "partner": None, **(identity or {})}
    metadata = {
        **experiment.model_dump(),
        "channels": channels,
        "provenance": dict(provenance or {}),
        "data": origin["data"],
        "partner": origin["partner"],
        "sha256": UNSEALED,
    }
    try:
        with atomic(path) as temporary:
            # One key of metadata, because several would be in random order.
            tensors = {key: value.contiguous().cpu() for key, value in weights.items()}
            safetensors.torch.save_file(tensors, temporary, {"experiment": json.dumps(metadata)})
            seal(temporary, "sha256")
    except safetensors.SafetensorError as error:
        raise ColdbenchError(f"cannot write {path}: {error}") from error


def log_of(model: Path) -> Path:
    """The training log of a model, which an imported one has not."""
    return model.with_suffix(".jsonl")


def set_aside(model: Path) -> None:
    """Rename the model in `model` and its log, so that what takes its place loses neither; nothing if it is damaged."""
    try:
        old = read_header(model)
    except ColdbenchError:
        return  # missing or damaged
    images = "-".join(filter(None, (old.data, old.partner)))
    aside = model.with_name(".".join(filter(None, (model.stem, old.experiment.fingerprint, images))) + model.suffix)
    if log_of(model).exists():
        log_of(model).replace(log_of(aside))
    model.replace(aside)
    log.info("the model of other settings or images is kept as %s", aside.name)


def load_weights(path: Path) -> tuple[dict[str, torch.Tensor], ModelHeader]:
    """The tensors and the header of a model.

    Raises ColdbenchError if the file cannot be read, is no model of this version, or has another content than the one
    that was written.
    """
    header = read_header(path)
    if check_seal(path, "sha256") != header.sha256:
        raise ColdbenchError(f"{path} states two checksums; it was not written by coldbench")
    try:
        with safetensors.safe_open(path, framework="pt") as stream:
            return {key: stream.get_tensor(key) for key in stream.keys()}, header  # noqa: SIM118 (not a mapping)
    except (OSError, safetensors.SafetensorError) as error:
        raise ColdbenchError(f"cannot read model {path}: {error}") from error


def load_model(path: Path, device: torch.device, channels: int | None = None) -> Model:
    """The model that `save_model` wrote to `path`, on `device`.

    Raises ColdbenchError if the file is damaged, does not fit its own experiment, or restores images with another
    number of channels than `channels`.
    """
    weights, header = load_weights(path)
    if channels not in (None, header.channels):
        raise ColdbenchError(f"{path} restores images with {header.channels} channels, not {channels}")
    network = registry.build(header.experiment.network, header.channels, header.experiment.size)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ColdbenchError(f"{path} does not fit its network: {' '.join(str(error).split())[:300]}") from error
    return Model(**vars(header), network=network.eval().to(device))
