"""The networks against the released ones: keys, outputs, losses, gradients and training steps; and their own laws."""

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
from coldbench.models.unet_convnext import LinearAttention
from coldbench.training.loop import TrainingState, optimizer_step

FULL = SHARED / "golden"
TOLERANCES = json.loads((GOLDEN / "tolerances.json").read_text())
BLUR = {"name": "blur", "T": 20, "kernel": 11, "std": 7.0}
SALT = "cold-public:"
DDPM = Network(name="unet_ddpm", dim=128, dim_mults=[1, 2, 2, 2], dropout=0.1, attention=16)
NETWORKS = {  # as the released scripts build them: network, channels, size
    "net_unet_ch1": (Network(), 1, 32),
    "net_unet_ch1_residual": (Network(residual=True), 1, 32),
    "net_unet_ch3": (Network(), 3, 32),
    "net_unet_ch3_residual": (Network(residual=True), 3, 32),
    "net_unet_ch3_notime": (Network(time=False), 3, 32),
    "net_model_ch128_res32": (DDPM, 3, 32),
    "net_snow_unet_resnet_res128": (DDPM, 3, 128),
}
INPUTS = {  # the files that take their x from another one
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
ALL_NETWORKS = NETWORKS | {  # copies of these networks in the snow folder
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
    """The arrays of a golden file."""
    with np.load(folder / f"{name}.npz") as stored:
        return dict(stored)


def built(name: str) -> nn.Module:
    """A released network without values, because initialisation takes seconds."""
    with torch.device("meta"):
        return models.build(*ALL_NETWORKS[name])


def filled(name: str) -> nn.Module:
    """A released network in evaluation mode with the golden weights, a function of each entry's key and shape."""
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
    """The 1-channel network; tests share its weights and leave them unchanged."""
    return filled("net_unet_ch1")


def small(kind: str, **changes: object) -> nn.Module:
    """A tiny network for 16 px in evaluation mode, with reproducible weights."""
    torch.manual_seed(0)
    return models.build(KINDS[kind].model_copy(update=changes), 3, 16).eval()


def noise(count: int = 2) -> Tensor:
    """Noise as (count, 3, 16, 16)."""
    return torch.rand(count, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


def embedding(network: nn.Module, time: Tensor) -> Tensor:
    """The time embedding as the golden files record it: after its layers (ConvNeXt), or before them (DDPM)."""
    return network.time_mlp(time) if hasattr(network, "time_mlp") else network.embedding(time)


@pytest.mark.parametrize("name", COUNTS)
def test_keys_and_shapes_are_those_of_the_released_network(name: str) -> None:
    """So that published checkpoints load as they are."""
    golden = json.loads((GOLDEN / f"{name}_keys.json").read_text())
    network = built(name)
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == golden["state_dict"]
    assert sum(p.numel() for p in network.parameters()) == golden["parameter_count"] == COUNTS[name]
    assert all(p.requires_grad for p in network.parameters())


@with_full_files
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_keys_and_shapes_are_those_of_all_released_folders(name: str) -> None:
    golden = json.loads((FULL / f"{name}_keys.json").read_text())
    entries = built(name).state_dict()
    assert len(entries) == golden["number_of_tensors"]
    assert {key: list(value.shape) for key, value in entries.items()} == dict(golden["state_dict"])
    assert sum(p.numel() for p in built(name).parameters()) == golden["parameter_count"]


@pytest.mark.parametrize("name", NETWORKS)
def test_outputs_are_those_of_the_released_network(name: str, request: pytest.FixtureRequest) -> None:
    """At each recorded time, through `restorer`, whose severity is the time plus one."""
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
            embedded = embedding(network, torch.from_numpy(details[f"{name}/t_0"]))
        torch.testing.assert_close(embedded, torch.from_numpy(details[f"{name}/time_embedding_t_0"]), rtol=0, atol=2e-6)


@pytest.mark.slow
@with_full_files
@pytest.mark.parametrize("name", ALL_NETWORKS)
def test_outputs_are_those_of_all_released_folders(name: str) -> None:
    """Every array of the full files: whole outputs of batches of mixed times, embeddings, first weights."""
    golden, allowed = load(name, FULL), json.loads((FULL / "tolerances.json").read_text())[f"{name}.npz"]
    network, arrays = filled(name), {}
    weights = network.state_dict()
    with torch.inference_mode():
        for key in golden:
            if key.startswith("t_"):
                time = torch.from_numpy(golden[key])
                arrays[key.replace("t_", "y_")] = network(torch.from_numpy(golden["x"]), time)
            elif key.startswith("check_first8__"):
                arrays[key] = weights[key.partition("__")[2]].flatten()[:8]
            elif key == "time_embedding_t_0":
                arrays[key] = embedding(network, torch.from_numpy(golden["t_0"]))
    assert arrays.keys() == golden.keys() - {"x", "y_std", "meta_json"} - {
        key for key in golden if key.startswith("t_")
    }
    for key, value in arrays.items():
        torch.testing.assert_close(value, torch.from_numpy(golden[key]), rtol=0, atol=allowed[key])


def check_step(golden: dict[str, np.ndarray], network: nn.Module, training: Training, rel: float) -> None:
    """Compare loss and gradient norms, per parameter and in total, with those that a golden file records."""
    x0, xt, t = (torch.from_numpy(golden[key]) for key in ("x0", "x_t", "t_index"))
    size = training.micro_batch
    batches = zip(x0.split(size), xt.split(size), (t + 1).split(size), strict=True)
    still = torch.optim.SGD(network.parameters(), lr=0.0)
    loss, norm = optimizer_step(TrainingState(network, still, {}, step=1), batches, training)
    assert loss.item() == pytest.approx(float(golden["loss"]), rel=rel)
    assert norm.item() == pytest.approx(float(golden["grad_norm_total"]), rel=1e-4)
    norms = {name: value.grad.norm().item() for name, value in network.named_parameters()}
    names = golden["parameter_names"].tolist()
    assert sorted(names) == sorted(norms)
    expected = golden["grad_norm_per_parameter"]
    np.testing.assert_allclose([norms[name] for name in names], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("grad_accumulation", [1, 2])
def test_micro_batches_add_up_to_the_released_loss_and_gradients(grey: nn.Module, grad_accumulation: int) -> None:
    golden = load("loss_blur_mnist_unet_ch1_l1")
    x0, t = torch.from_numpy(golden["x0"]), torch.from_numpy(golden["t_index"]) + 1
    blurred = network_input(degradations.build(BLUR, 32), x0, t, {})
    torch.testing.assert_close(blurred, torch.from_numpy(golden["x_t"]), rtol=0, atol=7e-6)
    check_step(golden, grey, Training(batch_size=len(x0), grad_accumulation=grad_accumulation), rel=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_loss_and_gradients_are_the_released_ones(name: str, request: pytest.FixtureRequest) -> None:
    """Of the squared loss, the DDPM network on blur, the residual network on inpainting, the network on snow."""
    golden = load("loss_blur_mnist_unet_ch1_l1") | load(name)  # the l2 file holds only what differs
    network_name, loss = LOSSES[name]
    network = request.getfixturevalue("grey") if network_name == "net_unet_ch1" else filled(network_name)
    check_step(golden, network, Training(batch_size=len(golden["x0"]), grad_accumulation=1, loss=loss), rel=1e-4)


@pytest.mark.slow
def test_twelve_steps_are_those_of_the_released_trainer() -> None:
    """From step 2000 to 2012: the loss of each step, and the distance that weights and EMA moved."""
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
def test_ema_is_a_copy_first_and_then_takes_a_share(step: int, share: float) -> None:
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


@pytest.mark.parametrize(
    ("network", "size", "words"),
    [
        (Network(name="unet_convnet"), 32, "unknown network 'unet_convnet': did you mean 'unet_convnext'"),
        (Network(dropout=0.1), 32, "network unet_convnext has no dropout, but dropout is 0.1"),
        (Network(dim_mults=[2, 4]), 32, "network unet_convnext needs dim_mults that begin with 1, not 2"),
        (Network(name="unet_ddpm", residual=True), 32, "network unet_ddpm has no residual"),
        (Network(), 36, "network unet_convnext with 4 stages needs a side that is a multiple of 8, not 36"),
        (Network(name="unet_ddpm"), 20, "network unet_ddpm with 4 stages needs a side that is a multiple of 8, not 20"),
        (Network(dim_mults=[1, 2]), 31, "with 2 stages needs a side that is a multiple of 2, not 31"),
    ],
)
def test_a_network_that_cannot_be_is_refused(network: Network, size: int, words: str) -> None:
    with pytest.raises(ColdbenchError, match=words) as refused:
        models.build(network, 3, size)
    assert "\n" not in str(refused.value)


@kinds
def test_time_changes_the_output_unless_it_is_switched_off(kind: str) -> None:
    """Without time, unet_ddpm answers as at time 0, and unet_convnext has no layers for time."""
    x, times = noise(), [torch.full((2,), k) for k in (0, 1, 7, 199)]
    network, blind = small(kind, dim=24), small(kind, dim=24, time=False)
    with torch.inference_mode():
        outputs, blind_outputs = ([each(x, time) for time in times] for each in (network, blind))
    for other in outputs[1:]:
        assert (other - outputs[0]).abs().amax(dim=(1, 2, 3)).min() > 1e-3
    assert all(torch.equal(other, blind_outputs[0]) for other in blind_outputs)
    missing = network.state_dict().keys() - blind.state_dict().keys()
    if kind == "unet_ddpm":
        assert not missing
        assert torch.equal(blind_outputs[0], outputs[0])
    else:
        assert missing == {key for key in network.state_dict() if "mlp" in key}


@pytest.mark.parametrize("dim", [8, 16])
@kinds
def test_time_survives_the_norms_of_small_networks(kind: str, dim: int) -> None:
    """Groups of one channel would remove what is added per channel."""
    x, network = noise(), small(kind, dim=dim)
    with torch.inference_mode():
        first, other = (network(x, torch.full((2,), k)) for k in (0, 199))
    assert (other - first).abs().amax(dim=(1, 2, 3)).min() > 1e-3


@kinds
def test_a_batch_of_mixed_times_equals_its_images_one_by_one(kind: str) -> None:
    x, time, network = noise(3), torch.tensor([0, 19, 3]), small(kind)
    with torch.inference_mode():
        together = network(x, time)
        alone = torch.cat([network(x[[i]], time[[i]]) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


@kinds
def test_every_parameter_has_a_gradient(kind: str) -> None:
    """Several processes would wait for a missing one."""
    network = small(kind).train()
    network(noise(), torch.tensor([0, 5])).square().mean().backward()
    assert not {key for key, value in network.named_parameters() if value.grad is None}
    assert all(value.grad.isfinite().all() for value in network.parameters())


def test_residual_adds_the_input() -> None:
    """The same weights with and without `residual` differ by the input, up to rounding."""
    x, time = noise(), torch.tensor([0, 5])
    with torch.inference_mode():
        plain, residual = (small("unet_convnext", residual=value)(x, time) for value in (False, True))
    torch.testing.assert_close(residual, plain + x, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("dim", "side"), [(8, 4), (16, 8), (32, 6), (128, 12), (16, 4), (64, 8), (160, 16)])
def test_both_orders_of_linear_attention_agree(dim: int, side: int) -> None:
    """Values and gradients; the faster order is taken at many positions with few channels."""
    torch.manual_seed(dim)
    attention = LinearAttention(dim).double()
    x, weights = torch.randn(2, 2, dim, side, side + 1, dtype=torch.float64)
    results = []
    for function in (attention._as_written, attention._other_order, attention):
        own = x.clone().requires_grad_()
        out = function(own)
        (out * weights).sum().backward()
        results.append((out, own.grad, *(p.grad.clone() for p in attention.parameters())))
        attention.zero_grad()
    for written, other, taken in zip(*results, strict=True):
        torch.testing.assert_close(other, written, rtol=1e-10, atol=1e-12)
        assert torch.equal(taken, other if side * (side + 1) > dim <= 128 else written)


@pytest.mark.parametrize("kind", ["unet_convnext", "unet_ddpm"])
def test_fast_memory_format_changes_results_by_rounding_alone(kind: str) -> None:
    x, time = noise(), torch.tensor([0, 5])
    network = small(kind)
    with torch.inference_mode():
        plain = network(x, time)
        torch.testing.assert_close(models.in_fast_format(network)(x, time), plain, rtol=0, atol=1e-5)
    kernels = [weight for weight in network.parameters() if weight.ndim == 4 and min(weight.shape[1:]) > 1]
    assert kernels
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in kernels)


def test_network_that_does_not_ask_for_the_fast_format_keeps_its_own() -> None:
    """Code of a plug-in may depend on the strides of its activations."""
    network = nn.Sequential(nn.Conv2d(2, 3, 3))
    assert models.in_fast_format(network)[0].weight.is_contiguous()


def test_dropout_acts_only_in_training() -> None:
    """In training it zeroes its share and preserves the mean; a restoration never drops anything."""
    x, time = noise(), torch.tensor([0, 5])
    network, without = small("unet_ddpm", dropout=0.25), small("unet_ddpm", dropout=0.0)
    with torch.inference_mode():
        assert torch.equal(network(x, time), network(x, time))
        assert torch.equal(network(x, time), without(x, time))
        network.train()
        without.train()
        assert not torch.equal(network(x, time), network(x, time))
        assert torch.equal(without(x, time), without(x, time))
        restored = models.restorer(network)(x[:1], 1)  # in the fast memory format
        assert torch.equal(restored, models.in_fast_format(without)(x[:1], time[:1]))
    blocks = [part for part in network.modules() if isinstance(part, nn.Dropout)]
    assert len(blocks) == 2 * 2 + 2 + 2 * 3
    ones = torch.ones(100_000)
    for part in blocks:
        dropped = part.train()(ones)
        assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert dropped.mean().item() == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize(("side", "levels"), [(16, {"0"}), (8, {"1"}), (4, set())])
def test_only_the_level_of_that_side_attends(side: int, levels: set[str]) -> None:
    keys = small("unet_ddpm", attention=side).state_dict()
    for path in ("down", "up"):
        assert {key.split(".")[1] for key in keys if key.startswith(f"{path}.") and ".attn." in key} == levels


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@kinds
def test_an_image_does_not_depend_on_the_others_of_its_inference_batch(kind: str, precision: str) -> None:
    """Every forward pass has the same number of images and the time s − 1, and the padding is removed."""
    network = small(kind)
    seen: list[tuple[int, ...]] = []
    network.register_forward_pre_hook(lambda _, inputs: seen.append((len(inputs[0]), *inputs[1].tolist())))
    restore = models.restorer(network, 4, precision)
    x = noise(11)
    whole = restore(x, 7)
    assert whole.shape == x.shape
    assert whole.dtype == torch.float32
    for size in (1, 3, 4, 5, 11):
        parts = torch.cat([restore(part, 7) for part in x.split(size)])
        assert torch.equal(parts, whole), size
    assert torch.equal(restore(x.flip(0)[:4], 7)[0], restore(x[7:11], 7)[3])
    assert set(seen) == {(4, 6, 6, 6, 6)}


def test_bf16_is_close_to_fp32_but_different() -> None:
    network, x = small("unet_convnext"), noise(4)
    single, half = (models.restorer(network, 4, precision)(x, 3) for precision in ("fp32", "bf16"))
    assert torch.equal(single, models.restorer(network)(x, 3))
    assert not torch.equal(single, half)
    torch.testing.assert_close(half, single, rtol=0.05, atol=0.05)


def test_compiling_without_a_compiler_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ColdbenchError, match=r"g\+\+"):
        models.compiled(torch.nn.Linear(1, 1))
