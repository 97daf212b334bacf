"""Sampling to shards: batch, shard, part and restart change no bit, and what is finished is never made again."""

from __future__ import annotations

import math
import shutil
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import change_images, sampled, untrained

from coldbench import data, degradations
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Network
from coldbench.core.files import sha256
from coldbench.core.images import from_uint8, to_unit_interval
from coldbench.core.interrupts import Interrupted
from coldbench.core.sampling_settings import Sampling
from coldbench.models import model_file
from coldbench.sampling import starts
from coldbench.sampling.manifest import read_images, read_manifest
from coldbench.sampling.shards import SamplingPaths, Shard, sample_part
from coldbench.sampling.trajectories import LANDMARKS, stored_frames

CPU = torch.device("cpu")
METHODS = ("direct", "naive", "tacos")


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stems of the shards that are written from now on."""
    stems: list[str] = []
    write = Shard.write

    def recorded(shard: Shard, *content: Any) -> Path:
        stems.append(shard.stem)
        return write(shard, *content)

    monkeypatch.setattr(Shard, "write", recorded)
    return stems


def run(folder: Path, model: Path, prepared: Path, **sampling: Any) -> dict[str, np.ndarray]:
    """The images of the set `test` by method, 23 of them by default."""
    manifest = sampled(folder, model, prepared, **{"images": 23, **sampling})
    return {method: read_images(manifest, "test", method) for method in METHODS}


def equal(images: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for method in expected:
        np.testing.assert_array_equal(images[method], expected[method], err_msg=method)


def names(folder: Path) -> set[str]:
    """The shards in a folder by folder and name; both hold hashes of the content."""
    paths = {str(path.relative_to(folder / "shards")) for path in (folder / "shards").rglob("*.npy")}
    assert all(sha256(folder / "shards" / name)[:16] == Path(name).stem.rpartition("-")[2] for name in paths)
    return paths


def trajectory(manifest: Path, name: str = "test") -> dict[str, np.ndarray]:
    with np.load(manifest.parent / read_manifest(manifest).sets[name].trajectory) as arrays:
        return dict(arrays)


# The same bits, whatever the division of the work


@pytest.mark.parametrize(
    ("inference_batch", "network"),
    [(None, {"dim": 8}), (8, {"dim": 16}), (3, {"dim": 16}), (8, {"name": "unet_ddpm", "dim": 8, "attention": 8})],
)
def test_batch_and_shard_size_change_no_bit(experiment, digits, tmp_path, network, inference_batch):
    changed = experiment.model_copy(update={"network": Network(dim_mults=[1, 2], **network)})
    model = untrained(tmp_path / "model.safetensors", changed)
    options = {"inference_batch": inference_batch}
    reference = run(tmp_path / "whole", model, digits, batch_size=23, shard_size=23, **options)
    for shard_size, files in ((23, 1), (10, 3)):
        folders = [tmp_path / f"{batch_size}-{shard_size}" for batch_size in (1, 7, 64)]
        for folder, batch_size in zip(folders, (1, 7, 64), strict=True):
            equal(run(folder, model, digits, batch_size=batch_size, shard_size=shard_size, **options), reference)
            assert len(names(folder)) == 3 * files
        assert names(folders[0]) == names(folders[1]) == names(folders[2])
    assert names(tmp_path / "1-23") == names(tmp_path / "whole")


def test_an_image_keeps_its_batch_index_in_every_division(experiment, tmp_path):
    """At 24 px this network's last bits depend on the batch index."""
    data.prepare("photos", None, 24, tmp_path / "photos")
    network = Network(name="unet_ddpm", dim=16, dim_mults=[1, 2, 2, 2], attention=12)
    changed = experiment.model_copy(update={"dataset": "photos", "size": 24, "network": network})
    model = untrained(tmp_path / "model.safetensors", changed, channels=3)
    divisions = [{"batch_size": 20}, {"batch_size": 7}, {"batch_size": 64, "shard_size": 7}]
    whole, *divided = (
        run(tmp_path / str(k), model, tmp_path / "photos", images=20, **sizes) for k, sizes in enumerate(divisions)
    )
    for images in divided:
        equal(images, whole)


def test_the_first_images_of_a_longer_run_are_those_of_a_shorter_one(model, digits, tmp_path):
    few, many = (run(tmp_path / str(count), model, digits, images=count) for count in (5, 37))
    equal({method: images[:5] for method, images in many.items()}, few)


@pytest.mark.parametrize("parts", [2, 5])
def test_parts_make_each_shard_of_a_run_once(model, digits, tmp_path, written, parts):
    reference = run(tmp_path / "a", model, digits, shard_size=4)
    stems = sorted(written)
    written.clear()
    sampling, paths = (
        Sampling(images=23, shard_size=4, batch_size=3),
        SamplingPaths(model, digits, tmp_path / "b/shards"),
    )
    for part in range(parts, 0, -1):
        before = len(written)
        sample_part(paths, sampling, CPU, part, parts)
        assert len(written) > before
    assert not list((tmp_path / "b").rglob("trajectory-*.npz"))
    assert sorted(written) == stems
    assert names(tmp_path / "b") == names(tmp_path / "a")
    equal(run(tmp_path / "b", model, digits, shard_size=4), reference)
    assert sorted(written) == stems


# What is finished stays, what is damaged is made again


def test_a_stopped_run_continues_at_the_first_missing_shard(model, digits, tmp_path, monkeypatch, written):
    reference = run(tmp_path / "a", model, digits, shard_size=10)
    written.clear()
    write = Shard.write

    def stopping(shard: Shard, *content: Any) -> Path:
        path = write(shard, *content)
        if len(written) == 4:
            signal.raise_signal(signal.SIGINT)
        return path

    monkeypatch.setattr(Shard, "write", stopping)
    with pytest.raises(Interrupted):
        run(tmp_path / "b", model, digits, shard_size=10)
    assert not (tmp_path / "b" / "samples.json").exists()
    equal(run(tmp_path / "b", model, digits, shard_size=10), reference)
    assert len(written) == len(set(written)) == 9


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, Path.unlink])
@pytest.mark.parametrize("parts", [1, 3])
def test_a_damaged_shard_alone_is_made_again(model, digits, tmp_path, written, damage, parts):
    reference = run(tmp_path, model, digits, shard_size=10)
    shard_names = names(tmp_path)
    victim = next((tmp_path / "shards").rglob("naive-000010*.npy"))
    dates = {path: path.stat().st_mtime_ns for path in (tmp_path / "shards").rglob("*.np?") if path != victim}
    written.clear()
    damage(victim)
    with pytest.raises(ColdbenchError, match=victim.name):
        read_images(tmp_path / "samples.json", "test", "naive")
    if parts > 1:
        paths = SamplingPaths(model, digits, tmp_path / "shards")
        for part in range(parts):
            sample_part(paths, Sampling(images=23, shard_size=10), CPU, part + 1, parts)
        assert written == ["naive-000010-000020"]
    equal(run(tmp_path, model, digits, shard_size=10), reference)
    assert written == ["naive-000010-000020"]
    assert names(tmp_path) == shard_names
    assert all(path.stat().st_mtime_ns == date for path, date in dates.items())


def test_another_method_makes_only_its_own_shards(model, digits, tmp_path, written):
    for methods in (["tacos"], METHODS):
        sampled(tmp_path, model, digits, images=23, shard_size=10, methods=list(methods))
    assert len(written) == len(set(written)) == 9


def test_shards_of_another_model_are_kept_and_not_used(model, digits, experiment, tmp_path):
    before = run(tmp_path, model, digits, images=2)
    old = {path: path.read_bytes() for path in (tmp_path / "shards").rglob("*.np*")}
    untrained(model, experiment, seed=1)
    assert not np.allclose(run(tmp_path, model, digits, images=2)["direct"], before["direct"])
    assert {path: path.read_bytes() for path in old} == old


@pytest.mark.parametrize(
    "settings",
    [{"severity": 3}, {"assumed_severity": 3}, {"known": "redrawn"}, {"stride": 2}, {"released_shift": True}],
    ids=str,
)
def test_set_with_another_setting_leaves_no_stale_shards(model, digits, tmp_path, settings):
    """In the folder of the same set with the defaults, the samples are those of an empty folder."""

    def naive(folder: Path, settings: dict[str, Any]) -> np.ndarray:
        manifest = sampled(folder, model, digits, images=5, methods=["naive"], sets={"test": settings})
        return read_images(manifest, "test", "naive")

    before, after = naive(tmp_path / "a", {}), naive(tmp_path / "a", settings)
    np.testing.assert_array_equal(after, naive(tmp_path / "b", settings))
    assert not np.array_equal(after, before)


def test_another_partner_leaves_no_stale_shards(experiment, digits, tmp_path):
    mixing = {"name": "animorphosis", "T": 3, "partner": "digits"}
    model = untrained(tmp_path / "model.safetensors", experiment.model_copy(update={"degradation": mixing}))
    other = Path(shutil.copytree(digits, tmp_path / "other"))
    change_images(other, "train")

    def naive(folder: Path, partner: Path) -> np.ndarray:
        manifest = sampled(folder, model, digits, partner, images=5, methods=["naive"])
        return read_images(manifest, "test", "naive")

    before, after = naive(tmp_path / "a", digits), naive(tmp_path / "a", other)
    np.testing.assert_array_equal(after, naive(tmp_path / "b", other))
    assert not np.array_equal(after, before)


def test_each_precision_has_its_own_shards(model, digits, tmp_path):
    single = run(tmp_path / "fp32", model, digits)
    half = run(tmp_path / "bf16", model, digits, precision="bf16")
    for precision in ("fp32", "bf16"):
        assert read_manifest(tmp_path / precision / "samples.json").precision == precision
    folders = [{Path(name).parent for name in names(tmp_path / precision)} for precision in ("fp32", "bf16")]
    assert not folders[0] & folders[1]
    for method in METHODS:
        assert half[method].dtype == np.float32
        assert 0 < np.abs(half[method] - single[method]).max() < 0.1, method
    equal(run(tmp_path / "bf16", model, digits, precision="bf16", batch_size=4), half)


# Sets of samples

SETS: dict[str, dict[str, Any]] = {
    "test": {},
    "redrawn": {"known": "redrawn"},
    "partial": {"severity": 3},
    "too_little": {"severity": 3, "assumed_severity": 1},
    "too_much": {"severity": 3, "assumed_severity": 4},
    "strides": {"stride": 3},
    "shifted": {"released_shift": True},
}
COUNT = 9


@pytest.fixture
def manifest(model, digits, tmp_path) -> Path:
    """Every set of SETS by every method."""
    return sampled(tmp_path, model, digits, images=COUNT, sets=SETS, max_frames=None)


def test_samples_are_those_of_algorithms_1_and_2(manifest, model, digits, experiment):
    """The algorithms written out, for each set."""
    network = model_file.load_model(model, CPU, 1).network
    D = degradations.build(experiment.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")[:COUNT]), CPU)
    draws = {
        name: D.draw(torch.arange(COUNT), rng.derive(experiment.seed, name)) for name in ("test", "test, another state")
    }

    def d(x: torch.Tensor, s: int, draw: str = "test") -> torch.Tensor:
        return D(x, torch.full((COUNT,), max(s, 0)), draws[draw])

    for name, settings in SETS.items():
        severity, stride = settings.get("severity", D.T), settings.get("stride", 1)
        offset = int(settings.get("released_shift", False))
        known = "test, another state" if "known" in settings else "test"
        x = d(x0, severity)
        naive = tacos = torch.trunc((x + 1) * 0.5 * 255) / 255 * 2 - 1 if severity == D.T else x
        s = settings.get("assumed_severity", severity)
        with torch.inference_mode():
            direct = network(naive, torch.full((COUNT,), s - 1))
            while s > 0:
                time, r = torch.full((COUNT,), s - 1), max(s - stride, 0)
                naive = d(network(naive, time), r - offset, known)
                x0_hat = network(tacos, time)
                tacos = tacos - d(x0_hat, s - offset, known) + d(x0_hat, r - offset, known)
                s = r
        for method, expected in (("direct", direct), ("naive", naive), ("tacos", tacos)):
            images = read_images(manifest, name, method)
            # a convolution's last bits can differ between batch sizes
            np.testing.assert_allclose(images, to_unit_interval(expected), atol=2e-5, err_msg=f"{name} {method}")


def test_default_severity_is_the_last(model, digits, tmp_path):
    manifest = sampled(tmp_path, model, digits, images=5, sets={"default": {}, "last": {"severity": 4}})
    for method in METHODS:
        np.testing.assert_array_equal(*(read_images(manifest, name, method) for name in ("default", "last")))


def test_each_set_has_other_images(manifest):
    for method in ("naive", "tacos"):
        for name, other in pairwise([*SETS, "test"]):
            gap = np.abs(read_images(manifest, name, method) - read_images(manifest, other, method)).max()
            assert gap > 1e-3, (method, name, other)
    direct = [read_images(manifest, name, "direct") for name in ("test", "redrawn")]
    np.testing.assert_array_equal(*direct)


def test_trajectories_run_from_the_assumed_severity_to_the_samples(manifest, digits):
    severities = {"partial": [3, 2, 1, 0], "too_little": [1, 0], "strides": [4, 1, 0]}
    for name in SETS:
        arrays = trajectory(manifest, name)
        assert str(arrays["method"]) == "tacos"
        assert arrays["severities"].tolist() == severities.get(name, [4, 3, 2, 1, 0]), name
        assert len(arrays["states"]) == len(arrays["severities"])
        np.testing.assert_array_equal(arrays["states"][0], arrays["degraded"])
        for key, images in (("states", arrays["states"][-1]), ("naive", arrays["naive"][-1])):
            method = "tacos" if key == "states" else "naive"
            np.testing.assert_array_equal(images, read_images(manifest, name, method, first=6))
        np.testing.assert_array_equal(arrays["direct"], read_images(manifest, name, "direct", first=6))
        np.testing.assert_allclose(arrays["original"], data.load(digits, "test")[:6] / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("sampling", "severities"),
    [
        ({"methods": ["direct"]}, [4, 0]),
        ({"max_frames": 1}, [4]),
        ({"max_frames": 2}, [4, 0]),
        ({"max_frames": 3}, [4, 2, 0]),
    ],
)
def test_a_trajectory_has_evenly_spaced_frames(model, digits, tmp_path, sampling, severities):
    manifest = sampled(tmp_path, model, digits, images=2, **sampling)
    arrays = trajectory(manifest)
    assert arrays["severities"].tolist() == severities
    assert len(arrays["states"]) == len(severities)
    if severities[-1] == 0:
        np.testing.assert_array_equal(arrays["states"][-1], read_images(manifest, "test", str(arrays["method"])))


def test_long_trajectories_store_the_papers_steps():
    frames = stored_frames(301, 24)
    assert {0, 300, *LANDMARKS} <= set(frames)
    assert len(frames) <= 24
    assert stored_frames(5, 3) == [0, 2, 4]
    assert stored_frames(21, 24) == stored_frames(21, None) == list(range(21))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"max_frames": 2}, {"max_frames": None}),
        ({"methods": ["direct"]}, {"methods": list(METHODS)}),
        ({"images": 1}, {"images": 9}),
    ],
)
def test_trajectories_follow_changed_settings_and_replace_damaged_files(model, digits, tmp_path, before, after):
    def arrays(folder: Path, sampling: dict[str, Any]) -> dict[str, np.ndarray]:
        return trajectory(sampled(folder, model, digits, **{"images": 9, **sampling}))

    arrays(tmp_path / "a", before)
    expected = arrays(tmp_path / "b", after)
    equal(arrays(tmp_path / "a", after), expected)
    for damage in (truncate, flip_a_bit):
        damage(tmp_path / "a" / read_manifest(tmp_path / "a" / "samples.json").sets["test"].trajectory)
        equal(arrays(tmp_path / "a", after), expected)


# Generation

STARTS = {
    "means": {"name": "blur", "T": 4, "kernel": 5, "std": 1.0, "padding": "circular", "quantized": True},
    "grid": {"name": "superresolution", "T": 3},
    "noise": {"name": "noise", "T": 5},
    "colour": {"name": "inpainting_generation", "T": 5, "std": 1.0, "rate": 2.0},
    "partner": {"name": "animorphosis", "T": 5, "partner": "photos"},
}


def generated(folder: Path, experiment: Experiment, kind: str, photos: Path, **sampling: Any) -> Path:
    """The manifest of nine images generated from one kind of start, unless `sampling` has other settings."""
    changed = experiment.model_copy(update={"degradation": STARTS[kind], "dataset": "photos"})
    model = untrained(folder / "model.safetensors", changed, channels=3)
    options = {"images": 9, "sets": {"generated": {"start": {"kind": kind}}}, **sampling}
    return sampled(folder, model, photos, photos if kind == "partner" else None, **options)


@pytest.mark.parametrize("kind", STARTS)
def test_all_methods_generate_from_the_same_starts_at_any_batch_size(experiment, photos, tmp_path, monkeypatch, kind):
    methods = [*METHODS, *(["estimated", "resampled", "ddpm"] if kind in ("noise", "partner") else [])]
    x_T: dict[str, list[torch.Tensor]] = {}
    sample = starts.sample

    def recorded(restore: Any, degradation: Any, x: torch.Tensor, drawn: Any, method: Any, **options: Any) -> Any:
        x_T.setdefault(method["name"], []).append(x.clone())
        return sample(restore, degradation, x, drawn, method, **options)

    monkeypatch.setattr(starts, "sample", recorded)
    small = generated(tmp_path / "small", experiment, kind, photos, methods=methods, batch_size=4, inference_batch=4)
    monkeypatch.undo()
    large = generated(tmp_path / "large", experiment, kind, photos, methods=methods, inference_batch=4)
    first = torch.cat(x_T["direct"][:3])  # the trajectories' start follows
    contents = set()
    for method in methods:
        assert torch.equal(torch.cat(x_T[method][:3]), first)
        images = read_images(small, "generated", method)
        assert (images.shape, images.dtype) == ((9, 3, 16, 16), np.float32)
        assert len({image.tobytes() for image in images}) == 9
        np.testing.assert_array_equal(images, read_images(large, "generated", method))
        contents.add(images.tobytes())
    assert len(contents) == len(methods)
    arrays = trajectory(small, "generated")
    assert "original" not in arrays
    np.testing.assert_array_equal(arrays["degraded"], to_unit_interval(first[:6]))


def test_noise_alone_breaks_the_symmetry_of_a_start(experiment, photos, tmp_path):
    sets = {
        name: {"start": {"kind": "means", "noise_level": level}} for name, level in (("perfect", 0), ("broken", 0.002))
    }
    manifest = generated(tmp_path, experiment, "means", photos, sets=sets, images=6)
    perfect, broken = (trajectory(manifest, name)["degraded"] for name in sets)
    assert np.ptp(perfect, axis=(2, 3)).max() == 0
    assert (broken - perfect).std() == pytest.approx(0.001, rel=0.05)  # 0.002 on [-1, 1]
    for method in ("direct", "tacos"):  # Algorithm 1 depends on x_T through R alone
        images = [read_images(manifest, name, method) for name in sets]
        assert np.abs(images[0] - images[1]).max() > 1e-4, method


def test_starts_have_the_mean_colour_of_the_training_images(experiment, photos, tmp_path):
    manifest = generated(tmp_path, experiment, "means", photos, methods=["direct"], images=6)
    colours = trajectory(manifest, "generated")["degraded"][:, :, 0, 0]
    means = (data.load(photos, "train") / 255).mean(axis=(2, 3))
    error = means.std(axis=0) / math.sqrt(6)
    assert (np.abs(colours.mean(axis=0) - means.mean(axis=0)) < 4 * error).all()


@pytest.mark.parametrize("split", ["train", "test"])
def test_training_images_alone_decide_a_fitted_start(experiment, photos, tmp_path, split):
    first = generated(tmp_path / "a", experiment, "means", photos, methods=["naive"])
    changed = Path(shutil.copytree(photos, tmp_path / "changed"))
    change_images(changed, split)
    second = generated(tmp_path / "b", experiment, "means", changed, methods=["naive"])
    images = [read_images(manifest, "generated", "naive") for manifest in (first, second)]
    assert np.array_equal(*images) == (split == "test")


# Refusals


def test_refusals_name_the_key_and_the_limit(model, digits, tmp_path):
    manifest = sampled(tmp_path / "a", model, digits, images=2)
    damaged = tmp_path / "samples.json"
    wrong_type = manifest.read_text().replace('"seed": 3', '"seed": "a"', 1)
    for content in ("{}", '{"experiment": 1}', "torn", "[]", wrong_type):
        damaged.write_text(content)
        with pytest.raises(ColdbenchError, match=r"samples\.json.*(move it away|delete it) and run again"):
            read_manifest(damaged)
    refusals = {
        r"images.* 361, .* 360": lambda: sampled(tmp_path / "b", model, digits, images=361),
        "set test by tcaos": lambda: read_images(manifest, "test", "tcaos"),
        "set tset by tacos": lambda: read_images(manifest, "tset", "tacos"),
        "none.json does not exist": lambda: read_manifest(tmp_path / "none.json"),
    }
    for words, call in refusals.items():
        with pytest.raises(ColdbenchError, match=words):
            call()
