"""A look at a training: a few test images restored by its averaged weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call

from coldbench import data
from coldbench.core import rng
from coldbench.core.experiment import Experiment
from coldbench.core.files import atomic
from coldbench.core.images import to_unit_interval
from coldbench.data import preprocessing
from coldbench.degradations import Degradation, initial_xt
from coldbench.sampling.samplers import sample

SHOWN = 8


@torch.inference_mode()
def draw(
    path: Path,
    network: nn.Module,
    average: dict[str, Tensor],
    experiment: Experiment,
    degradation: Degradation,
    prepared: Path,
) -> None:
    """Write a PNG with a column per image: degraded, direct, TACoS, original."""
    device = next(iter(average.values())).device
    x0 = preprocessing.test_images(data.load(prepared, "test"), experiment.size, slice(SHOWN), device)
    state = degradation.draw(torch.arange(len(x0), device=device), rng.derive(experiment.seed, "test"))

    def restore(x: Tensor, s: int) -> Tensor:
        time = torch.full((len(x),), s - 1, device=device)
        restored: Tensor = functional_call(network, average, (x, time))
        return restored

    training = network.training
    network.eval()
    try:
        xt = initial_xt(degradation, x0, state)
        steps = list(sample(restore, degradation, xt, state, "tacos"))
    finally:
        network.train(training)
    rows = torch.stack([xt, steps[0].x0_hat, steps[-1].x, x0])  # (4, N, C, H, W)
    levels = (to_unit_interval(rows).clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 3, 1, 4, 2)
    picture = levels.reshape(4 * x0.shape[2], len(x0) * x0.shape[3], x0.shape[1]).cpu().numpy()
    with atomic(path) as temporary:
        Image.fromarray(np.squeeze(picture)).save(temporary, format="png")
