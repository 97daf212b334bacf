"""The data sets: read and verified once, prepared into two arrays, and memory-mapped from then on.

`registry` lists the data sets and loads neither torch nor Pillow. `prepared` writes and reads their arrays,
`preprocessing` makes network inputs of them, and `image_io` reads single image files.
"""

from coldbench.data.prepared import (
    LARGEST,
    SMALLEST,
    available,
    check_source,
    fetch,
    info,
    load,
    prepare,
    prepared_fits,
    source_digest,
    unchanged,
    write_info,
)
from coldbench.data.registry import DATASETS, SPLITS, Dataset, dataset

__all__ = [
    "DATASETS",
    "LARGEST",
    "SMALLEST",
    "SPLITS",
    "Dataset",
    "available",
    "check_source",
    "dataset",
    "fetch",
    "info",
    "load",
    "prepare",
    "prepared_fits",
    "source_digest",
    "unchanged",
    "write_info",
]
