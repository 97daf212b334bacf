"""The checkpoints of a training: complete (weights, EMA, optimizer, step) and written atomically.

The two newest are kept, so that a damaged file costs one interval. Loading never executes code from a file.
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
from coldbench.core.validation import fingerprint

KEEP_NEWEST = 2
"""The number of newest checkpoints that are kept."""
ARCHIVE_EVERY = 100_000
"""A checkpoint is saved after every so many steps and never deleted (protocol 1.5)."""
POINTER = "newest"
CHECKPOINT = re.compile(r"step-\d{9}\.pt")


def save_state(folder: Path, step: int, state: dict[str, Any]) -> None:
    """Write `state` as the newest checkpoint of `folder`, and delete the ones that are no longer needed.

    Checkpoints with a higher step are deleted too: they predate a rollback and will be written again. Raises
    ColdbenchError if the file cannot be written.
    """
    path = folder / f"step-{step:09d}.pt"
    try:
        with atomic(path) as temporary:
            torch.save(state, temporary)
        write_text(folder / POINTER, path.name + "\n")
    except RuntimeError as error:  # torch reports a full disk or a lost file system as RuntimeError
        full = folder.is_dir() and shutil.disk_usage(folder).free < 1 << 24
        reason = "no space left on device" if full else str(error).splitlines()[0]
        raise ColdbenchError(f"cannot write a checkpoint in {folder}: {reason}") from error
    steps = {other: int(other.stem.removeprefix("step-")) for other in _checkpoints(folder)}
    earlier = [other for other in steps if steps[other] <= step]
    archived = {other for other in earlier if steps[other] % ARCHIVE_EVERY == 0}
    for other in steps.keys() - earlier[:KEEP_NEWEST] - archived:
        other.unlink(missing_ok=True)


def newest(folder: Path) -> Path | None:
    """The checkpoint that a training in `folder` would resume from, or None."""
    return next(iter(_checkpoints(folder)), None)


def load_state(folder: Path, device: torch.device, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The newest undamaged state in `folder`, or None. A damaged file is skipped with a warning.

    Raises ColdbenchError, naming the first differing field, if the state has another `identity`: it was saved by
    another experiment or with other images.
    """
    for path in _checkpoints(folder):
        try:
            with zipfile.ZipFile(path) as archive:  # torch does not verify checksums
                if archive.testzip() is not None:
                    raise zipfile.BadZipFile
            state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
            saved = state["identity"]
        except Exception as error:  # a damaged file can raise anything: zip, pickle, end of file, memory
            log.warning("checkpoint %s is damaged (%s); trying the previous one", path, type(error).__name__)
            continue
        if saved != identity:
            field, old, new = _first_difference(saved, identity)
            raise ColdbenchError(
                f"{path} belongs to another training: its {field} is {old}, not {new}; "
                "choose another folder for the checkpoints"
            )
        return state
    return None


def set_aside(folder: Path, identity: dict[str, Any]) -> None:
    """Move the checkpoints in `folder` into a folder inside it if their training had other images than `identity`.

    The images of a data set can change while its experiment stays the same. Damaged checkpoints are left to
    `load_state`.
    """
    path = newest(folder)
    try:
        saved = torch.load(path, map_location="meta", weights_only=True)["identity"] if path else identity
    except Exception:  # a damaged file can raise anything
        return
    if saved == identity or saved["experiment"] != identity["experiment"]:
        return
    other = folder / f"other-images-{fingerprint({**saved, 'experiment': None})}"
    other.mkdir(exist_ok=True)
    for path in _checkpoints(folder):
        path.replace(other / path.name)
    log.warning("the checkpoints in %s are of other images; they are kept in %s", folder, other)


def _checkpoints(folder: Path) -> list[Path]:
    """The checkpoints in `folder`: first the one in the pointer file, then the others from the newest to the oldest."""
    paths = sorted((path for path in folder.glob("step-*.pt") if CHECKPOINT.fullmatch(path.name)), reverse=True)
    pointer = folder / POINTER
    name = pointer.read_text(errors="replace").strip() if pointer.is_file() else ""
    return sorted(paths, key=lambda path: path.name != name)


def _first_difference(old: Any, new: Any, path: str = "") -> tuple[str, Any, Any]:
    """The first field, by name, in which two nested mappings differ, and its two values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in sorted(old.keys() | new.keys()):
            if old.get(key) != new.get(key):
                return _first_difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    return path.removeprefix("experiment."), old, new
