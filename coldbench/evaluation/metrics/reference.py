"""The features of a reference set, computed once: statistics for the Fréchet distance, rows for the kernel distance.

Each set has its file in the feature cache. The file's name carries a hash of the set's identity, and the file holds the
identity in full. A damaged file or one of another set is computed again.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import Tensor

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic
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
    path = folder / f"{identity['features']}-{fingerprint(identity)}.npz"
    text = json.dumps(identity, sort_keys=True)
    stored = _read(path, text)
    if stored is None:
        stored = _compute(map(features, batches()))
        _write(path, text, stored)
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
    """The content of `path`. None, with a warning, if it is damaged or of another set; None if it is missing."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # NumPy checks the checksum of an array only if it reads to its end
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        with np.load(path, allow_pickle=False) as file:
            statistics = Statistics(file["mean"], file["covariance"], int(file["n"]))
            stored_identity, rows = str(file["identity"]), file["features"]
    except Exception as error:  # damage raises many types: of zip, array header, end of file, missing entry
        log.warning("reference features %s are damaged (%s); computing them again", path, type(error).__name__)
        return None
    if stored_identity != identity:
        log.warning("reference features %s are of another set; computing them again", path)
        return None
    return Reference(statistics, rows)


def _write(path: Path, identity: str, result: Reference) -> None:
    statistics = result.statistics
    with atomic(path) as temporary:
        np.savez(
            temporary,
            mean=statistics.mean,
            covariance=statistics.covariance,
            n=np.array(statistics.n),
            features=result.features,
            identity=np.array(identity),
        )
