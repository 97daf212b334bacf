"""The networks and filters whose features the distances compare."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.metrics import gabor
from coldbench.evaluation.metrics.frechet import Features


@dataclass(frozen=True)
class Extractor:
    """Features of images, and the distances on them.

    `features` maps images (N, C, H, W) in [0, 1] to rows (N, d). `name` is the Fréchet distance, `draws` the number of
    resamples of its interval. `kernel` is the kernel distance, "" for none.
    """

    name: str
    features: Callable[[Tensor], Features]
    draws: int
    kernel: str = ""


GABOR = Extractor(gabor.NAME, lambda images: gabor.features(images).cpu().numpy(), draws=200)


def extractors(protocols: Iterable[str], weights: Path | None, device: torch.device) -> list[Extractor]:
    """The embedded Gabor features, and those of FID under each protocol with the weights in the folder `weights`.

    ColdbenchError for an unknown protocol, or if the weights are missing or damaged.
    """
    result = [GABOR]
    for protocol in protocols:
        from coldbench.evaluation.metrics import inception

        if weights is None:
            raise ColdbenchError(f"FID ({protocol}) needs the folder of the Inception weights")
        features = inception.extractor(protocol, weights, device)
        result.append(Extractor(f"fid_{protocol}", features, draws=20, kernel=f"kid_{protocol}"))
    return result
