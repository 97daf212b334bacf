"""The evaluator: one score per method, set and metric, with the values and intervals of the definitions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from cases import METADATA, sampled, untrained
from pytorch_msssim import ssim
from skimage.metrics import peak_signal_noise_ratio

from coldbench import data, degradations
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.images import from_uint8, to_unit_interval
from coldbench.evaluation.evaluator import PAIR, Evaluator
from coldbench.evaluation.measurements import Comparison
from coldbench.evaluation.metrics import gabor, intervals, reference
from coldbench.evaluation.metrics.extractors import GABOR
from coldbench.evaluation.metrics.frechet import Statistics, frechet_distance
from coldbench.sampling import manifest as manifests
from coldbench.sampling.manifest import read_images

CPU = torch.device("cpu")
METHODS = ["direct", "naive", "tacos"]
BLUR = {"name": "blur", "T": 4, "kernel": 5, "std": 1.0, "padding": "circular", "quantized": True}


def evaluate(manifest: Path, prepared: Path, *index: str) -> pd.DataFrame:
    """The scores of a run, by the columns `index`."""
    evaluator = Evaluator(manifest, prepared, manifest.parent / "features", [GABOR], CPU)
    frame = pd.DataFrame([vars(score) for score in evaluator.evaluate(METADATA)]).set_index(list(index))
    assert frame.index.is_unique
    return frame


def unit(images: np.ndarray) -> torch.Tensor:
    """uint8 images as float32 in [0, 1]."""
    return to_unit_interval(from_uint8(np.array(images), CPU))


def test_scores_are_the_values_of_the_definitions(model: Path, digits: Path, experiment: Experiment, tmp_path: Path):
    manifest = sampled(tmp_path, model, digits, images=23)
    frame = evaluate(manifest, digits, "method", "metric")
    metrics = ("ssim", "rmse", "psnr", "rmse_per_image", "frechet_gabor")
    expected = {(method, metric) for method in (*METHODS, "degraded") for metric in metrics}
    assert set(frame.index) == expected | {("tacos-direct", metric) for metric in ("ssim", "rmse", "frechet_gabor")}
    originals = unit(data.load(digits, "test")[:23])
    for method in METHODS:
        images = torch.from_numpy(read_images(manifest, "test", method))
        rmse = frame.loc[(method, "rmse")]
        assert rmse.value == pytest.approx(float((images - originals).square().mean().sqrt()), rel=1e-5)
        assert frame.value[method, "ssim"] == pytest.approx(float(ssim(originals, images, data_range=1)), abs=1e-5)
        assert rmse.low <= rmse.value <= rmse.high
        pairs = zip(originals.numpy(), images.numpy(), strict=True)
        psnr = np.mean([peak_signal_noise_ratio(a, b, data_range=1) for a, b in pairs])
        assert frame.value[method, "psnr"] == pytest.approx(psnr, rel=1e-6)
    for metric in ("ssim", "rmse", "frechet_gabor"):
        gap = frame.value["tacos", metric] - frame.value["direct", metric]
        assert frame.value["tacos-direct", metric] == pytest.approx(gap, rel=1e-6, abs=1e-9)
    distances = frame.xs("frechet_gabor", level="metric")
    assert set(distances.reference) == {"test"}
    assert set(frame.drop(index=distances.index, level="method").reference) <= {""}
    assert distances.singular.all()  # 23 images have fewer dimensions than their features
    assert not frame.singular["direct", "ssim"]
    assert frame.n.to_dict() == {
        (method, metric): 360 if method == "degraded" and metric != "frechet_gabor" else 23
        for method, metric in frame.index
    }
    facts = json.loads(frame.provenance.iloc[0])
    assert {"commit", "device", "torch", "fingerprint", "data", "model", "seconds", "inference_batch"} <= facts.keys()
    assert facts["fingerprint"] == experiment.fingerprint
    assert {*frame.run, *frame.table, *frame.seed} == {"tiny-test-s3", "2", 3}


def test_interval_of_a_restored_set_draws_each_image_with_its_original(model: Path, digits: Path, tmp_path: Path):
    """The features of the originals belong to the interval of a distance and of a difference."""
    manifest = sampled(tmp_path, model, digits, images=23)
    frame = evaluate(manifest, digits, "method", "metric")
    originals = gabor.features(unit(data.load(digits, "test")[:23])).float().numpy()
    target = Statistics.of(originals)
    tacos, direct = (gabor.features(torch.from_numpy(read_images(manifest, "test", each))).numpy() for each in PAIR)
    for method, interval in (
        ("tacos", lambda *paired: intervals.frechet(tacos, target, 3, GABOR.draws, *paired)),
        ("tacos-direct", lambda *paired: intervals.frechet_difference(tacos, direct, target, 3, GABOR.draws, *paired)),
    ):
        score, paired, fixed = frame.loc[(method, "frechet_gabor")], interval(originals), interval()
        assert (score.low, score.high) == pytest.approx((paired.low, paired.high), rel=1e-5)
        assert score.high - score.low != pytest.approx(fixed.high - fixed.low, rel=0.01)


@pytest.mark.parametrize(("stored", "paired", "draws"), [(9, True, 200), (8, True, 0), (8, False, 200)])
def test_paired_interval_needs_the_features_of_all_originals(stored: int, paired: bool, draws: int) -> None:
    rows = np.random.default_rng(0).normal(size=(9, 2)).astype(np.float32)
    comparison = Comparison("test", reference.Reference(Statistics.of(rows), rows[:stored]), paired)
    assert comparison.draws(GABOR) == draws
    assert (comparison.originals is None) is not paired


def test_signed_metrics_are_added_and_change_no_other(model: Path, digits: Path, tmp_path: Path) -> None:
    """SSIM and RMSE of images in [-1, 1]."""
    plain = evaluate(sampled(tmp_path / "a", model, digits, images=23), digits, "method", "metric").value
    manifest = sampled(tmp_path / "b", model, digits, images=23, signed_metrics=True)
    signed = evaluate(manifest, digits, "method", "metric").value
    added = signed.index.difference(plain.index)
    assert set(added) == {(method, f"{name}_signed") for method in (*METHODS, "degraded") for name in ("ssim", "rmse")}
    pd.testing.assert_series_equal(signed[plain.index], plain)
    originals = unit(data.load(digits, "test")[:23]) * 2 - 1
    for method in METHODS:
        images = torch.from_numpy(read_images(manifest, "test", method)) * 2 - 1
        assert signed[method, "rmse_signed"] == pytest.approx(2 * plain[method, "rmse"], rel=1e-6)
        assert signed[method, "ssim_signed"] == pytest.approx(float(ssim(originals, images, data_range=2)), abs=1e-5)
        assert signed[method, "ssim_signed"] != pytest.approx(plain[method, "ssim"], abs=1e-4)


def test_degraded_images_are_scored_over_the_whole_test_set(
    model: Path, digits: Path, experiment: Experiment, tmp_path: Path
) -> None:
    """At the severity of the set. Sets that start from the same images as another are left out."""
    sets = {
        "test": {},
        "partial": {"severity": 2},
        "misled": {"severity": 2, "assumed_severity": 3},
        "leaps": {"stride": 2},
    }
    frame = evaluate(sampled(tmp_path, model, digits, images=5, sets=sets), digits, "method", "set", "metric")
    values = frame.value["degraded"]
    assert set(values.index.get_level_values("set")) == {"test", "partial"}
    degradation = degradations.build(experiment.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")), CPU)
    drawn = degradation.draw(torch.arange(360), rng.derive(experiment.seed, "test"))
    for name, severity in (("test", 4), ("partial", 2)):
        x = to_unit_interval(degradation(x0, torch.full((360,), severity), drawn))
        x = torch.trunc(x * 255) / 255 if severity == 4 else x
        rmse = float((x - to_unit_interval(x0)).square().mean().sqrt())
        assert values[name, "rmse"] == pytest.approx(rmse, rel=1e-5)


def test_generated_images_are_compared_with_both_splits(experiment: Experiment, photos: Path, tmp_path: Path) -> None:
    """They have no originals, so neither SSIM nor RMSE."""
    start = {"kind": "means"}
    sets = {"perfect": {"start": start, "methods": ["tacos"]}, "broken": {"start": {**start, "noise_level": 0.002}}}
    generating = experiment.model_copy(update={"degradation": BLUR, "dataset": "photos"})
    model = untrained(tmp_path / "model.safetensors", generating, channels=3)
    frame = evaluate(sampled(tmp_path, model, photos, images=9, sets=sets), photos, "set", "method", "reference")
    methods = {("perfect", "tacos"), *(("broken", method) for method in (*METHODS, "tacos-direct"))}
    assert set(frame.index) == {(*each, split) for each in methods for split in ("train", "test")}
    assert set(frame.metric) == {"frechet_gabor"}
    assert (frame.n == 9).all()
    for split in ("train", "test"):
        gap = frame.value["broken", "tacos", split] - frame.value["broken", "direct", split]
        assert frame.value["broken", "tacos-direct", split] == pytest.approx(gap, rel=1e-6)
    images = torch.from_numpy(read_images(tmp_path / "samples.json", "broken", "tacos"))
    target = Statistics.of(gabor.features(images).numpy())
    for split in ("train", "test"):
        whole = Statistics.of(gabor.features(unit(data.load(photos, split))).numpy())
        assert frame.value["broken", "tacos", split] == pytest.approx(frechet_distance(target, whole), rel=1e-4)


@pytest.fixture
def count_extractions(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """The number of images whose features were computed."""
    seen: list[int] = []
    features = gabor.features
    monkeypatch.setattr(gabor, "features", lambda images: (seen.append(len(images)), features(images))[1])
    return lambda: sum(seen)


def test_features_of_an_image_are_computed_once(
    model: Path, digits: Path, tmp_path: Path, count_extractions: Callable[[], int]
) -> None:
    """Those of the degraded images, of each method, and of the originals, which the second evaluation reads."""
    manifest = sampled(tmp_path, model, digits, images=23)
    for images in (23 * (1 + len(METHODS) + 1), 23 * (1 + len(METHODS))):
        before = count_extractions()
        evaluate(manifest, digits, "method", "metric")
        assert count_extractions() - before == images


def test_feature_cache_keeps_the_originals_of_each_number_of_images(model: Path, digits: Path, tmp_path: Path) -> None:
    """Evaluations that share a cache have the scores of an empty one."""
    for step, images in enumerate((23, 30, 23)):
        shared, fresh = (
            evaluate(sampled(tmp_path / folder, model, digits, images=images), digits, "method", "metric").value
            for folder in ("shared", f"fresh{step}")
        )
        pd.testing.assert_series_equal(shared, fresh)


def test_diverged_method_has_no_distance_and_changes_no_other_score(
    model: Path, digits: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = sampled(tmp_path, model, digits, images=23)
    sound = evaluate(manifest, digits, "method", "metric").value
    diverge = {"tacos": math.nan}
    monkeypatch.setattr(manifests, "read_images", lambda *which: read_images(*which) * diverge.get(which[2], 1))
    values = evaluate(manifest, digits, "method", "metric").value
    assert values.filter(like="tacos", axis=0).isna().all()
    others = [key for key in values.index if not key[0].startswith("tacos")]
    pd.testing.assert_series_equal(values[others], sound[others])


def test_samples_of_other_images_are_refused(model: Path, digits: Path, photos: Path, tmp_path: Path) -> None:
    manifest = sampled(tmp_path, model, digits, images=4)
    with pytest.raises(ColdbenchError, match="sampled from other test images"):
        evaluate(manifest, photos, "method", "metric")
