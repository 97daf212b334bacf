"""The training loop (paper, section 3.1; appendix A; protocol 1.5).

A network R learns min over R of E‖R(D(x, t), t) − x‖₁, with t uniform on 1…T, by Adam. An exponential moving average
(EMA) of its weights is the result. Everything random is a function of the seed and the number of images seen. A stopped
and resumed training therefore ends with the weights of an undisturbed one, bit for bit on a CPU.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from coldbench import data, degradations, models
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Training
from coldbench.core.files import write_text
from coldbench.core.interrupts import Interrupted, stoppable
from coldbench.core.logs import Ticker, log
from coldbench.core.provenance import provenance
from coldbench.data import preprocessing
from coldbench.degradations import Degradation, network_input
from coldbench.models import model_file
from coldbench.models.header import snapshot_file
from coldbench.training import checkpoints, distributed, finished, slurm
from coldbench.training.adam import Adam
from coldbench.training.distributed import DeviceOptions

if TYPE_CHECKING:
    from coldbench.training.distributed import Processes

LOG_LINES = 200
"""The number of lines in the training log of a whole training."""


@dataclass(frozen=True)
class TrainingPaths:
    """The files of a training. The training log is written beside `model`, with the suffix .jsonl.

    `prepared` and `partner` are prepared data sets; `partner` holds the images that a degradation mixes in.
    """

    prepared: Path
    model: Path
    checkpoints: Path
    partner: Path | None = None


@dataclass(frozen=True)
class LoopOptions:
    """When a training saves and stops, in seconds. The options do not change the weights."""

    checkpoint_every: float = 60.0
    stop_after: float | None = None


@dataclass
class TrainingState:
    """Everything that a resumed training needs. `step` counts the finished optimizer steps.

    `ema` maps the names of the weights to their averages. `identity` says which experiment and which images the state
    belongs to. `seconds` is the time of all jobs together.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    ema: dict[str, Tensor]
    identity: dict[str, Any] = field(default_factory=dict)
    step: int = 0
    seconds: float = 0.0
    log_lines: list[str] = field(default_factory=list)

    @classmethod
    def initial(cls, network: nn.Module, learning_rate: float, identity: dict[str, Any]) -> TrainingState:
        """The state before the first step, for the paper's optimizer."""
        adam = Adam(network.parameters(), lr=learning_rate, fused=True)
        ema = {name: value.clone() for name, value in network.state_dict().items()}
        return cls(network, adam, ema, identity)

    def state_dict(self) -> dict[str, Any]:
        """The state as a checkpoint holds it."""
        return {**vars(self), "network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Continue from a state that `state_dict` returned."""
        self.network.load_state_dict(saved["network"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.ema, self.step = saved["ema"], saved["step"]
        self.seconds, self.log_lines = saved["seconds"], saved["log_lines"]


@dataclass(frozen=True)
class TrainingSet:
    """An endless sequence of degraded images, reshuffled every epoch. `images` is uint8 (N, C, H, W)."""

    images: npt.NDArray[np.uint8]
    experiment: Experiment
    degradation: Degradation
    seed: int


Batch = tuple[Tensor, Tensor, Tensor]
"""x0, the network's input for D(x0, t), and t. Shapes (N, C, size, size) twice, and (N,)."""


def training_batch(source: TrainingSet, first: int, count: int, device: torch.device) -> Batch:
    """The images number first…first + count − 1 of the endless sequence, on `device`."""
    experiment, degradation, seed = source.experiment, source.degradation, source.seed
    position = torch.arange(first, first + count)
    x0 = preprocessing.training_images(source.images, experiment.preprocessing, experiment.size, seed, position, device)
    position = position.to(device)
    t = rng.integers(seed, "training severity", position, 1, degradation.T)[:, 0]
    return x0, network_input(degradation, x0, t, degradation.draw_for(x0, position, seed)), t


def micro_batches(source: TrainingSet, step: int, local: range, device: torch.device) -> Iterator[Batch]:
    """The micro-batches of step number `step`. `local` selects the images of this process in each of them."""
    training = source.experiment.training
    for k in range(training.grad_accumulation):
        first = step * training.batch_size + k * training.micro_batch + local.start
        torch.manual_seed(rng.derive(source.seed, f"dropout {first}"))  # so that no generator state must be saved
        yield training_batch(source, first, len(local), device)


def optimizer_step(
    state: TrainingState, batches: Iterable[Batch], training: Training, fabric: Processes | None = None
) -> tuple[Tensor, Tensor]:
    """One step of Adam down the gradient of E‖R(D(x, t), t) − x‖₁ (section 3.1), estimated from the micro-batches.

    Returns the loss, the mean over all processes, and the norm of the gradient, both of shape ().
    """
    network, optimizer = state.network, state.optimizer
    optimizer.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    for x0, xt, t in batches:
        last = len(losses) == training.grad_accumulation - 1
        with distributed.no_sync(network, fabric, enabled=not last):
            error = network(xt, t - 1) - x0  # the network counts severities from 0
            loss = error.abs().mean() if training.loss == "l1" else error.square().mean()
            distributed.backward(loss / training.grad_accumulation, fabric)
        losses.append(loss.detach())
    grad_norm = torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
    optimizer.step()
    update_ema(state, training)
    state.step += 1
    return distributed.all_reduce_mean(torch.stack(losses).mean(), fabric), grad_norm


def update_ema(state: TrainingState, training: Training) -> None:
    """The paper's rule (appendix A): every `ema_update_every` steps, and a plain copy before `ema_start`.

    torch's AveragedModel gives the same bits (checked), but it cannot run on the fake tensors of the device tests.
    Whole numbers, such as the count of batches in BatchNorm, are copied.
    """
    if state.step % training.ema_update_every == 0:
        decay = 0.0 if state.step < training.ema_start else training.ema_decay
        weights = state.network.state_dict()
        names = [name for name, weight in weights.items() if weight.is_floating_point()]
        ema_update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        ema_update([state.ema[name] for name in names], [weights[name] for name in names], state.step)
        for name in weights.keys() - set(names):
            state.ema[name].copy_(weights[name])


def train(
    experiment: Experiment,
    paths: TrainingPaths,
    device: torch.device,
    options: LoopOptions = LoopOptions(),
    device_options: DeviceOptions = DeviceOptions(),  # noqa: B008 (frozen)
) -> None:
    """Train `experiment`, resuming from its newest checkpoint, and write the averaged weights and the training log.

    A finished model of this experiment and these images is kept. One of other settings or images is set aside beside
    the new model, and used again when the experiment and the images are its own again.

    Raises Interrupted after saving, if a signal comes or the time is over. Raises ColdbenchError if the loss is not
    finite, the data do not fit, another process trains in the same folder, or the checkpoints belong to another
    training.
    """
    training = experiment.training
    with data.unchanged(paths.prepared, paths.partner):
        source = _training_set(experiment, paths)
        identity = finished.training_identity(experiment, paths.prepared, paths.partner)
    if finished.fits(paths.model, identity):
        finished.keep(paths.model)
        return
    fabric = distributed.launch(device, training.precision)
    local = distributed.local_batch(training.micro_batch, fabric)
    heartbeat = slurm.Heartbeat(paths.checkpoints, training.max_steps)
    with distributed.in_first_process(_own_folder(heartbeat, paths.model, identity), fabric):
        if finished.fits(paths.model, identity):  # it was set aside
            return
        torch.manual_seed(rng.derive(experiment.seed, "weights"))
        network = models.build(experiment.network, source.images.shape[1], experiment.size)
        state = TrainingState.initial(network.to(fabric.device).train(), training.learning_rate, identity)
        saved = checkpoints.load_state(paths.checkpoints, fabric.device, identity)
        if saved is not None:
            state.load_state_dict(saved)
            log.info("resuming at step %d of %d", state.step, training.max_steps)
        network = distributed.prepare(network, device_options)
        distributed.match_memory_format(network, state.optimizer, state.ema)
        state.network, state.optimizer = fabric.setup(network, state.optimizer)
        monitor = Monitor(state, source.seed, training, heartbeat, fabric)
        last_save = time.monotonic()

        with stoppable(options.stop_after) as stop:
            while state.step < training.max_steps:
                batches = micro_batches(source, state.step, local, fabric.device)
                loss, grad_norm = optimizer_step(state, batches, training, fabric)
                monitor.observe(loss, grad_norm)
                if state.step in training.snapshots:
                    monitor.check()
                    kept = snapshot_file(paths.model, state.step)
                    _save(kept, state, experiment.at(state.step), paths, source, fabric, device_options)

                is_last = state.step == training.max_steps
                save_due = fabric.is_global_zero and time.monotonic() - last_save >= options.checkpoint_every
                flags = [stop.signalled, stop.time_is_up, save_due]
                signalled, late, save_due = distributed.all_reduce_any(flags, fabric)
                stopping = (signalled or late) and not is_last
                if save_due or stopping or is_last or state.step % checkpoints.ARCHIVE_EVERY == 0:
                    monitor.check()
                    if fabric.is_global_zero:
                        checkpoints.save_state(paths.checkpoints, state.step, state.state_dict())
                    fabric.barrier()
                    last_save = time.monotonic()
                if stopping:
                    monitor.beat("stopped")
                    raise Interrupted((stop.number or signal.SIGTERM) if signalled else None)

        _save(paths.model, state, experiment, paths, source, fabric, device_options)
        fabric.barrier()


def _save(
    model: Path,
    state: TrainingState,
    experiment: Experiment,
    paths: TrainingPaths,
    source: TrainingSet,
    fabric: Processes,
    options: DeviceOptions,
) -> None:
    """Write the averaged weights as the finished model of `experiment`, and the training log beside it."""
    if not fabric.is_global_zero:
        return
    device_name = provenance(fabric.device)["device"]
    origin = {"world_size": fabric.world_size, "precision": experiment.training.precision, "trained_on": device_name}
    identity = finished.training_identity(experiment, paths.prepared, paths.partner)
    model_file.set_aside(model)
    write_text(model_file.log_of(model), "\n".join(state.log_lines) + "\n")
    channels = source.images.shape[1]
    model_file.save_model(model, state.ema, experiment, channels, {**origin, **vars(options)}, identity)


def _training_set(experiment: Experiment, paths: TrainingPaths) -> TrainingSet:
    """The training images and their degradation; ColdbenchError if the prepared data are not the experiment's."""
    preprocessing.check_prepared(experiment, paths.prepared, paths.partner)
    degradation = degradations.for_experiment(experiment, paths.partner)
    seed = rng.derive(experiment.seed, "training")
    return TrainingSet(data.load(paths.prepared, "train"), experiment, degradation, seed)


@contextlib.contextmanager
def _own_folder(heartbeat: slurm.Heartbeat, model: Path, identity: dict[str, Any]) -> Iterator[None]:
    """Hold the lock of the folder of checkpoints, in which none of other images are left.

    A finished model of this identity that was set aside is in its place again.
    """
    with slurm.run_lock(heartbeat):
        checkpoints.set_aside(heartbeat.folder, identity)
        finished.take_back(model, identity)
        yield


class Monitor:
    """Reports a training, and ends it when a loss or a gradient is not finite.

    Values are read from the device only when they are reported or saved, because reading waits for the device.
    """

    def __init__(
        self, state: TrainingState, seed: int, training: Training, heartbeat: slurm.Heartbeat, fabric: Processes
    ) -> None:
        self.state, self.seed, self.training, self.heartbeat, self.fabric = state, seed, training, heartbeat, fabric
        self.start = time.monotonic() - state.seconds
        self.ticker = Ticker(training.max_steps, "step", training.batch_size, start=state.step)
        self.log_every = max(1, training.max_steps // LOG_LINES)
        self.first_bad_step = torch.full((), math.inf, device=fabric.device)

    def observe(self, loss: Tensor, grad_norm: Tensor) -> None:
        """Enter the step that has just ended into the training log, the status line and the heartbeat, when due."""
        step = self.state.step
        finite = loss.isfinite() & grad_norm.isfinite()
        self.first_bad_step = torch.where(finite, self.first_bad_step, self.first_bad_step.clamp(max=float(step)))
        if step % self.log_every == 0 or step == self.training.max_steps:
            self.check()
            self.state.log_lines.append(self._log_line(loss.item(), grad_norm.item()))
        if self.fabric.is_global_zero and self.ticker.due(step):
            memory = distributed.peak_memory(self.fabric.device)
            self.ticker.tick(step, f"loss {loss.item():.4f} · grad {grad_norm.item():.2g} · {memory:.1f} GB")
            self.beat("running")

    def check(self) -> None:
        """Wait for the device and count the time. ColdbenchError if a loss or a gradient so far was not finite."""
        first = self.first_bad_step.item()
        self.state.seconds = time.monotonic() - self.start
        if math.isfinite(first):
            images = (int(first) - 1) * self.training.batch_size
            raise ColdbenchError(
                f"the loss or its gradient is not finite at step {int(first)} "
                f"(images from {images}, seed {self.seed}); "
                f"last good checkpoint: {checkpoints.newest(self.heartbeat.folder) or 'none'}"
            )

    def beat(self, status: Literal["running", "stopped"]) -> None:
        """Write the heartbeat. Only the first process does."""
        if self.fabric.is_global_zero:
            step, rate = self.state.step, self.ticker.rate(self.state.step)
            images_left = (self.training.max_steps - step) * self.training.batch_size
            self.heartbeat.step, self.heartbeat.images_per_second = step, rate
            self.heartbeat.seconds_left = images_left / rate if rate else None
            self.heartbeat.write(status)

    def _log_line(self, loss: float, grad_norm: float) -> str:
        step, memory = self.state.step, distributed.peak_memory(self.fabric.device)
        values = {"step": step, "images": step * self.training.batch_size, "loss": loss, "grad_norm": grad_norm}
        speed = {"images_per_second": round(self.ticker.rate(step), 1), "seconds": round(self.state.seconds, 1)}
        return json.dumps({**values, **speed, "memory_gb": round(memory, 2)})
