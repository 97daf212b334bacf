"""Measures closed-form degradations against the step-by-step recursion, in seconds and memory, on one thread.

    python benchmarks/bench_degradations.py [--only NAME] [--repeats 3]
    python benchmarks/bench_degradations.py --memory T closed|recursion     the memory that a training batch adds, in MB

The recursion is the algorithm as written. For a training batch it degrades step by step up to the largest severity,
stores every step, and selects a step for each image. For a sampler it starts again from x̂_0 for every D. Each time is
the median of several runs; closed form and recursion take turns. A whole trajectory of the recursion takes T² steps, up
to two hours, so a few of its steps are timed and their median is multiplied by T².
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from coldbench import data, degradations
from coldbench.core.images import from_uint8
from coldbench.degradations import blur, snow

BATCH = 32
CELEBA = {"name": "blur", "kernel": 15, "std": 1.0, "schedule": "exponential", "rate": 0.01, "padding": "reflect"}
GENERATION = {**CELEBA, "kernel": 27, "padding": "circular"}
CIFAR = {"name": "blur", "T": 50, "kernel": 11, "std": 0.35, "schedule": "linear", "rate": 0.01, "padding": "reflect"}


@dataclass(frozen=True)
class Case:
    """A degradation of `dataset` at `size` pixels and its `goal`, a speed-up; a batch or a trajectory is timed."""

    dataset: str
    size: int
    goal: int
    degradation: dict[str, Any]
    trajectory: bool = False


CASES = {
    "CelebA blur, training batch": Case("photos", 128, 200, {**CELEBA, "T": 200}),
    "generation blur, training batch": Case("photos", 128, 1000, {**GENERATION, "T": 300}),
    "MNIST blur, training batch": Case("digits", 32, 20, {"name": "blur", "T": 20, "kernel": 11, "std": 7.0}),
    "CelebA blur, TACoS trajectory": Case("photos", 128, 100, {**CELEBA, "T": 200}, trajectory=True),
    "generation blur, TACoS trajectory": Case("photos", 128, 500, {**GENERATION, "T": 300}, trajectory=True),
    "CIFAR blur, TACoS trajectory": Case("photos", 32, 20, CIFAR, trajectory=True),
    "snow level 3, training batch": Case("photos", 32, 5, {"name": "snow", "T": 200, "level": 3}),
}


def images(dataset: str, size: int) -> Tensor:
    """The first BATCH training images of an embedded data set, float32 in [-1, 1]."""
    build = data.dataset(dataset).build(Path(), size, "train")
    return from_uint8(np.stack([next(build) for _ in range(BATCH)]), torch.device("cpu"))


def blur_steps(d: blur.Blur, channels: int) -> list[Callable[[Tensor], Tensor]]:
    """One depthwise two-dimensional convolution per step, as a user of torch would write it."""
    steps: list[Callable[[Tensor], Tensor]] = []
    for std in d.stds():
        line = torch.from_numpy(blur.gaussian_weights(d.kernel, float(std))).float()
        conv = torch.nn.Conv2d(
            channels, channels, d.kernel, padding=d.kernel // 2, padding_mode=d.padding, groups=channels, bias=False
        )
        conv.weight.data = torch.outer(line, line).expand(channels, 1, -1, -1).contiguous()
        conv.requires_grad_(False)
        steps.append(conv)
    return steps


def batch_by_recursion(steps: list[Callable[[Tensor], Tensor]], x0: Tensor, t: Tensor) -> Tensor:
    """Each image at its own severity, from the stored results of all steps up to the largest one."""
    results = [x0]
    for step in steps[: int(t.max())]:
        results.append(step(results[-1]))
    return torch.stack(results)[t, torch.arange(len(t), device=t.device)]


def snow_by_levels(d: snow.Snow, x0: Tensor, t: Tensor, seed: int) -> Tensor:
    """Each image at its own severity, from one NumPy seed layer for the batch and the results of all severities."""
    c, rng = d.constants, np.random.default_rng(seed)
    layer = d.enlarge(torch.from_numpy(rng.normal(c.mean, c.std, (1, d.size, d.size))))[0].numpy()
    x = (x0 + 1) / 2
    results = []
    for threshold, motion in zip(np.linspace(*c.threshold, d.T), np.linspace(*c.motion, d.T), strict=True):
        flakes = torch.from_numpy(np.clip(np.where(layer < threshold, 0, layer), 0, 1)).float()[None, None]
        kernel = torch.from_numpy(blur.gaussian_weights(c.kernel, float(motion))).float()[None, None, None]
        falling = functional.conv2d(flakes, kernel, padding=(0, c.kernel // 2))
        results.append((x + falling + falling.rot90(2, (2, 3))).clamp(0, 1) * 2 - 1)
    return torch.stack(results)[t - 1, torch.arange(len(t))]


def timed(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_batch(d: Any, x0: Tensor, repeats: int) -> tuple[float, float]:
    """Median seconds for a training batch: closed form, recursion."""
    steps = blur_steps(d, x0.shape[1]) if isinstance(d, blur.Blur) else []
    generator = torch.Generator().manual_seed(0)
    closed, recursion = [], []
    for k in range(repeats + 1):
        t = torch.randint(1, d.T + 1, (BATCH,), generator=generator)
        indices = torch.arange(k * BATCH, (k + 1) * BATCH)
        closed.append(statistics.median(timed(lambda: d(x0, t, d.draw(indices, 1))) for _ in range(7)))  # noqa: B023
        if steps:
            recursion.append(timed(lambda: batch_by_recursion(steps, x0, t)))  # noqa: B023
        else:
            recursion.append(timed(lambda: snow_by_levels(d, x0, t, k)))  # noqa: B023
    return statistics.median(closed[1:]), statistics.median(recursion[1:])  # the first run computes the operators


def time_trajectory(d: blur.Blur, x0: Tensor, repeats: int) -> tuple[float, float]:
    """Seconds for the degradations of one TACoS trajectory, D(x̂, s) and D(x̂, s−1) for s = T…1."""
    steps = blur_steps(d, x0.shape[1])
    sample = steps[:: max(1, len(steps) // 20)]

    def trajectory() -> None:
        for s in range(d.T, 0, -1):
            d(x0, torch.full((BATCH,), s), {})
            d(x0, torch.full((BATCH,), s - 1), {})

    d(x0, torch.full((BATCH,), 1), {})  # computes the operators
    closed, one_step = [], []
    for _ in range(repeats):
        closed.append(timed(trajectory))
        one_step += [timed(lambda step=step: step(x0)) for step in sample]
    return statistics.median(closed), statistics.median(one_step) * d.T**2


def print_times(only: str, repeats: int) -> None:
    """The table of times."""
    print(f"batch {BATCH}, one thread, median of {repeats}\n")
    print(f"{'what':36}{'closed form':>13}{'recursion':>13}{'ratio':>8}{'goal':>7}")
    for name, case in CASES.items():
        if only in name:
            d, x0 = degradations.build(case.degradation, case.size), images(case.dataset, case.size)
            closed, recursion = (time_trajectory if case.trajectory else time_batch)(d, x0, repeats)  # type: ignore[arg-type]
            note = f"  {d.T}² × one step" if case.trajectory else ""
            times = f"{closed * 1e3:10.2f} ms{recursion * 1e3:10.0f} ms{recursion / closed:7.0f}×{case.goal:6}×"
            print(f"{name:36}{times}{note}", flush=True)


def peak_memory() -> int:
    """The largest resident memory of this process in KB (Linux)."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def print_memory(T: int, method: str) -> None:
    """The growth of this process's peak memory by one training batch of generation blur, in MB."""
    d = degradations.build({**GENERATION, "T": T}, 128)
    x0, t = images("photos", 128), torch.randint(1, T + 1, (BATCH,), generator=torch.Generator().manual_seed(0))
    assert isinstance(d, blur.Blur)
    steps = blur_steps(d, 3) if method == "recursion" else []
    d(x0[:1], torch.ones(1, dtype=torch.int64), {})  # the operators count once per process, not per batch
    (steps[0](x0) if steps else d(x0[:1], t[:1], {}))
    ctypes.CDLL(None).malloc_trim(0)  # returns freed memory to the system
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = peak_memory()
    _ = batch_by_recursion(steps, x0, t) if steps else d(x0, t, {})
    print(round((peak_memory() - before) / 1024))


def main() -> None:
    """Run the cases and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases with this in their name, and no table of memory")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", nargs=2, metavar=("T", "METHOD"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        print_memory(int(arguments.memory[0]), arguments.memory[1])
        return
    with torch.inference_mode():
        print_times(arguments.only, arguments.repeats)
    if arguments.only:
        return
    print("\nmemory that a training batch of generation blur adds at its peak, in MB (the batch itself: 6 MB)")
    for T in (50, 300):
        command = [sys.executable, __file__, "--memory", str(T)]
        methods = ("closed", "recursion")
        memory = [
            subprocess.run([*command, each], capture_output=True, text=True, check=True).stdout for each in methods
        ]
        print(f"  T = {T:3}: closed form {memory[0].strip():>5}, recursion {memory[1].strip():>5}")


if __name__ == "__main__":
    main()
