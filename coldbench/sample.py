"""A trained model × methods × a test set → shards of restored images, and a few whole trajectories for the figures.

A shard is one .npy file, float32 (n, C, H, W) in [0, 1] units and not clamped, as the metrics want it. Shards lie in a
folder named after everything that decides their content; a finished shard is never made again, a missing one alone is.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import checkpoint, data, degradations, models, pipeline, seeds
from coldbench.degradations import Degradation, State, start
from coldbench.errors import ColdbenchError
from coldbench.experiment import Sampling, fingerprint
from coldbench.files import atomic, sha256, write_json
from coldbench.images import to_unit_interval
from coldbench.progress import Stop, Ticker, log, stoppable
from coldbench.samplers import METHODS, sample

SHOWN = 6
"""Images whose whole TACoS trajectory is kept for the figures."""

Images = npt.NDArray[np.float32]


def degraded_batch(
    images: npt.NDArray[np.uint8], where: range, degradation: Degradation, seed: int, device: torch.device
) -> tuple[Tensor, Tensor, State]:
    """Test images `where`: x0, the start x_T of every trajectory, and the state drawn for each image."""
    x0 = pipeline.test_images(images, degradation.size, slice(where.start, where.stop), device)
    indices = torch.arange(where.start, where.stop, device=device)
    state = degradation.draw(indices, seeds.derive(seed, "test"))
    return x0, start(degradation, x0, state), state


def run(
    model: Path,
    prepared: Path,
    out: Path,
    work: Path,
    sampling: Sampling,
    device: torch.device,
    partner: Path | None = None,
) -> None:
    """Restore the first `sampling.images` test images by each method.

    `partner` is the prepared data set of a degradation that mixes in other images.
    Writes the shards and `trajectory.npz` in a folder of `work`, then, last, the manifest `out` that names them. A run
    that was stopped goes on at the first missing shard.
    """
    info = data.info(prepared)
    loaded = checkpoint.load_model(model, info["channels"], device)
    network, experiment = loaded.network, loaded.experiment
    images = data.load(prepared, "test")
    n = len(images) if sampling.images is None else sampling.images
    if n > len(images):
        raise ColdbenchError(f"sampling.images is {n}, but the test set of {info['name']} has {len(images)} images")
    others = pipeline.middle(data.load(partner, "train"), experiment.size) if partner else None
    degradation = degradations.build(experiment.degradation, experiment.size, others)
    content = {"model": sha256(model), "data": info["hash"], "seed": experiment.seed, "shard": sampling.shard}
    if partner:
        content["partner"] = data.info(partner)["hash"]
    if sampling.official_shift:
        content["official_shift"] = True
    folder = work / fingerprint(content)
    restore = models.restorer(network)
    shards = [range(i, min(i + sampling.shard, n)) for i in range(0, n, sampling.shard)]
    wanted = [(m, r, folder / f"{m}-{r.start:06d}-{r.stop:06d}.npy") for m in sampling.methods for r in shards]
    missing = [item for item in wanted if not item[2].exists()]
    if len(missing) < len(wanted):
        log.info("%d of %d shards are there already", len(wanted) - len(missing), len(wanted))
    steps = {method: 1 if method == "direct" else degradation.T for method in METHODS}
    ticker = Ticker(max(1, sum(steps[m] * len(r) for m, r, _ in missing)), "image·step", 1)
    seen = 0
    with stoppable() as stop, torch.inference_mode():
        for method, where, path in missing:
            parts = []
            for start in range(where.start, where.stop, sampling.batch):
                batch = range(start, min(start + sampling.batch, where.stop))
                _, x, state = degraded_batch(images, batch, degradation, experiment.seed, device)
                anew = _drawing_anew(degradation, batch, experiment.seed, device)
                shift = sampling.official_shift
                for step in sample(restore, degradation, x, state, method, official_shift=shift, fresh=anew):
                    x = step.x
                    seen += len(x)
                    stop.check()
                    ticker.tick(seen, f"{method} · images {batch.start}–{batch.stop}")
                parts.append(to_unit_interval(x).cpu().numpy())
            write_array(path, np.concatenate(parts))
        if not (folder / "trajectory.npz").exists():
            _write_trajectory(folder / "trajectory.npz", restore, degradation, images, experiment.seed, device, stop)
    write_json(
        out,
        {
            "experiment": experiment.model_dump(),
            "model": content["model"],
            "data": info["hash"],
            "images": n,
            "device": str(device),
            "origin": loaded.origin,
            "trajectory": str((folder / "trajectory.npz").relative_to(out.parent)),
            "shards": [
                {
                    "method": m,
                    "first": r.start,
                    "stop": r.stop,
                    "file": str(p.relative_to(out.parent)),
                    "sha256": sha256(p),
                }
                for m, r, p in wanted
            ],
        },
    )
    for other in work.iterdir():  # shards of an earlier model or seed
        if other.is_dir() and other != folder:
            shutil.rmtree(other)


def _drawing_anew(degradation: Degradation, where: range, seed: int, device: torch.device) -> Callable[[int], State]:
    """What the methods need that draw at every step: a state of the same images for severity s alone."""
    indices = torch.arange(where.start, where.stop, device=device)
    return lambda s: degradation.draw(indices, seeds.derive(seed, f"test, step {s}"))


def _write_trajectory(
    path: Path,
    restore: models.Restorer,
    degradation: Degradation,
    images: npt.NDArray[np.uint8],
    seed: int,
    device: torch.device,
    stop: Stop,
) -> None:
    """The first SHOWN test images: original, x_T, direct, and the TACoS iterates x_T … x_0 with their severities."""
    x0, xt, state = degraded_batch(images, range(min(SHOWN, len(images))), degradation, seed, device)
    states, severities, predictions = [xt], [degradation.T], list[Tensor]()
    for step in sample(restore, degradation, xt, state, "tacos"):
        stop.check()
        states.append(step.x)
        severities.append(step.s - 1)
        predictions.append(step.x0_hat)
    arrays = {"original": x0, "degraded": xt, "direct": predictions[0], "states": torch.stack(states)}
    unit = {name: to_unit_interval(value).cpu().numpy() for name, value in arrays.items()}
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, severities=np.array(severities), **unit)  # type: ignore[arg-type]


def write_array(path: Path, values: Images) -> None:
    """Write an array as .npy, atomically."""
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, values)
