"""What one run costs: network evaluations, floating-point operations (FLOPs), hours on a device, bytes on disk.

A data file (workflow/config/devices.yaml) holds how fast devices are: measured images per second, and the peak of a
device with the share of it that is assumed without a measurement. A multiply-add is two FLOPs. Not counted are
draws and degradations, decoding, SSIM, intervals, pictures and waiting. Nothing here imports torch, except for a
network that `networks.json` does not hold.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from coldbench import data
from coldbench.core.errors import unknown
from coldbench.core.experiment import Experiment, Network
from coldbench.core.files import read_yaml
from coldbench.core.run import Run
from coldbench.core.sampling_settings import INFERENCE_BATCH, SampleSet, Sampling
from coldbench.core.validation import Name, Strict, checked

Stage = Literal["train", "sample"]
Precision = Literal["fp32", "tf32", "bf16"]
Positive = PositiveFloat

BACKWARD = 2
"""The backward pass costs this many forward passes: gradients of the inputs and of the weights. (PyTorch's own count of
it is wrong for depthwise convolutions, because it forgets the groups.)"""
INCEPTION, INCEPTION_SIDE = "inception_v3", 299
INCEPTION_FLOPS = 11_426_432_192
"""One image of 299 px through Inception-v3 to its pooled features and scores; a test counts it again."""
INCEPTION_BYTES = 96_000_000
"""About the size of each of the two files of Inception weights: 24 million float32."""
REFERENCE_BYTES = 120_000_000
"""About the size of a reference set's Inception features: 10,000 rows and a covariance of 2,048 numbers each."""
CHECKPOINTS, ARCHIVE_STEPS = 2, 100_000
"""A finished training leaves its two newest checkpoints, and one of every so many steps."""


class Measured(Strict):
    """Images per second of one network on a device, and the command that measured it (benchmarks/bench_cost.py)."""

    network: str
    dim: PositiveInt = 64
    dim_mults: list[PositiveInt] = [1, 2, 4, 8]  # noqa: RUF012 (pydantic copies it)
    size: PositiveInt
    channels: PositiveInt
    precision: Precision
    stage: Stage
    images_per_second: Positive
    where: str
    command: str


class Device(Strict):
    """A device: FLOP/s at its peak by number format, the assumed share of it, and measured rows."""

    title: str
    kind: Literal["cpu", "cuda"] = "cuda"
    source: str = ""
    peak: dict[Precision, Positive] = {}  # noqa: RUF012
    share: dict[Precision, Annotated[float, Field(gt=0, le=1)]] = {}  # noqa: RUF012
    rationale: str
    measured: list[Measured] = []  # noqa: RUF012

    @model_validator(mode="after")
    def _enough_is_known(self) -> Device:
        if not self.peak and {row.stage for row in self.measured} < {"train", "sample"}:
            raise ValueError("without a peak, both stages must be measured")
        if self.peak and not ("fp32" in self.peak and self.peak.keys() <= self.share.keys() and self.source):
            raise ValueError("a peak needs that of fp32, a share for each format, and its source")
        return self


class Devices(Strict):
    """The whole file of devices."""

    devices: Annotated[dict[Name, Device], Field(min_length=1)]


@functools.cache
def devices(path: Path) -> dict[str, Device]:
    """The devices in a data file; ColdbenchError if it cannot be read or does not fit."""
    return checked(Devices, read_yaml(path), str(path)).devices


def device(path: Path, name: str) -> Device:
    """One device of the file; ColdbenchError with the nearest name if the file does not hold it."""
    known = devices(path)
    if name not in known:
        raise unknown("device", name, known)
    return known[name]


@dataclass(frozen=True)
class Size:
    """A network's FLOPs for one image forward, and the bytes of its weights."""

    flops: int
    weights: int


def size_key(network: Network, channels: int, side: int) -> str:
    """The key of a network in `networks.json`: its settings, the images' channels and side."""
    return json.dumps([network.model_dump(), channels, side], sort_keys=True)


@functools.cache
def _known_sizes() -> dict[str, list[int]]:
    text = (resources.files("coldbench.planning") / "networks.json").read_text("utf-8")
    sizes: dict[str, list[int]] = json.loads(text)
    return sizes


def size_of(network: Network, channels: int, side: int) -> Size:
    """The size of a network for images of `side` pixels: from `networks.json`, or else counted by torch."""
    key = size_key(network, channels, side)
    numbers = _known_sizes().get(key)
    return Size(*numbers) if numbers else count_size(key)


@functools.cache
def count_size(key: str) -> Size:
    """Count the size of the network with this `size_key` by PyTorch's FLOP counter, on the meta device."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from coldbench import models

    settings, channels, side = json.loads(key)
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network = models.build(Network.model_validate(settings), channels, side).eval()
        network(torch.empty(1, channels, side, side), torch.zeros(1, dtype=torch.int64))
    weights = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    return Size(counter.get_total_flops(), weights)


@dataclass(frozen=True)
class Speed:
    """Images per second, and their source: measured, scaled (by FLOPs, from a measured network) or counted."""

    images_per_second: float
    source: Literal["measured", "scaled", "counted"]


def speed(on: Device, network: Network, channels: int, side: int, stage: Stage, precision: Precision) -> Speed:
    """How fast `on` trains or samples a network. One and three channels count as the same network."""
    rows = [row for row in on.measured if row.stage == stage]
    rows = [row for row in rows if row.precision == precision] or ([] if on.peak else rows)
    for row in rows:
        if (row.network, row.dim, row.dim_mults, row.size) == (network.name, network.dim, network.dim_mults, side):
            return Speed(row.images_per_second, "measured")
    flops = _flops(network, channels, side)
    if rows:
        measured = [(row, _flops(measured_network(row), row.channels, row.size)) for row in rows]
        nearest, its_flops = min(
            measured, key=lambda pair: (pair[0].network != network.name, abs(math.log(pair[1] / flops)))
        )
        return Speed(nearest.images_per_second * its_flops / flops, "scaled")
    format_ = precision if precision in on.peak else "fp32"  # a format that the device lacks is no faster than fp32
    passes = 1 + BACKWARD if stage == "train" else 1
    return Speed(on.peak[format_] * on.share[format_] / (passes * flops), "counted")


def measured_network(row: Measured) -> Network:
    return Network(name=row.network, dim=row.dim, dim_mults=row.dim_mults)


def _flops(network: Network, channels: int, side: int) -> int:
    return INCEPTION_FLOPS if network.name == INCEPTION else size_of(network, channels, side).flops


@dataclass(frozen=True)
class Time:
    """Hours on one device, and the source of the number; "" without a device."""

    hours: float = 0.0
    source: str = ""


def training(on: Device, experiment: Experiment) -> Time:
    """A whole training: `max_steps` of `batch_size` images, forward and backward."""
    settings, channels = experiment.training, data.dataset(experiment.dataset).channels
    rate = speed(on, experiment.network, channels, experiment.size, "train", settings.precision)
    return Time(settings.max_steps * settings.batch_size / rate.images_per_second / 3600, rate.source)


def sampling(on: Device, run: Run, tests: int) -> Time:
    """Every set by each of its methods; the data set has `tests` test images."""
    settings, experiment = run.sampling, run.experiment
    T, channels = _severities(experiment), data.dataset(experiment.dataset).channels
    rate = speed(on, experiment.network, channels, experiment.size, "sample", settings.precision)
    batch = settings.inference_batch or INFERENCE_BATCH[on.kind]
    images = padded_images(images_per_set(settings, tests), settings, batch)
    evaluations = sum(
        images * nfe(part, method, T) for name, part in settings.sets.items() for method in settings.methods_of(name)
    )
    return Time(evaluations / rate.images_per_second / 3600, rate.source)


def _severities(experiment: Experiment) -> int:
    """T, which the class of a plug-in may state as a default: then it is built, which imports torch."""
    if "T" in experiment.degradation:
        return int(experiment.degradation["T"])
    from coldbench import degradations

    return degradations.build(experiment.degradation, experiment.size).T


def images_per_set(settings: Sampling, tests: int) -> int:
    """The images of each set."""
    return tests if settings.images is None else settings.images


def nfe(part: SampleSet, method: str, T: int) -> int:
    """The number of network evaluations for one image."""
    return 1 if method == "direct" else len(range(part.assumed_severity or part.severity or T, 0, -part.stride))


def padded_images(images: int, settings: Sampling, inference_batch: int) -> int:
    """The images that the network sees for `images`: each shard is filled up to whole batches at both its ends."""
    shards = [(first, min(first + settings.shard_size, images)) for first in range(0, images, settings.shard_size)]
    return sum((-(-stop // inference_batch) - first // inference_batch) * inference_batch for first, stop in shards)


Reference = tuple[str, int, int, str, int]
"""A reference set of distances: data set, prepared size, size, split, number of images."""


def references(run: Run, counts: Mapping[str, int]) -> set[Reference]:
    """The reference sets of a run: the sampled test images for restored ones, both whole splits for generated ones."""
    experiment, splits = run.experiment, set[tuple[str, int]]()
    for part in run.sampling.sets.values():
        splits |= set(counts.items()) if part.start else {("test", images_per_set(run.sampling, counts["test"]))}
    return {(experiment.dataset, experiment.prepared_size, experiment.size, split, n) for split, n in splits}


def scoring(on: Device, run: Run, counts: Mapping[str, int], references: set[Reference], protocols: int) -> Time:
    """Inception's features under so many FID protocols: of all samples, the degraded images, and `references`."""
    images = images_per_set(run.sampling, counts["test"])
    passes = sum(n for *_, n in references)
    for name, part in run.sampling.sets.items():
        passes += images * (len(run.sampling.methods_of(name)) + part.restores_as_degraded)
    if not (protocols and passes):
        return Time()
    rate = speed(on, Network(name=INCEPTION), 3, INCEPTION_SIDE, "sample", "fp32")
    return Time(passes * protocols / rate.images_per_second / 3600, rate.source)


def model_bytes(experiment: Experiment, imported: bool = False) -> int:
    """A finished model, and the checkpoints of its training: weights, their average and Adam's two moments each."""
    weights = size_of(experiment.network, data.dataset(experiment.dataset).channels, experiment.size).weights
    checkpoints = CHECKPOINTS + (experiment.training.max_steps - 1) // ARCHIVE_STEPS
    return weights if imported else weights * (1 + 4 * checkpoints)


def shard_bytes(run: Run, tests: int) -> int:
    """The shards of every set and method, float32."""
    pixels = data.dataset(run.experiment.dataset).channels * run.experiment.size**2
    methods = sum(len(run.sampling.methods_of(name)) for name in run.sampling.sets)
    return 4 * images_per_set(run.sampling, tests) * pixels * methods


def prepared_bytes(name: str, side: int, counts: Mapping[str, int]) -> int:
    """A prepared data set, uint8."""
    return data.dataset(name).channels * side**2 * sum(counts.values())


def network_sizes(networks: Iterable[tuple[Network, int, int]]) -> dict[str, list[int]]:
    """The content of `networks.json` for networks with their images' channels and side."""
    keys = sorted({size_key(*network) for network in networks})
    return {key: [count_size(key).flops, count_size(key).weights] for key in keys}


def network_of(run: Run) -> tuple[Network, int, int]:
    """The network of a run, and its images' channels and side."""
    return run.experiment.network, data.dataset(run.experiment.dataset).channels, run.experiment.size
