"""Verdicts: every kind, with a reason that names what decided; names of metrics; the paper's printed numbers."""

from __future__ import annotations

import math

import pytest
from cases import PAPER, score

from coldbench.evaluation.scores import Score
from coldbench.report.formats import code, duration, metric_name, quantity, shown
from coldbench.report.layout import TABLES
from coldbench.report.paper import PaperCell
from coldbench.report.verdict import judge


def printed(cell: str) -> PaperCell:
    return next(c for c in PAPER if c.cell == cell)


RMSE, FID, SSIM = "T1-MNIST-degraded-rmse", "T1-MNIST-degraded-fid", "T1-MNIST-degraded-ssim"
SWAPPED = "T4-CelebA-reconstruction-ssim"


@pytest.mark.parametrize(
    ("ours", "cell", "kind", "reason"),
    [
        (score(), RMSE, "reproduced", "n = 10,000"),
        (score(value=0.2876), RMSE, "reproduced", "tolerance of 0.0006"),  # the edge is within the tolerance
        (score(value=0.2885), RMSE, "differs", "+0.0015"),
        (score(budget="smoke"), RMSE, "reproduced", "0.287"),  # degraded images need no network
        (score(metric="ssim", value=0.0145), SSIM, "misprint suspected", "0.0145"),
        (score(metric="ssim", value=0.287), SSIM, "reproduced", "0.287"),  # a flag alone decides nothing
        (score(method="tacos"), "T1-MNIST-sampled-rmse", "differs", "0.154"),
        (score(method="tacos", value=0.15), "T1-MNIST-sampled-rmse", "reproduced", "0.01"),
        (score(method="tacos", value=0.15, budget="laptop"), "T1-MNIST-sampled-rmse", "not comparable", "laptop"),
        (score(metric="frechet_gabor"), FID, "not comparable", "feature extractor"),
        (score(metric="fid_paper-float", value=430.0), FID, "reproduced", "438.59"),
        (score(metric="fid_clean", value=500.0), FID, "differs", "+61.4"),
        (score(metric="kid_clean", value=0.4), FID, "not comparable", "KID here, FID in the paper"),
        (score(metric="fid_clean", singular=True), FID, "not comparable", "fewer images than"),
        (score(metric="fid_clean", value=math.nan, singular=True), FID, "missing", "not a number"),
        (score(embedded=True), RMSE, "not comparable", "embedded"),
        (score(value=math.nan), RMSE, "missing", "not a number"),
        (score(value=math.inf), RMSE, "missing", "infinite"),
        (score(value=1e30), RMSE, "differs", "1.00e+30"),
        (score(metric="ssim", value=0.2), "T4-CelebA-degraded-ssim", "differs", "no stated snow severity"),
        (score(metric="ssim", value=0.9, method="direct"), SWAPPED, "misprint suspected", "0.907"),
        # An exchange is no excuse for a value that agrees with neither number.
        (score(metric="ssim", value=0.5, method="direct"), SWAPPED, "differs", "from 0.907 as well"),
    ],
)
def test_verdict_follows_from_conditions_then_numbers(ours: Score, cell: str, kind: str, reason: str) -> None:
    verdict = judge(ours, printed(cell), "")
    assert (verdict.kind, reason in verdict.reason) == (kind, True), verdict


def test_frechet_distance_of_fewer_images_is_not_comparable() -> None:
    few = score(metric="fid_paper-float", reference="test", value=430.0, n=2500, budget="short")
    assert judge(few, printed(FID), "").kind == "reproduced"
    verdict = judge(few, printed(FID), "", whole=10_000)
    assert (verdict.kind, "here 10,000" in verdict.reason) == ("not comparable", True)
    assert judge(few, printed(FID), "", whole=2500).kind == "reproduced"


def test_value_without_counterpart_is_not_comparable_and_no_value_is_missing() -> None:
    assert judge(None, PAPER[0], "not run yet").reason == "not run yet"
    assert judge(score(method="naive"), None, "").kind == "not comparable"


@pytest.mark.parametrize(
    ("metric", "reference", "measured", "name"),
    [
        ("ssim", "", "ssim", "SSIM"),
        ("rmse_per_image", "", "rmse", "RMSE (per_image)"),
        ("frechet_gabor", "test", "frechet_gabor", "FD-Gabor (test, n = 10,000)"),
        ("fid_paper-float", "test", "fid", "FID (paper-float, test, n = 10,000)"),
        ("kid_clean", "train", "kid", "KID (clean, train, n = 10,000)"),
    ],
)
def test_name_of_a_metric_has_everything_it_depends_on(metric: str, reference: str, measured: str, name: str) -> None:
    assert quantity(metric) == measured
    assert metric_name(score(metric=metric, reference=reference)) == name


def test_numbers_and_times_are_short() -> None:
    values = {0.0: "0.0000", 0.28661: "0.2866", 31.234: "31.23", 1e12: "1.00e+12", -3e-9: "−3.00e−09"}
    assert {value: shown(value) for value in values} == values
    times = {0.4: "0.4 s", 61.2: "61 s", 100: "2 min", 5969: "99 min", 36000: "10.0 h"}
    assert {seconds: duration(seconds) for seconds in times} == times


def test_text_between_backticks_becomes_code_and_is_escaped() -> None:
    assert str(code("run `a <b>` now")) == "run <code>a &lt;b&gt;</code> now"
    assert str(code("an `open end")) == "an `open end"


def test_paper_file_has_every_table_and_plausible_tolerances() -> None:
    assert {cell.table for cell in PAPER} == set(TABLES)
    assert all(0 < cell.tolerance <= 0.11 * max(cell.value, 0.3) for cell in PAPER)
    assert {cell.erratum for cell in PAPER} == {"", "misprint", "swapped", "unresolved"}
    assert all(cell.note for cell in PAPER if cell.erratum)
