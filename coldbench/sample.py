"""A trained model × the sets of its sampling → shards of images, and a few whole trajectories for the figures.

A shard is one .npy file, float32 (n, C, H, W) in [0, 1] units and not clamped, as the metrics want it. Everything
random about image i follows from (seed, purpose, i), and the network always sees tiles of one size, so batch, shard and
number of jobs change no bit. A shard's name holds its content's hash, its folder's everything that decides its content:
a finished shard is never made again, and a missing or damaged one alone is.
"""

from __future__ import annotations

import hashlib
import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import checkpoint, data, models, origins, pipeline
from coldbench.config import Sampling
from coldbench.errors import ColdbenchError
from coldbench.experiment import fingerprint
from coldbench.files import atomic, sha256, write_json
from coldbench.images import to_unit_interval
from coldbench.progress import Stop, Ticker, log, stoppable
from coldbench.samplers import sample

SHOWN = 6
"""Images whose trajectory is kept for the figures."""
LANDMARKS = (1, 2, 4, 8, 16, 32, 64, 128, 192, 256)
"""After how many steps the paper's figures show a trajectory; kept of a long one beside evenly spaced iterates."""


@dataclass(frozen=True)
class Shard:
    """Images `where` of one set by one method, and the folder that its file lies in."""

    set: str
    method: str
    where: range
    folder: Path

    @property
    def stem(self) -> str:
        """The file's name up to its hash."""
        return f"{self.method}-{self.where.start:06d}-{self.where.stop:06d}"

    def file(self) -> Path | None:
        """The finished file, if there is one that holds what its name says; a damaged one is deleted."""
        for path in sorted(self.folder.glob(f"{self.stem}-*.npy")):
            if sha256(path)[:16] == path.stem.rpartition("-")[2]:
                return path
            log.warning("%s is damaged; it is made again", path)
            path.unlink()
        return None

    def write(self, values: npt.NDArray[np.float32]) -> Path:
        """Write the images, atomically."""
        buffer = io.BytesIO()
        np.save(buffer, values)
        content = buffer.getbuffer()
        path = self.folder / f"{self.stem}-{hashlib.sha256(content).hexdigest()[:16]}.npy"
        with atomic(path) as temporary:
            temporary.write_bytes(content)
        return path


def run(
    model: Path,
    prepared: Path,
    out: Path | None,
    work: Path,
    sampling: Sampling,
    device: torch.device,
    partner: Path | None = None,
    part: tuple[int, int] = (1, 1),
) -> None:
    """Sample every set of `sampling` by each of its methods.

    `partner` is the prepared data set of a degradation that mixes in other images. Writes the shards and a
    `trajectory.npz` per set in folders of `work`, then, last, the manifest `out` that names them; without `out` only
    what is missing of part k of n of the shards. A run that was stopped goes on at the first missing shard.
    """
    info = data.info(prepared)
    loaded = checkpoint.load_model(model, info["channels"], device)
    experiment = loaded.experiment
    degradation = pipeline.degradation_of(experiment, partner)
    tile = sampling.tile or models.TILE[device.type]
    network: torch.nn.Module = torch.compile(loaded.network) if sampling.compile else loaded.network  # type: ignore
    restore = models.restorer(network, tile, sampling.precision)
    content = {
        "model": sha256(model),
        "data": info["hash"],
        "seed": experiment.seed,
        "partner": data.info(partner)["hash"] if partner else None,
        "shard": sampling.shard,
        "device": device.type,
        "tile": tile,
        "precision": sampling.precision,
        "compile": sampling.compile,
    }
    sets = {
        name: origins.origin(wanted, degradation, prepared, experiment.seed, device, sampling.images)
        for name, wanted in sampling.sets.items()
    }
    folders = {
        name: work / f"{name}-{fingerprint({**content, 'set': wanted.model_dump(exclude={'methods'})})}"
        for name, wanted in sampling.sets.items()
    }
    wanted = [
        Shard(name, method, range(i, min(i + sampling.shard, origin.images)), folders[name])
        for name, origin in sets.items()
        for method in sampling.methods_of(name)
        for i in range(0, origin.images, sampling.shard)
    ]
    mine = wanted if out else wanted[part[0] - 1 :: part[1]]
    missing = [shard for shard in mine if shard.file() is None]
    if len(missing) < len(mine):
        log.info("%d of %d shards are there already", len(mine) - len(missing), len(mine))
    ticker = Ticker(max(1, sum(sets[s.set].steps(s.method) * len(s.where) for s in missing)), "image·step", 1)
    seen = 0
    with stoppable() as stop, torch.inference_mode():
        for shard in missing:
            parts = []
            for where in _batches(shard.where, sampling.batch):
                for x in _trajectory(restore, sets[shard.set], shard.method, where):
                    seen += len(x)
                    stop.check()
                    ticker.tick(seen, f"{shard.set} · {shard.method} · images {where.start}–{where.stop}")
                parts.append(to_unit_interval(x).cpu().numpy())
            shard.write(np.concatenate(parts))
        if out is None:
            return
        for name, origin in sets.items():
            path = folders[name] / "trajectory.npz"
            if not path.exists():
                _write_trajectory(path, restore, origin, sampling.methods_of(name), sampling.frames, stop)
    write_json(out, _manifest(out, experiment.model_dump(), content, loaded.origin, device, sampling, sets, wanted))
    for other in work.iterdir():  # shards of an earlier model or seed
        if other.is_dir() and other not in folders.values():
            shutil.rmtree(other)


def _batches(where: range, size: int) -> list[range]:
    return [range(i, min(i + size, where.stop)) for i in range(where.start, where.stop, size)]


def _trajectory(restore: models.Restorer, origin: origins.Origin, method: str, where: range) -> Iterator[Tensor]:
    """The iterates of images `where`; the last is x_0."""
    begin = origin.begin(where)
    for step in sample(restore, origin.degradation, begin.x, begin.state, method, **origin.options, fresh=begin.fresh):
        yield step.x


def _manifest(
    out: Path,
    experiment: dict[str, Any],
    content: dict[str, Any],
    origin: dict[str, Any],
    device: torch.device,
    sampling: Sampling,
    sets: dict[str, origins.Origin],
    shards: list[Shard],
) -> dict[str, Any]:
    files = [shard.file() for shard in shards]
    if None in files:
        raise ColdbenchError(f"{shards[files.index(None)].stem} vanished while the manifest was written; run again")
    folders = {shard.set: shard.folder.relative_to(out.parent) for shard in shards}
    return {
        **content,
        "experiment": experiment,
        "device": str(device),
        "signed_metrics": sampling.signed_metrics,
        "origin": origin,
        "sets": {
            name: {
                **sampling.sets[name].model_dump(),
                "methods": sampling.methods_of(name),
                "images": of.images,
                "trajectory": str(folders[name] / "trajectory.npz"),
            }
            for name, of in sets.items()
        },
        "shards": [
            {
                "set": shard.set,
                "method": shard.method,
                "first": shard.where.start,
                "stop": shard.where.stop,
                "file": str(path.relative_to(out.parent)),
                "sha256": sha256(path),
            }
            for shard, path in zip(shards, files, strict=True)
            if path
        ],
    }


def _write_trajectory(
    path: Path,
    restore: models.Restorer,
    origin: origins.Origin,
    methods: list[Any],
    frames: int | None,
    stop: Stop,
) -> None:
    """The first SHOWN images: the original (of a restoration), x_T, R(x_T), and iterates with their severities.

    The iterates are those of the set's best method, TACoS where it is one of them, and beside them Algorithm 1's; of
    many, `frames` are kept.
    """
    method = next((m for m in ("tacos", "estimated") if m in methods), methods[-1])
    begin = origin.begin(range(min(SHOWN, origin.images)))
    severities = [origin.severity, *(max(s - origin.every, 0) for s in origin.visited(method))]
    kept = _kept(len(severities), frames)

    def states(method: str) -> tuple[Tensor, Tensor]:
        """R(x_T), and the kept iterates from x_T on."""
        found, direct = [begin.x], begin.x
        steps = sample(restore, origin.degradation, begin.x, begin.state, method, **origin.options, fresh=begin.fresh)
        for place, step in enumerate(steps, start=1):
            stop.check()
            if place == 1:
                direct = step.x0_hat
            if place in kept:
                found.append(step.x)
        return direct, torch.stack(found)

    direct, best = states(method)
    arrays = {"degraded": begin.x, "direct": direct, "states": best}
    if "naive" in methods and method not in ("naive", "direct"):
        arrays["naive"] = states("naive")[1]
    if begin.x0 is not None:
        arrays["original"] = begin.x0
    unit = {name: to_unit_interval(value).cpu().numpy() for name, value in arrays.items()}
    shown = np.array([severity for place, severity in enumerate(severities) if place in kept])
    with atomic(path) as temporary, temporary.open("wb") as stream:
        np.savez_compressed(stream, severities=shown, method=np.array(method), **unit)  # type: ignore[arg-type]


def _kept(count: int, frames: int | None) -> set[int]:
    """Which of `count` iterates are kept: all, or `frames` of them, evenly spaced but for LANDMARKS among many."""
    if frames is None or frames >= count:
        return set(range(count))
    landmarks = {place for place in LANDMARKS if place < count} if frames >= 2 * len(LANDMARKS) else set()
    return landmarks | set(np.linspace(0, count - 1, frames - len(landmarks)).round().astype(int).tolist())
