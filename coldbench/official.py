"""Checkpoints in the layout of the released code: import them as models of ours, and write ours in that layout.

A released `.pt` holds `step`, `model` and `ema`, state dicts of the whole diffusion module (protocol 1.6): the network
under one of several prefixes, beside blur kernels or schedules. The averaged weights (`ema`) are the ones to sample
with. Nothing in a file is executed, and every key and shape is accounted for.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coldbench import checkpoint, data, models
from coldbench.errors import ColdbenchError
from coldbench.experiment import Experiment
from coldbench.files import atomic
from coldbench.progress import log

NETWORK = re.compile(r"^(?:module\.)?(?:denoise_fn|defade_fn)\.(?:module\.)?")
OF_LENGTH_T = re.compile(r"^(?:module\.)?(alphas|one_minus_alphas|(?:sqrt_(?:one_minus_)?)?alphas_cumprod)$")
KERNEL = re.compile(r"^(?:module\.)?gaussian_kernels\.(\d+)\.weight$")
SHOWN = 4
"""How many keys an error names."""


def load(path: Path, experiment: Experiment) -> dict[str, Tensor]:
    """The averaged weights of a released checkpoint for `experiment`'s network, under our keys.

    Raises ColdbenchError naming what is missing, extra or of a wrong shape, and if the file's schedule has another
    length than the experiment's T.
    """
    weights, rest = _split(_read(path))
    _check_schedule(path, rest, experiment)
    channels = data.dataset(experiment.dataset).channels
    with torch.device("meta"):
        wanted = models.build(experiment.network, channels, experiment.size).state_dict()
    told = []
    if missing := [key for key in wanted if key not in weights]:
        told.append(f"{len(missing)} missing ({_some(missing)})")
    if extra := [key for key in weights if key not in wanted]:
        told.append(f"{len(extra)} extra ({_some(extra)})")
    shapes = [key for key in wanted if key in weights and weights[key].shape != wanted[key].shape]
    if shapes:
        pairs = [f"{key}: {tuple(weights[key].shape)}, not {tuple(wanted[key].shape)}" for key in shapes]
        told.append(f"{len(shapes)} of a wrong shape ({_some(pairs)})")
    if told:
        network = f"{experiment.network.name} of {channels} channels, dim {experiment.network.dim}"
        raise ColdbenchError(f"{path} does not fit the {network}: keys {'; '.join(told)}")
    if bad := [key for key, value in weights.items() if not bool(value.isfinite().all())]:
        raise ColdbenchError(f"{path}: weights are not finite in {_some(bad)}")
    return {key: weights[key].to(torch.float32) for key in wanted}


def save(path: Path, weights: dict[str, Tensor], step: int) -> None:
    """Write weights as a released checkpoint: `step`, and the network under `module.denoise_fn.`, twice."""
    module = {f"module.denoise_fn.{key}": value for key, value in weights.items()}
    with atomic(path) as temporary:
        torch.save({"step": step, "model": module, "ema": module}, temporary)


def import_model(source: Path, out: Path, experiment: Experiment) -> None:
    """Turn the released checkpoint `source` into the model `out`, with its experiment and where it came from."""
    weights = load(source, experiment)
    checkpoint.save_model(out, weights, experiment, {"imported": source.name})
    log.info("%s: %d tensors, %s parameters", out, len(weights), f"{sum(v.numel() for v in weights.values()):,}")


def export_model(model: Path, out: Path) -> None:
    """Write a model of ours for other code: safetensors with the network's own names, or a released checkpoint."""
    weights, about = checkpoint.load_weights(model)
    if out.suffix == ".safetensors":
        checkpoint.save_weights(out, weights, about)
    elif out.suffix == ".pt":
        save(out, weights, int(json.loads(about["experiment"])["training"]["updates"]))
    else:
        raise ColdbenchError(f"cannot export to {out}: its suffix must be .safetensors or .pt")


def _read(path: Path) -> dict[str, Tensor]:
    """The `ema` entry of a checkpoint; tensors only, whatever else the file holds is refused."""
    if not path.is_file():
        raise ColdbenchError(f"checkpoint {path} does not exist")
    try:
        if zipfile.is_zipfile(path):  # files written before torch 1.6 are not; torch itself passes over wrong checksums
            with zipfile.ZipFile(path) as archive:
                if (damaged := archive.testzip()) is not None:
                    raise ColdbenchError(f"checkpoint {path} is damaged: {damaged} has a wrong checksum")
        state: Any = torch.load(path, map_location="cpu", weights_only=True)
    except ColdbenchError:
        raise
    except Exception as error:  # what goes wrong is up to the file: zip, pickle, end of file, a forbidden object
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ColdbenchError(f"checkpoint {path} cannot be read as tensors: {reason[:200]}") from None
    if not isinstance(state, dict) or not isinstance(state.get("ema"), dict):
        keys = f"keys {_some(map(str, state))}" if isinstance(state, dict) else type(state).__name__
        raise ColdbenchError(f"checkpoint {path} has no entry 'ema' with the averaged weights ({keys})")
    if stray := [key for key, value in state["ema"].items() if not isinstance(value, Tensor)]:
        raise ColdbenchError(f"checkpoint {path}: {_some(map(str, stray))} in 'ema' is no tensor")
    return dict(state["ema"])


def _split(entries: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's tensors without their prefix, and all others; what is not recognised stays with the network."""
    weights, rest = {}, {}
    for key, value in entries.items():
        if OF_LENGTH_T.match(key) or KERNEL.match(key):
            rest[key] = value
        else:
            weights[NETWORK.sub("", key)] = value
    return weights, rest


def _check_schedule(path: Path, rest: dict[str, Tensor], experiment: Experiment) -> None:
    T = int(experiment.degradation["T"])
    lengths = {len(value) for key, value in rest.items() if OF_LENGTH_T.match(key)}
    if kernels := [int(found[1]) for key in rest if (found := KERNEL.match(key))]:
        lengths.add(max(kernels) + 1)
    if lengths - {T}:
        raise ColdbenchError(f"{path} was trained with T = {min(lengths - {T})}, but {experiment.run} has T = {T}")


def _some(keys: Iterable[str]) -> str:
    names = list(keys)
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
