"""Scoring a run: one row per method, set and metric, with the values of the definitions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cases import METADATA, sampled, untrained
from pytorch_msssim import ssim

from coldbench import data, degradations
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.images import from_uint8, to_unit_interval
from coldbench.evaluation import evaluate
from coldbench.evaluation.scores import merge_scores, read_scores
from coldbench.sampling import manifest as manifests
from coldbench.sampling.manifest import read_images

CPU = torch.device("cpu")
METHODS = ["direct", "naive", "tacos"]
BLUR = {"name": "blur", "T": 4, "kernel": 5, "std": 1.0, "padding": "circular", "quantized": True}


@pytest.fixture
def model(experiment: Experiment, tmp_path: Path) -> Path:
    return untrained(tmp_path / "model.safetensors", experiment)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded photographs, prepared at 16 px."""
    folder = tmp_path_factory.mktemp("photos")
    data.prepare("photos", None, 16, folder)
    return folder


def run(model: Path, digits: Path, folder: Path, images: int = 23, **sampling: object) -> dict[str, np.ndarray]:
    """The images of the set `test` by method."""
    manifest = sampled(folder, model, digits, images=images, **sampling)
    return {method: read_images(manifest, "test", method) for method in METHODS}


def scorer(experiment: Experiment, prepared: Path, folder: Path) -> evaluate.Scorer:
    return evaluate.Scorer(experiment, prepared, folder / "statistics", evaluate.extractors([], None, CPU), CPU)


def test_scores_of_a_run(model, digits, experiment, tmp_path):
    """Every method and metric once, values those of the definition, provenance complete."""
    samples = run(model, digits, tmp_path)
    evaluate.evaluate(
        scorer(experiment, digits, tmp_path), tmp_path / "samples.json", METADATA, tmp_path / "scores.parquet"
    )
    table = pd.read_parquet(tmp_path / "scores.parquet")
    assert set(table.set) == {"test"}
    assert set(table.reference[table.metric == "frechet_gabor"]) == {"test"}
    assert set(table.reference[table.metric != "frechet_gabor"]) == {""}
    frame = table.set_index(["method", "metric"])
    assert frame.index.is_unique
    metrics = ("ssim", "rmse", "rmse_per_image", "frechet_gabor")
    expected = {(method, metric) for method in (*METHODS, "degraded") for metric in metrics}
    assert set(frame.index) == expected | {("tacos-direct", metric) for metric in ("ssim", "rmse", "frechet_gabor")}
    original = data.load(digits, "test")[:23] / 255
    for method in METHODS:
        rmse = frame.loc[(method, "rmse")]
        assert rmse.value == pytest.approx(np.sqrt(((samples[method] - original) ** 2).mean()), rel=1e-5)
        assert rmse.low <= rmse.value <= rmse.high
        assert rmse.n == 23
    for metric in ("ssim", "rmse", "frechet_gabor"):
        gap = frame.value["tacos", metric] - frame.value["direct", metric]
        assert frame.value["tacos-direct", metric] == pytest.approx(gap, rel=1e-6, abs=1e-9)
    facts = json.loads(frame.provenance.iloc[0])
    assert {"commit", "device", "torch", "fingerprint", "data", "model", "seconds", "inference_batch"} <= facts.keys()
    assert facts["fingerprint"] == experiment.fingerprint
    assert frame.n["degraded", "ssim"] == frame.n["degraded", "rmse"] == 360
    assert frame.n["degraded", "frechet_gabor"] == 23
    few = frame.singular[frame.index.get_level_values("metric") == "frechet_gabor"]
    assert few.all()  # 23 images in a space of more dimensions
    assert not frame.singular["direct", "ssim"]

    read = read_scores([tmp_path / "scores.parquet"])
    assert {(score.run, score.table, score.seed) for score in read} == {("tiny-test-s3", "2", 3)}
    merge_scores([tmp_path / "scores.parquet"], tmp_path / "all.parquet")
    assert set(read_scores([tmp_path / "all.parquet"])) == set(read)
    assert len(pd.read_csv(tmp_path / "all.csv")) == len(read)


def test_metrics_in_the_range_of_the_network(model, digits, experiment, tmp_path):
    """Asked for, SSIM and RMSE of images in [-1, 1] stand beside the usual ones, which stay as they are."""
    samples = run(model, digits, tmp_path / "a")
    signed = run(model, digits, tmp_path / "b", signed_metrics=True)
    found = {}
    for folder in "ab":
        where = tmp_path / folder / "samples.json", METADATA, tmp_path / f"{folder}.parquet"
        evaluate.evaluate(scorer(experiment, digits, tmp_path), *where)
        found[folder] = pd.read_parquet(tmp_path / f"{folder}.parquet").set_index(["method", "metric"]).value
    added = found["b"].index.difference(found["a"].index)
    assert set(added) == {(method, f"{name}_signed") for method in (*METHODS, "degraded") for name in ("ssim", "rmse")}
    pd.testing.assert_series_equal(found["b"].drop(added), found["a"])
    original = torch.from_numpy(data.load(digits, "test")[:23] / 255).float()
    for method in METHODS:
        np.testing.assert_array_equal(samples[method], signed[method])
        assert found["b"][method, "rmse_signed"] == pytest.approx(2 * found["a"][method, "rmse"], rel=1e-6)
        theirs = float(ssim(original * 2 - 1, torch.from_numpy(samples[method]) * 2 - 1, data_range=2))
        assert found["b"][method, "ssim_signed"] == pytest.approx(theirs, abs=1e-5)
        assert found["b"][method, "ssim_signed"] != pytest.approx(found["a"][method, "ssim"], abs=1e-4)


def test_degraded_cells_are_those_of_the_definition(model, digits, experiment, tmp_path):
    """SSIM and RMSE over the whole test set, of D at the severity of the set."""
    sets = {
        "test": {},
        "partial": {"severity": 2},
        "misled": {"severity": 2, "assumed_severity": 3},
        "leaps": {"stride": 2},
    }
    sampled(tmp_path, model, digits, images=5, sets=sets)
    evaluate.evaluate(
        scorer(experiment, digits, tmp_path), tmp_path / "samples.json", METADATA, tmp_path / "scores.parquet"
    )
    frame = pd.read_parquet(tmp_path / "scores.parquet")
    given = frame[frame.method == "degraded"].set_index(["set", "metric"]).value
    assert set(given.index.get_level_values("set")) == {"test", "partial"}  # the others begin as one of these does
    D = degradations.build(experiment.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")), CPU)
    state = D.draw(torch.arange(360), rng.derive(experiment.seed, "test"))
    for name, severity in (("test", 4), ("partial", 2)):
        x = to_unit_interval(D(x0, torch.full((360,), severity), state))
        x = torch.trunc(x * 255) / 255 if severity == 4 else x
        rmse = float((x - to_unit_interval(x0)).square().mean().sqrt())
        assert given[name, "rmse"] == pytest.approx(rmse, rel=1e-5)


def test_generated_images_are_compared_with_both_splits(experiment, photos, tmp_path):
    """They have no originals, so neither SSIM nor RMSE."""
    start = {"kind": "means"}
    sets = {"perfect": {"start": start, "methods": ["tacos"]}, "broken": {"start": {**start, "noise_level": 0.002}}}
    science = experiment.model_copy(update={"degradation": BLUR, "dataset": "photos"})
    model = untrained(tmp_path / "model.safetensors", science, channels=3)
    manifest = sampled(tmp_path, model, photos, images=9, sets=sets)
    evaluate.evaluate(scorer(science, photos, tmp_path), manifest, METADATA, tmp_path / "scores.parquet")
    frame = pd.read_parquet(tmp_path / "scores.parquet").set_index(["set", "method", "reference"])
    ways = {("perfect", "tacos"), *(("broken", method) for method in (*METHODS, "tacos-direct"))}
    assert set(frame.index) == {(*way, split) for way in ways for split in ("train", "test")}
    assert frame.index.is_unique
    assert set(frame.metric) == {"frechet_gabor"}
    assert (frame.n == 9).all()
    for split in ("train", "test"):
        gap = frame.value["broken", "tacos", split] - frame.value["broken", "direct", split]
        assert frame.value["broken", "tacos-direct", split] == pytest.approx(gap, rel=1e-6)
    assert frame.value["broken", "tacos", "train"] != frame.value["broken", "tacos", "test"]


def test_a_method_that_diverged_has_no_distance(model, digits, experiment, tmp_path, monkeypatch):
    """And everything else of the run keeps its numbers."""
    run(model, digits, tmp_path)
    where = scorer(experiment, digits, tmp_path), tmp_path / "samples.json", METADATA
    evaluate.evaluate(*where, tmp_path / "sound.parquet")
    read = manifests.read_images
    monkeypatch.setattr(
        manifests, "read_images", lambda m, name, method: read(m, name, method) * (math.nan if method == "tacos" else 1)
    )
    evaluate.evaluate(*where, tmp_path / "scores.parquet")
    sound, frame = (
        pd.read_parquet(tmp_path / f"{name}.parquet").set_index(["method", "metric"]).value
        for name in ("sound", "scores")
    )
    assert frame.filter(like="tacos", axis=0).isna().all()
    others = [key for key in frame.index if not key[0].startswith("tacos")]
    pd.testing.assert_series_equal(frame[others], sound[others])


def test_shards_of_other_images_are_not_scored(model, digits, photos, experiment, tmp_path):
    run(model, digits, tmp_path, images=4)
    with pytest.raises(ColdbenchError, match=r"was sampled from other test images than .* holds; sample again"):
        evaluate.evaluate(
            scorer(experiment, photos, tmp_path), tmp_path / "samples.json", METADATA, tmp_path / "s.parquet"
        )
