"""Measures the restoration network on a CPU against a plain build of the released one; prints a table.

    python benchmarks/bench_network.py [--dim 16] [--size 32] [--batch 32] [--rounds 7] [--network unet_convnext]
    python benchmarks/bench_network.py --against ../before      the network of another checkout as well

The variants run in processes of their own, because the allocator is set for a whole process, and take turns. Figures
are medians. A step of training is a forward and backward pass and Adam; sampling is a forward pass without gradients.
"User" and "system" are seconds of the processor for one image; the system's are those of the kernel, mostly for memory.

`plain` normalises and attends in single operations, in the order in which the released network's formulas are written,
in the default memory format. The others add one thing each; `all` is what `coldbench train` and `coldbench sample` run.
`checkout` is the network of the checkout `--against`, in the default memory format and with the C library's allocator.
`all, 64` samples in batches of 64 images, as the laptop's budget does; the other variants sample in batches of 16.
The last column is the difference of the output or of the gradient, whichever is larger, from the plain build's, as the
norm of the difference over the norm of the plain build's.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from coldbench import models
from coldbench.core.experiment import Network
from coldbench.models import unet_convnext

VARIANTS = {"plain": "", "order": "order", "memory format": "order format", "all": "order format memory"}
"""By name: which of the three changes a variant has."""
CHECKOUT, LARGE = "checkout", "all, 64"


def plain_norm(self: unet_convnext.LayerNorm, x: Tensor) -> Tensor:
    """Normalisation over the channels in single operations."""
    variance, mean = torch.var_mean(x, dim=1, correction=0, keepdim=True)
    return (x - mean) / (variance + self.eps).sqrt() * self.g + self.b


def plain_attention(self: unet_convnext.LinearAttention, x: Tensor) -> Tensor:
    """softmax(k)ᵀv for each head, then q, at every position."""
    n, _, height, width = x.shape
    q, k, v = self.to_qkv(x).reshape(n, 3, self.heads, self.width, height * width).unbind(1)
    context = torch.einsum("nhdp,nhep->nhde", k.softmax(dim=-1), v)
    out = torch.einsum("nhde,nhdp->nhep", context, q * self.width**-0.5)
    attended: Tensor = self.to_out(out.reshape(n, -1, height, width))
    return attended


def network_of(variant: str, arguments: argparse.Namespace) -> nn.Module:
    """The network of a variant; all have the same weights."""
    if variant != CHECKOUT and "order" not in VARIANTS[variant]:
        unet_convnext.LayerNorm.forward = plain_norm  # type: ignore[method-assign]
        unet_convnext.LinearAttention.forward = plain_attention  # type: ignore[method-assign]
    torch.manual_seed(0)
    mults = [1, 2, 4, 8] if arguments.network == "unet_convnext" else [1, 2, 2, 2]
    network = models.build(
        Network(name=arguments.network, dim=arguments.dim, dim_mults=mults), arguments.channels, arguments.size
    )
    return models.in_fast_format(network) if "format" in VARIANTS.get(variant, "") else network


def work(variant: str, arguments: argparse.Namespace) -> None:
    """Run what the lines of standard input name, and answer each with a line of numbers."""
    if "memory" in VARIANTS.get(variant, ""):
        from coldbench.core.memory import keep_freed_memory  # an older checkout may have none

        keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    network = network_of(variant, arguments)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-6, fused=True)
    images = torch.rand(arguments.batch, arguments.channels, arguments.size, arguments.size)
    times = torch.arange(arguments.batch) % 20

    def train() -> None:
        optimizer.zero_grad(set_to_none=True)
        (network(images, times) - images).abs().mean().backward()
        optimizer.step()

    def sample() -> None:
        with torch.inference_mode():
            network(images, times)

    def values() -> None:
        network.zero_grad(set_to_none=True)
        out = network(images, times)
        out.square().mean().backward()
        torch.save([out.detach(), *(p.grad for p in network.parameters())], arguments.values)

    tasks: dict[str, Callable[[], None]] = {"train": train, "sample": sample, "values": values}
    for line in sys.stdin:
        start, before = time.perf_counter(), os.times()
        tasks[line.strip()]()
        after = os.times()
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds = time.perf_counter() - start
        print(seconds, after.user - before.user, after.system - before.system, memory, flush=True)


class Worker:
    """A process of one variant."""

    def __init__(self, variant: str, words: list[str], folder: Path) -> None:
        command = [sys.executable, __file__, *words, "--work", variant]
        own = {**os.environ, "PYTHONPATH": str(folder.resolve())}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=own)

    def run(self, task: str) -> list[float]:
        """Seconds, seconds of user and system, and the peak memory so far in MB."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{task}\n")
        self.process.stdin.flush()
        return list(map(float, self.process.stdout.readline().split()))


def difference(file: str, workers: dict[str, Worker]) -> dict[str, float]:
    """The difference of each variant's output or gradient, whichever is larger, from the plain build's, relative."""
    values: dict[str, list[Tensor]] = {}
    for name, worker in workers.items():
        worker.run("values")
        out, *gradients = torch.load(file)
        values[name] = [out, torch.cat([gradient.flatten() for gradient in gradients])]
    pairs = {name: zip(own, values["plain"], strict=True) for name, own in values.items()}
    return {name: max(float((a - b).norm() / b.norm()) for a, b in each) for name, each in pairs.items()}


def main() -> None:
    """Run the variants in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in {"dim": 16, "size": 32, "channels": 1, "batch": 32, "threads": 1, "rounds": 7}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--network", default="unet_convnext")
    parser.add_argument("--against", type=Path, help="another checkout of coldbench")
    parser.add_argument("--values", default="", help=argparse.SUPPRESS)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments)
        return
    print(f"\n{arguments.network}, dim {arguments.dim}, {arguments.size} px, {arguments.threads} thread(s)")
    print(f"{'':16}{'variant':15}{'images/s':>10}{'ratio':>8}{'user':>9}{'system':>9}{'MB':>7}{'difference':>12}")
    arguments.values = str(Path(tempfile.mkdtemp(), "values.pt"))
    words = [*sys.argv[1:], "--values", arguments.values]
    folders = dict.fromkeys(VARIANTS, Path(__file__).parents[1])
    folders |= {CHECKOUT: arguments.against} if arguments.against else {}
    for task, batch in (("train", arguments.batch), ("sample", 16)):
        batches = dict.fromkeys(folders, batch)
        workers = {name: Worker(name, [*words, "--batch", str(batch)], folder) for name, folder in folders.items()}
        away = difference(arguments.values, workers)
        if task == "sample":
            batches[LARGE], away[LARGE] = 64, away["all"]
            workers[LARGE] = Worker("all", [*words, "--batch", "64"], folders["all"])
        for worker in workers.values():
            worker.run(task)
        rounds = [{name: worker.run(task) for name, worker in workers.items()} for _ in range(arguments.rounds)]
        for name, images in batches.items():
            seconds, user, system, memory = (statistics.median(r[name][k] for r in rounds) for k in range(4))
            ratio = statistics.median(r["plain"][0] / batch / (r[name][0] / images) for r in rounds)
            numbers = f"{images / seconds:10.1f}{ratio:7.2f}×{user / images:9.4f}{system / images:9.4f}{memory:7.0f}"
            print(f"{task:16}{name:15}{numbers}{away[name]:12.1e}", flush=True)
        for worker in workers.values():
            worker.process.kill()


if __name__ == "__main__":
    main()
