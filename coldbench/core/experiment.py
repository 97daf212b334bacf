"""What one trained model is: data set × degradation × network × training, under a protocol and a budget.

The classes here are both the schema of the configuration and the values that the rest of the package works with. They
know no torch and no paths. A mistake ends in one line that names the key and the nearest valid one.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from coldbench.core.validation import Count, Flag, Natural, Plain, Share, Strict, fingerprint

HASH_VERSION = 1
"""Part of every fingerprint. Raise it when a change of code makes a trained model a different one."""


class Network(Strict):
    """The restoration network R; its size is the paper's unless a budget makes it smaller.

    `dropout` and `attention` (the side at which it attends) are those of unet_ddpm, `residual` is unet_convnext's.
    """

    name: str = "unet_convnext"
    dim: Annotated[int, Field(ge=8, multiple_of=2), Plain] = 64
    dim_mults: Annotated[list[Count], Field(min_length=2)] = [1, 2, 4, 8]
    dropout: Annotated[float, Field(ge=0, lt=1), Plain] = 0.0
    attention: Count = 16
    time: Flag = True
    residual: Flag = False


class Preprocessing(Strict):
    """From the data set to the network (protocol 1.3): what is done beyond an 8-bit resize to the experiment's size.

    In training a random window is cut from the images, enlarged to `resize` pixels or with a black border of `pad`, and
    with `flip` mirrored half of the time; in testing the middle of the (enlarged) images is taken.
    """

    resize: Count | None = None
    pad: Natural = 0
    flip: Flag = False


class Training(Strict):
    """The training loop of appendix A: L1 loss, Adam, exponential moving average of the weights."""

    max_steps: Count = 700_000
    batch_size: Count = 64  # images per update: the paper's 32 × 2
    grad_accumulation: Count = 2
    precision: Literal["fp32", "tf32", "bf16"] = "fp32"
    learning_rate: Annotated[float, Field(gt=0, lt=1), Plain] = 2e-5
    loss: Literal["l1", "l2"] = "l1"
    ema_decay: Share = 0.995
    ema_update_every: Count = 10
    ema_start: Natural = 2000  # before this update the average is a copy of the weights

    @model_validator(mode="after")
    def _batch_divides(self) -> Training:
        if self.batch_size % self.grad_accumulation:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of accumulation {self.grad_accumulation}")
        if self.ema_update_every > self.max_steps:
            raise ValueError(
                f"ema_update_every {self.ema_update_every} is more than updates {self.max_steps}: no average is taken"
            )
        return self

    @property
    def micro_batch(self) -> int:
        """Images in one forward pass."""
        return self.batch_size // self.grad_accumulation


class Experiment(Strict):
    """One model under one protocol and budget, completely resolved: what decides its weights, and its names."""

    name: str
    protocol: str
    budget: str
    dataset: str
    size: Count
    seed: int
    degradation: Annotated[dict[str, Any], Plain]
    preprocessing: Preprocessing = Preprocessing()
    network: Network
    training: Training

    @model_validator(mode="after")
    def _images_are_large_enough(self) -> Experiment:
        if self.prepared_size < self.size:
            raise ValueError(f"preprocessing.resize {self.preprocessing.resize} is less than size {self.size}")
        return self

    @property
    def prepared_size(self) -> int:
        """The side in pixels at which the data set is prepared."""
        return self.preprocessing.resize or self.size

    @property
    def partner(self) -> str | None:
        """The data set whose images the degradation mixes in, if it does."""
        return self.degradation.get("partner")

    @property
    def run(self) -> str:
        """The name of this run's folder: experiment and protocol, and the seed if it is not 0."""
        return f"{self.name}-{self.protocol}" + (f"-s{self.seed}" if self.seed else "")

    @property
    def hash_inputs(self) -> dict[str, Any]:
        """Everything that decides the weights, and nothing else."""
        return {"version": HASH_VERSION, **self.model_dump(exclude={"name", "protocol", "budget"})}

    @property
    def fingerprint(self) -> str:
        """Hexadecimal hash of `science`, 16 characters: equal for two experiments that train the same model."""
        return fingerprint(self.hash_inputs)
