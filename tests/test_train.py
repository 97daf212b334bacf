"""Training: what decides the result, and what must not (interruption, damage, order of files)."""

import json
import signal
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from coldbench import checkpoint, data, degradations, train
from coldbench.errors import ColdbenchError
from coldbench.experiment import Experiment, Training
from coldbench.images import from_uint8
from coldbench.progress import RESUMABLE, Interrupted

CPU = torch.device("cpu")


def run(experiment: Experiment, digits: Path, folder: Path) -> dict[str, torch.Tensor]:
    train.train(experiment, digits, folder / "model.safetensors", folder / "work", CPU)
    return safetensors.torch.load_file(folder / "model.safetensors")


def log(folder: Path) -> list[dict[str, float]]:
    """The training log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "model.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_second", "seconds")} for line in lines]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """A function that lets the process receive a signal right after update number n."""

    def arm(n: int, number: int) -> None:
        original, calls = train.update, []

        def update(*args, **kwargs):
            result = original(*args, **kwargs)
            calls.append(1)
            if len(calls) == n:
                signal.raise_signal(number)
            return result

        monkeypatch.setattr(train, "update", update)

    return arm


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, RESUMABLE)])
def test_a_stopped_training_ends_as_an_undisturbed_one(experiment, digits, tmp_path, stop_at, number, status):
    undisturbed = run(experiment, digits, tmp_path / "a")
    stop_at(5, number)
    with pytest.raises(Interrupted) as stopped:
        run(experiment, digits, tmp_path / "b")
    assert stopped.value.status == status
    assert not (tmp_path / "b" / "model.safetensors").exists()
    assert equal(run(experiment, digits, tmp_path / "b"), undisturbed)
    assert log(tmp_path / "b") == log(tmp_path / "a")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.999])
def test_a_damaged_checkpoint_costs_one_interval(experiment, digits, tmp_path, monkeypatch, stop_at, share):
    undisturbed = run(experiment, digits, tmp_path / "a")
    monkeypatch.setattr(train, "CHECKPOINT_SECONDS", -1.0)  # after every update
    stop_at(6, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(experiment, digits, tmp_path / "b")
    newest = tmp_path / "b" / "work" / experiment.fingerprint / checkpoint.NEWEST
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content))])
    state = checkpoint.load_state(newest.parent, CPU)
    assert state is not None
    assert state["done"] == 5
    assert equal(run(experiment, digits, tmp_path / "b"), undisturbed)


def test_another_configuration_does_not_resume_from_these_checkpoints(experiment, digits, tmp_path, stop_at):
    other = experiment.model_copy(update={"seed": 4})
    undisturbed = run(other, digits, tmp_path / "a")
    stop_at(5, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(experiment, digits, tmp_path / "b")
    assert equal(run(other, digits, tmp_path / "b"), undisturbed)


def test_the_seed_decides_and_accumulation_does_not(experiment, digits, tmp_path):
    first = run(experiment, digits, tmp_path / "a")
    assert equal(first, run(experiment, digits, tmp_path / "b"))
    assert not equal(first, run(experiment.model_copy(update={"seed": 4}), digits, tmp_path / "c"))
    whole = experiment.training.model_copy(update={"accumulation": 1})
    at_once = run(experiment.model_copy(update={"training": whole}), digits, tmp_path / "d")
    for key, value in first.items():  # the same images and draws, summed in another order
        torch.testing.assert_close(at_once[key], value, atol=2e-4, rtol=1e-3)


def test_every_image_is_seen_once_an_epoch(experiment, digits):
    images = np.arange(23, dtype=np.uint8).reshape(23, 1, 1, 1).repeat(16, 2).repeat(16, 3)
    degradation = degradations.build(experiment.degradation, 16)
    batches = [train.training_batch(images, degradation, 7, first, 6, CPU) for first in range(0, 3 * 23 - 3, 6)]
    seen = ((torch.cat([x0 for x0, _, _ in batches])[:, 0, 0, 0] + 1) / 2 * 255).round().int().tolist()
    orders = [seen[i : i + 23] for i in (0, 23)]
    assert [sorted(order) for order in orders] == [list(range(23))] * 2
    assert orders[0] != orders[1]
    severities = torch.cat([t for _, _, t in batches])
    assert set(severities.tolist()) == set(range(1, degradation.T + 1))


def test_it_learns(experiment, digits, tmp_path):
    """Four hundred updates restore a masked digit better than leaving it as it is."""
    longer = Training(updates=400, total_batch=16, accumulation=1, learning_rate=3e-3, ema_every=1, ema_start=200)
    run(experiment.model_copy(update={"training": longer}), digits, tmp_path)
    network, trained = checkpoint.load_model(tmp_path / "model.safetensors", 1, CPU)
    degradation = degradations.build(trained.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")), CPU)
    t = torch.full((len(x0),), degradation.T)
    xt = degradation(x0, t, degradation.draw(torch.arange(len(x0)), 99))
    with torch.inference_mode():
        restored = network(xt, t - 1)
    assert (restored - x0).abs().mean() < 0.7 * (xt - x0).abs().mean()


def test_a_loss_that_is_not_finite_ends_the_training(experiment, digits, tmp_path):
    wild = experiment.training.model_copy(update={"learning_rate": 0.99, "updates": 200})
    poisoned = experiment.model_copy(update={"training": wild})

    def explode(*args, **kwargs):
        return torch.tensor(float("nan")), torch.tensor(1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "update", explode)
        with pytest.raises(ColdbenchError, match=r"loss is nan at update 1 .*last good checkpoint"):
            run(poisoned, digits, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.pt"))


def test_a_model_file_tells_what_it_is_and_refuses_what_it_is_not(experiment, digits, tmp_path):
    run(experiment, digits, tmp_path)
    path = tmp_path / "model.safetensors"
    assert checkpoint.load_model(path, 1, CPU)[1] == experiment
    with pytest.raises(ColdbenchError, match="does not fit its network"):
        checkpoint.load_model(path, 3, CPU)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ColdbenchError, match="cannot read model"):
        checkpoint.load_model(path, 1, CPU)
