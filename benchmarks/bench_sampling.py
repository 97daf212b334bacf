"""Measures the cost of sampling and scoring beside the network; prints three tables.

    python benchmarks/bench_sampling.py [--only trajectories|scores|frechet] [--threads 2] [--batch 4]
    python benchmarks/bench_sampling.py --device cuda --batch 64 --steps 40 --precision bf16 --compile

1. trajectories: TACoS with the paper's network for CelebA and generation blur at 128 px, by this package and by a
   baseline. The baseline applies D step by step in fp32 (on a GPU also with TF32 convolutions, torch's default). The
   table shows images per second and the share of the wall time outside the network's forward passes. `--steps` of the T
   severities are timed, evenly spread, and scaled to a trajectory. Package and baseline take turns.
2. scores: SSIM and RMSE of 10,000 images of 32 px with their intervals, on the CPU.
3. frechet: the Fréchet distance in 2,048 dimensions, against SciPy's root of the matrix product as FID usually has it.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from typing import Any

import bench_device
import numpy as np
import scipy.linalg
import torch
from bench_degradations import CELEBA, GENERATION, blur_steps, images
from bench_device import BenchDevice
from torch import Tensor

from coldbench import degradations, models
from coldbench.core.experiment import Network
from coldbench.evaluation.metrics.frechet import Statistics, frechet_distance
from coldbench.evaluation.metrics.similarity import mean_rmse, pooled_rmse, pooled_ssim, scores_per_image
from coldbench.sampling.samplers import sample
from coldbench.training import distributed

CASES = {"CelebA blur": {**CELEBA, "T": 200}, "generation blur": {**GENERATION, "T": 300}}
REPEATS = 3


class TimedRestorer:
    """A restoration that adds up the time of its calls; on a GPU by events, so that no call waits for the device."""

    def __init__(self, restore: models.Restorer, target: BenchDevice) -> None:
        self.restore, self.target = restore, target
        self.marks: list[tuple[Any, Any]] = []

    def _mark(self) -> Any:
        if self.target.device.type != "cuda":
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __call__(self, x: Tensor, s: int) -> Tensor:
        start = self._mark()
        result = self.restore(x, s)
        self.marks.append((start, self._mark()))
        return result

    def seconds(self) -> float:
        """The sum, once the device has finished its work."""
        if self.target.device.type != "cuda":
            return float(sum(end - start for start, end in self.marks))
        return float(sum(start.elapsed_time(end) for start, end in self.marks)) / 1000


def timed(
    trajectory: Callable[[TimedRestorer], None], restore: models.Restorer, target: BenchDevice
) -> tuple[float, float]:
    """Seconds of a trajectory, and the share of them outside the network."""
    restorer = TimedRestorer(restore, target)
    start = target.now()
    trajectory(restorer)
    wall = target.now() - start
    return wall, (wall - restorer.seconds()) / wall


def print_trajectories(batch: int, steps: int, target: BenchDevice) -> None:
    """The first table."""
    torch.manual_seed(0)
    network = models.build(Network(), 3, 128).to(target.device)
    prepared = distributed.prepare(copy.deepcopy(network), target.options)
    package, baseline = models.restorer(prepared, precision=target.precision), models.restorer(network)
    formats = {"fp32": False, **({"TF32 convolutions": True} if target.device.type == "cuda" else {})}
    print(f"{target}, batch {batch}")
    print(f"{'':22}{'baseline in':>20}{'images per second':>24}{'':8}{'outside the network':>22}")
    columns = f"{'coldbench':>12}{'baseline':>12}"
    print(f"{'TACoS trajectory':42}{columns}{'ratio':>8}{columns}{'MFU':>8}")
    for name, spec in CASES.items():
        d = degradations.build(spec, 128)
        convolutions = [step.to(target.device) for step in blur_steps(d, 3)]  # type: ignore[arg-type, attr-defined]
        x0 = images("photos", 128).to(target.device)
        x0 = x0.repeat(-(-batch // len(x0)), 1, 1, 1)[:batch]
        x_T = d(x0, torch.full((batch,), d.T, device=target.device), {})  # computes the operators too
        stride = d.T // steps
        whole = d.T / len(range(d.T, 0, -stride))

        def closed(restore: TimedRestorer, d: Any = d, x: Tensor = x_T, stride: int = stride) -> None:
            for _ in sample(restore, d, x, {}, "tacos", stride=stride):
                pass

        def recursion(restore: TimedRestorer, D: Any = convolutions, x: Tensor = x_T, stride: int = stride) -> None:
            for s in range(len(D), 0, -stride):
                x0_hat = restore(x, s)
                at_s, before = x0_hat, x0_hat  # the plain algorithm starts again from x̂_0 for every D
                for step in D[: s - 1]:
                    before = step(before)
                for step in D[:s]:
                    at_s = step(at_s)
                x = x - at_s + before

        runs: dict[str, list[tuple[float, float]]] = {label: [] for label in ("coldbench", *formats)}
        with torch.inference_mode():
            for restore in (package, baseline):
                restore(x_T, d.T)  # warms up, and compiles
            for _ in range(REPEATS):
                runs["coldbench"].append(timed(closed, package, target))
                for label, tf32 in formats.items():
                    torch.backends.cudnn.allow_tf32 = tf32
                    runs[label].append(timed(recursion, baseline, target))
                torch.backends.cudnn.allow_tf32 = False
        rates = {label: batch / whole / statistics.median(wall for wall, _ in each) for label, each in runs.items()}
        outside = {label: statistics.median(share for _, share in each) for label, each in runs.items()}
        rate, share = rates["coldbench"], outside["coldbench"]
        mfu = target.utilisation(Network(), 3, 128, rate * d.T, passes=1)
        for label in formats:
            speeds = f"{rate:12.4f}{rates[label]:12.4f}{rate / rates[label]:7.1f}×"
            print(f"{name:22}{label:>20}{speeds}{share:>12.1%}{outside[label]:>12.1%}{mfu:>8}", flush=True)


def print_scores() -> None:
    """The second table."""
    generator = torch.Generator().manual_seed(0)
    print(f"\n{'scoring 10,000 images of 32 px':34}{'seconds':>10}")
    for channels in (1, 3):
        a, b = (torch.rand(10_000, channels, 32, 32, generator=generator) for _ in range(2))
        times = []
        for _ in range(REPEATS):
            start = time.perf_counter()
            ssims, mses = scores_per_image(a, b)
            pooled_ssim(ssims, 0), pooled_rmse(mses, 0), mean_rmse(mses, 0)
            times.append(time.perf_counter() - start)
        print(f"{f'{channels} channels':34}{statistics.median(times):>10.1f}")


def root_of_product(a: Statistics, b: Statistics) -> float:
    """The distance by a general matrix square root."""
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance)
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(a.covariance + b.covariance) - 2 * np.trace(root).real)


def print_frechet(dimensions: int = 2048, n: int = 10_000) -> None:
    """The third table."""
    generator = np.random.default_rng(0)
    mixing = generator.normal(size=(dimensions, dimensions)) / dimensions**0.5
    a, b = (Statistics.of(generator.normal(size=(n, dimensions)) @ mixing + shift) for shift in (0.0, 0.05))
    times: dict[str, list[float]] = {"coldbench": [], "sqrtm": []}
    values = {}
    for _ in range(REPEATS):
        for name, function in (("coldbench", frechet_distance), ("sqrtm", root_of_product)):
            start = time.perf_counter()
            values[name] = function(a, b)
            times[name].append(time.perf_counter() - start)
    package, baseline = (statistics.median(times[name]) for name in ("coldbench", "sqrtm"))
    gap = abs(values["coldbench"] / values["sqrtm"] - 1)
    print(f"\nFréchet distance, {dimensions} dimensions: coldbench {package:.2f} s, sqrtm {baseline:.2f} s,")
    print(f"{baseline / package:.1f} times faster, relative difference {gap:.0e}")


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["trajectories", "scores", "frechet"], help="one of the tables")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--steps", type=int, default=8, help="timed severities of a trajectory")
    bench_device.add_options(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False
    if arguments.only in (None, "trajectories"):
        print_trajectories(arguments.batch, arguments.steps, bench_device.bench_device(arguments))
    if arguments.only in (None, "scores"):
        print_scores()
    if arguments.only in (None, "frechet"):
        print_frechet()


if __name__ == "__main__":
    main()
