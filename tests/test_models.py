"""The network against the released one: its keys, its function, its loss and gradients, its training loop."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from coldbench import degradations, models
from coldbench.degradations import observe
from coldbench.errors import ColdbenchError
from coldbench.experiment import Network, Training
from coldbench.train import update

GOLDEN = Path(__file__).parent / "golden"
TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())
BLUR = {"name": "blur", "T": 20, "kernel": 11, "std": 7.0}
SALT = "cold-public:"


def load(name: str) -> dict[str, np.ndarray]:
    """A golden file."""
    with np.load(GOLDEN / f"{name}.npz") as stored:
        return dict(stored)


def filled(channels: int) -> nn.Module:
    """The network of the paper with the weights of the golden files: a function of each entry's key and shape."""
    with torch.device("meta"):  # skips the random initialisation
        network = models.build(Network(), channels)
    weights = {}
    for key, entry in network.state_dict().items():
        z = np.random.Generator(np.random.PCG64(zlib.crc32(f"{SALT}{key}".encode()))).standard_normal(entry.shape)
        last = key.rpartition(".")[2]
        if last == "g" or (last == "weight" and entry.ndim == 1):
            z = 1 + 0.1 * z
        elif last in ("b", "bias"):
            z = 0.1 * z
        else:
            z = z / math.sqrt(math.prod(entry.shape[1:]))
        weights[key] = torch.from_numpy(z.astype(np.float32))
    network.load_state_dict(weights, assign=True)
    return network


@pytest.fixture(scope="module")
def grey() -> nn.Module:
    """The 1-channel network; its weights are shared, so tests leave them as they are."""
    return filled(1)


@pytest.mark.parametrize("channels", [1, 3])
def test_golden_keys(channels: int) -> None:
    """The keys and shapes of the released network, none more or less: published checkpoints load as they are."""
    golden = json.loads((GOLDEN / f"net_unet_ch{channels}_keys.json").read_text())
    with torch.device("meta"):
        network = models.build(Network(), channels)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == golden["state_dict"]
    assert sum(p.numel() for p in network.parameters()) == golden["parameter_count"]
    assert all(p.requires_grad for p in network.parameters())


@pytest.mark.parametrize("channels", [1, 3])
def test_golden_forward(channels: int, request: pytest.FixtureRequest) -> None:
    """Outputs at the times 0 and 199; asked for through `restorer`, whose severity is the time plus one."""
    golden = load(f"net_unet_ch{channels}")
    network = request.getfixturevalue("grey") if channels == 1 else filled(channels)
    restore = models.restorer(network)
    for k in (0, 1):
        got = restore(torch.from_numpy(golden["x"]), int(golden[f"t_{k}"][0]) + 1)
        tolerance = TOLERANCES[f"net_unet_ch{channels}"]
        torch.testing.assert_close(got, torch.from_numpy(golden[f"y_{k}"]), rtol=0, atol=tolerance)


def test_times_belong_to_images(grey: nn.Module) -> None:
    """A batch of mixed times equals its images one by one."""
    x, time = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 19])
    with torch.inference_mode():
        together = grey(x, time)
        alone = torch.cat([grey(x[[i]], time[[i]]) for i in (0, 1)])
        assert (grey(x, time.flip(0)) - together).abs().max() > 1e-2
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_golden_loss_and_gradients(grey: nn.Module, accumulation: int) -> None:
    """Loss and gradient norms, per parameter and in total; micro-batches add up to the whole batch."""
    golden = load("loss_blur_mnist_unet_ch1_l1")
    x0, xt = (torch.from_numpy(golden[k]) for k in ("x0", "x_t"))
    t = torch.from_numpy(golden["t_index"]) + 1
    blurred = observe(degradations.build(BLUR, 32), x0, t, {})
    torch.testing.assert_close(blurred, xt, rtol=0, atol=7e-6)
    size = len(x0) // accumulation
    parts = zip(x0.split(size), xt.split(size), t.split(size), strict=True)
    still = torch.optim.SGD(grey.parameters(), lr=0.0)
    loss, norm = update(grey, {}, still, parts, Training(total_batch=4, accumulation=accumulation), step=1)
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    assert norm.item() == pytest.approx(float(golden["grad_norm_total"]), rel=1e-4)
    named = dict(grey.named_parameters())
    norms = [named[key].grad.norm().item() for key in golden["parameter_names"].tolist()]
    assert len(norms) == len(named)
    np.testing.assert_allclose(norms, golden["grad_norm_per_parameter"], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_golden_training_loop() -> None:
    """The released trainer from step 2000 to 2012: the loss of each update, and how far weights and average moved."""
    golden = load("loss_trainloop_mnist_unet_ch1")
    network, degradation = filled(1).train(), degradations.build(BLUR, 32)
    initial = {key: value.clone() for key, value in network.state_dict().items()}
    average = {key: value.clone() for key, value in initial.items()}
    training = Training(total_batch=4)
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate)
    x0, t = torch.from_numpy(golden["batches"]), torch.from_numpy(golden["t_index"]) + 1
    losses = []
    for k in range(12):
        batches = [(x0[i], observe(degradation, x0[i], t[i], {}), t[i]) for i in (2 * k, 2 * k + 1)]
        loss, _ = update(network, average, optimizer, batches, training, step=2000 + k)
        losses.append(loss.item())
    np.testing.assert_allclose(losses, golden["losses"].reshape(12, 2).mean(axis=1), rtol=1e-4)
    assert distance(network.state_dict(), initial) == pytest.approx(float(golden["model_minus_init_l2"]), rel=1e-4)
    assert distance(average, initial) == pytest.approx(float(golden["ema_minus_init_l2"]), rel=1e-4)


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The norm of the difference of all weights together."""
    return math.sqrt(sum((a[key] - b[key]).double().square().sum().item() for key in a))


class Shift(nn.Module):
    """The smallest network: its one weight is added to the image."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        return x + self.weight


@pytest.mark.parametrize(
    ("step", "share"), [(0, 1.0), (7, 0.0), (10, 1.0), (15, 0.0), (20, 0.1), (21, 0.0), (30, 0.1), (35, 0.0)]
)
def test_moving_average(step: int, share: float) -> None:
    """Every `ema_every` updates: a copy before `ema_start`, from it on 1 − decay of the new weights; else untouched."""
    network, average = Shift(), {"weight": torch.tensor(100.0)}
    image = torch.zeros(1, 1, 2, 2)
    training = Training(total_batch=1, accumulation=1, ema_every=10, ema_start=20, ema_decay=0.9)
    optimizer = torch.optim.SGD(network.parameters(), lr=4.0)
    loss, norm = update(network, average, optimizer, [(image + 1, image, torch.tensor([1]))], training, step)
    assert (loss.item(), norm.item()) == (1.0, 1.0)
    assert network.weight.item() == 4.0, "the average is taken after the optimiser's step"
    assert average["weight"].item() == pytest.approx(100 + share * (4 - 100))


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ColdbenchError, match="unknown network 'unet_convnet': did you mean 'unet_convnext'"):
        models.build(Network(name="unet_convnet"), 1)
