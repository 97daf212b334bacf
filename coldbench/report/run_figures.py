"""The figures of one run: from its shards, trajectories and training log to sprites, and a list of them as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import TypeAdapter

from coldbench import data, degradations
from coldbench.core.checksums import write_sealed
from coldbench.core.errors import ColdbenchError
from coldbench.core.images import to_unit_interval
from coldbench.core.logs import log
from coldbench.core.run import RunMetadata
from coldbench.evaluation.evaluator import Evaluator
from coldbench.evaluation.metrics.extractors import GABOR
from coldbench.report.figure_list import Distance, LogLine, RunFigures, watermark_of
from coldbench.report.layout import in_order
from coldbench.report.sprites import Images, Sheet, rows_that_fit, write
from coldbench.sampling import starts
from coldbench.sampling.manifest import Manifest, SampledSet, made_from, read_images, read_manifest, read_trajectory
from coldbench.sampling.trajectories import SHOWN

ROWS = 12
"""Test images in a comparison: three for the paper's first figure of a task, nine for the appendix."""
FRAMES = 24
"""Severities of a forward chain."""
SHEET, SHEET_COLUMNS = 48, 8
"""Images of a sheet of samples, and the number of them in a row."""
FRACTIONS = (8, 4, 2)
"""The parts of a set, 1/8 and so on, whose distances show the dependence on the number of images; at most SUBSET."""
SUBSET, DRAWS = 2000, 100
LINES = 300
"""Points of a stored training curve."""


@dataclass(frozen=True)
class Inputs:
    """The files of a run's figures.

    `data` is the prepared data set of its samples, and `partner` the one that its degradation mixes in.
    `feature_cache` holds the features of the reference sets; without it, there are no distances of fewer images.
    """

    manifest: Path
    training_log: Path
    data: Path
    partner: Path | None = None
    feature_cache: Path | None = None


def draw(inputs: Inputs, metadata: RunMetadata, out: Path) -> None:
    """Draw a run's sprites into the folder `figures` beside `out`, then write the list of them to `out`.

    Raises ColdbenchError if the samples come from other images, or if the training log is damaged.
    """
    run, info = read_manifest(inputs.manifest), data.info(inputs.data)
    if run.data != info["hash"]:
        raise ColdbenchError(
            f"{inputs.manifest} was sampled from other test images than {inputs.data} holds; sample again"
        )
    if inputs.partner is not None and run.partner != data.info(inputs.partner)["hash"]:
        raise ColdbenchError(
            f"{inputs.manifest} was sampled with other partner images than {inputs.partner} holds; sample again"
        )
    training = _training(inputs.training_log)
    if not (training or run.provenance.get("imported")):
        log.warning("%s is missing, so there is no training curve", inputs.training_log)
    watermark = watermark_of(metadata.budget, info["embedded"])
    text = f"{watermark}; {metadata.run}" if watermark else ""
    drawing = Drawing(inputs, run)
    sprites = [write(sheet, out.parent / "figures", text) for sheet in drawing.sheets()]
    figures = RunFigures(
        metadata=metadata,
        embedded=info["embedded"],
        watermark=watermark,
        experiment=run.experiment,
        provenance=run.provenance,
        model=run.model,
        sets=run.sets,
        sprites=tuple(sprite.model_copy(update={"path": sprite.path.relative_to(out.parent)}) for sprite in sprites),
        training=training,
        distances=drawing.distances(inputs.feature_cache) if inputs.feature_cache and metadata.cell.table else (),
        made_from=made_from(inputs.manifest, metadata),
    )
    write_sealed(out, figures.model_dump(mode="json"))


def _training(path: Path) -> tuple[LogLine, ...]:
    """The training log, thinned to LINES; nothing if it is missing. ColdbenchError if it is damaged."""
    try:
        text = path.read_text("utf-8") if path.exists() else ""
        lines = [json.loads(line) for line in text.splitlines()]
        curve = TypeAdapter(list[LogLine]).validate_python([[line[key] for key in LogLine._fields] for line in lines])
    except OSError as error:
        raise ColdbenchError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, TypeError, KeyError, RecursionError):
        raise ColdbenchError(
            f"{path} is no training log of this version; move it away to go without a training curve"
        ) from None
    kept = np.unique(np.linspace(0, max(len(curve) - 1, 0), min(LINES, len(curve))).round().astype(int))
    return tuple(curve[k] for k in kept)


@dataclass(frozen=True)
class Drawing:
    """Draws the sheets of tiles of a sampled run."""

    inputs: Inputs
    run: Manifest

    @property
    def size(self) -> int:
        return self.run.experiment.size

    def sheets(self) -> Iterator[Sheet]:
        """Every sheet of the run, one after the other; of a model on the way of a training its comparisons alone."""
        for name, sampled in self.run.sets.items():
            frames = read_trajectory(self.inputs.manifest, name)
            yield self._comparison(name, sampled, frames)
            if self.run.experiment.snapshot:
                continue
            yield from self._trajectories(name, frames)
            if sampled.start is not None:
                method = str(frames["method"])
                rows = rows_that_fit(SHEET_COLUMNS, self.size, SHEET // SHEET_COLUMNS)
                tiles = read_images(self.inputs.manifest, name, method, rows * SHEET_COLUMNS)
                yield Sheet(f"{name}-samples", tiles, "samples", ("",) * min(SHEET_COLUMNS, len(tiles)), name, method)
        if not self.run.experiment.snapshot:
            yield self._forward()

    def _comparison(self, name: str, sampled: SampledSet, frames: Mapping[str, Images]) -> Sheet:
        """The input, the result of every method and the original, a row per image."""
        methods = in_order(sampled.methods)
        images: dict[str, Images] = {"degraded": frames["degraded"], "direct": frames["direct"]}
        if sampled.start is None and "direct" in methods:
            images["degraded"], images["original"] = self._degraded(ROWS, sampled.severity)
        elif "original" in frames:
            images["original"] = frames["original"]
        count = min(len(images["degraded"]), sampled.images)
        images |= {method: read_images(self.inputs.manifest, name, method, count) for method in methods}
        shown = in_order(key for key in images if key not in ("degraded", "original"))
        columns = ("degraded", *shown, *(["original"] if "original" in images else []))
        rows = rows_that_fit(len(columns), self.size, count)
        return Sheet(f"{name}-methods", _side_by_side(images[key][:rows] for key in columns), "methods", columns, name)

    def _trajectories(self, name: str, frames: Mapping[str, Images]) -> Iterator[Sheet]:
        """The trajectory of the best method, and that of Algorithm 1, as far as the run keeps them: a row per image."""
        severities = tuple(str(severity) for severity in frames["severities"].tolist())
        for kind, states, method in (("trajectory", "states", str(frames["method"])), ("naive", "naive", "naive")):
            if states in frames:
                rows = rows_that_fit(len(severities), self.size, frames[states].shape[1])
                yield Sheet(f"{name}-{kind}", _side_by_side(frames[states][:, :rows]), kind, severities, name, method)

    def _forward(self) -> Sheet:
        """Test images at growing severities, each with its own mask, snow, noise or partner."""
        T = self.run.experiment.degradation["T"]
        severities = np.unique(np.linspace(0, T, min(FRAMES, T + 1)).round().astype(int)).tolist()
        rows = rows_that_fit(len(severities), self.size, SHOWN)
        states = [self._degraded(rows, severity)[0 if severity else 1] for severity in severities]
        return Sheet("forward", _side_by_side(states), "forward", tuple(map(str, severities)))

    def _degraded(self, count: int, severity: int | None) -> tuple[Images, Images]:
        """The first test images at one severity (None: T), and the originals, in [0, 1]."""
        experiment, tests = self.run.experiment, data.load(self.inputs.data, "test")
        degradation = degradations.for_experiment(experiment, self.inputs.partner)
        indices, cpu = range(min(count, len(tests))), torch.device("cpu")
        x0, xt, _ = starts.degraded(degradation, tests, indices, experiment.seed, cpu, severity or None)
        return to_unit_interval(xt).numpy(), to_unit_interval(x0).numpy()

    def distances(self, feature_cache: Path) -> tuple[Distance, ...]:
        """FD-Gabor of the first images of every set, by its direct and its best method."""
        records = []
        evaluator = Evaluator(self.inputs.manifest, self.inputs.data, feature_cache, [GABOR], torch.device("cpu"))
        for name, sampled in self.run.sets.items():
            sizes = [size for size in (sampled.images // f for f in FRACTIONS) if 4 <= size <= SUBSET]
            for method in ("direct", "tacos", "estimated"):
                if method in sampled.methods and sizes:
                    records += evaluator.subset_distances(name, method, sizes, DRAWS)
        return tuple(Distance(**{name: record[name] for name in Distance.model_fields}) for record in records)


def _side_by_side(columns: Iterable[Images]) -> Images:
    """Columns of (N, C, H, W) images as tiles, row by row."""
    tiles = np.stack(list(columns), axis=1)
    return tiles.reshape(-1, *tiles.shape[2:])
