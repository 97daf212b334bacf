"""The status of every run: the progress of its training, and whether it was sampled and scored.

Nothing here writes, needs a data set or imports torch. The content of results is not verified: the job that reads a
damaged file reports it.
"""

from __future__ import annotations

import json
import re
import socket
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field, ValidationError

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import read_json
from coldbench.core.logs import clock
from coldbench.core.run import Run
from coldbench.models.header import read_header
from coldbench.planning.grid import Grid
from coldbench.planning.products import Product, Products
from coldbench.training.slurm import HEARTBEAT, lock_is_held

HEARTBEAT_TIMEOUT = 300.0
"""Seconds without a heartbeat after which a training counts as stopped."""
CLOCK_SKEW = 60.0
"""Seconds that the clocks of two hosts may differ."""
LATEST = 253_402_214_400.0
"""The last day of the year 9999 in seconds since 1970, beyond which dates cannot be written."""
CHECKPOINT = re.compile(r"step-(\d{9})\.pt")

ModelStatus = Literal["missing", "waiting", "running", "stopped", "failed", "done", "imported", "outdated", "damaged"]
Stage = Literal["", "partly", "done", "outdated"]
STAGES: dict[str, Stage] = {"missing": "", "incomplete": "partly", "outdated": "outdated", "current": "done"}
"""How the status of samples and scores is shown."""
Finite = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Heartbeat(BaseModel):
    """The heartbeat file of a training (`training.slurm`); `time` is in seconds since 1970."""

    state: Literal["running", "stopped", "failed"]
    step: Annotated[int, Field(ge=0)]
    images_per_second: Finite
    seconds_left: Annotated[float, Field(ge=0, le=LATEST)] | None
    time: Annotated[float, Field(ge=0, le=LATEST)]
    host: str
    job: str
    error: str = ""


@dataclass(frozen=True)
class RunStatus:
    """One run. `model` is the run whose model it samples. `step` is the last finished step of a running training, or
    that of the newest checkpoint. `time` (seconds since 1970) is that of the finished model or the last heartbeat.
    """

    run: str
    budget: str
    title: str
    model: str
    max_steps: int
    status: ModelStatus
    samples: Stage = ""
    scores: Stage = ""
    step: int | None = None
    images_per_second: float | None = None
    seconds_left: float | None = None
    time: float | None = None
    host: str = ""
    job: str = ""
    device: str = ""
    source: str = ""
    note: str = ""

    def updated(self, **changes: object) -> RunStatus:
        """The status with other values."""
        return RunStatus(**{**asdict(self), **changes})


def run_statuses(grid: Grid, now: float) -> list[RunStatus]:
    """The status of every run of the report in its order, then of the others that own a model or have a folder.

    `now` is the time in seconds since 1970.
    """
    results = Path(grid.config.results)
    products = Products(grid.by_budget, results, Path(grid.config.data), grid.config.fid)
    owners = {run.model for run in grid.report_runs.values()}
    others = [
        run
        for name, run in grid.all_runs.items()
        if name not in grid.report_runs and (name in owners or (results / run.metadata.budget / name).is_dir())
    ]
    return [_run_status(run, products, now) for run in (*grid.report_runs.values(), *others)]


def _run_status(run: Run, products: Products, now: float) -> RunStatus:
    metadata, experiment, model = run.metadata, run.experiment, products.model(run)
    facts = metadata.run, metadata.budget, metadata.title, run.model, experiment.training.max_steps
    status = RunStatus(*facts, status="missing")
    if model.file.exists():
        status = _of_model(status, model)
    else:
        status = _of_training(status, model.file.parent / "checkpoints" / experiment.fingerprint, now)
    if not run.trains and status.status not in ("done", "imported"):
        status = RunStatus(*facts, status="waiting", note=f"for the model of {run.model}: {status.status}")
    samples, scores = products.samples(run), products.scores(run)
    partly = samples.status == "missing" and any((samples.file.parent / "shards").glob("*/*.npy"))
    return status.updated(samples="partly" if partly else STAGES[samples.status], scores=STAGES[scores.status])


def _of_model(status: RunStatus, model: Product) -> RunStatus:
    """The status of a finished model, from the metadata in its file; the weights are not read."""
    try:
        provenance = read_header(model.file).provenance
    except ColdbenchError:
        return status.updated(status="damaged", note=f"{model.file.name} cannot be read")
    status = status.updated(time=model.file.stat().st_mtime)
    if model.status == "outdated":
        return status.updated(status="outdated", note=f"{model.reason}; the next run trains it again")
    source, device = str(provenance.get("imported", "")), str(provenance.get("trained_on", ""))
    return status.updated(status="imported" if source else "done", device=device, source=source)


def _of_training(status: RunStatus, folder: Path, now: float) -> RunStatus:
    """The status of a training from its heartbeat and its checkpoints."""
    steps = [int(name[1]) for path in folder.glob("step-*.pt") if (name := CHECKPOINT.fullmatch(path.name))]
    try:
        beat = Heartbeat.model_validate(read_json(folder / HEARTBEAT))
    except (ColdbenchError, ValidationError):
        return status.updated(status="stopped", step=max(steps)) if steps else status
    status = status.updated(time=beat.time, host=beat.host, job=beat.job, step=max(steps, default=0))
    if beat.state == "running" and _is_alive(beat, folder, now):
        left = None if beat.seconds_left is None else max(0.0, beat.seconds_left - max(0.0, now - beat.time))
        return status.updated(
            status="running", step=beat.step, images_per_second=beat.images_per_second, seconds_left=left
        )
    if beat.state == "failed":
        return status.updated(status="failed", note=" ".join(beat.error.split()))
    return status.updated(status="stopped", note=f"no heartbeat since {date(beat.time)}" * (beat.state == "running"))


def _is_alive(beat: Heartbeat, folder: Path, now: float) -> bool:
    """Whether the training of a heartbeat runs: its lock tells.

    A free lock settles it on the training's own host alone, because some file systems keep locks within a host. There
    the heartbeat decides, as where no lock can be had. A heartbeat of the future, after a clock was set back, is none.
    """
    held = lock_is_held(folder)
    if held or (held is False and beat.host == socket.gethostname()):
        return held
    return -CLOCK_SKEW <= now - beat.time <= HEARTBEAT_TIMEOUT


def date(seconds: float) -> str:
    """A time (seconds since 1970) for people, in this machine's zone."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def description(status: RunStatus) -> str:
    """The details beside the status."""
    place = f"on {status.host}" * bool(status.host) + f", job {status.job}" * bool(status.job)
    borrowed = status.model != status.run and status.status != "waiting"
    parts = [f"samples the model of {status.model}"] if borrowed else []
    progress = f"step {status.step or 0:,} of {status.max_steps:,}"
    if status.status == "running":
        left = "?" if status.seconds_left is None else clock(status.seconds_left)
        parts += [progress, f"{status.images_per_second or 0:,.0f} images/s", f"{left} left", place]
    elif status.status == "stopped":
        resume = f"checkpoint at {progress}; resumes" if status.step else "starts from step 0"
        parts += [f"{resume} when run again", status.note, place]
    elif status.status == "failed":
        parts += [f"checkpoint at {progress}" * bool(status.step), status.note, place]
    elif status.status == "done":
        parts += [f"{status.max_steps:,} steps", date(status.time or 0), f"on {status.device}" * bool(status.device)]
    elif status.status == "imported":
        parts += [f"from {status.source}", date(status.time or 0)]
    else:
        parts += [status.note]
    return " · ".join(filter(None, parts))


def as_json(statuses: Iterable[RunStatus]) -> str:
    """The statuses for programs: a JSON list of mappings with the fields of `RunStatus`."""
    return json.dumps([asdict(status) for status in statuses], indent=1)


def as_text(statuses: Iterable[RunStatus]) -> str:
    """The statuses for people: a line each, and the number of runs of each status."""
    statuses = list(statuses)
    rows = [("run", "budget", "model", "samples", "scores", "")]
    rows += [(s.run, s.budget, s.status, s.samples or "–", s.scores or "–", description(s)) for s in statuses]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    counts = Counter(s.status for s in statuses)
    return "\n".join([*lines, "", ", ".join(f"{counts[status]} {status}" for status in counts)])
