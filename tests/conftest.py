"""Shared fixtures: the embedded digits, prepared once, and a small experiment."""

import logging
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cases import replace_images, untrained

from coldbench import data
from coldbench.core.experiment import Experiment, Network, Training
from coldbench.core.logs import log

torch.set_num_threads(1)  # the tests run in parallel


@pytest.fixture(autouse=True)
def untouched_log() -> Iterator[None]:
    """The log as it is before a command line sets it up, for each test, so that `caplog` sees every line once.

    pytest attaches its handler to a logger that does not propagate as well as to the root logger.
    """
    log.propagate, log.handlers = True, []
    log.setLevel(logging.NOTSET)
    yield
    log.propagate, log.handlers = True, []
    log.setLevel(logging.NOTSET)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: what is left for the end, where workers share the rest, are short tests."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded digits, prepared at 16 px."""
    folder = tmp_path_factory.mktemp("digits")
    data.prepare("digits", None, 16, folder)
    return folder


@pytest.fixture(scope="session")
def few_digits(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with 24 test images, for what takes long of each."""
    folder = tmp_path_factory.mktemp("few")
    shutil.copytree(digits, folder, dirs_exist_ok=True)
    replace_images(folder, "test", data.load(digits, "test")[:24])
    return folder


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded photographs, prepared at 16 px."""
    folder = tmp_path_factory.mktemp("photos")
    data.prepare("photos", None, 16, folder)
    return folder


@pytest.fixture
def experiment() -> Experiment:
    """A network of 8 channels with a random, quantized degradation, accumulation and both phases of the average."""
    return Experiment(
        name="tiny",
        protocol="test",
        budget="smoke",
        dataset="digits",
        size=16,
        seed=3,
        degradation={
            "name": "inpainting", "T": 4, "std": 1.0, "rate": 0.5, "centre_low": 2, "centre_high": 13,
            "quantized": True,
        },
        network=Network(dim=8, dim_mults=[1, 2]),
        training=Training(
            max_steps=12, batch_size=8, grad_accumulation=2, learning_rate=1e-3,
            ema_decay=0.9, ema_update_every=2, ema_start=4
        ),
    )  # fmt: skip


@pytest.fixture
def model(experiment: Experiment, tmp_path: Path) -> Path:
    """The small experiment's model, untrained."""
    return untrained(tmp_path / "model.safetensors", experiment)
