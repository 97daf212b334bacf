"""On a real GPU: the numbers of a CPU, the same bits twice, and a stop without a trace.

Skipped where torch sees no GPU. fp32 differs from the CPU by the order of sums; bf16 has eight bits of precision.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from torch import Tensor

from coldbench import data, models
from coldbench.core.config import TableCell
from coldbench.core.experiment import Experiment, Network, Preprocessing
from coldbench.core.interrupts import Interrupted
from coldbench.core.run import RunMetadata
from coldbench.core.sampling_settings import Sampling
from coldbench.evaluation.evaluator import Evaluator
from coldbench.evaluation.metrics.extractors import GABOR
from coldbench.evaluation.scores import write_scores
from coldbench.sampling import manifest as sampled
from coldbench.sampling.shards import SamplingPaths, sample_run
from coldbench.training import distributed, loop

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no GPU"),
]
CPU, GPU = torch.device("cpu"), torch.device("cuda")
CONVNEXT = Network(dim=16, dim_mults=[1, 2])
DDPM = Network(name="unet_ddpm", dim=16, dim_mults=[1, 2], dropout=0.2, attention=8)
NETWORKS = pytest.mark.parametrize("network", [CONVNEXT, DDPM], ids=lambda network: network.name)
METADATA = RunMetadata(
    name="tiny", protocol="test", budget="smoke", run="tiny-test", title="Tiny", cell=TableCell(),
    default=True, rationale="",
)  # fmt: skip
FAST = distributed.DeviceOptions(compile=True, channels_last=True)


@pytest.fixture(autouse=True)
def _fp32_means_fp32() -> None:
    torch.backends.cudnn.allow_tf32 = False  # as the command line does


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits prepared at 19 px; training crops them to 16."""
    folder = tmp_path_factory.mktemp("digits19")
    data.prepare("digits", None, 19, folder)
    return folder


def of(experiment: Experiment, network: Network, **training: Any) -> Experiment:
    """The experiment with every source of randomness: windows, flips, masks, and dropout if the network has it."""
    settings = experiment.training.model_copy(update=training)
    return experiment.model_copy(
        update={"network": network, "preprocessing": Preprocessing(resize=19, pad=1, flip=True), "training": settings}
    )


def trained(experiment: Experiment, larger: Path, folder: Path, device: torch.device, **more: Any) -> dict[str, Tensor]:
    loop.train(experiment, loop.TrainingPaths(larger, folder / "model.safetensors", folder / "work"), device, **more)
    return safetensors.torch.load_file(folder / "model.safetensors")


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "model.jsonl").read_text().splitlines()]


def apart(one: Tensor, other: Tensor) -> float:
    """‖one − other‖ / ‖other‖."""
    one, other = one.double().cpu(), other.double().cpu()
    return float((one - other).norm() / other.norm())


@NETWORKS
def test_a_network_agrees_with_a_cpu(network: Network) -> None:
    torch.manual_seed(0)
    built = models.build(network, 3, 32)
    x = torch.rand(5, 3, 32, 32) * 2 - 1
    expected = models.restorer(built)(x, 3)
    built.to(GPU)
    assert apart(models.restorer(built)(x.to(GPU), 3), expected) < 1e-5
    assert 1e-5 < apart(models.restorer(built, precision="bf16")(x.to(GPU), 3), expected) < 3e-2
    fast = distributed.prepare(built, FAST)
    assert apart(models.restorer(fast)(x.to(GPU), 3), expected) < 1e-5


@NETWORKS
def test_a_training_agrees_with_a_cpu(experiment: Experiment, larger: Path, tmp_path: Path, network: Network) -> None:
    """The first twelve losses, without dropout, because it draws other numbers on a GPU."""
    tried = of(experiment, network.model_copy(update={"dropout": 0.0}))
    cpu = trained(tried, larger, tmp_path / "cpu", CPU)
    gpu = trained(tried, larger, tmp_path / "gpu", GPU)
    np.testing.assert_allclose(losses(tmp_path / "gpu"), losses(tmp_path / "cpu"), rtol=1e-4)
    gaps = {key: apart(gpu[key], cpu[key]) for key in cpu if cpu[key].norm() > 0}
    assert max(gaps.values()) < 5e-2, max(gaps, key=gaps.__getitem__)  # Adam amplifies small gradients


@NETWORKS
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_stopped_training_ends_with_the_bits_of_an_uninterrupted_one(
    experiment: Experiment,
    larger: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    network: Network,
    precision: str,
) -> None:
    """Twice uninterrupted, and once stopped after five of twelve steps."""
    tried = of(experiment, network, precision=precision)
    first, second = (trained(tried, larger, tmp_path / name, GPU) for name in ("first", "second"))
    original, calls = loop.optimizer_step, []

    def update(*args: Any, **kwargs: Any) -> Any:
        result = original(*args, **kwargs)
        calls.append(1)
        if len(calls) == 5:
            signal.raise_signal(signal.SIGTERM)
        return result

    monkeypatch.setattr(loop, "optimizer_step", update)
    with pytest.raises(Interrupted):
        trained(tried, larger, tmp_path / "stopped", GPU)
    stopped = trained(tried, larger, tmp_path / "stopped", GPU)
    assert len(calls) == tried.training.max_steps
    for key in first:
        assert torch.equal(first[key], second[key]), key
        assert torch.equal(first[key], stopped[key]), key
    assert losses(tmp_path / "first") == losses(tmp_path / "stopped")


def test_a_compiled_bf16_training_learns_the_same(experiment: Experiment, larger: Path, tmp_path: Path) -> None:
    """Compiled, channels-last and bf16, as in the short budgets."""
    plain = of(experiment, CONVNEXT, max_steps=60)
    trained(plain, larger, tmp_path / "plain", GPU)
    half = of(experiment, CONVNEXT, max_steps=60, precision="bf16")
    trained(half, larger, tmp_path / "fast", GPU, device_options=FAST)
    a, b = (np.array(losses(tmp_path / name)) for name in ("plain", "fast"))
    assert a[-10:].mean() < 0.8 * a[:5].mean()
    np.testing.assert_allclose(b, a, rtol=5e-2)
    line = json.loads((tmp_path / "fast/model.jsonl").read_text().splitlines()[-1])
    assert 0 < line["memory_gb"] < 8


@pytest.fixture
def model(experiment: Experiment, larger: Path, tmp_path: Path) -> Path:
    """A model after 60 steps on the GPU."""
    trained(of(experiment, CONVNEXT, max_steps=60), larger, tmp_path / "model", GPU)
    return tmp_path / "model/model.safetensors"


def images(model: Path, larger: Path, folder: Path, device: torch.device, **sampling: Any) -> dict[str, np.ndarray]:
    settings = Sampling(**{"images": 23, "inference_batch": 8, **sampling})
    sample_run(SamplingPaths(model, larger, folder / "shards"), settings, device, folder / "samples.json")
    return {method: sampled.read_images(folder / "samples.json", "test", method) for method in settings.methods}


def test_samples_and_scores_agree_with_a_cpu(model: Path, larger: Path, tmp_path: Path) -> None:
    cpu, gpu = (images(model, larger, tmp_path / device.type, device) for device in (CPU, GPU))
    half = images(model, larger, tmp_path / "half", GPU, precision="bf16", compile=True)
    for method, expected in cpu.items():
        assert apart(torch.from_numpy(gpu[method]), torch.from_numpy(expected)) < 1e-4, method
        assert apart(torch.from_numpy(half[method]), torch.from_numpy(expected)) < 5e-2, method
    tables = {}
    for device in (CPU, GPU):
        folder = tmp_path / device.type
        evaluator = Evaluator(folder / "samples.json", larger, folder / "features", [GABOR], device)
        write_scores(evaluator.evaluate(METADATA), folder / "scores.parquet", "")
        tables[device.type] = pd.read_parquet(folder / "scores.parquet")
    keys = ["set", "method", "metric", "reference"]
    a, b = (tables[name].set_index(keys)[["value", "low", "high", "n"]] for name in ("cpu", "cuda"))
    pd.testing.assert_frame_equal(b, a, rtol=1e-3, atol=1e-4)
    assert json.loads(tables["cuda"]["provenance"].iloc[0])["device"] == torch.cuda.get_device_name()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_batch_and_shard_sizes_change_no_bit(model: Path, larger: Path, tmp_path: Path, precision: str) -> None:
    """Because every forward pass has the same number of images."""
    whole = images(model, larger, tmp_path / "whole", GPU, precision=precision)
    cut = images(model, larger, tmp_path / "cut", GPU, precision=precision, batch_size=7, shard_size=10)
    for method, expected in whole.items():
        assert np.array_equal(cut[method], expected), method
