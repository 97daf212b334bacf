"""The manifest of a run's sampled images: which shards there are, checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldbench.errors import ColdbenchError
from coldbench.files import read_json, sha256


def facts(manifest: Path) -> dict[str, Any]:
    """What `sample.run` wrote to `manifest`: experiment, model, data, images, device, trajectory, shards."""
    found = read_json(manifest)
    keys = {"experiment", "model", "data", "images", "device", "trajectory", "shards"}
    if not isinstance(found, dict) or not keys <= found.keys():
        raise ColdbenchError(
            f"{manifest} is damaged: it lacks some of {', '.join(sorted(keys))}; delete it and run again"
        )
    return found


def read(manifest: Path, method: str) -> npt.NDArray[np.float32]:
    """All images of one method in order; ColdbenchError if a shard is missing or damaged."""
    parts = []
    for shard in facts(manifest)["shards"]:
        if shard["method"] != method:
            continue
        path = manifest.parent / shard["file"]
        if not path.exists() or sha256(path) != shard["sha256"]:
            raise ColdbenchError(f"shard {path} is missing or damaged; delete {path} and {manifest}, then run again")
        parts.append(np.load(path))
    return np.concatenate(parts)
