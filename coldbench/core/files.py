"""Reading and writing files; a written file is complete or absent."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from coldbench.core.errors import ColdbenchError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it is synced and renamed to `path`, otherwise it is removed.

    After an exception, a signal or a full disk, `path` is the old file or the complete new one. What a killed process
    left is removed by the next writer of `path`.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary, handle = _temporary(path)
    except OSError as error:
        raise ColdbenchError(f"cannot write {path}: {error.strerror or error}") from error
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except OSError as error:
        raise ColdbenchError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)
        os.close(handle)


def _temporary(path: Path) -> tuple[Path, int]:
    """A new file beside `path`, and the descriptor that locks it while this process lives."""
    number = 0
    while True:
        temporary = path.with_name(f".{path.name}.{number}{path.suffix}")
        try:
            handle = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            number += not remove_if_abandoned(temporary)
            continue
        if _lock(handle, temporary) is not False:
            return temporary, handle
        os.close(handle)  # another writer took the file for abandoned before it was locked


def _lock(handle: int, path: Path) -> bool | None:
    """Whether this process locked the open file, and it is still the one at `path`; None if locking is unsupported."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.path.samestat(os.fstat(handle), path.lstat())
    except (BlockingIOError, FileNotFoundError):
        return False
    except OSError:
        return None


def remove_if_abandoned(temporary: Path) -> bool:
    """Remove a temporary file whose writer is dead, and what a library wrote beside it; whether `temporary` is gone."""
    try:
        handle = os.open(temporary, os.O_RDWR)
    except OSError as error:
        return isinstance(error, FileNotFoundError)
    try:
        if not _lock(handle, temporary):
            return False
        for beside in temporary.parent.glob(f"{glob.escape(temporary.name)}.*"):
            beside.unlink(missing_ok=True)
        temporary.unlink()
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def below(folder: Path, name: Path) -> Path:
    """The path of the file `name` in `folder`; the name comes from a file that someone else may have written.

    Raises ColdbenchError if there is no such file, if `name` is absolute or has a "..", or if a link leads elsewhere.
    """
    path = folder / name
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # absent or too long; null characters; loops of links
        inside = path.resolve(strict=True).is_relative_to(folder.resolve())
        if inside and path.is_file() and not name.is_absolute() and ".." not in name.parts:
            return path
    raise ColdbenchError(f"{str(name)[:100]!r} is no file in {folder}")


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, atomically, as UTF-8."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write `value` to `path` as indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=1, sort_keys=True) + "\n")


def read_json(path: Path) -> Any:
    """The JSON value in `path`; ColdbenchError if it is missing, cannot be read or is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ColdbenchError(f"{path} does not exist") from error
    except OSError as error:
        raise ColdbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ColdbenchError(f"{path} is damaged: {error}; delete it and run again") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values in the YAML file `path`; ColdbenchError if it cannot be read or is no mapping."""
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ColdbenchError(f"cannot read {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ColdbenchError(f"{path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ColdbenchError(f"{path} must hold keys and values")
    return value


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
