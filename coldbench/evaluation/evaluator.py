"""The evaluator of a run: sampled images and the degraded images they start from → scores.

Restored images are compared with their originals. Generated images have none, so their features are compared with
those of the training images and of the test images. The difference tacos − direct has a paired interval.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import data, degradations
from coldbench.core.errors import ColdbenchError
from coldbench.core.images import batches, to_unit_interval
from coldbench.core.logs import Ticker, log
from coldbench.core.provenance import provenance
from coldbench.core.run import RunMetadata
from coldbench.data import preprocessing
from coldbench.evaluation.measurements import (
    Comparison,
    FrechetDistance,
    KernelDistance,
    Measurement,
    Metric,
    Sample,
    Similarity,
    per_image,
)
from coldbench.evaluation.metrics import intervals
from coldbench.evaluation.metrics.extractors import Extractor
from coldbench.evaluation.metrics.reference import Reference, reference
from coldbench.evaluation.metrics.similarity import mse_per_image, ssim_per_image
from coldbench.evaluation.metrics.ssim import Window
from coldbench.evaluation.scores import Score, Scores
from coldbench.evaluation.tables import write_table
from coldbench.sampling import manifest as manifests
from coldbench.sampling import starts
from coldbench.sampling.manifest import SampledSet

SIGNED = Window(data_range=2.0)
"""SSIM of images in [-1, 1], as some other implementations measure it."""
SETTINGS = {"severity", "assumed_severity", "known", "stride", "released_shift"}
"""What decides, beside the degradation, where a set starts and how its sampler steps."""
PAIR = ("tacos", "direct")
"""The two methods whose difference is the paper's first claim."""


class Evaluator:
    """Evaluates the run of one manifest.

    `prepared` is the prepared data set of the run, `partner` the one that its degradation mixes in. `feature_cache` is
    the folder with the features of the reference sets. `metrics` names plug-ins' metrics. ColdbenchError if the
    manifest is damaged, or names other images than `prepared` and `partner` hold.
    """

    def __init__(
        self,
        manifest: Path,
        prepared: Path,
        feature_cache: Path,
        extractors: list[Extractor],
        device: torch.device,
        partner: Path | None = None,
        metrics: Iterable[Mapping[str, Any]] = (),
    ) -> None:
        self.manifest, self.prepared, self.partner = manifest, prepared, partner
        self.feature_cache, self.extractors, self.device = feature_cache, extractors, device
        self.run, self.info = manifests.read_manifest(manifest), data.info(prepared)
        if self.run.data != self.info["hash"]:
            raise ColdbenchError(f"{manifest} was sampled from other test images than {prepared} holds; sample again")
        if partner is not None and self.run.partner != data.info(partner)["hash"]:
            raise ColdbenchError(f"{manifest} was sampled with other partner images than {partner} holds; sample again")
        self.experiment = self.run.experiment
        seed = self.experiment.seed
        self.per_image = [per_image(spec, seed) for spec in metrics]
        self.metrics: list[Metric] = [Similarity(seed), *self.per_image]
        self.values: list[Sample] = []
        for extractor in extractors:
            self.metrics.append(FrechetDistance(extractor, seed))
            if extractor.kernel:
                self.metrics.append(KernelDistance(extractor, seed))
        self._references: dict[tuple[str, str, int | None], Reference] = {}

    def evaluate(self, metadata: RunMetadata) -> Scores:
        """The scores of every method and of the degraded images in every set, named by `metadata`."""
        began = time.monotonic()
        total = sum(len(sampled.methods) * sampled.images for sampled in self.run.sets.values())
        ticker, done = Ticker(total, "image", images_each=1), 0
        measurements: list[Measurement] = []
        for name, sampled in self.run.sets.items():
            samples: dict[str, Sample] = {}
            for sample in self._samples(name, sampled):
                samples[sample.method] = sample
                self.values.append(sample)
                measured = [each for metric in self.metrics for each in metric.measure(sample)]
                values = ", ".join(f"{each.metric} {each.estimate.value:.4f}" for each in measured)
                log.info("%s, %s: %s", name, sample.method, values)
                measurements += measured
                if sample.method in sampled.methods:
                    done += sampled.images
                    ticker.tick(done, f"{name} · {sample.method}")
            if samples.keys() >= set(PAIR):
                a, b = (samples[method] for method in PAIR)
                measurements += [each for metric in self.metrics for each in metric.difference(a, b)]
        return self._scores(measurements, metadata, time.monotonic() - began)

    def subset_distances(self, name: str, method: str, sizes: list[int], draws: int) -> list[dict[str, Any]]:
        """Fréchet distances of the first `sizes` images of a set, one record per extractor and size.

        The reference is fixed: all originals of a restored set, or the training images. No record if an image is not
        finite.
        """
        images = torch.from_numpy(manifests.read_images(self.manifest, name, method, max(sizes)))
        if not images.isfinite().all():
            return []
        records = []
        for extractor in self.extractors:
            features = np.concatenate([extractor.features(batch) for batch in self._batches(images)])
            comparison = self._comparisons(extractor, self.run.sets[name])[0]
            for size in sizes:
                estimate = intervals.frechet(
                    features[:size], comparison.reference.statistics, self.experiment.seed, draws
                )
                measurement = Measurement(name, method, extractor.name, comparison.split, estimate)
                records.append(_record(measurement))
        return records

    def _samples(self, name: str, sampled: SampledSet) -> Iterator[Sample]:
        """The degraded images of a set, then the images of each method."""
        tests = data.load(self.prepared, "test")
        restored, degraded = sampled.start is None, sampled.restores_as_degraded
        originals = tests if restored else None
        comparisons = {each.name: self._comparisons(each, sampled) for each in self.extractors}
        if degraded:
            images = self._degraded_batches(tests, sampled.severity)
            yield Sample(name, "degraded", *self._compute(images, originals, sampled.images), comparisons)
        for method in sampled.methods:
            restorations = torch.from_numpy(manifests.read_images(self.manifest, name, method))
            images = self._batches(restorations)
            yield Sample(name, method, *self._compute(images, originals, sampled.images), comparisons)

    def _batches(self, images: Tensor) -> Iterator[Tensor]:
        """The images on this evaluator's device, batch by batch."""
        return (images[part].to(self.device) for part in batches(len(images), images.shape[-1]))

    def _compute(
        self, images: Iterable[Tensor], originals: npt.NDArray[np.uint8] | None, n: int
    ) -> tuple[dict[str, npt.NDArray[np.float64]], dict[str, npt.NDArray[np.floating]]]:
        """Per-image values of all images against their originals, and features of the first n, batch by batch.

        `originals` are prepared images (N, C, H, W), of which each batch is cut when it is needed.
        A Fréchet distance depends on n, so that of the degraded images uses as many images as the restored ones.
        """
        values: dict[str, list[npt.NDArray[np.float64]]] = {}
        features: dict[str, list[npt.NDArray[np.floating]]] = {}
        start = 0
        with torch.inference_mode():
            for batch in images:
                if originals is not None:
                    cut = self._unit_images(originals[start : start + len(batch)])
                    for name, value in self._similarity(cut, batch).items():
                        values.setdefault(name, []).append(value)
                for extractor in self.extractors if start < n else ():
                    features.setdefault(extractor.name, []).append(extractor.features(batch[: n - start]))
                start += len(batch)
        return (
            {name: np.concatenate(parts) for name, parts in values.items()},
            {name: np.concatenate(parts) for name, parts in features.items()},
        )

    def _similarity(self, originals: Tensor, images: Tensor) -> dict[str, npt.NDArray[np.float64]]:
        squared_error = mse_per_image(originals, images)
        values = {"ssim": ssim_per_image(originals, images), "squared_error": squared_error}
        if self.run.signed_metrics:
            values["ssim_signed"] = ssim_per_image(originals * 2 - 1, images * 2 - 1, SIGNED)
            values["squared_error_signed"] = 4 * squared_error
        return values | {metric.label: metric(originals, images) for metric in self.per_image}

    def _degraded_batches(self, tests: npt.NDArray[np.uint8], severity: int | None) -> Iterator[Tensor]:
        """x at `severity` of the whole test set in [0, 1]: it needs no model, so all images are scored."""
        degradation = degradations.for_experiment(self.experiment, self.partner)
        for part in batches(len(tests), self.experiment.size):
            indices = range(part.start, part.stop)
            _, x, _ = starts.degraded(degradation, tests, indices, self.experiment.seed, self.device, severity)
            yield to_unit_interval(x).contiguous()

    def _unit_images(self, images: npt.NDArray[np.uint8]) -> Tensor:
        """Prepared images as the network sees them, in [0, 1]."""
        return to_unit_interval(preprocessing.test_images(images, self.experiment.size, slice(None), self.device))

    def _comparisons(self, extractor: Extractor, sampled: SampledSet) -> list[Comparison]:
        """The originals of a restored set; both whole splits for a generated set."""
        if sampled.start is None:
            return [Comparison("test", self._reference(extractor, "test", sampled.images), paired=True)]
        return [Comparison(split, self._reference(extractor, split, None), paired=False) for split in ("train", "test")]

    def _reference(self, extractor: Extractor, split: str, n: int | None) -> Reference:
        """The features of the first n images of a split (None: all), from memory, the feature cache or the images."""
        key = (extractor.name, split, n)
        if key not in self._references:
            images = data.load(self.prepared, split)[:n]
            identity = {
                "features": extractor.name,
                "data": self.info["hash"],
                "split": split,
                "size": self.experiment.size,
                "n": len(images),
            }

            def parts() -> Iterator[Tensor]:
                return (self._unit_images(images[part]) for part in batches(len(images), self.experiment.size))

            self._references[key] = reference(self.feature_cache, identity, parts, extractor.features)
        return self._references[key]

    def _scores(self, measurements: list[Measurement], metadata: RunMetadata, seconds: float) -> Scores:
        facts = {
            "model": self.run.model[:16],
            "fingerprint": self.experiment.fingerprint,
            "data": self.run.data,
            "inference_batch": self.run.inference_batch,
            "precision": self.run.precision,
            "compile": self.run.compile,
            **self.experiment.hash_inputs,
            "sampled_on": self.run.device,
            **self.run.provenance,
        }
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
            "dataset": self.info["name"],
            "dataset_title": self.info["title"],
            "embedded": self.info["embedded"],
            "seed": self.experiment.seed,
            "steps": self.experiment.training.max_steps,
            "snapshot": self.experiment.snapshot,
            "provenance": json.dumps(provenance(self.device, **facts, seconds=round(seconds, 1)), sort_keys=True),
        }
        degradation = degradations.for_experiment(self.experiment, self.partner)
        more: dict[tuple[str, str], dict[str, Any]] = {
            (name, method): {
                **vars(manifests.read_cost(self.manifest, name, method)),
                "known": starts.known_of(self.run.sampler(method), sampled, degradation),
            }
            for name, sampled in self.run.sets.items()
            for method in sampled.methods
        }
        return tuple(Score(**common, **_record(each), **more.get((each.set, each.method), {})) for each in measurements)

    def write_values(self, out: Path, made_from: Mapping[str, Any]) -> None:
        """Write the per-image values of what was evaluated to `out` (parquet), for comparisons between runs.

        The columns are set, method, image (its index) and, float32, ssim, squared_error and the plug-ins' metrics.
        Images beyond the restored ones are left out, because no method is compared on them. The facts of the table are
        how each set was sampled, and how the values of each plug-in's metric are averaged.
        """
        import pandas as pd

        frames = []
        for sample in self.values:
            n = self.run.sets[sample.set].images
            values = {name: each[:n].astype(np.float32) for name, each in sample.values.items()}
            if values and n:
                frames.append(pd.DataFrame({"set": sample.set, "method": sample.method, "image": range(n), **values}))
        empty = pd.DataFrame(columns=["set", "method", "image"])
        sets = {name: sampled.model_dump(include=SETTINGS) for name, sampled in self.run.sets.items()}
        facts = {"sets": sets, "averages": {metric.label: metric.average for metric in self.per_image}}
        write_table(pd.concat(frames, ignore_index=True) if frames else empty, out, made_from, facts=facts)


def _record(measurement: Measurement) -> dict[str, Any]:
    """The columns of a score that a measurement fills."""
    estimate = asdict(measurement.estimate)
    return {key: value for key, value in vars(measurement).items() if key != "estimate"} | estimate
