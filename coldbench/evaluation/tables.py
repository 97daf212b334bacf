"""Tables of results on disk: parquet files that state their own SHA-256, and what they were made from.

A table can have a CSV of the same name for people. It is no source of anything, and the table states its SHA-256.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldbench.core.checksums import UNSEALED, check_seal, seal
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic, sha256, write_text
from coldbench.core.logs import log

if TYPE_CHECKING:  # planning reads what a table was made from, and must not wait for pandas
    import pandas as pd

METADATA = b"coldbench"
"""The key of a table's metadata."""
VALUES = "images.parquet"
"""The table with the per-image values of a run, beside its scores."""


def write_table(
    frame: pd.DataFrame,
    out: Path,
    made_from: Mapping[str, Any],
    csv: str = "",
    facts: Mapping[str, Any] | None = None,
) -> None:
    """Write `frame` to `out`, atomically, with what it was made from (JSON), after its `csv`, if it has one.

    `facts` are stated as well: what a reader of the columns has to know (JSON).
    """
    import pyarrow
    from pyarrow import parquet

    table = pyarrow.Table.from_pandas(frame, preserve_index=False)
    stated: dict[str, Any] = {"made_from": made_from, **({"facts": facts} if facts else {})}
    if csv:
        write_text(out.with_suffix(".csv"), csv)
        stated["csv"] = sha256(out.with_suffix(".csv"))
    own = json.dumps({**stated, "file_sha256": UNSEALED})
    with atomic(out) as temporary:
        with parquet.ParquetWriter(temporary, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata({METADATA: own})
        seal(temporary)


def read_table(path: Path) -> pd.DataFrame:
    """The table in `path`; ColdbenchError if the file is missing or damaged."""
    import pandas as pd

    check_seal(path)
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow raises subclasses of ValueError
        raise ColdbenchError(f"{path} is not a readable table: {error}") from error


def read_made_from(path: Path) -> dict[str, Any]:
    """What the table in `path` was made from; ColdbenchError if the file is missing or damaged."""
    return dict(_stated(path)["made_from"])


def read_facts(path: Path) -> dict[str, Any]:
    """The facts that the table in `path` states, {} without; ColdbenchError as `read_made_from`."""
    return dict(_stated(path).get("facts", {}))


def csv_fits(path: Path) -> bool:
    """Whether the CSV of the table in `path` is the one that was written; ColdbenchError if the table is damaged."""
    csv = path.with_suffix(".csv")
    return csv.is_file() and _stated(path).get("csv") == sha256(csv)


def _stated(path: Path) -> dict[str, Any]:
    """What the table in `path` states of itself, with `made_from`."""
    import pyarrow
    from pyarrow import parquet

    check_seal(path)
    try:
        stated: dict[str, Any] = json.loads(parquet.read_metadata(path).metadata[METADATA])
        return {**stated, "made_from": dict(stated["made_from"])}
    except (OSError, pyarrow.ArrowException, ValueError, KeyError, TypeError) as error:
        raise ColdbenchError(f"{path} does not say what it was made from; delete it and run again") from error


def why_not_beside(values: Path, scores: Path) -> str:
    """Why `values` are not the per-image values of `scores`, in a line; "" if they are.

    ColdbenchError if the scores are missing or damaged.
    """
    made_from = read_made_from(scores)
    try:
        same = read_made_from(values) == made_from
    except ColdbenchError as error:
        return str(error)
    return "" if same else f"{values} was not made with {scores}; delete it and run again"


def is_up_to_date(path: Path, made_from: Mapping[str, Any]) -> bool:
    """Whether the table in `path` was made from that; a damaged file is not, with a warning.

    Scores of more FID protocols than `fid` names are, because scoring again would lose their values.
    """
    try:
        if not path.exists():
            return False
        stated = read_made_from(path)
        more = set(stated.get("fid", [])) >= set(made_from.get("fid", []))
        return more and {**stated, "fid": None} == {**made_from, "fid": None}
    except ColdbenchError as error:
        log.warning("%s", error)
        return False
