"""samples.json, the manifest of a run's sampled images: its schema, and the images that it names."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field, model_validator

from coldbench.core.checksums import read_sealed, verified, write_sealed
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import Experiment, Spec
from coldbench.core.files import below, read_json, sha256
from coldbench.core.logs import log
from coldbench.core.run import RunMetadata
from coldbench.core.sampling_settings import Method, SampleSet
from coldbench.core.validation import Strict, checked, fingerprint

COST_SUFFIX = ".cost.json"
"""Of the file beside a shard that says what its images cost."""


class SampledSet(SampleSet):
    """How a set was sampled, its number of images, and its trajectories' file below the manifest's folder."""

    methods: list[Method]
    images: int
    trajectory: str


class ShardFile(Strict):
    """The file, below the manifest's folder, of images `first` to `stop` − 1 of one set by one method."""

    set: str
    method: Method
    first: int
    stop: int
    file: str
    sha256: str


class Manifest(Strict):
    """What was sampled: from which model (SHA-256 that it states) and data (hash of their content), and how.

    `sampling` is the fingerprint of the settings, `samplers` those of `Sampling`, `trajectories` the SHA-256 of each
    set's trajectories. The shards of each set and method cover its images in order.
    """

    model: str
    data: str
    partner: str | None
    sampling: str
    seed: int
    device: str
    inference_batch: int
    precision: str
    compile: bool
    shard_size: int
    signed_metrics: bool
    experiment: Experiment
    provenance: dict[str, Any]
    samplers: Annotated[dict[str, Spec], Field(default_factory=dict, exclude_if=lambda samplers: not samplers)]
    sets: dict[str, SampledSet]
    trajectories: dict[str, str]
    shards: list[ShardFile]

    @model_validator(mode="after")
    def _shards_cover_every_image(self) -> Manifest:
        if self.trajectories.keys() != self.sets.keys():
            raise ValueError("the trajectories are not those of the sets")
        stops: dict[tuple[str, Method], int] = {(name, m): 0 for name, each in self.sets.items() for m in each.methods}
        for shard in self.shards:
            key = shard.set, shard.method
            if stops.get(key) != shard.first or shard.stop <= shard.first:
                raise ValueError(f"the shards of set {shard.set} by {shard.method} have a gap, or are of no set")
            stops[key] = shard.stop
        for (name, method), stop in stops.items():
            if stop != self.sets[name].images:
                raise ValueError(f"the shards of set {name} by {method} end at image {stop}")
        return self

    def sampler(self, method: str) -> dict[str, Any]:
        """Name and parameters of the sampler that the label `method` stands for."""
        return self.samplers.get(method, {"name": method})

    @property
    def files(self) -> dict[str, str]:
        """The SHA-256 of every file that the manifest names."""
        trajectories = {each.trajectory: self.trajectories[name] for name, each in self.sets.items()}
        return trajectories | {shard.file: shard.sha256 for shard in self.shards}


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `manifest` to `path` as JSON that states its own SHA-256, atomically."""
    write_sealed(path, manifest.model_dump())


def read_manifest(path: Path) -> Manifest:
    """The manifest in `path`; ColdbenchError if it is missing or damaged, or of another version.

    Its files are verified when they are read.
    """
    content = read_sealed(path)
    try:
        return checked(Manifest, content, f"the manifest {path}")
    except ColdbenchError as error:
        raise ColdbenchError(f"{error}; delete it and run again") from None


def facts(manifest: Manifest) -> dict[str, Any]:
    """What the images of a manifest were made from."""
    names = ("model", "data", "partner", "sampling")
    return {"experiment": manifest.experiment.fingerprint, **{name: getattr(manifest, name) for name in names}}


def made_from(path: Path, metadata: RunMetadata) -> dict[str, Any]:
    """What scores and figures of the images in `path`, shown with `metadata`, are made from."""
    manifest = read_manifest(path)
    return {**facts(manifest), "samples": sha256(path), "metadata": fingerprint(metadata.model_dump())}


def intact(path: Path, manifest: Manifest) -> bool:
    """Whether every file that `manifest`, read from `path`, names has the content that was written; else a warning."""
    try:
        for name, digest in manifest.files.items():
            verified(path, name, digest)
    except ColdbenchError as error:
        log.warning("%s", error)
        return False
    return True


def read_images(path: Path, set_name: str, method: str, first: int | None = None) -> npt.NDArray[np.float32]:
    """A set's images by one method, in order, all or the `first`: float32 (N, C, H, W), [0, 1] units, not clamped.

    Raises ColdbenchError if the manifest in `path` names no such images, or if a shard is missing or damaged.
    """
    manifest = read_manifest(path)
    shards = [shard for shard in manifest.shards if (shard.set, shard.method) == (set_name, method)]
    if not shards:
        raise ColdbenchError(f"{path} names no images of set {set_name} by {method}")
    size = manifest.experiment.size
    return np.concatenate([_load(path, shard, size) for shard in shards if first is None or shard.first < first])[
        :first
    ]


@dataclass(frozen=True)
class Cost:
    """Evaluations of the network for an image, and seconds for an image in the batches of its shard; NaN if unknown."""

    nfe: float = math.nan
    seconds: float = math.nan


def read_cost(path: Path, set_name: str, method: str) -> Cost:
    """What the images of a set by one method cost; unknown if a shard's file is missing, damaged or another's."""
    shards = [shard for shard in read_manifest(path).shards if (shard.set, shard.method) == (set_name, method)]
    try:
        parts = [_read_cost(path.parent, Path(shard.file)) for shard in shards]
        images = sum(int(part["images"]) for part in parts)
        return Cost(max(int(part["nfe"]) for part in parts), sum(float(part["seconds"]) for part in parts) / images)
    except (ColdbenchError, OSError, KeyError, TypeError, ValueError, ZeroDivisionError):
        return Cost()


def _read_cost(folder: Path, shard: Path) -> dict[str, Any]:
    file = below(folder, shard.with_suffix(COST_SUFFIX))
    cost: dict[str, Any] = read_json(file)
    if "file_sha256" not in cost:  # of an earlier version, which stated neither checksum nor shard
        return cost
    cost = read_sealed(file)
    if cost["shard"] != shard.name:
        raise ColdbenchError(f"{file} is that of {cost['shard']}")
    return cost


def read_trajectory(path: Path, set_name: str) -> dict[str, npt.NDArray[Any]]:
    """The arrays of a set's trajectories (`trajectories`); ColdbenchError if the file is missing or damaged."""
    manifest = read_manifest(path)
    if set_name not in manifest.sets:
        raise unknown(f"set of {path}", set_name, manifest.sets)
    file = verified(path, manifest.sets[set_name].trajectory, manifest.trajectories[set_name])
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ColdbenchError(f"{file} holds no trajectories; delete {path}, then run again") from error


def _load(path: Path, shard: ShardFile, size: int) -> npt.NDArray[np.float32]:
    file = verified(path, shard.file, shard.sha256)
    try:
        images: npt.NDArray[np.float32] = np.load(file, allow_pickle=False)
        if images.dtype != np.float32 or (len(images), *images.shape[2:]) != (shard.stop - shard.first, size, size):
            raise ValueError(f"{images.dtype} {images.shape}")
    except (OSError, ValueError, EOFError, AttributeError) as error:
        raise ColdbenchError(f"{file} holds no images of {size} px; delete {path}, then run again") from error
    return images
