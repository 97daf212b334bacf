"""A trained model × the sets of its sampling → shards of images, and whole trajectories of a few for the figures.

A shard is one .npy file of images, float32 (n, C, H, W) in [0, 1] units and not clamped, as the metrics need them.
Batch size, shard size and number of jobs change no bit. The randomness of image i follows from (seed, purpose, i). The
network always sees `inference_batch` images, counted from image 0, because a convolution's last bits can differ between
batch sizes and batch positions.

A shard's name holds a hash of its content, and its folder's name a hash of everything that decides the content. So a
finished shard is never made again; a missing or damaged one is made again alone.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from coldbench import data, degradations, models
from coldbench.core.checksums import find_hashed, write_hashed, write_sealed
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256
from coldbench.core.images import to_unit_interval
from coldbench.core.interrupts import Stop, stoppable
from coldbench.core.logs import Ticker, log
from coldbench.core.sampling_settings import Method, Sampling
from coldbench.core.validation import fingerprint
from coldbench.models import model_file
from coldbench.models.header import read_header
from coldbench.sampling import starts, trajectories
from coldbench.sampling.manifest import (
    COST_SUFFIX,
    Manifest,
    SampledSet,
    ShardFile,
    intact,
    read_manifest,
    write_manifest,
)


@dataclass(frozen=True)
class SamplingPaths:
    """The files of a run's sampling: the model, its prepared data set, and the folder for shards.

    `partner` is the prepared data set of a degradation that mixes in other images.
    """

    model: Path
    prepared: Path
    shards: Path
    partner: Path | None = None


@dataclass(frozen=True)
class Shard:
    """Images `indices` of one set by one method, and the folder of the file.

    `sampler` holds name, parameters and source of a method that needs more than its name.
    """

    set: str
    method: Method
    indices: range
    folder: Path
    sampler: str = ""

    @property
    def stem(self) -> str:
        """The file's name up to its hash."""
        method = f"{self.method}~{self.sampler}" if self.sampler else self.method
        return f"{method}-{self.indices.start:06d}-{self.indices.stop:06d}"

    def file(self) -> Path | None:
        """The finished file, or None; a file whose content does not match its name is deleted."""
        return find_hashed(self.folder, self.stem, ".npy")

    def write(self, images: npt.NDArray[np.float32], nfe: int, seconds: float) -> Path:
        """Write the images, atomically, and beside them what they cost: the NFE of an image, and seconds of all."""
        buffer = io.BytesIO()
        np.save(buffer, images)
        path = write_hashed(self.folder, self.stem, ".npy", buffer.getbuffer())
        cost = {"nfe": nfe, "seconds": round(seconds, 3), "images": len(images), "shard": path.name}
        write_sealed(path.with_suffix(COST_SUFFIX), cost)
        return path


@dataclass(frozen=True)
class Sampler:
    """A loaded model and what to sample from it; `tasks` and `folders` are named by set.

    `identity` holds what decides the bits of every shard, apart from the settings of its set.
    """

    model: model_file.Model
    restore: models.Restorer
    sampling: Sampling
    identity: dict[str, Any]
    tasks: dict[str, starts.SamplingTask]
    folders: dict[str, Path]

    def shards(self) -> list[Shard]:
        """All shards of all sets and methods."""
        size = self.sampling.shard_size
        return [
            Shard(
                *(name, method, range(first, min(first + size, task.images)), self.folders[name]),
                sampler="" if spec == {"name": method} else fingerprint(spec),
            )
            for name, task in self.tasks.items()
            for method, spec in task.methods.items()
            for first in range(0, task.images, size)
        ]

    def make_missing(self, shards: Sequence[Shard], stop: Stop) -> None:
        """Make those of `shards` that have no finished file."""
        missing = [shard for shard in shards if shard.file() is None]
        if len(missing) < len(shards):
            log.info("%d of %d shards are finished already", len(shards) - len(missing), len(shards))
        size, inference_batch = self.sampling.batch_size, self.identity["inference_batch"]
        batches = {shard: batches_of(shard.indices, size, inference_batch) for shard in missing}
        steps = {shard: len(self.tasks[shard.set].severities(shard.method)) for shard in missing}
        total = sum(steps[shard] * sum(map(len, batches[shard])) for shard in missing)
        ticker, done = Ticker(max(1, total), "image·step", 1), 0
        for shard in missing:
            task, images, nfe, began = self.tasks[shard.set], [], 0, time.perf_counter()
            for indices in batches[shard]:
                for step in task.steps(self.restore, shard.method, task.initial_state(indices)):
                    x, nfe = step.x, step.nfe
                    done += len(x)
                    stop.check()
                    ticker.tick(done, f"{shard.set} · {shard.method} · images {indices.start}–{indices.stop}")
                earlier = max(shard.indices.start - indices.start, 0)  # images that only fill the inference batch
                images.append(to_unit_interval(x[earlier:]).cpu().numpy())
            shard.write(np.concatenate(images), nfe, time.perf_counter() - began)


def load_sampler(paths: SamplingPaths, sampling: Sampling, device: torch.device) -> Sampler:
    """Load the model, and prepare every set of `sampling`; ColdbenchError if model, data and settings do not fit."""
    info = data.info(paths.prepared)
    model = model_file.load_model(paths.model, device, info["channels"])
    seed = model.experiment.seed
    degradation = degradations.for_experiment(model.experiment, paths.partner)
    inference_batch = sampling.inference_batch or models.INFERENCE_BATCH[device.type]
    network: torch.nn.Module = models.compiled(model.network) if sampling.compile else model.network
    identity = {
        "model": model.sha256,
        "data": info["hash"],
        "partner": data.info(paths.partner)["hash"] if paths.partner else None,
        "seed": seed,
        "shard_size": sampling.shard_size,
        "device": device.type,
        "inference_batch": inference_batch,
        "precision": sampling.precision,
        "compile": sampling.compile,
    }
    return Sampler(
        model,
        models.restorer(network, inference_batch, sampling.precision),
        sampling,
        identity,
        {
            name: starts.sampling_task(sampling, name, degradation, paths.prepared, seed, device)
            for name in sampling.sets
        },
        {
            name: paths.shards / f"{name}-{fingerprint({**identity, 'set': settings.model_dump(exclude={'methods'})})}"
            for name, settings in sampling.sets.items()
        },
    )


def batches_of(indices: range, batch_size: int, inference_batch: int) -> list[range]:
    """Batches that cover `indices`; each consists of whole inference batches, counted from image 0."""
    size = max(batch_size // inference_batch, 1) * inference_batch
    first = indices.start - indices.start % inference_batch
    return [range(start, min(start + size, indices.stop)) for start in range(first, indices.stop, size)]


def sample_part(paths: SamplingPaths, sampling: Sampling, device: torch.device, part: int, parts: int) -> None:
    """Make the missing shards of part `part` of `parts` (1 ≤ part ≤ parts): every `parts`-th shard of the run."""
    with data.unchanged(paths.prepared, paths.partner):
        sampler = load_sampler(paths, sampling, device)
    with stoppable() as stop, torch.inference_mode():
        sampler.make_missing(sampler.shards()[part - 1 :: parts], stop)


def sample_run(paths: SamplingPaths, sampling: Sampling, device: torch.device, manifest: Path) -> None:
    """Make every missing shard and trajectory; then write the file `manifest`, which names them all.

    An interrupted run continues at the first missing shard, and finished samples that fit are kept; so are the shards
    of other sets, models and settings. ColdbenchError if the shards would not lie below the manifest's folder.
    """
    if not paths.shards.resolve().is_relative_to(manifest.parent.resolve()):
        raise ColdbenchError(
            f"the shards in {paths.shards} must lie below {manifest.parent}, the folder of {manifest.name}"
        )
    if _is_finished(paths, sampling, manifest):
        log.info("%s is up to date: it was sampled from this model and these data by these settings", manifest)
        return
    with data.unchanged(paths.prepared, paths.partner):
        sampler = load_sampler(paths, sampling, device)
    shards = sampler.shards()
    with stoppable() as stop, torch.inference_mode():
        sampler.make_missing(shards, stop)
        frames = sampling.max_frames
        trajectory_files = {
            name: trajectories.update(sampler.folders[name], sampler.restore, task, frames, stop)
            for name, task in sampler.tasks.items()
        }
    write_manifest(manifest, _manifest(sampler, shards, trajectory_files, manifest.parent, device))


def _is_finished(paths: SamplingPaths, sampling: Sampling, path: Path) -> bool:
    """Whether the manifest in `path` fits model, data and settings and all its files are intact."""
    if not path.exists():
        return False
    try:
        manifest = read_manifest(path)
    except ColdbenchError as error:
        log.warning("%s", error)
        return False
    partner = data.info(paths.partner)["hash"] if paths.partner else None
    expected = read_header(paths.model).sha256, data.info(paths.prepared)["hash"], partner, sampling.fingerprint
    stated = manifest.model, manifest.data, manifest.partner, manifest.sampling
    return stated == expected and intact(path, manifest)


def _manifest(
    sampler: Sampler, shards: list[Shard], trajectory_files: dict[str, Path], folder: Path, device: torch.device
) -> Manifest:
    """The manifest of finished shards and trajectories, for a file in `folder`."""
    shard_files = []
    for shard in shards:
        if (path := shard.file()) is None:
            raise ColdbenchError(f"{shard.stem} vanished while the manifest was written; run again")
        shard_files.append(
            ShardFile(
                set=shard.set,
                method=shard.method,
                first=shard.indices.start,
                stop=shard.indices.stop,
                file=os.path.relpath(path, folder),
                sha256=sha256(path),
            )
        )
    sets = {
        name: SampledSet(
            **{**task.settings.model_dump(), "methods": list(task.methods)},
            images=task.images,
            trajectory=os.path.relpath(trajectory_files[name], folder),
        )
        for name, task in sampler.tasks.items()
    }
    return Manifest(
        **{**sampler.identity, "device": str(device)},
        sampling=sampler.sampling.fingerprint,
        signed_metrics=sampler.sampling.signed_metrics,
        experiment=sampler.model.experiment,
        provenance=sampler.model.provenance,
        samplers=sampler.sampling.samplers,
        sets=sets,
        trajectories={name: sha256(file) for name, file in trajectory_files.items()},
        shards=shard_files,
    )
