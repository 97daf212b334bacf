"""The configuration: the grid of experiments with their protocols and budgets, and how their models are sampled.

`Config` is the schema of `workflow/config/*.yaml`; `resolve` turns one of its experiments into a `Run`. Like
`experiment`, this module knows no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import Experiment
from coldbench.core.validation import Count, Flag, Name, Natural, Plain, Strict, checked, merged

Method = Literal["direct", "naive", "tacos", "estimated", "resampled", "naive_resampled", "ddpm"]
Fid = Literal["paper-float", "legacy_pytorch", "legacy_tensorflow", "clean"]
Folder = Annotated[
    str,
    Field(pattern=r"^[^{}<>*?\[\]]*[^{}<>*?\[\]/]$"),  # a part of Snakemake's patterns
    BeforeValidator(lambda value: value.rstrip("/") or value if isinstance(value, str) else value),
]


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


Names = Annotated[list[str], BeforeValidator(_listed)]
"""One name stands for a list of one: `--config experiments=E01`."""


class Start(Strict):
    """Where a generation starts (paper, section 5): x_T drawn without an image to restore.

    kind: the channel means or the smallest image of super-resolution (`grid`), drawn from a Gaussian mixture of
    `components` fitted to the training images; a solid `colour`; an image of the `partner` data set; or `noise`.
    `noise_level` is the standard deviation, in [-1, 1] units, of normal noise added once (section 5.2: it breaks the
    symmetry of a blurred image).
    """

    kind: Literal["means", "grid", "colour", "partner", "noise"]
    components: Count = 1
    noise_level: Annotated[float, Field(ge=0), Plain] = 0.0


class SampleSet(Strict):
    """One way of using a model: what is sampled, by which methods, and what the sampler is told.

    Without a `start`, test images are degraded to `severity` (null: T) and restored; `assumed` is the severity that the
    sampler takes them for (null: the true one), and `known: redrawn` hands it another draw of what is random (mask
    centre, snow) than the images were degraded with. `every` takes that many severities at a time; `released_shift`
    takes every D one severity too low, as the released code does for snow and colour (D11).
    """

    methods: Annotated[list[Method], Field(min_length=1)] | None = None
    start: Start | None = None
    severity: Count | None = None
    assumed_severity: Count | None = None
    known: Literal["drawn", "redrawn"] = "drawn"
    stride: Count = 1
    released_shift: Flag = False

    @model_validator(mode="after")
    def _sensible(self) -> SampleSet:
        if self.start and (self.severity or self.assumed_severity or self.known != "drawn"):
            raise ValueError("a generation has no image to degrade: leave out severity, assumed_severity and known")
        if self.methods and len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods names a method twice: {', '.join(self.methods)}")
        return self


class Sampling(Strict):
    """How a model is sampled: each of `sets` by its own methods, or by `methods`.

    The first `images` of the test set (null: all), or so many generated ones. The network always sees `tile` images at
    once (null: 16 on a CPU, 64 on a GPU), so `batch`, `shard` and the number of jobs change no bit of the result.
    `frames` bounds the severities of a kept trajectory (null: all); `signed_metrics` scores SSIM and RMSE in [-1, 1] as
    well, as some other implementations do.
    """

    methods: Annotated[list[Method], Field(min_length=1)] = ["direct", "naive", "tacos"]
    sets: Annotated[dict[Name, SampleSet], Field(min_length=1)] = {"test": SampleSet()}
    images: Count | None = None
    batch_size: Count = 250
    shard_size: Count = 1000
    jobs: Count = 1
    inference_batch: Count | None = None
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: Flag = False
    max_frames: Count | None = 24
    signed_metrics: Flag = False

    @model_validator(mode="after")
    def _each_method_once(self) -> Sampling:
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"sampling.methods names a method twice: {', '.join(self.methods)}")
        if self.images is None and any(part.start for part in self.sets.values()):
            raise ValueError("sampling.images must say how many images to generate")
        return self

    def methods_of(self, name: str) -> list[Method]:
        """The methods of one of `sets`."""
        return self.sets[name].methods or self.methods

    @property
    def restores(self) -> bool:
        """Whether any of the sets restores test images."""
        return any(part.start is None for part in self.sets.values())


class Cell(Strict):
    """Where the paper prints this experiment's numbers; row '' has no counterpart there, table '' is in no table."""

    table: Annotated[Literal["", "1", "2", "3", "4", "5", "5.3", "6", "A.7"], BeforeValidator(str)] = ""
    row: str = ""


class RunMetadata(Strict):
    """How an experiment is named and shown: words that change no weight and retrain nothing."""

    name: str
    protocol: str
    budget: str
    run: str
    title: str
    cell: Cell
    default: bool  # whether its protocol is the one selected for its experiment
    rationale: str  # what this protocol is and why


@dataclass(frozen=True)
class Run:
    """An experiment with everything that the later stages need to know; `model` is the run whose model it samples."""

    experiment: Experiment
    metadata: RunMetadata
    sampling: Sampling
    model: str

    @property
    def trains(self) -> bool:
        """Whether it has a model of its own."""
        return self.model == self.experiment.run


class Entry(Strict):
    """One experiment of the grid as the configuration states it; with `model`, it samples another one's model."""

    title: str
    cell: Cell = Cell()
    model: str | None = None
    dataset: str
    size: Count = 32
    protocol: str
    protocols: Annotated[dict[Name, dict[str, Any]], Field(min_length=1)]
    degradation: dict[str, Any]
    preprocessing: dict[str, Any] = {}
    network: dict[str, Any] = {}
    training: dict[str, Any] = {}
    sampling: dict[str, Any] = {}


OWN = ("title", "cell", "sampling")
"""What an experiment that samples another one's model states itself."""


def _with_models(grid: Any) -> Any:
    """Complete every entry that names a `model` with what decides that model."""
    if not isinstance(grid, Mapping):
        return grid
    whole = dict(grid)
    for name, entry in grid.items():
        if not isinstance(entry, Mapping) or entry.get("model") is None:
            continue
        base = grid.get(entry["model"])
        if entry["model"] in grid and not isinstance(base, Mapping):
            continue  # the schema tells
        if not isinstance(base, Mapping) or base.get("model") is not None:
            having = [other for other, there in grid.items() if isinstance(there, Mapping) and not there.get("model")]
            raise unknown(f"model of {name}", str(entry["model"]), having)
        if stray := entry.keys() - {"model", *OWN}:
            raise ColdbenchError(
                f"grid.{name}.{min(stray)}: an experiment that samples the model of {entry['model']} states only "
                f"{', '.join(OWN)}"
            )
        whole[name] = {**{key: value for key, value in base.items() if key not in OWN}, **entry}
    return whole


class Budget(Strict):
    """What a budget changes in every experiment; it wins over the experiment's own value."""

    network: dict[str, Any] = {}
    training: dict[str, Any] = {}
    sampling: dict[str, Any] = {}


class Config(Strict):
    """The whole configuration: `workflow/config/paper.yaml` with its overlays."""

    budget: str
    protocol: str = "default"
    data: str = "data"
    results: Folder = "results"
    reports: Folder = "reports"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    compile: Flag = False
    channels_last: Flag = False
    checkpoint_every: Annotated[float, Field(ge=0), Plain] = 60.0
    imports: dict[Name, str] = {}
    fid: Annotated[list[Fid], BeforeValidator(_listed)] = []
    inception: str = ""
    container: str = ""
    seeds: Annotated[list[Natural], Field(min_length=1), BeforeValidator(_listed)] = [0]
    datasets: Names = []
    experiments: Names = []
    missing_data: Literal["refuse", "skip"] = "refuse"
    reuse_budgets: Names = []
    substitute: dict[str, str] = {}
    threads: dict[Literal["prepare", "train", "sample", "evaluate", "report"], Count] = {}
    max_cpu_hours: Annotated[float, Field(gt=0), Plain] = 24.0
    budgets: Annotated[dict[Name, Budget], Field(min_length=1)]
    grid: Annotated[dict[Name, Entry], BeforeValidator(_with_models), Field(min_length=1)]


def resolve(config: Config, name: str, protocol: str, budget: str, seed: int | None = None) -> Run:
    """Experiment `name` of the grid under one protocol and one budget, with every value in place."""
    entry = config.grid[name]
    reading = dict(entry.protocols[protocol])
    because = reading.pop("rationale", "")
    below = {part: getattr(entry, part) for part in ("degradation", "preprocessing", "network", "training", "sampling")}
    where = f"grid.{name}, protocol {protocol}, budget {budget}"
    if stray := reading.keys() - below.keys():
        raise unknown(f"key in {where}", min(stray), ["rationale", *below])
    layers = merged(below, reading, config.budgets[budget].model_dump())
    sampling = layers.pop("sampling")
    dataset = config.substitute.get(entry.dataset, entry.dataset)
    if "partner" in layers["degradation"]:
        partner = layers["degradation"]["partner"]
        layers["degradation"]["partner"] = config.substitute.get(partner, partner)
    names = {"name": name, "protocol": protocol, "budget": budget}
    seed = config.seeds[0] if seed is None else seed
    experiment = checked(Experiment, {**names, **layers, "dataset": dataset, "size": entry.size, "seed": seed}, where)
    about = {
        **names,
        "run": experiment.run,
        "title": entry.title,
        "cell": entry.cell.model_dump(),
        "default": protocol == chosen_protocol(config, name),
        "rationale": because,
    }
    model = experiment.run if entry.model is None else experiment.model_copy(update={"name": entry.model}).run
    return Run(experiment, checked(RunMetadata, about, where), checked(Sampling, sampling, where, "sampling"), model)


def chosen_protocol(config: Config, name: str) -> str:
    """The protocol that experiment `name` is trained under: the configuration's if it has it, else its own default."""
    entry = config.grid[name]
    return config.protocol if config.protocol in entry.protocols else entry.protocol
