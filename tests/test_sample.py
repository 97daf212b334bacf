"""Sampling to shards and scoring them: the result depends on the model and the images alone."""

import json
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from coldbench import checkpoint, data, degradations, evaluate, models, sample, seeds
from coldbench import manifest as sampled
from coldbench.errors import ColdbenchError
from coldbench.experiment import About, Cell, Experiment, Sampling
from coldbench.images import from_uint8, to_unit_interval
from coldbench.progress import Interrupted
from coldbench.report import gallery

CPU = torch.device("cpu")
ABOUT = About(title="Tiny", cell=Cell(table=2, row=""), default=True, because="a test")
METHODS = ["direct", "naive", "tacos"]


@pytest.fixture
def model(experiment: Experiment, tmp_path: Path) -> Path:
    """An untrained model: sampling does not care."""
    torch.manual_seed(0)
    path = tmp_path / "model.safetensors"
    checkpoint.save_model(path, models.build(experiment.network, 1, 16).state_dict(), experiment)
    return path


def run(model: Path, digits: Path, folder: Path, **sampling) -> dict[str, np.ndarray]:
    manifest = folder / "samples.json"
    sample.run(model, digits, manifest, folder / "shards", Sampling(**{"images": 23, **sampling}), CPU)
    return {method: sampled.read(manifest, method) for method in METHODS}


def test_batch_and_shard_size_change_nothing(model, digits, tmp_path):
    reference = run(model, digits, tmp_path / "a", batch=23, shard=23)
    for batch, shard in ((1, 23), (5, 7), (64, 10)):
        other = run(model, digits, tmp_path / f"{batch}-{shard}", batch=batch, shard=shard)
        for method in METHODS:
            # a convolution may sum in another order for another batch size; draws and images are the same
            np.testing.assert_allclose(other[method], reference[method], atol=2e-5, err_msg=method)


def test_samples_are_those_of_the_algorithms_boxes(model, digits, experiment, tmp_path):
    """Algorithms 1 and 2 written out once more, on the whole test set at once."""
    samples = run(model, digits, tmp_path / "a")
    network = checkpoint.load_model(model, 1, CPU).network
    D = degradations.build(experiment.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")[:23]), CPU)
    state = D.draw(torch.arange(23), seeds.derive(experiment.seed, "test"))

    def d(x, s):
        return D(x, torch.full((23,), s), state)

    x_T = torch.trunc((d(x0, D.T) + 1) * 0.5 * 255) / 255 * 2 - 1
    with torch.inference_mode():
        naive = tacos = x_T
        for s in (4, 3, 2, 1):
            naive = d(network(naive, torch.full((23,), s - 1)), s - 1)
            hat = network(tacos, torch.full((23,), s - 1))
            tacos = tacos - d(hat, s) + d(hat, s - 1)
        expected = {"direct": network(x_T, torch.full((23,), 3)), "naive": naive, "tacos": tacos}
    for method, value in expected.items():
        np.testing.assert_allclose(samples[method], to_unit_interval(value), atol=2e-5, err_msg=method)


def test_finished_shards_are_kept_and_damaged_ones_found(model, digits, tmp_path, monkeypatch):
    reference = run(model, digits, tmp_path / "a", shard=10)
    calls, original = [], sample.write_array

    def write(path, values):
        original(path, values)
        calls.append(path.name)
        if len(calls) == 4:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(sample, "write_array", write)
    with pytest.raises(Interrupted):
        run(model, digits, tmp_path / "b", shard=10)
    assert not (tmp_path / "b" / "samples.json").exists()
    resumed = run(model, digits, tmp_path / "b", shard=10)
    assert len(calls) == len(set(calls)) == 9
    for method in METHODS:
        np.testing.assert_array_equal(resumed[method], reference[method])

    victim = next((tmp_path / "b" / "shards").rglob("naive-000010*.npy"))
    content = bytearray(victim.read_bytes())
    content[-3] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ColdbenchError, match=r"naive-000010-000020\.npy is missing or damaged"):
        sampled.read(tmp_path / "b" / "samples.json", "naive")
    (tmp_path / "b" / "samples.json").write_text("{}")
    with pytest.raises(ColdbenchError, match=r"samples\.json is damaged: .*delete it and run again"):
        evaluate.evaluate(tmp_path / "b" / "samples.json", ABOUT, digits, tmp_path / "scores.parquet", CPU)


def test_another_model_leaves_no_stale_shards(model, digits, experiment, tmp_path):
    before = run(model, digits, tmp_path / "a")
    torch.manual_seed(1)
    checkpoint.save_model(model, models.build(experiment.network, 1, 16).state_dict(), experiment)
    after = run(model, digits, tmp_path / "a")
    assert not np.allclose(before["direct"], after["direct"])
    assert len(list((tmp_path / "a" / "shards").iterdir())) == 1


def test_more_images_than_there_are_is_an_error(model, digits, tmp_path):
    with pytest.raises(ColdbenchError, match=r"sampling\.images is 361, but the test set of digits has 360"):
        run(model, digits, tmp_path, images=361)


def test_scores_and_figures_of_a_run(model, digits, experiment, tmp_path):
    """Every method and metric once, values those of the definition, provenance complete, figures drawn."""
    samples = run(model, digits, tmp_path)
    evaluate.evaluate(tmp_path / "samples.json", ABOUT, digits, tmp_path / "scores.parquet", CPU)
    evaluate.degraded(experiment, ABOUT, 23, digits, tmp_path / "degraded.parquet", CPU)
    frame = pd.read_parquet(tmp_path / "scores.parquet").set_index(["method", "metric"])
    assert set(frame.index) == {(m, k) for m in METHODS for k in ("ssim", "rmse", "rmse_per_image", "frechet_gabor")}
    original = data.load(digits, "test")[:23] / 255
    for method in METHODS:
        rmse = frame.loc[(method, "rmse")]
        assert rmse.value == pytest.approx(np.sqrt(((samples[method] - original) ** 2).mean()), rel=1e-5)
        assert rmse.low <= rmse.value <= rmse.high
        assert rmse.n == 23
    facts = json.loads(frame.provenance.iloc[0])
    assert {"commit", "device", "torch", "fingerprint", "data", "model", "seconds"} <= facts.keys()
    assert facts["fingerprint"] == experiment.fingerprint

    whole = pd.read_parquet(tmp_path / "degraded.parquet").set_index("metric")
    assert (whole.n["ssim"], whole.n["frechet_gabor"]) == (360, 23)

    (tmp_path / "model.jsonl").write_text('{"update": 1}')
    with pytest.raises(ColdbenchError, match="is no training log of this version"):
        gallery.draw(tmp_path / "samples.json", ABOUT, tmp_path / "model.jsonl", tmp_path / "figures.json")
    (tmp_path / "model.jsonl").write_text('{"update": 1, "loss": 0.5, "images_per_second": 3.0, "seconds": 61.0}\n')
    gallery.draw(tmp_path / "samples.json", ABOUT, tmp_path / "model.jsonl", tmp_path / "figures.json")
    figures = gallery.load([tmp_path / "figures.json"])
    assert {f.kind for f in figures} == {"four_columns", "progressive", "training"}
    assert all(f.path.read_bytes().startswith(b"\x89PNG") and f.alt and f.caption for f in figures)
