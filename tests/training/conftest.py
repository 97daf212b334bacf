"""Fixtures of the tests of training."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from training_cases import train

from coldbench import data
from coldbench.core.experiment import Experiment, Network, Preprocessing
from coldbench.training import loop

Undisturbed = Callable[[Experiment, Path], Path]


@pytest.fixture(scope="session")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits prepared at 19 px, to be cut to 16."""
    folder = tmp_path_factory.mktemp("digits19")
    data.prepare("digits", None, 19, folder)
    return folder


@pytest.fixture
def full(experiment: Experiment) -> Experiment:
    """Everything that draws random numbers: dropout, crops, flips, masks; two micro-batches a step."""
    network = Network(name="unet_ddpm", dim=8, dim_mults=[1, 2], dropout=0.2, attention=8)
    preprocessing = Preprocessing(resize=19, pad=1, flip=True)
    return experiment.model_copy(update={"network": network, "preprocessing": preprocessing})


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    """The folder of an experiment that was trained without a stop, once for all tests."""
    folders: dict[tuple[str, Path], Path] = {}

    def trained(experiment: Experiment, prepared: Path) -> Path:
        key = (experiment.fingerprint, prepared)
        if key not in folders:
            folders[key] = tmp_path_factory.mktemp("undisturbed")
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(loop, "optimizer_step", OPTIMIZER_STEP)
                patch.delenv("SLURM_JOB_ID", raising=False)
                train(experiment, prepared, folders[key])
        return folders[key]

    return trained


OPTIMIZER_STEP = loop.optimizer_step


@pytest.fixture
def after_step(monkeypatch: pytest.MonkeyPatch):
    """A function that calls `action(state, loss, grad_norm)` after the steps of the next training in `numbers`.

    The action may return another (loss, grad_norm).
    """

    def arm(numbers: tuple[int, ...], action: Callable[..., Any]) -> None:
        calls: list[int] = []

        def step(state: loop.TrainingState, *args: Any) -> Any:
            result = OPTIMIZER_STEP(state, *args)
            calls.append(1)
            return (action(state, *result) or result) if len(calls) in numbers else result

        monkeypatch.setattr(loop, "optimizer_step", step)

    return arm


@pytest.fixture
def stop_at(after_step):
    """A function that sends this process a signal after step `n` of the next training."""
    return lambda n, number: after_step((n,), lambda *_: signal.raise_signal(number))


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
