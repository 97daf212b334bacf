"""Training: what decides the result, and what must not (interruption, damage, order of files)."""

import errno
import gc
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from coldbench import data, degradations
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Network, Preprocessing, Training
from coldbench.core.images import from_uint8
from coldbench.core.interrupts import RESUMABLE, Interrupted
from coldbench.data import preprocessing
from coldbench.degradations import initial_xt
from coldbench.models import model_file
from coldbench.training import checkpoints, distributed, loop, slurm

CPU = torch.device("cpu")


UPKEEP: dict[str, Any] = {}
"""What a test changes of a training's upkeep."""


def run(experiment: Experiment, digits: Path, folder: Path, **options: Any) -> dict[str, torch.Tensor]:
    loop.train(
        experiment, digits, folder / "model.safetensors", folder / "work", CPU, upkeep=loop.Upkeep(**UPKEEP), **options
    )
    return safetensors.torch.load_file(folder / "model.safetensors")


def log(folder: Path) -> list[dict[str, float]]:
    """The training log without what depends on the clock."""
    lines = [json.loads(line) for line in (folder / "model.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("images_per_second", "seconds", "memory_gb")} for line in lines]


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def kept(folder: Path) -> list[int]:
    """The updates whose checkpoints are there; nothing else may be but what tells of them."""
    others = {checkpoints.POINTER, slurm.SIGN_OF_LIFE, slurm.LOCK, "train.log"}
    names = {path.name for path in (folder / "work").iterdir()} - others
    assert all(name.startswith("step-") and name.endswith(".pt") for name in names), names
    return sorted(int(name[7:-3]) for name in names)


def state(folder: Path) -> dict:
    """The newest checkpoint without what depends on the clock."""
    path = checkpoints.newest(folder / "work")
    assert path is not None
    found = torch.load(path, weights_only=True)
    clocks = ("images_per_second", "seconds", "memory_gb")
    found["lines"] = [{k: v for k, v in json.loads(x).items() if k not in clocks} for x in found["lines"]]
    del found["seconds"]
    return found


def same(a: object, b: object) -> bool:
    """Whether two states are equal in every bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


@pytest.fixture
def larger(tmp_path: Path) -> Path:
    """The embedded digits prepared at 19 px, to be cut to 16."""
    data.prepare("digits", None, 19, tmp_path / "digits19")
    return tmp_path / "digits19"


@pytest.fixture
def full(experiment: Experiment) -> Experiment:
    """All that draws random numbers at once: dropout, windows, flips, masks; two micro-batches an update."""
    network = Network(name="unet_ddpm", dim=8, dim_mults=[1, 2], dropout=0.2, attention=8)
    preprocessing = Preprocessing(resize=19, pad=1, flip=True)
    return experiment.model_copy(update={"network": network, "preprocessing": preprocessing})


@pytest.fixture
def stop_at(monkeypatch: pytest.MonkeyPatch):
    """A function that lets the process receive a signal right after update number n."""

    def arm(n: int, number: int) -> None:
        original, calls = loop.optimizer_step, []

        def update(*args, **kwargs):
            result = original(*args, **kwargs)
            calls.append(1)
            if len(calls) == n:
                signal.raise_signal(number)
            return result

        monkeypatch.setattr(loop, "optimizer_step", update)

    return arm


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, RESUMABLE), (signal.SIGUSR1, RESUMABLE)]
)
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
    monkeypatch.setitem(UPKEEP, "checkpoint_every", -1.0)  # after every update
    stop_at(6, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(experiment, digits, tmp_path / "b")
    newest = checkpoints.newest(tmp_path / "b" / "work")
    assert newest is not None
    content = newest.read_bytes()
    newest.write_bytes(content[: int(share * len(content))])
    belongs = {"experiment": experiment.hash_inputs, "data": data.info(digits)["hash"]}
    state = checkpoints.load_state(newest.parent, CPU, belongs)
    assert state is not None
    assert state["done"] == 5
    assert equal(run(experiment, digits, tmp_path / "b"), undisturbed)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"seed": 4}, "seed is 3 there and 4 here"),
        ({"network": Network(dim=8, dim_mults=[1, 2], residual=True)}, "network.residual is False there and True here"),
    ],
)
def test_another_configuration_is_refused_by_these_checkpoints(experiment, digits, tmp_path, stop_at, change, told):
    stop_at(5, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(experiment, digits, tmp_path)
    with pytest.raises(ColdbenchError, match=f"belongs to another training: {told}"):
        run(experiment.model_copy(update=change), digits, tmp_path)


def test_the_seed_decides_and_accumulation_does_not(experiment, digits, tmp_path):
    first = run(experiment, digits, tmp_path / "a")
    assert equal(first, run(experiment, digits, tmp_path / "b"))
    assert not equal(first, run(experiment.model_copy(update={"seed": 4}), digits, tmp_path / "c"))
    whole = experiment.training.model_copy(update={"grad_accumulation": 1})
    at_once = run(experiment.model_copy(update={"training": whole}), digits, tmp_path / "d")
    for key, value in first.items():  # the same images and draws, summed in another order
        torch.testing.assert_close(at_once[key], value, atol=2e-4, rtol=1e-3)


def test_every_image_is_seen_once_an_epoch(experiment, digits):
    images = np.arange(23, dtype=np.uint8).reshape(23, 1, 1, 1).repeat(16, 2).repeat(16, 3)
    degradation = degradations.build(experiment.degradation, 16)
    firsts = range(0, 3 * 23 - 3, 6)
    batches = [loop.training_batch(images, experiment, degradation, 7, first, 6, CPU) for first in firsts]
    seen = ((torch.cat([x0 for x0, _, _ in batches])[:, 0, 0, 0] + 1) / 2 * 255).round().int().tolist()
    orders = [seen[i : i + 23] for i in (0, 23)]
    assert [sorted(order) for order in orders] == [list(range(23))] * 2
    assert orders[0] != orders[1]
    severities = torch.cat([t for _, _, t in batches])
    assert set(severities.tolist()) == set(range(1, degradation.T + 1))


def test_it_learns(experiment, digits, tmp_path):
    """Four hundred updates restore a masked digit better than leaving it as it is."""
    longer = Training(
        max_steps=400, batch_size=16, grad_accumulation=1, learning_rate=3e-3, ema_update_every=1, ema_start=200
    )
    run(experiment.model_copy(update={"training": longer}), digits, tmp_path)
    loaded = model_file.load_model(tmp_path / "model.safetensors", 1, CPU)
    network, trained = loaded.network, loaded.experiment
    degradation = degradations.build(trained.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")), CPU)
    t = torch.full((len(x0),), degradation.T)
    xt = degradation(x0, t, degradation.draw(torch.arange(len(x0)), 99))
    with torch.inference_mode():
        restored = network(xt, t - 1)
    assert (restored - x0).abs().mean() < 0.7 * (xt - x0).abs().mean()


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch):
    """A function that makes the loss (or the gradient and the weights) of some updates not finite."""

    def arm(*updates: int, value: float = float("nan"), loss: bool = True) -> None:
        original, calls = loop.optimizer_step, []

        def update(network, *args, **kwargs):
            result, norm = original(network, *args, **kwargs)
            calls.append(1)
            if len(calls) in updates:
                if loss:
                    return torch.full_like(result, value), norm
                with torch.no_grad():
                    next(network.parameters()).fill_(value)
                return result, torch.full_like(norm, value)
            return result, norm

        monkeypatch.setattr(loop, "optimizer_step", update)

    return arm


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    ("lines", "seconds", "noticed", "left"),
    [(200, 60.0, 5, []), (2, 60.0, 6, []), (1, 60.0, 12, []), (2, -1.0, 5, [3, 4]), (1, -1.0, 5, [3, 4])],
)
def test_the_first_loss_that_is_not_finite_is_named(
    experiment, digits, tmp_path, monkeypatch, spoil, value, lines, seconds, noticed, left
):
    """It is the first, even if it is noticed at a later log line and the losses behind it are finite again or not."""
    monkeypatch.setattr(loop, "LOG_LINES", lines)
    monkeypatch.setitem(UPKEEP, "checkpoint_every", seconds)
    seen = []
    batch = loop.training_batch
    monkeypatch.setattr(loop, "training_batch", lambda *args: seen.append(1) or batch(*args))
    spoil(5, 6, 9, value=value)
    seed = rng.derive(experiment.seed, "training")
    newest = f"step-{left[-1]:09d}" if left else "none"
    with pytest.raises(ColdbenchError) as told:
        run(experiment, digits, tmp_path)
    assert f"the loss or its gradient is not finite at step 5 (images from 32, seed {seed}); last good" in str(
        told.value
    )
    assert newest in str(told.value)
    last = json.loads((tmp_path / "work" / slurm.SIGN_OF_LIFE).read_text())
    assert (last["state"], last["error"]) == ("failed", str(told.value))
    assert len(seen) == 2 * noticed
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.jsonl"))
    assert [int(path.stem[7:]) for path in sorted(tmp_path.rglob("*.pt"))] == left


@pytest.mark.parametrize("how", ["signal", "archive", "end"])
def test_nothing_of_a_bad_update_is_saved(experiment, digits, tmp_path, monkeypatch, spoil, stop_at, how):
    """Not by the checkpoint at a signal, nor by one for the archive, nor at the end."""
    monkeypatch.setattr(loop, "LOG_LINES", 1)
    at = {"signal": 5, "archive": 7, "end": 12}[how]
    spoil(at)
    if how == "signal":
        stop_at(6, signal.SIGTERM)
    if how == "archive":
        monkeypatch.setattr(checkpoints, "ARCHIVE_EVERY", 4)
    with pytest.raises(ColdbenchError, match=f"not finite at step {at} "):
        run(experiment, digits, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert [path.name for path in tmp_path.rglob("*.pt")] == (["step-000000004.pt"] if how == "archive" else [])


@pytest.mark.parametrize("at", [5, 12])
def test_weights_that_are_not_finite_are_never_saved(experiment, digits, tmp_path, monkeypatch, spoil, at):
    """A finite loss whose gradient overflowed: the weights of that very update are bad."""
    monkeypatch.setitem(UPKEEP, "checkpoint_every", -1.0)
    spoil(at, loss=False)
    with pytest.raises(ColdbenchError, match=f"not finite at step {at} "):
        run(experiment, digits, tmp_path)
    assert kept(tmp_path)[-1] == at - 1


def test_a_model_file_tells_what_it_is_and_refuses_what_it_is_not(experiment, digits, tmp_path):
    run(experiment, digits, tmp_path)
    path = tmp_path / "model.safetensors"
    assert model_file.load_model(path, 1, CPU).experiment == experiment
    with pytest.raises(ColdbenchError, match="does not fit its network"):
        model_file.load_model(path, 3, CPU)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ColdbenchError, match="cannot read model"):
        model_file.load_model(path, 1, CPU)


def test_everything_random_survives_a_stop(full, larger, tmp_path, monkeypatch, stop_at):
    """Dropout, windows, flips, accumulation: stopped and resumed, weights, average, optimiser and log are the same."""
    run(full, larger, tmp_path / "a")
    for n in (3, 4, 2):
        with monkeypatch.context() as patch:
            patch.setattr(loop, "optimizer_step", loop.optimizer_step)
            stop_at(n, signal.SIGUSR1)
            with pytest.raises(Interrupted):
                run(full, larger, tmp_path / "b")
    monkeypatch.undo()
    assert kept(tmp_path / "b") == [7, 9]
    run(full, larger, tmp_path / "b")
    assert same(state(tmp_path / "b"), state(tmp_path / "a"))
    assert log(tmp_path / "b") == log(tmp_path / "a")
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()


def test_every_micro_batch_has_its_own_dropout(full, larger, tmp_path, monkeypatch):
    """The generator that dropout draws from is set anew for each micro-batch, to another seed every time."""
    found, batch = [], loop.training_batch
    monkeypatch.setattr(loop, "training_batch", lambda *args: found.append(torch.initial_seed()) or batch(*args))
    run(full, larger, tmp_path)
    assert len(found) == len(set(found)) == 24


DRIVER = """
import sys, torch
torch.set_num_threads(1)
from coldbench import cli
cli.main()
"""


@pytest.mark.slow
def test_killed_at_random_moments_it_ends_as_an_undisturbed_one(full, larger, tmp_path):
    """`coldbench train` killed (SIGKILL) again and again, at moments of no importance: no bit differs at the end."""
    longer = full.model_copy(update={"training": full.training.model_copy(update={"max_steps": 150})})

    def command(folder: Path) -> subprocess.Popen:
        words = ["train", "--experiment", longer.model_dump_json(), "--data", str(larger), "--device", "cpu"]
        words += ["--out", str(folder / "model.safetensors"), "--work", str(folder / "work"), "--checkpoint-every", "0"]
        return subprocess.Popen([sys.executable, "-c", DRIVER, *words], stderr=subprocess.PIPE, text=True)

    draw = random.Random(0)
    reached = [-1]
    for _ in range(4):
        with command(tmp_path / "b") as process:
            until = time.monotonic() + 120
            while (at := newest(tmp_path / "b")) <= reached[-1] and process.poll() is None:
                assert time.monotonic() < until, "no progress"
                time.sleep(0.01)
            time.sleep(draw.uniform(0, 0.4))
            process.kill()
        assert process.returncode == -signal.SIGKILL, "the training was over before it could be killed"
        reached.append(at)
    assert reached == sorted(set(reached))
    assert not (tmp_path / "b" / "model.safetensors").exists()
    with command(tmp_path / "b") as process:
        assert process.wait(timeout=300) == 0, process.stderr.read()
    with command(tmp_path / "a") as process:
        assert process.wait(timeout=300) == 0, process.stderr.read()
    assert same(state(tmp_path / "b"), state(tmp_path / "a"))
    assert log(tmp_path / "b") == log(tmp_path / "a")
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()


def newest(folder: Path) -> int:
    """The newest update of which there is a checkpoint, or −1."""
    return max((int(path.stem[7:]) for path in (folder / "work").glob("step-*.pt")), default=-1)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_command_ends_with_status_75(experiment, digits, tmp_path, number):
    """A signal to the command: the status that means "run it again", one line, and a checkpoint."""
    longer = experiment.model_copy(update={"training": Training(max_steps=100_000, batch_size=2, grad_accumulation=1)})
    words = ["train", "--experiment", longer.model_dump_json(), "--data", str(digits), "--device", "cpu"]
    words += ["--out", str(tmp_path / "model.safetensors"), "--work", str(tmp_path / "work"), "--checkpoint-every", "1"]
    with subprocess.Popen([sys.executable, "-c", DRIVER, *words], stderr=subprocess.PIPE, text=True) as process:
        try:
            until = time.monotonic() + 120
            while len(list((tmp_path / "work").glob("step-*.pt"))) < 2:
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.05)
            process.send_signal(number)
            assert process.wait(timeout=60) == RESUMABLE
        finally:
            process.kill()
        told = process.stderr.read()
    assert f"stopped by {number.name}; finished work is kept" in told.splitlines()[-1]
    assert "Traceback" not in told
    assert len(kept(tmp_path)) == 2


@pytest.fixture
def two_states(tmp_path: Path) -> tuple[Path, dict]:
    """A folder with two small states, of updates 1 and 2, and what they belong to."""
    belongs = {"experiment": {"seed": 3}, "data": "abc"}
    for done in (1, 2):
        checkpoints.save_state(tmp_path, done, {"belongs": belongs, "done": done, "x": torch.full((40,), done + 0.5)})
    return tmp_path, belongs


def test_a_checkpoint_cut_anywhere_is_noticed(two_states):
    """At every byte: the one before is used, and both are still there."""
    folder, belongs = two_states
    path = checkpoints.newest(folder)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 3):
        path.write_bytes(whole[:cut])
        found = checkpoints.load_state(folder, CPU, belongs)
        assert found is not None
        assert found["done"] == 1, cut
    path.write_bytes(whole)
    assert checkpoints.load_state(folder, CPU, belongs)["done"] == 2


def test_a_flipped_bit_in_a_checkpoint_is_noticed(two_states):
    """At every few bytes: the state is the one before, or (padding, unused fields) this one unharmed."""
    folder, belongs = two_states
    path = checkpoints.newest(folder)
    whole = path.read_bytes()
    used, value = [], torch.full((40,), 2.5).numpy().tobytes()
    inside = range(whole.index(value), whole.index(value) + len(value))
    for place in sorted({*range(0, len(whole), 5), *inside}):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        found = checkpoints.load_state(folder, CPU, belongs)
        assert found is not None
        used.append(found["done"])
        assert torch.equal(found["x"], torch.full((40,), found["done"] + 0.5)), place
        assert found["done"] == 1 or place not in inside
    assert used.count(1) > len(inside)


def test_a_damaged_future_is_no_past(tmp_path):
    """After a damaged newest checkpoint the training goes on from the one before, which must outlive the next one."""
    for done in (5, 10):
        checkpoints.save_state(tmp_path, done, {"belongs": {}, "done": done})
    (tmp_path / "step-000000010.pt").write_bytes(b"damaged")
    assert checkpoints.load_state(tmp_path, CPU, {})["done"] == 5
    checkpoints.save_state(tmp_path, 7, {"belongs": {}, "done": 7})
    (tmp_path / "step-000000007.pt").write_bytes(b"damaged")
    assert checkpoints.load_state(tmp_path, CPU, {})["done"] == 5


def test_two_damaged_checkpoints_begin_anew(two_states, caplog):
    folder, belongs = two_states
    for path in folder.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:-30])
    with caplog.at_level("WARNING", logger="coldbench"):
        assert checkpoints.load_state(folder, CPU, belongs) is None


@pytest.mark.parametrize("content", [b"", b"step-000000009.pt\n", b"\xf5\x80pdate", b"../elsewhere\n", bytes(30)])
def test_a_damaged_pointer_leaves_the_newest(two_states, content):
    """The pointer only helps; without it, or if it is damaged, the names tell the order."""
    folder, belongs = two_states
    (folder / checkpoints.POINTER).write_bytes(content)
    assert checkpoints.load_state(folder, CPU, belongs)["done"] == 2
    (folder / checkpoints.POINTER).unlink()
    assert checkpoints.load_state(folder, CPU, belongs)["done"] == 2


def test_code_in_a_checkpoint_is_not_executed(two_states):
    """A checkpoint with an object that would create a file is damaged, and the one before is used."""
    folder, belongs = two_states

    class Trap:
        def __reduce__(self):
            return Path.touch, (folder / "sprung",)

    torch.save({"belongs": belongs, "done": 2, "x": Trap()}, checkpoints.newest(folder))
    assert checkpoints.load_state(folder, CPU, belongs)["done"] == 1
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize(
    ("archive", "seconds", "expected"),
    [
        (4, -1.0, [4, 8, 11, 12]),
        (4, 60.0, [4, 8, 12]),
        (100, -1.0, [11, 12]),
        (100, 60.0, [12]),
        (5, 60.0, [5, 10, 12]),
    ],
)
def test_which_checkpoints_are_kept(experiment, digits, tmp_path, monkeypatch, archive, seconds, expected):
    """The last two, and those of every so many updates, whatever the clock says."""
    monkeypatch.setattr(checkpoints, "ARCHIVE_EVERY", archive)
    monkeypatch.setitem(UPKEEP, "checkpoint_every", seconds)
    run(experiment, digits, tmp_path)
    assert kept(tmp_path) == expected
    assert (tmp_path / "work" / checkpoints.POINTER).read_text() == "step-000000012.pt\n"


def test_a_full_disk_leaves_the_last_checkpoint(experiment, digits, tmp_path, monkeypatch):
    """The write fails half-way: one line that names the folder, no half-written file, and it goes on from there."""
    undisturbed = run(experiment, digits, tmp_path / "a")
    monkeypatch.setitem(UPKEEP, "checkpoint_every", -1.0)
    original, calls = torch.save, []

    def save(state: dict, path: Path) -> None:
        calls.append(1)
        if len(calls) == 6:
            path.write_bytes(b"half of a checkpoint")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save)
        with pytest.raises(ColdbenchError, match=r"cannot write .*/b/work/.*No space left on device"):
            run(experiment, digits, tmp_path / "b")
    assert kept(tmp_path / "b") == [4, 5]
    assert equal(run(experiment, digits, tmp_path / "b"), undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 8 MB, where one can be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a small file system")
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)], capture_output=True).returncode:
        pytest.skip("no small file system can be mounted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_disk_that_is_really_full(experiment, digits, tmp_path, monkeypatch, small_disk):
    """The same on a file system with room for some checkpoints, or none; and with room again it goes on."""
    undisturbed = run(experiment, digits, tmp_path / "a")
    size = checkpoints.newest(tmp_path / "a" / "work").stat().st_size
    monkeypatch.setitem(UPKEEP, "checkpoint_every", -1.0)
    filler = small_disk / "filler"
    for room in (2.5, 2.05, 1.5, 0.5, 0.0):
        shutil.rmtree(small_disk / "work", ignore_errors=True)
        filler.unlink(missing_ok=True)
        filler.write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - int(room * size))))
        with pytest.raises(ColdbenchError, match=f"cannot write .*{small_disk}") as told:
            run(experiment, digits, small_disk)
        assert "\n" not in str(told.value)
        if (small_disk / "work").exists():
            assert len(kept(small_disk)) == min(2, int(room))
        del told
        gc.collect()  # its traceback holds the half-written file open
        filler.unlink()
        assert equal(run(experiment, digits, small_disk), undisturbed)
        (small_disk / "model.safetensors").unlink()


def test_a_read_only_disk(experiment, digits, tmp_path, monkeypatch, small_disk, stop_at):
    """The file system turns read-only between two runs, as a failing disk does: one line, and nothing is lost."""
    stop_at(5, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(experiment, digits, small_disk)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ColdbenchError, match=f"cannot write .*{small_disk}.*[Rr]ead-only"):
        run(experiment, digits, small_disk)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert kept(small_disk) == [5]
    assert equal(run(experiment, digits, small_disk), run(experiment, digits, tmp_path / "a"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(experiment, digits, tmp_path):
    (tmp_path / "work").mkdir(mode=0o500)
    with pytest.raises(ColdbenchError, match=re.escape(f"cannot write {tmp_path / 'work'}")):
        run(experiment, digits, tmp_path)


def test_a_file_in_the_way(experiment, digits, tmp_path):
    """Where WORK should be stands a file."""
    (tmp_path / "work").write_text("")
    with pytest.raises(ColdbenchError, match=re.escape(f"cannot write {tmp_path / 'work'}")):
        run(experiment, digits, tmp_path)


def test_data_of_another_name_or_size_are_refused(experiment, digits, larger, tmp_path):
    """Also those of a partner, whose images decide the weights as well."""
    mixing = {"name": "animorphosis", "T": 4, "partner": "digits"}
    mixed = experiment.model_copy(update={"degradation": mixing})
    other = experiment.model_copy(update={"dataset": "photos"})
    for wanted, prepared, partner in [(experiment, larger, None), (other, digits, None), (mixed, digits, larger)]:
        with pytest.raises(ColdbenchError, match=r"holds digits at (16|19) pixels, but the experiment is of \w+ at 16"):
            run(wanted, prepared, tmp_path, partner=partner)
    assert not list(tmp_path.rglob("*.pt"))


def test_another_partner_is_refused_by_these_checkpoints(experiment, digits, tmp_path, stop_at):
    mixed = experiment.model_copy(update={"degradation": {"name": "animorphosis", "T": 4, "partner": "digits"}})
    other = tmp_path / "other"
    shutil.copytree(digits, other)
    about = json.loads((other / "info.json").read_text())
    (other / "info.json").write_text(json.dumps({**about, "hash": "0" * 64}))
    stop_at(5, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(mixed, digits, tmp_path, partner=digits)
    with pytest.raises(ColdbenchError, match="belongs to another training: partner is"):
        run(mixed, digits, tmp_path, partner=other)
    run(mixed, digits, tmp_path, partner=digits)


def test_a_training_is_alive_from_its_first_moment(experiment, digits, tmp_path, monkeypatch):
    """A second process must be refused while the first is still at its first update."""
    signs = []
    original = loop.optimizer_step

    def update(*args, **kwargs):
        signs.append(json.loads((tmp_path / "work" / slurm.SIGN_OF_LIFE).read_text()))
        return original(*args, **kwargs)

    monkeypatch.setattr(loop, "optimizer_step", update)
    run(experiment, digits, tmp_path)
    assert (signs[0]["state"], signs[0]["step"], signs[0]["pid"]) == ("running", 0, os.getpid())


def test_other_data_are_refused_by_these_checkpoints(experiment, digits, tmp_path, stop_at):
    """The same experiment with other images: the field is `data`, with both hashes."""
    stop_at(5, signal.SIGTERM)
    with pytest.raises(Interrupted):
        run(experiment, digits, tmp_path)
    other = tmp_path / "other"
    shutil.copytree(digits, other)
    about = json.loads((other / "info.json").read_text())
    (other / "info.json").write_text(json.dumps(about | {"hash": "0123456789ab"}))
    told = f"belongs to another training: data is {about['hash']} there and 0123456789ab here; delete that folder"
    with pytest.raises(ColdbenchError, match=told):
        run(experiment, other, tmp_path)


@pytest.mark.parametrize("kind", ["mask", "dropout"])
def test_previews_are_drawn_and_change_nothing(experiment, full, digits, larger, tmp_path, monkeypatch, kind):
    """A picture every so many updates (degraded, direct, TACoS, original); weights and log are those without."""
    tried, prepared = {"mask": (experiment, digits), "dropout": (full, larger)}[kind]
    run(tried, prepared, tmp_path / "a")
    monkeypatch.setitem(UPKEEP, "preview_every", 5)
    run(tried, prepared, tmp_path / "b")
    names = {path.name for path in (tmp_path / "b" / "work").glob("*.png")}
    assert names == {"preview-000000005.png", "preview-000000010.png"}
    assert same(state(tmp_path / "b"), state(tmp_path / "a"))
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "a" / "model.safetensors").read_bytes()
    assert not list((tmp_path / "a" / "work").glob("*.png"))
    pictures = [np.asarray(Image.open(tmp_path / "b" / "work" / name)) for name in sorted(names)]
    x0 = preprocessing.test_images(data.load(prepared, "test"), 16, slice(8), CPU)
    degradation = degradations.build(tried.degradation, 16)
    xt = initial_xt(degradation, x0, degradation.draw(torch.arange(8), rng.derive(tried.seed, "test")))
    for picture in pictures:
        assert picture.shape == (4 * 16, 8 * 16)
        rows = picture.reshape(4, 16, 8, 16).transpose(0, 2, 1, 3)
        for row, expected in ((0, xt), (3, x0)):
            levels = ((expected[:, 0] + 1) / 2 * 255).clamp(0, 255).round().numpy()
            np.testing.assert_array_equal(rows[row], levels)
        assert not np.array_equal(rows[1], rows[2])
    assert not np.array_equal(pictures[0], pictures[1])


def test_half_precision_is_near_the_full_one(experiment, digits, tmp_path):
    """bf16 runs on a CPU: nearly the same losses, other bits, weights still kept in float32."""
    full = run(experiment, digits, tmp_path / "a")
    mixed = experiment.training.model_copy(update={"precision": "bf16"})
    half = run(experiment.model_copy(update={"training": mixed}), digits, tmp_path / "b")
    assert {value.dtype for value in half.values()} == {torch.float32}
    assert not equal(half, full)
    losses = [[line["loss"] for line in log(tmp_path / name)] for name in ("a", "b")]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(losses[1], losses[0], rtol=0.03)
    model = model_file.load_model(tmp_path / "b" / "model.safetensors", 1, CPU)
    assert model.provenance["precision"] == "bf16"


def test_channels_last_changes_no_result(experiment, digits, tmp_path):
    """Another memory format, the same numbers up to rounding; the model file has the plain format."""
    plain = run(experiment, digits, tmp_path / "a")
    last = run(experiment, digits, tmp_path / "b", options=distributed.Options(channels_last=True))
    for key, value in plain.items():
        torch.testing.assert_close(last[key], value, atol=4e-3, rtol=1e-3)
        assert last[key].is_contiguous()
    losses = [[line["loss"] for line in log(tmp_path / name)] for name in ("a", "b")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    assert model_file.load_model(tmp_path / "b" / "model.safetensors", 1, CPU).provenance["channels_last"] is True
    assert model_file.load_model(tmp_path / "a" / "model.safetensors", 1, CPU).provenance == {
        "world_size": 1, "precision": "fp32", "compile": False, "channels_last": False,
        "trained_on": model_file.load_model(tmp_path / "b" / "model.safetensors", 1, CPU).provenance["trained_on"],
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.parametrize("kind", ["unet_convnext", "unet_ddpm"])
def test_compiling_changes_no_result(experiment, digits, tmp_path, kind):
    """The compiled network trains to the same weights up to rounding, under the same names."""
    network = Network(name=kind, dim=24, dim_mults=[1, 2], attention=8)
    short = experiment.training.model_copy(update={"max_steps": 6})
    tried = experiment.model_copy(update={"network": network, "training": short})
    plain = run(tried, digits, tmp_path / "a")
    compiled = run(tried, digits, tmp_path / "b", options=distributed.Options(compile=True))
    assert compiled.keys() == plain.keys()
    losses = [[line["loss"] for line in log(tmp_path / name)] for name in ("a", "b")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    for key, value in plain.items():
        torch.testing.assert_close(compiled[key], value, atol=4e-3, rtol=1e-3)


def test_the_options_may_change_between_two_runs(experiment, digits, tmp_path, stop_at, monkeypatch):
    """They are no part of the experiment: a training begun in one memory format goes on in the other."""
    plain = run(experiment, digits, tmp_path / "a")
    with monkeypatch.context():
        stop_at(5, signal.SIGTERM)
        with pytest.raises(Interrupted):
            run(experiment, digits, tmp_path / "b", options=distributed.Options(channels_last=True))
    resumed = run(experiment, digits, tmp_path / "b")
    losses = [[line["loss"] for line in log(tmp_path / name)] for name in ("a", "b")]
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
    for key, value in plain.items():
        torch.testing.assert_close(resumed[key], value, atol=4e-3, rtol=1e-3)
