"""Results small enough for a repository: scores, pictures and where they come from, without weights or images."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

from coldbench import __version__
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic, read_json, sha256, write_json, write_text
from coldbench.report import gallery, inputs

MARK = "published.json"
"""The file that makes a folder a published one: every other file with its SHA-256."""
CALIBRATION = "calibration.parquet"


def publish(runs: Iterable[Path], calibration: Path | None, out: Path) -> list[str]:
    """Copy what a report shows of `runs`, folders BUDGET/RUN of results, to `out`; the runs' names.

    Of a run that are its scores, its pictures, the end of its training log and the time that sampling took. A report is
    rendered from `out` alone by `snakemake --config results=OUT`. What `out` published before is replaced.
    ColdbenchError if a run is not finished, or if `out` holds anything else.
    """
    folders = sorted({run.resolve() for run in runs})  # the name of a budget is that of the folder above
    _check(folders, calibration, out)
    new = out.with_name(f".{out.name}.new")  # whole or not at all
    shutil.rmtree(new, ignore_errors=True)
    try:
        _write(folders, calibration, new)
        shutil.rmtree(out, ignore_errors=True)
        new.rename(out)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return [run.name for run in folders]


def _write(runs: Sequence[Path], calibration: Path | None, out: Path) -> None:
    for run in runs:
        _copy_run(run, out / run.parent.name / run.name)
    if calibration is not None:
        _copy(calibration, out / CALIBRATION)
    inputs.collect([run / "scores.parquet" for run in runs], out / "scores.parquet")
    files = sorted(path for path in out.rglob("*") if path.is_file())
    record = {"coldbench": __version__, "files": {str(path.relative_to(out)): sha256(path) for path in files}}
    write_json(out / MARK, record)


def _check(runs: Sequence[Path], calibration: Path | None, out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ColdbenchError(f"{out} is a file; name a folder")
    if out.exists() and any(out.iterdir()) and not (out / MARK).exists():
        raise ColdbenchError(f"{out} holds other files than published results; choose another folder")
    if (out / MARK).exists():
        told = read_json(out / MARK)
        known = {MARK, *(told.get("files", ()) if isinstance(told, dict) else ())}
        strange = sorted({str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} - known)
        if strange:
            raise ColdbenchError(f"{out / strange[0]} is no published result; move it, or choose another folder")
    if not runs:
        raise ColdbenchError("name the runs to publish, as results/BUDGET/RUN")
    for run in runs:
        for name in ("scores.parquet", "figures.json"):
            if not (run / name).is_file():
                shown = os.path.relpath(run)
                raise ColdbenchError(f"{shown} is not finished: it has no {name}; `snakemake {shown}/{name}` makes it")
    if calibration is not None and not calibration.is_file():
        raise ColdbenchError(f"{calibration} does not exist; `coldbench calibrate` makes it")


def _copy_run(run: Path, out: Path) -> None:
    for name in ("scores.parquet", "figures.json", "logs/sample.tsv"):
        if (run / name).exists():
            _copy(run / name, out / name)
    for pictures in gallery.load([run / "figures.json"]):
        for sprite in pictures.sprites:
            _copy(sprite.path, out / sprite.path.relative_to(run))
    log = run / "model.jsonl"  # the curve is among the pictures' facts; the last line tells the time that it took
    if log.exists():
        write_text(out / log.name, "".join(log.read_text("utf-8").splitlines(keepends=True)[-1:]))


def _copy(source: Path, out: Path) -> None:
    with atomic(out) as temporary:
        shutil.copyfile(source, temporary)
