"""No operation mixes two devices: every stage runs on a simulated GPU, whose tensors have a device but no values.

PyTorch's fake tensors raise the errors of a GPU (operands on two devices, a wrong dtype) on a machine without one. The
tests replace what needs values: the checks of D's input, derived seeds, the order of images, flakes that several images
share and the partners of animorphosis; and the backward pass, because it needs a driver.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from coldbench import degradations, models
from coldbench.core import rng
from coldbench.core.experiment import Experiment, Network, Preprocessing, Training
from coldbench.core.sampling_settings import SampleSet
from coldbench.data import preprocessing
from coldbench.degradations import DEGRADATIONS, Degradation, base
from coldbench.degradations.mixing import Animorphosis, Mixing
from coldbench.evaluation.metrics import gabor, ssim
from coldbench.sampling import priors, starts
from coldbench.sampling.samplers import METHODS, method_of, sample
from coldbench.training import distributed, loop

pytestmark = pytest.mark.skipif(torch.version.cuda is None, reason="a torch without CUDA cannot simulate a GPU")
CPU, GPU = torch.device("cpu"), torch.device("cuda")
SPECS = [
    pytest.param({"name": name, **params}, id=f"{name}-{k}")
    for name, kind in DEGRADATIONS.items()
    for k, params in enumerate(kind.test_params)
]
IMAGES = np.random.default_rng(0).integers(0, 256, (7, 3, 16, 16), dtype=np.uint8)


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    """Inside this mode tensors on GPU are fake; caches are cleared, so that no fake tensor stays in them."""
    monkeypatch.setattr(base, "check_input", lambda degradation, x0, t, drawn: None)
    monkeypatch.setattr(rng, "derive", lambda seed, purpose: seed)
    monkeypatch.setattr(preprocessing, "image_indices", lambda seed, position, count: np.arange(len(position)) % count)
    monkeypatch.setattr(torch, "unique", lambda x, return_inverse: (x, torch.arange(len(x), device=x.device)))
    partner = lambda self, indices, seed: {"z": torch.zeros(len(indices), 3, 16, 16, device=indices.device)}  # noqa: E731
    monkeypatch.setattr(Animorphosis, "draw", partner)
    caches = (base._operators_on, ssim._smoothing)
    for cache in caches:
        cache.cache_clear()
    yield FakeTensorMode(allow_non_fake_inputs=True)
    for cache in caches:
        cache.cache_clear()


def built(spec: dict[str, Any], mode: FakeTensorMode, monkeypatch: pytest.MonkeyPatch) -> Degradation:
    """The degradation; its operators, which NumPy computes, are fake tensors on the CPU until they are copied."""
    degradation = degradations.build(spec, 16, IMAGES if "partner" in spec else None)
    if isinstance(degradation, base.Precomputed):
        operators = mode.from_tensor(degradation.operators_on(CPU))
        monkeypatch.setattr(base, "_operators_on", lambda degradation, device: operators.to(device))
    return degradation


def on_gpu(*tensors: Tensor) -> bool:
    return all(tensor.device.type == "cuda" for tensor in tensors)


def test_an_operation_on_two_devices_is_an_error(fake: FakeTensorMode) -> None:
    with fake, pytest.raises(Exception, match="on the same device"):
        torch.ones(2, device=GPU) + torch.ones(2)


@pytest.mark.parametrize("spec", SPECS)
def test_degradations_and_samplers_stay_on_the_gpu(
    fake: FakeTensorMode, monkeypatch: pytest.MonkeyPatch, spec: dict[str, Any]
) -> None:
    """From test images to x_0, by every method of the degradation."""
    degradation = built(spec, fake, monkeypatch)
    with fake:
        begin = starts.RestorationTask(SampleSet(), {}, degradation, 4, 0, GPU, IMAGES).initial_state(range(4))
        assert begin.x0 is not None
        assert on_gpu(begin.x, begin.x0, *begin.drawn.values())
        t = torch.ones(4, dtype=torch.int64, device=GPU)
        assert on_gpu(degradations.network_input(degradation, begin.x0, t, begin.drawn))
        for method in METHODS:
            if method_of(method).estimates_z and not isinstance(degradation, Mixing):
                continue
            some = {"stride": max(1, degradation.T // 4), "redraw": begin.redraw}
            for step in sample(lambda x, s: x, degradation, begin.x, begin.drawn, method, **some):
                assert on_gpu(step.x)


@pytest.mark.parametrize("kind", ["means", "grid", "colour", "partner", "noise"])
def test_starts_stay_on_the_gpu(fake: FakeTensorMode, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    spec: dict[str, Any] = {
        "means": {"name": "blur", "T": 4, "kernel": 5, "std": 2.0},
        "grid": {"name": "superresolution", "T": 2},
        "colour": {"name": "inpainting_generation", **DEGRADATIONS["inpainting_generation"].test_params[0]},
        "partner": {"name": "animorphosis", **DEGRADATIONS["animorphosis"].test_params[0]},
        "noise": {"name": "noise", **DEGRADATIONS["noise"].test_params[0]},
    }[kind]
    degradation, mixture = built(spec, fake, monkeypatch), None
    if kind in priors.FITTED:
        d = 3 * (priors._side(degradation) ** 2 if kind == "grid" else 1)
        mixture = priors.Mixture(np.array([0.5, 0.5]), np.zeros((2, d)), np.stack([np.eye(d)] * 2))
    with fake:
        x, drawn = priors.draw(kind, degradation, torch.arange(4, device=GPU), 1, 3, mixture, noise_level=0.002)
        assert on_gpu(x, *drawn.values())
        assert x.shape == (4, 3, 16, 16)


@pytest.mark.parametrize(
    "network",
    [Network(dim=8, dim_mults=[1, 2]), Network(name="unet_ddpm", dim=8, dim_mults=[1, 2], dropout=0.2, attention=8)],
    ids=lambda network: network.name,
)
def test_training_and_restoring_stay_on_the_gpu(
    fake: FakeTensorMode, monkeypatch: pytest.MonkeyPatch, experiment: Experiment, network: Network
) -> None:
    """Two steps on cropped and flipped images, one of them with EMA; then R."""
    experiment = experiment.model_copy(
        update={"preprocessing": Preprocessing(resize=19, pad=1, flip=True), "network": network}
    )
    degradation = built(experiment.degradation, fake, monkeypatch)
    larger = np.zeros((9, 3, 19, 19), np.uint8)
    training = Training(max_steps=2, batch_size=8, grad_accumulation=2, ema_update_every=2)
    with fake:
        with GPU:
            net = models.build(network, 3, 16).train()
        source = loop.TrainingSet(larger, experiment, degradation, 1)
        state = loop.TrainingState.initial(net, 1e-3, {})

        def backward(loss: Tensor, fabric: None) -> None:
            assert on_gpu(loss)
            for weight in net.parameters():
                weight.grad = torch.zeros_like(weight)

        monkeypatch.setattr(distributed, "backward", backward)
        for step in range(2):
            batches = [loop.training_batch(source, first, 4, GPU) for first in (8 * step, 8 * step + 4)]
            assert all(on_gpu(*batch) for batch in batches)
            loss, norm = loop.optimizer_step(state, batches, training)
            assert on_gpu(loss, norm, *state.ema.values())
        restored = models.restorer(net, inference_batch=3)(torch.zeros(4, 3, 16, 16, device=GPU), 2)
        assert on_gpu(restored)
        assert (restored.shape, restored.dtype) == ((4, 3, 16, 16), torch.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_scores_stay_on_the_gpu(fake: FakeTensorMode, monkeypatch: pytest.MonkeyPatch, channels: int) -> None:
    bank = fake.from_tensor(gabor.filters())
    monkeypatch.setattr(gabor, "filters", lambda: bank)
    with fake:
        a, b = (torch.zeros(4, channels, 32, 32, device=GPU) for _ in range(2))
        assert on_gpu(ssim.ssim_per_image(a, b), gabor.features(a))
