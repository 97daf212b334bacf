"""Where restorations start, and which images a degradation mixes in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from coldbench import data, degradations
from coldbench.core.experiment import Experiment
from coldbench.data.preprocessing import center_crop
from coldbench.sampling.starts import degraded

CPU = torch.device("cpu")


def test_default_severity_is_t_written_out(experiment: Experiment, digits: Path) -> None:
    """The experiment is quantized, so x_T has 8-bit values in both cases."""
    degradation = degradations.for_experiment(experiment, None)
    tests = data.load(digits, "test")
    _, default, _ = degraded(degradation, tests, range(5), 3, CPU)
    _, written_out, _ = degraded(degradation, tests, range(5), 3, CPU, degradation.T)
    assert torch.equal(default, written_out)
    levels = (default.double() + 1) / 2 * 255
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)


def test_partner_images_are_its_training_images(experiment: Experiment, digits: Path) -> None:
    mixed = experiment.model_copy(update={"degradation": {"name": "animorphosis", "T": 4, "partner": "digits"}})
    images = degradations.for_experiment(mixed, digits).images
    np.testing.assert_array_equal(images, center_crop(data.load(digits, "train"), 16))
