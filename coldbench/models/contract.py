"""The laws of networks, tried on a few small images; `core.laws` says what a law is."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from coldbench.core import plugins, rng
from coldbench.core.experiment import Network
from coldbench.core.laws import Broken, Law, Skipped, cases_in, labelled
from coldbench.core.validation import checked
from coldbench.models.registry import build

SIZE, COUNT = 16, 3
"""Side of the smaller images, unless the parameters state a `size`, and number of images."""
TOLERANCE = 1e-4
"""Of values around 1: a convolution may sum in another order for another batch size."""


@dataclass(frozen=True)
class Case:
    """A network as an experiment describes it, for images of one size and number of channels."""

    network: Network
    channels: int
    size: int
    label: str = ""

    def __str__(self) -> str:
        return self.label

    def built(self, seed: int = 0) -> nn.Module:
        """The network in evaluation mode. Its weights are moved a little, because some begin with output 0."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = build(self.network, self.channels, self.size)
            with torch.no_grad():
                for parameter in network.parameters():
                    parameter.add_(0.02 * torch.randn_like(parameter))
        return network.eval()

    def images(self) -> Tensor:
        """Uniform images in [-1, 1], float32 (COUNT, C, size, size)."""
        shape = (COUNT, self.channels, self.size, self.size)
        words = rng.uniform(1, "image", torch.arange(COUNT), shape[1] * shape[2] * shape[3])
        return (2 * words.reshape(shape) - 1).to(torch.float32)


def cases(name: str, parameters: Mapping[str, Any], data: Path) -> Iterator[Case]:
    """The network with each of its `test_params`, or its defaults: two sizes, one channel and three."""
    kind = plugins.load("network", name).object

    def two(spec: dict[str, Any], size: int) -> Iterator[Case]:
        yield from cases_of(spec, 1, size)
        yield from cases_of(spec, 3, 2 * size)

    yield from cases_in(kind, name, parameters, SIZE, two)


def cases_of(spec: Mapping[str, Any], channels: int, size: int) -> Iterator[Case]:
    """A network with its parameters, for images of one size and number of channels; it is built once."""
    case = Case(
        checked(Network, spec, "network"), channels, size, labelled({**spec, "channels": channels, "size": size})
    )
    case.built()
    yield case


def _times(t: int) -> Tensor:
    return torch.full((COUNT,), t, dtype=torch.int64)


def shape_and_dtype(case: Case) -> str | None:
    """Images (N, C, H, W) float32 and times (N,) int64 in, such images out; finite."""
    x = case.images()
    with torch.no_grad():
        y = case.built()(x, torch.arange(COUNT))
    if not isinstance(y, Tensor) or (y.shape, y.dtype) != (x.shape, x.dtype):
        out = f"{y.dtype} {tuple(y.shape)}" if isinstance(y, Tensor) else type(y).__name__
        raise Broken(f"it turns {x.dtype} {tuple(x.shape)} into {out}")
    if not y.isfinite().all():
        raise Broken("its output holds NaN or infinity")
    return None


def deterministic(case: Case) -> str | None:
    """In evaluation mode a second call gives the same."""
    network, x = case.built(), case.images()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        first = network(x, _times(2))
        torch.manual_seed(5)
        again = network(x, _times(2))
    if not torch.equal(first, again):
        raise Broken(
            "a second call in evaluation mode gives other values: is there dropout or noise that eval() leaves on?"
        )
    return None


def batch_independence(case: Case) -> str | None:
    """In evaluation mode an image alone gives what it gives in a batch, at its own time."""
    network, x, t = case.built(), case.images(), torch.arange(COUNT)
    with torch.no_grad():
        together = network(x, t)
        for i in range(COUNT):
            alone = network(x[[i]], t[[i]])
            difference = float((alone - together[[i]]).abs().max())
            if not difference <= TOLERANCE * max(1.0, float(together.abs().max())):
                raise Broken(
                    f"image {i} changes by {difference:.2g} if it is alone in evaluation mode: is a normalisation over "
                    "the batch in training mode?"
                )
    return None


def uses_t(case: Case) -> str | None:
    """The output depends on the severity."""
    if not case.network.time:
        raise Skipped("time is false")
    network, x = case.built(), case.images()
    with torch.no_grad():
        if torch.equal(network(x, _times(0)), network(x, _times(9))):
            raise Broken(
                "the output is the same at every severity; a network may have a parameter `time`, false for that"
            )
    return None


def gradients(case: Case) -> str | None:
    """Every parameter has a gradient, and it is finite."""
    network = case.built().train()
    (network(case.images(), torch.arange(COUNT)) - 0.1).square().mean().backward()
    for name, parameter in network.named_parameters():
        if parameter.requires_grad and parameter.grad is None:
            raise Broken(f"no gradient reaches {name}: it is not used")
        if parameter.grad is not None and not parameter.grad.isfinite().all():
            raise Broken(f"the gradient of {name} is NaN or infinity")
    return None


def leaves_its_inputs(case: Case) -> str | None:
    """Neither the images nor the times are changed."""
    x, t = case.images(), torch.arange(COUNT)
    before = x.clone(), t.clone()
    with torch.no_grad():
        case.built()(x, t)
    if not torch.equal(x, before[0]) or not torch.equal(t, before[1]):
        raise Broken("it changes its inputs in place")
    return None


def saved_weights(case: Case) -> str | None:
    """Another network with the saved weights gives the same output, so all that was learnt is saved."""
    one, other, x = case.built(0), case.built(1), case.images()
    with torch.no_grad():
        expected = one(x, _times(1))
        other.load_state_dict(one.state_dict())
        if not torch.equal(other(x, _times(1)), expected):
            raise Broken("its state_dict does not decide its output: is a module or tensor not registered?")
    return None


def cost(case: Case) -> str | None:
    """Parameters, floating-point operations and speed are reported."""
    network, x, t = case.built(), case.images(), torch.arange(COUNT)
    with torch.inference_mode():
        with FlopCounterMode(display=False) as counter:
            network(x, t)
        times = []
        for _ in range(3):
            began = time.thread_time()
            network(x, t)
            times.append(max(time.thread_time() - began, 1e-9))
    parameters = sum(each.numel() for each in network.parameters())
    return (
        f"{parameters:,} parameters; {case.size} px: {counter.get_total_flops() / COUNT / 1e6:,.3g} MFLOP an image, "
        f"{COUNT / min(times):,.0f} images/s on a core of this CPU"
    )


LAWS = (
    Law("shape and dtype", shape_and_dtype, required=True, basic=True),
    Law("leaves its inputs", leaves_its_inputs, basic=True),
    Law("deterministic in evaluation", deterministic),
    Law("batch independence in evaluation", batch_independence),
    Law("uses t", uses_t),
    Law("gradients reach every parameter", gradients),
    Law("saved weights decide its output", saved_weights),
    Law("cost", cost),
)
