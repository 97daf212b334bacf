"""`make bench`: what sampling and scoring cost beside the network; prints three tables.

    python benchmarks/bench_sampling.py [--threads 2] [--batch 4]
    python benchmarks/bench_sampling.py --device cuda --batch 64 --steps 40 --precision bf16 --compile

1. TACoS trajectories of the paper's network for CelebA and generation blur at 128 px, by this package and by a plain
   reading that applies D step by step, in fp32 (on a GPU once more with convolutions in TF32, torch's default there):
   images per second, and the share of the wall time spent outside the network's forward passes. Of the T steps some are
   timed, evenly spread over the severities; a trajectory is reckoned from their sum. The two take turns.
2. SSIM and RMSE of 10,000 images of 32 pixels, with their intervals (on the CPU).
3. The Fréchet distance in 2,048 dimensions against SciPy's root of the matrix product, as FID is usually computed.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import bench_place
import numpy as np
import scipy.linalg
import torch
from bench_degradations import CELEBA, GENERATION, blur_steps, images
from bench_place import Place
from torch import Tensor

from coldbench import degradations, models
from coldbench.core.experiment import Network
from coldbench.evaluation.metrics.frechet import Statistics, frechet_distance
from coldbench.evaluation.metrics.similarity import mean_rmse, pooled_rmse, pooled_ssim, scores_per_image
from coldbench.sampling.samplers import sample
from coldbench.training import distributed

CASES = {"CelebA blur": {**CELEBA, "T": 200}, "generation blur": {**GENERATION, "T": 300}}


class Timed:
    """A restoration that adds up the time of its calls: by events on a GPU, which is not made to wait for them."""

    def __init__(self, restore: models.Restorer, on: Place) -> None:
        self.restore, self.on = restore, on
        self.marks: list[tuple[Any, Any]] = []

    def _mark(self) -> Any:
        if self.on.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __call__(self, x: Tensor, s: int) -> Tensor:
        began = self._mark()
        result = self.restore(x, s)
        self.marks.append((began, self._mark()))
        return result

    def seconds(self) -> float:
        """The sum; everything asked of the device must be done."""
        if self.on.device.type != "cuda":
            return float(sum(after - before for before, after in self.marks))
        return float(sum(before.elapsed_time(after) for before, after in self.marks)) / 1000


def measured(trajectory: Callable[[Timed], None], restore: models.Restorer, on: Place) -> tuple[float, float]:
    """Seconds of a trajectory and the share of it outside the network."""
    timed = Timed(restore, on)
    began = on.now()
    trajectory(timed)
    wall = on.now() - began
    return wall, (wall - timed.seconds()) / wall


def trajectories(batch: int, steps: int, on: Place) -> None:
    """The first table."""
    torch.manual_seed(0)
    plain = models.build(Network(), 3, 128).to(on.device)
    ours = distributed.prepare(copy.deepcopy(plain), on.options)
    mine, theirs = models.restorer(ours, precision=on.precision), models.restorer(plain)
    formats = {"fp32": False, **({"TF32 convolutions": True} if on.device.type == "cuda" else {})}
    print(f"{on}, batch {batch}")
    head = f"{'TACoS trajectory':22}{'plain in':>20}{'ours, im/s':>12}{'plain, im/s':>12}{'ratio':>8}"
    print(f"{head}{'outside':>9}{'plain':>8}{'MFU':>8}")
    for name, spec in CASES.items():
        d = degradations.build(spec, 128)
        convolutions = [step.to(on.device) for step in blur_steps(d, 3)]  # type: ignore[arg-type, attr-defined]
        x0 = images("photos", 128).to(on.device)
        x0 = x0.repeat(-(-batch // len(x0)), 1, 1, 1)[:batch]
        x_T = d(x0, torch.full((batch,), d.T, device=on.device), {})  # also builds the table, which a process does once
        every = d.T // steps
        whole = d.T / len(range(d.T, 0, -every))

        def closed(timed: Timed, d: degradations.Degradation = d, x: Tensor = x_T, every: int = every) -> None:
            for _ in sample(timed, d, x, {}, "tacos", stride=every):
                pass

        def recursion(timed: Timed, steps: Any = convolutions, x: Tensor = x_T, every: int = every) -> None:
            for s in range(len(steps), 0, -every):
                hat = timed(x, s)
                here = hat
                for step in steps[: s - 1]:
                    here = step(here)
                before = hat  # the plain algorithm starts again from x̂_0 for every D
                for step in steps[:s]:
                    before = step(before)
                x = x - before + here

        found: dict[str, list[tuple[float, float]]] = {way: [] for way in ("ours", *formats)}
        with torch.inference_mode():
            for restore in (mine, theirs):
                restore(x_T, d.T)  # warms up, and compiles
            for _ in range(3):
                found["ours"].append(measured(closed, mine, on))
                for way, tf32 in formats.items():
                    torch.backends.cudnn.allow_tf32 = tf32
                    found[way].append(measured(recursion, theirs, on))
                torch.backends.cudnn.allow_tf32 = False
        rates = {way: batch / whole / statistics.median(wall for wall, _ in each) for way, each in found.items()}
        outside = {way: statistics.median(share for _, share in each) for way, each in found.items()}
        used = on.utilisation(Network(), 3, 128, rates["ours"] * d.T, passes=1)
        for way in formats:
            print(
                f"{name:22}{way:>20}{rates['ours']:12.4f}{rates[way]:12.4f}{rates['ours'] / rates[way]:7.1f}×"
                f"{outside['ours']:>9.1%}{outside[way]:>8.1%}{used:>8}",
                flush=True,
            )


def scoring() -> None:
    generator = torch.Generator().manual_seed(0)
    print(f"\n{'scoring 10,000 images of 32 px':34}{'seconds':>10}")
    for channels in (1, 3):
        a, b = (torch.rand(10_000, channels, 32, 32, generator=generator) for _ in range(2))
        times = []
        for _ in range(3):
            began = time.perf_counter()
            ssims, mses = scores_per_image(a, b)
            pooled_ssim(ssims, 0), pooled_rmse(mses, 0), mean_rmse(mses, 0)
            times.append(time.perf_counter() - began)
        print(f"{channels} channel{'s' * (channels > 1):26}{statistics.median(times):>10.1f}")


def root_of_product(a: Statistics, b: Statistics) -> float:
    """The distance by a general matrix square root."""
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(a.covariance + b.covariance) - 2 * np.trace(root).real)


def distance(d: int = 2048, n: int = 10_000) -> None:
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(d, d)) / d**0.5
    a, b = (Statistics.of(generator.normal(size=(n, d)) @ mixing + shift) for shift in (0.0, 0.05))
    times: dict[str, list[float]] = {"ours": [], "sqrtm": []}
    values = {}
    for _ in range(3):
        for name, route in (("ours", frechet_distance), ("sqrtm", root_of_product)):
            began = time.perf_counter()
            values[name] = route(a, b)
            times[name].append(time.perf_counter() - began)
    ours, theirs = (statistics.median(times[name]) for name in ("ours", "sqrtm"))
    gap = abs(values["ours"] / values["sqrtm"] - 1)
    label = f"Fréchet distance, {d} dimensions"
    print(f"\n{label:34}{ours:>8.2f} s{theirs:>9.2f} s  {theirs / ours:.1f} times, gap {gap:.0e}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="of a trajectory that are timed")
    bench_place.add_options(parser)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.backends.cudnn.allow_tf32 = False
    trajectories(options.batch, options.steps, bench_place.place(options))
    scoring()
    distance()


if __name__ == "__main__":
    main()
