"""The features of a reference set, computed once: statistics for the Fréchet distance, rows for the kernel distance.

Each set has its file in the feature cache. The file's name carries a hash of the set's identity and one of its content,
and the file holds the identity in full. A damaged file or one of another set is computed again.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from coldbench.core.checksums import find_hashed, write_hashed
from coldbench.core.errors import ColdbenchError
from coldbench.core.logs import log
from coldbench.core.validation import fingerprint
from coldbench.evaluation.metrics.frechet import Features, Moments, Statistics

STORED_ROWS = 10_000
"""The largest number of feature rows in a file. The statistics are those of all images."""


@dataclass(frozen=True)
class Reference:
    """Statistics of the n images of a set, and the features of its first min(n, STORED_ROWS), float32 (rows, d)."""

    statistics: Statistics
    features: npt.NDArray[np.float32]


def reference(
    folder: Path,
    identity: Mapping[str, Any],
    batches: Callable[[], Iterable[Tensor]],
    features: Callable[[Tensor], Features],
) -> Reference:
    """The reference set of `identity`, from its file in `folder` or from its images.

    `identity` is a JSON object with the name of the features under "features", and all that distinguishes the set.
    `batches` gives the images batch by batch, and `features` the rows (n, d) of a batch. Both are called only if the
    file is missing, damaged or of another set. ColdbenchError for fewer than 2 images, features that are not finite, or
    a file that cannot be written.
    """
    stem, text = f"{identity['features']}-{fingerprint(identity)}", json.dumps(identity, sort_keys=True)
    path = find_hashed(folder, stem, ".npz")
    stored = _read(path, text) if path else None
    if stored is None:
        stored = _compute(map(features, batches()))
        write_hashed(folder, stem, ".npz", _bytes(text, stored))
    return stored


def _compute(parts: Iterable[Features]) -> Reference:
    moments: Moments | None = None
    rows: list[npt.NDArray[np.float32]] = []
    for part in parts:
        if moments is None:
            moments = Moments(part.shape[-1])
        rows.append(part[: max(STORED_ROWS - moments.n, 0)].astype(np.float32))
        moments.add(part)
    if moments is None:
        raise ColdbenchError("the reference set has no images")
    return Reference(moments.statistics(), np.concatenate(rows))


def _read(path: Path, identity: str) -> Reference | None:
    """The content of `path`, which is what was written; None, with a warning, if that was for another set."""
    try:
        with np.load(path, allow_pickle=False) as file:
            statistics = Statistics(file["mean"], file["covariance"], int(file["n"]))
            stored_identity, rows = str(file["identity"]), file["features"]
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        log.warning("reference features %s are damaged (%s); computing them again", path, type(error).__name__)
        return None
    if stored_identity != identity:
        log.warning("reference features %s are of another set; computing them again", path)
        return None
    return Reference(statistics, rows)


def _bytes(identity: str, result: Reference) -> memoryview:
    statistics, buffer = result.statistics, io.BytesIO()
    np.savez(
        buffer,
        mean=statistics.mean,
        covariance=statistics.covariance,
        n=np.array(statistics.n),
        features=result.features,
        identity=np.array(identity),
    )
    return buffer.getbuffer()
