"""The verdict on a value beside the paper's: a kind, and one sentence with the reason."""

from __future__ import annotations

from dataclasses import dataclass

from coldbench.evaluation.scores import Score
from coldbench.report.formats import metric_label, metric_name, quantity, shown, signed
from coldbench.report.paper import PaperCell

KINDS = ("reproduced", "differs", "not comparable", "misprint suspected", "missing")
ROUNDING = 1e-12
"""A value at the edge of a tolerance is within it, also after rounding."""


@dataclass(frozen=True)
class Verdict:
    """`kind` is one of KINDS; `reason` is one sentence without its full stop."""

    kind: str
    reason: str


def judge(ours: Score | None, cell: PaperCell | None, missing: str, whole: int = 0) -> Verdict:
    """The verdict on `ours` beside the paper's `cell`; `missing` is the reason for the lack of a value of ours.

    `whole` is the number of images of the whole test set, or 0 if it is unknown. The conditions of a comparison come
    first (a value, a printed number, the same images, the same features, the paper's training), then the numbers.
    """
    if ours is None:
        return Verdict("missing", missing)
    if not ours.finite:
        return Verdict("missing", f"the value of {ours.run} is {shown(ours.value)}; see the log of the run")
    reason = _not_comparable(ours, cell, whole)
    if cell is None or reason:
        return Verdict("not comparable", reason or "the paper prints no such number")
    return _compare(ours.value, f"{shown(ours.value)}{trainings_text(ours)}", ours.n, cell)


def judge_calibrated(value: float, n: int, source: str, cell: PaperCell) -> Verdict:
    """The verdict on a value of the calibration, which needs no network, beside the paper's `cell`.

    `source` says which interpretation of which of the `n` images gave it.
    """
    return _compare(value, f"{shown(value)} (calibration: {source}, no network)", n, cell)


def trainings_text(ours: Score) -> str:
    """How many trainings a value rests on, as a part of a sentence; "" if no training decides it."""
    if ours.method == "degraded":
        return ""
    if ours.trainings == 1:
        return " (one training)"
    return f" (mean of {ours.trainings} trainings with a standard deviation of {shown(ours.spread)})"


def _not_comparable(ours: Score, cell: PaperCell | None, whole: int) -> str:
    """Why the two numbers must not be compared; "" if they may be."""
    if ours.embedded:
        return f"the images are embedded ones ({ours.dataset_title}), not the paper's data"
    if cell is None:
        return ""
    if quantity(ours.metric) != cell.metric:
        return (
            f"the feature extractors differ: {metric_label(ours.metric)} here, {metric_label(cell.metric)} in the paper"
        )
    if ours.singular:
        return f"{metric_name(ours)} comes from fewer images than the features have dimensions"
    if ours.method != "degraded" and ours.budget != "paper":
        return f"the network was trained at the {ours.budget} budget, not at the paper's"
    # A Fréchet distance falls with the number of images.
    if ours.reference and ours.method == "degraded" and ours.n < whole:
        return f"{metric_name(ours)} comes from a part of the images; the paper's comes from all, here {whole:,}"
    return ""


def _compare(value: float, text: str, n: int, cell: PaperCell) -> Verdict:
    """Compare two numbers of one quantity; `text` is our `value` of `n` images in words.

    A flagged misprint is suspected only if our value disagrees with it. If two numbers look exchanged, our value must
    agree with the other one as well.
    """
    difference = value - cell.value
    numbers = f"{text} against {cell.printed} in the paper"
    limit = f"the tolerance of {cell.tolerance:g} (n = {n:,})"
    if abs(difference) <= cell.tolerance + ROUNDING:
        return Verdict("reproduced", f"{numbers}: {signed(difference)}, within {limit}")
    if cell.meant is not None and abs(value - cell.meant) > cell.tolerance + ROUNDING:
        return Verdict("differs", f"{numbers}, beyond {limit}, and beyond it from {cell.meant:g} as well; {cell.note}")
    if cell.erratum in ("misprint", "swapped"):
        return Verdict("misprint suspected", f"{numbers}, beyond {limit}; {cell.note}")
    doubt = f"; {cell.note}" if cell.erratum else ""
    return Verdict("differs", f"{numbers}: {signed(difference)}, beyond {limit}{doubt}")
