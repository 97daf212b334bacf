"""Reading and writing files; a written file is complete or absent."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml

from coldbench.core.errors import ColdbenchError
from coldbench.core.validation import DEEPEST, LONGEST_NUMBER, MOST_VALUES, check_plain

LONGEST_YAML = 300_000
"""Characters of a file that a user writes; the suite's own have at most 16,000."""

REPLACE = "give another file, or move it away and run again"
"""What to do about a file that cannot be read and that anybody may have written."""


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


def check_place(path: Path, folder: bool = False) -> Path:
    """The nearest thing at or above `path` that exists; ColdbenchError if a file (or a `folder`) cannot be below it."""
    place = next(each for each in (path, *path.absolute().parents) if each.exists() or each.is_symlink())
    if not place.exists():
        raise ColdbenchError(f"cannot write {path}: {place} is a link to {place.readlink()}, which does not exist")
    if place.is_dir() == (place == path and not folder):
        raise ColdbenchError(f"cannot write {path}: {place} is {'a' if place.is_dir() else 'no'} folder")
    return place


def check_writable(path: Path, folder: bool = False) -> Path:
    """The path, if a file (or a `folder`) can be written there, else ColdbenchError. Called before any work."""
    place = check_place(path, folder)
    try:
        with tempfile.TemporaryFile(dir=place if place.is_dir() else place.parent):
            return path
    except OSError as error:
        raise ColdbenchError(f"cannot write {path}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, atomically, as UTF-8; half of a surrogate pair, which JSON can hold, as its escape."""
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")


def copy(source: Path, out: Path) -> None:
    """Copy the content of the file `source` to `out`, atomically."""
    with atomic(out) as temporary:
        shutil.copyfile(source, temporary)


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
        raise ColdbenchError(f"{path} is damaged: {error}; {REPLACE}") from error


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values in the YAML file `path`; ColdbenchError if it cannot be read, is no mapping, or `parse_yaml`
    refuses it."""
    try:
        value = parse_yaml(path.read_text(encoding="utf-8"), str(path))
    except OSError as error:
        raise ColdbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ColdbenchError(f"{path} is no text in UTF-8 (byte {error.start})") from error
    if not isinstance(value, dict):
        raise ColdbenchError(f"{path} must hold keys and values")
    return value


def parse_yaml(text: str, what: str) -> Any:
    """The value in the YAML `text`, of the types that JSON has, also with whole numbers as keys; dates stay text.

    ColdbenchError naming `what` for text that is not YAML, a key that stands twice in one mapping, bytes and other
    types, and values too deep or too many.
    """
    if len(text) > LONGEST_YAML:
        raise ColdbenchError(f"{what} has {len(text):,} characters; a configuration has at most {LONGEST_YAML:,}")
    try:
        loader = _Loader(text)
        loader.name = what
        value = loader.get_single_data()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ColdbenchError(f"{what} is not YAML: line {line}: {error.problem}") from error
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError) as error:  # as its converters do
        raise ColdbenchError(f"{what} is not YAML: {error}") from error
    check_plain(value, what, keys=str | int)
    return value


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice, of which YAML would keep the second, and whatever takes long to read."""

    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set[tuple[str, str]]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise self._refusal(key.start_mark.line, f"the key '{key.value}' stands twice in one mapping")
                seen.add((key.tag, key.value))
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_VALUES:
            raise self._refusal(node.start_mark.line, "merges (<<) of too many keys")

    def construct_scalar(self, node: yaml.ScalarNode | yaml.MappingNode) -> str:
        if node.tag.endswith(":int") and len(node.value) > LONGEST_NUMBER:
            raise self._refusal(node.start_mark.line, f"a whole number of {len(node.value):,} digits")
        return str(super().construct_scalar(node))

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level >= DEEPEST:
            raise self._refusal(self.line, f"more than {DEEPEST} levels of nesting")
        super().fetch_flow_collection_start(token)

    def _refusal(self, line: int, reason: str) -> ColdbenchError:
        return ColdbenchError(f"{self.name}, line {line + 1}: {reason}")


def sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def files_hash(files: Iterable[Path]) -> str:
    """The hash of the contents of `files` in their order, 64 hexadecimal characters; a missing file counts as empty."""
    sums = [sha256(file) if file.is_file() else "" for file in files]
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()
