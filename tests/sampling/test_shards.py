"""Sampling to shards and scoring them: the result depends on the model and the images alone, to the last bit."""

import json
import math
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from cases import ABOUT, untrained
from pytorch_msssim import ssim

from coldbench import data, degradations
from coldbench.core import rng
from coldbench.core.config import Sampling
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Network
from coldbench.core.files import sha256
from coldbench.core.images import from_uint8, to_unit_interval
from coldbench.core.interrupts import Interrupted
from coldbench.evaluation import evaluate
from coldbench.models import model_file
from coldbench.report import inputs
from coldbench.sampling import manifest as sampled
from coldbench.sampling import shards

CPU = torch.device("cpu")
METHODS = ["direct", "naive", "tacos"]


@pytest.fixture
def model(experiment: Experiment, tmp_path: Path) -> Path:
    return untrained(tmp_path / "model.safetensors", experiment)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded photographs, prepared at 16 px."""
    folder = tmp_path_factory.mktemp("photos")
    data.prepare("photos", None, 16, folder)
    return folder


def run(model: Path, digits: Path, folder: Path, **sampling) -> dict[str, np.ndarray]:
    """The set `test` by every method."""
    manifest = folder / "samples.json"
    shards.run(model, digits, manifest, folder / "shards", Sampling(**{"images": 23, **sampling}), CPU)
    return {method: sampled.read(manifest, method) for method in METHODS}


def names(folder: Path) -> set[str]:
    """The shards that lie in a folder, by folder and name: both tell what is in them."""
    found = {str(path.relative_to(folder / "shards")) for path in (folder / "shards").rglob("*.npy")}
    assert all(sha256(folder / "shards" / name)[:16] == Path(name).stem.rpartition("-")[2] for name in found)
    return found


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stems of the shards that are written from now on."""
    stems: list[str] = []
    original = shards.Shard.write

    def write(shard: shards.Shard, values: np.ndarray) -> Path:
        stems.append(f"{shard.set} {shard.stem}")
        return original(shard, values)

    monkeypatch.setattr(shards.Shard, "write", write)
    return stems


# The same bits, however the work is cut


@pytest.mark.parametrize(
    ("inference_batch", "network"),
    [(None, {"dim": 8}), (8, {"dim": 16}), (3, {"dim": 16}), (8, {"name": "unet_ddpm", "dim": 8, "attention": 8})],
)
def test_batch_and_shard_size_change_no_bit(experiment, digits, tmp_path, network, inference_batch):
    """For tiles that batches fill and others, so that what the network sees lies in memory in every way there is."""
    told = experiment.model_copy(update={"network": Network(dim_mults=[1, 2], **network)})
    model = untrained(tmp_path / "model.safetensors", told)
    reference = run(model, digits, tmp_path / "a", batch_size=23, shard_size=23, inference_batch=inference_batch)
    for shard, files in ((23, 1), (10, 3)):
        folders = []
        for batch in (1, 7, 64):
            folders.append(tmp_path / f"{batch}-{shard}")
            other = run(model, digits, folders[-1], batch_size=batch, shard_size=shard, inference_batch=inference_batch)
            for method in METHODS:
                np.testing.assert_array_equal(other[method], reference[method], err_msg=f"{method} {batch} {shard}")
        assert [len(names(folder)) for folder in folders] == [3 * files] * 3
        assert names(folders[0]) == names(folders[1]) == names(folders[2])
    assert names(tmp_path / "1-23") == names(tmp_path / "a")


def test_an_image_has_its_place_in_the_tile(experiment, tmp_path):
    """A network of 24 pixels gives an image other bits at another place, so that tiles must not begin with a batch."""
    data.prepare("photos", None, 24, tmp_path / "photos")
    network = Network(name="unet_ddpm", dim=16, dim_mults=[1, 2, 2, 2], attention=12)
    told = experiment.model_copy(update={"dataset": "photos", "size": 24, "network": network})
    model = untrained(tmp_path / "model.safetensors", told, channels=3)
    pieces = [{"batch_size": 20}, {"batch_size": 7}, {"batch_size": 64, "shard_size": 7}]
    whole, *cut = (run(model, tmp_path / "photos", tmp_path / str(k), images=20, **p) for k, p in enumerate(pieces))
    for method in METHODS:
        for other in cut:
            np.testing.assert_array_equal(other[method], whole[method])


def test_an_image_is_the_same_among_others(model, digits, tmp_path):
    """The first images of a longer run are those of a shorter one, which also ends inside a tile."""
    few, many = (run(model, digits, tmp_path / str(n), images=n) for n in (5, 37))
    for method in METHODS:
        np.testing.assert_array_equal(few[method], many[method][:5])


@pytest.mark.parametrize("jobs", [2, 5])
def test_parts_make_the_shards_of_one_job(model, digits, tmp_path, written, jobs):
    """Every shard once, whichever job makes it; the last run only lists them."""
    reference = run(model, digits, tmp_path / "a", shard_size=4)
    alone = sorted(written)
    written.clear()
    sampling, work = Sampling(images=23, shard_size=4, batch_size=3, jobs=jobs), tmp_path / "b" / "shards"
    for k in range(jobs, 0, -1):
        before = len(written)
        shards.run(model, digits, None, work, sampling, CPU, part=(k, jobs))
        assert len(written) > before
        assert not list(work.rglob("trajectory-*.npz"))
    assert sorted(written) == alone
    assert names(tmp_path / "b") == names(tmp_path / "a")
    parted = run(model, digits, tmp_path / "b", shard_size=4)
    assert sorted(written) == alone
    for method in METHODS:
        np.testing.assert_array_equal(parted[method], reference[method])


def test_samples_are_those_of_the_algorithms_boxes(model, digits, experiment, tmp_path):
    """Algorithms 1 and 2 written out once more, on the whole test set at once."""
    samples = run(model, digits, tmp_path / "a")
    network = model_file.load_model(model, 1, CPU).network
    D = degradations.build(experiment.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")[:23]), CPU)
    state = D.draw(torch.arange(23), rng.derive(experiment.seed, "test"))

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
        # a convolution may sum in another order for another batch size; draws and images are the same
        np.testing.assert_allclose(samples[method], to_unit_interval(value), atol=2e-5, err_msg=method)


# What is finished is kept, what is damaged is found


def test_finished_shards_are_kept_and_damaged_ones_found(model, digits, experiment, tmp_path, monkeypatch, written):
    reference = run(model, digits, tmp_path / "a", shard_size=10)
    written.clear()
    counted = shards.Shard.write

    def write(shard, values):
        path = counted(shard, values)
        if len(written) == 4:
            signal.raise_signal(signal.SIGINT)
        return path

    monkeypatch.setattr(shards.Shard, "write", write)
    with pytest.raises(Interrupted):
        run(model, digits, tmp_path / "b", shard_size=10)
    assert not (tmp_path / "b" / "samples.json").exists()
    resumed = run(model, digits, tmp_path / "b", shard_size=10)
    assert len(written) == len(set(written)) == 9
    for method in METHODS:
        np.testing.assert_array_equal(resumed[method], reference[method])

    victim = next((tmp_path / "b" / "shards").rglob("naive-000010*.npy"))
    content = bytearray(victim.read_bytes())
    content[-3] ^= 1
    victim.write_bytes(content)
    with pytest.raises(ColdbenchError, match=r"naive-000010-000020-\w{16}\.npy is missing or damaged"):
        sampled.read(tmp_path / "b" / "samples.json", "naive")
    with pytest.raises(ColdbenchError, match=r"names no images of set test by tcaos"):
        sampled.read(tmp_path / "b" / "samples.json", "tcaos")
    (tmp_path / "b" / "samples.json").write_text("{}")
    with pytest.raises(ColdbenchError, match=r"samples\.json is damaged: .*delete it and run again"):
        evaluate.evaluate(scorer(experiment, digits, tmp_path), tmp_path / "b" / "samples.json", ABOUT, tmp_path / "s")


def torn(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [torn, flipped, gone])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_damaged_shard_alone_is_made_again(model, digits, tmp_path, written, damage, parts):
    """By the next run, without deleting anything by hand, whether one job or several make the shards."""
    reference = run(model, digits, tmp_path, shard_size=10)
    there = names(tmp_path)
    victim = next((tmp_path / "shards").rglob("naive-000010*.npy"))
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.np?") if path != victim}
    written.clear()
    damage(victim)
    if parts > 1:
        for k in range(parts):
            sampling = Sampling(images=23, shard_size=10)
            shards.run(model, digits, None, tmp_path / "shards", sampling, CPU, part=(k + 1, parts))
        assert written == ["test naive-000010-000020"]
    again = run(model, digits, tmp_path, shard_size=10)
    assert written == ["test naive-000010-000020"]
    assert names(tmp_path) == there
    assert all(path.stat().st_mtime_ns == then for path, then in kept.items())
    for method in METHODS:
        np.testing.assert_array_equal(again[method], reference[method])


def test_another_model_leaves_no_stale_shards(model, digits, experiment, tmp_path):
    before = run(model, digits, tmp_path / "a")
    untrained(model, experiment, seed=1)
    after = run(model, digits, tmp_path / "a")
    assert not np.allclose(before["direct"], after["direct"])
    assert len(list((tmp_path / "a" / "shards").iterdir())) == 1


def test_another_method_makes_only_its_own_shards(model, digits, tmp_path, written):
    folder = tmp_path / "a"
    for methods in (["tacos"], METHODS):
        sampling = Sampling(images=23, shard_size=10, methods=methods)
        shards.run(model, digits, folder / "samples.json", folder / "shards", sampling, CPU)
    assert len(written) == len(set(written)) == 9


def test_precision_is_written_down_and_kept_apart(model, digits, tmp_path):
    single = run(model, digits, tmp_path / "a")
    half = run(model, digits, tmp_path / "b", precision="bf16")
    for folder, precision in (("a", "fp32"), ("b", "bf16")):
        assert sampled.facts(tmp_path / folder / "samples.json")["precision"] == precision
    (one,), (other,) = ({Path(name).parent for name in names(tmp_path / folder)} for folder in "ab")
    assert one != other
    for method in METHODS:
        assert half[method].dtype == np.float32
        gap = np.abs(half[method] - single[method]).max()
        assert 0 < gap < 0.1, method
    again = run(model, digits, tmp_path / "b", precision="bf16", batch_size=4)
    for method in METHODS:
        np.testing.assert_array_equal(again[method], half[method])


def test_more_images_than_there_are_is_an_error(model, digits, tmp_path):
    with pytest.raises(ColdbenchError, match=r"sampling\.images is 361, but the test set of digits has 360"):
        run(model, digits, tmp_path, images=361)


# Sets of samples

TOLD = {
    "test": {},
    "another": {"known": "redrawn"},
    "partial": {"severity": 3},
    "too_little": {"severity": 3, "assumed_severity": 1},
    "too_much": {"severity": 3, "assumed_severity": 4},
    "leaps": {"stride": 3},
    "shifted": {"released_shift": True},
}


@pytest.fixture
def told(model, digits, tmp_path) -> dict[str, dict[str, np.ndarray]]:
    """Every set of TOLD by every method."""
    sampling = Sampling(images=9, sets=TOLD, max_frames=None)
    shards.run(model, digits, tmp_path / "samples.json", tmp_path / "shards", sampling, CPU)
    return {name: {m: sampled.read(tmp_path / "samples.json", m, name) for m in METHODS} for name in TOLD}


def test_what_the_sampler_is_told_is_what_it_does(told, model, digits, experiment):
    """TACoS written out: from the degraded images at one severity, by a sampler that takes them for another."""
    network = model_file.load_model(model, 1, CPU).network
    D = degradations.build(experiment.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")[:9]), CPU)
    state = D.draw(torch.arange(9), rng.derive(experiment.seed, "test"))

    def d(x, s):
        return D(x, torch.full((9,), max(s, 0)), state)

    for name, wanted in TOLD.items():
        severity, every = wanted.get("severity", 4), wanted.get("stride", 1)
        late = int(wanted.get("released_shift", False))
        x = d(x0, severity)
        if severity == D.T:
            x = torch.trunc((x + 1) * 0.5 * 255) / 255 * 2 - 1
        with torch.inference_mode():
            s = first = wanted.get("assumed_severity", severity)
            direct = network(x, torch.full((9,), first - 1))
            while s > 0:
                hat = network(x, torch.full((9,), s - 1))
                x = x - d(hat, s - late) + d(hat, max(s - every, 0) - late)
                s -= every
        np.testing.assert_allclose(told[name]["direct"], to_unit_interval(direct), atol=2e-5, err_msg=name)
        if name != "another":
            np.testing.assert_allclose(told[name]["tacos"], to_unit_interval(x), atol=2e-5, err_msg=name)


def test_every_set_is_another_result(told):
    """A wrong state leaves the input as it is and misleads the sampler; everything else shows as well."""
    for method in ("naive", "tacos"):
        for name, other in pairwise([*TOLD, "test"]):
            assert np.abs(told[name][method] - told[other][method]).max() > 1e-3, (method, name, other)
    np.testing.assert_array_equal(told["another"]["direct"], told["test"]["direct"])


def test_trajectories_end_in_the_samples(told, digits, tmp_path):
    """Each set has one: the true original, x_T, R(x_T), and states from the assumed severity down to x_0."""
    facts = sampled.facts(tmp_path / "samples.json")
    first = {"partial": 3, "too_little": 1}
    for name, part in facts["sets"].items():
        with np.load(tmp_path / part["trajectory"]) as arrays:
            found = {key: arrays[key] for key in arrays}
        assert str(found["method"]) == "tacos"
        severities = list(range(first.get(name, 4), -1, -1))
        assert found["severities"].tolist() == ([4, 1, 0] if name == "leaps" else severities), name
        assert len(found["states"]) == len(found["severities"])
        np.testing.assert_array_equal(found["states"][0], found["degraded"])
        np.testing.assert_array_equal(found["states"][-1], told[name]["tacos"][:6])
        np.testing.assert_array_equal(found["direct"], told[name]["direct"][:6])
        np.testing.assert_allclose(found["original"], data.load(digits, "test")[:6] / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"max_frames": 2}, {"max_frames": None}),
        ({"methods": ["direct"]}, {"methods": METHODS}),
        ({"images": 1}, {"images": 9}),
    ],
)
def test_trajectories_are_those_of_the_settings(model, digits, tmp_path, before, after):
    """Sampled again with other settings, in the same folder: as if for the first time; a damaged file is replaced."""

    def kept(folder: Path, **sampling: Any) -> dict[str, np.ndarray]:
        manifest = folder / "samples.json"
        shards.run(model, digits, manifest, folder / "shards", Sampling(**{"images": 9, **sampling}), CPU)
        (path,) = folder.rglob("trajectory-*.npz")
        assert manifest.parent / sampled.facts(manifest)["sets"]["test"]["trajectory"] == path
        with np.load(path) as arrays:
            return dict(arrays)

    kept(tmp_path / "a", **before)
    found, expected = kept(tmp_path / "a", **after), kept(tmp_path / "b", **after)
    assert found.keys() == expected.keys()
    for key in found:
        np.testing.assert_array_equal(found[key], expected[key])
    (path,) = (tmp_path / "a").rglob("trajectory-*.npz")
    whole = path.read_bytes()
    path.write_bytes(whole[:100])
    (tmp_path / "a/samples.json").unlink()
    assert kept(tmp_path / "a", **after).keys() == found.keys()


def test_one_step_ends_at_severity_zero(model, digits, tmp_path):
    shards.run(model, digits, tmp_path / "s.json", tmp_path, Sampling(images=2, methods=["direct"]), CPU)
    with np.load(next(tmp_path.rglob("trajectory-*.npz"))) as arrays:
        assert arrays["severities"].tolist() == [4, 0]


def test_only_shards_are_removed(model, digits, experiment, tmp_path, monkeypatch):
    """Wherever WORK and OUT lie: what is not a set's folder stays."""
    work = tmp_path / "work"
    for name in ("thesis", "checkpoints/0123456789abcdef", "test-of-mine"):
        (work / name).mkdir(parents=True)
        (work / name / "a.txt").write_text("a")
    monkeypatch.chdir(tmp_path)
    other = untrained(tmp_path / "other.safetensors", experiment, seed=1)
    for path in (model, other):
        shards.run(path, digits, Path("samples.json"), work, Sampling(images=2), CPU)
    assert len(list(tmp_path.rglob("a.txt"))) == 3
    assert len([path for path in work.iterdir() if shards.OURS.fullmatch(path.name)]) == 1
    assert sampled.read(Path("samples.json"), "tacos").shape == (2, 1, 16, 16)


@pytest.mark.parametrize("frames", [1, 2, 3])
def test_of_many_states_some_are_kept(model, digits, tmp_path, frames):
    samples = run(model, digits, tmp_path, images=4, max_frames=frames)
    with np.load(next((tmp_path / "shards").rglob("trajectory-*.npz"))) as arrays:
        assert arrays["severities"].tolist() == {1: [4], 2: [4, 0], 3: [4, 2, 0]}[frames]
        assert len(arrays["states"]) == frames
        if frames > 1:
            np.testing.assert_array_equal(arrays["states"][-1], samples["tacos"])


# Generation

STARTS = {
    "means": {"name": "blur", "T": 4, "kernel": 5, "std": 1.0, "padding": "circular", "quantized": True},
    "grid": {"name": "superresolution", "T": 3},
    "noise": {"name": "noise", "T": 5},
    "colour": {"name": "inpainting_generation", "T": 5, "std": 1.0, "rate": 2.0},
    "partner": {"name": "animorphosis", "T": 5, "partner": "photos"},
}


def generate(experiment: Experiment, kind: str, photos: Path, folder: Path, **sampling) -> Path:
    """The manifest of images generated from starts of a kind."""
    change = {"degradation": STARTS[kind], "dataset": "photos"}
    path = untrained(folder / "model.safetensors", experiment.model_copy(update=change), channels=3)
    out = folder / "samples.json"
    partner = photos if kind == "partner" else None
    shards.run(path, photos, out, folder / "shards", Sampling(**{"images": 9, **sampling}), CPU, partner)
    return out


@pytest.mark.parametrize("kind", STARTS)
def test_generation_from_every_kind_of_start(experiment, photos, tmp_path, monkeypatch, kind):
    """Every method begins with the same images, each its own, at whatever batch size."""
    methods = [*METHODS, *(["estimated", "resampled", "ddpm"] if kind in ("noise", "partner") else [])]
    begun: dict[str, list[torch.Tensor]] = {}
    original = shards.sample

    def recorded(restore, degradation, x, state, method, **options):
        begun.setdefault(method, []).append(x.clone())
        return original(restore, degradation, x, state, method, **options)

    monkeypatch.setattr(shards, "sample", recorded)
    sets = {"generated": {"start": {"kind": kind}}}
    manifest = generate(experiment, kind, photos, tmp_path, sets=sets, methods=methods, batch_size=4)
    starts = {method: torch.cat(parts[:3]) for method, parts in begun.items()}  # then follows the trajectory
    assert starts.keys() == set(methods)
    for method in methods:
        assert torch.equal(starts[method], starts["direct"])
        images = sampled.read(manifest, method, "generated")
        assert images.shape == (9, 3, 16, 16)
        assert images.dtype == np.float32
        assert len({image.tobytes() for image in images}) == 9
    outputs = [sampled.read(manifest, method, "generated").tobytes() for method in methods]
    assert len(set(outputs)) == len(methods)
    monkeypatch.undo()
    whole = generate(experiment, kind, photos, tmp_path / "whole", sets=sets, methods=methods)
    for method in methods:
        np.testing.assert_array_equal(
            sampled.read(whole, method, "generated"), sampled.read(manifest, method, "generated")
        )
    with np.load(tmp_path / sampled.facts(manifest)["sets"]["generated"]["trajectory"]) as arrays:
        assert "original" not in arrays
        np.testing.assert_array_equal(arrays["degraded"], to_unit_interval(starts["direct"][:6]))


def test_symmetry_is_broken_by_noise_alone(experiment, photos, tmp_path):
    """The starts of both sets are the same colours; one has noise of the stated level, and its images differ."""
    start = {"kind": "means"}
    sets = {"perfect": {"start": start}, "broken": {"start": {**start, "noise_level": 0.002}}}
    manifest = generate(experiment, "means", photos, tmp_path, sets=sets, images=6)
    begun = {}
    for name, part in sampled.facts(manifest)["sets"].items():
        with np.load(tmp_path / part["trajectory"]) as arrays:
            begun[name] = arrays["degraded"]
    perfect = begun["perfect"]
    assert np.ptp(perfect, axis=(2, 3)).max() == 0
    noise = begun["broken"] - perfect
    assert noise.std() == pytest.approx(0.001, rel=0.05)  # 0.002 on [-1, 1]
    for method in ("direct", "tacos"):  # Algorithm 1 forgets x_T but for what R makes of it
        perfect, broken = (sampled.read(manifest, method, name) for name in ("perfect", "broken"))
        assert np.abs(broken - perfect).max() > 1e-4, method


def test_starts_are_fitted_to_the_training_images(experiment, photos, tmp_path):
    """Channel means of many starts have the mean of the training images' own."""
    sets = {"generated": {"start": {"kind": "means"}, "methods": ["direct"]}}
    manifest = generate(experiment, "means", photos, tmp_path, sets=sets, images=6)
    with np.load(tmp_path / sampled.facts(manifest)["sets"]["generated"]["trajectory"]) as arrays:
        colours = arrays["degraded"][:, :, 0, 0]
    means = (data.load(photos, "train") / 255).mean(axis=(2, 3))
    error = means.std(axis=0) / math.sqrt(6)
    assert (np.abs(colours.mean(axis=0) - means.mean(axis=0)) < 4 * error).all()


# Scores


def scorer(experiment: Experiment, prepared: Path, folder: Path) -> evaluate.Scorer:
    return evaluate.Scorer(experiment, prepared, folder / "statistics", evaluate.extractors([], None, CPU), CPU)


def test_scores_of_a_run(model, digits, experiment, tmp_path):
    """Every method and metric once, values those of the definition, provenance complete."""
    samples = run(model, digits, tmp_path)
    evaluate.evaluate(
        scorer(experiment, digits, tmp_path), tmp_path / "samples.json", ABOUT, tmp_path / "scores.parquet"
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

    read = inputs.load_scores([tmp_path / "scores.parquet"])
    assert {(score.run, score.table, score.seed) for score in read} == {("tiny-test-s3", "2", 3)}
    inputs.collect([tmp_path / "scores.parquet"], tmp_path / "all.parquet")
    assert set(inputs.load_scores([tmp_path / "all.parquet"])) == set(read)
    assert len(pd.read_csv(tmp_path / "all.csv")) == len(read)


def test_metrics_in_the_range_of_the_network(model, digits, experiment, tmp_path):
    """Asked for, SSIM and RMSE of images in [-1, 1] stand beside the usual ones, which stay as they are."""
    samples = run(model, digits, tmp_path / "a")
    signed = run(model, digits, tmp_path / "b", signed_metrics=True)
    assert names(tmp_path / "a") == names(tmp_path / "b")  # how images are scored makes no other images
    found = {}
    for folder in "ab":
        where = tmp_path / folder / "samples.json", ABOUT, tmp_path / f"{folder}.parquet"
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
    shards.run(model, digits, tmp_path / "samples.json", tmp_path / "shards", Sampling(images=5, sets=sets), CPU)
    evaluate.evaluate(
        scorer(experiment, digits, tmp_path), tmp_path / "samples.json", ABOUT, tmp_path / "scores.parquet"
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
    manifest = generate(experiment, "means", photos, tmp_path, sets=sets)
    science = experiment.model_copy(update={"degradation": STARTS["means"], "dataset": "photos"})
    evaluate.evaluate(scorer(science, photos, tmp_path), manifest, ABOUT, tmp_path / "scores.parquet")
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
    where = scorer(experiment, digits, tmp_path), tmp_path / "samples.json", ABOUT
    evaluate.evaluate(*where, tmp_path / "sound.parquet")
    read = sampled.read
    monkeypatch.setattr(
        sampled, "read", lambda m, method, part: read(m, method, part) * (math.nan if method == "tacos" else 1)
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
            scorer(experiment, photos, tmp_path), tmp_path / "samples.json", ABOUT, tmp_path / "s.parquet"
        )
