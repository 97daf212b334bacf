"""The manifest of a run's sampled images: which sets and shards there are, checked when they are read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import read_json, sha256

KEYS = {"experiment", "model", "data", "device", "provenance", "sets", "shards"}


def facts(manifest: Path) -> dict[str, Any]:
    """What `sample.run` wrote to `manifest`: at least KEYS; ColdbenchError if it is missing or damaged."""
    found = read_json(manifest)
    if not isinstance(found, dict) or KEYS - found.keys():
        raise ColdbenchError(
            f"{manifest} is damaged: it lacks some of {', '.join(sorted(KEYS))}; delete it and run again"
        )
    return found


def read(manifest: Path, method: str, part: str = "test", first: int | None = None) -> npt.NDArray[np.float32]:
    """A set's images by one method, in order, all or the `first`; ColdbenchError if a shard is missing or damaged."""
    parts = []
    for shard in facts(manifest)["shards"]:
        if (shard["set"], shard["method"]) != (part, method) or (first is not None and shard["first"] >= first):
            continue
        path = manifest.parent / shard["file"]
        if not path.exists() or sha256(path) != shard["sha256"]:
            raise ColdbenchError(f"shard {path} is missing or damaged; delete {manifest}, then run again")
        parts.append(np.load(path))
    if not parts:
        raise ColdbenchError(f"{manifest} names no images of set {part} by {method}")
    return np.concatenate(parts)[:first]
