"""From the configuration to the runs. A mistake in the configuration ends here, before a job is planned."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldbench import data
from coldbench.core import laws, plugins
from coldbench.core.config import Budget, Config, Entry, Plugins, Protocol, Run, chosen_protocol, resolve
from coldbench.core.errors import WITH_REQUIREMENTS, ColdbenchError, MissingFile, unknown
from coldbench.core.experiment import Experiment, Network
from coldbench.core.validation import check_plain, checked

DEFAULT_FOLDER = "data"
FEWEST = 2
"""Images that a distance between sets of images needs, because its covariances do."""


@dataclass(frozen=True)
class Grid:
    """The resolved grid; runs are mapped by name.

    `report_runs` are the runs that the report shows. `all_runs` also holds the other protocols, and the owner of every
    sampled model. `skipped` maps the experiments without data to the reason.
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
    finished: Callable[[str, str], bool],
    check_operators: bool = True,
    check_sources: bool = True,
) -> Grid:
    """Validate a configuration and resolve its grid; ColdbenchError, one line, for the first thing that is wrong.

    `finished(budget, run)` says whether results exist, for the budgets in `reuse_budgets`. With `check_operators` the
    degradations and networks are built as well, which imports torch. Without `check_sources` all data count as present.
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
            for budget in config.budgets:
                run = resolve(config, name, protocol, budget)
                _check_sizes(run)
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
                _check_unique(run, runs.get(run.metadata.run))
                runs[run.metadata.run] = run
                if chosen:
                    report_runs[run.metadata.run] = run
                _check_images(config, run, counts(run.experiment.dataset))
                if check_operators:
                    _check_operators(run)
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
    return Grid(config, {name: shared[name] for name in report_runs}, runs | shared, skipped)


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


def _at_budget(config: Config, name: str, protocol: str, seed: int, finished: Callable[[str, str], bool]) -> Run:
    """The run at the first of `reuse_budgets` with finished results of it or of its model, else at `budget`."""
    run = resolve(config, name, protocol, config.budget, seed)
    done = [
        budget for budget in config.reuse_budgets if finished(budget, run.metadata.run) or finished(budget, run.model)
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


def _with_data(
    config: Config, names: list[str], finished: Callable[[str, str], bool]
) -> tuple[list[str], dict[str, str]]:
    """The experiments with data that are present or can be downloaded, and the reasons for skipping the others.

    Finished scores need no data. With `missing_data: refuse`, ColdbenchError for the first missing data set. Damaged
    data are always refused.
    """
    complete, skipped = [], {}
    for name in names:
        try:
            for dataset in sorted(config.substitute.get(each, each) for each in _datasets(config.grid[name])):
                _check_source(config, dataset)
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


def _is_finished(config: Config, name: str, finished: Callable[[str, str], bool]) -> bool:
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


def _check_unique(run: Run, other: Run | None) -> None:
    """Raise ColdbenchError if two experiments or protocols give one run name, and so one folder."""
    mine = run.metadata
    if other is not None and (mine, run.experiment.seed) != (other.metadata, other.experiment.seed):
        raise ColdbenchError(
            f"{mine.name}, protocol {mine.protocol}: its run would be called {mine.run}, as that of "
            f"{other.metadata.name}, protocol {other.metadata.protocol}, seed {other.experiment.seed}; "
            "rename one of them"
        )


def _check_sizes(run: Run) -> None:
    for what, side in (("size", run.experiment.size), ("preprocessing.resize", run.experiment.prepared_size)):
        if not data.SMALLEST <= side <= data.LARGEST:
            raise ColdbenchError(
                f"{run.metadata.name}: {what} {side} is out of range: {data.SMALLEST} to {data.LARGEST} pixels"
            )


def _check_images(config: Config, run: Run, counts: Mapping[str, int]) -> None:
    """Raise ColdbenchError if the data set has too few images for the run; `counts` is empty if they are unknown."""
    name, sampling, dataset = run.metadata.name, run.sampling, run.experiment.dataset
    key = f"{source_of(config, run, 'sampling', 'images')}.sampling.images"
    if sampling.images is not None and sampling.images < FEWEST:
        raise ColdbenchError(f"{key} is {sampling.images}, but distances between sets of images need {FEWEST}")
    if not counts:
        return
    if sampling.restores and (sampling.images or FEWEST) > counts["test"]:
        needed = f"{key} is {sampling.images}" if sampling.images else f"{name} needs {FEWEST}"
        raise ColdbenchError(f"{needed}, but the test set of {dataset} has {counts['test']} images")
    for part, each in sampling.sets.items():
        if each.start and min(counts.values()) < FEWEST:
            fewest = min(counts, key=lambda split: counts[split])
            raise ColdbenchError(
                f"{name}: set {part} is compared with the {fewest} images of {dataset}: {counts[fewest]} are too few, "
                f"distances between sets of images need {FEWEST}"
            )
        if each.start and each.start.kind in ("means", "grid") and each.start.components > counts["train"]:
            raise ColdbenchError(
                f"{source_of(config, run, 'sampling', 'sets')}.sampling.sets.{part}.start.components is "
                f"{each.start.components}, but {dataset} has {counts['train']} training images"
            )


def source_of(config: Config, run: Run, part: str, key: str) -> str:
    """The path, in the configuration, of the budget, protocol or experiment that decides a key of a run's part."""
    name, protocol, budget = run.metadata.name, run.metadata.protocol, run.metadata.budget
    layers: dict[str, Budget | Protocol] = {
        f"budgets.{budget}": config.budgets[budget],
        f"grid.{name}.protocols.{protocol}": config.grid[name].protocols[protocol],
    }
    for place, layer in layers.items():
        stated = getattr(layer, part, {})
        if key in (stated if isinstance(stated, dict) else stated.model_fields_set):
            return place
    return f"grid.{name}"


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
                samplers.check(run.sampling.sampler(method), degradation)
        if run.metrics:
            from coldbench.evaluation.measurements import per_image

            for metric in run.metrics:
                per_image(metric)
        _check_plugins(run, entry.channels)
    except ColdbenchError as error:
        raise ColdbenchError(f"{run.metadata.name} ({run.metadata.protocol}): {error}") from None
    except Exception as error:  # a plug-in's own code may raise anything
        raise plugins.located(error) or error from None


@functools.cache
def _check_network(network: str, channels: int, size: int) -> None:
    import torch

    from coldbench import models

    described = Network.model_validate_json(network)
    if described.source is None:
        with torch.device("meta"):  # the checks of the real network without its memory
            models.build(described, channels, size)


def _check_plugins(run: Run, channels: int) -> None:
    """Hold the plug-ins that a run uses to the required laws of their kinds, with its parameters and size."""
    experiment = run.experiment
    for kind, spec in (
        ("degradation", experiment.degradation),
        ("network", experiment.network.model_dump()),
        *(
            ("sampler", run.sampling.sampler(method))
            for name in run.sampling.sets
            for method in run.sampling.methods_of(name)
        ),
        *(("metric", metric) for metric in run.metrics),
    ):
        if "source" in spec:
            _require(kind, json.dumps(spec), channels, experiment.size)


@functools.cache
def _require(kind: str, described: str, channels: int, size: int) -> None:
    """Raise ColdbenchError if a plug-in breaks a required law of its kind; checked once for equal parameters."""
    contract = importlib.import_module(laws.CONTRACTS[kind])
    spec = json.loads(described)
    laws.require(kind, spec["name"], contract.cases_of(spec, channels, size))


def _check_source(config: Config, name: str) -> None:
    """Raise MissingFile for missing data without a download, ColdbenchError for damaged data."""
    folder = Path(config.data)
    if data.dataset(name).embedded:
        return
    if config.data != DEFAULT_FOLDER and not folder.is_dir():
        raise ColdbenchError(
            f"data folder '{config.data}' does not exist; {name} needs {data.dataset(name).requirements}",
            WITH_REQUIREMENTS,
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
            f"({time.source}; limit: {limit:g} hours); use a GPU (`coldbench plan` estimates its hours), a cluster "
            "(--profile slurm), --config budget=laptop, or raise max_cpu_hours"
        )
