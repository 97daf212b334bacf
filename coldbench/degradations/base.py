"""The contract of a degradation, and what several families share.

D(x0, t, state) is a deterministic, closed form: it costs the same for every severity t, and everything random was drawn
once, per image, into `state`. Images are float tensors (N, C, size, size) in [-1, 1]; t is int64 (N,) in 0…T; severity
0 is the identity (paper, section 3.1).
"""

from __future__ import annotations

import abc
import dataclasses
import functools
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench.errors import ColdbenchError, unknown

State = dict[str, Tensor]
"""What was drawn for a batch: tensors whose first axis is the image."""

Matrix = npt.NDArray[np.float64]


@runtime_checkable
class Degradation(Protocol):
    """One degradation at one image size."""

    linear: ClassVar[bool]
    """Whether D(·, t, state) is a linear map; stated so that the laws can test it."""

    @property
    def size(self) -> int:
        """Side of the images in pixels."""

    @property
    def T(self) -> int:
        """The highest severity."""

    @property
    def discrete(self) -> bool:
        """Whether the network is shown 8-bit values (protocol 2.2): see `observe`."""

    def draw(self, indices: Tensor, seed: int) -> State:
        """Draw what is random for the images `indices` (N,) int64; on the indices' device."""
        ...

    def __call__(self, x0: Tensor, t: Tensor, state: State, /) -> Tensor:
        """D(x0, t): the images at severities t, one per image."""
        ...


def check_severity(degradation: Degradation, x0: Tensor, t: Tensor) -> None:
    """Raise ColdbenchError unless x0 is a batch of float images of the right size and t fits 0…T."""
    size, top = degradation.size, degradation.T
    if x0.ndim != 4 or x0.shape[-2:] != (size, size):
        raise ColdbenchError(f"images must be (N, C, {size}, {size}), not {tuple(x0.shape)}")
    if not x0.is_floating_point():
        raise ColdbenchError(f"images must be floating point in [-1, 1], not {x0.dtype}")
    if t.shape != x0.shape[:1] or t.dtype != torch.int64:
        raise ColdbenchError(f"severities must be int64 of shape ({len(x0)},), not {t.dtype} {tuple(t.shape)}")
    if len(t) and (int(t.min()) < 0 or int(t.max()) > top):
        raise ColdbenchError(f"severity must lie in 0…{top}, not {int(t.min())}…{int(t.max())}")


def observe(degradation: Degradation, x0: Tensor, t: Tensor, state: State) -> Tensor:
    """What the network is shown of D(x0, t): truncated to 8 bits where the protocol has it (discrepancy D18).

    Used for the training inputs and for the start image of a trajectory, never inside one.
    """
    xt = degradation(x0, t, state)
    # Truncation, not rounding, in float32 and in this order: 63 of the 256 exact 8-bit values come out one level lower.
    return torch.trunc((xt + 1) * 0.5 * 255) / 255 * 2 - 1 if degradation.discrete else xt


class Tables:
    """Operators composed once in float64 and kept as float32 on each device that asks."""

    def __init__(self, values: Matrix) -> None:
        self._on: dict[torch.device, Tensor] = {torch.device("cpu"): torch.from_numpy(values).to(torch.float32)}

    def on(self, device: torch.device) -> Tensor:
        """The table, float32, on `device`."""
        if device not in self._on:
            self._on[device] = self._on[torch.device("cpu")].to(device)
        return self._on[device]


class SeparableLinear(abc.ABC):
    """D(x, t) = A_t · x · A_tᵀ: the same size × size matrix along rows and columns, composed once for every t.

    Blur (with its padding) and pixelation are of this form. Subclasses are frozen dataclasses that give `matrices`,
    float64 (T+1, size, size) with A_0 = 1.
    """

    linear: ClassVar[bool] = True

    @abc.abstractmethod
    def matrices(self) -> Matrix:
        """A_0 … A_T."""

    def draw(self, indices: Tensor, seed: int) -> State:
        """Nothing is random."""
        return {}

    def __call__(self, x0: Tensor, t: Tensor, state: State) -> Tensor:
        """A_t · x0 · A_tᵀ per image; exactly x0 at t = 0."""
        check_severity(self, x0, t)  # type: ignore[arg-type]
        a = tables(self).on(x0.device)[t][:, None].to(x0.dtype)
        return torch.where((t == 0)[:, None, None, None], x0, a @ x0 @ a.mT)


@functools.lru_cache(maxsize=32)
def tables(degradation: Any) -> Tables:
    """The composed operators of a degradation, once per (family, size, schedule): the dataclass itself is the key."""
    return Tables(degradation.matrices())


def choose(kind: str, value: str, choices: tuple[str, ...]) -> None:
    """Raise ColdbenchError unless `value` is one of `choices`."""
    if value not in choices:
        raise unknown(kind, value, choices)


def check_numbers(degradation: Any, **limits: tuple[float, float]) -> None:
    """Raise ColdbenchError unless each named parameter is a number (an integer where declared so) within its limits.

    `discrete`, which every degradation has, must be true or false.
    """
    kinds = {field.name: field.type for field in dataclasses.fields(degradation)}
    name = type(degradation).__name__.lower()
    if not isinstance(degradation.discrete, bool):
        raise ColdbenchError(f"degradation {name}: discrete must be true or false, not {degradation.discrete!r}")
    for key, (low, high) in limits.items():
        value = getattr(degradation, key)
        allowed = int if kinds[key] == "int" else (int, float)
        if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
            what = "a whole number" if kinds[key] == "int" else "a number"
            raise ColdbenchError(f"degradation {name}: {key} must be {what} in {low:g}…{high:g}, not {value!r}")
