"""Where a training runs: one device or many, and in which number format. All of it is Lightning Fabric's work.

Several processes are started from outside, by `torchrun` or Slurm's `srun`; each takes its equal share of every
micro-batch, and their gradients are averaged, so that the result depends on the total batch alone.
"""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from torch import Tensor, nn

from coldbench.core.errors import ColdbenchError

PRECISIONS: dict[str, Any] = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class Options:
    """How to run, which is no part of an experiment: neither changes what is computed, up to floating point."""

    compile: bool = False
    channels_last: bool = False


def processes() -> int:
    """How many processes train together, as torchrun or srun says."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # set by srun alone, not in a batch script


def fabric(device: torch.device, precision: str) -> Fabric:
    """The engine of this process; ColdbenchError if the processes cannot be arranged."""
    count = processes()
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_NODES", "1"))) if count > 1 else 1
    if count % nodes:
        raise ColdbenchError(f"{count} processes cannot be shared evenly among {nodes} nodes")
    made = Fabric(
        accelerator=device.type,
        devices=count // nodes,
        num_nodes=nodes,
        strategy="ddp" if count > 1 else "auto",
        precision=PRECISIONS[precision],
        plugins=_environment(count),
    )
    made.launch()
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.deterministic = True  # some of its backward passes add up in the order of arrival
    return made


def _environment(count: int) -> ClusterEnvironment:
    """Who started the processes, said outright: left to guess, Lightning takes an interactive srun for a single one."""
    if count == 1:
        return LightningEnvironment()
    return TorchElasticEnvironment() if "WORLD_SIZE" in os.environ else SLURMEnvironment()


def share(batch: int, fabric: Fabric) -> tuple[int, int]:
    """Where this process's part of a micro-batch begins, and how many images it is; ColdbenchError if it is uneven."""
    count = fabric.world_size
    if batch % count:
        raise ColdbenchError(f"a micro-batch of {batch} images cannot be shared evenly by {count} processes")
    return fabric.global_rank * (batch // count), batch // count


def prepare(network: nn.Module, options: Options) -> nn.Module:
    """The network as `options` want it; its weights stay the same tensors."""
    if options.channels_last:
        network = network.to(memory_format=torch.channels_last)
    if options.compile:
        network.compile()  # in place: the keys of the weights stay as they are
    return network


def lay_out(adam: torch.optim.Adam) -> None:
    """Give Adam's moments the memory format of their weights: the fused step pairs them by their place in memory."""
    for weight, moments in adam.state.items():
        for name, value in moments.items():
            if value.shape == weight.shape and value.stride() != weight.stride():
                moments[name] = torch.empty_like(weight).copy_(value)


def backward(loss: Tensor, fabric: Fabric | None) -> None:
    """The gradients of `loss`, through the engine where there is one."""
    fabric.backward(loss) if fabric else loss.backward()  # type: ignore[no-untyped-call]


def quiet(network: nn.Module, fabric: Fabric | None, last: bool) -> AbstractContextManager[None]:
    """Within it, gradients are not yet averaged over the processes, unless this is the last micro-batch."""
    if fabric is None or fabric.world_size == 1:
        return nullcontext()
    return fabric.no_backward_sync(network, enabled=not last)  # type: ignore[arg-type]


def mean(value: Tensor, fabric: Fabric | None) -> Tensor:
    """The mean of `value` over the processes."""
    if fabric is None or fabric.world_size == 1:
        return value
    reduced: Tensor = fabric.all_reduce(value, reduce_op="mean")  # type: ignore[assignment]
    return reduced


def any_of(flags: list[bool], fabric: Fabric) -> list[bool]:
    """Whether any process raises each flag: all of them then do the same thing in the same update."""
    if fabric.world_size == 1:
        return flags
    raised = torch.tensor(flags, dtype=torch.float32, device=fabric.device)
    summed: Tensor = fabric.all_reduce(raised, reduce_op="sum")  # type: ignore[assignment]
    return [value > 0 for value in summed.tolist()]


def memory(device: torch.device) -> float:
    """The largest memory used so far in GB: of the GPU, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
