"""Files that prove their content: by a SHA-256 that they state of themselves, or by a hash in their name."""

from __future__ import annotations

import glob
import hashlib
import json
import mmap
import re
from pathlib import Path
from typing import Any

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import REPLACE, atomic, below, read_json, remove_if_abandoned, sha256
from coldbench.core.logs import log

REMAKE = "delete it and run again, or copy it again"
"""What to do about a damaged file that shows that coldbench wrote it; any other may be a user's only copy."""
UNSEALED = "0" * 64
"""What `seal` replaces."""


def seal(path: Path, key: str = "file_sha256") -> None:
    """Make a file state its own SHA-256: it replaces the UNSEALED value of `key`, with which it was computed."""
    with path.open("rb+") as stream:
        digest = sha256(path)
        with mmap.mmap(stream.fileno(), 0) as content:
            place = _stated(content, key, UNSEALED)
            assert place is not None, f"{path} has no place for its checksum"
            content[place[0] : place[1]] = digest.encode()


def check_seal(path: Path, key: str = "file_sha256") -> str:
    """The SHA-256 that `seal` wrote into the file; ColdbenchError if the file is absent, not sealed or was changed."""
    try:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
            place = _stated(content, key, "[0-9a-f]{64}")
            if place is None:
                why = f"it is damaged, of another version, or not of coldbench; {REPLACE}"
                raise ColdbenchError(f"{path} states no checksum: {why}")
            digest = hashlib.sha256(content[: place[0]] + UNSEALED.encode())
            with memoryview(content) as view, view[place[1] :] as rest:
                digest.update(rest)
            stated = content[place[0] : place[1]].decode()
    except FileNotFoundError as error:
        raise ColdbenchError(f"{path} does not exist") from error
    except (OSError, ValueError) as error:  # an empty file cannot be mapped
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is empty"
        raise ColdbenchError(f"cannot read {path}: {reason}; {REPLACE}") from error
    if digest.hexdigest() != stated:
        raise ColdbenchError(f"{path} is damaged: its content does not match its checksum; {REMAKE}")
    return stated


def _stated(content: mmap.mmap, key: str, value: str) -> tuple[int, int] | None:
    """Where a file states the value of `key` in JSON, which may itself be text in JSON."""
    match = re.search(rf'{key}\W{{3,8}}({value})\\?"'.encode(), content)
    return match.span(1) if match else None


def write_sealed(path: Path, value: dict[str, Any]) -> None:
    """Write `value` to `path` as JSON that states its own SHA-256, atomically."""
    with atomic(path) as temporary:
        content = {**value, "file_sha256": UNSEALED}
        temporary.write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        seal(temporary)


def read_sealed(path: Path) -> dict[str, Any]:
    """What `write_sealed` wrote to `path`; ColdbenchError if it is missing, cannot be read or was changed."""
    check_seal(path)
    value = read_json(path)
    if not isinstance(value, dict):
        raise ColdbenchError(f"{path} must hold keys and values; {REMAKE}")
    return {key: each for key, each in value.items() if key != "file_sha256"}


def verified(listing: Path, name: str, digest: str) -> Path:
    """The file `name` in the folder of `listing`, which states its SHA-256.

    ColdbenchError if it lies elsewhere, is missing or was changed.
    """
    try:
        file = below(listing.parent, Path(name))
        if sha256(file) == digest:
            return file
        reason = f"{file} is damaged"
    except ColdbenchError as error:
        reason = str(error)
    except OSError as error:
        reason = f"cannot read {listing.parent / name}: {error.strerror or error}"
    raise ColdbenchError(f"{reason}; delete {listing}, then run again")


def write_hashed(folder: Path, stem: str, suffix: str, content: bytes | memoryview) -> Path:
    """Write `content` to `folder`/STEM-HASH.SUFFIX, atomically; the hash is that of the content."""
    path = folder / f"{stem}-{hashlib.sha256(content).hexdigest()[:16]}{suffix}"
    with atomic(path) as temporary:
        temporary.write_bytes(content)
    return path


def find_hashed(folder: Path, stem: str, suffix: str) -> Path | None:
    """The file that `write_hashed` wrote, or None.

    A file whose content does not match its name is deleted, and so is what a killed writer left.
    """
    name = f"{glob.escape(stem)}-{'[0-9a-f]' * 16}{suffix}"
    for temporary in folder.glob(f".{name}.*{suffix}"):  # the next writer of that content may never come
        remove_if_abandoned(temporary)
    for path in sorted(folder.glob(name)):
        if sha256(path)[:16] == path.stem.rpartition("-")[2]:
            return path
        log.warning("%s is damaged and will be made again", path)
        path.unlink()
    return None
