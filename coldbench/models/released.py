"""Checkpoints in the layout of the released code: import one as a model, export a model as one.

A released `.pt` file holds `step`, `model` and `ema`. The last two are state dicts of the whole diffusion module
(protocol 1.6): the network under one of several prefixes, beside the blur kernels or the schedule. The averaged weights
(`ema`) are the ones to sample with. Loading executes nothing in a file, and accounts for every key, every shape and
every number of a schedule.
"""

from __future__ import annotations

import contextlib
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coldbench import data, degradations
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import atomic
from coldbench.core.logs import log
from coldbench.degradations import Degradation, InpaintingGeneration
from coldbench.degradations.blur import Blur, gaussian_weights
from coldbench.degradations.mixing import Mixing
from coldbench.models import model_file, registry
from coldbench.models.header import read_header

Weights = dict[str, Tensor]
NETWORK = re.compile(r"^(?:module\.)?(?:denoise_fn|defade_fn)\.(?:module\.)?")
SCHEDULE = re.compile(
    r"^(?:module\.)?(gaussian_kernels\.[0-9]{1,5}\.weight|alphas|one_minus_alphas|(?:sqrt_(?:one_minus_)?)?alphas_cumprod)$"
)
PREFIXES = {
    "animorphosis": "module.denoise_fn.",
    "blur": "module.denoise_fn.",
    "decolorization": "denoise_fn.",
    "inpainting": "module.defade_fn.",
    "inpainting_generation": "module.denoise_fn.",
    "noise": "module.denoise_fn.",
    "snow": "denoise_fn.",
    "superresolution": "module.denoise_fn.",
}
"""The prefix of the network's keys in the released code of each degradation (protocol 1.6)."""
RELATIVE, ABSOLUTE = 1e-3, 1e-5
"""The tolerance of a schedule's numbers: float32 sums err by 4e-6 (golden vectors), float16 by a relative 5e-4."""
MOST_NAMES, LONGEST_NAME = 4, 60
"""The number of keys in an error message, and of characters of each."""
OBJECT = re.compile(r"GLOBAL ([\w.]+)")
"""Where torch names the object that it refuses to load."""


def load(path: Path, experiment: Experiment) -> Weights:
    """The averaged weights in the released checkpoint `path`, float32, with the keys of `experiment`'s network.

    A schedule in the file must be complete and equal to the experiment's (`schedule`); a file without one is accepted.
    Raises ColdbenchError for keys that are missing, extra, double or of a wrong shape, for numbers that are not finite
    or not floating point, and for another schedule or another T.
    """
    degradation = degradations.for_experiment(experiment, None)
    channels = data.dataset(experiment.dataset).channels
    weights, steps = _split(path, _read(path))
    with torch.device("meta"):
        network = registry.build(experiment.network, channels, experiment.size).state_dict()
    expected = schedule(degradation, channels) if steps else {}
    _check_length(path, steps, expected, experiment.run, degradation.T)
    _check_keys(path, f"schedule of {degradation.name} with T = {degradation.T}", steps, expected)
    description = f"{experiment.network.name} of {channels} channels, dim {experiment.network.dim}"
    _check_keys(path, description, weights, network)
    weights, steps = _to_float32(path, weights), _to_float32(path, steps)
    other = [key for key, value in steps.items() if not torch.allclose(value, expected[key], RELATIVE, ABSOLUTE)]
    if other:
        raise ColdbenchError(f"{path} was trained on another schedule than {experiment.run}: {_names(other)} differ")
    return {key: weights[key] for key in network}


def schedule(degradation: Degradation, channels: int) -> Weights:
    """The entries of a released checkpoint beside the network, float32, without `module.` (protocol 1.6).

    Blur has the kernel of each step, (channels, 1, k, k); noise and animorphosis have ᾱ and its two square roots, (T,);
    inpainting for generation has the weights of image and colour, (T, 1, size, size); the others have none. Severity 0
    is left out. No checkpoint says how kernels are composed and padded, or what is rounded to 8 bits.
    """
    entries: Weights = {}
    if isinstance(degradation, Blur):
        for i, (kernel, std) in enumerate(zip(degradation.kernels(), degradation.stds(), strict=True)):
            weights = torch.from_numpy(gaussian_weights(int(kernel), float(std)))
            entries[f"gaussian_kernels.{i}.weight"] = torch.outer(weights, weights).expand(channels, 1, -1, -1)
    elif isinstance(degradation, Mixing):
        keep, mix = torch.from_numpy(degradation.operators())[1:].T
        entries = {"alphas_cumprod": keep**2, "sqrt_alphas_cumprod": keep, "sqrt_one_minus_alphas_cumprod": mix}
    elif isinstance(degradation, InpaintingGeneration):
        image = torch.from_numpy(degradation.operators())[1:, None]
        entries = {"alphas": image, "one_minus_alphas": 1 - image}
    return {key: value.to(torch.float32).contiguous() for key, value in entries.items()}


def save(path: Path, weights: Weights, experiment: Experiment) -> None:
    """Write weights as a released checkpoint: `step`, `model` and `ema`, the last two with equal entries.

    The entries are the network under the prefix of its family, and `schedule`. Names, shapes and numbers follow
    protocol 1.6 and the golden vectors, and `load` reads them; the released code itself was not run on such a file.
    Its MNIST and CIFAR-10 scripts for inpainting and super-resolution omit the wrapper that adds `module.`.
    """
    beside = schedule(degradations.for_experiment(experiment, None), data.dataset(experiment.dataset).channels)
    prefix = PREFIXES[experiment.degradation["name"]]
    outer = "module." if prefix.startswith("module.") else ""
    module = {f"{prefix}{key}": value for key, value in weights.items()}
    module |= {f"{outer}{key}": value for key, value in beside.items()}
    content = {"step": experiment.training.max_steps, "model": module, "ema": module}
    try:
        with atomic(path) as temporary:
            torch.save(content, temporary)
    except RuntimeError as error:  # torch reports a full disk as RuntimeError
        raise ColdbenchError(f"cannot write {path}: no space left, or the file system failed") from error


def import_model(source: Path, out: Path, experiment: Experiment) -> None:
    """Write the released checkpoint `source` as the model `out` of `experiment`.

    A trained model in its place, and an imported one of another experiment, are set aside.
    """
    weights = load(source, experiment)
    channels = data.dataset(experiment.dataset).channels
    with contextlib.suppress(ColdbenchError):
        old = read_header(out)
        if "imported" not in old.provenance or old.experiment.fingerprint != experiment.fingerprint:
            model_file.set_aside(out)
    model_file.save_model(out, weights, experiment, channels, {"imported": source.name})
    log.info("%s: %d tensors, %s parameters", out, len(weights), f"{sum(v.numel() for v in weights.values()):,}")


def export_model(model: Path, out: Path) -> None:
    """Write a model for other code: .safetensors with the network's own keys, or .pt as a released checkpoint."""
    weights, header = model_file.load_weights(model)
    if out.suffix == ".safetensors":
        model_file.save_model(out, weights, header.experiment, header.channels, header.provenance, vars(header))
    elif out.suffix == ".pt":
        save(out, weights, header.experiment)
    else:
        raise ColdbenchError(f"cannot export to {out}: its suffix must be .safetensors or .pt")


def _read(path: Path) -> Weights:
    """The `ema` entry of a checkpoint; a file with anything but tensors in it is refused."""
    if not path.is_file():
        raise ColdbenchError(f"checkpoint {path} does not exist")
    try:
        _check_archive(path)
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except ColdbenchError:
        raise
    except Exception as error:  # a damaged file can raise anything: of zip, of pickle, at its end, of an object in it
        if culprit := OBJECT.search(str(error)):
            name = _names(culprit.groups())
            raise ColdbenchError(f"checkpoint {path} holds other objects than tensors: {name}; not loaded") from None
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:150]
        if "weights_only" in reason:  # torch's advice to load everything that a file holds
            reason = type(error).__name__
        raise ColdbenchError(f"checkpoint {path} cannot be read as tensors: {reason}") from None
    ema = content.get("ema") if isinstance(content, dict) else None
    if not isinstance(ema, dict):
        keys = f"keys {_names(map(str, content))}" if isinstance(content, dict) else type(content).__name__
        raise ColdbenchError(f"checkpoint {path} has no entry 'ema' with the averaged weights ({keys})")
    if bad := [key for key, value in ema.items() if not isinstance(key, str) or not _is_dense(value)]:
        raise ColdbenchError(f"checkpoint {path}: {_names(map(str, bad))} in 'ema' is no tensor, named and dense")
    return dict(ema)


def _check_archive(path: Path) -> None:
    """Compare the checksums of a zip file, because torch does not; a file from before torch 1.6 has none."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ColdbenchError(f"checkpoint {path} is damaged: {_names([damaged])} has a wrong checksum")


def _is_dense(value: object) -> bool:
    """Whether a value is a tensor with a number in every element."""
    return isinstance(value, Tensor) and value.layout == torch.strided and not value.is_meta


def _split(path: Path, entries: Weights) -> tuple[Weights, Weights]:
    """The network's tensors without their prefix, and the schedule's; unknown keys go with the network."""
    weights, steps = Weights(), Weights()
    for key, value in entries.items():
        match = SCHEDULE.match(key)
        group, name = (steps, match[1]) if match else (weights, NETWORK.sub("", key))
        if name in group:
            raise ColdbenchError(
                f"{path} holds {_names([name])} twice, under two prefixes; the second is {_names([key])}"
            )
        group[name] = value
    return weights, steps


def _check_length(path: Path, steps: Weights, expected: Weights, run: str, T: int) -> None:
    """Raise ColdbenchError if the schedule has the right kind but another length than T."""
    lengths = {len(value) for key, value in steps.items() if key in expected and "." not in key and value.ndim}
    if "gaussian_kernels.0.weight" in expected:
        kernels = [int(key.split(".")[1]) for key in steps if "." in key]
        lengths |= {max(kernels) + 1} if kernels else set()
    if lengths - {T}:
        raise ColdbenchError(f"{path} was trained with T = {min(lengths - {T})}, but {run} has T = {T}")


def _check_keys(path: Path, owner: str, entries: Weights, expected: Weights) -> None:
    """Raise ColdbenchError unless the entries have the keys and shapes that their `owner` expects."""
    shapes = [
        f"{key}: {tuple(entries[key].shape)}, not {tuple(value.shape)}"
        for key, value in expected.items()
        if key in entries and entries[key].shape != value.shape
    ]
    differences = {
        "missing": [key for key in expected if key not in entries],
        "extra": [key for key in entries if key not in expected],
        "of a wrong shape": shapes,
    }
    parts = [f"{len(keys)} {kind} ({_names(keys)})" for kind, keys in differences.items() if keys]
    if parts:
        raise ColdbenchError(f"{path} does not fit the {owner}: keys {'; '.join(parts)}")


def _to_float32(path: Path, tensors: Weights) -> Weights:
    """The tensors as float32; ColdbenchError if one is not floating point, or not finite in float32."""
    if bad := [key for key, value in tensors.items() if not value.is_floating_point()]:
        raise ColdbenchError(f"{path}: weights are not floating point in {_names(bad)}")
    single = {key: value.detach().to(torch.float32) for key, value in tensors.items()}
    if bad := [key for key, value in single.items() if not bool(value.isfinite().all())]:
        raise ColdbenchError(f"{path}: weights are not finite in {_names(bad)}")
    return single


def _names(keys: Iterable[str]) -> str:
    """The first keys, for an error message; a key of a foreign file may be long and hold anything."""
    names = list(keys)
    shown = [name if len(name) <= LONGEST_NAME else f"{name[:LONGEST_NAME]}…" for name in names[:MOST_NAMES]]
    visible = [name if name.isprintable() else name.encode("unicode_escape").decode() for name in shown]
    return ", ".join(visible) + (", …" if len(names) > MOST_NAMES else "")
