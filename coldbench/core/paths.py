"""Paths in a configuration: what they may hold, as types of pydantic."""

from __future__ import annotations

import os
import re
from typing import Annotated

from pydantic import AfterValidator, Field


def _path(value: str) -> str:
    if value.startswith("~") or re.search(r"\$[A-Za-z_{]", value):
        written = os.path.expandvars(os.path.expanduser(value))  # noqa: PTH111 (keeps the ~ of an unknown user)
        advice = f"write {written!r}" if written != value else "write the folder itself"
        raise ValueError(f"~ and $NAME are not expanded, because a job's machine may have others; {advice}")
    if value.startswith("-") or "\n" in value or "\t" in value:
        raise ValueError("a path with a line end or a tab, or a dash at its beginning, is not supported")
    if max(len(part.encode()) for part in value.split("/")) > 255:
        raise ValueError("a file system takes names of at most 255 bytes")
    return value


def _folder(value: str) -> str:
    if found := re.search(r"[{}<>*?\[\]]", value):
        raise ValueError(f"'{found[0]}' is not supported here, because Snakemake's patterns use it")
    if not value.strip("/"):
        raise ValueError("the root of the file system is not supported")
    return value.rstrip("/")


AnyPath = Annotated[str, Field(max_length=1000), AfterValidator(_path)]
"""A path as it stands: nothing in it is expanded."""
Folder = Annotated[
    str,
    Field(min_length=1, max_length=500, json_schema_extra={"pattern": r"^[^{}<>*?\[\]]*$"}),
    AfterValidator(_path),
    AfterValidator(_folder),
]
"""A folder of the workflow's files, whose paths Snakemake's patterns hold."""
