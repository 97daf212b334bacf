"""What the tests of training share: run one, and read what it leaves behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from cases import run_file

from coldbench.core.experiment import Experiment
from coldbench.training import checkpoints, loop, slurm

CPU = torch.device("cpu")
CLOCKS = ("images_per_second", "seconds", "memory_gb")


def paths(prepared: Path, folder: Path, partner: Path | None = None) -> loop.TrainingPaths:
    return loop.TrainingPaths(prepared, folder / "model.safetensors", folder / "work", partner)


def train(
    experiment: Experiment,
    prepared: Path,
    folder: Path,
    partner: Path | None = None,
    device: loop.DeviceOptions = loop.DeviceOptions(),  # noqa: B008 (frozen)
    **options: Any,
) -> dict[str, torch.Tensor]:
    """Train in `folder` on the CPU with these loop options; the averaged weights."""
    loop.train(experiment, paths(prepared, folder, partner), CPU, loop.LoopOptions(**options), device)
    return weights(folder)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def words(experiment: Experiment, prepared: Path, folder: Path, *more: str) -> list[str]:
    """The arguments of the same training by `coldbench train`."""
    files = paths(prepared, folder)
    command = ["train", str(run_file(folder, experiment)), "--data", str(prepared), "--device", "cpu"]
    return [*command, "--threads", "1", "--out", str(files.model), "--checkpoint-dir", str(files.checkpoints), *more]


def without_clocks(lines: list[str]) -> list[dict[str, float]]:
    return [{key: value for key, value in json.loads(line).items() if key not in CLOCKS} for line in lines]


def log(folder: Path) -> list[dict[str, float]]:
    """The training log without what depends on the clock."""
    return without_clocks((folder / "model.jsonl").read_text().splitlines())


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in log(folder)]


def steps(folder: Path) -> list[int]:
    """The steps of the checkpoints. No other file may be left but those that every training has."""
    others = {checkpoints.POINTER, slurm.HEARTBEAT, slurm.LOCK, "train.log"}
    names = {path.name for path in (folder / "work").iterdir()} - others
    assert all(checkpoints.CHECKPOINT.fullmatch(name) for name in names), names
    return sorted(int(name[5:-3]) for name in names)


def heartbeat(folder: Path) -> dict[str, Any]:
    beat: dict[str, Any] = json.loads((folder / "work" / slurm.HEARTBEAT).read_text())
    return beat


def state(folder: Path) -> dict[str, Any]:
    """The newest checkpoint without what depends on the clock."""
    path = checkpoints.newest(folder / "work")
    assert path is not None
    saved: dict[str, Any] = torch.load(path, weights_only=True)
    saved["log_lines"] = without_clocks(saved["log_lines"])
    del saved["seconds"]
    return saved


def equal(a: object, b: object) -> bool:
    """Whether two nested values are equal in every bit."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


def assert_same_training(folder: Path, reference: Path) -> None:
    """Weights, EMA, optimizer, log and model file are those of the reference, bit for bit."""
    assert equal(state(folder), state(reference))
    assert log(folder) == log(reference)
    assert (folder / "model.safetensors").read_bytes() == (reference / "model.safetensors").read_bytes()
