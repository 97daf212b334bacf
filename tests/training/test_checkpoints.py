"""Checkpoints: which are kept, what damage costs, and which training they belong to."""

from __future__ import annotations

import errno
import gc
import os
import re
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from training_cases import CPU, assert_same_training, steps, train

from coldbench import data
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Network
from coldbench.core.interrupts import Interrupted
from coldbench.models.header import read_header
from coldbench.training import checkpoints

IDENTITY = {"experiment": {"seed": 3}, "data": "abc"}


def save(folder: Path, step: int, **values: Any) -> None:
    checkpoints.save_state(folder, step, {"identity": IDENTITY, "step": step, **values})


def loaded(folder: Path) -> dict[str, Any]:
    state = checkpoints.load_state(folder, CPU, IDENTITY)
    assert state is not None
    return state


@pytest.fixture
def two_states(tmp_path: Path) -> Path:
    """A folder with small states of the steps 1 and 2."""
    for step in (1, 2):
        save(tmp_path, step, x=torch.full((40,), step + 0.5))
    return tmp_path


@pytest.mark.parametrize("fraction", [0.0, 0.3, 0.999])
def test_damaged_checkpoint_costs_one_interval(experiment, digits, tmp_path, stop_at, undisturbed, fraction):
    stop_at(6, signal.SIGTERM)
    with pytest.raises(Interrupted):
        train(experiment, digits, tmp_path, checkpoint_every=-1.0)  # after every step
    newest = checkpoints.newest(tmp_path / "work")
    assert newest is not None
    content = newest.read_bytes()
    newest.write_bytes(content[: int(fraction * len(content))])
    identity = {"experiment": experiment.hash_inputs, "data": data.info(digits)["hash"]}
    state = checkpoints.load_state(newest.parent, CPU, identity)
    assert state is not None
    assert state["step"] == 5
    train(experiment, digits, tmp_path)
    assert_same_training(tmp_path, undisturbed(experiment, digits))


def test_checkpoint_cut_at_any_byte_is_skipped(two_states):
    path = checkpoints.newest(two_states)
    whole = path.read_bytes()
    for cut in range(0, len(whole), 3):
        path.write_bytes(whole[:cut])
        assert loaded(two_states)["step"] == 1, cut
    path.write_bytes(whole)
    assert loaded(two_states)["step"] == 2


def test_checkpoint_with_flipped_bit_is_skipped_or_unharmed(two_states):
    """Padding and unused fields do no harm; a bit of a tensor does."""
    path = checkpoints.newest(two_states)
    whole = path.read_bytes()
    resumed, value = [], torch.full((40,), 2.5).numpy().tobytes()
    inside = range(whole.index(value), whole.index(value) + len(value))
    for place in sorted({*range(0, len(whole), 5), *inside}):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        state = loaded(two_states)
        resumed.append(state["step"])
        assert torch.equal(state["x"], torch.full((40,), state["step"] + 0.5)), place
        assert state["step"] == 1 or place not in inside
    assert resumed.count(1) > len(inside)


def test_checkpoints_of_higher_steps_are_deleted_after_rollback(tmp_path):
    """Otherwise the checkpoint before a damaged one would not be among the two newest."""
    save(tmp_path, 5)
    save(tmp_path, 10)
    (tmp_path / "step-000000010.pt").write_bytes(b"damaged")
    assert loaded(tmp_path)["step"] == 5
    save(tmp_path, 7)
    assert not (tmp_path / "step-000000010.pt").exists()
    (tmp_path / "step-000000007.pt").write_bytes(b"damaged")
    assert loaded(tmp_path)["step"] == 5


def test_training_restarts_if_all_checkpoints_are_damaged(two_states):
    for path in two_states.glob("*.pt"):
        path.write_bytes(path.read_bytes()[:-30])
    assert checkpoints.load_state(two_states, CPU, IDENTITY) is None


@pytest.mark.parametrize("content", [b"", b"step-000000009.pt\n", b"\xf5\x80pdate", b"../elsewhere\n", bytes(30)])
def test_damaged_or_missing_pointer_selects_highest_step(two_states, content):
    (two_states / checkpoints.POINTER).write_bytes(content)
    assert loaded(two_states)["step"] == 2
    (two_states / checkpoints.POINTER).unlink()
    assert loaded(two_states)["step"] == 2


def test_code_in_checkpoint_is_not_executed(two_states):
    class Trap:
        def __reduce__(self):
            return Path.touch, (two_states / "sprung",)

    torch.save({"identity": IDENTITY, "step": 2, "x": Trap()}, checkpoints.newest(two_states))
    assert loaded(two_states)["step"] == 1
    assert not (two_states / "sprung").exists()


@pytest.mark.parametrize(
    ("archive", "seconds", "expected"),
    [(4, -1.0, [4, 8, 11, 12]), (4, 60.0, [4, 8, 12]), (100, -1.0, [11, 12]), (5, 60.0, [5, 10, 12])],
)
def test_two_newest_and_archived_checkpoints_are_kept(
    experiment, digits, tmp_path, monkeypatch, archive, seconds, expected
):
    monkeypatch.setattr(checkpoints, "ARCHIVE_EVERY", archive)
    train(experiment, digits, tmp_path, checkpoint_every=seconds)
    assert steps(tmp_path) == expected
    assert (tmp_path / "work" / checkpoints.POINTER).read_text() == "step-000000012.pt\n"


@pytest.mark.parametrize(
    ("change", "field", "old", "new"),
    [
        ({"seed": 4}, "seed", 3, 4),
        ({"network": Network(dim=8, dim_mults=[1, 2], residual=True)}, "network.residual", False, True),
    ],
)
def test_checkpoints_of_another_experiment_are_refused(experiment, digits, tmp_path, change, field, old, new):
    """The error names the field and both values."""
    with pytest.raises(Interrupted):
        train(experiment, digits, tmp_path, stop_after=0.0)
    refusal = f"belongs to another training: its {field} is {old}, not {new};"
    with pytest.raises(ColdbenchError, match=re.escape(refusal)):
        train(experiment.model_copy(update=change), digits, tmp_path)
    assert steps(tmp_path) == [1]


@pytest.mark.parametrize("changed", ["data", "partner"])
def test_checkpoints_of_other_images_are_kept_aside(experiment, digits, tmp_path, changed):
    """When the images of a data set change, its training begins anew, and the old checkpoints can be copied back."""
    mixed = experiment.model_copy(update={"degradation": {"name": "animorphosis", "T": 4, "partner": "digits"}})
    with pytest.raises(Interrupted):
        train(mixed, digits, tmp_path, digits, stop_after=0.0)
    saved = (tmp_path / "work" / "step-000000001.pt").read_bytes()
    other = tmp_path / "other"
    shutil.copytree(digits, other)
    data.write_info(other, {**data.info(other), "hash": "0123456789ab"})
    prepared, partner = (other if changed == name else digits for name in ("data", "partner"))
    train(mixed, prepared, tmp_path, partner)
    (kept,) = (tmp_path / "work").glob("other-images-*/step-000000001.pt")
    assert kept.read_bytes() == saved
    assert getattr(read_header(tmp_path / "model.safetensors"), changed) == "0123456789ab"


# Disks that are full, read-only or not there


def test_full_disk_leaves_last_checkpoint(experiment, digits, tmp_path, monkeypatch, undisturbed):
    """A write that fails half-way ends in one line, leaves no partial file, and the training resumes."""
    original, calls = torch.save, []

    def save_half(state: dict, path: Path) -> None:
        calls.append(1)
        if len(calls) == 6:
            path.write_bytes(b"half of a checkpoint")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(state, path)

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", save_half)
        with pytest.raises(ColdbenchError, match=r"cannot write .*/work/.*No space left on device"):
            train(experiment, digits, tmp_path, checkpoint_every=-1.0)
    assert steps(tmp_path) == [4, 5]
    train(experiment, digits, tmp_path, checkpoint_every=-1.0)
    assert_same_training(tmp_path, undisturbed(experiment, digits))


@pytest.mark.parametrize("room", [2.5, 2.05, 0.5, 0.0])
def test_training_resumes_when_full_disk_has_room_again(experiment, digits, small_disk, undisturbed, room):
    """A real file system with room for so many checkpoints."""
    reference = undisturbed(experiment, digits)
    size = checkpoints.newest(reference / "work").stat().st_size
    filler = small_disk / "filler"
    filler.write_bytes(bytes(max(0, shutil.disk_usage(small_disk).free - int(room * size))))
    with pytest.raises(ColdbenchError, match=f"cannot write .*{small_disk}") as caught:
        train(experiment, digits, small_disk, checkpoint_every=-1.0)
    assert "\n" not in str(caught.value)
    if (small_disk / "work").exists():
        assert len(steps(small_disk)) == min(2, int(room))
    del caught
    gc.collect()  # the traceback holds the partial file open
    filler.unlink()
    train(experiment, digits, small_disk, checkpoint_every=-1.0)
    assert_same_training(small_disk, reference)


def test_read_only_disk_loses_nothing(experiment, digits, small_disk, undisturbed):
    """The file system turns read-only between two runs, as a failing disk does."""
    with pytest.raises(Interrupted):
        train(experiment, digits, small_disk, stop_after=0.0)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(ColdbenchError, match=f"cannot write .*{small_disk}.*[Rr]ead-only"):
        train(experiment, digits, small_disk)
    subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert steps(small_disk) == [1]
    train(experiment, digits, small_disk)
    assert_same_training(small_disk, undisturbed(experiment, digits))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_folder_without_permission_is_named(experiment, digits, tmp_path):
    (tmp_path / "work").mkdir(mode=0o500)
    with pytest.raises(ColdbenchError, match=re.escape(f"cannot write {tmp_path / 'work'}")):
        train(experiment, digits, tmp_path)


def test_file_in_place_of_folder_is_named(experiment, digits, tmp_path):
    (tmp_path / "work").write_text("")
    with pytest.raises(ColdbenchError, match=re.escape(f"cannot write {tmp_path / 'work'}")):
        train(experiment, digits, tmp_path)
