"""A finished model on disk: safetensors with its experiment in the metadata. Loading executes no code of the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from coldbench import degradations
from coldbench.core.checksums import UNSEALED, check_seal, seal
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import atomic
from coldbench.core.images import from_uint8
from coldbench.core.logs import log
from coldbench.data.image_io import list_images, read
from coldbench.degradations import Degradation
from coldbench.models import inference, registry
from coldbench.models.header import ModelHeader, read_header


@dataclass(frozen=True)
class Model(ModelHeader):
    """A finished model: what its file says of it, and its network in evaluation mode.

    `degradation`, `restorer` and `read_images` give what the samplers take.
    """

    network: nn.Module

    def restorer(self, inference_batch: int | None = None) -> inference.Restorer:
        """R(x, s) of the network; `models.restorer` says what `inference_batch` is for."""
        return inference.restorer(self.network, inference_batch)

    def degradation(self, partner: Path | str | None = None) -> Degradation:
        """The degradation that the model restores; `partner` is the prepared data set whose images it mixes in.

        ColdbenchError if it mixes in images and `partner` is missing.
        """
        if self.experiment.partner and partner is None:
            raise ColdbenchError(
                f"the model mixes in images of {self.experiment.partner}: give that prepared data set as partner"
            )
        return degradations.for_experiment(self.experiment, None if partner is None else Path(partner))

    def read_images(self, source: Path | str, resize: bool = False) -> Tensor:
        """The image `source`, or those in that folder and below it in natural order, as the model takes them.

        float32 (N, channels, size, size) in [-1, 1], on the network's device. `resize` brings images of any size to the
        model's. ColdbenchError if there is no image, or if one cannot be read or has another size.
        """
        path = Path(source)
        files = list_images(path) if path.is_dir() else [path]
        if not files:
            raise ColdbenchError(f"{path} holds no images")
        pixels = [read(file, self.experiment.size, self.channels, resize)[0] for file in files]
        return from_uint8(np.stack(pixels), next(self.network.parameters()).device)


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


def load_model(path: Path | str, device: torch.device | str = "cpu", channels: int | None = None) -> Model:
    """The model that `save_model` wrote to `path`, on `device`.

    Raises ColdbenchError if the file is damaged, does not fit its own experiment, or restores images with another
    number of channels than `channels`.
    """
    path = Path(path)
    weights, header = load_weights(path)
    if channels not in (None, header.channels):
        raise ColdbenchError(f"{path} restores images with {header.channels} channels, not {channels}")
    network = registry.build(header.experiment.network, header.channels, header.experiment.size)
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise ColdbenchError(f"{path} does not fit its network: {' '.join(str(error).split())[:300]}") from error
    return Model(**vars(header), network=network.eval().to(device))
