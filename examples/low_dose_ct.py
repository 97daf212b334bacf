"""A degradation like CT at a low dose: fewer photons reach each pixel's detector as t grows."""

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

import coldbench


@coldbench.degradation("low_dose_ct")
class LowDoseCT(coldbench.Degradation):
    """Attenuations (x + 1) / 2, times `thickness`, measured with `full_dose` photons at t = 1, fewer at each t.

    The counts of a pixel are Poisson. One normal number a pixel decides its quantile at every t (Cornish and Fisher's
    expansion), so that D is deterministic, and the noise grows without a jump.
    """

    T: Annotated[int, Field(ge=1, le=1000)] = 20
    full_dose: Annotated[float, Field(gt=1)] = 20_000.0
    dose: Annotated[float, Field(gt=1)] = 60.0
    thickness: Annotated[float, Field(gt=0, le=5)] = 2.0

    test_params = ({}, {"T": 6, "dose": 200.0})

    @property
    def bound(self) -> float:
        """The attenuation of less than one photon is cut off, so that it stays finite."""
        return 1 + 2 * torch.tensor(2 * self.full_dose).log().item() / self.thickness

    def draw(self, indices: Tensor, seed: int) -> dict[str, Tensor]:
        z = coldbench.rng.normal(seed, "photons", indices, 3 * self.size**2)
        return {"z": z.reshape(-1, 3, self.size, self.size)}

    def degrade(self, x0: Tensor, t: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        share = ((t - 1) / max(self.T - 1, 1)).clamp(min=0).to(x0.dtype)[:, None, None, None]
        photons = self.full_dose ** (1 - share) * self.dose**share
        expected = photons * torch.exp(-self.thickness * (x0 + 1) / 2)
        z = drawn["z"][:, : x0.shape[1]].to(x0.dtype)
        counts = (expected + expected.sqrt() * z + (z**2 - 1) / 6).clamp(min=0.5)
        return 2 / self.thickness * torch.log(photons / counts) - 1
