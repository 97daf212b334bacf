"""What a finished model says of itself, in the metadata of its safetensors file. Reading it needs no torch."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldbench.core.checksums import REMAKE
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import REPLACE
from coldbench.core.validation import Strict, checked

LONGEST = 1 << 24
"""The largest header in bytes; that of the paper's largest network has 200 kB."""


@dataclass(frozen=True)
class ModelHeader:
    """A model's experiment, the channels of its images, and what it was made from.

    `data` and `partner` are the hashes of the prepared data sets: `data` is None for an imported model, `partner` if
    the degradation mixes in no images. `sha256` is that of the whole file with 64 zeros in its place.
    """

    experiment: Experiment
    channels: int
    data: str | None
    partner: str | None
    sha256: str
    provenance: dict[str, Any]


class _Stated(Strict):
    """The metadata beside the fields of the experiment."""

    channels: int
    data: str | None
    partner: str | None
    sha256: str
    provenance: dict[str, Any]


def snapshot_file(model: Path, step: int) -> Path:
    """The file in which the training of `model` keeps its averaged weights after `step` steps."""
    return model.parent / "snapshots" / f"step-{step}{model.suffix}"


def read_header(path: Path) -> ModelHeader:
    """The header of the model in `path`. The weights are not read, so the checksum is not verified.

    ColdbenchError if the file is missing, cannot be read, or holds no model of this version.
    """
    try:
        with path.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            header = json.loads(stream.read(size) if size <= LONGEST else b"")
            fields = json.loads(header.pop("__metadata__")["experiment"])
            end = 8 + size + max(tensor["data_offsets"][1] for tensor in header.values())
            length = os.fstat(stream.fileno()).st_size
        own = {key: fields.pop(key) for key in list(fields) if key in _Stated.model_fields}
    except FileNotFoundError as error:
        raise ColdbenchError(f"model {path} does not exist") from error
    except OSError as error:
        raise ColdbenchError(f"cannot read model {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ColdbenchError(f"{path} is damaged, or no model that coldbench wrote; {REPLACE}") from error
    if length != end:
        raise ColdbenchError(f"{path} is damaged: it has {length:,} bytes, not {end:,}; {REMAKE}")
    if "sha256" not in own:
        raise ColdbenchError(f"model {path} states no checksum: no released version wrote it; train or import it again")
    stated = checked(_Stated, own, f"the metadata of {path}")
    return ModelHeader(checked(Experiment, fields, f"the experiment in {path}"), **dict(stated))
