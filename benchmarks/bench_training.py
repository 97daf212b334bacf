"""`make bench`: one update of our training against a plain reading of the released algorithm; prints a table.

Same network (the paper's, 56.6 million parameters), batch, images, machine and run; steps of the two take turns, and
the figures are medians. The plain reading degrades a batch step by step up to its largest severity, as
`bench_degradations.py` does, and steps torch's Adam as it comes, all in fp32; on a GPU once more with convolutions in
TF32, which is what torch does there unless told otherwise. "Outside" is what a step of ours spends on anything but the
network's forward and backward pass: drawing and degrading the batch, gradient norm, optimiser, moving average.

    python benchmarks/bench_training.py [--steps 3]
    python benchmarks/bench_training.py --device cuda --batch 32 --steps 20 --precision bf16 --compile --channels-last
    python benchmarks/bench_training.py --memory T      the peak memory of one step, in MB
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import bench_degradations as bench
import bench_place
import numpy as np
import torch
from bench_place import Place
from torch import Tensor, nn

from coldbench import data, degradations, models
from coldbench.core.experiment import Experiment, Network, Training
from coldbench.core.images import from_uint8
from coldbench.degradations import blur
from coldbench.training import distributed
from coldbench.training.loop import TrainingSet, TrainingState, optimizer_step, training_batch

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
        training=Training(batch_size=2 * count, grad_accumulation=2),
    )
    return experiment, np.stack([next(build) for _ in range(256)])


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

    def __init__(self, name: str, batch: int, on: Place, T: int = 0) -> None:
        self.experiment, self.images = case(name, batch, T)
        self.on = on
        self.fabric = distributed.launch(on.device, on.precision)
        plain = models.build(Network(), self.images.shape[1], self.experiment.size).to(on.device).train()
        self.average = {key: value.clone() for key, value in plain.state_dict().items()}
        adam = torch.optim.Adam(plain.parameters(), lr=2e-5, fused=True)
        self.network, self.adam = self.fabric.setup(distributed.prepare(plain, on.options), adam)
        self.state = TrainingState(self.network, self.adam, self.average)
        degradation = degradations.build(self.experiment.degradation, self.experiment.size)
        self.source = TrainingSet(self.images, self.experiment, degradation, 1)
        self.done = 0
        self.preparing = 0.0

    def batches(self) -> Any:
        """The micro-batches of one update; adds up the time that they take to make."""
        training = self.experiment.training
        for k in range(training.grad_accumulation):
            began = self.on.now()
            first = self.done * training.batch_size + k * training.micro_batch
            got = training_batch(self.source, first, training.micro_batch, self.on.device)
            self.preparing += self.on.now() - began
            yield got

    def step(self) -> tuple[float, float]:
        """Seconds of one update of ours, and those outside the network."""
        training = self.experiment.training
        self.preparing = 0.0
        began = self.on.now()
        self.state.step = 10 * self.done + 1  # a step without the moving average, which is timed apart
        optimizer_step(self.state, self.batches(), training, self.fabric)
        total = self.on.now() - began
        return total, self.preparing + self._optimising() + self._averaging() / 10

    def _optimising(self) -> float:
        began = self.on.now()
        torch.nn.utils.get_total_norm([p.grad for p in self.network.parameters() if p.grad is not None])
        self.adam.step()
        self.done += 1
        return self.on.now() - began

    def _averaging(self) -> float:
        began = self.on.now()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.values()), list(self.network.state_dict().values()), 0.005)
        return self.on.now() - began


class Plain:
    """The plain reading on the images of `ours`, in fp32, or with TF32 in its convolutions."""

    def __init__(self, ours: Setup, tf32: bool) -> None:
        assert isinstance(ours.degradation, blur.Blur)
        self.on, self.tf32, self.T, self.done = ours.on, tf32, ours.degradation.T, 0
        channels = ours.images.shape[1]
        self.steps = [step.to(self.on.device) for step in bench.blur_steps(ours.degradation, channels)]  # type: ignore[attr-defined]
        self.images = from_uint8(ours.images[: ours.experiment.training.batch_size], self.on.device)
        self.network = models.build(Network(), channels, ours.experiment.size).to(self.on.device).train()
        self.average = {key: value.clone() for key, value in self.network.state_dict().items()}
        self.adam = torch.optim.Adam(self.network.parameters(), lr=2e-5)

    def step(self) -> float:
        """Seconds of one update."""
        before, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, self.tf32
        began = self.on.now()
        plain_update(self.network, self.average, self.adam, self.images, self.steps, self.T, self.done)
        took = self.on.now() - began
        torch.backends.cudnn.allow_tf32 = before
        self.done += 1
        return took


def run(name: str, batch: int, steps: int, on: Place) -> None:
    """Print the lines of one case."""
    ours = Setup(name, batch, on)
    count, channels = ours.experiment.training.batch_size, ours.images.shape[1]
    plain = {"fp32": Plain(ours, tf32=False)}
    if on.device.type == "cuda":
        plain["TF32 convolutions"] = Plain(ours, tf32=True)
    mine: list[tuple[float, float]] = []
    theirs: dict[str, list[float]] = {way: [] for way in plain}
    for _ in range(steps + 1):  # the first warms up, and compiles
        mine.append(ours.step())
        for way, reading in plain.items():
            theirs[way].append(reading.step())
    fast = statistics.median(total for total, _ in mine[1:])
    outside = statistics.median(rest / total for total, rest in mine[1:])
    used = on.utilisation(Network(), channels, ours.experiment.size, count / fast, passes=3)
    for way, seconds in theirs.items():
        slow = statistics.median(seconds[1:])
        print(
            f"{name:22}{way:>20}{count:7}{count / fast:12.2f}{count / slow:12.2f}{slow / fast:8.2f}×"
            f"{outside:10.1%}{used:>8}",
            flush=True,
        )


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--batch", type=int, default=0, help="images in a micro-batch (default: what a laptop can do)")
    bench_place.add_options(parser)
    parser.add_argument("--memory", type=int, metavar="T")
    arguments = parser.parse_args()
    on = bench_place.place(arguments)
    if arguments.memory:
        setup = Setup("CelebA blur, 128 px", arguments.batch, on, arguments.memory)
        setup.step()
        print(round(distributed.peak_memory(on.device) * 1024))
        return
    print(f"\none update of 2 micro-batches, median of {arguments.steps}: {on}, {torch.get_num_threads()} threads")
    head = f"{'what':22}{'plain in':>20}{'images':>7}{'ours, im/s':>12}{'plain, im/s':>12}{'ratio':>9}"
    print(f"{head}{'outside':>10}{'MFU':>8}")
    for name in CASES:
        run(name, arguments.batch, arguments.steps, on)
    command = [sys.executable, __file__, *bench_place.command(arguments), "--batch", str(arguments.batch), "--memory"]
    peaks = [
        int(subprocess.run([*command, str(T)], capture_output=True, text=True, check=True).stdout) for T in (50, 300)
    ]
    growth = peaks[1] / peaks[0] - 1
    print(f"peak memory of a step, CelebA blur: T = 50: {peaks[0]} MB, T = 300: {peaks[1]} MB ({growth:+.1%})")


if __name__ == "__main__":
    main()
