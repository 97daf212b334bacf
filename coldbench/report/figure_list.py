"""The list of one run's figures, `figures.json`: its schema, and how it is read and checked."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ConfigDict, Field, FiniteFloat, PositiveInt, field_validator, model_validator

from coldbench.core.checksums import read_sealed
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import below
from coldbench.core.run import RunMetadata
from coldbench.core.sampling_settings import Method
from coldbench.core.validation import Name, Strict, checked
from coldbench.report.sprites import Sprite, check
from coldbench.sampling.manifest import SampledSet


class LogLine(NamedTuple):
    """One line of a training log."""

    step: FiniteFloat
    loss: float
    images_per_second: FiniteFloat
    seconds: FiniteFloat


class Distance(Strict):
    """The Fréchet distance of the first `n` images of a set, and its interval."""

    model_config = ConfigDict(allow_inf_nan=True)

    set: str
    method: Method
    metric: str
    reference: str
    value: float
    low: float
    high: float
    n: PositiveInt
    singular: bool


class RunFigures(Strict):
    """The list of one run's figures, `figures.json`. A path in it is relative to its folder.

    `provenance` is that of the run's model, and `sets` is the sampling of each set. An imported model has no
    `training`. `made_from` says which samples and names it was drawn from.
    """

    model_config = ConfigDict(allow_inf_nan=True)  # the loss of a training that diverged

    metadata: RunMetadata
    embedded: bool
    watermark: str
    experiment: Experiment
    provenance: dict[str, Any]
    model: str
    sets: dict[Name, SampledSet]
    sprites: tuple[Sprite, ...]
    training: tuple[LogLine, ...]
    distances: tuple[Distance, ...]
    made_from: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _states_what_it_is_not(self) -> RunFigures:
        if self.watermark != watermark_of(self.metadata.budget, self.embedded):
            raise ValueError("the watermark does not fit budget and images")
        return self

    @field_validator("experiment")
    @classmethod
    def _has_a_last_severity(cls, experiment: Experiment) -> Experiment:
        T = experiment.degradation.get("T")
        if not isinstance(T, int) or T < 1:
            raise ValueError("degradation has no T")
        return experiment

    @property
    def T(self) -> int:
        return int(self.experiment.degradation["T"])

    def find(self, kind: str, set_name: str = "") -> Sprite | None:
        """The sprite of one kind and set, or None."""
        return next((sprite for sprite in self.sprites if (sprite.kind, sprite.set) == (kind, set_name)), None)


def load(lists: Iterable[Path]) -> list[RunFigures]:
    """The figures that `run_figures.draw` listed, by the names of their runs, with the full paths of their sprites.

    Raises ColdbenchError if a list does not fit, or if a sprite is missing, damaged or outside the folder of its list.
    """
    return sorted(map(_load, lists), key=lambda run: run.metadata.run)


def _load(path: Path) -> RunFigures:
    content = read_sealed(path)
    try:
        run = checked(RunFigures, content, str(path))
        sprites = [sprite.model_copy(update={"path": below(path.parent, sprite.path)}) for sprite in run.sprites]
        for sprite in sprites:
            check(sprite)
    except ColdbenchError as error:
        raise ColdbenchError(f"{error}; delete the run's figures.json and run again") from None
    return run.model_copy(update={"sprites": tuple(sprites)})


def watermark_of(budget: str, embedded: bool) -> str:
    """The warning on every image that is no replication; "" for one that is."""
    limit = "embedded images" if embedded and budget == "paper" else f"{budget} budget"
    return f"{limit}: not a replication" if embedded or budget != "paper" else ""
