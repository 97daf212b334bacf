"""samples.json, the manifest of a run's sampled images: its schema, and the images that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldbench.core.config import Method, SampleSet
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import read_json, sha256, write_json
from coldbench.core.validation import Strict, checked


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
    """What was sampled, from which model (SHA-256 of its file) and data (hash of their content), and how."""

    model: str
    data: str
    partner: str | None
    seed: int
    device: str
    inference_batch: int
    precision: str
    compile: bool
    shard_size: int
    signed_metrics: bool
    experiment: Experiment
    provenance: dict[str, Any]
    sets: dict[str, SampledSet]
    shards: list[ShardFile]


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write `manifest` to `path` as JSON, atomically."""
    write_json(path, manifest.model_dump())


def read_manifest(path: Path) -> Manifest:
    """The manifest in `path`; ColdbenchError, with the first key that does not fit, if it is missing or damaged."""
    content = read_json(path)
    try:
        return checked(Manifest, content, f"the manifest {path}")
    except ColdbenchError as error:
        raise ColdbenchError(f"{error}; delete it and run again") from None


def read_images(path: Path, set_name: str, method: str, first: int | None = None) -> npt.NDArray[np.float32]:
    """A set's images by one method, in order, all or the `first`: float32 (N, C, H, W), [0, 1] units, not clamped.

    Raises ColdbenchError if the manifest in `path` names no such images, or if a shard is missing or damaged.
    """
    manifest = read_manifest(path)
    shards = [shard for shard in manifest.shards if (shard.set, shard.method) == (set_name, method)]
    if not shards:
        raise ColdbenchError(f"{path} names no images of set {set_name} by {method}")
    arrays = [_load(path, shard) for shard in shards if first is None or shard.first < first]
    return np.concatenate(arrays)[:first]


def _load(path: Path, shard: ShardFile) -> npt.NDArray[np.float32]:
    file = path.parent / shard.file
    if not file.exists() or sha256(file) != shard.sha256:
        raise ColdbenchError(f"shard {file} is missing or damaged; delete {path}, then run again")
    images: npt.NDArray[np.float32] = np.load(file)
    return images
