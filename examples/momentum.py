"""TACoS with momentum on its residual, scaled as by Adam (Kingma and Ba, 2015)."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import coldbench


@coldbench.sampler("momentum", exact=False)
class Momentum(coldbench.Sampler):
    """x_r = x_s + step, where the step follows a running mean of TACoS's residual D(x̂_0, r) − D(x̂_0, s).

    With `beta2` the step keeps the size of the present residual, but pixels whose residual changes its sign move less.
    """

    beta: Annotated[float, Field(ge=0, lt=1)] = 0.3
    beta2: Annotated[float, Field(ge=0, lt=1)] = 0.0

    def begin(self, x: Tensor, s: int, d) -> None:
        self.mean, self.square, self.count = torch.zeros_like(x), torch.zeros_like(x), 0

    def step(self, x: Tensor, x0_hat: Tensor, s: int, r: int, d) -> Tensor:
        residual = d(x0_hat, r) - d(x0_hat, s)
        self.count += 1
        self.mean = self.beta * self.mean + (1 - self.beta) * residual
        mean = self.mean / (1 - self.beta**self.count)
        if self.beta2:
            self.square = self.beta2 * self.square + (1 - self.beta2) * residual**2
            root = (self.square / (1 - self.beta2**self.count)).sqrt()
            mean = mean / (root + 1e-8) * residual.abs()
        return x + mean
