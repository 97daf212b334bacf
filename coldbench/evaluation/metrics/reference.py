"""The features of a reference set, made once: statistics for the Fréchet distance, and rows for the kernel distance.

A file belongs to exactly one set: its name carries a hash of what the set is, and it holds that in full. It is a cache:
whatever is wrong with it, it is made again.
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

KEPT = 10_000
"""Rows of features that are kept; the statistics are of all."""


@dataclass(frozen=True)
class Reference:
    """Statistics of all n images of a set, and the features of its first min(n, KEPT), float32 (rows, d)."""

    statistics: Statistics
    features: npt.NDArray[np.float32]


def reference(
    folder: Path,
    about: Mapping[str, Any],
    batches: Callable[[], Iterable[Tensor]],
    features: Callable[[Tensor], Features],
) -> Reference:
    """The reference set that `about` identifies, from its file in `folder` or from its images.

    `about` is a JSON object with, at least, the name of the features under "features", and whatever else tells one set
    from another. `batches` gives the images, part by part, and `features` the rows (n, d) of a part; both are called
    only if the file is absent, damaged or of another set. ColdbenchError for fewer than 2 images, features that are not
    finite, or a file that cannot be written.
    """
    path = folder / f"{about['features']}-{fingerprint(about)}.npz"
    identity = json.dumps(about, sort_keys=True)
    stored = _read(path, identity)
    if stored is None:
        stored = _computed(map(features, batches()))
        _write(path, identity, stored)
    return stored


def _computed(parts: Iterable[Features]) -> Reference:
    moments: Moments | None = None
    kept: list[npt.NDArray[np.float32]] = []
    for part in parts:
        if moments is None:
            moments = Moments(part.shape[-1])
        kept.append(part[: max(KEPT - moments.n, 0)].astype(np.float32))
        moments.add(part)
    if moments is None:
        raise ColdbenchError("the reference set has no images")
    return Reference(moments.statistics(), np.concatenate(kept))


def _read(path: Path, identity: str) -> Reference | None:
    """What `path` holds, or None, told in the log unless the file is just absent."""
    if not path.exists():
        return None
    try:
        with zipfile.ZipFile(path) as archive:  # NumPy checks no sum of a part that it does not read to its end
            if archive.testzip() is not None:
                raise zipfile.BadZipFile
        with np.load(path, allow_pickle=False) as file:
            statistics = Statistics(file["mean"], file["covariance"], int(file["n"]))
            found, rows = str(file["about"]), file["features"]
    except Exception as error:  # the file decides what goes wrong: zip, array header, end of file, a missing entry
        log.warning("reference features %s are damaged (%s); making them again", path, type(error).__name__)
        return None
    if found != identity:
        log.warning("reference features %s are of another set; making them again", path)
        return None
    return Reference(statistics, rows)


def _write(path: Path, identity: str, made: Reference) -> None:
    statistics = made.statistics
    with atomic(path) as temporary:
        np.savez(
            temporary,
            mean=statistics.mean,
            covariance=statistics.covariance,
            n=np.array(statistics.n),
            features=made.features,
            about=np.array(identity),
        )
