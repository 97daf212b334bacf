"""What one trained model is: data set × degradation × network × training, under a protocol and a budget.

The classes are both the schema of the configuration and the values that the package works with. They know no torch and
no paths. A mistake ends in one line that names the key and the nearest valid one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, PositiveInt, model_validator

from coldbench.core import plugins
from coldbench.core.validation import Strict, UnknownKey, fingerprint, parse_text

HASH_VERSION = 1
"""Part of every fingerprint. Raise it when a change of code makes a trained model a different one."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""At most 32 bits, as a random state of scikit-learn takes; of longer seeds, two could mean the same."""
MOST_STEPS, MOST_IMAGES = 10**9, 2**16
"""Updates, which take months even at a millisecond each; and images in memory at once, 13 GB at 128 pixels."""


def _names_are_text(spec: dict[str, Any]) -> dict[str, Any]:
    for key, what in (("name", "a component"), ("partner", "a data set")):
        if not isinstance(spec.get(key, ""), str):
            raise ValueError(f"{key} must be the name of {what}, not {spec[key]!r}")
    return spec


Spec = Annotated[dict[str, Any], BeforeValidator(parse_text), AfterValidator(_names_are_text)]
"""Name and parameters of a component. Only its class or function knows which parameters there are.

For a component that is not the suite's own, the resolved configuration adds `source`, the hash of its code.
"""


class Network(Strict):
    """The restoration network R; the defaults are the paper's size. Other keys are parameters of a plug-in."""

    model_config = ConfigDict(extra="allow")

    name: str = "unet_convnext"
    """Name of the architecture: unet_convnext, unet_ddpm, or the network of a plug-in."""
    dim: Annotated[int, Field(ge=8, le=512, multiple_of=2)] = 64
    """Channels at full resolution; four times the paper's largest are at most allowed."""
    dim_mults: Annotated[list[Annotated[int, Field(ge=1, le=32)]], Field(min_length=2, max_length=8)] = [1, 2, 4, 8]
    """Channels of each resolution as multiples of `dim`; each resolution halves the side of the one before, and the
    eighth has 2 of 256 pixels."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    """Probability of dropout; unet_ddpm only."""
    attention: Annotated[int, Field(ge=1, le=256)] = 16
    """Side in pixels of the feature maps with self-attention, at most that of the largest images; unet_ddpm only."""
    time: bool = True
    """Whether the network is given the severity t."""
    residual: bool = False
    """Whether the network adds its input x_t to its output; unet_convnext only."""

    @model_validator(mode="before")
    @classmethod
    def _text_is_parsed(cls, value: Any) -> Any:
        """Convert the parameters of a plug-in's network as those of degradations, because no field says their types."""
        if not isinstance(value, Mapping):
            return value
        return {key: each if key in cls.model_fields else parse_text(each) for key, each in value.items()}

    @model_validator(mode="after")
    def _other_keys_are_those_of_a_plugin(self) -> Network:
        """Refuse unknown keys of the suite's own networks; a layer that names none may state those of any network."""
        names = [self.name] if "name" in self.model_fields_set else plugins.names("network")
        if self.model_extra and plugins.OWN["network"].keys() >= set(names):
            raise UnknownKey(min(self.model_extra))
        return self

    @property
    def parameters(self) -> dict[str, Any]:
        """The parameters of a plug-in's network that are no fields of this class."""
        return {key: value for key, value in (self.model_extra or {}).items() if key != "source"}

    @property
    def source(self) -> str | None:
        """The hash of the code of a plug-in's network; None for the suite's own."""
        return (self.model_extra or {}).get("source")


class Preprocessing(Strict):
    """What happens between the prepared images and the network, beyond the 8-bit resize (protocol, section 1.3).

    In training a random window of the experiment's size is cut from each image; in testing the centre is.
    """

    resize: PositiveInt | None = None
    """Side in pixels at which the data set is prepared before the crop; null: the experiment's size."""
    pad: Annotated[int, Field(ge=0, le=256)] = 0
    """Width in pixels of a black border, added before the random crop; at most the side of the largest images."""
    flip: bool = False
    """Whether half of the training images are mirrored."""


class Training(Strict):
    """The training loop (paper, appendix A): Adam on L1 loss, with an exponential moving average of the weights."""

    max_steps: Annotated[int, Field(ge=1, le=MOST_STEPS)] = 700_000
    """Number of optimizer updates."""
    batch_size: Annotated[int, Field(ge=1, le=MOST_IMAGES)] = 64
    """Images per update, over all GPUs and accumulation steps; the paper's 32 × 2."""
    grad_accumulation: PositiveInt = 2
    """Forward and backward passes per update; it divides `batch_size`."""
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    """Number format of the network's arithmetic in training."""
    learning_rate: Annotated[float, Field(gt=0, lt=1)] = 2e-5
    """Learning rate of Adam, the same for every update."""
    loss: Literal["l1", "l2"] = "l1"
    """Loss: mean absolute (l1) or mean squared (l2) difference to x0."""
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.995
    """Decay of the moving average of the weights at each of its updates."""
    ema_update_every: PositiveInt = 10
    """Optimizer updates between two updates of the average."""
    ema_start: Annotated[int, Field(ge=0, le=MOST_STEPS)] = 2000
    """First optimizer update that is averaged; before, the average is a copy of the weights."""
    snapshots: Annotated[list[Annotated[int, Field(ge=1, le=MOST_STEPS)]], Field(max_length=100)] = []
    """Steps after which the averaged weights are kept as a model of its own, which is sampled and scored. They change
    no weight, and the finished model is none of them."""

    @model_validator(mode="after")
    def _settings_fit_together(self) -> Training:
        if self.snapshots != sorted(set(self.snapshots)) or (self.snapshots and self.snapshots[-1] >= self.max_steps):
            raise ValueError(
                f"snapshots must increase and lie below max_steps {self.max_steps}, not {self.snapshots}"[:200]
            )
        if self.batch_size % self.grad_accumulation:
            raise ValueError(
                f"batch_size {self.batch_size} is not a multiple of grad_accumulation {self.grad_accumulation}"
            )
        if self.ema_update_every > self.max_steps:
            raise ValueError(
                f"ema_update_every {self.ema_update_every} is more than max_steps {self.max_steps}: the weights would "
                "never be averaged"
            )
        return self

    @property
    def micro_batch(self) -> int:
        """Images in one forward pass, over all GPUs."""
        return self.batch_size // self.grad_accumulation


class Experiment(Strict):
    """One model under one protocol and budget, with every value in place: what decides its weights, and its names."""

    name: str
    """Name in the grid, such as E01."""
    protocol: str
    """Interpretation of the paper, such as fitted."""
    budget: str
    """Budget, such as laptop."""
    dataset: str
    """Data set, as the registry names it."""
    size: PositiveInt
    """Side of the network's images in pixels."""
    seed: Seed
    """Decides the initial weights, the order of images and every random draw of the training."""
    degradation: Spec
    """Name and parameters of D."""
    preprocessing: Preprocessing = Preprocessing()
    """What happens between the prepared images and the network."""
    network: Network
    """The restoration network R."""
    training: Training
    """The training loop."""
    snapshot: bool = False
    """Whether the model is one on the way of a longer training, whose steps so far are `training.max_steps`."""

    @model_validator(mode="after")
    def _prepared_images_are_large_enough(self) -> Experiment:
        if self.prepared_size < self.size:
            raise ValueError(f"preprocessing.resize {self.preprocessing.resize} is less than size {self.size}")
        return self

    @property
    def prepared_size(self) -> int:
        """The side in pixels at which the data set is prepared."""
        return self.preprocessing.resize or self.size

    @property
    def partner(self) -> str | None:
        """The data set whose images the degradation mixes in; None for any other degradation."""
        return self.degradation.get("partner")

    @property
    def run(self) -> str:
        """The name of this run's folder: experiment and protocol, the seed if it is not 0, and a snapshot's steps."""
        steps = f"-{self.training.max_steps}steps" if self.snapshot else ""
        return f"{self.name}-{self.protocol}" + (f"-s{self.seed}" if self.seed else "") + steps

    @property
    def whole_run(self) -> str:
        """The name of the run whose training passes through this snapshot."""
        return self.model_copy(update={"snapshot": False}).run

    def at(self, step: int) -> Experiment:
        """The experiment of the snapshot after `step` steps. A training of so many steps makes the same model."""
        training = Training(**{**self.training.model_dump(), "max_steps": step, "snapshots": []})
        return self.model_copy(update={"training": training, "snapshot": True})

    @property
    def hash_inputs(self) -> dict[str, Any]:
        """Everything that decides the weights, and nothing else."""
        rest = self.model_dump(
            exclude={"name": True, "protocol": True, "budget": True, "snapshot": True, "training": {"snapshots"}}
        )
        return {"version": HASH_VERSION, **rest}

    @property
    def fingerprint(self) -> str:
        """Hexadecimal hash of `hash_inputs`, 16 characters: equal for two experiments that train the same model."""
        return fingerprint(self.hash_inputs)
