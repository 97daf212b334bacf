"""Training: one function, read from top to bottom (paper, section 3.1; appendix A; protocol 1.5).

min over R of E ‖R(D(x, t), t) − x‖₁ with t uniform on 1…T, by Adam, with an exponential moving average of the weights.
Everything random is a function of the seed and the number of images seen, so a training that was stopped and resumed
ends with the same weights, bit for bit on CPU, as one that was not.
"""

from __future__ import annotations

import functools
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from coldbench import checkpoint, data, degradations, models, seeds
from coldbench.degradations import Degradation, observe
from coldbench.errors import ColdbenchError
from coldbench.experiment import Experiment, Training
from coldbench.files import write_text
from coldbench.images import from_uint8
from coldbench.progress import Ticker, log, stoppable

CHECKPOINT_SECONDS = 60.0
LOG_LINES = 200

Batch = tuple[Tensor, Tensor, Tensor]
"""x0, what the network is shown of D(x0, t), and t (N,)."""


@functools.lru_cache(maxsize=2)
def _order(seed: int, epoch: int, count: int) -> Tensor:
    return seeds.permutation(seed, "training order", epoch, count)


def training_batch(
    images: npt.NDArray[np.uint8], degradation: Degradation, seed: int, first: int, count: int, device: torch.device
) -> Batch:
    """The training batch that holds images number first…first+count−1 of the endless, reshuffled sequence."""
    position = torch.arange(first, first + count)
    epochs, places = position // len(images), position % len(images)
    chosen = torch.empty_like(position)
    for epoch in set(epochs.tolist()):
        here = epochs == epoch
        chosen[here] = _order(seed, epoch, len(images))[places[here]]
    position = position.to(device)
    x0 = from_uint8(images[chosen.numpy()], device)
    t = seeds.integers(seed, "training severity", position, 1, degradation.T)[:, 0]
    state = degradation.draw(position, seed)
    return x0, observe(degradation, x0, t, state), t


def update(
    network: nn.Module,
    average: dict[str, Tensor],
    optimizer: torch.optim.Optimizer,
    batches: Iterable[Batch],
    training: Training,
    step: int,
) -> tuple[Tensor, Tensor]:
    """One update from `accumulation` micro-batches, and the moving average's rule; returns loss and gradient norm."""
    optimizer.zero_grad(set_to_none=True)
    losses = []
    for x0, xt, t in batches:
        loss = (network(xt, t - 1) - x0).abs().mean()
        (loss / training.accumulation).backward()
        losses.append(loss.detach())
    norm = torch.nn.utils.get_total_norm([p.grad for p in network.parameters() if p.grad is not None])
    optimizer.step()
    if step % training.ema_every == 0:
        weight = 1.0 if step < training.ema_start else 1 - training.ema_decay
        with torch.no_grad():
            for name, value in network.state_dict().items():
                average[name].lerp_(value, weight)
    return torch.stack(losses).mean(), norm


def train(experiment: Experiment, prepared: Path, out: Path, work: Path, device: torch.device) -> None:
    """Train `experiment` on the prepared data set and write the averaged weights to `out` (safetensors).

    `work` keeps the checkpoints and is not an output: a stopped training goes on from there. `out` with the suffix
    .jsonl receives the training log. Raises ColdbenchError if the loss is not finite or the data do not fit.
    """
    training, seed = experiment.training, seeds.derive(experiment.seed, "training")
    images = data.load(prepared, "train")
    degradation = degradations.build(experiment.degradation, experiment.size)
    torch.manual_seed(seeds.derive(experiment.seed, "weights"))
    network = models.build(experiment.network, images.shape[1]).to(device).train()
    average = {name: value.clone() for name, value in network.state_dict().items()}
    optimizer = torch.optim.Adam(network.parameters(), lr=training.learning_rate)
    work = work / experiment.fingerprint  # another configuration never meets this one's checkpoints
    done, seconds, lines = 0, 0.0, list[str]()

    state = checkpoint.load_state(work, device)
    if state is not None:
        done, seconds, lines = state["done"], state["seconds"], state["lines"]
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        average = state["average"]
        log.info("resuming at update %d of %d", done, training.updates)

    def check(loss: Tensor) -> float:
        if not math.isfinite(value := loss.item()):
            first = (done - 1) * training.total_batch
            raise ColdbenchError(
                f"loss is {value} at update {done} (images from {first}, seed {seed}); last good checkpoint: {work}"
            )
        return value

    def spent() -> float:
        return seconds + time.monotonic() - began

    def save() -> None:
        state = {"done": done, "seconds": spent(), "lines": lines, "network": network.state_dict(), "average": average}
        checkpoint.save_state(work, {**state, "optimizer": optimizer.state_dict()})

    began = saved = time.monotonic()
    ticker = Ticker(training.updates, "update", training.total_batch, start=done)
    log_every = max(1, training.updates // LOG_LINES)
    with stoppable() as stop:
        while done < training.updates:
            firsts = (done * training.total_batch + k * training.micro_batch for k in range(training.accumulation))
            batches = (
                training_batch(images, degradation, seed, first, training.micro_batch, device) for first in firsts
            )
            loss, norm = update(network, average, optimizer, batches, training, step=done)
            done += 1
            if done % log_every == 0 or done == training.updates:
                values = {"update": done, "images": done * training.total_batch, "loss": check(loss)}
                speed = {"images_per_second": round(ticker.rate(done), 1), "seconds": round(spent(), 1)}
                lines.append(json.dumps({**values, "grad_norm": norm.item(), **speed}))
            if ticker.due(done):
                ticker.tick(done, f"loss {loss.item():.4f}")
            if stop or time.monotonic() - saved > CHECKPOINT_SECONDS:
                check(loss)
                save()
                saved = time.monotonic()
                stop.check()
        save()
    write_text(out.with_suffix(".jsonl"), "\n".join(lines) + "\n")
    checkpoint.save_model(out, average, experiment)
