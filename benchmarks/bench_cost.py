"""Images per second of a network on this machine, as a row for workflow/config/devices.yaml; `coldbench plan` reads it.

Training is whole steps (`loop.optimizer_step`: forward, backward, Adam) of random images: drawing and degrading a
batch takes a few per cent of an update more (`bench_training.py`). Sampling is calls of R. The figure is the median of
`--repeats`, after one that is not counted. On a CPU it is that of one thread by the processor's clock, which other load
on the machine hardly moves, times `--cores`.

    python benchmarks/bench_cost.py --dim 64 --channels 1 --stage train --batch 32 [--device cuda --precision bf16]
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import sys
import time
from collections.abc import Callable

import torch

from coldbench import models
from coldbench.core.experiment import Network, Training
from coldbench.training import distributed
from coldbench.training.loop import TrainingState, optimizer_step


def steps(network: Network, given: argparse.Namespace, device: torch.device) -> Callable[[int], object]:
    """What is timed: one update of a training, or one call of R."""
    built = models.build(network, given.channels, given.size).to(device)
    x = torch.randn(given.batch, given.channels, given.size, given.size, device=device)
    t = torch.ones(given.batch, dtype=torch.int64, device=device)
    if given.stage == "sample":
        restore = models.restorer(built, given.batch, given.precision)
        return lambda step: restore(x, 1)
    training = Training(batch_size=given.batch, grad_accumulation=1, precision=given.precision)
    fabric = distributed.launch(device, given.precision)
    adam = torch.optim.Adam(built.parameters(), lr=2e-5, fused=True)
    average = {name: value.clone() for name, value in built.state_dict().items()}
    prepared, optimizer = fabric.setup(built.train(), adam)
    state = TrainingState(prepared, optimizer, average)
    return lambda step: optimizer_step(state, [(x, x, t)], training, fabric)


def rate(step: Callable[[int], object], given: argparse.Namespace, device: torch.device) -> float:
    """Images per second, median."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds = []
    for k in range(given.repeats + 1):
        began = clock()
        step(k)
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - began)
    return float(given.batch / statistics.median(seconds[1:]) * (1 if device.type == "cuda" else given.cores))


def main() -> None:
    """Measure, and print the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="unet_convnext")
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--dim-mults", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=3)
    parser.add_argument("--stage", choices=["train", "sample"], default="train")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--cores", type=int, default=2)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    given = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(given.device)
    network = Network(name=given.network, dim=given.dim, dim_mults=given.dim_mults)
    found = rate(steps(network, given, device), given, device)
    where = torch.cuda.get_device_name() if given.device == "cuda" else f"{given.cores} CPU cores"
    shape = f"dim: {given.dim}, dim_mults: {given.dim_mults}, size: {given.size}, channels: {given.channels}"
    print(f"- {{network: {given.network}, {shape}, precision: {given.precision}, stage: {given.stage},")
    print(f'   images_per_second: {found:.3g}, where: "{where}, torch {torch.__version__}",')
    print(f'   command: "python {shlex.join(sys.argv)}"}}')


if __name__ == "__main__":
    main()
