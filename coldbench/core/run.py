"""A run: an experiment of the grid under one protocol, budget and seed, with every value in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coldbench.core import plugins
from coldbench.core.config import PARTS, Budget, Config, Entry, Protocol, TableCell
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Spec
from coldbench.core.paths import AnyPath
from coldbench.core.sampling_settings import REDRAWN, Sampling
from coldbench.core.validation import Name, Strict, checked, fingerprint, merged


class RunMetadata(Strict):
    """How an experiment is named and shown; it changes no weight and retrains nothing."""

    name: Name
    """Experiment, such as E01."""
    protocol: Name
    """Interpretation of the paper, such as fitted."""
    budget: Name
    """Budget, such as laptop."""
    run: Name
    """Name of the run's folder, such as E01-fitted."""
    title: str
    """Title in the report."""
    cell: TableCell
    """Where the paper prints its numbers."""
    default: bool
    """Whether its protocol is the selected one of its experiment."""
    rationale: str
    """What this protocol is, and why."""


class Run(Strict):
    """An experiment with everything that the later stages need; `model` names the run whose model it samples."""

    experiment: Experiment
    metadata: RunMetadata
    sampling: Sampling
    model: str
    metrics: list[Spec] = []
    """Metrics beside the suite's own."""
    plugins: list[AnyPath] = []
    """Files of plug-ins, from the folder of the workflow."""

    @property
    def file_name(self) -> str:
        """The name of the run's JSON file. It holds a hash of the content, so that other settings get another file."""
        return f"{self.metadata.budget}-{self.metadata.run}-{fingerprint(self.model_dump())}.json"

    @property
    def trains(self) -> bool:
        """Whether the run trains the model that it samples."""
        return self.model == self.experiment.run


def stated(config: Config, name: str, protocol: str, budget: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """What experiment, protocol and budget state of the parts of a run, by their paths in the configuration.

    Later ones take precedence over earlier ones, as `merged` has it.
    """
    entry = config.grid[name]
    layers: dict[tuple[str, ...], Entry | Protocol | Budget] = {
        ("grid", name): entry,
        ("grid", name, "protocols", protocol): entry.protocols[protocol],
        ("budgets", budget): config.budgets[budget],
    }
    return {place: layer.model_dump(include=set(PARTS), exclude_unset=True) for place, layer in layers.items()}


def resolve(config: Config, name: str, protocol: str, budget: str, seed: int | None = None) -> Run:
    """Experiment `name` of the grid under one protocol, budget and seed (None: the first), with every value in place.

    The protocol changes the entry, and the budget changes both. ColdbenchError naming the place of a mistake.
    """
    entry, changes = config.grid[name], config.grid[name].protocols[protocol]
    where = f"grid.{name}, protocol {protocol}, budget {budget}"
    layers = merged({part: {} for part in PARTS}, *stated(config, name, protocol, budget).values())
    sampling = layers.pop("sampling")
    if "partner" in layers["degradation"]:
        partner = layers["degradation"]["partner"]
        layers["degradation"]["partner"] = config.substitute.get(partner, partner)
    names = {"name": name, "protocol": protocol, "budget": budget}
    facts = {
        "dataset": config.substitute.get(entry.dataset, entry.dataset),
        "size": entry.size,
        "seed": config.seeds[0] if seed is None else seed,
    }
    layers["degradation"] = _with_source("degradation", layers["degradation"], f"{where}: degradation")
    layers["network"] = _with_source("network", layers["network"], f"{where}: network")
    experiment = checked(Experiment, {**names, **layers, **facts}, where)
    metadata = {
        **names,
        "run": experiment.run,
        "title": entry.title,
        "cell": entry.cell.model_dump(),
        "default": protocol == chosen_protocol(config, name),
        "rationale": changes.rationale,
    }
    model = experiment.run if entry.model is None else experiment.model_copy(update={"name": entry.model}).run
    return Run(
        experiment=experiment,
        metadata=checked(RunMetadata, metadata, where),
        sampling=_with_samplers(
            _with_other_draw(checked(Sampling, sampling, where, "sampling"), experiment), f"{where}: sampling.methods"
        ),
        model=model,
        metrics=[_with_source("metric", metric, "metrics") for metric in config.metrics],
        plugins=config.plugins,
    )


def snapshots_of(run: Run) -> list[Run]:
    """The runs that sample the models on the way of a run's training: its first set, by the same methods.

    ColdbenchError if a snapshot comes before the first average of weights.
    """
    first = next(iter(run.sampling.sets))
    sampling = run.sampling.model_copy(update={"sets": {first: run.sampling.sets[first]}})
    training = run.experiment.training
    if run.trains and training.snapshots and training.snapshots[0] < training.ema_update_every:
        raise ColdbenchError(
            f"{run.metadata.run}: training.snapshots: step {training.snapshots[0]} comes before the first average of "
            f"weights, after {training.ema_update_every} steps"
        )
    runs = []
    for step in training.snapshots if run.trains else []:
        experiment = run.experiment.at(step)
        title = f"{run.metadata.title}, after {step:,} of {training.max_steps:,} steps"
        facts = {"run": experiment.run, "title": title, "cell": TableCell(), "default": False}
        metadata = run.metadata.model_copy(update=facts)
        new = {"experiment": experiment, "metadata": metadata, "sampling": sampling, "model": experiment.run}
        runs.append(run.model_copy(update=new))
    return runs


def _with_source(kind: str, spec: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A component's name and parameters, with the hash of its code unless it is the suite's own.

    ColdbenchError naming `where` and the nearest name for an unknown one.
    """
    name = spec.get("name")
    if not isinstance(name, str) or name in plugins.OWN[kind]:
        return dict(spec)
    try:
        return plugins.described(kind, spec)
    except ColdbenchError as error:
        raise ColdbenchError(f"{where}: {error}") from None


def _with_other_draw(sampling: Sampling, experiment: Experiment) -> Sampling:
    """The settings with a set in which the sampler knows another draw, if the degradation draws (`other_draw`).

    The set belongs to the first one whose sampler knows the draw and severity of its images. Direct reconstruction
    knows no draw.
    """
    if not sampling.other_draw or not _draws(experiment.degradation):
        return sampling
    for label, each in sampling.sets.items():
        methods = [method for method in sampling.methods_of(label) if sampling.sampler(method)["name"] != "direct"]
        other = each.model_copy(update={"known": "redrawn", "methods": methods})
        if each.restores_as_degraded and methods and REDRAWN.format(label) not in sampling.sets:
            return sampling.model_copy(update={"sets": {**sampling.sets, REDRAWN.format(label): other}})
    return sampling


def _draws(degradation: Mapping[str, Any]) -> bool:
    """Whether a degradation draws something for each image. It is not built for that, because this would load torch."""
    name, low, high = (degradation.get(key) for key in ("name", "centre_low", "centre_high"))
    fixed_centre = name == "inpainting" and low is not None and low == high
    return name is not None and plugins.find("degradation", name).draws and not fixed_centre


def _with_samplers(sampling: Sampling, where: str) -> Sampling:
    """The settings with name, parameters and source of every sampler in use that needs more than its name."""
    labels = dict.fromkeys(method for name in sampling.sets for method in sampling.methods_of(name))
    samplers = {label: _with_source("sampler", sampling.sampler(label), where) for label in labels}
    return sampling.model_copy(
        update={"samplers": {label: spec for label, spec in samplers.items() if spec != {"name": label}}}
    )


def chosen_protocol(config: Config, name: str) -> str:
    """The selected protocol of experiment `name`: the configuration's if the experiment has it, else its own."""
    entry = config.grid[name]
    return config.protocol if config.protocol in entry.protocols else entry.protocol
