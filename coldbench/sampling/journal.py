"""What was written into a folder, entered line by line before it is written: so that a stopped work can go on.

An entry is a JSON object with the `output`'s path in the folder, its `sha256`, and whatever decides its content.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256

JOURNAL = ".restored.jsonl"
Record = dict[str, Any]


def finished(out: Path, record: Record, wanted: Record) -> bool:
    """Whether an output is there, whole, and made as `wanted`."""
    path = out / wanted["output"]
    return all(record.get(key) == value for key, value in wanted.items()) and (
        path.is_file() and sha256(path) == record.get("sha256")
    )


def load(out: Path) -> dict[str, Record]:
    """The journal of a folder by output, the newest entries; lines that a kill cut short are passed over.

    ColdbenchError if what stands there cannot be read, or is something else: a file that holds no entry at all.
    """
    path, records = out / JOURNAL, dict[str, Record]()
    if not os.path.lexists(path):
        return records
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise ColdbenchError(f"cannot read {path}: {error.strerror or error}") from error
    for line in text.splitlines():
        try:
            record = json.loads(line)
            if "sha256" in record:
                records[record["output"]] = record
        except (ValueError, KeyError, TypeError):
            continue
    if text and not records:
        raise foreign(path)
    return records


def foreign(path: Path) -> ColdbenchError:
    """The error for a file that stands where one is to be written, and is not known from a journal."""
    return ColdbenchError(f"{path} exists and was not written by restore: move it or give another folder")


def refuse_foreign(out: Path, outputs: list[str], result: str, records: Mapping[str, Record]) -> None:
    """Raise ColdbenchError if a file that is to be written is there and not in the journal, or cannot be there.

    `outputs` are known by their names, `result` by its content as well.
    """
    path = out / result
    known = path.is_file() and sha256(path) == records.get(result, {}).get("sha256")
    if os.path.lexists(path) and not known:
        raise foreign(path)
    for output in outputs:
        path = out / output
        if os.path.lexists(path) and (output not in records or path.is_dir()):
            raise foreign(path)
        for folder in Path(output).parents:
            if os.path.lexists(out / folder) and not (out / folder).is_dir():
                raise ColdbenchError(
                    f"{out / folder} is no folder, but {output} needs one: move it or give another folder"
                )


def append(path: Path, records: Mapping[str, Record]) -> None:
    """Enter `records` into the journal, down to the disk."""
    try:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(lines(records))
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise ColdbenchError(f"cannot write {path}: {error.strerror or error}") from error


def lines(records: Mapping[str, Record]) -> str:
    return "".join(json.dumps(record) + "\n" for record in records.values())
