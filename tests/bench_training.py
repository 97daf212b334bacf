"""`make bench`: one update of our training against a plain reading of the released algorithm; prints a table.

Same network (the paper's, 56.6 million parameters), batch, images, machine and run; steps of the two take turns, and
the figures are medians. The plain reading degrades a batch step by step up to its largest severity, as
`bench_degradations.py` does, and steps torch's Adam as it comes. "Outside" is what a step of ours spends on anything
but the network's forward and backward pass: drawing and degrading the batch, gradient norm, optimiser, moving average.

    python tests/bench_training.py [--updates 3] [--device cuda --batch 32]
    python tests/bench_training.py --memory T      the peak memory of one step, in MB
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import bench_degradations as bench
import numpy as np
import torch
from torch import Tensor, nn

from coldbench import data, degradations, engine, models
from coldbench.degradations import blur
from coldbench.experiment import Experiment, Network, Training
from coldbench.images import from_uint8
from coldbench.train import training_batch, update

CASES: dict[str, tuple[str, int, int, dict[str, Any]]] = {
    "CelebA blur, 128 px": ("photos", 128, 4, {**bench.CELEBA, "T": 200}),
    "MNIST blur, 32 px": ("digits", 32, 32, {"name": "blur", "T": 20, "kernel": 11, "std": 7.0}),
}


def case(name: str, batch: int, T: int = 0) -> tuple[Experiment, np.ndarray[Any, np.dtype[np.uint8]]]:
    """The experiment of a case and its training images."""
    source, size, usual, spec = CASES[name]
    entry = data.dataset(source)
    build = entry.build(Path(), size, "train")
    count = batch or usual
    experiment = Experiment(
        name="bench",
        protocol="bench",
        budget="bench",
        dataset=source,
        size=size,
        seed=0,
        degradation={**spec, "T": T or spec["T"]},
        network=Network(),
        training=Training(total_batch=2 * count, accumulation=2),
    )
    return experiment, np.stack([next(build) for _ in range(256)])


def synchronised(device: torch.device) -> float:
    """The time, when everything asked of the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def plain_update(
    network: nn.Module,
    average: dict[str, Tensor],
    adam: torch.optim.Adam,
    images: Tensor,
    steps: Any,
    T: int,
    step: int,
) -> None:
    """The released algorithm as it reads: recursion, two micro-batches, Adam, the moving average every ten updates."""
    for x0 in images.chunk(2):
        t = torch.randint(0, T, (len(x0),), device=x0.device)
        with torch.no_grad():
            xt = bench.batch_by_recursion(steps, x0, t + 1)
        ((network(xt, t) - x0).abs().mean() / 2).backward()
    adam.step()
    adam.zero_grad()
    if step % 10 == 0:
        with torch.no_grad():
            for name, value in network.named_parameters():
                average[name].mul_(0.995).add_(value, alpha=0.005)


class Setup:
    """Network, average, optimiser and batches of a case."""

    def __init__(self, name: str, batch: int, device: torch.device, T: int = 0) -> None:
        self.experiment, self.images = case(name, batch, T)
        self.device = device
        self.network = models.build(Network(), self.images.shape[1], self.experiment.size).to(device).train()
        self.average = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.adam = torch.optim.Adam(self.network.parameters(), lr=2e-5, fused=True)
        self.degradation = degradations.build(self.experiment.degradation, self.experiment.size)
        self.done = 0
        self.preparing = 0.0

    def batches(self) -> Any:
        """The micro-batches of one update; adds up the time that they take to make."""
        training = self.experiment.training
        for k in range(training.accumulation):
            began = synchronised(self.device)
            first = self.done * training.total_batch + k * training.micro_batch
            got = training_batch(
                self.images, self.experiment, self.degradation, 1, first, training.micro_batch, self.device
            )
            self.preparing += synchronised(self.device) - began
            yield got

    def step(self) -> tuple[float, float]:
        """Seconds of one update of ours, and those outside the network."""
        training = self.experiment.training
        self.preparing = 0.0
        began = synchronised(self.device)
        update(self.network, self.average, self.adam, self.batches(), training, step=10 * self.done + 1)
        total = synchronised(self.device) - began
        return total, self.preparing + self._optimising() + self._averaging() / 10

    def _optimising(self) -> float:
        began = synchronised(self.device)
        torch.nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        self.adam.step()
        self.done += 1
        return synchronised(self.device) - began

    def _averaging(self) -> float:
        began = synchronised(self.device)
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.network.state_dict().values()), 0.005)
        return synchronised(self.device) - began


def run(name: str, batch: int, updates: int, device: torch.device) -> None:
    """Print one line of the table."""
    ours = Setup(name, batch, device)
    size, count = ours.experiment.size, ours.experiment.training.total_batch
    assert isinstance(ours.degradation, blur.Blur)
    channels = ours.images.shape[1]
    steps = [step.to(device) for step in bench.blur_steps(ours.degradation, channels)]  # type: ignore[attr-defined]
    images = from_uint8(ours.images[:count], device)
    plain = models.build(Network(), channels, size).to(device).train()
    average = {key: value.clone() for key, value in plain.state_dict().items()}
    adam = torch.optim.Adam(plain.parameters(), lr=2e-5)
    mine, theirs, outside = [], [], []
    for k in range(updates + 1):
        total, rest = ours.step()
        began = synchronised(device)
        plain_update(plain, average, adam, images, steps, ours.degradation.T, k)
        theirs.append(synchronised(device) - began)
        mine.append(total)
        outside.append(rest / total)
    fast, slow = statistics.median(mine[1:]), statistics.median(theirs[1:])
    print(
        f"{name:22}{count:7}{count / fast:12.2f}{count / slow:12.2f}{slow / fast:8.2f}×"
        f"{statistics.median(outside[1:]):10.1%}",
        flush=True,
    )


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--batch", type=int, default=0, help="images in a micro-batch (default: what a laptop can do)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--memory", type=int, metavar="T")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    if arguments.memory:
        setup = Setup("CelebA blur, 128 px", arguments.batch, device, arguments.memory)
        setup.step()
        print(round(engine.memory(device) * 1024))
        return
    print(f"\none update of 2 micro-batches on {arguments.device}, {torch.get_num_threads()} threads, median")
    print(f"{'what':22}{'images':>7}{'ours, im/s':>12}{'plain, im/s':>12}{'ratio':>9}{'outside':>10}")
    for name in CASES:
        run(name, arguments.batch, arguments.updates, device)
    command = [sys.executable, __file__, "--device", arguments.device, "--batch", str(arguments.batch), "--memory"]
    peaks = [
        int(subprocess.run([*command, str(T)], capture_output=True, text=True, check=True).stdout) for T in (50, 300)
    ]
    growth = peaks[1] / peaks[0] - 1
    print(f"peak memory of a step, CelebA blur: T = 50: {peaks[0]} MB, T = 300: {peaks[1]} MB ({growth:+.1%})")


if __name__ == "__main__":
    main()
