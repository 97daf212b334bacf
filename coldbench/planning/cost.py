"""What one run costs: network calls, floating-point operations (FLOPs), hours on a device, bytes on a disk.

How fast a device is stands in a data file (workflow/config/devices.yaml): images per second that were measured on it,
and its peak with the share of it that is assumed where nothing was. FLOPs are counted by PyTorch on the meta device; a
multiply-add is two. Not counted are what is drawn and degraded, decoding, SSIM, intervals, pictures and waiting.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from coldbench import data
from coldbench.core.config import Run, SampleSet, Sampling
from coldbench.core.errors import unknown
from coldbench.core.experiment import Experiment, Network
from coldbench.core.files import read_yaml
from coldbench.core.validation import Name, Strict, checked

Stage = Literal["train", "sample"]
Precision = Literal["fp32", "tf32", "bf16"]

BACKWARD = 2
"""The backward pass takes this many times the forward pass: gradients of the inputs and of the weights. (PyTorch's own
count of it is wrong for depthwise convolutions: it forgets the groups.)"""
INCEPTION, INCEPTION_SIDE = "inception_v3", 299
INCEPTION_FLOPS = 11_426_432_192
"""One image of 299 px through Inception-v3 to its pooled features and scores; the tests count it again."""
FEATURES = 2048
"""Numbers that FID's Inception makes of an image."""
INCEPTION_BYTES = 96_000_000
"""RunMetadata the size of each of the two files of Inception weights: 24 million float32."""


class Measured(Strict):
    """Images per second of one network on a device, and the command that measured it (tests/bench_cost.py)."""

    network: str
    dim: PositiveInt = 64
    dim_mults: list[PositiveInt] = [1, 2, 4, 8]  # noqa: RUF012 (pydantic copies it)
    size: PositiveInt
    channels: PositiveInt
    precision: Precision
    stage: Stage
    images_per_second: PositiveFloat
    where: str
    command: str


class Device(Strict):
    """A device: FLOP/s at its peak by number format, the share of it that is assumed, and what was measured."""

    title: str
    kind: Literal["cpu", "cuda"] = "cuda"
    source: str = ""
    peak: dict[Precision, PositiveFloat] = {}  # noqa: RUF012
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
    """One device of the file; ColdbenchError with the nearest one if there is none of that name."""
    there = devices(path)
    if name not in there:
        raise unknown("device", name, there)
    return there[name]


@dataclass(frozen=True)
class Size:
    """A network's FLOPs for one image forward, and its bytes: of the whole state, and of what is trained."""

    flops: int
    state: int
    trained: int


def size_of(network: Network, channels: int, side: int) -> Size:
    """What is to be known of a network for images of `side` pixels; counted once, on no memory."""
    return _size_of(network.model_dump_json(), channels, side)


@functools.cache
def _size_of(network: str, channels: int, side: int) -> Size:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from coldbench import models

    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        built = models.build(Network.model_validate_json(network), channels, side).eval()
        built(torch.empty(1, channels, side, side), torch.zeros(1, dtype=torch.int64))
    state = sum(value.numel() * value.element_size() for value in built.state_dict().values())
    trained = sum(value.numel() * value.element_size() for value in built.parameters())
    return Size(counter.get_total_flops(), state, trained)


@dataclass(frozen=True)
class Speed:
    """Images per second, and how that is known: measured, scaled (from a measured network, by FLOPs) or counted."""

    images_per_second: float
    how: Literal["measured", "scaled", "counted"]


def speed(on: Device, network: Network, channels: int, side: int, stage: Stage, precision: Precision) -> Speed:
    """How fast `on` trains or samples a network; one or three channels are one network, which hardly differ."""
    rows = [row for row in on.measured if row.stage == stage]
    rows = [row for row in rows if row.precision == precision] or ([] if on.peak else rows)
    for row in rows:
        if (row.network, row.dim, row.dim_mults, row.size) == (network.name, network.dim, network.dim_mults, side):
            return Speed(row.images_per_second, "measured")
    flops = _flops(network, channels, side)
    if rows:
        there = {id(row): _flops(_network(row), row.channels, row.size) for row in rows}
        near = min(rows, key=lambda row: (row.network != network.name, abs(math.log(there[id(row)] / flops))))
        return Speed(near.images_per_second * there[id(near)] / flops, "scaled")
    format_ = precision if precision in on.peak else "fp32"  # a format that the device lacks is no faster than fp32
    passes = 1 + BACKWARD if stage == "train" else 1
    return Speed(on.peak[format_] * on.share[format_] / (passes * flops), "counted")


def _network(row: Measured) -> Network:
    return Network(name=row.network, dim=row.dim, dim_mults=row.dim_mults)


def _flops(network: Network, channels: int, side: int) -> int:
    return INCEPTION_FLOPS if network.name == INCEPTION else size_of(network, channels, side).flops


@dataclass(frozen=True)
class Time:
    """Hours on one device, and how they are known; "" where no device is used."""

    hours: float = 0.0
    how: str = ""


def training(on: Device, experiment: Experiment) -> Time:
    """A whole training: `updates` of `batch_size` images, forward and backward."""
    told, channels = experiment.training, data.dataset(experiment.dataset).channels
    fast = speed(on, experiment.network, channels, experiment.size, "train", told.precision)
    return Time(told.max_steps * told.batch_size / fast.images_per_second / 3600, fast.how)


def sampling(on: Device, run: Run, T: int, tests: int) -> Time:
    """Every set by each of its methods, from severity T or the set's own; the data set has `tests` test images."""
    from coldbench.models import INFERENCE_BATCH

    told, channels = run.sampling, data.dataset(run.experiment.dataset).channels
    fast = speed(on, run.experiment.network, channels, run.experiment.size, "sample", told.precision)
    shown = sum(
        seen(images_of(told, tests), told, told.inference_batch or INFERENCE_BATCH[on.kind]) * calls(part, method, T)
        for name, part in told.sets.items()
        for method in told.methods_of(name)
    )
    return Time(shown / fast.images_per_second / 3600, fast.how)


def images_of(told: Sampling, tests: int) -> int:
    """The images of each set."""
    return tests if told.images is None else told.images


def calls(part: SampleSet, method: str, T: int) -> int:
    """How often the network is called for one image."""
    return 1 if method == "direct" else len(range(part.assumed_severity or part.severity or T, 0, -part.stride))


def seen(images: int, told: Sampling, tile: int) -> int:
    """The images that the network is shown for `images`: each shard is filled up to whole tiles, at both its ends."""
    shards = [(first, min(first + told.shard_size, images)) for first in range(0, images, told.shard_size)]
    return sum((-(-stop // tile) - first // tile) * tile for first, stop in shards)


Reference = tuple[str, int, int, str, int]
"""A set that distances are taken to: data set, prepared size, size, split, number of images."""


def references(run: Run, counts: Mapping[str, int]) -> set[Reference]:
    """The reference sets of a run: test images for restored ones, both splits for generated ones."""
    science, splits = run.experiment, set[tuple[str, int]]()
    for part in run.sampling.sets.values():
        splits |= set(counts.items()) if part.start else {("test", images_of(run.sampling, counts["test"]))}
    return {(science.dataset, science.prepared_size, science.size, split, n) for split, n in splits}


def scoring(on: Device, run: Run, counts: Mapping[str, int], references: set[Reference], protocols: int) -> Time:
    """Inception's features under so many FID protocols: of all samples, the degraded images, and `references`."""
    images = images_of(run.sampling, counts["test"])
    passed = sum(n for *_, n in references)
    for name, part in run.sampling.sets.items():
        degraded = not part.start and part.assumed_severity is None and part.known == "drawn" and part.stride == 1
        passed += images * (len(run.sampling.methods_of(name)) + degraded)
    if not (protocols and passed):
        return Time()
    fast = speed(on, Network(name=INCEPTION), 3, INCEPTION_SIDE, "sample", "fp32")
    return Time(passed * protocols / fast.images_per_second / 3600, fast.how)


def model_bytes(experiment: Experiment) -> int:
    """A finished model on the disk."""
    return size_of(experiment.network, data.dataset(experiment.dataset).channels, experiment.size).state


def checkpoint_bytes(experiment: Experiment) -> int:
    """The checkpoints that a finished training leaves: each the weights, their average and Adam's two moments."""
    from coldbench.training.checkpoints import ARCHIVE_EVERY, KEEP_NEWEST

    network = size_of(experiment.network, data.dataset(experiment.dataset).channels, experiment.size)
    left = KEEP_NEWEST + (experiment.training.max_steps - 1) // ARCHIVE_EVERY
    return left * 2 * (network.state + network.trained)


def shard_bytes(run: Run, tests: int) -> int:
    """The shards of every set and method, float32."""
    pixels = data.dataset(run.experiment.dataset).channels * run.experiment.size**2
    methods = sum(len(run.sampling.methods_of(name)) for name in run.sampling.sets)
    return 4 * images_of(run.sampling, tests) * pixels * methods


def prepared_bytes(name: str, side: int, counts: Mapping[str, int]) -> int:
    """A prepared data set, uint8."""
    return data.dataset(name).channels * side**2 * sum(counts.values())


def reference_bytes(references: set[Reference], protocols: int) -> int:
    """The kept features of reference sets, float32, and their statistics, float64."""
    from coldbench.evaluation.metrics.reference import KEPT

    kept = sum(4 * min(n, KEPT) * FEATURES + 8 * (FEATURES**2 + FEATURES) for *_, n in references)
    return kept * protocols
