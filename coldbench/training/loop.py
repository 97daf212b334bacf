"""Training: one function, read from top to bottom (paper, section 3.1; appendix A; protocol 1.5).

min over R of E ‖R(D(x, t), t) − x‖₁ with t uniform on 1…T, by Adam, with an exponential moving average of the weights.
Everything random is a function of the seed and the number of images seen, so a training that was stopped and resumed
ends with the same weights, bit for bit on CPU, as one that was not.
"""

from __future__ import annotations

import functools
import json
import math
import signal
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

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
from coldbench.training import checkpoints, distributed, preview, slurm

LOG_LINES = 200


@dataclass(frozen=True)
class Upkeep:
    """What a training does beside its updates; nothing of it changes the weights."""

    checkpoint_every: float = 60.0  # seconds
    preview_every: int = 0  # updates from one picture of restored test images to the next; 0: none
    stop_after: float | None = None  # seconds


Batch = tuple[Tensor, Tensor, Tensor]
"""x0, what the network is shown of D(x0, t), and t (N,)."""


def training_batch(
    images: npt.NDArray[np.uint8],
    experiment: Experiment,
    degradation: Degradation,
    seed: int,
    first: int,
    count: int,
    device: torch.device,
) -> Batch:
    """The training batch that holds images number first…first+count−1 of the endless, reshuffled sequence."""
    position = torch.arange(first, first + count)
    x0 = preprocessing.training_images(images, experiment.preprocessing, experiment.size, seed, position, device)
    position = position.to(device)
    t = rng.integers(seed, "training severity", position, 1, degradation.T)[:, 0]
    state = degradation.draw(position, seed)
    return x0, network_input(degradation, x0, t, state), t


def optimizer_step(
    network: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    training: Training,
    step: int,
    fabric: Fabric | None = None,
) -> tuple[Tensor, Tensor]:
    """One update from `accumulation` micro-batches, and the moving average's rule; returns loss and gradient norm."""
    optimizer.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    for x0, xt, t in batches:
        last = len(losses) == training.grad_accumulation - 1
        with distributed.quiet(network, fabric, last):
            difference = network(xt, t - 1) - x0
            loss = difference.abs().mean() if training.loss == "l1" else difference.square().mean()
            distributed.backward(loss / training.grad_accumulation, fabric)
        losses.append(loss.detach())
    norm = torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
    optimizer.step()
    if step % training.ema_update_every == 0:
        weight = 1.0 if step < training.ema_start else 1 - training.ema_decay
        with torch.no_grad():
            torch._foreach_lerp_(list(average.values()), list(network.state_dict().values()), weight)
    return distributed.mean(torch.stack(losses).mean(), fabric), norm


def train(
    experiment: Experiment,
    prepared: Path,
    out: Path,
    work: Path,
    device: torch.device,
    partner: Path | None = None,
    options: distributed.Options = distributed.Options(),  # noqa: B008 (frozen)
    upkeep: Upkeep = Upkeep(),
) -> None:
    """Train `experiment` on the prepared data set and write the averaged weights to `out` (safetensors).

    `work` keeps the checkpoints and is no output: a stopped training goes on from there. `partner` is the prepared data
    set of a degradation that mixes in other images. `out` with the suffix .jsonl receives the training log. Raises
    Interrupted, its work saved, when a signal comes or the time is up; ColdbenchError if the loss is not finite, the
    data do not fit, another process is at work in `work`, or its checkpoints are those of another experiment or other
    images.
    """
    training, seed = experiment.training, rng.derive(experiment.seed, "training")
    preprocessing.check_prepared(experiment, prepared, partner)
    images = data.load(prepared, "train")
    degradation = degradations.for_experiment(experiment, partner)
    slurm.refuse_second(work)
    belongs = {"experiment": experiment.hash_inputs, "data": data.info(prepared)["hash"]}
    belongs |= {"partner": data.info(partner)["hash"]} if partner else {}

    fabric = distributed.fabric(device, training.precision)
    offset, count = distributed.share(training.micro_batch, fabric)
    torch.manual_seed(rng.derive(experiment.seed, "weights"))
    plain = models.build(experiment.network, images.shape[1], experiment.size).to(fabric.device).train()
    average = {name: value.clone() for name, value in plain.state_dict().items()}
    adam = torch.optim.Adam(plain.parameters(), lr=training.learning_rate, fused=True)
    done, seconds, lines = 0, 0.0, list[str]()
    state = checkpoints.load_state(work, fabric.device, belongs)
    if state is not None:
        done, seconds, lines = state["done"], state["seconds"], state["lines"]
        plain.load_state_dict(state["network"])
        adam.load_state_dict(state["optimizer"])
        average = state["average"]
        log.info("resuming at step %d of %d", done, training.max_steps)
    network, optimizer = fabric.setup(distributed.prepare(plain, options), adam)
    distributed.lay_out(adam)
    origin = {"world_size": fabric.world_size, "precision": training.precision, **vars(options)}

    def batches() -> Iterator[Batch]:
        for k in range(training.grad_accumulation):
            first = done * training.batch_size + k * training.micro_batch + offset
            torch.manual_seed(rng.derive(seed, f"dropout {first}"))  # what a network draws is no state to be kept
            yield training_batch(images, experiment, degradation, seed, first, count, fabric.device)

    def spent() -> float:
        return seconds + time.monotonic() - began

    def check() -> None:
        if math.isfinite(first := bad.item()):
            at = int(first)
            raise ColdbenchError(
                f"the loss or its gradient is not finite at step {at} "
                f"(images from {(at - 1) * training.batch_size}, seed {seed}); "
                f"last good checkpoint: {checkpoints.newest(work) or 'none'}"
            )

    def save() -> None:
        check()
        if fabric.is_global_zero:
            kept = {"done": done, "seconds": spent(), "lines": lines, "average": average, "belongs": belongs}
            kept |= {"network": plain.state_dict(), "optimizer": adam.state_dict()}
            checkpoints.save_state(work, done, kept)
        fabric.barrier()

    def alive(state: str, error: str = "") -> None:
        if fabric.is_global_zero:
            rate = ticker.rate(done)
            left = (training.max_steps - done) * training.batch_size / rate if rate else None
            facts = {"step": done, "max_steps": training.max_steps, "images_per_second": rate, "seconds_left": left}
            slurm.sign_of_life(work, state, **facts, error=error)

    began = saved = time.monotonic()
    ticker = Ticker(training.max_steps, "step", training.batch_size, start=done)
    log_every = max(1, training.max_steps // LOG_LINES)
    bad = torch.full((), math.inf, device=fabric.device)  # the first update whose loss or gradient was not finite
    if fabric.is_global_zero:
        with slurm.alone(work):  # of several that started in one instant, and were let in above, one goes on
            slurm.refuse_second(work)
            alive("running")
    with stoppable(upkeep.stop_after) as stop, slurm.last_words(functools.partial(alive, "failed")):
        while done < training.max_steps:
            loss, norm = optimizer_step(network, average, optimizer, batches(), training, done, fabric)
            done += 1
            bad = torch.where(loss.isfinite() & norm.isfinite(), bad, bad.clamp(max=float(done)))
            if done % log_every == 0 or done == training.max_steps:
                check()
                values = {"step": done, "images": done * training.batch_size, "loss": loss.item()}
                speed = {"images_per_second": round(ticker.rate(done), 1), "seconds": round(spent(), 1)}
                memory = {"memory_gb": round(distributed.memory(fabric.device), 2)}
                lines.append(json.dumps({**values, "grad_norm": norm.item(), **speed, **memory}))
            if fabric.is_global_zero and ticker.due(done):
                used = f"{distributed.memory(fabric.device):.1f} GB"
                ticker.tick(done, f"loss {loss.item():.4f} · grad {norm.item():.2g} · {used}")
                alive("running")
            if upkeep.preview_every and done % upkeep.preview_every == 0 and fabric.is_global_zero:
                preview.draw(work / f"preview-{done:09d}.png", plain, average, experiment, degradation, prepared)
            due = fabric.is_global_zero and time.monotonic() - saved >= upkeep.checkpoint_every
            signalled, late, saving = distributed.any_of([stop.signalled, stop.late, due], fabric)
            stopping = (signalled or late) and done < training.max_steps
            if stopping or saving or done % checkpoints.ARCHIVE_EVERY == 0:
                save()
                saved = time.monotonic()
            if stopping:
                alive("stopped")
                raise Interrupted((stop.number or signal.SIGTERM) if signalled else None)
        save()
    if fabric.is_global_zero:
        write_text(out.with_suffix(".jsonl"), "\n".join(lines) + "\n")
        model_file.save_model(out, average, experiment, {**origin, "trained_on": provenance(fabric.device)["device"]})
    fabric.barrier()
