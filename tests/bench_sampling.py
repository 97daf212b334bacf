"""`make bench`: what sampling and scoring cost beside the network; prints three tables.

    python tests/bench_sampling.py [--threads 2] [--batch 4]

1. The share of a TACoS trajectory's wall time that is spent outside the network's forward passes (the paper's network,
   CelebA and generation blur at 128 px), for this package's sampler and for one that applies D step by step. Of the T
   steps eight are timed, evenly spread over the severities; the share is that of their sums.
2. SSIM and RMSE of 10,000 images of 32 pixels, with their intervals.
3. The Fréchet distance in 2,048 dimensions against SciPy's root of the matrix product, as FID is usually computed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import scipy.linalg
import torch
from bench_degradations import CELEBA, GENERATION, blur_steps, images
from torch import Tensor

from coldbench import degradations, models
from coldbench.experiment import Network
from coldbench.metrics.frechet import Statistics, frechet_distance
from coldbench.metrics.similarity import mean_rmse, pooled_rmse, pooled_ssim, scores_per_image
from coldbench.samplers import sample

STEPS = 8
CASES = {"CelebA blur": {**CELEBA, "T": 200}, "generation blur": {**GENERATION, "T": 300}}


class Timed:
    """A restoration that adds up the time of its calls."""

    def __init__(self, restore: models.Restorer) -> None:
        self.restore, self.seconds = restore, 0.0

    def __call__(self, x: Tensor, s: int) -> Tensor:
        began = time.perf_counter()
        result = self.restore(x, s)
        self.seconds += time.perf_counter() - began
        return result


def share(trajectory: Callable[[Timed], None], restore: models.Restorer) -> tuple[float, float]:
    """Seconds in the network and share of the wall time outside it."""
    timed = Timed(restore)
    began = time.perf_counter()
    trajectory(timed)
    wall = time.perf_counter() - began
    return timed.seconds, (wall - timed.seconds) / wall


def overhead(batch: int) -> None:
    torch.manual_seed(0)
    restore = models.restorer(models.build(Network(), 3, 128))
    print(f"{'TACoS trajectory, batch ' + str(batch):34}{'network':>10}{'outside':>10}{'recursion outside':>19}")
    for name, spec in CASES.items():
        d = degradations.build(spec, 128)
        steps = blur_steps(d, 3)  # type: ignore[arg-type]
        x0 = images("photos", 128)[:batch]
        t = torch.full((batch,), d.T)
        x_T = d(x0, t, {})  # also builds the table, which a process does once
        restore(x_T, d.T)

        def ours(timed: Timed, d: degradations.Degradation = d, x: Tensor = x_T) -> None:
            for _ in sample(timed, d, x, {}, "tacos", every=d.T // STEPS):
                pass

        def recursion(timed: Timed, steps: list[Callable[[Tensor], Tensor]] = steps, x: Tensor = x_T) -> None:
            every = len(steps) // STEPS
            for s in range(len(steps), len(steps) - STEPS * every, -every):
                hat = timed(x, s)
                here = hat
                for step in steps[: s - 1]:
                    here = step(here)
                before = hat  # the plain algorithm starts again from x̂_0 for every D
                for step in steps[:s]:
                    before = step(before)
                x = x - before + here

        with torch.inference_mode():
            results = [(share(ours, restore), share(recursion, restore)) for _ in range(3)]
        seconds = statistics.median(one[0] for one, _ in results)
        mine, theirs = (statistics.median(pair[k][1] for pair in results) for k in (0, 1))
        print(f"{name:34}{seconds:>8.1f} s{mine:>9.1%} {theirs:>18.1%}")


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
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    overhead(options.batch)
    scoring()
    distance()


if __name__ == "__main__":
    main()
