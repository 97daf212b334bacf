"""The files of a scored run: its scores, and beside them the values of each image. What fits is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from coldbench.core import logs
from coldbench.core.run import Run
from coldbench.data import unchanged
from coldbench.evaluation.evaluator import Evaluator
from coldbench.evaluation.metrics.extractors import extractors
from coldbench.evaluation.scores import write_scores
from coldbench.evaluation.tables import VALUES, is_up_to_date, read_made_from, why_not_beside
from coldbench.sampling.manifest import made_from


@dataclass(frozen=True)
class ScoringPaths:
    """The sampled images, the prepared data sets that they restore and mix in, and the folder of cached features."""

    manifest: Path
    data: Path
    feature_cache: Path
    partner: Path | None = None


@dataclass(frozen=True)
class Features:
    """The protocols of FID, none for FD-Gabor alone, and the folder of Inception's weights, None to download them."""

    fid: Sequence[str] = ()
    inception: Path | None = None


def score_run(paths: ScoringPaths, run: Run, features: Features, device: torch.device, out: Path) -> None:
    """Write the scores of a run to `out`, and the values of each image beside it.

    Scores that were made from these samples under these names are kept. Where the values beside them do not fit, they
    alone are made again. ColdbenchError if samples or data are damaged, or change meanwhile.
    """
    facts = {**made_from(paths.manifest, run.metadata), "fid": sorted(features.fid)}
    facts |= {"metrics": run.metrics} if run.metrics else {}
    values, kept = out.with_name(VALUES), is_up_to_date(out, facts)
    if kept:
        logs.log.info("%s is up to date: it was made from these samples under these names", out)
        if not (why := why_not_beside(values, out)):
            return
        logs.log.warning("the values of each image are made again: %s", why)
        facts = read_made_from(out)
    extracted = [] if kept else extractors(list(features.fid), features.inception, device)
    with unchanged(paths.data, paths.partner):
        evaluator = Evaluator(
            paths.manifest, paths.data, paths.feature_cache, extracted, device, paths.partner, run.metrics
        )
        scores = evaluator.evaluate(run.metadata)
    evaluator.write_values(values, facts)
    if not kept:
        write_scores(scores, out, facts)
