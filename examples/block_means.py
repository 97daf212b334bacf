"""TACoS whose predictions keep what x_T says for certain: the means of its blocks, for super-resolution."""

from torch import Tensor

import coldbench


@coldbench.sampler("block_means")
class BlockMeans(coldbench.Sampler):
    """x̂_0 is projected onto the images with D(x̂_0, T) = x_T, then used as TACoS does.

    The projection x̂_0 + x_T − D(x̂_0, T) is right where D(·, T) is linear and D(D(x, T), T) = D(x, T), as for block
    means. For any other degradation it is a correction without that promise.
    """

    def begin(self, x: Tensor, s: int, d) -> None:
        self.x_T, self.start = x.clone(), s

    def step(self, x: Tensor, x0_hat: Tensor, s: int, r: int, d) -> Tensor:
        projected = x0_hat + self.x_T - d(x0_hat, self.start)
        return x - d(projected, s) + d(projected, r)
