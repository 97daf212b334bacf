"""coldbench: replication suite and benchmark for "Cold Diffusion: Inverting Arbitrary Image Transforms Without Noise".

The names of this module are the Python interface. Each is imported when it is first used, so `import coldbench` loads
no torch.

- Registering components of one's own: `degradation`, `sampler`, `network`, `metric`, `dataset`, and the base classes
  `Degradation` and `Sampler`. `rng` draws random numbers that belong to an image.
- Using the suite's: `build_degradation`, `build_network`, `sample`, `reconstruct`, `load_model`, `restorer`.
- Per-image metrics: `ssim`, `squared_error`, `psnr`.

A model restores images that it has degraded:

    import coldbench
    import torch

    model = coldbench.load_model("model.safetensors")
    D, R = model.degradation(), model.restorer()
    x0 = model.read_images("photos", resize=True)  # float32 (N, C, size, size) in [-1, 1]
    drawn = D.draw_for(x0, torch.arange(len(x0)), 0)  # what is random, by seed 0
    xt = D(x0, D.T, drawn)
    x = coldbench.reconstruct(R, D, xt, drawn, "tacos")
    print(coldbench.ssim((x0 + 1) / 2, (x + 1) / 2))  # one value for each image
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from coldbench.core import __version__

if TYPE_CHECKING:
    from coldbench.core import rng
    from coldbench.core.plugins import dataset, degradation, metric, network, sampler
    from coldbench.degradations.base import Degradation
    from coldbench.degradations.registry import build as build_degradation
    from coldbench.evaluation.metrics.similarity import psnr, squared_error
    from coldbench.evaluation.metrics.similarity import ssim_metric as ssim
    from coldbench.models.inference import restorer
    from coldbench.models.model_file import load_model
    from coldbench.models.registry import build as build_network
    from coldbench.sampling.samplers import Sampler, reconstruct, sample


__all__ = [
    "Degradation",
    "Sampler",
    "__version__",
    "build_degradation",
    "build_network",
    "dataset",
    "degradation",
    "load_model",
    "metric",
    "network",
    "psnr",
    "reconstruct",
    "restorer",
    "rng",
    "sample",
    "sampler",
    "squared_error",
    "ssim",
]

_PLACES = {
    "Degradation": "degradations.base:Degradation",
    "Sampler": "sampling.samplers:Sampler",
    "build_degradation": "degradations.registry:build",
    "build_network": "models.registry:build",
    "load_model": "models.model_file:load_model",
    "psnr": "evaluation.metrics.similarity:psnr",
    "reconstruct": "sampling.samplers:reconstruct",
    "restorer": "models.inference:restorer",
    "rng": "core.rng:",
    "sample": "sampling.samplers:sample",
    "squared_error": "evaluation.metrics.similarity:squared_error",
    "ssim": "evaluation.metrics.similarity:ssim_metric",
} | {kind: f"core.plugins:{kind}" for kind in ("dataset", "degradation", "metric", "network", "sampler")}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    module, _, attribute = _PLACES[name].partition(":")
    loaded = importlib.import_module(f"{__name__}.{module}")
    return getattr(loaded, attribute) if attribute else loaded


def __dir__() -> list[str]:
    return __all__
