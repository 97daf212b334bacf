"""What is checked of a run before a job is planned: sizes, images, operators, plug-ins, sources, and hours on a CPU."""

from __future__ import annotations

import functools
import importlib
import json
from collections.abc import Mapping
from pathlib import Path

from coldbench import data
from coldbench.core import laws, plugins
from coldbench.core.config import Config
from coldbench.core.errors import WITH_REQUIREMENTS, ColdbenchError, MissingFile
from coldbench.core.experiment import Experiment, Network
from coldbench.core.run import Run, stated
from coldbench.core.validation import deciding

DEFAULT_FOLDER = "data"
FEWEST = 2
"""Images that a distance between sets of images needs, because its covariances do."""


def unique(run: Run, other: Run | None) -> None:
    """Raise ColdbenchError if two experiments or protocols give one run name, and so one folder."""
    mine = run.metadata
    if other is not None and (mine, run.experiment.seed) != (other.metadata, other.experiment.seed):
        raise ColdbenchError(
            f"{mine.name}, protocol {mine.protocol}: its run would be called {mine.run}, as that of "
            f"{other.metadata.name}, protocol {other.metadata.protocol}, seed {other.experiment.seed}; "
            "rename one of them"
        )


def sizes(run: Run) -> None:
    for what, side in (("size", run.experiment.size), ("preprocessing.resize", run.experiment.prepared_size)):
        if not data.SMALLEST <= side <= data.LARGEST:
            raise ColdbenchError(
                f"{run.metadata.name}: {what} {side} is out of range: {data.SMALLEST} to {data.LARGEST} pixels"
            )


def images(config: Config, run: Run, counts: Mapping[str, int]) -> None:
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
    layers = stated(config, run.metadata.name, run.metadata.protocol, run.metadata.budget)
    return ".".join(list(layers)[deciding(list(layers.values()), (part, key)) or 0])


def operators(run: Run) -> None:
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


def source(config: Config, name: str) -> None:
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
