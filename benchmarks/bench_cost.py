"""Measures the images per second of a network on this machine and prints a row for workflow/config/devices.yaml.

    python benchmarks/bench_cost.py --dim 64 --channels 1 --stage train --batch 32 [--device cuda --precision bf16]

`coldbench plan` reads such rows. The stage train times whole steps (forward, backward, Adam) on random images; drawing
and degrading a batch adds a few per cent (`bench_training.py`). The stage sample times calls of R. The result is the
median of `--repeats` after one warm-up. On a CPU it is the result of one thread times `--cores`, by processor time,
because other load on the machine hardly changes that.
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


def timed_call(network: Network, arguments: argparse.Namespace, device: torch.device) -> Callable[[], object]:
    """One optimizer step, or one call of R."""
    built = models.build(network, arguments.channels, arguments.size).to(device)
    x = torch.randn(arguments.batch, arguments.channels, arguments.size, arguments.size, device=device)
    t = torch.ones(arguments.batch, dtype=torch.int64, device=device)
    if arguments.stage == "sample":
        restore = models.restorer(built, arguments.batch, arguments.precision)
        return lambda: restore(x, 1)
    training = Training(batch_size=arguments.batch, grad_accumulation=1, precision=arguments.precision)
    fabric = distributed.launch(device, arguments.precision)
    adam = torch.optim.Adam(built.parameters(), lr=2e-5, fused=True)
    ema = {name: value.clone() for name, value in built.state_dict().items()}
    prepared, optimizer = fabric.setup(built.train(), adam)
    state = TrainingState(prepared, optimizer, ema)
    return lambda: optimizer_step(state, [(x, x, t)], training, fabric)


def images_per_second(call: Callable[[], object], arguments: argparse.Namespace, device: torch.device) -> float:
    """The median."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds = []
    for _ in range(arguments.repeats + 1):
        start = clock()
        call()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(clock() - start)
    cores = 1 if device.type == "cuda" else arguments.cores
    return float(arguments.batch / statistics.median(seconds[1:]) * cores)


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
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = torch.device(arguments.device)
    network = Network(name=arguments.network, dim=arguments.dim, dim_mults=arguments.dim_mults)
    rate = images_per_second(timed_call(network, arguments, device), arguments, device)
    machine = torch.cuda.get_device_name() if device.type == "cuda" else f"{arguments.cores} CPU cores"
    shape = f"dim: {network.dim}, dim_mults: {network.dim_mults}, size: {arguments.size}"
    print(f"- {{network: {network.name}, {shape}, channels: {arguments.channels}, precision: {arguments.precision},")
    print(f'   stage: {arguments.stage}, images_per_second: {rate:.3g}, where: "{machine}, torch {torch.__version__}",')
    print(f'   command: "python {shlex.join(sys.argv)}"}}')


if __name__ == "__main__":
    main()
