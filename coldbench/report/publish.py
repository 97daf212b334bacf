"""Results small enough for a repository: scores, sprites and provenance, without weights and samples."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from coldbench.core import __version__
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import copy, read_json, sha256, write_json, write_text
from coldbench.core.validation import Strict, checked
from coldbench.evaluation.scores import merge_scores
from coldbench.evaluation.tables import VALUES, why_not_beside
from coldbench.report import figure_list

RECORD = "published.json"
"""The file that marks a folder of published results: their version, and the SHA-256 of every other file."""
CALIBRATION = "calibration.parquet"


class Record(Strict):
    """The file RECORD."""

    coldbench: str
    files: dict[str, str]


def publish(runs: Iterable[Path], calibration: Path | None, out: Path) -> list[str]:
    """Copy what a report needs of `runs`, folders BUDGET/RUN of results, to `out`, and return the runs' names.

    The copies are the scores, the per-image values if they exist, the sprites, the last line of the training log and
    the record of the sampling time. Models on the way of a training go without per-image values, because only their
    scores are shown. The copies replace what `out` published before. `snakemake --config results=OUT` renders
    a report from `out` alone. Raises ColdbenchError if a run is not finished, or if `out` holds other files.
    """
    folders = sorted({run.resolve() for run in runs})  # the name of the parent folder is the budget
    _check(folders, calibration, out)
    new, old = (out.with_name(f".{out.name}.{state}") for state in ("new", "old"))  # `out` is complete or unchanged
    shutil.rmtree(new, ignore_errors=True)
    try:
        _write(folders, calibration, new)
        if out.exists():
            out.rename(old)
        new.rename(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        if out.exists():
            shutil.rmtree(old, ignore_errors=True)
    return [run.name for run in folders]


def _write(runs: Sequence[Path], calibration: Path | None, out: Path) -> None:
    for run in runs:
        _copy_run(run, out / run.parent.name / run.name)
    if calibration is not None:
        copy(calibration, out / CALIBRATION)
    merge_scores([run / "scores.parquet" for run in runs], out / "scores.parquet")
    write_json(out / RECORD, Record(coldbench=__version__, files=_digests(out)).model_dump())


def _digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _check(runs: Sequence[Path], calibration: Path | None, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ColdbenchError(f"{out} is a file; name a folder")
    if out.exists() and any(out.iterdir()) and not (out / RECORD).exists():
        raise ColdbenchError(f"{out} holds other files than published results; choose another folder")
    if (out / RECORD).exists():
        record = checked(Record, read_json(out / RECORD), str(out / RECORD)).files
        others = [name for name, digest in _digests(out).items() if name != RECORD and record.get(name) != digest]
        if others:
            raise ColdbenchError(f"{out / others[0]} is no published result; move it, or choose another folder")
    if not runs:
        raise ColdbenchError("name the runs to publish, as results/BUDGET/RUN")
    for run in runs:
        for name in ("scores.parquet", "figures.json"):
            if not (run / name).is_file():
                shown = os.path.relpath(run)
                raise ColdbenchError(f"{shown} is not finished: it has no {name}; `snakemake {shown}/{name}` makes it")
        values = run / VALUES
        if values.exists() and (why := why_not_beside(values, run / "scores.parquet")):
            raise ColdbenchError(why)
    if calibration is not None and not calibration.is_file():
        raise ColdbenchError(f"{calibration} does not exist; `coldbench calibrate` writes it")


def _copy_run(run: Path, out: Path) -> None:
    (figures,) = figure_list.load([run / "figures.json"])
    values = () if figures.experiment.snapshot else (VALUES,)
    for name in ("scores.parquet", *values, "figures.json", "logs/sample.tsv"):
        if (run / name).exists():
            copy(run / name, out / name)
    for sprite in figures.sprites:
        copy(sprite.path, out / sprite.path.relative_to(run))
    log = run / "model.jsonl"  # the curve is in figures.json, and the last line holds the training time
    if log.exists():
        write_text(out / log.name, "".join(log.read_text("utf-8", errors="replace").splitlines(keepends=True)[-1:]))
