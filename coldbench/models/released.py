"""Checkpoints in the layout of the released code: import them as models of ours, and write ours in that layout.

A released `.pt` holds `step`, `model` and `ema`, state dicts of the whole diffusion module (protocol 1.6): the network
under one of several prefixes, beside blur kernels or schedules. The averaged weights (`ema`) are the ones to sample
with. Nothing in a file is executed; every key and shape is accounted for, and every number of a schedule.
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

from coldbench import data, degradations, models
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import atomic
from coldbench.core.logs import log
from coldbench.core.validation import checked
from coldbench.degradations import Degradation, InpaintingGeneration
from coldbench.degradations.blur import Blur, gaussian_weights
from coldbench.degradations.mixing import Mixing
from coldbench.models import model_file

NETWORK = re.compile(r"^(?:module\.)?(?:denoise_fn|defade_fn)\.(?:module\.)?")
SCHEDULE = re.compile(
    r"^(?:module\.)?(gaussian_kernels\.[0-9]{1,5}\.weight|alphas|one_minus_alphas|(?:sqrt_(?:one_minus_)?)?alphas_cumprod)$"
)
PREFIXES = {  # of the network's keys, by the folder of the released code that trains such a degradation (protocol 1.6)
    "animorphosis": "module.denoise_fn.",
    "blur": "module.denoise_fn.",
    "decolorization": "denoise_fn.",
    "inpainting": "module.defade_fn.",
    "inpainting_generation": "module.denoise_fn.",
    "noise": "module.denoise_fn.",
    "snow": "denoise_fn.",
    "superresolution": "module.denoise_fn.",
}
RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""How exactly a schedule must be the experiment's: float32 sums err by 4e-6 (golden vectors), float16 by 5e-4 of it."""
SHOWN = 4
"""How many keys an error names."""


def load(path: Path, experiment: Experiment) -> dict[str, Tensor]:
    """The averaged weights of a released checkpoint for `experiment`'s network, float32, under our keys.

    A schedule in the file must be the experiment's, whole and in its numbers (`schedule`); without any the file is
    taken for the network alone. Raises ColdbenchError naming what is missing, extra, there twice, of a wrong shape,
    not floating point, not finite or of another schedule, and the length of a schedule that is not T.
    """
    degradation = degradations.for_experiment(experiment, None)
    weights, rest = _split(path, _read(path))
    channels = data.dataset(experiment.dataset).channels
    with torch.device("meta"):
        network = models.build(experiment.network, channels, experiment.size).state_dict()
    wanted = schedule(degradation, channels) if rest else {}
    _check_steps(path, rest, wanted, experiment.run, degradation.T)
    _check_keys(f"{path} does not fit the schedule of {degradation.name} with T = {degradation.T}", rest, wanted)
    of = f"{experiment.network.name} of {channels} channels, dim {experiment.network.dim}"
    _check_keys(f"{path} does not fit the {of}", weights, network)
    weights, rest = _single(path, weights), _single(path, rest)
    if other := [key for key, value in rest.items() if not torch.allclose(value, wanted[key], RELATIVE, ABSOLUTE)]:
        raise ColdbenchError(f"{path} was trained on another schedule than {experiment.run}: {_some(other)} differ")
    return {key: weights[key] for key in network}


def schedule(degradation: Degradation, channels: int) -> dict[str, Tensor]:
    """What a released checkpoint of `degradation` holds beside the network, float32, without `module.` (protocol 1.6).

    Of blur the kernel of each step, (channels, 1, k, k); of noise and animorphosis ᾱ and its two square roots, (T,); of
    inpainting for generation the weights of image and colour, (T, 1, size, size); of all others nothing. Severity 0 is
    not among them. How the kernels are composed and padded, and what is discrete, stands in no checkpoint.
    """
    found = dict[str, Tensor]()
    if isinstance(degradation, Blur):
        for i, (kernel, std) in enumerate(zip(degradation.kernels(), degradation.stds(), strict=True)):
            weights = torch.from_numpy(gaussian_weights(int(kernel), float(std)))
            found[f"gaussian_kernels.{i}.weight"] = torch.outer(weights, weights).expand(channels, 1, -1, -1)
    elif isinstance(degradation, Mixing):
        keep, mix = torch.from_numpy(degradation.operators())[1:].T
        found = {"alphas_cumprod": keep**2, "sqrt_alphas_cumprod": keep, "sqrt_one_minus_alphas_cumprod": mix}
    elif isinstance(degradation, InpaintingGeneration):
        image = torch.from_numpy(degradation.operators())[1:, None]
        found = {"alphas": image, "one_minus_alphas": 1 - image}
    return {key: value.to(torch.float32).contiguous() for key, value in found.items()}


def save(path: Path, weights: dict[str, Tensor], experiment: Experiment) -> None:
    """Write weights as a released checkpoint: `step`, and as `model` and as `ema` every entry that protocol 1.6 names.

    These are the network under its family's prefix, and `schedule`: kernels, ᾱ or the weights of image and colour,
    computed anew. Covered are the names, shapes and numbers of all eight families, as that table and the golden vectors
    have them, and that `load` takes them back; the released code itself was not run on such a file. Its MNIST and
    CIFAR-10 scripts of inpainting and super-resolution leave out the wrapper that the table's `module.` stands for.
    """
    beside = schedule(degradations.for_experiment(experiment, None), data.dataset(experiment.dataset).channels)
    prefix = PREFIXES[experiment.degradation["name"]]
    outer = "module." if prefix.startswith("module.") else ""
    module = {f"{prefix}{key}": value for key, value in weights.items()}
    module |= {f"{outer}{key}": value for key, value in beside.items()}
    with atomic(path) as temporary:
        torch.save({"step": experiment.training.max_steps, "model": module, "ema": module}, temporary)


def import_model(source: Path, out: Path, experiment: Experiment) -> None:
    """Turn the released checkpoint `source` into the model `out`, with its experiment and where it came from."""
    weights = load(source, experiment)
    model_file.save_model(out, weights, experiment, {"imported": source.name})
    log.info("%s: %d tensors, %s parameters", out, len(weights), f"{sum(v.numel() for v in weights.values()):,}")


def export_model(model: Path, out: Path) -> None:
    """Write a model of ours for other code: safetensors with the network's own names, or a released checkpoint."""
    weights, about = model_file.load_weights(model)
    if out.suffix == ".safetensors":
        model_file.save_weights(out, weights, about)
    elif out.suffix == ".pt":
        save(out, weights, _experiment(model, about["experiment"]))
    else:
        raise ColdbenchError(f"cannot export to {out}: its suffix must be .safetensors or .pt")


def _experiment(model: Path, text: str) -> Experiment:
    """The experiment in the metadata of `model`, without the origin that stands there beside it."""
    try:
        fields = json.loads(text)
        fields.pop("provenance", None)
    except (ValueError, AttributeError, TypeError) as error:
        raise ColdbenchError(f"the experiment in {model} is damaged: {error}") from error
    return checked(Experiment, fields, f"the experiment in {model}")


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
    if stray := [key for key, value in state["ema"].items() if not isinstance(key, str) or not _is_plain(value)]:
        raise ColdbenchError(f"checkpoint {path}: {_some(map(str, stray))} in 'ema' is no tensor, named and dense")
    return dict(state["ema"])


def _is_plain(value: object) -> bool:
    """Whether a value is a tensor that holds a number at every place."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _split(path: Path, entries: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's tensors without their prefix, and the schedule's; what is not recognised stays with the network."""
    weights, rest = dict[str, Tensor](), dict[str, Tensor]()
    for key, value in entries.items():
        found = SCHEDULE.match(key)
        part, name = (rest, found[1]) if found else (weights, NETWORK.sub("", key))
        if name in part:
            raise ColdbenchError(f"{path} holds {name} twice, under two prefixes; the second is {key}")
        part[name] = value
    return weights, rest


def _check_steps(path: Path, rest: dict[str, Tensor], wanted: dict[str, Tensor], run: str, T: int) -> None:
    """Raise ColdbenchError if a schedule of the right kind has another length than the T of `run`."""
    kernels = [int(key.split(".")[1]) for key in rest if "." in key and "gaussian_kernels.0.weight" in wanted]
    lengths = {len(value) for key, value in rest.items() if key in wanted and "." not in key and value.ndim}
    lengths |= {max(kernels) + 1} if kernels else set()
    if lengths - {T}:
        raise ColdbenchError(f"{path} was trained with T = {min(lengths - {T})}, but {run} has T = {T}")


def _check_keys(told: str, found: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """Raise ColdbenchError that begins with `told` unless both have the same keys and shapes."""
    parts = []
    if missing := [key for key in wanted if key not in found]:
        parts.append(f"{len(missing)} missing ({_some(missing)})")
    if extra := [key for key in found if key not in wanted]:
        parts.append(f"{len(extra)} extra ({_some(extra)})")
    shapes = [key for key in wanted if key in found and found[key].shape != wanted[key].shape]
    if shapes:
        pairs = [f"{key}: {tuple(found[key].shape)}, not {tuple(wanted[key].shape)}" for key in shapes]
        parts.append(f"{len(shapes)} of a wrong shape ({_some(pairs)})")
    if parts:
        raise ColdbenchError(f"{told}: keys {'; '.join(parts)}")


def _single(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors in float32; ColdbenchError if any is not floating point, or not finite in float32."""
    if bad := [key for key, value in tensors.items() if not value.is_floating_point()]:
        raise ColdbenchError(f"{path}: weights are not floating point in {_some(bad)}")
    single = {key: value.detach().to(torch.float32) for key, value in tensors.items()}
    if bad := [key for key, value in single.items() if not bool(value.isfinite().all())]:
        raise ColdbenchError(f"{path}: weights are not finite in {_some(bad)}")
    return single


def _some(keys: Iterable[str]) -> str:
    names = list(keys)
    return ", ".join(names[:SHOWN]) + (", …" if len(names) > SHOWN else "")
