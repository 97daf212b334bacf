"""A trained model × the sets of its sampling → shards of images, and a few whole trajectories for the figures.

A shard is one .npy file, float32 (n, C, H, W) in [0, 1] units and not clamped, as the metrics want it. Everything
random about image i follows from (seed, purpose, i), and the network always sees tiles of one size, so batch, shard and
number of jobs change no bit: the tiles are counted from image 0, for a convolution may sum in another order at another
place in the tile. A shard's name holds its content's hash, its folder's everything that decides its content:
a finished shard is never made again, and a missing or damaged one alone is.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import data, degradations, models
from coldbench.core.config import Sampling
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic, sha256, write_json
from coldbench.core.images import to_unit_interval
from coldbench.core.interrupts import stoppable
from coldbench.core.logs import Ticker, log
from coldbench.core.validation import fingerprint
from coldbench.models import model_file
from coldbench.sampling import starts, trajectories
from coldbench.sampling.samplers import sample

OURS = re.compile(r".+-[0-9a-f]{16}")
"""The folder of a set's shards, by its name."""


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

    `partner` is the prepared data set of a degradation that mixes in other images. Writes the shards and a file of
    trajectories per set in folders of `work`, then, last, the manifest `out` that names them; without `out` only what
    is missing of part k of n of the shards. A run that was stopped goes on at the first missing shard. Folders of other
    sets in `work` are removed, and nothing else of it.
    """
    info = data.info(prepared)
    loaded = model_file.load_model(model, info["channels"], device)
    experiment = loaded.experiment
    degradation = degradations.for_experiment(experiment, partner)
    tile = sampling.inference_batch or models.INFERENCE_BATCH[device.type]
    network: torch.nn.Module = torch.compile(loaded.network) if sampling.compile else loaded.network  # type: ignore
    restore = models.restorer(network, tile, sampling.precision)
    content = {
        "model": sha256(model),
        "data": info["hash"],
        "seed": experiment.seed,
        "partner": data.info(partner)["hash"] if partner else None,
        "shard_size": sampling.shard_size,
        "device": device.type,
        "inference_batch": tile,
        "precision": sampling.precision,
        "compile": sampling.compile,
        "tiles": "from image 0",  # where they began with a batch, an image's last bits were others
    }
    sets = {
        name: starts.origin(wanted, degradation, prepared, experiment.seed, device, sampling.images)
        for name, wanted in sampling.sets.items()
    }
    folders = {
        name: work / f"{name}-{fingerprint({**content, 'set': wanted.model_dump(exclude={'methods'})})}"
        for name, wanted in sampling.sets.items()
    }
    wanted = [
        Shard(name, method, range(i, min(i + sampling.shard_size, origin.images)), folders[name])
        for name, origin in sets.items()
        for method in sampling.methods_of(name)
        for i in range(0, origin.images, sampling.shard_size)
    ]
    mine = wanted if out else wanted[part[0] - 1 :: part[1]]
    missing = [shard for shard in mine if shard.file() is None]
    if len(missing) < len(mine):
        log.info("%d of %d shards are there already", len(mine) - len(missing), len(mine))
    batches = {shard: _batches(shard.where, sampling.batch_size, tile) for shard in missing}
    total = sum(sets[s.set].steps(s.method) * sum(map(len, batches[s])) for s in missing)
    ticker = Ticker(max(1, total), "image·step", 1)
    seen = 0
    with stoppable() as stop, torch.inference_mode():
        for shard in missing:
            parts = []
            for where in batches[shard]:
                for x in _trajectory(restore, sets[shard.set], shard.method, where):
                    seen += len(x)
                    stop.check()
                    ticker.tick(seen, f"{shard.set} · {shard.method} · images {where.start}–{where.stop}")
                before = max(shard.where.start - where.start, 0)  # images that only fill the first tile
                parts.append(to_unit_interval(x[before:]).cpu().numpy())
            shard.write(np.concatenate(parts))
        if out is None:
            return
        kept = {
            name: trajectories.keep(
                folders[name], restore, origin, sampling.methods_of(name), sampling.max_frames, stop
            )
            for name, origin in sets.items()
        }
    write_json(
        out,
        _manifest(out, experiment.model_dump(), content, loaded.provenance, device, sampling, sets, wanted, kept),
    )
    for other in work.iterdir():  # shards of an earlier model or seed
        if other.is_dir() and OURS.fullmatch(other.name) and other not in folders.values():
            shutil.rmtree(other)


def _batches(where: range, size: int, tile: int) -> list[range]:
    """Batches of whole tiles, counted from image 0, that cover `where`."""
    step, first = max(size // tile, 1) * tile, where.start - where.start % tile
    return [range(i, min(i + step, where.stop)) for i in range(first, where.stop, step)]


def _trajectory(restore: models.Restorer, origin: starts.Origin, method: str, where: range) -> Iterator[Tensor]:
    """The iterates of images `where`; the last is x_0."""
    begin = origin.begin(where)
    for step in sample(
        restore, origin.degradation, begin.x, begin.drawn, method, **origin.options, redraw=begin.redraw
    ):
        yield step.x


def _manifest(
    out: Path,
    experiment: dict[str, Any],
    content: dict[str, Any],
    origin: dict[str, Any],
    device: torch.device,
    sampling: Sampling,
    sets: dict[str, starts.Origin],
    shards: list[Shard],
    trajectories: dict[str, Path],
) -> dict[str, Any]:
    files = [shard.file() for shard in shards]
    if None in files:
        raise ColdbenchError(f"{shards[files.index(None)].stem} vanished while the manifest was written; run again")
    return {
        **content,
        "experiment": experiment,
        "device": str(device),
        "signed_metrics": sampling.signed_metrics,
        "provenance": origin,
        "sets": {
            name: {
                **sampling.sets[name].model_dump(),
                "methods": sampling.methods_of(name),
                "images": of.images,
                "trajectory": os.path.relpath(trajectories[name], out.parent),
            }
            for name, of in sets.items()
        },
        "shards": [
            {
                "set": shard.set,
                "method": shard.method,
                "first": shard.where.start,
                "stop": shard.where.stop,
                "file": os.path.relpath(path, out.parent),
                "sha256": sha256(path),
            }
            for shard, path in zip(shards, files, strict=True)
            if path
        ],
    }
