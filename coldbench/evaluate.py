"""Scores: image shards, or the degraded test set alone, → rows of one tidy table.

A row is one value of one metric for one method of one run, with its interval, n and provenance; every table, figure and
verdict of the report is a view of these rows (the columns are `report.inputs.Score`).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from coldbench import data, degradations, pipeline, sample
from coldbench import manifest as sampled
from coldbench.errors import ColdbenchError
from coldbench.experiment import About, Experiment
from coldbench.files import atomic
from coldbench.images import to_unit_interval
from coldbench.metrics import gabor
from coldbench.metrics.frechet import Statistics, frechet_distance
from coldbench.metrics.similarity import (
    Estimate,
    batches,
    mean_rmse,
    pooled_rmse,
    pooled_ssim,
    scores_per_image,
)
from coldbench.progress import Ticker, log
from coldbench.provenance import provenance

Rows = list[dict[str, Any]]


def degraded(
    experiment: Experiment,
    about: About,
    images: int | None,
    prepared: Path,
    out: Path,
    device: torch.device,
    partner: Path | None = None,
) -> None:
    """Score D(x, T) against x on the whole test set, no model needed; write the rows to `out` (parquet).

    The Fréchet distance depends on n, so it is taken from the first `images` (null: all) as for the restored images.
    """
    began = time.monotonic()
    tests = data.load(prepared, "test")
    partners = pipeline.middle(data.load(partner, "train"), experiment.size) if partner else None
    degradation = degradations.build(experiment.degradation, experiment.size, partners)
    originals, others = [], []
    for part in batches(len(tests)):
        x0, xt, _ = sample.degraded_batch(tests, range(part.start, part.stop), degradation, experiment.seed, device)
        originals.append(to_unit_interval(x0))
        others.append(to_unit_interval(xt))
    rows = _rows(experiment, "degraded", torch.cat(originals), torch.cat(others), images)
    facts = {"data": data.info(prepared)["hash"], "degradation": experiment.degradation}
    _write(
        out, rows, experiment, about, prepared, provenance(device, **facts, seconds=round(time.monotonic() - began, 1))
    )


def evaluate(manifest: Path, about: About, prepared: Path, out: Path, device: torch.device) -> None:
    """Score every method's restored images against the originals; write the rows to `out` (parquet)."""
    began = time.monotonic()
    facts = sampled.facts(manifest)
    experiment = Experiment.model_validate(facts["experiment"])
    if facts["data"] != data.info(prepared)["hash"]:
        raise ColdbenchError(f"{manifest} was sampled from other test images than {prepared} holds; sample again")
    tests = data.load(prepared, "test")
    original = to_unit_interval(pipeline.test_images(tests, experiment.size, slice(facts["images"]), device))
    methods = list(dict.fromkeys(shard["method"] for shard in facts["shards"]))
    ticker = Ticker(len(methods), "method", len(original))
    rows: Rows = []
    for done, method in enumerate(methods, start=1):
        rows += _rows(experiment, method, original, torch.from_numpy(sampled.read(manifest, method)).to(device))
        ticker.tick(done, method)
    science = {"model": facts["model"][:16], "fingerprint": experiment.fingerprint, "data": facts["data"]}
    details = {**science, **experiment.science, "sampled_on": facts["device"], **facts["origin"]}
    _write(
        out,
        rows,
        experiment,
        about,
        prepared,
        provenance(device, **details, seconds=round(time.monotonic() - began, 1)),
    )


def _rows(
    experiment: Experiment, method: str, original: Tensor, other: Tensor, frechet_images: int | None = None
) -> Rows:
    ssims, mses = scores_per_image(original, other)
    seed = experiment.seed
    few = slice(frechet_images)
    distance = frechet_distance(_statistics(original[few]), _statistics(other[few]))
    values = {
        "ssim": pooled_ssim(ssims, seed),
        "rmse": pooled_rmse(mses, seed),
        "rmse_per_image": mean_rmse(mses, seed),
        gabor.NAME: Estimate(distance, float("nan"), float("nan"), len(original[few])),
    }
    log.info("%s: SSIM %.4f, RMSE %.4f, n %d", method, values["ssim"].value, values["rmse"].value, len(original))
    return [{"method": method, "metric": metric, **vars(estimate)} for metric, estimate in values.items()]


def _statistics(images: Tensor) -> Statistics:
    parts = [gabor.features(images[part]).cpu().numpy() for part in batches(len(images))]
    return Statistics.of(np.concatenate(parts))


def _write(out: Path, rows: Rows, experiment: Experiment, about: About, prepared: Path, origin: dict[str, Any]) -> None:
    info = data.info(prepared)
    common = {
        "run": experiment.run,
        "experiment": experiment.name,
        "title": about.title,
        "table": about.cell.table,
        "row": about.cell.row,
        "protocol": experiment.protocol,
        "default": about.default,
        "because": about.because,
        "budget": experiment.budget,
        "dataset": info["name"],
        "dataset_title": info["title"],
        "embedded": info["embedded"],
        "seed": experiment.seed,
        "provenance": json.dumps(origin, sort_keys=True),
    }
    with atomic(out) as temporary:
        pd.DataFrame([{**common, **row} for row in rows]).to_parquet(temporary, index=False)
