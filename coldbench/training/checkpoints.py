"""The state of a training on disk: complete (weights, average, optimizer, position) and written atomically.

The checkpoint before the newest is kept, so that a damaged file costs one interval. Loading never executes code from
the file.
"""

from __future__ import annotations

import re
import shutil
import zipfile
from pathlib import Path
from typing import Any

import torch

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic, write_text
from coldbench.core.logs import log

KEPT = 2
"""How many checkpoints of a training are kept: a damaged newest one costs one interval."""
ARCHIVE_EVERY = 100_000
"""Checkpoints of every so many updates are never deleted (protocol 1.5)."""
POINTER = "newest"
NUMBERED = re.compile(r"step-\d{9}\.pt")


def save_state(folder: Path, done: int, state: dict[str, Any]) -> None:
    """Write `state` after update `done` as the newest of `folder`, and delete those that are not to be kept.

    Those of later updates are not: a training that went on from before a damaged one has yet to come to them.
    """
    path = folder / f"step-{done:09d}.pt"
    try:
        with atomic(path) as temporary:
            torch.save(state, temporary)
        write_text(folder / POINTER, path.name + "\n")
    except RuntimeError as error:  # torch reports a full disk or a lost file system as RuntimeError
        full = shutil.disk_usage(folder).free < 1 << 24 if folder.is_dir() else False
        reason = "no space left on device" if full else str(error).splitlines()[0]
        raise ColdbenchError(f"cannot write a checkpoint in {folder}: {reason}") from error
    numbers = {other: int(other.stem.removeprefix("step-")) for other in _states(folder)}
    for other in [other for other, number in numbers.items() if number > done]:
        other.unlink(missing_ok=True)
        del numbers[other]
    for other in list(numbers)[KEPT:]:
        if numbers[other] % ARCHIVE_EVERY:
            other.unlink(missing_ok=True)


def newest(folder: Path) -> Path | None:
    """The checkpoint that a training in `folder` would go on from, if there is one."""
    return next(iter(_states(folder)), None)


def load_state(folder: Path, device: torch.device, belongs: dict[str, Any]) -> dict[str, Any] | None:
    """The newest state in `folder` that is whole, or None. A damaged one is reported and passed over.

    Raises ColdbenchError, naming the differing field, if it was saved by another experiment or from other images.
    """
    for path in _states(folder):
        try:
            with zipfile.ZipFile(path) as archive:  # torch itself passes over wrong checksums
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            found = state["belongs"]
        except Exception as error:  # the file decides what goes wrong: zip, pickle, end of file, memory
            log.warning("checkpoint %s is damaged (%s); trying the one before", path, type(error).__name__)
            continue
        if found != belongs:
            field, there, here = _first_difference(found, belongs)
            raise ColdbenchError(
                f"{path} belongs to another training: {field} is {there} there and {here} here; "
                "delete that folder or give another --work"
            )
        return state
    return None


def _states(folder: Path) -> list[Path]:
    """The checkpoints in `folder`: what the pointer names first, then from the newest to the oldest."""
    found = sorted((path for path in folder.glob("step-*.pt") if NUMBERED.fullmatch(path.name)), reverse=True)
    pointer = folder / POINTER
    named = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    return sorted(found, key=lambda path: path.name != named)


def _first_difference(there: Any, here: Any, path: str = "") -> tuple[str, Any, Any]:
    """The first field, in the order of their names, in which two nested mappings differ, and both its values."""
    if isinstance(there, dict) and isinstance(here, dict):
        for key in sorted(there.keys() | here.keys()):
            if there.get(key) != here.get(key):
                return _first_difference(there.get(key), here.get(key), f"{path}.{key}" if path else key)
    return path.removeprefix("experiment."), there, here
