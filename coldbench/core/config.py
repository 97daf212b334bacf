"""The configuration: the grid of experiments with their protocols and budgets.

`Config` is the schema of `workflow/config/*.yaml`; `run.resolve` turns one of its experiments into a `Run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, PositiveInt, ValidationInfo, model_validator

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import Network, Preprocessing, Seed, Spec, Training
from coldbench.core.paths import AnyPath, Folder
from coldbench.core.sampling_settings import Method, Sampling
from coldbench.core.validation import LAYER, Name, Strict

Fid = Literal["paper-float", "legacy_pytorch", "legacy_tensorflow", "clean"]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


def _as_specs(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    return [{"name": each} if isinstance(each, str) else each for each in values]


Names = Annotated[list[str], BeforeValidator(_as_list)]
"""One name stands for a list of one: `--config experiments=E01`."""


class TableCell(Strict):
    """Where the paper prints an experiment's numbers."""

    table: Annotated[Literal["", "1", "2", "3", "4", "5", "5.3", "6", "A.7"], BeforeValidator(str)] = ""
    """Table, or the section of unnumbered tables; '': in no table."""
    row: str = ""
    """Row of the table; '': in no row of the paper."""


class TrainingLayer(Training):
    """What one layer states of Training. Whether settings fit together is checked when all layers are merged."""

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        return self


class SamplingLayer(Sampling):
    """What one layer states of Sampling. Whether settings fit together is checked when all layers are merged."""

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        return self


class Protocol(Strict):
    """A named interpretation of the paper: its reason, and what it changes in the experiment."""

    rationale: str = ""
    """What this protocol is, and why."""
    degradation: Spec = {}
    """Changes of D."""
    preprocessing: Preprocessing = Preprocessing()
    """Changes of Preprocessing."""
    network: Network = Network()
    """Changes of Network."""
    training: TrainingLayer = TrainingLayer()
    """Changes of Training."""
    sampling: SamplingLayer = SamplingLayer()
    """Changes of Sampling."""


class Entry(Strict):
    """One experiment of the grid as the configuration states it."""

    title: str
    """Title in the report."""
    cell: TableCell = TableCell()
    """Where the paper prints its numbers."""
    model: str | None = None
    """Experiment whose model is sampled; such an entry states title, cell and sampling only. null: its own."""
    dataset: str
    """Data set, as the registry names it."""
    size: PositiveInt = 32
    """Side of the images in pixels."""
    protocol: str
    """Protocol that is selected by default."""
    protocols: Annotated[dict[Name, Protocol], Field(min_length=1)]
    """By protocol: its rationale, and what it changes of degradation, preprocessing, network, training, sampling."""
    degradation: Spec
    """Name and parameters of D."""
    preprocessing: Preprocessing = Preprocessing()
    """Changes of the defaults of Preprocessing."""
    network: Network = Network()
    """Changes of the defaults of Network."""
    training: TrainingLayer = TrainingLayer()
    """Changes of the defaults of Training."""
    sampling: SamplingLayer = SamplingLayer()
    """Changes of the defaults of Sampling."""


OWN_KEYS = ("title", "cell", "sampling")
"""What an entry with `model` states itself."""
PARTS = ("degradation", "preprocessing", "network", "training", "sampling")
"""What experiment, protocol and budget state in layers."""


def _with_models(grid: Any, info: ValidationInfo) -> Any:
    """Copy into every entry with `model` the keys that decide the model; a layer may lack them."""
    if not isinstance(grid, Mapping) or info.context == LAYER:
        return grid
    completed = dict(grid)
    for name, entry in grid.items():
        if not isinstance(entry, Mapping) or not isinstance(entry.get("model"), str):
            continue
        base = grid.get(entry["model"])
        if entry["model"] in grid and not isinstance(base, Mapping):
            continue  # the schema refuses the base
        if not isinstance(base, Mapping) or base.get("model") is not None:
            owners = [key for key, value in grid.items() if isinstance(value, Mapping) and not value.get("model")]
            raise unknown(f"model of {name}", str(entry["model"]), owners)
        if stray := set(map(str, entry)) - {"model", *OWN_KEYS}:
            raise ColdbenchError(
                f"grid.{name}.{min(stray)}: an experiment that samples the model of {entry['model']} states only "
                f"{', '.join(OWN_KEYS)}"
            )
        completed[name] = {**{key: value for key, value in base.items() if key not in OWN_KEYS}, **entry}
    return completed


class Budget(Strict):
    """What a budget changes in every experiment; it takes precedence over experiment and protocol."""

    network: Network = Network()
    """Changes of Network."""
    training: TrainingLayer = TrainingLayer()
    """Changes of Training."""
    sampling: SamplingLayer = SamplingLayer()
    """Changes of Sampling."""


class Plugins(Strict):
    """What a configuration says of plug-ins; it is read first, because other keys name their components."""

    plugins: Annotated[list[AnyPath], BeforeValidator(_as_list)] = []
    """Files (Python) with components of your own, relative to the file that names them."""


class Config(Plugins):
    """The whole configuration: `workflow/config/paper.yaml` with its overlays."""

    budget: str
    """Budget of the runs, one of `budgets`; part of every result's path."""
    protocol: str = "default"
    """Protocol for every experiment that has it; default: each experiment's own."""
    data: Annotated[AnyPath, Field(min_length=1)] = "data"
    """Folder of the source data sets."""
    results: Folder = "results"
    """Folder of models, samples and scores."""
    reports: Folder = "reports"
    """Folder of tables and pages."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where networks run; auto: a GPU if torch finds one."""
    compile: bool = False
    """Whether networks are compiled by torch.compile in training."""
    channels_last: bool = False
    """Whether training on a GPU uses the channels-last memory format; on a CPU the suite's networks always do."""
    checkpoint_every: Annotated[float, Field(ge=0, le=86_400)] = 60.0
    """Seconds between checkpoints of a training, at most a day: a killed training loses the work since the last."""
    imports: dict[str, AnyPath] = {}
    """By run: the path of a checkpoint of the released code, used as its model."""
    fid: Annotated[list[Fid], BeforeValidator(_as_list)] = []
    """FID protocols to compute."""
    inception: AnyPath = ""
    """Folder of Inception's weights; '': they are downloaded."""
    metrics: Annotated[list[Spec], BeforeValidator(_as_specs)] = []
    """Metrics beside SSIM, RMSE and PSNR: names, or mappings {name, …parameters}."""
    baseline: Method = "tacos"
    """Method that the page of methods compares the others with; where a task lacks it, another one."""
    container: AnyPath = ""
    """Image for --sdm apptainer."""
    seeds: Annotated[list[Seed], Field(min_length=1, max_length=1000), BeforeValidator(_as_list)] = [0]
    """One model is trained for each seed; a thousand at most, because each is a run of every experiment."""
    datasets: Names = []
    """Data sets to run; []: all."""
    experiments: Names = []
    """Experiments to run; []: all."""
    missing_data: Literal["refuse", "skip"] = "refuse"
    """What happens to experiments whose data are missing and cannot be downloaded."""
    reuse_budgets: Names = []
    """Budgets whose finished results are shown instead of new ones, in order of preference."""
    substitute: dict[str, str] = {}
    """By data set: the data set that replaces it everywhere."""
    threads: dict[
        Literal["prepare", "train", "sample", "evaluate", "report"], Annotated[int, Field(ge=1, le=1024)]
    ] = {}
    """CPU threads of each kind of job; no machine has more than 1,024 cores."""
    max_cpu_hours: Annotated[float, Field(gt=0, le=10**6)] = 24.0
    """Hours of training on a CPU above which a run is refused; a million, or a century, refuses none."""
    budgets: Annotated[dict[Name, Budget], Field(min_length=1)]
    """Budgets by name."""
    grid: Annotated[dict[Name, Entry], BeforeValidator(_with_models), Field(min_length=1)]
    """Experiments by name."""
