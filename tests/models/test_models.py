"""The network against the released one: its keys, its function, its loss and gradients, its training loop."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import GOLDEN, SHARED
from torch import Tensor, nn

from coldbench import degradations, models
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Network, Training
from coldbench.degradations import network_input
from coldbench.training.loop import TrainingState, optimizer_step

FULL = SHARED / "golden"
TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())
BLUR = {"name": "blur", "T": 20, "kernel": 11, "std": 7.0}
SALT = "cold-public:"
DDPM = Network(name="unet_ddpm", dim=128, dim_mults=[1, 2, 2, 2], dropout=0.1, attention=16)
NETWORKS = {  # as the released scripts build them: the network, its channels, its side
    "net_unet_ch1": (Network(), 1, 32),
    "net_unet_ch1_residual": (Network(residual=True), 1, 32),
    "net_unet_ch3": (Network(), 3, 32),
    "net_unet_ch3_residual": (Network(residual=True), 3, 32),
    "net_unet_ch3_notime": (Network(time=False), 3, 32),
    "net_model_ch128_res32": (DDPM, 3, 32),
    "net_snow_unet_resnet_res128": (DDPM, 3, 128),
}
INPUTS = {  # the files whose x another one shares
    "net_unet_ch1_residual": "net_unet_ch1",
    "net_unet_ch3_residual": "net_unet_ch3",
    "net_unet_ch3_notime": "net_unet_ch3",
    "net_model_ch128_res32": "net_unet_ch3",
}
COUNTS = {
    "net_unet_ch1": 56_612_916,
    "net_unet_ch3": 56_615_708,
    "net_unet_ch3_notime": 56_278_745,
    "net_model_ch128_res32": 35_746_307,
    "net_snow_unet_resnet_res128": 35_746_307,
}
ALL_NETWORKS = NETWORKS | {  # the snow folder's copies of the same networks
    "net_snow_unet_convnext": NETWORKS["net_unet_ch3"],
    "net_snow_unet_convnext_notime": NETWORKS["net_unet_ch3_notime"],
    "net_snow_unet_resnet_res32": NETWORKS["net_model_ch128_res32"],
}
LOSSES = {  # file: network, loss
    "loss_blur_mnist_unet_ch1_l2": ("net_unet_ch1", "l2"),
    "loss_blur_cifar_model_l1": ("net_model_ch128_res32", "l1"),
    "loss_inpaint_unet_ch3_residual_l1": ("net_unet_ch3_residual", "l1"),
    "loss_snow_unet_convnext_l1": ("net_unet_ch3", "l1"),
}
with_full_files = pytest.mark.skipif(not FULL.is_dir(), reason="the full golden files are not at hand")
KINDS = {
    "unet_convnext": Network(dim=8, dim_mults=[1, 2]),
    "unet_ddpm": Network(name="unet_ddpm", dim=8, dim_mults=[1, 2], attention=8),
}
kinds = pytest.mark.parametrize("kind", list(KINDS))


def load(name: str, folder: Path = GOLDEN) -> dict[str, np.ndarray]:
    """A golden file."""
    with np.load(folder / f"{name}.npz") as stored:
        return dict(stored)


def built(name: str) -> nn.Module:
    """A released network without values."""
    with torch.device("meta"):  # skips the random initialisation
        return models.build(*ALL_NETWORKS[name])


def filled(name: str) -> nn.Module:
    """A released network, evaluating, with the golden files' weights: a function of each entry's key and shape."""
    network = built(name)
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
    return network.eval()


@pytest.fixture(scope="module")
def grey() -> nn.Module:
    """The 1-channel network; its weights are shared, so tests leave them as they are."""
    return filled("net_unet_ch1")


def small(kind: str, **changes: object) -> nn.Module:
    """A tiny network for 16 px, evaluating, with reproducible weights."""
    torch.manual_seed(0)
    return models.build(KINDS[kind].model_copy(update=changes), 3, 16).eval()


def picture(count: int = 2) -> Tensor:
    """Noise as (count, 3, 16, 16)."""
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def embedding(network: nn.Module, time: Tensor) -> Tensor:
    """What the golden files record of the time's path: after its layers (ConvNeXt), or before them (DDPM-style)."""
    return network.time_mlp(time) if hasattr(network, "time_mlp") else network.embedding(time)


@pytest.mark.parametrize("name", COUNTS)
def test_golden_keys(name: str) -> None:
    """The keys and shapes of the released network, none more or less: published checkpoints load as they are."""
    golden = json.loads((GOLDEN / f"{name}_keys.json").read_text())
    network = built(name)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == golden["state_dict"]
    assert sum(p.numel() for p in network.parameters()) == golden["parameter_count"] == COUNTS[name]
    assert all(p.requires_grad for p in network.parameters())


@with_full_files
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_golden_keys_of_all_files(name: str) -> None:
    """The same for the released networks of every folder, from the full files."""
    golden = json.loads((FULL / f"{name}_keys.json").read_text())
    entries = built(name).state_dict()
    assert len(entries) == golden["number_of_tensors"]
    assert {key: list(value.shape) for key, value in entries.items()} == dict(golden["state_dict"])
    assert sum(p.numel() for p in built(name).parameters()) == golden["parameter_count"]


@pytest.mark.parametrize("name", NETWORKS)
def test_golden_forward(name: str, request: pytest.FixtureRequest) -> None:
    """Outputs at each recorded time, asked for through `restorer`, whose severity is the time plus one."""
    golden, details = load(name), load("net_details")
    network = request.getfixturevalue("grey") if name == "net_unet_ch1" else filled(name)
    weights = network.state_dict()
    for key, value in details.items():
        if key.startswith(f"{name}/check_first8__"):
            first = weights[key.partition("__")[2]].flatten()[:8]
            torch.testing.assert_close(first, torch.from_numpy(value), rtol=0, atol=2e-6)
    restore = models.restorer(network)
    x = torch.from_numpy(load(INPUTS.get(name, name))["x"])
    times = [key for key in golden if key.startswith("t_")]
    assert times
    for key in times:
        expected = torch.from_numpy(golden[key.replace("t_", "y_")])
        got = restore(x, int(golden[key][0]) + 1)
        assert got.shape == x.shape
        shown = got[..., : expected.shape[-2], : expected.shape[-1]]
        torch.testing.assert_close(shown, expected, rtol=0, atol=TOLERANCES[name])
    if f"{name}/time_embedding_t_0" in details:
        with torch.inference_mode():
            found = embedding(network, torch.from_numpy(details[f"{name}/t_0"]))
        torch.testing.assert_close(found, torch.from_numpy(details[f"{name}/time_embedding_t_0"]), rtol=0, atol=2e-6)


@pytest.mark.slow
@with_full_files
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_golden_forward_of_all_files(name: str) -> None:
    """Every array of the full files: whole outputs of batches of mixed times, embeddings, first weights."""
    golden, allowed = load(name, FULL), json.loads((FULL / "tolerances.json").read_text())[f"{name}.npz"]
    network, found = filled(name), {}
    weights = network.state_dict()
    with torch.inference_mode():
        for key in golden:
            if key.startswith("t_"):
                time = torch.from_numpy(golden[key])
                found[key.replace("t_", "y_")] = network(torch.from_numpy(golden["x"]), time)
            elif key.startswith("check_first8__"):
                found[key] = weights[key.partition("__")[2]].flatten()[:8]
            elif key == "time_embedding_t_0":
                found[key] = embedding(network, torch.from_numpy(golden["t_0"]))
    assert found.keys() == golden.keys() - {"x", "y_std", "meta_json"} - {key for key in golden if key.startswith("t_")}
    for key, value in found.items():
        torch.testing.assert_close(value, torch.from_numpy(golden[key]), rtol=0, atol=allowed[key])


def test_times_belong_to_images(grey: nn.Module) -> None:
    """A batch of mixed times equals its images one by one."""
    x, time = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 19])
    with torch.inference_mode():
        together = grey(x, time)
        alone = torch.cat([grey(x[[i]], time[[i]]) for i in (0, 1)])
        assert (grey(x, time.flip(0)) - together).abs().max() > 1e-2
    torch.testing.assert_close(together, alone, rtol=0, atol=2e-5)


def gradient_norms(network: nn.Module, names: list[str]) -> list[float]:
    """The gradients' norms in the order of `names`, which are all of the parameters."""
    named = dict(network.named_parameters())
    assert named.keys() == set(names)
    assert len(names) == len(named)
    return [named[key].grad.norm().item() for key in names]


@pytest.mark.parametrize("grad_accumulation", [1, 2])
def test_golden_loss_and_gradients(grey: nn.Module, grad_accumulation: int) -> None:
    """Loss and gradient norms, per parameter and in total; micro-batches add up to the whole batch."""
    golden = load("loss_blur_mnist_unet_ch1_l1")
    x0, xt = (torch.from_numpy(golden[k]) for k in ("x0", "x_t"))
    t = torch.from_numpy(golden["t_index"]) + 1
    blurred = network_input(degradations.build(BLUR, 32), x0, t, {})
    torch.testing.assert_close(blurred, xt, rtol=0, atol=7e-6)
    size = len(x0) // grad_accumulation
    parts = zip(x0.split(size), xt.split(size), t.split(size), strict=True)
    still = torch.optim.SGD(grey.parameters(), lr=0.0)
    training = Training(batch_size=4, grad_accumulation=grad_accumulation)
    loss, norm = optimizer_step(TrainingState(grey, still, {}, step=1), parts, training)
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-5)
    assert norm.item() == pytest.approx(float(golden["grad_norm_total"]), rel=1e-4)
    norms = gradient_norms(grey, golden["parameter_names"].tolist())
    np.testing.assert_allclose(norms, golden["grad_norm_per_parameter"], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_golden_losses_of_every_kind(name: str, request: pytest.FixtureRequest) -> None:
    """The squared loss, the DDPM-style network on blur, the residual network on inpainting, the network on snow."""
    golden = load("loss_blur_mnist_unet_ch1_l1") | load(name)  # the l2 file holds only what differs
    net, kind = LOSSES[name]
    network = request.getfixturevalue("grey") if net == "net_unet_ch1" else filled(net)
    x0, xt = (torch.from_numpy(golden[k]) for k in ("x0", "x_t"))
    training = Training(batch_size=len(x0), grad_accumulation=1, loss=kind)
    still = torch.optim.SGD(network.parameters(), lr=0.0)
    batches = [(x0, xt, torch.from_numpy(golden["t_index"]) + 1)]
    loss, norm = optimizer_step(TrainingState(network, still, {}, step=1), batches, training)
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=1e-4)
    assert norm.item() == pytest.approx(float(golden["grad_norm_total"]), rel=1e-4)
    norms = gradient_norms(network, golden["parameter_names"].tolist())
    np.testing.assert_allclose(norms, golden["grad_norm_per_parameter"], rtol=1e-4, atol=1e-3)


@pytest.mark.slow
def test_golden_training_loop() -> None:
    """The released trainer from step 2000 to 2012: the loss of each update, and how far weights and average moved."""
    golden = load("loss_trainloop_mnist_unet_ch1")
    network, degradation = filled("net_unet_ch1").train(), degradations.build(BLUR, 32)
    initial = {key: value.clone() for key, value in network.state_dict().items()}
    average = {key: value.clone() for key, value in initial.items()}
    training = Training(batch_size=4)
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate)
    x0, t = torch.from_numpy(golden["batches"]), torch.from_numpy(golden["t_index"]) + 1
    state = TrainingState(network, optimizer, average, step=2000)
    losses = []
    for k in range(12):
        batches = [(x0[i], network_input(degradation, x0[i], t[i], {}), t[i]) for i in (2 * k, 2 * k + 1)]
        loss, _ = optimizer_step(state, batches, training)
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
    """Every `ema_update_every` steps: a copy before `ema_start`, then 1 − decay of the new weights; else untouched."""
    network, average = Shift(), {"weight": torch.tensor(100.0)}
    image = torch.zeros(1, 1, 2, 2)
    training = Training(batch_size=1, grad_accumulation=1, ema_update_every=10, ema_start=20, ema_decay=0.9)
    optimizer = torch.optim.SGD(network.parameters(), lr=4.0)
    state = TrainingState(network, optimizer, average, step=step)
    loss, norm = optimizer_step(state, [(image + 1, image, torch.tensor([1]))], training)
    assert state.step == step + 1
    assert (loss.item(), norm.item()) == (1.0, 1.0)
    assert network.weight.item() == 4.0, "the average is taken after the optimiser's step"
    assert average["weight"].item() == pytest.approx(100 + share * (4 - 100))


def test_an_unknown_network_is_named() -> None:
    with pytest.raises(ColdbenchError, match="unknown network 'unet_convnet': did you mean 'unet_convnext'"):
        models.build(Network(name="unet_convnet"), 1, 32)


@pytest.mark.parametrize(
    ("network", "size", "told"),
    [
        (Network(dropout=0.1), 32, "network unet_convnext has no dropout, but dropout is 0.1"),
        (Network(name="unet_ddpm", residual=True), 32, "network unet_ddpm has no residual form"),
        (Network(), 36, "network unet_convnext with 4 stages needs a side that is a multiple of 8, not 36"),
        (Network(name="unet_ddpm"), 20, "network unet_ddpm with 4 stages needs a side that is a multiple of 8, not 20"),
        (Network(dim_mults=[1, 2]), 31, "with 2 stages needs a side that is a multiple of 2, not 31"),
    ],
)
def test_what_a_network_cannot_be_is_told(network: Network, size: int, told: str) -> None:
    with pytest.raises(ColdbenchError, match=told) as refused:
        models.build(network, 3, size)
    assert "\n" not in str(refused.value)


@kinds
def test_time_matters_unless_it_is_switched_off(kind: str) -> None:
    """Another time, another answer; without time every time gives the same one, and for unet_ddpm it is that of 0."""
    x, times = picture(), [torch.full((2,), k) for k in (0, 1, 7, 199)]
    network, blind = small(kind, dim=24), small(kind, dim=24, time=False)
    with torch.inference_mode():
        told = [network(x, time) for time in times]
        untold = [blind(x, time) for time in times]
    for other in told[1:]:
        assert (other - told[0]).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    assert all(torch.equal(other, untold[0]) for other in untold)
    if kind == "unet_ddpm":
        assert network.state_dict().keys() == blind.state_dict().keys()
        assert torch.equal(untold[0], told[0])
    else:
        assert network.state_dict().keys() - blind.state_dict().keys() == {
            key for key in network.state_dict() if "mlp" in key
        }


@pytest.mark.parametrize("dim", [8, 16])
@pytest.mark.parametrize("kind", ["unet_convnext", "unet_ddpm"])
def test_the_time_survives_in_small_networks(kind: str, dim: int) -> None:
    """What is added per channel must not be removed by the norm behind it, as groups of one channel would."""
    x, network = picture(), small(kind, dim=dim)
    with torch.inference_mode():
        first, other = (network(x, torch.full((2,), k)) for k in (0, 199))
    assert (other - first).abs().amax(dim=(1, 2, 3)).min() > 1e-3


@kinds
def test_small_networks_treat_every_image_by_itself(kind: str) -> None:
    """A batch of mixed times equals its images one by one: no batch statistics, no time of another image."""
    x, time, network = picture(3), torch.tensor([0, 19, 3]), small(kind)
    with torch.inference_mode():
        together = network(x, time)
        alone = torch.cat([network(x[[i]], time[[i]]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@kinds
def test_every_weight_is_trained(kind: str) -> None:
    """Each parameter has a gradient: several processes wait for those that never come."""
    network = small(kind).train()
    network(picture(), torch.tensor([0, 5])).square().mean().backward()
    dead = {key for key, value in network.named_parameters() if value.grad is None}
    assert not dead
    assert all(value.grad.isfinite().all() for value in network.parameters())


def test_residual_adds_the_input() -> None:
    """The same weights with and without `residual` differ by the input, exactly up to rounding."""
    x, time = picture(), torch.tensor([0, 5])
    with torch.inference_mode():
        plain, residual = (small("unet_convnext", residual=value)(x, time) for value in (False, True))
    torch.testing.assert_close(residual, plain + x, rtol=0, atol=1e-6)


def test_dropout_acts_only_in_training() -> None:
    """In training it zeroes the given share before the second convolution and keeps the mean; restoring never draws."""
    x, time = picture(), torch.tensor([0, 5])
    network, without = small("unet_ddpm", dropout=0.25), small("unet_ddpm", dropout=0.0)
    with torch.inference_mode():
        assert torch.equal(network(x, time), network(x, time))
        assert torch.equal(network(x, time), without(x, time))
        network.train()
        without.train()
        assert not torch.equal(network(x, time), network(x, time))
        assert torch.equal(without(x, time), without(x, time))
        assert torch.equal(models.restorer(network)(x[:1], 1), without(x[:1], time[:1]))
    blocks = [part for part in network.modules() if isinstance(part, nn.Dropout)]
    assert len(blocks) == 2 * 2 + 2 + 2 * 3
    ones = torch.ones(100_000)
    for part in blocks:
        dropped = part.train()(ones)
        assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert dropped.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("side", "levels"), [(16, {"0"}), (8, {"1"}), (4, set())])
def test_attention_is_at_the_given_side(side: int, levels: set[str]) -> None:
    """Only the level that works at that side attends, down and up alike."""
    keys = small("unet_ddpm", attention=side).state_dict()
    for way in ("down", "up"):
        assert {key.split(".")[1] for key in keys if key.startswith(f"{way}.") and ".attn." in key} == levels


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_in_tiles_an_image_does_not_depend_on_its_neighbours(kind: str, precision: str) -> None:
    """The network sees tiles of one size and the time s − 1, and nothing of the padding comes out."""
    network = small(kind)
    seen: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda _, given: seen.append((len(given[0]), *given[1].tolist())))
    restore = models.restorer(network, 4, precision)
    x = picture(11)
    whole = restore(x, 7)
    assert whole.shape == x.shape
    assert whole.dtype == torch.float32
    for size in (1, 3, 4, 5, 11):
        parts = torch.cat([restore(part, 7) for part in x.split(size)])
        assert torch.equal(parts, whole), size
    assert torch.equal(restore(x.flip(0)[:4], 7)[0], restore(x[7:11], 7)[3])
    assert set(seen) == {(4, 6, 6, 6, 6)}


def test_half_precision_is_close_and_another() -> None:
    network, x = small("unet_convnext"), picture(4)
    single, half = (models.restorer(network, 4, precision)(x, 3) for precision in ("fp32", "bf16"))
    assert torch.equal(single, models.restorer(network)(x, 3))
    assert not torch.equal(single, half)
    torch.testing.assert_close(half, single, rtol=0.05, atol=0.05)
