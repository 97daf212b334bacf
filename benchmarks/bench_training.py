"""Measures one step of the training against a plain implementation of the released algorithm; prints a table.

    python benchmarks/bench_training.py [--only NAME] [--steps 3]
    python benchmarks/bench_training.py --device cuda --batch 32 --steps 20 --precision bf16 --compile --channels-last
    python benchmarks/bench_training.py --memory T      the peak memory of one step, in MB

Both train the paper's network (56.6 million parameters) on the same batches and take turns; the figures are medians.
The baseline degrades a batch step by step up to its largest severity, as in `bench_degradations.py`, and uses torch's
default Adam in fp32; on a GPU also with TF32 convolutions, torch's default. "Outside" is the share of a step of this
package outside the network's forward and backward pass: drawing and degrading the batch, gradient norm, optimiser, EMA.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bench_device
import numpy as np
import torch
from bench_degradations import CELEBA, batch_by_recursion, blur_steps
from bench_device import BenchDevice
from torch import Tensor

from coldbench import data, degradations, models
from coldbench.core.experiment import Experiment, Network, Training
from coldbench.core.images import from_uint8
from coldbench.degradations import blur
from coldbench.training import distributed
from coldbench.training.loop import Batch, TrainingSet, TrainingState, optimizer_step, training_batch

CASES: dict[str, tuple[str, int, int, dict[str, Any]]] = {  # data set, size, default micro-batch, degradation
    "CelebA blur, 128 px": ("photos", 128, 4, {**CELEBA, "T": 200}),
    "MNIST blur, 32 px": ("digits", 32, 32, {"name": "blur", "T": 20, "kernel": 11, "std": 7.0}),
}
EMA_EVERY = 10


def training_set(name: str, batch: int, T: int = 0) -> TrainingSet:
    """The experiment of a case and its first 256 training images."""
    dataset, size, default_batch, spec = CASES[name]
    build = data.dataset(dataset).build(Path(), size, "train")
    experiment = Experiment(
        name="bench",
        protocol="bench",
        budget="bench",
        dataset=dataset,
        size=size,
        seed=0,
        degradation={**spec, "T": T or spec["T"]},
        network=Network(),
        training=Training(batch_size=2 * (batch or default_batch), grad_accumulation=2),
    )
    degradation = degradations.build(experiment.degradation, size)
    return TrainingSet(np.stack([next(build) for _ in range(256)]), experiment, degradation, 1)


class Package:
    """The training step of this package on the batches of a case."""

    def __init__(self, source: TrainingSet, target: BenchDevice) -> None:
        self.source, self.target = source, target
        self.fabric = distributed.launch(target.device, target.precision)
        network = models.build(Network(), source.images.shape[1], source.experiment.size).to(target.device).train()
        ema = {key: value.clone() for key, value in network.state_dict().items()}
        adam = torch.optim.Adam(network.parameters(), lr=2e-5, fused=True)
        network, adam = self.fabric.setup(distributed.prepare(network, target.options), adam)
        self.state = TrainingState(network, adam, ema)
        self.steps, self.preparing = 0, 0.0

    def batches(self) -> Iterator[Batch]:
        """The micro-batches of one step; adds up the time to make them."""
        training = self.source.experiment.training
        for k in range(training.grad_accumulation):
            start = self.target.now()
            first = self.steps * training.batch_size + k * training.micro_batch
            batch = training_batch(self.source, first, training.micro_batch, self.target.device)
            self.preparing += self.target.now() - start
            yield batch

    def step(self) -> tuple[float, float]:
        """Seconds of one step, and those outside the network."""
        self.preparing = 0.0
        start = self.target.now()
        self.state.step = EMA_EVERY * self.steps + 1  # a step without EMA, which is timed separately
        optimizer_step(self.state, self.batches(), self.source.experiment.training, self.fabric)
        total = self.target.now() - start
        self.steps += 1
        return total, self.preparing + self._time_optimizer() + self._time_ema() / EMA_EVERY

    def _time_optimizer(self) -> float:
        start = self.target.now()
        torch.nn.utils.get_total_norm([p.grad for p in self.state.network.parameters() if p.grad is not None])
        self.state.optimizer.step()
        return self.target.now() - start

    def _time_ema(self) -> float:
        start = self.target.now()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.state.ema.values()), list(self.state.network.state_dict().values()), 0.005)
        return self.target.now() - start


class Baseline:
    """The plain implementation of the algorithm on the same images, in fp32, or with TF32 in its convolutions."""

    def __init__(self, source: TrainingSet, target: BenchDevice, tf32: bool) -> None:
        assert isinstance(source.degradation, blur.Blur)
        self.target, self.tf32, self.T, self.steps = target, tf32, source.degradation.T, 0
        channels = source.images.shape[1]
        self.blurs = [step.to(target.device) for step in blur_steps(source.degradation, channels)]  # type: ignore[attr-defined]
        self.images = from_uint8(source.images[: source.experiment.training.batch_size], target.device)
        self.network = models.build(Network(), channels, source.experiment.size).to(target.device).train()
        self.ema = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.adam = torch.optim.Adam(self.network.parameters(), lr=2e-5)

    def step(self) -> float:
        """Seconds of one step."""
        before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, self.tf32
        start = self.target.now()
        self._step()
        seconds = self.target.now() - start
        torch.backends.cudnn.allow_tf32 = before
        self.steps += 1
        return seconds

    def _step(self) -> None:
        for x0 in self.images.chunk(2):
            t = torch.randint(0, self.T, (len(x0),), device=x0.device)
            with torch.no_grad():
                xt = batch_by_recursion(self.blurs, x0, t + 1)
            loss: Tensor = (self.network(xt, t) - x0).abs().mean() / 2
            loss.backward()
        self.adam.step()
        self.adam.zero_grad()
        if self.steps % EMA_EVERY == 0:
            with torch.no_grad():
                for name, value in self.network.named_parameters():
                    self.ema[name].mul_(0.995).add_(value, alpha=0.005)


def print_case(name: str, batch: int, steps: int, target: BenchDevice) -> None:
    """The lines of one case."""
    source = training_set(name, batch)
    size, channels = source.experiment.training.batch_size, source.images.shape[1]
    package, baselines = Package(source, target), {"fp32": Baseline(source, target, tf32=False)}
    if target.device.type == "cuda":
        baselines["TF32 convolutions"] = Baseline(source, target, tf32=True)
    package_times: list[tuple[float, float]] = []
    baseline_times: dict[str, list[float]] = {label: [] for label in baselines}
    for _ in range(steps + 1):  # the first warms up, and compiles
        package_times.append(package.step())
        for label, baseline in baselines.items():
            baseline_times[label].append(baseline.step())
    seconds = statistics.median(total for total, _ in package_times[1:])
    outside = statistics.median(rest / total for total, rest in package_times[1:])
    mfu = target.utilisation(Network(), channels, source.experiment.size, size / seconds, passes=3)
    for label, times in baseline_times.items():
        slow = statistics.median(times[1:])
        speeds = f"{size / seconds:12.2f}{size / slow:12.2f}{slow / seconds:8.2f}×"
        print(f"{name:22}{label:>20}{size:7}{speeds}{outside:10.1%}{mfu:>8}", flush=True)


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases with this in their name, and no peak memory")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=0, help="images in a micro-batch (default: what a laptop can do)")
    bench_device.add_options(parser)
    parser.add_argument("--memory", type=int, metavar="T")
    arguments = parser.parse_args()
    target = bench_device.bench_device(arguments)
    if arguments.memory:
        Package(training_set("CelebA blur, 128 px", arguments.batch, arguments.memory), target).step()
        print(round(distributed.peak_memory(target.device) * 1024))
        return
    print(f"\none step of 2 micro-batches, median of {arguments.steps}: {target}, {torch.get_num_threads()} threads")
    head = f"{'what':22}{'baseline in':>20}{'images':>7}{'coldbench/s':>12}{'baseline/s':>12}{'ratio':>9}"
    print(f"{head}{'outside':>10}{'MFU':>8}")
    for name in CASES:
        if arguments.only in name:
            print_case(name, arguments.batch, arguments.steps, target)
    if arguments.only:
        return
    command = [sys.executable, __file__, *bench_device.as_words(arguments), "--batch", str(arguments.batch), "--memory"]
    outputs = [subprocess.run([*command, str(T)], capture_output=True, text=True, check=True).stdout for T in (50, 300)]
    small, large = map(int, outputs)
    print(f"peak memory of a step, CelebA blur: T = 50: {small} MB, T = 300: {large} MB ({large / small - 1:+.1%})")


if __name__ == "__main__":
    main()
