"""The plan: every job of the grid with its hours and bytes, per run and per table, before any of it is done.

`jobs` lists what Snakemake would submit for `all`, in the order of its needs; `row` and `rows` are sums over
parts of that list, so they agree. A job whose output is there costs nothing. Wall hours are those of a list
schedule, the longest remaining chain first; they are no sums.
"""

from __future__ import annotations

import heapq
import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import yaml

from coldbench import data
from coldbench.core.config import Config, Run
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import read_yaml
from coldbench.core.validation import merged
from coldbench.planning import cost
from coldbench.planning.cost import Device, Time
from coldbench.planning.grid import Grid, build

LOCAL = "fetch"
"""The stage that runs on the submitting machine and is no job."""
DATA = "data sets"
WIDTH = 100


@dataclass(frozen=True)
class Job:
    """One job: the run and table that it belongs to, hours on one device and how they are known, bytes that it leaves.

    `needs` names the jobs that must end before; `done` tells that its output is there: it is in no sum.
    """

    name: str
    run: str
    table: str
    stage: str
    needs: tuple[str, ...] = ()
    hours: float = 0.0
    how: str = ""
    disk: int = 0
    done: bool = False


@dataclass(frozen=True)
class Row:
    """What some jobs cost together: those that are left to do, and hours on a device by stage and in all."""

    jobs: int
    train: float
    sample: float
    score: float
    hours: float
    wall: float
    disk: int
    how: str


def read(words: Sequence[Path | str]) -> dict[str, Any]:
    """Configurations on top of each other, as Snakemake merges them: files, and words like budget=paper.

    ColdbenchError for one that cannot be read.
    """
    return merged(*map(_overlay, map(str, words)))


def _overlay(word: str) -> dict[str, Any]:
    key, equals, value = word.partition("=")
    if not (equals and key.isidentifier()):
        return read_yaml(Path(word))
    try:
        return {key: yaml.safe_load(value)}
    except yaml.YAMLError as error:
        raise ColdbenchError(f"{word} is no key=value: {' '.join(str(error).split())}") from error


def resolved(raw: Mapping[str, Any]) -> Grid:
    """The grid of a configuration, whether its data are there or not."""
    results = Path(str(raw.get("results", "results")))
    return build(raw, lambda budget, run: (results / budget / run / "scores.parquet").exists(), check_sources=False)


def jobs(grid: Grid, on: Device) -> list[Job]:
    """Every job of `all` on such devices: the runs that are made, and the models that they sample."""
    results, protocols = Path(grid.config.results), len(grid.config.fid)
    wanted = grid.report_runs
    owners = {run.model: grid.all_runs[run.model] for run in wanted.values()}
    sciences = [run.experiment for run in {**owners, **wanted}.values()]
    sets = {(name, one.prepared_size) for one in sciences for name in (one.dataset, one.partner) if name}
    counts = {name: data.dataset(name).counts(Path(grid.config.data)) for name in sorted({name for name, _ in sets})}
    listed = list(_shared(grid, sets, counts, results))
    listed += [_train(run, on, results, grid.config) for run in owners.values()]
    known: set[cost.Reference] = set()
    for run in wanted.values():
        own = cost.references(run, counts[run.experiment.dataset]) if protocols else set()
        listed += _use(run, on, results, counts[run.experiment.dataset], own - known, protocols)
        known |= own
    return listed


def _shared(
    grid: Grid, sets: set[tuple[str, int]], counts: Mapping[str, Mapping[str, int]], results: Path
) -> Iterable[Job]:
    """Prepared data sets, the Inception weights, and the calibration of what is no stand-in."""
    for name, side in sorted(sets):
        folder = results / "data" / f"{name}-{side}"
        disk = cost.prepared_bytes(name, side, counts[name])
        yield Job(f"{name}-{side}", DATA, "", "prepare", disk=disk, done=(folder / "info.json").exists())
    if grid.config.fid and not grid.config.inception:
        from coldbench.evaluation.metrics.weights import of

        files = {of(protocol).name for protocol in grid.config.fid}
        there = (results / "inception" / "fetched").exists()
        yield Job("inception", DATA, "", LOCAL, disk=len(files) * cost.INCEPTION_BYTES, done=there)
    if not all(data.dataset(name).embedded for name, _ in sets):
        yield Job("calibration", DATA, "", "calibrate", done=(results / "calibration.parquet").exists())


def _train(run: Run, on: Device, results: Path, config: Config) -> Job:
    """The training of a run's own model, or its import."""
    science, name, imported = run.experiment, run.metadata.run, run.metadata.run in config.imports
    time = Time() if imported else cost.training(on, science)
    disk = cost.model_bytes(science) + (0 if imported else cost.checkpoint_bytes(science))
    done = (results / run.metadata.budget / name / "model.safetensors").exists()
    stage = "import" if imported else "train"
    return Job(_key(run, "train"), name, run.metadata.cell.table, stage, (), time.hours, time.how, disk, done)


def _use(
    run: Run, on: Device, results: Path, counts: Mapping[str, int], references: set[cost.Reference], protocols: int
) -> list[Job]:
    """The sampling of a run, in parts where it has any, and its scoring, which makes new `references`."""
    from coldbench import degradations

    folder, name, table = results / run.metadata.budget / run.metadata.run, run.metadata.run, run.metadata.cell.table
    T = degradations.build(run.experiment.degradation, run.experiment.size).T
    time = cost.sampling(on, run, T, counts["test"])
    disk, sampled = cost.shard_bytes(run, counts["test"]), (folder / "samples.json").exists()
    parts = run.sampling.jobs
    needs: tuple[str, ...] = (f"{run.metadata.budget}/{run.model}/train",)
    listed = []
    if parts > 1:
        each = time.hours / parts
        for part in range(1, parts + 1):
            listed.append(Job(_key(run, f"part{part}"), name, table, "sample", needs, each, time.how, 0, sampled))
        needs, time = tuple(job.name for job in listed), Time()
    key = _key(run, "sample")
    listed.append(Job(key, name, table, "sample", needs, time.hours, time.how, disk, sampled))
    time = cost.scoring(on, run, counts, references, protocols)
    disk, scored = cost.reference_bytes(references, protocols), (folder / "scores.parquet").exists()
    listed.append(Job(_key(run, "score"), name, table, "score", (key,), time.hours, time.how, disk, scored))
    return listed


def _key(run: Run, stage: str) -> str:
    return f"{run.metadata.budget}/{run.metadata.run}/{stage}"


def row(some: Sequence[Job], devices: int) -> Row:
    """The sums over some jobs, and their wall hours on so many devices."""
    left = [job for job in some if not job.done]
    train, sample, score = (
        sum((job.hours for job in left if job.stage == stage), 0.0) for stage in ("train", "sample", "score")
    )
    how = sorted({job.how for job in left if job.how}, key=("measured", "scaled", "counted").index)
    return Row(
        jobs=sum(job.stage != LOCAL for job in left),
        train=train,
        sample=sample,
        score=score,
        hours=train + sample + score,
        wall=wall_hours(left, devices),
        disk=sum(job.disk for job in left),
        how=", ".join(how) or ("–" if left else "done"),
    )


def wall_hours(some: Sequence[Job], devices: int) -> float:
    """Hours until the last of these jobs ends on so many devices, of which each job takes one; waiting is not counted.

    More devices can make a list schedule longer (Graham, 1966); as none has to be used, the shortest counts.
    """
    return min((_schedule(some, n) for n in range(1, min(devices, len(some)) + 1)), default=0.0)


def _schedule(some: Sequence[Job], devices: int) -> float:
    """A list schedule: whenever a device is free, the job that is ready and begins the longest chain."""
    names = {job.name for job in some}
    needs = {job.name: names.intersection(job.needs) for job in some}
    chain = chains(some)
    ready = [(-chain[job.name], k) for k, job in enumerate(some) if not needs[job.name]]
    heapq.heapify(ready)
    running: list[tuple[float, int]] = []
    now = 0.0
    while ready or running:
        while ready and len(running) < devices:
            _, k = heapq.heappop(ready)
            heapq.heappush(running, (now + some[k].hours, k))
        now, ended = heapq.heappop(running)
        for k, job in enumerate(some):
            if some[ended].name in needs[job.name]:
                needs[job.name].remove(some[ended].name)
                if not needs[job.name]:
                    heapq.heappush(ready, (-chain[job.name], k))
    return now


def chains(some: Sequence[Job]) -> dict[str, float]:
    """The hours from the start of each job to the end of the longest chain that it begins; needs are listed first."""
    longest = {job.name: 0.0 for job in some}
    for job in reversed(some):
        longest[job.name] += job.hours
        for need in set(job.needs) & longest.keys():
            longest[need] = max(longest[need], longest[job.name])
    return longest


def rows(some: Sequence[Job], devices: int, by: str = "run") -> dict[str, Row]:
    """A row for each run, or for each table, in the order of the list."""
    return {key: row([job for job in some if getattr(job, by) == key], devices) for key in _order(some, by)}


def _order(some: Iterable[Job], by: str) -> list[str]:
    return sorted({getattr(job, by): job for job in some}, key=lambda key: (key in ("", DATA), key))


def as_json(some: Sequence[Job], on: Device, devices: int) -> str:
    """The whole plan for other programs: hours, bytes, and every job."""
    found: dict[str, Any] = {"device": on.title, "devices": devices, "assumed_severity": on.rationale}
    found["runs"] = {key: asdict(value) for key, value in rows(some, devices).items()}
    found["tables"] = {key: asdict(value) for key, value in rows(some, devices, "table").items()}
    return json.dumps({**found, "total": asdict(row(some, devices)), "jobs": [asdict(job) for job in some]}, indent=1)


def as_text(some: Sequence[Job], on: Device, devices: int) -> str:
    """The plan as an aligned table of at most 100 columns, and what its numbers rest on."""
    head = f"{'':24}{'jobs':>4}{'train':>10}{'sample':>9}{'score':>9}{'all':>10}{'wall':>10}{'disk':>10}  how"
    lines = [f"{on.title}: time on one, and wall time on {devices}", "", head]
    for table in _order(some, "table"):
        part = [job for job in some if job.table == table]
        lines += [_line(name, value) for name, value in rows(part, devices).items()]
        lines += [_line(f"  Table {table}" if table else "  in no table", row(part, devices)), ""]
    lines += [_line("total", row(some, devices)), ""]
    told = (
        "measured: images per second of this network on this device. scaled: from those of another network, by FLOPs. "
        f"counted, not measured: FLOPs over an assumed share of the peak. {on.rationale}",
        "A model that several runs sample is counted once. Wall time is no sum: the longest chain first, a device a "
        "job. Not in it: decoding, degradations, SSIM, intervals, pictures, and waiting in a queue.",
    )
    return "\n".join([*lines, *(textwrap.fill(" ".join(text.split()), WIDTH) for text in told)])


def _line(name: str, value: Row) -> str:
    spent = ((value.train, 10), (value.sample, 9), (value.score, 9), (value.hours, 10), (value.wall, 10))
    times = "".join(f"{_time(hours):>{width}}" for hours, width in spent)
    return f"{name:24}{value.jobs:4}{times}{_bytes(value.disk):>10}  {value.how}"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 60 else "<1 min" if hours else "–"


def _bytes(count: int) -> str:
    return f"{count / 1e9:,.1f} GB" if count >= 1e9 else f"{max(1, round(count / 1e6))} MB" if count else "–"
