"""The samplers of the paper: direct reconstruction, Algorithm 1 (naive) and Algorithm 2 (TACoS).

All run from x_T down to x_0 and differ only in how x_{s−1} follows from x_s and x̂_0 = R(x_s, s). Nothing is clamped;
iterates may leave [-1, 1] (protocol, section 3).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from coldbench.degradations import Degradation, State
from coldbench.errors import unknown
from coldbench.models import Restorer


@dataclass(frozen=True)
class Step:
    """One reverse step: the severity s it started from, the prediction x̂_0 = R(x_s, s), and the result x_{s−1}."""

    s: int
    x0_hat: Tensor
    x: Tensor


Degrade = Callable[[Tensor, int], Tensor]
"""D(x, s) for a whole batch at one severity; the batch's state is already inside."""


def direct(x: Tensor, x0_hat: Tensor, s: int, degrade: Degrade) -> Tensor:
    """x_0 = R(x_T, T): one prediction, taken as it is."""
    return x0_hat


def naive(x: Tensor, x0_hat: Tensor, s: int, degrade: Degrade) -> Tensor:
    """Algorithm 1: x_{s−1} = D(x̂_0, s−1)."""
    return degrade(x0_hat, s - 1)


def tacos(x: Tensor, x0_hat: Tensor, s: int, degrade: Degrade) -> Tensor:
    """Algorithm 2, Transformation Agnostic Cold Sampling: x_{s−1} = x_s − D(x̂_0, s) + D(x̂_0, s−1)."""
    return x - degrade(x0_hat, s) + degrade(x0_hat, s - 1)


METHODS: dict[str, Callable[[Tensor, Tensor, int, Degrade], Tensor]] = {
    "direct": direct,
    "naive": naive,
    "tacos": tacos,
}


def sample(
    restore: Restorer, degradation: Degradation, x: Tensor, state: State, method: str, start: int | None = None
) -> Iterator[Step]:
    """Restore a batch x (N, C, H, W) that stands at severity `start` (default T), yielding every step.

    The last step's `x` is x_0. `state` is what was drawn when x was degraded: the samplers know where the mask lies.
    """
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    update = METHODS[method]

    def degrade(x0: Tensor, s: int) -> Tensor:
        return degradation(x0, torch.full((len(x0),), s, device=x0.device), state)

    s = degradation.T if start is None else start
    last = s if method == "direct" else 1
    for step in range(s, last - 1, -1):
        x0_hat = restore(x, step)
        x = update(x, x0_hat, step, degrade)
        yield Step(step, x0_hat, x)
