"""From the configuration to the runs: everything that can be wrong is found here, before a job is planned."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coldbench import data
from coldbench.core.config import Config, Run, chosen_protocol, resolve
from coldbench.core.errors import ColdbenchError, MissingFile, unknown
from coldbench.core.experiment import Experiment, Network
from coldbench.core.validation import checked

DEFAULT_FOLDER = "data"


@dataclass(frozen=True)
class Grid:
    """The resolved grid, runs by name: `made` are those of the report, `runs` the other protocols as well, which can be
    asked for, and whatever else owns a model that is sampled. `skipped` tells which experiments lack their data.
    """

    config: Config
    report_runs: dict[str, Run]
    all_runs: dict[str, Run]
    skipped: dict[str, str]

    @property
    def datasets(self) -> dict[str, set[int]]:
        """The image sizes needed of each data set."""
        sizes: dict[str, set[int]] = {}
        for run in self.all_runs.values():
            for name in filter(None, (run.experiment.dataset, run.experiment.partner)):
                sizes.setdefault(name, set()).add(run.experiment.prepared_size)
        return sizes


def build(
    raw: Mapping[str, Any],
    finished: Callable[[str, str], bool],
    check_operators: bool = True,
    check_sources: bool = True,
) -> Grid:
    """Validate a configuration and resolve its grid; ColdbenchError, one line, for the first thing that is wrong.

    `finished(budget, run)` tells whether results are there, for the budgets in `accept`. With `check_operators` the
    degradations and networks are built as well, which imports torch. Without `check_sources` the grid is that of a
    machine that has all data.
    """
    config = checked(Config, raw, "config")
    _check_names(config)
    for name, entry in config.grid.items():  # also what this budget or filter hides
        if entry.protocol not in entry.protocols:
            raise unknown(f"protocol of {name}", entry.protocol, entry.protocols)
        for protocol in entry.protocols:
            for budget in config.budgets:
                resolve(config, name, protocol, budget)
    _check_imports(config)
    selected, skipped = _selected(config), dict[str, str]()
    if check_sources:
        selected, skipped = _with_data(config, selected)
    made: dict[str, Run] = {}
    runs: dict[str, Run] = {}
    for name in selected:
        for protocol in config.grid[name].protocols:
            chosen = protocol == chosen_protocol(config, name)
            for seed in config.seeds if chosen else config.seeds[:1]:
                run = _at_budget(config, name, protocol, seed, finished)
                _check_unique(run, runs.get(run.metadata.run))
                runs[run.metadata.run] = run
                if chosen:
                    made[run.metadata.run] = run
                _check_images(run)
                if check_operators:
                    _check_operators(run)
    owners = _owners(config, runs.values())
    for name in config.imports:
        if name in owners and owners[name].metadata.run != name:
            raise ColdbenchError(
                f"imports.{name}: it samples the model of {owners[name].metadata.run}; import that one"
            )
    runs |= {owner.metadata.run: owner for owner in owners.values() if owner.metadata.run not in runs}
    shared = {name: replace(run, model=owners[name].metadata.run) for name, run in runs.items() if name in owners}
    return Grid(config, {name: shared[name] for name in made}, runs | shared, skipped)


def _owners(config: Config, runs: Iterable[Run]) -> dict[str, Run]:
    """For each of `runs` the first run of the whole grid that trains the very same model: it is trained once.

    That are the experiments that name another's `model`, but also protocols that differ in nothing but the sampling.
    Those that name none come first, wherever a file of one's own puts the others.
    """
    entries = sorted(config.grid.items(), key=lambda item: item[1].model is not None)
    found: dict[tuple[str, int], dict[str, Run]] = {}
    owners = {}
    for run in runs:
        key = run.metadata.budget, run.experiment.seed
        if key not in found:
            first: dict[str, Run] = {}
            for name, entry in entries:
                for protocol in dict.fromkeys((chosen_protocol(config, name), *entry.protocols)):
                    candidate = resolve(config, name, protocol, *key)
                    first.setdefault(candidate.experiment.fingerprint, candidate)
            found[key] = first
        owners[run.metadata.run] = found[key][run.experiment.fingerprint]
    return owners


def _at_budget(config: Config, name: str, protocol: str, seed: int, finished: Callable[[str, str], bool]) -> Run:
    """The run at the first of the accepted budgets at which it, or the model it samples, is there."""
    run = resolve(config, name, protocol, config.budget, seed)
    done = [
        budget for budget in config.reuse_budgets if finished(budget, run.metadata.run) or finished(budget, run.model)
    ]
    return resolve(config, name, protocol, done[0], seed) if done else run


def _check_names(config: Config) -> None:
    """Raise ColdbenchError for a budget, protocol, experiment or data set that there is not."""
    if config.budget not in config.budgets:
        raise unknown("budget", config.budget, config.budgets)
    for name in config.reuse_budgets:
        if name not in config.budgets:
            raise unknown("budget in accept", name, config.budgets)
    for name in config.experiments:
        if name not in config.grid:
            raise unknown("experiment", name, config.grid)
    protocols = {"default", *(p for entry in config.grid.values() for p in entry.protocols)}
    if config.protocol not in protocols:
        raise unknown("protocol", config.protocol, protocols)
    for name in [*config.datasets, *config.substitute.values(), *(entry.dataset for entry in config.grid.values())]:
        data.dataset(name)
    partners = {entry.degradation.get("partner", entry.dataset) for entry in config.grid.values()}
    shown = {entry.dataset for entry in config.grid.values()} | partners
    for name in config.substitute:
        if name not in shown:
            raise unknown("data set in substitute", name, shown)


def _selected(config: Config) -> list[str]:
    """The experiments that pass both filters; ColdbenchError if none does."""
    names = list(dict.fromkeys(config.experiments)) or list(config.grid)
    shown = {name: config.substitute.get(config.grid[name].dataset, config.grid[name].dataset) for name in names}
    kept = [name for name in names if not config.datasets or shown[name] in config.datasets]
    if not kept:
        there = ", ".join(sorted(set(shown.values())))
        raise ColdbenchError(f"no experiment uses data set {', '.join(config.datasets)} (the grid uses: {there})")
    return kept


def _with_data(config: Config, names: list[str]) -> tuple[list[str], dict[str, str]]:
    """The experiments whose data are there or can be downloaded, and why the others are left out.

    With `absent: refuse`, ColdbenchError for the first data set that is not there; damaged data are always refused.
    """
    kept, skipped = [], {}
    for name in names:
        entry = config.grid[name]
        needed = {entry.dataset, entry.degradation.get("partner", entry.dataset)}
        try:
            for dataset in sorted(str(config.substitute.get(each, each)) for each in needed):
                _check_source(config, dataset)
            kept.append(name)
        except MissingFile as error:
            if config.missing_data == "refuse" or name in config.experiments:
                raise ColdbenchError(f"{name}: {error}; without it: --config missing_data=skip") from None
            skipped[name] = str(error)
    if not kept:
        raise ColdbenchError(f"no experiment has its data: {next(iter(skipped.values()))}")
    return kept, skipped


def _check_imports(config: Config) -> None:
    """Raise ColdbenchError for an import that names no run, or a file that is not there."""
    own = {name: entry for name, entry in config.grid.items() if entry.model is None}
    budget = config.budget
    runs = [
        resolve(config, name, protocol, budget, seed).metadata.run
        for name, entry in own.items()
        for protocol in entry.protocols
        for seed in config.seeds
    ]
    for name, path in config.imports.items():
        if name not in runs:
            raise unknown("run in imports", name, runs)
        if not Path(path).is_file():
            raise ColdbenchError(f"imports.{name}: {path} does not exist")


def was_imported(model: Path) -> bool:
    """Whether there is a model and it came from a checkpoint of the released code: told by the head of its file."""
    try:
        with model.open("rb") as stream:
            size = int.from_bytes(stream.read(8), "little")
            head = json.loads(stream.read(min(size, 1 << 24)))
        return "imported" in json.loads(head["__metadata__"]["experiment"]).get("provenance", {})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False  # no model, or none of ours: the rules make it again


def _check_unique(run: Run, other: Run | None) -> None:
    """Raise ColdbenchError if two experiments or protocols come to one name, and so to one folder."""
    mine = run.metadata
    if other is not None and (mine, run.experiment.seed) != (other.metadata, other.experiment.seed):
        raise ColdbenchError(
            f"{mine.name}, protocol {mine.protocol}: its run would be called {mine.run}, as that of "
            f"{other.metadata.name}, protocol {other.metadata.protocol}, seed {other.experiment.seed}; "
            "rename one of them"
        )


def _check_images(run: Run) -> None:
    name, size = run.metadata.name, run.experiment.size
    entry, wanted = data.dataset(run.experiment.dataset), run.sampling.images
    if wanted is not None and run.sampling.restores and entry.test and wanted > entry.test:
        raise ColdbenchError(
            f"{name}: sampling.images is {wanted}, but the test set of {entry.name} has {entry.test} images"
        )
    for what, side in (("size", size), ("preprocessing.resize", run.experiment.prepared_size)):
        if not data.SMALLEST <= side <= data.LARGEST:
            raise ColdbenchError(f"{name}: {what} {side} is out of range: {data.SMALLEST} to {data.LARGEST} pixels")


def _check_operators(run: Run) -> None:
    from coldbench import degradations
    from coldbench.sampling import priors, samplers

    experiment = run.experiment
    entry = data.dataset(experiment.dataset)
    try:
        degradation = degradations.build(experiment.degradation, experiment.size)
        if experiment.partner is not None:
            data.dataset(experiment.partner)
        if degradation.needs_colour and entry.channels != 3:
            raise ColdbenchError(
                f"degradation {experiment.degradation['name']} needs images of 3 channels; those of "
                f"{experiment.dataset} have {entry.channels}"
            )
        _check_network(experiment.network.model_dump_json(), entry.channels, experiment.size)
        for name, part in run.sampling.sets.items():
            if part.start:
                priors.check(part.start.kind, degradation)
            for what, value in (("severity", part.severity), ("assumed_severity", part.assumed_severity)):
                if value is not None and value > degradation.T:
                    raise ColdbenchError(f"set {name}: {what} must lie in 1…{degradation.T}, not {value}")
            for method in run.sampling.methods_of(name):
                samplers.check(method, degradation)
    except ColdbenchError as error:
        raise ColdbenchError(f"{run.metadata.name} ({run.metadata.protocol}): {error}") from None


@functools.cache
def _check_network(network: str, channels: int, size: int) -> None:
    import torch

    from coldbench import models

    with torch.device("meta"):  # every check of the real network, none of its memory
        models.build(Network.model_validate_json(network), channels, size)


def _check_source(config: Config, name: str) -> None:
    """Raise MissingFile for data that are absent and cannot be downloaded, ColdbenchError for damaged ones."""
    folder = Path(config.data)
    if data.dataset(name).embedded:
        return
    if config.data != DEFAULT_FOLDER and not folder.is_dir():
        raise ColdbenchError(
            f"data folder '{config.data}' does not exist; {name} needs {data.dataset(name).requirements}"
        )
    try:
        data.check_source(name, folder)
    except MissingFile:
        if data.dataset(name).download is None:
            raise


def refuse_on_cpu(experiment: Experiment, limit: float, devices: Path) -> None:
    """Raise ColdbenchError if training `experiment` on the CPU in the file `devices` would take over `limit` hours."""
    from coldbench.planning import cost

    cpu = cost.device(devices, "cpu")
    time = cost.training(cpu, experiment)
    if time.hours > limit:
        days = f"{time.hours / 24:,.0f} days" if time.hours > 48 else f"{time.hours:.0f} hours"
        raise ColdbenchError(
            f"{experiment.run} at budget {experiment.budget} would take about {days} on {cpu.title} "
            f"({time.how}; limit: {limit:g} hours); use a GPU (`coldbench plan` tells its hours), a cluster "
            "(--profile slurm), --config budget=laptop, or raise max_cpu_hours"
        )
