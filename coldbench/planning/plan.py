"""The plan: every job of the grid with its hours and bytes, per run and per table, before any of it is run.

`jobs` lists the jobs that Snakemake would submit for `all`, each after the jobs that it needs. `total` and `totals` sum
over parts of that list. A job whose output exists costs nothing.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coldbench import data
from coldbench.core.config import Config
from coldbench.core.run import Run
from coldbench.planning import cost
from coldbench.planning.cost import Device, Time
from coldbench.planning.grid import Grid, build
from coldbench.planning.products import Product, Products
from coldbench.planning.reuse import FinishedRuns

LOCAL = "fetch"
"""The stage that runs on the submitting machine and is no job."""
DATA = "data sets"
INCEPTION_FILES = {"paper-float": 1, "legacy_pytorch": 1, "legacy_tensorflow": 2, "clean": 2}
"""The file of Inception weights of every FID protocol, by number."""
WIDTH = 100


@dataclass(frozen=True)
class Job:
    """One job: its run and table, hours on one device with the source of the number, and the bytes that it leaves.

    `needs` names the jobs that must end before it. The output of a `done` job exists; it is in no sum.
    """

    name: str
    run: str
    table: str
    stage: str
    needs: tuple[str, ...] = ()
    hours: float = 0.0
    source: str = ""
    disk: int = 0
    done: bool = False


@dataclass(frozen=True)
class Total:
    """The cost of some jobs together: the jobs that are not done, and hours on a device by stage and in all."""

    jobs: int
    train: float
    sample: float
    score: float
    hours: float
    wall: float
    disk: int
    source: str


def resolved(raw: Mapping[str, Any]) -> Grid:
    """The grid of a configuration, with or without its data; ColdbenchError for a wrong one. Imports no torch."""
    return build(raw, FinishedRuns(raw), check_operators=False, check_sources=False)


def jobs(grid: Grid, on: Device) -> list[Job]:
    """Every job of `all` on such devices: of the report's runs, and of the models that they sample."""
    protocols = len(grid.config.fid)
    products = Products(grid.by_budget, Path(grid.config.results), Path(grid.config.data), grid.config.fid)
    owners = {run.model: grid.all_runs[run.model] for run in grid.report_runs.values()}
    experiments = [run.experiment for run in {**owners, **grid.report_runs}.values()]
    sets = {(name, one.prepared_size) for one in experiments for name in (one.dataset, one.partner) if name}
    counts = {name: data.dataset(name).counts(Path(grid.config.data)) for name in sorted({name for name, _ in sets})}
    planned = list(_shared_jobs(grid, sets, counts, products))
    unscored = {run.model for run in grid.report_runs.values() if not _is_done(products.scores(run))}
    planned += [
        _train_job(run, on, grid.config, _is_done(products.model(run)) or name not in unscored)
        for name, run in owners.items()
    ]
    known: set[cost.Reference] = set()
    for run in grid.report_runs.values():
        references = cost.references(run, counts[run.experiment.dataset]) if protocols else set()
        planned += _sample_jobs(run, on, products, counts[run.experiment.dataset]["test"])
        planned.append(_score_job(run, on, products, counts[run.experiment.dataset], references - known, protocols))
        known |= references
    return planned


def _shared_jobs(
    grid: Grid, sets: set[tuple[str, int]], counts: Mapping[str, Mapping[str, int]], products: Products
) -> Iterable[Job]:
    """Prepared data sets, the Inception weights, and the calibration of everything that is not embedded."""
    for name, side in sorted(sets):
        disk = cost.prepared_bytes(name, side, counts[name])
        yield Job(f"{name}-{side}", DATA, "", "prepare", disk=disk, done=_is_done(products.prepared(name, side)))
    if grid.config.fid and not grid.config.inception:
        files = {INCEPTION_FILES[protocol] for protocol in grid.config.fid}
        fetched = (products.results / "inception" / "fetched").exists()
        yield Job("inception", DATA, "", LOCAL, disk=len(files) * cost.INCEPTION_BYTES, done=fetched)
    if not all(data.dataset(name).embedded for name, _ in sets):
        yield Job("calibration", DATA, "", "calibrate", done=(products.results / "calibration.parquet").exists())


def _is_done(product: Product) -> bool:
    return product.status == "current"


def _train_job(run: Run, on: Device, config: Config, done: bool) -> Job:
    """The training of a run's model, or its import."""
    name, imported = run.metadata.run, run.metadata.run in config.imports
    experiment = run.experiment
    time = Time() if imported or experiment.snapshot else cost.training(on, experiment)
    disk = cost.model_bytes(run.experiment, imported)
    stage = "import" if imported else "train"
    needs = (f"{run.metadata.budget}/{experiment.whole_run}/train",) if experiment.snapshot else ()
    return Job(_name(run, "train"), name, run.metadata.cell.table, stage, needs, time.hours, time.source, disk, done)


def _sample_jobs(run: Run, on: Device, products: Products, tests: int) -> list[Job]:
    """The sampling of a run; of a run in parts one job each, and one that gathers them."""
    name, table, parts = run.metadata.run, run.metadata.cell.table, run.sampling.jobs
    done = _is_done(products.samples(run)) or _is_done(products.scores(run))
    time = cost.sampling(on, run, tests)
    needs: tuple[str, ...] = (f"{run.metadata.budget}/{run.model}/train",)
    planned = []
    if parts > 1:
        names = [_name(run, f"part{part}") for part in range(1, parts + 1)]
        planned = [Job(one, name, table, "sample", needs, time.hours / parts, time.source, 0, done) for one in names]
        needs, time = tuple(names), Time()
    disk = cost.shard_bytes(run, tests)
    return [*planned, Job(_name(run, "sample"), name, table, "sample", needs, time.hours, time.source, disk, done)]


def _score_job(
    run: Run, on: Device, products: Products, counts: Mapping[str, int], references: set[cost.Reference], protocols: int
) -> Job:
    """The scoring of a run; it also makes the features of new `references`."""
    time, disk = (
        cost.scoring(on, run, counts, references, protocols),
        cost.REFERENCE_BYTES * len(references) * protocols,
    )
    done = _is_done(products.scores(run))
    needs = (_name(run, "sample"),)
    table = run.metadata.cell.table
    return Job(_name(run, "score"), run.metadata.run, table, "score", needs, time.hours, time.source, disk, done)


def _name(run: Run, stage: str) -> str:
    return f"{run.metadata.budget}/{run.metadata.run}/{stage}"


def total(some: Sequence[Job], devices: int) -> Total:
    """The sums over some jobs, and their wall hours on so many devices."""
    left = [job for job in some if not job.done]
    train, sample, score = (
        sum((job.hours for job in left if job.stage == stage), 0.0) for stage in ("train", "sample", "score")
    )
    sources = sorted({job.source for job in left if job.source}, key=("measured", "scaled", "counted").index)
    return Total(
        jobs=sum(job.stage != LOCAL for job in left),
        train=train,
        sample=sample,
        score=score,
        hours=train + sample + score,
        wall=wall_hours(left, devices),
        disk=sum(job.disk for job in left),
        source=", ".join(sources) or ("–" if left else "done"),
    )


def wall_hours(some: Sequence[Job], devices: int) -> float:
    """The least wall hours on so many devices, one job on each: the longest chain, or all hours over the devices."""
    return max([sum(job.hours for job in some) / devices, *chains(some).values()], default=0.0)


def chains(some: Sequence[Job]) -> dict[str, float]:
    """The hours from the start of each job to the end of the longest chain that it begins."""
    longest = {job.name: 0.0 for job in some}
    for job in reversed(some):  # every job stands after the jobs that it needs
        longest[job.name] += job.hours
        for need in set(job.needs) & longest.keys():
            longest[need] = max(longest[need], longest[job.name])
    return longest


def totals(some: Sequence[Job], devices: int, by: str = "run") -> dict[str, Total]:
    """The sums for each run, or for each table, in the order of the list."""
    return {key: total([job for job in some if getattr(job, by) == key], devices) for key in _order(some, by)}


def _order(some: Iterable[Job], by: str) -> list[str]:
    return sorted({getattr(job, by): job for job in some}, key=lambda key: (key in ("", DATA), key))


def as_json(some: Sequence[Job], on: Device, devices: int) -> str:
    """The whole plan for other programs: hours, bytes, and every job."""
    plan: dict[str, Any] = {"device": on.title, "devices": devices, "assumed": on.rationale}
    plan["runs"] = {key: asdict(value) for key, value in totals(some, devices).items()}
    plan["tables"] = {key: asdict(value) for key, value in totals(some, devices, "table").items()}
    return json.dumps({**plan, "total": asdict(total(some, devices)), "jobs": [asdict(job) for job in some]}, indent=1)


def as_text(some: Sequence[Job], on: Device, devices: int) -> str:
    """The plan as an aligned table of at most 100 columns, and the sources of its numbers."""
    head = f"{'':24}{'jobs':>4}{'train':>10}{'sample':>9}{'score':>9}{'all':>10}{'wall':>10}{'disk':>10}  source"
    lines = [f"{on.title}: time on one, and wall time on {devices}", "", head]
    for table in _order(some, "table"):
        part = [job for job in some if job.table == table]
        lines += [_line(name, value) for name, value in totals(part, devices).items()]
        lines += [_line(f"  Table {table}" if table else "  in no table", total(part, devices)), ""]
    lines += [_line("total", total(some, devices)), ""]
    notes = (
        "measured: images per second of this network on this device. scaled: from those of another network, by FLOPs. "
        f"counted, not measured: FLOPs over an assumed share of the peak. {on.rationale}",
        "A model of several runs is counted once. Wall time is the longest chain of jobs, or all hours over the "
        "devices, whichever is larger. Disk is rounded to one digit. Not counted: decoding, degradations, SSIM, "
        "intervals, pictures, and waiting in a queue.",
    )
    return "\n".join([*lines, *(textwrap.fill(" ".join(text.split()), WIDTH) for text in notes)])


def _line(name: str, value: Total) -> str:
    columns = ((value.train, 10), (value.sample, 9), (value.score, 9), (value.hours, 10), (value.wall, 10))
    times = "".join(f"{_time(hours):>{width}}" for hours, width in columns)
    return f"{name:24}{value.jobs:4}{times}{rounded_bytes(value.disk):>10}  {value.source}"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{60 * hours:.0f} min" if hours >= 1 / 60 else "<1 min" if hours else "–"


def rounded_bytes(count: int) -> str:
    """A size with one digit: "200 GB", "3 MB"."""
    if not count:
        return "–"
    size = float(f"{max(count, 1e6):.0e}")
    return f"{size / 1e9:,.0f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"
