"""The scores table: its schema, stated once, and how it is read, checked, merged and written."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BeforeValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import files_hash
from coldbench.core.validation import Name, RunName
from coldbench.evaluation.tables import read_table, write_table

if TYPE_CHECKING:
    import pandas as pd


def _null_is(default: Any) -> BeforeValidator:
    """Read a null as `default`: tables store an empty text or an unknown bound as null."""

    def not_null(value: Any) -> Any:
        import pandas as pd

        return default if pd.isna(value) else value

    return BeforeValidator(not_null)


Text = Annotated[str, _null_is("")]
Number = Annotated[float, _null_is(math.nan)]


@dataclass(frozen=True)
class Score:
    """One value of one metric for one method on one sampled set of one run. The fields are the columns of the table.

    `table` and `row` name the cell that the paper prints, "" if it prints none. `set` is the sampled set. `method` is a
    sampling method, `degraded`, or a difference of two methods. `reference` is the split that a distance of features
    compares with, "" for other metrics. `low` and `high` bound the 95 % interval over the `n` images, NaN if unknown.
    `singular` marks a Fréchet distance from fewer images than features. `provenance` is JSON text. `direction` says
    which values of the metric are better: higher or lower. `nfe` and `seconds` are the evaluations of the network and
    the time that the method took for an image, NaN if unknown. `known` is what the method knew of the degradation of a
    restored image: its severity, or also what was drawn for it (drawn), or also another draw in its place (redrawn).
    `steps` are those of the model's training, 0 if unknown; `snapshot` marks a model on the way of a longer training.
    """

    run: RunName
    experiment: Name
    title: Text
    table: Text
    row: Text
    protocol: Name
    default: bool
    rationale: Text
    budget: Name
    dataset: Text
    dataset_title: Text
    embedded: bool
    set: Name
    method: Name
    metric: Name
    reference: Text
    value: Number
    low: Number
    high: Number
    n: int
    singular: bool
    seed: int
    provenance: Text
    direction: Text = ""
    nfe: Number = math.nan
    seconds: Number = math.nan
    known: Text = ""
    steps: Annotated[int, _null_is(0)] = 0
    snapshot: Annotated[bool, _null_is(False)] = False

    @property
    def finite(self) -> bool:
        return math.isfinite(self.value)


Scores = tuple[Score, ...]
COLUMNS = [field.name for field in dataclasses.fields(Score)]
SORT_KEYS = ["experiment", "run", "budget", "set", "method", "metric", "reference"]


def validate_scores(rows: Sequence[Mapping[str, Any]]) -> Scores:
    """The scores in `rows`; ColdbenchError for a missing column, a wrong value, or a repeated score."""
    try:
        scores = TypeAdapter(list[Score]).validate_python(rows)
    except ValidationError as error:
        absent = dict.fromkeys(str(each["loc"][-1]) for each in error.errors() if each["type"] == "missing")
        if absent:
            raise ColdbenchError(f"scores lack the column{'s' * (len(absent) > 1)} {', '.join(absent)}") from None
        first = error.errors()[0]
        raise ColdbenchError(f"scores hold a wrong {first['loc'][1]}: {first['input']!r:.100}") from None
    keys = Counter((s.run, s.budget, s.set, s.method, s.metric, s.reference) for s in scores)
    for (run, budget, part, method, metric, _), count in keys.items():
        if count > 1:
            raise ColdbenchError(
                f"{run}: {count} values for {part} {method} {metric} at the {budget} budget; give each file once"
            )
    return tuple(scores)


def read_scores(paths: Iterable[Path]) -> Scores:
    """The scores of the parquet files at `paths`; ColdbenchError if a file is missing, damaged or has a wrong value."""
    rows: list[dict[str, Any]] = []
    for path in paths:
        rows += read_table(path).to_dict("records")  # type: ignore[arg-type]
    return validate_scores(rows)


def without_snapshots(scores: Iterable[Score]) -> Scores:
    """The scores of finished trainings: those of models on the way of one are for curves alone."""
    return tuple(score for score in scores if not score.snapshot)


def write_scores(scores: Iterable[Score], out: Path, made_from: Mapping[str, Any]) -> None:
    """Write the scores to `out` (parquet), in their order, with what they were made from."""
    write_table(_frame(scores), out, made_from)


def merge_scores(paths: Iterable[Path], out: Path) -> None:
    """Write the scores of all files, sorted, to `out` (parquet), and beside it as CSV without the provenance.

    The table is made from the contents of the files.
    """
    paths = list(paths)
    frame = _frame(read_scores(paths)).sort_values(SORT_KEYS)
    csv = frame.drop(columns="provenance").to_csv(index=False)
    write_table(frame, out, {"scores": files_hash(paths)}, csv)


def _frame(scores: Iterable[Score]) -> pd.DataFrame:
    import pandas as pd

    return pd.DataFrame([vars(score) for score in scores], columns=COLUMNS)
