"""The configuration: the grid of experiments with their protocols and budgets, and how their models are sampled.

`Config` is the schema of `workflow/config/*.yaml`; `resolve` turns one of its experiments into a `Run`. Like
`experiment`, this module knows no torch.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, PositiveInt, ValidationInfo, model_validator

from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import MOST_IMAGES, Experiment, Network, Preprocessing, Seed, Spec, Training
from coldbench.core.validation import LAYER, Name, Strict, checked, fingerprint, merged

LABEL = r"^[A-Za-z0-9][A-Za-z0-9_.+]*$"
"""The pattern of a method's label."""
NOT_METHODS = ("degraded", "original")
"""What scores and pictures name beside methods."""


def _method(value: str) -> str:
    if value in NOT_METHODS:
        raise ValueError(f"{value} names the {value} images, so no method can have this name")
    return value


Method = Annotated[str, Field(pattern=LABEL, max_length=40), AfterValidator(_method)]
"""The label of a method: the name of a sampler, or a key of `Sampling.samplers`."""
Fid = Literal["paper-float", "legacy_pytorch", "legacy_tensorflow", "clean"]
INFERENCE_BATCH = {"cpu": 16, "cuda": 64}
"""The default number of images in one forward pass when sampling, by type of device."""
LARGEST_T = 10_000
"""The largest severity of any degradation."""
Severity = Annotated[int, Field(ge=1, le=LARGEST_T)]


def _path(value: str) -> str:
    if value.startswith("~") or re.search(r"\$[A-Za-z_{]", value):
        written = os.path.expandvars(os.path.expanduser(value))  # noqa: PTH111 (keeps the ~ of an unknown user)
        advice = f"write {written!r}" if written != value else "write the folder itself"
        raise ValueError(f"~ and $NAME are not expanded, because a job's machine may have others; {advice}")
    if value.startswith("-") or "\n" in value or "\t" in value:
        raise ValueError("a path with a line end or a tab, or a dash at its beginning, is not supported")
    if max(len(part.encode()) for part in value.split("/")) > 255:
        raise ValueError("a file system takes names of at most 255 bytes")
    return value


def _folder(value: str) -> str:
    if found := re.search(r"[{}<>*?\[\]]", value):
        raise ValueError(f"'{found[0]}' is not supported here, because Snakemake's patterns use it")
    if not value.strip("/"):
        raise ValueError("the root of the file system is not supported")
    return value.rstrip("/")


AnyPath = Annotated[str, Field(max_length=1000), AfterValidator(_path)]
"""A path as it stands: nothing in it is expanded."""
Folder = Annotated[
    str,
    Field(min_length=1, max_length=500, json_schema_extra={"pattern": r"^[^{}<>*?\[\]]*$"}),
    AfterValidator(_path),
    AfterValidator(_folder),
]
"""A folder of the workflow's files, whose paths Snakemake's patterns hold."""


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, str | int) else value


def _as_specs(value: Any) -> Any:
    values = value if isinstance(value, list) else [value]
    return [{"name": each} if isinstance(each, str) else each for each in values]


Names = Annotated[list[str], BeforeValidator(_as_list)]
"""One name stands for a list of one: `--config experiments=E01`."""


class Start(Strict):
    """Where a generation starts (paper, section 5): x_T drawn without an image to restore."""

    kind: Literal["means", "grid", "colour", "partner", "noise"]
    """Channel means or the smallest image of super-resolution (grid), drawn from a Gaussian mixture fitted to the
    training images; a solid colour; an image of the partner data set; or noise."""
    components: Annotated[int, Field(ge=1, le=10_000)] = 1
    """Gaussians of the mixture, at most as many as training images; means and grid only."""
    noise_level: Annotated[float, Field(ge=0, le=100)] = 0.0
    """Standard deviation, in [-1, 1] units, of normal noise added once; it breaks the symmetry of a blurred image. Far
    above 1 nothing but noise is left."""

    @model_validator(mode="after")
    def _components_have_a_mixture(self) -> Start:
        if "components" in self.model_fields_set and self.components > 1 and self.kind not in ("means", "grid"):
            raise ValueError(f"components has no effect on a start of kind {self.kind}: leave it out")
        return self


class SampleSet(Strict):
    """One way of sampling a model: what is restored or generated, by which methods, and what the sampler knows of D."""

    methods: Annotated[list[Method], Field(min_length=1)] | None = None
    """Samplers; null: those of the experiment."""
    start: Start | None = None
    """Where a generation starts; null: test images are degraded and restored."""
    severity: Severity | None = None
    """Severity of the degraded test images; null: T."""
    assumed_severity: Severity | None = None
    """Severity that the sampler starts from; null: the true one."""
    known: Literal["drawn", "redrawn"] = "drawn"
    """What the sampler knows of the random part of D (mask centre, snow): that of the images, or another draw."""
    stride: Severity = 1
    """Severities per sampling step."""
    released_shift: bool = False
    """Whether every D is evaluated one severity too low, as by the released code for snow and colour (D11)."""

    @model_validator(mode="after")
    def _settings_fit_together(self) -> SampleSet:
        if self.start and (self.severity or self.assumed_severity or self.known != "drawn"):
            raise ValueError("a generation has no image to degrade: leave out severity, assumed_severity and known")
        if self.methods and len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods names a method twice: {', '.join(self.methods)}")
        return self

    @property
    def restores_as_degraded(self) -> bool:
        """Whether test images are restored by a sampler that knows their draw and severity, step by step."""
        return self.start is None and self.assumed_severity is None and self.known == "drawn" and self.stride == 1


class Sampling(Strict):
    """How a model is sampled. `batch_size`, `shard_size` and `jobs` change no bit of the samples."""

    methods: Annotated[list[Method], Field(min_length=1)] = ["direct", "naive", "tacos"]
    """Samplers of every set without methods. A mapping {name, …its parameters} stands for an entry of `samplers`."""
    samplers: Annotated[dict[Method, Spec], Field(exclude_if=lambda samplers: not samplers)] = {}
    """By label: name and parameters of samplers that need more than their name."""
    sets: Annotated[dict[Name, SampleSet], Field(min_length=1)] = {"test": SampleSet()}
    """Sets of samples by name."""
    images: Annotated[int, Field(ge=1, le=10**7)] | None = None
    """Images to generate, or the first test images to restore; null: the whole test set. At most ten million, which are
    ten thousand files."""
    batch_size: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 250
    """Images in memory at once."""
    shard_size: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 1000
    """Images per file of results, all in memory at once."""
    jobs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Jobs that share the images of a run; a cluster queues about a thousand for one user."""
    inference_batch: Annotated[int, Field(ge=1, le=MOST_IMAGES)] | None = None
    """Images per call of the network; null: 16 on a CPU, 64 on a GPU."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the network's arithmetic."""
    compile: bool = False
    """Whether the network is compiled by torch.compile."""
    max_frames: Severity | None = 24
    """Severities stored of a trajectory at most; null: all."""
    signed_metrics: bool = False
    """Whether SSIM and RMSE are also computed in [-1, 1], as by some other implementations."""
    other_draw: Annotated[bool, Field(exclude_if=bool)] = True
    """Whether a restored set whose degradation draws (masks, snow, noise) is sampled again as NAME_redrawn, with a
    sampler that knows another draw than that of the image. It shows how much a method owes to knowing the draw."""

    @model_validator(mode="before")
    @classmethod
    def _mappings_become_samplers(cls, value: Any) -> Any:
        """Move the name and parameters of a method to `samplers`, and put a label in their place."""
        if not isinstance(value, Mapping):
            return value
        samplers: dict[str, Any] = {}
        parts: dict[str, Any] = {"methods": value.get("methods")}
        sets = value.get("sets")
        if isinstance(sets, Mapping):
            parts |= {key: each.get("methods") for key, each in sets.items() if isinstance(each, Mapping)}
        labels = {
            key: [_label(each, samplers) for each in methods] for key, methods in parts.items() if _has_mapping(methods)
        }
        if not labels:
            return value
        changed = {**value, "samplers": {**samplers, **(value.get("samplers") or {})}}
        if "methods" in labels:
            changed["methods"] = labels.pop("methods")
        if labels:
            changed["sets"] = {**sets, **{key: {**sets[key], "methods": each} for key, each in labels.items()}}  # type: ignore[dict-item, index]
        return changed

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Sampling:
        if len(set(self.methods)) < len(self.methods):
            raise ValueError(f"sampling.methods names a method twice: {', '.join(self.methods)}")
        if self.images is None and any(each.start for each in self.sets.values()):
            raise ValueError("sampling.images must say how many images to generate")
        return self

    def methods_of(self, name: str) -> list[Method]:
        """The methods of set `name`."""
        return self.sets[name].methods or self.methods

    @property
    def fingerprint(self) -> str:
        """Hash of the settings that samples are made again for; the number of jobs changes no image."""
        return fingerprint(self.model_dump(exclude={"jobs"}))

    def sampler(self, method: str) -> dict[str, Any]:
        """Name and parameters of the sampler that the label `method` stands for."""
        return self.samplers.get(method, {"name": method})

    @property
    def restores(self) -> bool:
        """Whether any of the sets restores test images."""
        return any(each.start is None for each in self.sets.values())


def _has_mapping(methods: Any) -> bool:
    return isinstance(methods, list) and any(isinstance(each, Mapping) and each.get("name") for each in methods)


def _label(method: Any, samplers: dict[str, Any]) -> Any:
    """The label of a method in a list, and its entry in `samplers` if it is a mapping."""
    if not isinstance(method, Mapping) or not isinstance(method.get("name"), str):
        return method
    label = label_of(method)
    samplers[label] = dict(method)
    return label


def label_of(spec: Mapping[str, Any]) -> str:
    """The name of a component with its parameters, in letters, digits and _ . +, at most 40; "-" becomes "m"."""
    parameters = "_".join(f"{key}{value}" for key, value in spec.items() if key not in ("name", "source"))
    label = re.sub(r"[^A-Za-z0-9_.+]", "", "_".join(filter(None, [spec["name"], parameters])).replace("-", "m"))
    return label if len(label) <= 40 else f"{spec['name'][:30]}_{fingerprint(dict(spec))[:8]}"


class TableCell(Strict):
    """Where the paper prints an experiment's numbers."""

    table: Annotated[Literal["", "1", "2", "3", "4", "5", "5.3", "6", "A.7"], BeforeValidator(str)] = ""
    """Table, or the section of unnumbered tables; '': in no table."""
    row: str = ""
    """Row of the table; '': in no row of the paper."""


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
    """Whether training uses the channels-last memory format."""
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


def resolve(config: Config, name: str, protocol: str, budget: str, seed: int | None = None) -> Run:
    """Experiment `name` of the grid under one protocol, budget and seed (None: the first), with every value in place.

    The protocol changes the entry, and the budget changes both. ColdbenchError naming the place of a mistake.
    """
    entry, changes = config.grid[name], config.grid[name].protocols[protocol]
    where = f"grid.{name}, protocol {protocol}, budget {budget}"
    stated = [
        layer.model_dump(include=set(PARTS), exclude_unset=True) for layer in (entry, changes, config.budgets[budget])
    ]
    layers = merged({part: {} for part in PARTS}, *stated)
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
    name = experiment.degradation.get("name")
    if not sampling.other_draw or name is None or not plugins.find("degradation", name).draws:
        return sampling
    for label, each in sampling.sets.items():
        methods = [method for method in sampling.methods_of(label) if sampling.sampler(method)["name"] != "direct"]
        other = each.model_copy(update={"known": "redrawn", "methods": methods})
        if each.restores_as_degraded and methods and f"{label}_redrawn" not in sampling.sets:
            return sampling.model_copy(update={"sets": {**sampling.sets, f"{label}_redrawn": other}})
    return sampling


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
