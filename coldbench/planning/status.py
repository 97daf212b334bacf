"""What is there of every run: how far its training is and where it runs, and whether it was sampled and scored.

Nothing here writes, needs a data set or imports torch; a damaged file is a state, not an error.
"""

from __future__ import annotations

import json
import re
import time
import zipfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import safetensors
from pydantic import BaseModel, Field

from coldbench.core.config import Run
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import read_json
from coldbench.core.logs import clock
from coldbench.planning.grid import Grid, build
from coldbench.sampling import manifest
from coldbench.training.slurm import HEARTBEAT

HEARTBEAT_TIMEOUT = 300.0
"""Seconds without a sign of life after which a training counts as dead."""
CHECKPOINT = re.compile(r"step-(\d{9})\.pt")  # as `checkpoint.save_state` names them
DAMAGE = (
    *(ColdbenchError, OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError),
    safetensors.SafetensorError,
)
"""What can go wrong in reading a file whose content may be anything."""

Drawn = Literal["missing", "waiting", "running", "stopped", "failed", "done", "imported", "outdated", "damaged"]
Stage = Literal["", "partly", "done", "outdated", "damaged"]
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Sign(BaseModel):
    """A trainer's sign of life (`slurm.Heartbeat`); `time` is in seconds since 1970."""

    state: Literal["running", "stopped", "failed"]
    step: Annotated[int, Field(ge=0)]
    max_steps: Annotated[int, Field(ge=1)]
    images_per_second: Finite
    seconds_left: Finite | None
    time: Finite
    host: str
    job: str
    error: str = ""


@dataclass(frozen=True)
class Line:
    """One run. `model` is the run whose model it samples, `step` the last one done or, of a stopped training, saved;
    `time` (seconds since 1970) that of the finished model or of the last sign of life. What is not known is None or "".
    """

    run: str
    budget: str
    title: str
    model: str
    max_steps: int
    state: Drawn
    samples: Stage
    scores: Stage
    step: int | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    time: float | None = None
    host: str = ""
    job: str = ""
    device: str = ""
    source: str = ""
    note: str = ""


def grid_of(raw: Mapping[str, Any]) -> Grid:
    """The grid of a configuration, whether its data are there or not; ColdbenchError for a bad one."""
    results = Path(str(raw.get("results", "results")))

    def finished(budget: str, run: str) -> bool:
        return (results / budget / run / "scores.parquet").exists()

    return build(raw, finished, check_operators=False, check_sources=False)


def states(grid: Grid, results: Path, now: float) -> list[Line]:
    """A line for every run of the report, in its order, then for the others that own a model or have left something.

    `results` is the folder of the results, `now` the time in seconds since 1970.
    """
    owners = {run.model for run in grid.report_runs.values()}
    names = [*grid.report_runs, *(name for name in grid.all_runs if name not in grid.report_runs)]
    kept = [
        run
        for run in map(grid.all_runs.__getitem__, names)
        if run.metadata.run in grid.report_runs
        or run.metadata.run in owners
        or (results / run.metadata.budget / run.metadata.run).is_dir()
    ]
    return [_line(run, results / run.metadata.budget, now) for run in kept]


def _line(run: Run, folder: Path, now: float) -> Line:
    """The state of one run in the folder of its budget."""
    own, experiment = folder / run.metadata.run, run.experiment
    model = folder / run.model / "model.safetensors"
    found = _model(model, experiment)
    if found is None:
        found = _training(model.parent / "checkpoints" / experiment.fingerprint, now)
    if not run.trains and found["state"] not in ("done", "imported"):
        found = {"state": "waiting", "note": f"for the model of {run.model}: {found['state']}"}
    samples = _samples(own, model)
    return Line(
        run=run.metadata.run,
        budget=run.metadata.budget,
        title=run.metadata.title,
        model=run.model,
        max_steps=experiment.training.max_steps,
        samples=samples,
        scores=_scores(own),
        **found,
    )


def _model(path: Path, wanted: Experiment) -> dict[str, Any] | None:
    """What a finished model tells about itself, or None if there is none; its weights are not read."""
    try:
        with safetensors.safe_open(path, framework="numpy") as stream:  # checks the size as well
            about = json.loads(stream.metadata()["experiment"])
        origin = about.pop("provenance", {})
        about.pop("channels", None)
        source, device = str(origin.get("imported", "")), str(origin.get("trained_on", ""))
        there = Experiment.model_validate(about)
        when = path.stat().st_mtime
    except FileNotFoundError:
        return None
    except DAMAGE:
        return {"state": "damaged", "note": f"{path.name} cannot be read"}
    if there.fingerprint != wanted.fingerprint:
        return {"state": "outdated", "time": when, "note": "made with other settings; a run makes it again"}
    return {"state": "imported" if source else "done", "time": when, "device": device, "source": source}


def _training(work: Path, now: float) -> dict[str, Any]:
    """What a training has left in its folder: signs of life and checkpoints."""
    notes, sign = [], None
    try:
        if (work / HEARTBEAT).exists():
            sign = Sign.model_validate(read_json(work / HEARTBEAT))
    except DAMAGE:
        notes.append(f"{HEARTBEAT} is damaged")
    told = sign.model_dump(include={"time", "host", "job"}) if sign else {}
    if sign and sign.state == "running" and now - sign.time <= HEARTBEAT_TIMEOUT:
        left = None if sign.seconds_left is None else max(0.0, sign.seconds_left - max(0.0, now - sign.time))
        speed = {"images_per_second": sign.images_per_second, "seconds_left": left}
        return {"state": "running", "step": sign.step, **speed, **told}
    if sign and sign.state == "running":
        notes.insert(0, f"no sign of life since {date(sign.time)}")
    checkpoints = _checkpoints(work)
    whole = [path for path in checkpoints if _is_whole(path)]
    if checkpoints and whole[:1] != checkpoints[:1]:
        notes.append("the newest checkpoint is damaged" if whole else "every checkpoint is damaged")
    if sign and sign.state == "failed":
        notes.insert(0, " ".join(sign.error.split()))
    note = "; ".join(filter(None, notes))
    ended = "failed" if sign and sign.state == "failed" else "stopped"
    if whole:
        return {"state": ended, "step": int(whole[0].stem[-9:]), "note": note, **told}
    if checkpoints or (notes and not sign):
        return {"state": "damaged", "note": note, **told}
    return {"state": ended, "step": 0, "note": note, **told} if sign else {"state": "missing"}


def _checkpoints(work: Path) -> list[Path]:
    """The checkpoints in the order in which a training tries them; `checkpoint` itself would import torch."""
    found = sorted((path for path in work.glob("step-*.pt") if CHECKPOINT.fullmatch(path.name)), reverse=True)
    try:
        named = (work / "newest").read_text(errors="replace").strip()
    except OSError:
        named = ""
    return sorted(found, key=lambda path: path.name != named)


def _is_whole(path: Path) -> bool:
    """Whether a checkpoint has its end; its checksums are for the training to verify."""
    try:
        return zipfile.is_zipfile(path)
    except OSError:
        return False


def _samples(folder: Path, model: Path) -> Stage:
    path = folder / "samples.json"
    try:
        if path.exists():
            manifest.read_manifest(path)
            return "outdated" if model.exists() and path.stat().st_mtime < model.stat().st_mtime else "done"
        return "partly" if any((folder / "shards").glob("*/*.npy")) else ""
    except DAMAGE:
        return "damaged"


def _scores(folder: Path) -> Stage:
    path, samples = folder / "scores.parquet", folder / "samples.json"
    try:
        if not path.exists():
            return ""
        with path.open("rb") as stream:
            begin, _, end = stream.read(4), stream.seek(-4, 2), stream.read(4)
        if not begin == end == b"PAR1":
            return "damaged"
        return "outdated" if samples.exists() and path.stat().st_mtime < samples.stat().st_mtime else "done"
    except DAMAGE:
        return "damaged"


def date(seconds: float) -> str:
    """A time (seconds since 1970) for people, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def words(line: Line) -> str:
    """What there is to tell beside the state."""
    where = f"on {line.host}" * bool(line.host) + f", job {line.job}" * bool(line.job)
    parts = [] if line.model == line.run or line.state == "waiting" else [f"samples the model of {line.model}"]
    if line.state == "running":
        left = "?" if line.seconds_left is None else clock(line.seconds_left)
        rate = f"{line.images_per_second or 0:,.0f} images/s"
        parts += [f"step {line.step:,} of {line.max_steps:,}", rate, f"{left} left", where]
    elif line.state == "stopped":
        saved = f"checkpoint at step {line.step:,} of {line.max_steps:,}; goes on" if line.step else "begins again"
        parts += [f"{saved} when run again", line.note, where]
    elif line.state == "failed":
        parts += [f"checkpoint at step {line.step:,} of {line.max_steps:,}" * bool(line.step), line.note, where]
    elif line.state == "done":
        parts += [f"{line.max_steps:,} updates", date(line.time or 0), f"on {line.device}" * bool(line.device)]
    elif line.state == "imported":
        parts += [f"from {line.source}", date(line.time or 0)]
    else:
        parts += [line.note]
    return " · ".join(filter(None, parts))


def as_json(lines: Iterable[Line]) -> str:
    """The lines for programs: a JSON list of mappings with the fields of `Line`."""
    return json.dumps([asdict(line) for line in lines], indent=1)


def as_text(lines: Iterable[Line]) -> str:
    """The lines for people: a row each, and how many there are of each state."""
    lines = list(lines)
    rows = [("run", "budget", "model", "samples", "scores", "")]
    rows += [(e.run, e.budget, e.state, e.samples or "–", e.scores or "–", words(e)) for e in lines]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    shown = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    counts = Counter(line.state for line in lines)
    return "\n".join([*shown, "", ", ".join(f"{counts[state]} {state}" for state in counts)])
