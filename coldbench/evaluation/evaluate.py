"""Scores: image shards and the degraded images they were made from → rows of one tidy table.

A row is one value of one metric for one method on one set of one run, with its interval, n and provenance; every table,
figure and verdict of the report is a view of these rows (columns: `evaluation.scores.Score`). Restored images are
scored against their originals; generated ones have none, and their features are compared with those of the training
and of the test images. `tacos-direct` is a difference of two methods on the same images, with its paired interval.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import torch
from pyarrow import parquet
from torch import Tensor

from coldbench import data, degradations
from coldbench.core.config import RunMetadata
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic
from coldbench.core.images import batches, to_unit_interval
from coldbench.core.logs import Ticker, log
from coldbench.core.provenance import provenance
from coldbench.evaluation.metrics import intervals
from coldbench.evaluation.metrics.similarity import (
    Values,
    mean_rmse,
    pooled_rmse,
    pooled_ssim,
    scores_per_image,
    ssim_per_image,
)
from coldbench.evaluation.metrics.ssim import Window
from coldbench.evaluation.scoring import Features, Rows, Scorer, extractors, row
from coldbench.sampling import manifest as sampled
from coldbench.sampling import starts

__all__ = ["Scorer", "evaluate", "extractors"]

SIGNED = Window(data_range=2.0)
PAIR = ("tacos", "direct")
"""The two methods whose difference is the paper's first claim."""


def evaluate(scorer: Scorer, manifest: Path, metadata: RunMetadata, out: Path, partner: Path | None = None) -> None:
    """Score every method's images in every set, and the degraded ones; write the rows to `out` (parquet).

    `partner` is the prepared data set of a degradation that mixes in other images.
    """
    began = time.monotonic()
    facts = sampled.read_manifest(manifest)
    info = data.info(scorer.prepared)
    if facts.data != info["hash"]:
        raise ColdbenchError(
            f"{manifest} was sampled from other test images than {scorer.prepared} holds; sample again"
        )
    ticker = Ticker(sum(len(p.methods) * p.images for p in facts.sets.values()), "image", images_each=1)
    done, signed = 0, facts.signed_metrics
    rows: Rows = []
    for name, part in facts.sets.items():
        restored = part.start is None
        original = scorer.tests(part.images) if restored else None
        splits: list[tuple[str, int | None]] = (
            [("test", part.images)] if restored else [("train", None), ("test", None)]
        )
        if restored and part.assumed_severity is None and part.known == "drawn" and part.stride == 1:
            rows += _degraded(scorer, name, part.severity, part.images, partner, signed)
        features: dict[str, dict[str, Features]] = {}
        singles: dict[str, tuple[Values, Values]] = {}
        for method in part.methods:
            images = torch.from_numpy(sampled.read_images(manifest, name, method)).to(scorer.device)
            if original is not None:
                seed = scorer.experiment.seed
                found, singles[method] = _similarity(name, method, original, images, seed, signed)
                rows += found
            features[method] = _features(scorer, images)
            for split, n in splits:
                rows += scorer.distances(name, method, features[method], split, n)
            done += len(images)
            ticker.tick(done, f"{name} · {method}")
        if all(method in features for method in PAIR):
            rows += _differences(scorer, name, singles, features, splits)
    science = {"model": facts.model[:16], "fingerprint": scorer.experiment.fingerprint, "data": facts.data}
    sampling = {key: getattr(facts, key) for key in ("inference_batch", "precision", "compile")}
    details = {
        **science,
        **sampling,
        **scorer.experiment.hash_inputs,
        "sampled_on": facts.device,
        **facts.provenance,
    }
    _write(out, rows, scorer, metadata, details, began)


def _degraded(
    scorer: Scorer, name: str, severity: int | None, images: int, partner: Path | None, signed: bool = False
) -> Rows:
    """What a set starts from, over the whole test set, because no model is needed for it.

    The Fréchet distance depends on n, so it is taken from the first `images` as for the restored images.
    """
    experiment = scorer.experiment
    tests = data.load(scorer.prepared, "test")
    degradation = degradations.for_experiment(experiment, partner)
    parts = []
    for part in batches(len(tests)):
        where = range(part.start, part.stop)
        _, x, _ = starts.degraded(degradation, tests, where, experiment.seed, scorer.device, severity)
        parts.append(to_unit_interval(x))
    other = torch.cat(parts)
    rows, _ = _similarity(name, "degraded", scorer.tests(), other, experiment.seed, signed)
    return rows + scorer.distances(name, "degraded", _features(scorer, other[:images]), "test", images)


def _features(scorer: Scorer, images: Tensor) -> dict[str, Features]:
    return {
        extractor.name: np.concatenate([extractor.features(images[part]) for part in batches(len(images))])
        for extractor in scorer.extractors
    }


def _similarity(
    name: str, method: str, original: Tensor, other: Tensor, seed: int, signed: bool = False
) -> tuple[Rows, tuple[Values, Values]]:
    ssims, mses = scores_per_image(original, other)
    values = {
        "ssim": pooled_ssim(ssims, seed),
        "rmse": pooled_rmse(mses, seed),
        "rmse_per_image": mean_rmse(mses, seed),
    }
    if signed:  # as some other implementations measure: images in [-1, 1], range 2
        parts = [ssim_per_image(original[b] * 2 - 1, other[b] * 2 - 1, SIGNED) for b in batches(len(original))]
        values["ssim_signed"] = pooled_ssim(np.concatenate(parts), seed)
        values["rmse_signed"] = pooled_rmse(4 * mses, seed)
    numbers = ", ".join(f"{metric} {value.value:.4f}" for metric, value in values.items())
    log.info("%s, %s: %s, n %d", name, method, numbers, len(original))
    return [row(name, method, metric, value) for metric, value in values.items()], (ssims, mses)


def _differences(
    scorer: Scorer,
    name: str,
    singles: dict[str, tuple[Values, Values]],
    features: dict[str, dict[str, Features]],
    splits: list[tuple[str, int | None]],
) -> Rows:
    """The first method of PAIR minus the second, on the same images."""
    seed, (one, other), label = scorer.experiment.seed, PAIR, "-".join(PAIR)
    rows: Rows = []
    if singles:
        for metric, place, statistic in (("ssim", 0, "mean"), ("rmse", 1, "root_mean")):
            value = intervals.difference(singles[one][place], singles[other][place], statistic, seed)
            rows.append(row(name, label, metric, value))
    for extractor in scorer.extractors:
        a, b = (features[method][extractor.name] for method in PAIR)
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            continue
        for split, n in splits:
            there = scorer.reference(extractor, split, n)
            drawn = scorer.resampling(extractor, there, n)
            value = intervals.frechet_difference(a, b, there.statistics, seed, **drawn)
            rows.append(row(name, label, extractor.name, value, split))
    return rows


def _write(out: Path, rows: Rows, scorer: Scorer, metadata: RunMetadata, facts: dict[str, Any], began: float) -> None:
    info = data.info(scorer.prepared)
    origin = provenance(scorer.device, **facts, seconds=round(time.monotonic() - began, 1))
    common = {
        "run": metadata.run,
        "experiment": metadata.name,
        "title": metadata.title,
        "table": metadata.cell.table,
        "row": metadata.cell.row,
        "protocol": metadata.protocol,
        "default": metadata.default,
        "rationale": metadata.rationale,
        "budget": metadata.budget,
        "dataset": info["name"],
        "dataset_title": info["title"],
        "embedded": info["embedded"],
        "seed": scorer.experiment.seed,
        "provenance": json.dumps(origin, sort_keys=True),
    }
    with atomic(out) as temporary:
        parquet.write_table(pyarrow.Table.from_pylist([{**common, **row} for row in rows]), temporary)
