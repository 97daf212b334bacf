"""Training: what decides the weights, and what must not (stops, kills, devices' options)."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import Process, coldbench
from training_cases import CPU, assert_same_training, equal, heartbeat, log, losses, steps, train, weights, words

from coldbench import data, degradations
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Network, Training
from coldbench.core.images import from_uint8
from coldbench.core.interrupts import RESUMABLE, Interrupted
from coldbench.core.provenance import provenance
from coldbench.models import model_file
from coldbench.training import checkpoints, finished, loop
from coldbench.training.distributed import DeviceOptions

# What decides the weights


def test_seed_decides_weights_and_accumulation_does_not(experiment, digits, tmp_path, undisturbed):
    first = weights(undisturbed(experiment, digits))
    assert equal(train(experiment, digits, tmp_path / "again"), first)
    assert not equal(train(experiment.model_copy(update={"seed": 4}), digits, tmp_path / "seed"), first)
    whole = experiment.training.model_copy(update={"grad_accumulation": 1})
    at_once = train(experiment.model_copy(update={"training": whole}), digits, tmp_path / "whole")
    for key, value in first.items():  # the same images and draws, summed in another order
        torch.testing.assert_close(at_once[key], value, atol=2e-4, rtol=1e-3)


def test_every_image_is_seen_once_an_epoch(experiment):
    images = np.arange(23, dtype=np.uint8).reshape(23, 1, 1, 1).repeat(16, 2).repeat(16, 3)
    degradation = degradations.build(experiment.degradation, 16)
    source = loop.TrainingSet(images, experiment, degradation, 7)
    batches = [loop.training_batch(source, first, 6, CPU) for first in range(0, 3 * 23 - 3, 6)]
    seen = ((torch.cat([x0 for x0, _, _ in batches])[:, 0, 0, 0] + 1) / 2 * 255).round().int().tolist()
    orders = [seen[i : i + 23] for i in (0, 23)]
    assert [sorted(order) for order in orders] == [list(range(23))] * 2
    assert orders[0] != orders[1]
    severities = torch.cat([t for _, _, t in batches])
    assert set(severities.tolist()) == set(range(1, degradation.T + 1))


def test_degradation_is_drawn_anew_every_epoch(experiment, digits):
    """Of one image, so that every place in the sequence is an epoch."""
    degradation = degradations.build({**experiment.degradation, "T": 1}, 16)
    source = loop.TrainingSet(data.load(digits, "train")[:1], experiment, degradation, 5)
    x0, xt, _ = loop.training_batch(source, 0, 8, CPU)
    assert all(torch.equal(image, x0[0]) for image in x0)
    assert len({image.numpy().tobytes() for image in xt}) > 4


def test_model_file_holds_the_average(experiment, digits, tmp_path):
    """An average taken after the first of three steps alone is the result of a training of one step."""
    results = []
    for count in (1, 3):
        once = {"max_steps": count, "ema_update_every": count, "ema_start": 9}
        training = experiment.training.model_copy(update=once)
        results.append(train(experiment.model_copy(update={"training": training}), digits, tmp_path / str(count)))
    assert equal(*results)


def test_snapshots_are_the_models_of_shorter_trainings_and_change_no_weight(experiment, digits, tmp_path, undisturbed):
    """Before and after `ema_start`, and after a stop; a training of so many steps takes them instead of its own."""
    training = experiment.training.model_copy(update={"snapshots": [3, 10]})
    kept = experiment.model_copy(update={"training": training})
    assert kept.fingerprint == experiment.fingerprint
    whole = tmp_path / kept.run
    assert equal(train(kept, digits, whole), weights(undisturbed(experiment, digits)))
    for step in training.snapshots:
        short = experiment.model_copy(
            update={"training": training.model_copy(update={"max_steps": step, "snapshots": []})}
        )
        own = tmp_path / kept.at(step).run
        finished.take_snapshot(own / "model.safetensors", kept.at(step), finished.training_identity(short, digits))
        assert equal(weights(own), weights(undisturbed(short, digits)))
        before = (own / "model.safetensors").stat().st_mtime_ns
        train(kept.at(step), digits, own)
        assert (own / "model.safetensors").stat().st_mtime_ns == before
    assert kept.at(3).run == "tiny-test-s3-3steps"
    assert kept.at(3).whole_run == kept.run


def test_damaged_snapshot_is_not_taken(experiment, digits, tmp_path):
    training = experiment.training.model_copy(update={"max_steps": 4, "snapshots": [2]})
    kept = experiment.model_copy(update={"training": training})
    train(kept, digits, tmp_path / kept.run)
    file = tmp_path / kept.run / "snapshots" / "step-2.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    model = tmp_path / kept.at(2).run / "model.safetensors"
    finished.take_snapshot(model, kept.at(2), finished.training_identity(kept.at(2), digits))
    assert not model.exists()


@pytest.mark.parametrize("steps", [[0], [12], [13], [4, 2], [2, 2]])
def test_snapshots_that_a_training_cannot_have_are_refused(experiment, steps):
    with pytest.raises(ValueError, match="snapshots"):
        Training(**{**experiment.training.model_dump(), "snapshots": steps})


def test_whole_numbers_in_a_network_are_copied_into_the_average(experiment):
    """Such as the count of batches in BatchNorm."""
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    state = loop.TrainingState.initial(network, 1e-3, {})
    network(torch.randn(4, 1, 8, 8))
    state.step = 10
    loop.update_ema(state, experiment.training)
    assert state.ema["1.num_batches_tracked"] == 1
    assert (state.ema["1.running_mean"] - network[1].running_mean).abs().max() > 0


def test_two_hundred_steps_restore_better_than_identity(experiment, digits, tmp_path):
    ema = {"ema_update_every": 1, "ema_decay": 0.9, "ema_start": 150}
    longer = Training(max_steps=200, batch_size=16, grad_accumulation=1, learning_rate=3e-3, **ema)
    train(experiment.model_copy(update={"training": longer}), digits, tmp_path)
    network = model_file.load_model(tmp_path / "model.safetensors", CPU, 1).network
    degradation = degradations.build(experiment.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")), CPU)
    t = torch.full((len(x0),), degradation.T)
    xt = degradation(x0, t, degradation.draw(torch.arange(len(x0)), 99))
    with torch.inference_mode():
        restored = network(xt, t - 1)
    assert (restored - x0).abs().mean() < 0.8 * (xt - x0).abs().mean()


def test_network_is_trained_in_training_mode(full, larger, tmp_path, after_step, undisturbed):
    """Every step finds the training mode, and dropout changes already the first loss."""
    modes = []
    after_step(tuple(range(1, 13)), lambda state, *_: modes.append({m.training for m in state.network.modules()}))
    without = full.model_copy(update={"network": full.network.model_copy(update={"dropout": 0.0})})
    train(without, larger, tmp_path)
    assert modes == [{True}] * 12
    assert losses(tmp_path)[0] != losses(undisturbed(full, larger))[0]


def test_every_micro_batch_has_its_own_dropout_seed(full, larger, tmp_path, monkeypatch):
    seeds, batch = [], loop.training_batch
    monkeypatch.setattr(loop, "training_batch", lambda *args: seeds.append(torch.initial_seed()) or batch(*args))
    train(full, larger, tmp_path)
    assert len(seeds) == len(set(seeds)) == 24


def test_log_counts_every_image(experiment, digits, undisturbed):
    lines = log(undisturbed(experiment, digits))
    assert [line["images"] for line in lines] == [line["step"] * experiment.training.batch_size for line in lines]


def test_model_file_holds_its_experiment_and_refuses_other_networks(experiment, digits, tmp_path, undisturbed):
    path = Path(shutil.copy(undisturbed(experiment, digits) / "model.safetensors", tmp_path))
    model = model_file.load_model(path, CPU, 1)
    assert (model.experiment, model.channels) == (experiment, 1)
    assert (model.data, model.partner) == (data.info(digits)["hash"], None)
    with pytest.raises(ColdbenchError, match="restores images with 1 channels, not 3"):
        model_file.load_model(path, CPU, 3)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ColdbenchError, match="damaged"):
        model_file.load_model(path, CPU, 1)


# Stopped and killed


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, RESUMABLE), (signal.SIGUSR1, RESUMABLE)]
)
def test_signal_stops_training_and_next_run_ends_as_undisturbed(
    experiment, digits, tmp_path, stop_at, undisturbed, number, status
):
    stop_at(5, number)
    with pytest.raises(Interrupted) as stopped:
        train(experiment, digits, tmp_path)
    assert stopped.value.status == status
    assert (heartbeat(tmp_path)["state"], steps(tmp_path)) == ("stopped", [5])
    assert not (tmp_path / "model.safetensors").exists()
    train(experiment, digits, tmp_path)
    assert_same_training(tmp_path, undisturbed(experiment, digits))


def test_everything_random_survives_stops(full, larger, tmp_path, stop_at, undisturbed):
    for n in (3, 4, 2):
        stop_at(n, signal.SIGUSR1)
        with pytest.raises(Interrupted):
            train(full, larger, tmp_path)
    assert steps(tmp_path) == [7, 9]
    train(full, larger, tmp_path)
    assert_same_training(tmp_path, undisturbed(full, larger))


def test_training_that_stops_after_every_step_ends_as_undisturbed(experiment, digits, tmp_path, undisturbed):
    """Each job has time for one step, so that every step is saved and resumed from."""
    for step in range(1, 12):
        with pytest.raises(Interrupted, match="before its time limit") as stopped:
            train(experiment, digits, tmp_path, stop_after=0.0)
        assert (stopped.value.number, stopped.value.status) == (None, RESUMABLE)
        beat = heartbeat(tmp_path)
        assert (beat["state"], beat["step"], beat["max_steps"]) == ("stopped", step, 12)
        assert not (tmp_path / "model.safetensors").exists()
    train(experiment, digits, tmp_path, stop_after=0.0)
    assert_same_training(tmp_path, undisturbed(experiment, digits))


@pytest.mark.slow
def test_training_killed_at_random_moments_ends_as_undisturbed(full, larger, tmp_path, undisturbed):
    """SIGKILL to `coldbench train`, four times, between any two instructions."""
    longer = full.model_copy(update={"training": full.training.model_copy(update={"max_steps": 100})})
    arguments = words(longer, larger, tmp_path, "--checkpoint-every", "0")

    def newest_step() -> int:
        return max((int(path.stem[5:]) for path in (tmp_path / "work").glob("step-*.pt")), default=-1)

    moment, last = random.Random(0), -1
    for _ in range(4):
        process = Process(coldbench, arguments)
        try:
            deadline = time.monotonic() + 120
            while (step := newest_step()) <= last and process.poll() is None:
                assert time.monotonic() < deadline, "no progress"
                time.sleep(0.01)
            time.sleep(moment.uniform(0, 0.4))
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL, "the training ended before the kill"
        assert step > last
        last = step
    assert not (tmp_path / "model.safetensors").exists()
    process = Process(coldbench, arguments)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    assert_same_training(tmp_path, undisturbed(longer, larger))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_command_saves_and_ends_with_status_75_after_signal(experiment, digits, tmp_path, number):
    endless = Training(max_steps=100_000, batch_size=2, grad_accumulation=1)
    longer = experiment.model_copy(update={"training": endless})
    process = Process(coldbench, words(longer, digits, tmp_path, "--checkpoint-every", "1"))
    try:
        deadline = time.monotonic() + 120
        while len(list((tmp_path / "work").glob("step-*.pt"))) < 2:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == RESUMABLE
    assert f"stopped by {number.name}; finished work is kept" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert len(steps(tmp_path)) == 2


def test_seconds_of_all_jobs_count_and_pauses_do_not(experiment, digits, tmp_path, monkeypatch, after_step):
    clock = [0.0]
    monkeypatch.setattr(loop.time, "monotonic", lambda: clock[0])

    def work(*_):
        clock[0] += 100.0

    two = experiment.model_copy(update={"training": experiment.training.model_copy(update={"max_steps": 2})})
    after_step((1,), work)
    with pytest.raises(Interrupted):
        train(two, digits, tmp_path, stop_after=50.0)
    clock[0] += 10_000.0
    after_step((1,), work)
    train(two, digits, tmp_path)
    assert [json.loads(line)["seconds"] for line in (tmp_path / "model.jsonl").open()] == [100.0, 200.0]


# Losses that are not finite


@pytest.mark.parametrize(
    ("spoiled", "value", "bad", "seconds", "noticed", "saved"),
    [
        ("loss", "nan", (5, 6, 9), 60.0, 6, []),  # the next line of the log
        ("loss", "inf", (5,), -1.0, 5, [3, 4]),  # the next checkpoint
        ("loss", "-inf", (7,), 60.0, 8, [4]),  # the next checkpoint of the archive
        ("loss and signal", "nan", (5,), 60.0, 5, [4]),
        ("gradient", "nan", (5,), -1.0, 5, [3, 4]),
        ("gradient", "inf", (12,), -1.0, 12, [10, 11]),
    ],
)
def test_first_loss_or_gradient_that_is_not_finite_ends_training(
    experiment, digits, tmp_path, monkeypatch, after_step, spoiled, value, bad, seconds, noticed, saved
):
    """The error names the first bad step, also if a later step notices it, and nothing is saved from then on."""
    monkeypatch.setattr(loop, "LOG_LINES", 2 if len(bad) > 1 else 1)
    monkeypatch.setattr(checkpoints, "ARCHIVE_EVERY", 4 if seconds > 0 and len(bad) == 1 else 100)
    last = []

    def spoil(state, loss, grad_norm):
        last.append(state.step)
        if state.step not in bad:
            return None
        if "signal" in spoiled:
            signal.raise_signal(signal.SIGTERM)
        number = torch.full_like(loss, float(value))
        return (loss, number) if spoiled == "gradient" else (number, grad_norm)

    after_step(tuple(range(1, 13)), spoil)
    with pytest.raises(ColdbenchError) as caught:
        train(experiment, digits, tmp_path, checkpoint_every=seconds)
    seed, newest = rng.derive(experiment.seed, "training"), f"step-{saved[-1]:09d}" if saved else "none"
    assert f"not finite at step {bad[0]} (images from {8 * (bad[0] - 1)}, seed {seed}); last good" in str(caught.value)
    assert newest in str(caught.value)
    assert (heartbeat(tmp_path)["state"], heartbeat(tmp_path)["error"]) == ("failed", str(caught.value))
    assert (last[-1], steps(tmp_path)) == (noticed, saved)
    assert not list(tmp_path.glob("model.*"))


# Data that do not fit


def test_data_of_another_name_or_size_are_refused(experiment, digits, larger, tmp_path):
    mixed = experiment.model_copy(update={"degradation": {"name": "animorphosis", "T": 4, "partner": "digits"}})
    photos = experiment.model_copy(update={"dataset": "photos"})
    for tried, prepared, partner in [(experiment, larger, None), (photos, digits, None), (mixed, digits, larger)]:
        with pytest.raises(ColdbenchError, match=r"holds digits at (16|19) pixels, but the experiment uses \w+ at 16"):
            train(tried, prepared, tmp_path, partner)
    assert not (tmp_path / "work").exists()


def test_data_that_are_prepared_again_while_they_are_read_are_refused(experiment, digits, tmp_path, monkeypatch):
    """A model must not name images that it has not seen."""
    prepared = shutil.copytree(digits, tmp_path / "digits")
    read = loop._training_set

    def read_too_late(*arguments: Any) -> loop.TrainingSet:
        images = read(*arguments)
        other = {**data.info(prepared), "hash": "another"}
        data.write_info(prepared, other)
        return images

    monkeypatch.setattr(loop, "_training_set", read_too_late)
    with pytest.raises(ColdbenchError, match="was prepared again while it was read: run again"):
        train(experiment, prepared, tmp_path)
    assert not (tmp_path / "work").exists()


# Options of the device


def test_half_precision_is_near_full_precision(experiment, digits, tmp_path, undisturbed):
    """bf16 on a CPU: nearly the same losses, other bits, and weights in float32."""
    reference = undisturbed(experiment, digits)
    bf16 = experiment.training.model_copy(update={"precision": "bf16"})
    half = train(experiment.model_copy(update={"training": bf16}), digits, tmp_path)
    assert {value.dtype for value in half.values()} == {torch.float32}
    assert not equal(half, weights(reference))
    assert losses(tmp_path) != losses(reference)
    np.testing.assert_allclose(losses(tmp_path), losses(reference), rtol=0.03)
    assert model_file.load_model(tmp_path / "model.safetensors", CPU, 1).provenance["precision"] == "bf16"


def assert_near(folder: Path, reference: Path) -> None:
    """The same training up to rounding."""
    trained = weights(folder)
    assert trained.keys() == weights(reference).keys()
    np.testing.assert_allclose(losses(folder), losses(reference), rtol=1e-4)
    for key, value in weights(reference).items():
        torch.testing.assert_close(trained[key], value, atol=4e-3, rtol=1e-3)


def test_channels_last_changes_results_by_rounding_alone(experiment, digits, tmp_path, undisturbed):
    reference = undisturbed(experiment, digits)
    last = train(experiment, digits, tmp_path, device=DeviceOptions(channels_last=True))
    assert_near(tmp_path, reference)
    assert all(value.is_contiguous() for value in last.values())
    changed, plain = (
        model_file.load_model(folder / "model.safetensors", CPU, 1).provenance for folder in (tmp_path, reference)
    )
    assert plain == {**changed, "channels_last": False}
    assert plain["trained_on"] == provenance(CPU)["device"]
    assert changed.keys() == {"world_size", "precision", "compile", "channels_last", "trained_on"}


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("kind", ["unet_convnext", "unet_ddpm"])
def test_compiling_changes_results_by_rounding_alone(experiment, digits, tmp_path, undisturbed, kind):
    network = Network(name=kind, dim=24, dim_mults=[1, 2], **({"attention": 8} if kind == "unet_ddpm" else {}))
    short = experiment.training.model_copy(update={"max_steps": 6})
    tried = experiment.model_copy(update={"network": network, "training": short})
    train(tried, digits, tmp_path, device=DeviceOptions(compile=True))
    assert_near(tmp_path, undisturbed(tried, digits))


def test_training_may_resume_with_other_device_options(experiment, digits, tmp_path, stop_at, undisturbed):
    stop_at(5, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(experiment, digits, tmp_path, device=DeviceOptions(channels_last=True))
    train(experiment, digits, tmp_path)
    assert_near(tmp_path, undisturbed(experiment, digits))


def test_heartbeat_runs_before_first_step(experiment, digits, tmp_path, after_step):
    beats = []
    after_step((1,), lambda *_: beats.append(heartbeat(tmp_path)))
    train(experiment, digits, tmp_path)
    assert [(beat["state"], beat["step"], beat["pid"]) for beat in beats] == [("running", 0, os.getpid())]
