"""What the paper claims of its samplers, as tests: against another library, and on a trained small model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from coldbench import data, degradations
from coldbench.core.config import Sampling
from coldbench.core.experiment import Experiment, Network, Training
from coldbench.degradations.mixing import Noise, cosine_alphas
from coldbench.evaluation.metrics import intervals, similarity
from coldbench.sampling import manifest
from coldbench.sampling.samplers import sample as walk
from coldbench.sampling.shards import SamplingPaths, sample_run
from coldbench.training import loop

CPU = torch.device("cpu")


def arbitrary(x: Tensor, s: int) -> Tensor:
    """A restoration of no merit."""
    return torch.tanh(2 * x.flip(3)) * (0.5 + 0.002 * s)


@pytest.mark.parametrize(("T", "stride"), [(40, 1), (40, 5), (200, 1), (200, 8)])
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_estimated_noise_is_another_librarys_ddim(T: int, stride: int, eta: float) -> None:
    """Hugging Face diffusers, over a whole trajectory: DDIM, and with η = 1 DDPM with the posterior's σ."""
    diffusers = pytest.importorskip("diffusers")
    alphas = cosine_alphas(T)
    peer = diffusers.DDIMScheduler(
        num_train_timesteps=T,
        trained_betas=1 - alphas[1:] / alphas[:-1],
        clip_sample=False,
        set_alpha_to_one=True,
        prediction_type="sample",
        timestep_spacing="trailing",
    )
    peer.alphas_cumprod = torch.from_numpy(alphas[1:])  # its own are float32, too coarse for 1 − ᾱ at the first steps
    peer.set_timesteps(T // stride)
    noise, indices = Noise(8, T), torch.arange(3)

    def fresh(s: int) -> dict[str, Tensor]:
        return {"z": noise.draw(indices, seed=s)["z"].double()}

    x = noise.draw(indices, 0)["z"].double()
    steps = list(walk(arbitrary, noise, x, {"z": x}, "ddpm" if eta else "estimated", stride=stride, redraw=fresh))
    assert [int(t) + 1 for t in peer.timesteps] == [step.s for step in steps]
    for t, step in zip(peer.timesteps, steps, strict=True):
        options = {"variance_noise": fresh(step.s)["z"]} if eta else {}
        x = peer.step(arbitrary(x, step.s), int(t), x, eta=eta, **options).prev_sample
        torch.testing.assert_close(step.x, x, rtol=0, atol=1e-5)


def test_circular_blur_keeps_the_colours_all_the_way() -> None:
    """Whatever the network says: TACoS adds and takes away only what has no mean (protocol 3.1)."""
    blur = degradations.build({"name": "blur", "T": 12, "kernel": 9, "std": 2.0, "padding": "circular"}, 16)
    x = torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 - 1
    means = x.mean(dim=(2, 3))
    steps = list(walk(arbitrary, blur, x, {}, "tacos"))
    for step in steps[:-1]:
        torch.testing.assert_close(step.x.mean(dim=(2, 3)), means, rtol=0, atol=1e-6)
    naive = list(walk(arbitrary, blur, x, {}, "naive"))
    assert (naive[0].x.mean(dim=(2, 3)) - means).abs().max() > 1e-3


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A small model that deblurs the embedded digits, and the prepared digits."""
    folder = tmp_path_factory.mktemp("trained")
    data.prepare("digits", None, 16, folder / "digits")
    experiment = Experiment(
        name="blur",
        protocol="test",
        budget="smoke",
        dataset="digits",
        size=16,
        seed=0,
        degradation={"name": "blur", "T": 20, "kernel": 7, "std": 1.5, "schedule": "constant"},
        network=Network(dim=16, dim_mults=[1, 2, 4]),
        training=Training(
            max_steps=600,
            batch_size=32,
            grad_accumulation=1,
            learning_rate=2e-3,
            ema_decay=0.98,
            ema_update_every=1,
            ema_start=100,
        ),
    )
    loop.train(experiment, loop.TrainingPaths(folder / "digits", folder / "model.safetensors", folder / "work"), CPU)
    return folder / "model.safetensors", folder / "digits"


@pytest.mark.slow
def test_algorithm_1_fails_where_tacos_does_not(trained: tuple[Path, Path], tmp_path: Path) -> None:
    """Section 3.2: errors of the network add up in Algorithm 1. By the paired interval over test images, not by eye."""
    model, digits = trained
    sampling = Sampling(images=200, sets={"test": {}, "few": {"stride": 10}})
    sample_run(SamplingPaths(model, digits, tmp_path / "shards"), sampling, CPU, tmp_path / "samples.json")
    original = torch.from_numpy(data.load(digits, "test")[:200] / np.float32(255))

    def squares(method: str, part: str = "test") -> np.ndarray:
        images = torch.from_numpy(manifest.read_images(tmp_path / "samples.json", part, method))
        return similarity.mse_per_image(original, images)

    naive, tacos, direct = (squares(method) for method in ("naive", "tacos", "direct"))
    gap = intervals.difference(naive, tacos, "root_mean", 0)
    assert gap.low > 0.02, (gap, "Algorithm 1 is worse than TACoS")
    one_step = intervals.difference(tacos, direct, "root_mean", 0)
    assert one_step.low > 0, (one_step, "and as in DeviceCopies 1-3 direct reconstruction has the least RMSE")
    long, short = gap, intervals.difference(squares("naive", "few"), squares("tacos", "few"), "root_mean", 0)
    assert long.low > short.high, "the more steps, the more errors add up"
