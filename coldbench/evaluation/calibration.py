"""Calibration: which interpretation of the paper gives its printed Degraded cells? It needs no trained model.

An interpretation is a degradation, a preprocessing of the images and a metric. Each is scored on a whole data split.
Random degradations are drawn several times, so that a difference can be compared with the spread between draws.
"""

from __future__ import annotations

import functools
import itertools
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
from coldbench.core.errors import ColdbenchError
from coldbench.core.images import batches, from_uint8, to_unit_interval
from coldbench.core.interrupts import stoppable
from coldbench.core.logs import Ticker, log
from coldbench.core.provenance import provenance
from coldbench.degradations import Degradation, initial_xt
from coldbench.evaluation.interpretations import (
    METRICS,
    Calibration,
    Interpretation,
    Preprocessing,
    Row,
    build_degradation,
)
from coldbench.evaluation.metrics.similarity import mse_per_image, ssim_per_image

Values = npt.NDArray[np.float64]
Images = npt.NDArray[np.uint8]
UNKNOWN = (float("nan"), float("nan"))


@dataclass(frozen=True)
class ImageScores:
    """SSIM and mean squared error per draw and image, float64 (draws, N).

    Groups of `shared` consecutive images have one random pattern in common. `pooled` takes the RMSE of all images
    together, otherwise the RMSE is the mean over images.
    """

    ssim: Values
    mse: Values
    shared: int
    pooled: bool = True

    @property
    def value(self) -> tuple[float, float]:
        """SSIM and RMSE, the mean over draws."""
        rmse = np.sqrt(self.mse.mean(axis=1) if self.pooled else self.mse)
        return float(self.ssim.mean()), float(rmse.mean())

    @property
    def spread(self) -> tuple[float, float]:
        """Standard deviation of SSIM and RMSE between evaluations that draw anew; 0 if nothing is random.

        Images that share no pattern are independent. So the variance of the sum is the sum of the images' variances,
        which needs far fewer draws than the variance of whole evaluations.
        """
        if len(self.ssim) == 1:
            return 0.0, 0.0
        ssim, mse = (np.sqrt(self._group_sums(v).var(axis=0, ddof=1).sum()) / v.shape[1] for v in (self.ssim, self.mse))
        return float(ssim), float(mse / (2 * self.value[1]))

    def subset_spread(self, n: int) -> tuple[float, float]:
        """Standard deviation of SSIM and RMSE between random subsets of n images."""
        ssim, mse = self.ssim[0].std(), self.mse[0].std()
        return float(ssim / np.sqrt(n)), float(mse / np.sqrt(n) / (2 * self.value[1]))

    def _group_sums(self, values: Values) -> Values:
        edges = np.arange(0, values.shape[1], self.shared)
        return np.asarray(np.add.reduceat(values, edges, axis=1), dtype=np.float64)


def run(calibration: Calibration, folder: Path, device: torch.device, first: int | None = None) -> list[dict[str, Any]]:
    """Score every interpretation of each row with data in `folder`: one record per interpretation and metric.

    `first` takes the first images of each data set (default: all). A row without data gives one record, whose `missing`
    says what the row needs. ColdbenchError, before any work, if no row has its data: a table without values would
    replace an earlier one.
    """
    available = _available(calibration, folder)
    scores = _score_rows(available, folder, device, first)
    made_by = provenance(device)
    version = f"coldbench {made_by['coldbench']}, commit {made_by['commit'] or 'unknown'}"
    records: list[dict[str, Any]] = []
    for name, row in calibration.rows.items():
        cell = {"cell": name, "table": row.table, "row": row.row, "source": row.dataset, "made_by": version}
        if name not in available:
            records.append({**cell, "missing": data.dataset(row.dataset).requirements})
            continue
        for label in row.interpretations:
            records += _records({**cell, "interpretation": label}, row, scores[name, label])
    return records


def _available(calibration: Calibration, folder: Path) -> dict[str, Row]:
    """The rows whose data set is in `folder`; logs why the others are left out."""
    names = list(dict.fromkeys(row.dataset for row in calibration.rows.values()))
    if not folder.exists() and not all(data.dataset(name).embedded for name in names):
        raise ColdbenchError(f"data folder {folder} does not exist: calibrate needs {', '.join(names)}")
    faults: dict[str, ColdbenchError] = {}
    for name in names:
        try:
            data.check_source(name, folder)
        except ColdbenchError as error:
            faults[name] = error
    if names and len(faults) == len(names):
        raise ColdbenchError(f"{folder} holds none of {', '.join(names)}: coldbench fetch {names[0]} {folder} says why")
    for name, fault in faults.items():
        log.info("%s is left out: %s", name, fault)
    return {name: row for name, row in calibration.rows.items() if row.dataset not in faults}


def _score_rows(
    rows: dict[str, Row], folder: Path, device: torch.device, first: int | None
) -> dict[tuple[str, str], ImageScores]:
    """The scores by row and interpretation. One data set at a time is in memory, and is decoded once."""
    work = [(row, each) for row in rows.values() for each in row.interpretations.values()]
    ticker = Ticker(max(1, sum(_count(row, each, first) * _draws(row, each) for row, each in work)), "image", 1)
    scores: dict[tuple[str, str], ImageScores] = {}
    done = 0
    with stoppable() as stop, torch.inference_mode():
        for dataset in dict.fromkeys(row.dataset for row in rows.values()):
            load = functools.cache(functools.partial(load_images, dataset, folder, first=first))
            for name, row in rows.items():
                for label, each in row.interpretations.items() if row.dataset == dataset else ():
                    stop.check()
                    images = load(each.preprocessing.resize or row.size, each.preprocessing.split)
                    scores[name, label] = score(row, each, images, _draws(row, each), device)
                    done += scores[name, label].ssim.size
                    ticker.tick(done, f"{name} {label}")
    return scores


def load_images(dataset: str, folder: Path, size: int, split: str, first: int | None = None) -> Images:
    """The first images of a split (default: all) at `size` px, uint8 (N, C, size, size)."""
    return np.stack(list(itertools.islice(data.dataset(dataset).build(folder, size, split), first)))


def _count(row: Row, interpretation: Interpretation, first: int | None) -> int:
    entry = data.dataset(row.dataset)
    size = entry.train if interpretation.preprocessing.split == "train" else entry.test
    return size if first is None else min(first, size)


def _draws(row: Row, interpretation: Interpretation) -> int:
    """How often an interpretation is drawn: once if nothing is random."""
    random = build_degradation(row, interpretation).draw(torch.zeros(1, dtype=torch.int64), 0)
    return row.draws if random else 1


def score(row: Row, interpretation: Interpretation, images: Images, draws: int, device: torch.device) -> ImageScores:
    """SSIM and mean squared error of x_T against x0 for uint8 images (N, C, H, W) and every draw."""
    degradation = build_degradation(row, interpretation)
    ssims, mses = [], []
    for draw in range(draws):
        slices = batches(len(images), images.shape[-1])
        parts = [_score_batch(images, part, degradation, interpretation, draw, device) for part in slices]
        ssims.append(np.concatenate([part[0] for part in parts]))
        mses.append(np.concatenate([part[1] for part in parts]))
    shared = getattr(degradation, "shared", 1)
    return ImageScores(np.stack(ssims), np.stack(mses), shared, pooled=interpretation.metric != "per_image")


def _score_batch(
    images: Images,
    part: slice,
    degradation: Degradation,
    interpretation: Interpretation,
    draw: int,
    device: torch.device,
) -> tuple[Values, Values]:
    x0 = _preprocess(from_uint8(images[part], device), interpretation.preprocessing)
    indices = torch.arange(part.start, part.stop, device=device)
    drawn = degradation.draw(indices, rng.derive(0, f"calibration {draw}"))
    if interpretation.steps_short:
        t = torch.full((len(x0),), degradation.T - interpretation.steps_short, device=device)
        xt = degradations.network_input(degradation, x0, t, drawn)
    else:
        xt = initial_xt(degradation, x0, drawn)
    unit_x0, unit_xt = to_unit_interval(x0), to_unit_interval(xt)
    pair = (x0, xt) if interpretation.metric == "signed" else (unit_x0, unit_xt)
    return ssim_per_image(*pair, METRICS[interpretation.metric]), mse_per_image(unit_x0, unit_xt)


def _preprocess(x0: Tensor, steps: Preprocessing) -> Tensor:
    if steps.crop:
        # torchvision rounds the offset of its centre crop to even
        first = round((x0.shape[-1] - steps.crop) / 2)
        x0 = x0[..., first : first + steps.crop, first : first + steps.crop]
    if steps.pad:
        x0 = functional.pad(x0, [steps.pad] * 4, value=-1.0)
    if steps.stretch:
        x0 = functional.interpolate(x0, size=steps.stretch, mode="bilinear", align_corners=False)
    return x0


def _records(cell: dict[str, Any], row: Row, scores: ImageScores) -> Iterator[dict[str, Any]]:
    """The records of SSIM and of RMSE."""
    interpretation = row.interpretations[cell["interpretation"]]
    degradation = {**row.degradation, **interpretation.degradation, "steps_short": interpretation.steps_short}
    subset_spread = scores.subset_spread(row.scored) if row.scored else UNKNOWN
    draws, n = scores.ssim.shape
    for index, metric in enumerate(("ssim", "rmse")):
        yield {
            **cell,
            "rationale": interpretation.rationale,
            "fitted_after": interpretation.fitted_after,
            "degradation": json.dumps(degradation),
            "preprocessing": json.dumps(interpretation.preprocessing.model_dump()),
            "measured": interpretation.metric,
            "missing": "",
            "metric": metric,
            "value": scores.value[index],
            "spread": scores.spread[index],
            "subset_spread": subset_spread[index],
            "draws": draws,
            "n": n,
        }


def facts(records: list[dict[str, Any]], seconds: float, device: torch.device) -> dict[str, Any]:
    """Versions, device, seconds and the number of images of each data set."""
    counts = {record["source"]: record["n"] for record in records if not record["missing"]}
    return provenance(
        device, seconds=round(seconds, 1), images=", ".join(f"{name}: {n:,}" for name, n in counts.items())
    )
