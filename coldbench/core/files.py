"""Reading and writing files; a written file is complete or absent."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from coldbench.core.errors import ColdbenchError


@contextlib.contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`. On success it is synced and renamed to `path`, otherwise it is removed.

    After an exception, a signal or a full disk, `path` is the old file or the complete new one.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
    except OSError as error:
        raise ColdbenchError(f"cannot write {path}: {error.strerror or error}") from error
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)  # mkstemp makes 0600; results are shared within a lab
        temporary.replace(path)
    except OSError as error:
        raise ColdbenchError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, atomically, as UTF-8; half of a surrogate pair, which JSON can hold, as its escape."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def copy(source: Path, out: Path) -> None:
    """Copy the content of the file `source` to `out`, atomically."""
    with atomic(out) as temporary:
        shutil.copyfile(source, temporary)


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
