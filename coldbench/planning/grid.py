"""From the configuration to the runs. A mistake in the configuration ends here, before a job is planned."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from coldbench import data
from coldbench.core import plugins
from coldbench.core.config import Config, Entry, Plugins
from coldbench.core.errors import ColdbenchError, MissingFile, unknown
from coldbench.core.run import Run, chosen_protocol, resolve, snapshots_of
from coldbench.core.validation import check_plain, checked
from coldbench.planning import checks


class Finished(Protocol):
    """Says whether results of a run exist, and also its model if `with_model`."""

    def __call__(self, budget: str, run: str, with_model: bool = False, /) -> bool: ...


@dataclass(frozen=True)
class Grid:
    """The resolved grid; runs are mapped by name.

    `report_runs` are the runs that the report shows, with the snapshots of their trainings. `all_runs` also holds the
    other protocols, and the owner of every sampled model. `skipped` maps the experiments without data to the reason.
    """

    config: Config
    report_runs: dict[str, Run]
    all_runs: dict[str, Run]
    skipped: dict[str, str]

    @property
    def by_budget(self) -> dict[tuple[str, str], Run]:
        """Every run by its budget and name, which are parts of its path."""
        return {(run.metadata.budget, name): run for name, run in self.all_runs.items()}

    @property
    def datasets(self) -> dict[str, set[int]]:
        """The image sizes that the runs need of each data set."""
        sizes: dict[str, set[int]] = {}
        for run in self.all_runs.values():
            for name in filter(None, (run.experiment.dataset, run.experiment.partner)):
                sizes.setdefault(name, set()).add(run.experiment.prepared_size)
        return sizes


def build(
    raw: Mapping[str, Any],
    finished: Finished,
    check_operators: bool = True,
    check_sources: bool = True,
    check_counts: bool = True,
) -> Grid:
    """Validate a configuration and resolve its grid; ColdbenchError, one line, for the first thing that is wrong.

    `finished` is asked for the budgets in `reuse_budgets`, and where data are missing. With `check_operators` the
    degradations and networks are built as well, which imports torch. Without `check_sources` all data count as present.
    Without `check_counts` a run may ask for more images than its data set has.
    """
    check_plain(raw, "config")
    plugins.use(checked(Plugins, {"plugins": raw.get("plugins", [])}, "config").plugins)
    config = checked(Config, raw, "config")
    _check_names(config)
    methods = set(plugins.names("sampler"))
    for name, entry in config.grid.items():  # also entries that this budget or filter hides
        if entry.protocol not in entry.protocols:
            raise unknown(f"protocol of {name}", entry.protocol, entry.protocols)
        for protocol in entry.protocols:
            for budget in dict.fromkeys((config.budget, *config.budgets)):
                run = resolve(config, name, protocol, budget)
                checks.sizes(run)
                methods.update(method for part in run.sampling.sets for method in run.sampling.methods_of(part))
    if config.baseline not in methods:
        raise unknown("method in baseline", config.baseline, methods)
    _check_imports(config)
    selected, skipped = _selected(config), dict[str, str]()
    if check_sources:
        selected, skipped = _with_data(config, selected, finished)

    @functools.cache
    def counts(dataset: str) -> dict[str, int]:
        entry = data.dataset(dataset)
        try:
            return entry.counts(Path(config.data)) if check_sources or entry.count is None else {}
        except MissingFile:  # its experiments are finished
            return {}

    report_runs: dict[str, Run] = {}
    runs: dict[str, Run] = {}
    for name in selected:
        for protocol in config.grid[name].protocols:
            chosen = protocol == chosen_protocol(config, name)
            for seed in config.seeds if chosen else config.seeds[:1]:
                run = _at_budget(config, name, protocol, seed, finished)
                checks.unique(run, runs.get(run.metadata.run))
                runs[run.metadata.run] = run
                if chosen:
                    report_runs[run.metadata.run] = run
                if check_counts:
                    checks.images(config, run, counts(run.experiment.dataset))
                if check_operators:
                    checks.operators(run)
    owners = _model_owners(config, runs.values())
    for name in config.imports:
        if name in owners and owners[name].metadata.run != name:
            raise ColdbenchError(
                f"imports.{name}: it samples the model of {owners[name].metadata.run}; import that one"
            )
    runs |= {owner.metadata.run: owner for owner in owners.values() if owner.metadata.run not in runs}
    shared = {
        name: run.model_copy(update={"model": owners[name].metadata.run})
        for name, run in runs.items()
        if name in owners
    }
    shown = {name: shared[name] for name in report_runs}
    trained = [run for name, run in shown.items() if name not in config.imports]
    snapshots = {each.metadata.run: each for run in trained for each in snapshots_of(run)}
    return Grid(config, shown | snapshots, runs | shared | snapshots, skipped)


def _model_owners(config: Config, runs: Iterable[Run]) -> dict[str, Run]:
    """For each of `runs` the first run of the grid that trains the same model, so that it is trained once.

    Runs share a model if they name one explicitly or if their training configuration is identical. Experiments without
    an explicit `model` come first.
    """
    entries = sorted(config.grid.items(), key=lambda item: item[1].model is not None)
    trained: dict[tuple[str, int], dict[str, Run]] = {}
    owners = {}
    for run in runs:
        key = run.metadata.budget, run.experiment.seed
        if key not in trained:
            first: dict[str, Run] = {}
            for name, entry in entries:
                for protocol in dict.fromkeys((chosen_protocol(config, name), *entry.protocols)):
                    candidate = resolve(config, name, protocol, *key)
                    first.setdefault(candidate.experiment.fingerprint, candidate)
            trained[key] = first
        owners[run.metadata.run] = trained[key][run.experiment.fingerprint]
    return owners


def _at_budget(config: Config, name: str, protocol: str, seed: int, finished: Finished) -> Run:
    """The run at the first of `reuse_budgets` with finished results of it or of its model, else at `budget`."""
    run = resolve(config, name, protocol, config.budget, seed)
    done = [
        budget
        for budget in config.reuse_budgets
        if finished(budget, run.metadata.run) or (not run.trains and finished(budget, run.model, True))
    ]
    return resolve(config, name, protocol, done[0], seed) if done else run


def _check_names(config: Config) -> None:
    """Raise ColdbenchError for an unknown budget, protocol, experiment or data set."""
    if config.budget not in config.budgets:
        raise unknown("budget", config.budget, config.budgets)
    for name in config.reuse_budgets:
        if name not in config.budgets:
            raise unknown("budget in reuse_budgets", name, config.budgets)
    for name in config.experiments:
        if name not in config.grid:
            raise unknown("experiment", name, config.grid)
    protocols = {"default", *(p for entry in config.grid.values() for p in entry.protocols)}
    if config.protocol not in protocols:
        raise unknown("protocol", config.protocol, protocols)
    datasets = {name for entry in config.grid.values() for name in _datasets(entry)}
    for name in [*config.datasets, *config.substitute.values(), *sorted(datasets)]:
        data.dataset(name)
    for name in config.substitute:
        if name not in datasets:
            raise unknown("data set in substitute", name, datasets)


def _datasets(entry: Entry) -> set[str]:
    """The data sets that an experiment names under any protocol."""
    specs = [entry.degradation, *(protocol.degradation for protocol in entry.protocols.values())]
    return {entry.dataset, *(spec["partner"] for spec in specs if "partner" in spec)}


def _selected(config: Config) -> list[str]:
    """The experiments that pass both filters; ColdbenchError if none does."""
    names = list(dict.fromkeys(config.experiments)) or list(config.grid)
    datasets = {name: config.substitute.get(config.grid[name].dataset, config.grid[name].dataset) for name in names}
    selected = [name for name in names if not config.datasets or datasets[name] in config.datasets]
    if not selected:
        used = ", ".join(sorted(set(datasets.values())))
        raise ColdbenchError(f"no experiment uses data set {', '.join(config.datasets)} (the grid uses: {used})")
    return selected


def _with_data(config: Config, names: list[str], finished: Finished) -> tuple[list[str], dict[str, str]]:
    """The experiments with data that are present or can be downloaded, and the reasons for skipping the others.

    Finished scores need no data. With `missing_data: refuse`, ColdbenchError for the first missing data set. Damaged
    data are always refused.
    """
    complete, skipped = [], {}
    for name in names:
        try:
            for dataset in sorted(config.substitute.get(each, each) for each in _datasets(config.grid[name])):
                checks.source(config, dataset)
            complete.append(name)
        except MissingFile as error:
            if _is_finished(config, name, finished):
                complete.append(name)
                continue
            if config.missing_data == "refuse" or name in config.experiments:
                raise MissingFile(f"{name}: {error}; without it: --config missing_data=skip") from None
            skipped[name] = str(error)
    if not complete:
        raise MissingFile(f"no experiment has its data: {next(iter(skipped.values()))}")
    return complete, skipped


def _is_finished(config: Config, name: str, finished: Finished) -> bool:
    """Whether every run of an experiment in the report has scores."""
    runs = [_at_budget(config, name, chosen_protocol(config, name), seed, finished).metadata for seed in config.seeds]
    return all(finished(run.budget, run.run) for run in runs)


def _check_imports(config: Config) -> None:
    """Raise ColdbenchError for an import of an unknown run or a missing file."""
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
