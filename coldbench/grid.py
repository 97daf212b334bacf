"""From the configuration to the runs: everything that can be wrong is found here, before a job is planned."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldbench import data
from coldbench.errors import ColdbenchError, NotThere, unknown
from coldbench.experiment import Config, Experiment, Run, checked, chosen_protocol, resolve

DEFAULT_FOLDER = "data"


@dataclass(frozen=True)
class Grid:
    """The resolved grid: `trained` runs by name, and `readings`, every protocol of every selected experiment."""

    config: Config
    trained: dict[str, Run]
    readings: dict[str, Run]

    @property
    def datasets(self) -> dict[str, set[int]]:
        """The image sizes needed of each data set."""
        sizes: dict[str, set[int]] = {}
        for run in self.readings.values():
            for name in filter(None, (run.experiment.dataset, run.experiment.partner)):
                sizes.setdefault(name, set()).add(run.experiment.prepared_size)
        return sizes


def build(raw: Mapping[str, Any], finished: Callable[[str, str], bool], check_operators: bool = True) -> Grid:
    """Validate a configuration and resolve its grid; ColdbenchError, one line, for the first thing that is wrong.

    `finished(budget, run)` tells whether results are there, for the budgets in `accept`. With `check_operators` the
    degradations and networks are built as well, which imports torch.
    """
    config = checked(Config, raw, "config")
    if config.budget not in config.budgets:
        raise unknown("budget", config.budget, config.budgets)
    for name in config.accept:
        if name not in config.budgets:
            raise unknown("budget in accept", name, config.budgets)
    for name in config.experiments:
        if name not in config.grid:
            raise unknown("experiment", name, config.grid)
    protocols = {"default", *(p for entry in config.grid.values() for p in entry.protocols)}
    if config.protocol not in protocols:
        raise unknown("protocol", config.protocol, protocols)
    for name in [*config.datasets, *config.stand_in.values(), *(entry.dataset for entry in config.grid.values())]:
        data.dataset(name)
    partners = {entry.degradation.get("partner", entry.dataset) for entry in config.grid.values()}
    shown = {entry.dataset for entry in config.grid.values()} | partners
    for name in config.stand_in:
        if name not in shown:
            raise unknown("data set in stand_in", name, shown)
    for name, entry in config.grid.items():  # also what this budget or filter hides
        for protocol in entry.protocols:
            for budget in config.budgets:
                resolve(config, name, protocol, budget)
    _check_imports(config)
    selected = _selected(config)
    trained, readings = {}, {}
    for name in selected:
        entry = config.grid[name]
        if entry.protocol not in entry.protocols:
            raise unknown(f"protocol of {name}", entry.protocol, entry.protocols)
        for protocol in entry.protocols:
            run_name = f"{name}-{protocol}"
            done = [budget for budget in config.accept if finished(budget, run_name)]
            run = resolve(config, name, protocol, (done or [config.budget])[0])
            readings[run_name] = run
            if protocol == chosen_protocol(config, name):
                trained[run_name] = run
            _check_images(run)
            if check_operators:
                _check_operators(run.experiment)
    grid = Grid(config, trained, readings)
    _check_sources(config, set(grid.datasets))
    return grid


def _selected(config: Config) -> list[str]:
    """The experiments that pass both filters; ColdbenchError if none does."""
    names = config.experiments or list(config.grid)
    shown = {name: config.stand_in.get(config.grid[name].dataset, config.grid[name].dataset) for name in names}
    kept = [name for name in names if not config.datasets or shown[name] in config.datasets]
    if not kept:
        there = ", ".join(sorted(set(shown.values())))
        raise ColdbenchError(f"no experiment uses data set {', '.join(config.datasets)} (the grid uses: {there})")
    return kept


def _check_imports(config: Config) -> None:
    """Raise ColdbenchError for an import that names no run, or a file that is not there."""
    runs = [f"{name}-{protocol}" for name, entry in config.grid.items() for protocol in entry.protocols]
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
        return "imported" in json.loads(head["__metadata__"]["experiment"]).get("origin", {})
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return False  # no model, or none of ours: the rules make it again


def _check_images(run: Run) -> None:
    name, size = run.experiment.name, run.experiment.size
    entry, wanted = data.dataset(run.experiment.dataset), run.sampling.images
    if wanted is not None and entry.test and wanted > entry.test:
        raise ColdbenchError(
            f"{name}: sampling.images is {wanted}, but the test set of {entry.name} has {entry.test} images"
        )
    if not data.SMALLEST <= size <= data.LARGEST:
        raise ColdbenchError(f"{name}: size {size} is out of range: {data.SMALLEST} to {data.LARGEST} pixels")


def _check_operators(experiment: Experiment) -> None:
    import torch

    from coldbench import degradations, models

    try:
        degradation = degradations.build(experiment.degradation, experiment.size)
        if experiment.partner is not None:
            data.dataset(experiment.partner)
        if degradation.needs_colour and data.dataset(experiment.dataset).channels != 3:
            raise ColdbenchError(
                f"degradation {experiment.degradation['name']} needs images of 3 channels; those of "
                f"{experiment.dataset} have {data.dataset(experiment.dataset).channels}"
            )
        with torch.device("meta"):  # every check of the real network, none of its memory
            models.build(experiment.network, data.dataset(experiment.dataset).channels, experiment.size)
    except ColdbenchError as error:
        raise ColdbenchError(f"{experiment.name} ({experiment.protocol}): {error}") from None


def _check_sources(config: Config, names: set[str]) -> None:
    """Raise ColdbenchError for data that are damaged, or absent and not to be downloaded."""
    folder = Path(config.data)
    for name in sorted(names):
        if data.dataset(name).embedded:
            continue
        if config.data != DEFAULT_FOLDER and not folder.is_dir():
            raise ColdbenchError(f"data folder '{config.data}' does not exist; {name} needs {data.dataset(name).needs}")
        try:
            data.check_source(name, folder)
        except NotThere:
            if data.dataset(name).download is None:
                raise


def cpu_hours(experiment: Experiment) -> float:
    """About how long a training takes on two CPU cores, in hours.

    Fitted to `images_per_second` in two training logs (model.jsonl): about 12 for the paper's network (dim 64) and 110
    for two trainings of dim 16 side by side, both at 32 px.
    """
    rate: float = 12 * (64 / experiment.network.dim) ** 1.6 * (32 / experiment.size) ** 2
    return experiment.training.updates * experiment.training.total_batch / rate / 3600


def refuse_on_cpu(experiment: Experiment, limit: float) -> None:
    """Raise ColdbenchError if training `experiment` on a CPU would take longer than `limit` hours."""
    hours = cpu_hours(experiment)
    if hours > limit:
        days = f"{hours / 24:,.0f} days" if hours > 48 else f"{hours:.0f} hours"
        raise ColdbenchError(
            f"{experiment.run} at budget {experiment.budget} would take about {days} on this CPU "
            f"(limit: {limit:g} hours); use a GPU, a cluster (--profile slurm), --config budget=laptop, "
            "or raise max_cpu_hours"
        )
