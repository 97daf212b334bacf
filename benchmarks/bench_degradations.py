"""`make bench`: the closed forms against the step-by-step recursion, in one run on one thread; prints a table.

The recursion is the plain reading of the algorithm: a training batch is degraded step by step up to its largest
severity, every step's result is kept, and each image picks its own; a sampler starts again from x̂_0 for every D it
needs. Each figure is the median of several runs, closed form and recursion in turns. A whole trajectory of the
recursion takes T² steps, up to two hours: a few of its steps are timed and their median is multiplied by T².

    python benchmarks/bench_degradations.py [--only NAME] [--repeats 3]
    python benchmarks/bench_degradations.py --memory T closed|recursion     the growth of a training batch's memory
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
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
CASES: dict[str, tuple[str, int, int, dict[str, Any], str]] = {
    # name: images, size, goal, degradation, what is timed
    "CelebA blur, training batch": ("photos", 128, 200, {**CELEBA, "T": 200}, "batch"),
    "generation blur, training batch": ("photos", 128, 1000, {**GENERATION, "T": 300}, "batch"),
    "MNIST blur, training batch": ("digits", 32, 20, {"name": "blur", "T": 20, "kernel": 11, "std": 7.0}, "batch"),
    "CelebA blur, TACoS trajectory": ("photos", 128, 100, {**CELEBA, "T": 200}, "trajectory"),
    "generation blur, TACoS trajectory": ("photos", 128, 500, {**GENERATION, "T": 300}, "trajectory"),
    "CIFAR blur, TACoS trajectory": ("photos", 32, 20, CIFAR, "trajectory"),
    "snow level 3, training batch": ("photos", 32, 5, {"name": "snow", "T": 200, "level": 3}, "batch"),
}


def images(name: str, size: int) -> Tensor:
    """The first BATCH training images of an embedded data set, float32 in [-1, 1]."""
    build = data.dataset(name).build(Path(), size, "train")
    return from_uint8(np.stack([next(build) for _ in range(BATCH)]), torch.device("cpu"))


def blur_steps(d: blur.Blur, channels: int) -> list[Callable[[Tensor], Tensor]]:
    """One depthwise two-dimensional convolution per step, as a framework user would write it."""
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
    """Every step up to the largest severity, all kept; each image picks its own."""
    x, kept = x0, [x0]
    for step in steps[: int(t.max())]:
        x = step(x)
        kept.append(x)
    return torch.stack(kept)[t, torch.arange(len(t), device=t.device)]


def snow_by_levels(d: snow.Snow, x0: Tensor, t: Tensor, seed: int) -> Tensor:
    """Every level of one pattern for the batch, on the pattern's own NumPy layer; each image picks its own."""
    c, rng = d.constants, np.random.default_rng(seed)
    layer = d.enlarge(torch.from_numpy(rng.normal(c.mean, c.std, (1, d.size, d.size))))[0].numpy()
    x = (x0 + 1) / 2
    levels = []
    for threshold, motion in zip(np.linspace(*c.threshold, d.T), np.linspace(*c.motion, d.T), strict=True):
        flakes = torch.from_numpy(np.clip(np.where(layer < threshold, 0, layer), 0, 1)).float()[None, None]
        kernel = torch.from_numpy(blur.gaussian_weights(c.kernel, float(motion))).float()[None, None, None]
        falling = functional.conv2d(flakes, kernel, padding=(0, c.kernel // 2))
        levels.append((x + falling + falling.rot90(2, (2, 3))).clamp(0, 1) * 2 - 1)
    return torch.stack(levels)[t - 1, torch.arange(len(t))]


def timed(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def batch_case(d: Any, x0: Tensor, repeats: int, generator: torch.Generator) -> tuple[float, float, str]:
    """Median seconds for a training batch: closed form, recursion."""
    steps = blur_steps(d, x0.shape[1]) if isinstance(d, blur.Blur) else []
    ours, theirs = [], []
    for k in range(repeats + 1):
        t = torch.randint(1, d.T + 1, (BATCH,), generator=generator)
        indices = torch.arange(k * BATCH, (k + 1) * BATCH)
        mine = lambda: d(x0, t, d.draw(indices, 1))  # noqa: B023, E731
        other = (lambda: batch_by_recursion(steps, x0, t)) if steps else (lambda: snow_by_levels(d, x0, t, k))  # noqa: B023
        ours += [statistics.median(timed(mine) for _ in range(7))]
        theirs += [timed(other)]
    return statistics.median(ours[1:]), statistics.median(theirs[1:]), ""  # the first run builds the tables


def trajectory_case(d: blur.Blur, x0: Tensor, repeats: int) -> tuple[float, float, str]:
    """Seconds for the degradations of one TACoS trajectory, D(x̂, s) and D(x̂, s−1) for s = T…1."""
    steps = blur_steps(d, x0.shape[1])
    sample = steps[:: max(1, len(steps) // 20)]

    def closed() -> None:
        for s in range(d.T, 0, -1):
            d(x0, torch.full((BATCH,), s), {})
            d(x0, torch.full((BATCH,), s - 1), {})

    d(x0, torch.full((BATCH,), 1), {})
    ours, theirs = [], []
    for _ in range(repeats):
        ours.append(timed(closed))
        theirs += [timed(lambda step=step: step(x0)) for step in sample]
    return statistics.median(ours), statistics.median(theirs) * d.T**2, f"{d.T}² × one step"


def peak() -> int:
    """The largest resident memory of this process in KB (Linux)."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0])


def memory(T: int, way: str) -> None:
    """Print by how much a training batch of generation blur lets the peak memory of this process grow, in MB."""
    d = degradations.build({**GENERATION, "T": T}, 128)
    x0, t = images("photos", 128), torch.randint(1, T + 1, (BATCH,), generator=torch.Generator().manual_seed(0))
    assert isinstance(d, blur.Blur)
    steps = blur_steps(d, 3) if way == "recursion" else []
    d(x0[:1], torch.ones(1, dtype=torch.int64), {})  # the composed operators: once per process, not per batch
    (steps[0](x0) if steps else d(x0[:1], t[:1], {}))
    ctypes.CDLL(None).malloc_trim(0)  # what was freed counts as free
    Path("/proc/self/clear_refs").write_text("5")  # the peak from here on
    before = peak()
    _ = batch_by_recursion(steps, x0, t) if steps else d(x0, t, {})
    print(round((peak() - before) / 1024))


def main() -> None:
    """Run the cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--memory", nargs=2, metavar=("T", "WAY"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.memory:
        memory(int(arguments.memory[0]), arguments.memory[1])
        return
    print(f"batch {BATCH}, one thread, median of {arguments.repeats}\n")
    print(f"{'what':36}{'closed form':>13}{'recursion':>13}{'ratio':>8}{'goal':>7}")
    with torch.inference_mode():
        for name, (source, size, goal, spec, kind) in CASES.items():
            if arguments.only not in name:
                continue
            d, x0 = degradations.build(spec, size), images(source, size)
            generator = torch.Generator().manual_seed(0)
            few = arguments.repeats
            ours, theirs, note = (
                batch_case(d, x0, few, generator) if kind == "batch" else trajectory_case(d, x0, few)  # type: ignore[arg-type]
            )
            print(
                f"{name:36}{ours * 1e3:10.2f} ms{theirs * 1e3:10.0f} ms{theirs / ours:7.0f}×{goal:6}×  {note}",
                flush=True,
            )
    print("\nmemory that a training batch of generation blur adds at its peak, in MB (the batch itself: 6 MB)")
    for T in (50, 300):
        command = [sys.executable, __file__, "--memory", str(T)]
        ways = ("closed", "recursion")
        grown = [subprocess.run([*command, way], capture_output=True, text=True, check=True).stdout for way in ways]
        print(f"  T = {T:3}: closed form {grown[0].strip():>5}, recursion {grown[1].strip():>5}")


if __name__ == "__main__":
    main()
