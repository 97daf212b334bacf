"""What may be said about a value beside the paper's: one word and one sentence."""

from __future__ import annotations

import math
from dataclasses import dataclass

from coldbench.report.inputs import PaperCell, Score

KINDS = ("reproduced", "differs", "not comparable", "misprint suspected", "missing")
LABELS = {
    "frechet_gabor": "FD-Gabor",  # a distance on a small fixed filter bank: never FID
    "fid": "FID",
    "kid": "KID",
    "ssim": "SSIM",
    "rmse": "RMSE",
    "ssim_signed": "SSIM in [-1, 1]",
    "rmse_signed": "RMSE in [-1, 1]",
}


@dataclass(frozen=True)
class Verdict:
    """`kind` is one of KINDS; `reason` is one sentence without its full stop."""

    kind: str
    reason: str


def quantity(metric: str) -> str:
    """What a metric measures under any protocol: fid_paper-float is fid."""
    return metric if metric in LABELS else metric.partition("_")[0]


def metric_name(score: Score) -> str:
    """A metric with all that its value depends on: "FID (paper-float, test, n = 10,000)"."""
    protocol = score.metric.partition("_")[2] if score.metric not in LABELS else ""
    facts = [protocol, score.reference, f"n = {score.n:,}" if score.reference else ""]
    told = ", ".join(filter(None, facts))
    return LABELS.get(quantity(score.metric), score.metric) + (f" ({told})" if told else "")


def shown(value: float) -> str:
    """`value` in a table: four decimals, two for large ones, or three digits and an exponent."""
    if not math.isfinite(value):
        return "not a number" if math.isnan(value) else "infinite"
    size = abs(value)
    far = size and not 1e-4 <= size < 1e4
    text = f"{value:.2e}" if far else f"{value:.2f}" if size >= 10 else f"{value:.4f}"
    return text.replace("-", "−")


def signed(gap: float) -> str:
    """A difference with its sign, as it stands in a sentence or a table: as many decimals as `shown` gives."""
    size = abs(gap)
    text = f"{gap:+.2e}" if size >= 1e4 else f"{gap:+.2f}" if size >= 10 else f"{gap:+.4f}"
    return text.replace("-", "−")


def judge(ours: Score | None, cell: PaperCell | None, absent: str, whole: int = 0) -> Verdict:
    """The verdict on `ours` beside the paper's `cell`; `absent` says why there is no value where `ours` is None.

    `whole` is the number of images of the whole test set, as far as it is known: distances depend on their number.

    What rules a comparison out comes first (no value, no counterpart, other images, another feature extractor, a
    shorter training), then the number itself. A flagged misprint is believed only if our value disagrees with it, and,
    where two numbers look exchanged, agrees with the other one.
    """
    if ours is None:
        return Verdict("missing", absent)
    if not ours.finite:
        return Verdict("missing", f"the value of {ours.run} is {shown(ours.value)}; see the log of that run")
    if ours.embedded:
        return Verdict("not comparable", f"embedded images ({ours.dataset_title}), not the paper's data")
    if cell is None:
        return Verdict("not comparable", "the paper prints no such number")
    if quantity(ours.metric) != cell.metric:
        here, there = LABELS.get(quantity(ours.metric), ours.metric), LABELS.get(cell.metric, cell.metric)
        return Verdict("not comparable", f"another feature extractor: {here} here, {there} in the paper")
    if ours.singular:
        return Verdict("not comparable", f"{metric_name(ours)}: fewer images than the features have dimensions")
    if ours.method != "degraded" and ours.budget != "paper":
        return Verdict("not comparable", f"trained at the {ours.budget} budget, not at the paper's")
    if ours.reference and ours.method == "degraded" and ours.n < whole:
        return Verdict("not comparable", f"{metric_name(ours)}: the paper's is of all images, here {whole:,}")
    return _compare(ours, cell)


def _compare(ours: Score, cell: PaperCell) -> Verdict:
    gap = ours.value - cell.value
    measured = f"{shown(ours.value)} against {cell.printed} printed"
    limit = f"the tolerance of {cell.tolerance:g} (n = {ours.n:,})"
    if abs(gap) <= cell.tolerance + 1e-12:
        return Verdict("reproduced", f"{measured}: {signed(gap)}, within {limit}")
    if cell.meant is not None and abs(ours.value - cell.meant) > cell.tolerance + 1e-12:
        return Verdict("differs", f"{measured}, beyond {limit}, and from {cell.meant:g} as well; {cell.note}")
    if cell.erratum in ("misprint", "swapped"):
        return Verdict("misprint suspected", f"{measured}, beyond {limit}; {cell.note}")
    doubt = f"; {cell.note}" if cell.erratum else ""
    return Verdict("differs", f"{measured}: {signed(gap)}, beyond {limit}{doubt}")
