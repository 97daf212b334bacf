"""How the model of an experiment is sampled: sets of samples, methods, and what decides none of their bits."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from coldbench.core.experiment import MOST_IMAGES, Spec
from coldbench.core.validation import Name, Strict, fingerprint

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
_METHOD_OR_SPEC = {
    "anyOf": [
        {"type": "string", "pattern": LABEL, "maxLength": 40},
        {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]},
    ]
}
Methods = Annotated[
    list[Method],
    Field(min_length=1),
    WithJsonSchema({"type": "array", "minItems": 1, "items": _METHOD_OR_SPEC}),
]
"""Methods by their labels; a configuration may write a mapping {name, …its parameters} for a label."""
INFERENCE_BATCH = {"cpu": 16, "cuda": 64}
"""The default number of images in one forward pass when sampling, by type of device."""
REDRAWN = "{}_redrawn"
"""The set that is sampled beside a set of restored images, with a sampler that knows another draw."""
LARGEST_T = 10_000
"""The largest severity of any degradation."""
Severity = Annotated[int, Field(ge=1, le=LARGEST_T)]


class Start(Strict):
    """Where a generation starts (paper, section 5): x_T drawn without an image to restore."""

    kind: Literal["means", "grid", "colour", "partner", "noise"]
    """What x_T is: channel means or the smallest image of super-resolution (grid), drawn from a Gaussian mixture fitted
    to the training images; a solid colour; an image of the partner data set; or noise."""
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

    methods: Methods | None = None
    """Samplers of this set; null: those of the experiment."""
    start: Start | None = None
    """Where a generation starts; null: test images are degraded and restored."""
    severity: Severity | None = None
    """Severity of the degraded test images; null: T, the largest."""
    assumed_severity: Severity | None = None
    """Severity that the sampler starts from; null: the true one."""
    known: Literal["drawn", "redrawn"] = "drawn"
    """What the sampler knows of the random part of D (mask centre, snow): that of the images, or another draw."""
    stride: Severity = 1
    """Severities per sampling step; 1: every severity is visited."""
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

    methods: Methods = ["direct", "naive", "tacos"]
    """Samplers of every set without methods. A mapping {name, …its parameters} stands for an entry of `samplers`."""
    samplers: Annotated[dict[Method, Spec], Field(exclude_if=lambda samplers: not samplers)] = {}
    """Name and parameters of samplers that need more than their name, by the label that `methods` lists."""
    sets: Annotated[dict[Name, SampleSet], Field(min_length=1)] = {"test": SampleSet()}
    """Sets of samples by name; each is a way of sampling the model."""
    images: Annotated[int, Field(ge=1, le=10**7)] | None = None
    """Images to generate, or the first test images to restore; null: the whole test set. At most ten million, which are
    ten thousand files."""
    batch_size: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 250
    """Number of images in memory at once."""
    shard_size: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 1000
    """Images per file of samples, all in memory at once."""
    jobs: Annotated[int, Field(ge=1, le=1000)] = 1
    """Jobs that share the images of a run; a cluster queues about a thousand for one user."""
    inference_batch: Annotated[int, Field(ge=1, le=MOST_IMAGES)] | None = None
    """Images per call of the network; null: 16 on a CPU, 64 on a GPU."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Number format of the network's arithmetic in sampling."""
    compile: bool = False
    """Whether the network is compiled by torch.compile for sampling."""
    max_frames: Severity | None = 24
    """Number of severities of a trajectory that are stored at most; null: all."""
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
