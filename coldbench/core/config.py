"""The configuration: the grid of experiments with their protocols and budgets.

`Config` is the schema of `workflow/config/*.yaml`; `run.resolve` turns one of its experiments into a `Run`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, PositiveInt, ValidationInfo, model_validator

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import Network, Preprocessing, Seed, Spec, Training
from coldbench.core.paths import AnyPath, Folder
from coldbench.core.sampling_settings import Method, Sampling
from coldbench.core.validation import LAYER, Name, Strict

Fid = Literal["paper-float", "legacy_pytorch", "legacy_tensorflow", "clean"]
Table = Literal["", "1", "2", "3", "4", "5", "5.3", "6", "A.7"]


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


def _or_list(item: Any) -> BeforeValidator:
    """Reads one item as a list of one, and says so in the schema."""
    return BeforeValidator(_as_list, json_schema_input_type=item | list[item])


def _as_specs(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    return [{"name": each} if isinstance(each, str) else each for each in values]


Names = Annotated[list[str], _or_list(str)]
"""One name stands for a list of one: `--config experiments=E01`."""
Seeds = Annotated[list[Seed], Field(min_length=1, max_length=1000)]
OneSpec = str | dict[str, Any]
"""A component's name, or its name and parameters."""


class TableCell(Strict):
    """Where the paper prints an experiment's numbers."""

    table: Annotated[Table, BeforeValidator(str, json_schema_input_type=Table | float)] = ""
    """Number of the table, or of the section of an unnumbered one; '': in no table."""
    row: str = ""
    """Row of the table, as the paper names it; '': in no row of the paper."""


class TrainingLayer(Training):
    """The training loop (paper, appendix A): Adam on L1 loss, with an exponential moving average of the weights.

    A layer states what differs below it. Whether settings fit together is checked when all layers are merged.
    """

    model_config = ConfigDict(title="Training")

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        return self


class SamplingLayer(Sampling):
    """How a model is sampled: `batch_size`, `shard_size` and `jobs` change no bit of the samples.

    A layer states what differs below it. Whether settings fit together is checked when all layers are merged.
    """

    model_config = ConfigDict(title="Sampling")

    other_draw: bool = Field(default=True, description=Sampling.model_fields["other_draw"].description)

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Self:
        return self


class Protocol(Strict):
    """A named interpretation of the paper: its reason, and what it changes in the experiment."""

    rationale: str = ""
    """What this protocol is, and why; a sentence that the report prints."""
    degradation: Spec = {}
    """Parameters of the degradation that this protocol changes: T and those of the degradation's family."""
    preprocessing: Preprocessing = Preprocessing()
    """What this protocol changes between the prepared images and the network: resize, border, mirroring."""
    network: Network = Network()
    """What this protocol changes of the restoration network: architecture, channels, dropout, attention."""
    training: TrainingLayer = TrainingLayer()
    """What this protocol changes of the training: steps, batch, learning rate, loss, moving average, snapshots."""
    sampling: SamplingLayer = SamplingLayer()
    """What this protocol changes of the sampling: methods, sets, number of images, batches, precision."""


class Entry(Strict):
    """One experiment of the grid as the configuration states it."""

    title: str
    """Title of the experiment in the report."""
    cell: TableCell = TableCell()
    """Table and row in which the paper prints the experiment's numbers."""
    model: str | None = None
    """Experiment whose model is sampled; such an entry states title, cell and sampling only. null: its own model."""
    dataset: str
    """Name of the data set: one of the suite's own, a folder-NAME, or that of a plug-in."""
    size: PositiveInt = 32
    """Side of the network's images in pixels."""
    protocol: str
    """Protocol that is selected by default, one of `protocols`."""
    protocols: Annotated[dict[Name, Protocol], Field(min_length=1)]
    """Interpretations of the paper by name, each with what it changes in the experiment."""
    degradation: Spec
    """Name of the degradation D, its largest severity T, and the parameters of its family."""
    preprocessing: Preprocessing = Preprocessing()
    """What happens between the prepared images and the network: resize, border, mirroring."""
    network: Network = Network()
    """The restoration network: architecture, channels, dropout, attention; the defaults are the paper's size."""
    training: TrainingLayer = TrainingLayer()
    """The training: steps, batch, learning rate, loss, moving average, snapshots; the defaults are the paper's."""
    sampling: SamplingLayer = SamplingLayer()
    """The sampling: methods, sets of samples, number of images, batches, precision."""


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
    """What this budget changes of every network: architecture, channels, dropout, attention."""
    training: TrainingLayer = TrainingLayer()
    """What this budget changes of every training: steps, batch, learning rate, precision, moving average, snapshots."""
    sampling: SamplingLayer = SamplingLayer()
    """What this budget changes of every sampling: number of images, batches, precision, methods, sets."""


class Plugins(Strict):
    """What a configuration says of plug-ins; it is read first, because other keys name their components."""

    plugins: Annotated[list[AnyPath], _or_list(AnyPath)] = []
    """Python files with components of your own, as paths relative to the file that names them."""


class Config(Plugins):
    """The whole configuration: `workflow/config/paper.yaml` with its overlays."""

    budget: str
    """Budget of the runs, one of `budgets`; part of every result's path."""
    protocol: str = "default"
    """Protocol of every experiment that has one of this name; default: each experiment's own."""
    data: Annotated[AnyPath, Field(min_length=1)] = "data"
    """Folder of the source data sets; downloads go there."""
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
    """Paths of checkpoints of the released code by run, such as E01-fitted; each becomes the model of its run."""
    fid: Annotated[list[Fid], _or_list(Fid)] = []
    """FID protocols to compute, each with its own Inception weights; []: no FID, FD-Gabor alone."""
    inception: AnyPath = ""
    """Folder of Inception's weights; '': they are downloaded."""
    metrics: Annotated[list[Spec], BeforeValidator(_as_specs, json_schema_input_type=OneSpec | list[OneSpec])] = []
    """Metrics of plug-ins beside SSIM, RMSE and PSNR: names, or mappings of a name and parameters."""
    baseline: Method = "tacos"
    """Method that the page of methods compares the others with; where a task lacks it, another one."""
    container: AnyPath = ""
    """Container image for --sdm apptainer: a .sif file or docker://…; '': none."""
    seeds: Annotated[Seeds, BeforeValidator(_as_list, json_schema_input_type=Seed | Seeds)] = [0]
    """Seeds of the trainings, a model for each; a thousand at most, because each is a run of every experiment."""
    datasets: Names = []
    """Data sets whose experiments run; []: all of them."""
    experiments: Names = []
    """Experiments that run; []: all of them."""
    missing_data: Literal["refuse", "skip"] = "refuse"
    """What happens if data are missing and cannot be downloaded: the plan is refused, or skips their experiments."""
    reuse_budgets: Names = []
    """Budgets whose finished results are shown instead of new ones, in order of preference."""
    substitute: dict[str, str] = {}
    """Replacements by data set: the data set that takes its place everywhere."""
    threads: dict[
        Literal["prepare", "train", "sample", "evaluate", "report"], Annotated[int, Field(ge=1, le=1024)]
    ] = {}
    """CPU threads by kind of job; no machine has more than 1,024 cores."""
    max_cpu_hours: Annotated[float, Field(gt=0, le=10**6)] = 24.0
    """Hours of training on a CPU above which a run is refused; a million, or a century, refuses none."""
    budgets: Annotated[dict[Name, Budget], Field(min_length=1)]
    """Budgets by name, each with what it changes in every experiment."""
    grid: Annotated[dict[Name, Entry], Field(min_length=1), BeforeValidator(_with_models)]
    """Experiments by name, each with its data, degradation and protocols."""
