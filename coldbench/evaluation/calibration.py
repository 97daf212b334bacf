"""Calibration: which reading of the paper gives its printed Degraded cells? No trained model is needed.

A reading is a degradation, a preparation of the images and a metric. Each is scored on whole test sets, and the random
ones several times, so that a difference can be told from the luck of one draw.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from coldbench import data, degradations
from coldbench.core import rng
from coldbench.core.images import from_uint8, to_unit_interval
from coldbench.core.interrupts import stoppable
from coldbench.core.logs import Ticker
from coldbench.core.provenance import provenance
from coldbench.core.validation import fingerprint
from coldbench.degradations import Degradation, initial_xt
from coldbench.evaluation.interpretations import METRICS, Calibration, Copy, Preparation, Reading, Row, built, sources
from coldbench.evaluation.metrics.similarity import batches, mse_per_image, ssim_per_image

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """Per image and draw: SSIM and mean squared error, float64 (draws, N); `shared` images have one pattern."""

    ssim: Values
    mse: Values
    shared: int
    pooled: bool = True

    @property
    def value(self) -> tuple[float, float]:
        """SSIM and RMSE, the mean over draws; the RMSE of all images together, or else the mean of their own."""
        rmse = np.sqrt(self.mse.mean(axis=1) if self.pooled else self.mse)
        return float(self.ssim.mean()), float(rmse.mean())

    @property
    def spread(self) -> tuple[float, float]:
        """Standard deviation of one whole evaluation over draws, SSIM and RMSE; 0 for what is not random.

        Images that share no pattern are independent, so it follows from their own spreads, far more firmly than from a
        few whole values.
        """
        if len(self.ssim) == 1:
            return 0.0, 0.0
        ssim, mse = (np.sqrt(self._sums(v).var(axis=0, ddof=1).sum()) / v.shape[1] for v in (self.ssim, self.mse))
        return float(ssim), float(mse / (2 * self.value[1]))

    def subset(self, n: int) -> tuple[float, float]:
        """Standard deviation of the two values from n images chosen at random, patterns drawn anew."""
        ssim, mse = self.ssim[0].std(), self.mse[0].std()
        return float(ssim / np.sqrt(n)), float(mse / np.sqrt(n) / (2 * self.value[1]))

    def _sums(self, values: Values) -> Values:
        edges = np.arange(0, values.shape[1], self.shared)
        return np.asarray(np.add.reduceat(values, edges, axis=1), dtype=np.float64)


def run(calibration: Calibration, folder: Path, device: torch.device, only: int | None = None) -> list[dict[str, Any]]:
    """Score every reading of every row whose data lie in `folder`; one record per reading, source and metric.

    `only` takes that many images of each set (for a quick look). Rows without data give one record that says what is
    missing. A perturbed copy stands in for a data set that is not there, and is corrected where a part of the true
    images lies beside it: value of the copy + (part − the copy of that part).
    """
    plan = [(name, row, source) for name, row in calibration.rows.items() for source in sources(calibration, row)]
    known = [(name, row, source) for name, row, source in plan if data.available(source, folder)]
    known = [item for item in known if item[2] == item[1].dataset or not data.available(item[1].dataset, folder)]
    readings = [(row, told, source) for _, row, source in known for told in row.readings.values()]
    counts = [_count(calibration, *item, only) * _draws(calibration, *item) for item in readings]
    ticker = Ticker(max(1, sum(counts)), "image", 1)
    records: list[dict[str, Any]] = []
    done = 0
    cache = Images(folder, only)
    scored: dict[tuple[str, str, str], Scores] = {}
    with stoppable() as stop, torch.inference_mode():
        for source in dict.fromkeys(source for _, _, source in known):  # a set at a time: its images are decoded once
            for name, row in ((n, r) for n, r, s in known if s == source):
                for reading in row.readings:
                    stop.check()
                    told = row.readings[reading]
                    splits = _splits(calibration, row, told, source)
                    images = cache.load(source, told.preprocessing.resize or row.size, splits)
                    draws = _draws(calibration, row, told, source)
                    scored[name, reading, source] = score(row, told, images, draws, device)
                    done += scored[name, reading, source].ssim.size
                    ticker.tick(done, f"{name} {reading}, {source}")
            cache.forget()
    for name, row in calibration.rows.items():
        there = [source for n, _, source in known if n == name]
        if not there:
            needs = data.dataset(row.dataset).needs
            records.append({"cell": name, "table": row.table, "row": row.row, "source": row.dataset, "missing": needs})
        for reading in row.readings:
            values = {source: scored[name, reading, source] for source in there}
            records += _records(name, row, reading, values, calibration.copies.get(row.dataset))
    return records


def _is_part(calibration: Calibration, row: Row, source: str) -> bool:
    copy = calibration.copies.get(row.dataset)
    return copy is not None and source in (copy.part, copy.part_copied)


def _splits(calibration: Calibration, row: Row, reading: Reading, source: str) -> tuple[str, ...]:
    """Of a part both splits: the more pairs, the firmer the correction."""
    return ("train", "test") if _is_part(calibration, row, source) else (reading.preprocessing.split,)


def _count(calibration: Calibration, row: Row, reading: Reading, source: str, only: int | None) -> int:
    entry = data.dataset(source)
    sizes = {"train": entry.train, "test": entry.test}
    every = sum(sizes[split] for split in _splits(calibration, row, reading, source))
    return every if only is None else min(only, every)


def _draws(calibration: Calibration, row: Row, reading: Reading, source: str) -> int:
    """How often a reading is drawn: once, if nothing is random, or for a part, whose pairs share what is drawn."""
    random = built(row, reading).draw(torch.zeros(1, dtype=torch.int64), 0)
    return row.draws if random and not _is_part(calibration, row, source) else 1


class Images:
    """The prepared images of one data set at a time, uint8, each preparation decoded once."""

    def __init__(self, folder: Path, only: int | None) -> None:
        self.folder, self.only = folder, only
        self._kept: dict[str, npt.NDArray[np.uint8]] = {}

    def load(self, source: str, size: int, splits: tuple[str, ...]) -> npt.NDArray[np.uint8]:
        """All images of `splits`, one after the other, at `size` px."""
        key = fingerprint([source, size, splits])
        if key not in self._kept:
            entry = data.dataset(source)
            every = [image for split in splits for image in entry.build(self.folder, size, split)]
            self._kept[key] = np.stack(every[: self.only])
        return self._kept[key]

    def forget(self) -> None:
        """Free the memory."""
        self._kept.clear()


def score(row: Row, reading: Reading, images: npt.NDArray[np.uint8], draws: int, device: torch.device) -> Scores:
    """SSIM and squared error of x_T against x for every image, uint8 (N, C, h, w), and every draw."""
    degradation = built(row, reading)
    shared = getattr(degradation, "shared", 1)
    ssims, mses = [], []
    for draw in range(draws):
        parts = [_scored(images, part, degradation, reading, draw, device) for part in batches(len(images))]
        ssims.append(np.concatenate([part[0] for part in parts]))
        mses.append(np.concatenate([part[1] for part in parts]))
    return Scores(np.stack(ssims), np.stack(mses), shared, pooled=reading.metric != "per_image")


def _scored(
    images: npt.NDArray[np.uint8], part: slice, degradation: Degradation, reading: Reading, draw: int, device: Any
) -> tuple[Values, Values]:
    x0 = _prepared(from_uint8(images[part], device), reading.preprocessing)
    indices = torch.arange(part.start, part.stop, device=device)
    state = degradation.draw(indices, rng.derive(0, f"calibration {draw}"))
    if reading.steps_short:
        t = torch.full((len(x0),), degradation.T - reading.steps_short, device=device)
        xt = degradations.network_input(degradation, x0, t, state)
    else:
        xt = initial_xt(degradation, x0, state)
    original, other = (x0, xt) if reading.metric == "signed" else (to_unit_interval(x0), to_unit_interval(xt))
    mses = mse_per_image(to_unit_interval(x0), to_unit_interval(xt))
    return ssim_per_image(original, other, METRICS[reading.metric]), mses


def _prepared(x0: Tensor, preparation: Preparation) -> Tensor:
    if preparation.crop:
        # torchvision's centre crop: its offset is rounded to even
        first = round((x0.shape[-1] - preparation.crop) / 2)
        x0 = x0[..., first : first + preparation.crop, first : first + preparation.crop]
    if preparation.pad:
        x0 = functional.pad(x0, [preparation.pad] * 4, value=-1.0)
    if preparation.stretch:
        x0 = functional.interpolate(x0, size=preparation.stretch, mode="bilinear", align_corners=False)
    return x0


def _records(
    name: str, row: Row, reading: str, scored: dict[str, Scores], copy: Copy | None
) -> Iterator[dict[str, Any]]:
    """One record per source and metric, and one for the corrected copy."""
    told = row.readings[reading]
    common = {
        "cell": name,
        "table": row.table,
        "row": row.row,
        "reading": reading,
        "rationale": told.rationale,
        "fitted_after": told.fitted_after,
        "degradation": json.dumps({**row.degradation, **told.degradation, "steps_short": told.steps_short}),
        "preprocessing": json.dumps(told.preprocessing.model_dump()),
        "measured": told.metric,
        "missing": "",
    }
    for source, scores in scored.items():
        yield from _pair(common, source, scores.value, row, scores)
    if copy and scored.keys() >= {copy.copied, copy.part, copy.part_copied}:
        base, true, same = (scored[source] for source in (copy.copied, copy.part, copy.part_copied))
        shift = true.value[0] - same.value[0], true.value[1] - same.value[1]
        values = base.value[0] + shift[0], base.value[1] + shift[1]
        yield from _pair(common, f"{row.dataset} (corrected)", values, row, base, shift, _shift_error(true, same))


def _shift_error(true: Scores, same: Scores) -> tuple[float, float]:
    """Standard error of the correction from its pairs of images."""
    mse = true.mse[0] / (2 * true.value[1]) - same.mse[0] / (2 * same.value[1])  # what each image adds to the RMSEs
    n = true.ssim.shape[1]
    return float((true.ssim[0] - same.ssim[0]).std() / np.sqrt(n)), float(mse.std() / np.sqrt(n))


def _pair(
    common: dict[str, Any],
    source: str,
    values: tuple[float, float],
    row: Row,
    scores: Scores,
    shift: tuple[float, float] = (float("nan"), float("nan")),
    shift_error: tuple[float, float] = (float("nan"), float("nan")),
) -> Iterator[dict[str, Any]]:
    subset = scores.subset(row.scored) if row.scored else (float("nan"),) * 2
    draws, n = scores.ssim.shape
    for place, metric in enumerate(("ssim", "rmse")):
        yield {
            **common,
            "source": source,
            "metric": metric,
            "value": values[place],
            "spread": scores.spread[place],
            "subset_spread": subset[place],
            "shift": shift[place],
            "shift_error": shift_error[place],
            "draws": draws,
            "n": n,
        }


def facts(records: list[dict[str, Any]], seconds: float, device: torch.device) -> dict[str, Any]:
    """Where the numbers come from: versions, device, time, and how many images of each source."""
    counts = {r["source"]: r["n"] for r in records if not r["missing"] and not r["source"].endswith("(corrected)")}
    return provenance(device, seconds=round(seconds, 1), images=", ".join(f"{s}: {n:,}" for s, n in counts.items()))
