"""What `coldbench degrade` drew for the images of a restoration."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from coldbench import degradations
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.experiment import Experiment
from coldbench.core.logs import log
from coldbench.degradations import Degradation, Drawn
from coldbench.sampling import drawn_file
from coldbench.sampling.drawn_file import DrawnFile, ImageDraw
from coldbench.sampling.output_images import Item


@dataclass(frozen=True)
class KnownDraws:
    """The file `path` of draws, and the entry of each image once `assign` has found it."""

    path: Path
    file: DrawnFile
    degradation: Degradation
    entries: dict[Item, ImageDraw] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, degradation: Degradation, experiment: Experiment, partner: str | None) -> KnownDraws:
        """The draws in `path` for a model of `experiment`; `partner` is the hash of the data set that it mixes in.

        ColdbenchError if the file cannot be read or is damaged, or if another degradation, other parameters or another
        size made it.
        """
        file = drawn_file.read_drawn(path)
        complete = degradations.complete_spec(experiment.degradation, degradation)
        expected = {"degradation": complete, "size": experiment.size, "partner": partner}
        for key, own, value in drawn_file.differences(file, expected):
            raise ColdbenchError(f"{path} was made with {key} {_shown(own)}, but the model has {_shown(value)}")
        return cls(path, file, degradation)

    def refuse(self, severity: int, known: Iterable[str]) -> None:
        """Raise ColdbenchError unless the images were degraded to `severity`, and for a `known` name of the file."""
        if severity != self.file.severity:
            raise ColdbenchError(
                f"severity {severity} does not fit {self.path}: its images were degraded to severity "
                f"{self.file.severity}; leave --severity out"
            )
        for name in known:
            if name in self.file.values:
                raise ColdbenchError(f"known '{name}' stands in {self.path} as well: give one of --known and --drawn")

    def assign(self, items: Sequence[Item], source: Path) -> None:
        """Find the entry of each image, by its path below the folder of the file or else below `source`.

        ColdbenchError naming the nearest entry if an image has none, or if its draw cannot be decoded.
        """
        by_name = {image.file: image for image in self.file.images}
        folder, top = self.path.resolve().parent, (source if source.is_dir() else source.parent)
        for item in items:
            place = item.path.parent.resolve() / item.path.name
            inside = place.is_relative_to(folder)
            name = str(place.relative_to(folder) if inside else item.path.relative_to(top))
            if name not in by_name:
                raise unknown(f"image in {self.path}:", name, by_name)
            self.entries[item] = by_name[name]
            self.file.draw(by_name[name], self.degradation)

    def of(self, batch: Sequence[Item], device: torch.device) -> Drawn:
        """What was drawn for the images of a batch, on `device`."""
        each = [self.file.draw(self.entries[item], self.degradation) for item in batch]
        return {name: torch.stack([drawn[name] for drawn in each]).to(device) for name in self.file.values}

    def identity(self, item: Item) -> str:
        """The hash of what decides the draw of an image."""
        return self.file.identity(self.entries[item])

    def warn(self, hashes: Mapping[str, str]) -> None:
        """Log which images are not those that were degraded; `hashes` are SHA-256 by output."""
        others = [item for item, entry in self.entries.items() if hashes[item.output] != entry.sha256]
        if others:
            log.warning(
                "%d of %d images are other files than those that %s describes, such as %s: they are restored with its "
                "draws",
                *(len(others), len(self.entries), self.path, others[0].path),
            )


def _shown(value: object) -> str:
    return "none" if value is None else str(value)
