"""The pictures of one run: from its shards, trajectories and training log to sprites and a list of them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coldbench.core.config import RunMetadata
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import read_json, write_json
from coldbench.core.validation import checked
from coldbench.report.sprites import Images, Sprite, rows_that_fit, write
from coldbench.sampling import manifest as sampled

METHODS = {
    "direct": "Direct",
    "naive": "Algorithm 1",
    "naive_resampled": "Algorithm 1, resampled",
    "tacos": "TACoS",
    "resampled": "TACoS, resampled",
    "estimated": "Estimated noise",
    "ddpm": "DDPM",
}
"""The methods in the order of their columns, as the pages call them."""
ROWS = 12
"""Test images in a comparison: three for the paper's first figure of a task, nine for the appendix."""
FRAMES = 24
"""Severities of a forward chain."""
SHEET, SHEET_COLUMNS = 48, 8
"""Images of a sheet of samples, and how many stand side by side."""
FRACTIONS = (8, 4, 2)
"""Of its images, these parts show how a distance depends on their number; of at most SUBSET images."""
SUBSET, DRAWS = 2000, 100
LINES = 300
"""Points of a training curve that are kept."""


@dataclass(frozen=True)
class Pictures:
    """What one run has to show; `base` is the folder that the sprites' paths begin at.

    `experiment` is the resolved experiment and `provenance` what is known of its model. `sets` says how each was
    sampled. `training` has [step, loss, images per second, seconds] per line, nothing for an imported model;
    `distances` are Fréchet distances of the first images of a set, each with method, reference, value, interval and n.
    """

    metadata: RunMetadata
    embedded: bool
    watermark: str
    experiment: dict[str, Any]
    provenance: dict[str, Any]
    model: str
    sets: dict[str, dict[str, Any]]
    sprites: tuple[Sprite, ...]
    training: tuple[tuple[float, float, float, float], ...]
    distances: tuple[dict[str, Any], ...]

    @property
    def T(self) -> int:
        return int(self.experiment["degradation"]["T"])

    def find(self, kind: str, part: str = "") -> Sprite | None:
        """The sprite of one kind and set, if there is one."""
        return next((s for s in self.sprites if (s.kind, s.set) == (kind, part)), None)


def draw(
    manifest: Path,
    metadata: RunMetadata,
    training_log: Path,
    prepared: Path,
    out: Path,
    partner: Path | None = None,
    statistics: Path | None = None,
) -> None:
    """Draw the run's sprites into the folder `figures` beside `out`, and write what there is to `out`, last.

    `prepared` is the data set that was sampled from, `partner` the one that the degradation mixes in; `statistics` is
    the folder of the reference sets' features (none: no distances of fewer images).
    """
    from coldbench import data  # torch, which reading the list needs not

    facts, info = sampled.read_manifest(manifest), data.info(prepared)
    if facts.data != info["hash"]:
        raise ColdbenchError(f"{manifest} was sampled from other test images than {prepared} holds; sample again")
    experiment = facts.experiment
    training = _training(training_log, metadata.run, bool(facts.provenance.get("imported")))
    mark = _mark(metadata.budget, info["embedded"])
    folder, run = out.parent / "figures", Run(manifest, facts, experiment, prepared, partner)
    sprites = [write(tiles, folder / f"{name}.png", *rest, f"{mark}; {metadata.run}" if mark else "", part, method)
               for name, tiles, rest, part, method in run.all()]  # fmt: skip
    record = {
        "metadata": metadata.model_dump(),
        "embedded": info["embedded"],
        "watermark": mark,
        "experiment": experiment.model_dump(),
        "provenance": facts.provenance,
        "model": facts.model,
        "sets": {name: part.model_dump() for name, part in facts.sets.items()},
        "sprites": [{**asdict(sprite), "path": str(sprite.path.relative_to(out.parent))} for sprite in sprites],
        "training": training,
        "distances": run.distances(statistics) if statistics and metadata.cell.table else [],
    }
    write_json(out, record)


def load(lists: Iterable[Path]) -> list[Pictures]:
    """What `draw` listed, in the order of the runs' names; ColdbenchError for a list of another version."""
    found = []
    for path in lists:
        try:
            record: dict[str, Any] = read_json(path)
            parts = [{**part, "path": path.parent / part["path"]} for part in record["sprites"]]
            sprites = tuple(Sprite(**{**part, "columns": tuple(part["columns"])}) for part in parts)
            metadata = checked(RunMetadata, record["metadata"], f"metadata in {path}")
            given = {"metadata": metadata, "sprites": sprites, "training": tuple(map(tuple, record["training"]))}
            found.append(Pictures(**{**record, **given, "distances": tuple(record["distances"])}))
        except (KeyError, TypeError) as error:
            raise ColdbenchError(f"{path} is no list of pictures of this version; delete it and run again") from error
    return sorted(found, key=lambda pictures: pictures.metadata.run)


def _mark(budget: str, embedded: bool) -> str:
    """What every picture says that is no replication."""
    told = "embedded images" if embedded and budget == "paper" else f"{budget} budget"
    return f"{told}: not a replication" if embedded or budget != "paper" else ""


def _training(path: Path, run: str, imported: bool) -> list[list[float]]:
    """The training log, thinned to LINES; ColdbenchError if a model that was trained here has none."""
    try:
        log = [json.loads(line) for line in path.read_text().splitlines()]
    except (OSError, ValueError) as error:
        raise ColdbenchError(f"cannot draw {run}: {error}") from error
    keys = ("step", "loss", "images_per_second", "seconds")
    if not (log or imported) or any(set(keys) - line.keys() for line in log):
        raise ColdbenchError(f"{path} is no training log of this version; delete it and its model, then run again")
    picks = np.unique(np.linspace(0, max(len(log) - 1, 0), min(LINES, len(log))).round().astype(int))
    return [[log[k][key] for key in keys] for k in picks]


Drawing = tuple[str, Images, tuple[str, tuple[str, ...]], str, str]
"""A sprite to be: its file's name, its tiles, its kind and columns, its set and its method."""


@dataclass(frozen=True)
class Run:
    """A sampled run, as what its pictures are made of."""

    manifest: Path
    facts: sampled.Manifest
    experiment: Experiment
    prepared: Path
    partner: Path | None

    def all(self) -> Iterable[Drawing]:
        """Every sprite of the run, one after the other."""
        for name, part in self.facts.sets.items():
            try:
                with np.load(self.manifest.parent / part.trajectory) as arrays:
                    kept = {key: arrays[key] for key in arrays}
            except (OSError, ValueError) as error:
                raise ColdbenchError(f"cannot draw {self.experiment.run}: {error}") from error
            yield from self._of_set(name, part, kept)
        yield self._forward()

    def _of_set(self, name: str, part: sampled.SampledSet, kept: Mapping[str, Images]) -> Iterable[Drawing]:
        yield self._methods(name, part, kept)
        severities, method = tuple(str(s) for s in kept["severities"].tolist()), str(kept["method"])
        for kind, states in (("trajectory", "states"), ("naive", "naive")):
            if states in kept:
                rows = rows_that_fit(len(severities), self.experiment.size, kept[states].shape[1])
                tiles = kept[states][:, :rows].swapaxes(0, 1).reshape(-1, *kept[states].shape[2:])
                shown = "naive" if kind == "naive" else method
                yield f"{name}-{kind}", tiles, (kind, severities), name, shown
        if part.start is not None:
            rows = rows_that_fit(SHEET_COLUMNS, self.experiment.size, SHEET // SHEET_COLUMNS)
            tiles = sampled.read_images(self.manifest, name, method, rows * SHEET_COLUMNS)
            yield f"{name}-gallery", tiles, ("gallery", ("",) * min(SHEET_COLUMNS, len(tiles))), name, method

    def _methods(self, name: str, part: sampled.SampledSet, kept: Mapping[str, Images]) -> Drawing:
        """The input, every method's result and the original, a row per image."""
        shown = [method for method in METHODS if method in part.methods]
        columns: dict[str, Images] = {"degraded": kept["degraded"], "direct": kept["direct"]}
        if part.start is None and "direct" in shown:
            columns["degraded"], columns["original"] = self._degraded(ROWS, part.severity)
        elif "original" in kept:
            columns["original"] = kept["original"]
        count = min(len(columns["degraded"]), part.images)
        for method in shown:
            columns[method] = sampled.read_images(self.manifest, name, method, count)
        order = [key for key in ("degraded", *METHODS, "original") if key in columns]
        rows = rows_that_fit(len(order), self.experiment.size, count)
        tiles = np.stack([columns[key][:rows] for key in order], axis=1)
        return f"{name}-methods", tiles.reshape(-1, *tiles.shape[2:]), ("methods", tuple(order)), name, ""

    def _forward(self) -> Drawing:
        """Test images at growing severities, each with its own mask, snow, noise or partner."""
        from coldbench.sampling.trajectories import SHOWN

        T = self.experiment.degradation["T"]
        severities = np.unique(np.linspace(0, T, min(FRAMES, T + 1)).round().astype(int)).tolist()
        rows = rows_that_fit(len(severities), self.experiment.size, SHOWN)
        states = [self._degraded(rows, severity)[0 if severity else 1] for severity in severities]
        tiles = np.stack(states, axis=1)
        columns = tuple(map(str, severities))
        return "forward", tiles.reshape(-1, *tiles.shape[2:]), ("forward", columns), "", ""

    def _degraded(self, images: int, severity: int | None) -> tuple[Images, Images]:
        """The first test images at one severity (None: T), and the originals, in [0, 1]."""
        import torch

        from coldbench import data, degradations
        from coldbench.core.images import to_unit_interval
        from coldbench.sampling import starts

        tests, cpu = data.load(self.prepared, "test"), torch.device("cpu")
        degradation = degradations.for_experiment(self.experiment, self.partner)
        where = range(min(images, len(tests)))
        x0, x, _ = starts.degraded(degradation, tests, where, self.experiment.seed, cpu, severity or None)
        return to_unit_interval(x).numpy(), to_unit_interval(x0).numpy()

    def distances(self, statistics: Path) -> list[dict[str, Any]]:
        """FD-Gabor of parts of every set's images, by its direct and its best method."""
        import torch

        from coldbench.evaluation import scoring
        from coldbench.evaluation.metrics import intervals

        cpu, rows = torch.device("cpu"), []
        (gabor,) = extractors = scoring.extractors([], None, cpu)
        scorer = scoring.Scorer(self.experiment, self.prepared, statistics, extractors, cpu)
        for name, part in self.facts.sets.items():
            split, n = ("test", part.images) if part.start is None else ("train", None)
            sizes = [s for s in (part.images // f for f in FRACTIONS) if 4 <= s <= SUBSET]
            for method in ("direct", "tacos", "estimated"):
                if method not in part.methods or not sizes:
                    continue
                images = sampled.read_images(self.manifest, name, method, max(sizes))
                if not np.isfinite(images).all():
                    continue
                features = gabor.features(torch.from_numpy(images))
                there = scorer.reference(gabor, split, n).statistics
                for size in sizes:
                    value = intervals.frechet(features[:size], there, self.experiment.seed, DRAWS)
                    rows.append(scoring.row(name, method, gabor.name, value, split))
        return rows
