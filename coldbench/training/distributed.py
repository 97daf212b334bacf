"""The devices, the processes and the number format of a training, by Lightning Fabric where it has work to do.

`torchrun` or Slurm's `srun` starts the processes. Each process takes an equal part of every micro-batch, and the
gradients are averaged, so that the result depends on the total batch alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor, nn

from coldbench import models
from coldbench.core.errors import ColdbenchError

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment

Value = TypeVar("Value")
PRECISIONS: dict[str, Any] = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed"}


@dataclass(frozen=True)
class DeviceOptions:
    """How a device runs the network. Results stay the same up to rounding, so an experiment does not include them."""

    compile: bool = False
    channels_last: bool = False


@dataclass(frozen=True)
class OneProcess:
    """What a training asks of Fabric, for one process and a number format without autocast.

    Importing Lightning takes as long as importing torch, and such a training needs nothing of it.
    """

    device: torch.device
    world_size: int = 1
    global_rank: int = 0
    is_global_zero: bool = True

    def setup(self, network: nn.Module, optimizer: torch.optim.Optimizer) -> tuple[nn.Module, torch.optim.Optimizer]:
        return network, optimizer

    def backward(self, loss: Tensor) -> None:
        loss.backward()  # type: ignore[no-untyped-call]

    def broadcast(self, value: Value) -> Value:
        return value

    def barrier(self) -> None:
        pass


if TYPE_CHECKING:
    Processes = Fabric | OneProcess


def processes() -> int:
    """The number of processes that torchrun or srun started together."""
    if "WORLD_SIZE" in os.environ:
        return int(os.environ["WORLD_SIZE"])
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1"))  # only srun sets it, sbatch does not


def launch(device: torch.device, precision: str) -> Processes:
    """Connect this process with the others. `precision` is one of `PRECISIONS`.

    Raises ColdbenchError if the processes cannot be divided among the nodes.
    """
    count = processes()
    nodes = int(os.environ.get("GROUP_WORLD_SIZE", os.environ.get("SLURM_STEP_NUM_NODES", "1"))) if count > 1 else 1
    if count % nodes:
        raise ColdbenchError(f"{count} processes cannot be divided evenly among {nodes} nodes")
    if count == 1 and precision != "bf16":
        joined: Processes = OneProcess(device)
    else:
        joined = _fabric(device, precision, count, nodes)
    if device.type == "cuda":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cudnn.deterministic = True  # some backward kernels sum in the order of arrival
    return joined


def _fabric(device: torch.device, precision: str, count: int, nodes: int) -> Fabric:
    from lightning_fabric import Fabric

    fabric = Fabric(
        accelerator=device.type,
        devices=count // nodes,
        num_nodes=nodes,
        strategy="ddp" if count > 1 else "auto",
        precision=PRECISIONS[precision],
        plugins=_launcher(count),
    )
    fabric.launch()
    return fabric


def _launcher(count: int) -> ClusterEnvironment:
    """Select the launcher explicitly: Lightning's detection treats an interactive `srun` as a single process."""
    from lightning_fabric.plugins.environments.lightning import LightningEnvironment
    from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
    from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment

    if count == 1:
        return LightningEnvironment()
    return TorchElasticEnvironment() if "WORLD_SIZE" in os.environ else SLURMEnvironment()


def local_batch(micro_batch: int, fabric: Processes) -> range:
    """The positions of this process's images in a micro-batch; ColdbenchError if it cannot be divided evenly."""
    count = fabric.world_size
    if micro_batch % count:
        raise ColdbenchError(f"a micro-batch of {micro_batch} images cannot be divided evenly among {count} processes")
    size = micro_batch // count
    return range(fabric.global_rank * size, (fabric.global_rank + 1) * size)


@contextmanager
def in_first_process(context: AbstractContextManager[None], fabric: Processes) -> Iterator[None]:
    """Enter `context` in the first process alone. If that raises ColdbenchError, every process raises it."""
    with ExitStack() as stack:
        refusal = ""
        if fabric.is_global_zero:
            try:
                stack.enter_context(context)
            except ColdbenchError as error:
                refusal = str(error)
        refusal = fabric.broadcast(refusal)
        if refusal:
            raise ColdbenchError(refusal)
        yield


def prepare(network: nn.Module, options: DeviceOptions) -> nn.Module:
    """Apply `options` to the network in place. The names of its weights stay the same. ColdbenchError: no compiler."""
    models.in_fast_format(network)
    if options.channels_last:
        network = network.to(memory_format=torch.channels_last)
    return models.compiled(network) if options.compile else network


def match_memory_format(network: nn.Module, optimizer: torch.optim.Optimizer, ema: dict[str, Tensor]) -> None:
    """Give Adam's moments and the averages `ema` the strides of their weights.

    Adam's fused step pairs elements by memory position, and averaging has a fast kernel for equal strides alone.
    """
    for weight, moments in optimizer.state.items():
        moments.update({name: _like(value, weight) for name, value in moments.items()})
    for name, weight in network.state_dict().items():
        ema[name] = _like(ema[name], weight)


def _like(value: Tensor, weight: Tensor) -> Tensor:
    """`value` with the strides of `weight`, if it has its shape."""
    if value.shape != weight.shape or value.stride() == weight.stride():
        return value
    return torch.empty_like(weight).copy_(value)


def backward(loss: Tensor, fabric: Processes | None) -> None:
    """Add the gradients of `loss` to the weights' gradients."""
    fabric.backward(loss) if fabric else loss.backward()  # type: ignore[no-untyped-call]


def no_sync(network: nn.Module, fabric: Processes | None, enabled: bool) -> AbstractContextManager[None]:
    """Within the block, if `enabled`, gradients are not averaged over the processes."""
    if fabric is None or isinstance(fabric, OneProcess) or fabric.world_size == 1:
        return nullcontext()
    return fabric.no_backward_sync(network, enabled=enabled)  # type: ignore[arg-type]


def all_reduce_mean(value: Tensor, fabric: Processes | None) -> Tensor:
    """The mean of `value` over the processes."""
    if fabric is None or isinstance(fabric, OneProcess) or fabric.world_size == 1:
        return value
    reduced: Tensor = fabric.all_reduce(value, reduce_op="mean")  # type: ignore[assignment]
    return reduced


def all_reduce_any(flags: list[bool], fabric: Processes) -> list[bool]:
    """Whether any process raises each flag, so that all processes act alike after the same step."""
    if isinstance(fabric, OneProcess) or fabric.world_size == 1:
        return flags
    raised = torch.tensor(flags, dtype=torch.float32, device=fabric.device)
    counts: Tensor = fabric.all_reduce(raised, reduce_op="sum")  # type: ignore[assignment]
    return [count > 0 for count in counts.tolist()]


def peak_memory(device: torch.device) -> float:
    """The peak memory so far in GiB: of the GPU, or else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    import resource
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)
