"""The paper's claims: the status follows from intervals, and a limited training is named beside it."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from cases import NOWHERE, PAPER, ROOT, score

from coldbench.evaluation.scores import Score, Scores
from coldbench.report.cells import cell_frame
from coldbench.report.claims import Claim, Statements, difference, judged, load, status_of
from coldbench.report.pages import index_page

FILE = ROOT / "workflow" / "paper" / "claims.yaml"
CLAIMS = load(FILE)


def paired(value: float, half: float, metric: str = "ssim", **changes: Any) -> Score:
    reference = "" if metric in ("ssim", "rmse") else "test"
    where = {"method": "tacos-direct", "metric": metric, "reference": reference, **changes}
    return score(value=value, low=value - half, high=value + half, **where)


def claim(key: str, *scores: Score) -> Claim:
    return next(claim for claim in judged(CLAIMS, scores, PAPER) if claim.key == key)


@pytest.mark.parametrize(
    ("estimate", "expected", "status"),
    [
        ((-1.0, -2.0, -0.5), "below", "supported"),
        ((-1.0, -2.0, -0.5), "above", "contradicted"),
        ((1.0, 0.5, 2.0), "below", "contradicted"),
        ((1.0, 0.5, 2.0), "above", "supported"),
        ((-1.0, -2.0, 0.1), "below", "undecided"),
        ((-1.0, -2.0, 0.0), "below", "undecided"),  # an interval that ends at the limit decides nothing
        ((1.0, 0.0, 2.0), "above", "undecided"),
        ((-1.0, math.nan, math.nan), "below", "undecided"),  # a value without an interval decides nothing
        ((math.nan, math.nan, math.nan), "below", "no data"),
        ((math.inf, 1.0, 2.0), "above", "no data"),
    ],
)
def test_status_follows_from_the_interval(estimate: tuple[float, float, float], expected: str, status: str) -> None:
    assert status_of(estimate, expected) == status


def test_status_at_a_threshold() -> None:
    assert [status_of((v, v - 5, v + 5), "above", 200) for v in (257.0, 203.0, 150.0)] == [
        "supported",
        "undecided",
        "contradicted",
    ]


def test_difference_of_two_estimates_has_both_spreads() -> None:
    one, other = score(value=10.0, low=7.0, high=14.0), score(value=20.0, low=16.0, high=23.0)
    assert difference(one, other) == (-10.0, -10.0 - math.hypot(3, 3), -10.0 + math.hypot(4, 4))


def test_file_has_every_claim_of_the_paper() -> None:
    assert list(CLAIMS.claims) == ["a", "b", "c", "d", "e"]
    assert [c.status for c in judged(CLAIMS, (), PAPER)] == ["no data"] * 5


def test_paired_differences_decide_restoration() -> None:
    lower, higher = paired(-0.2, 0.01), paired(0.05, 0.003, "rmse")
    farther = paired(0.5, 0.1, "fid_paper-float")
    claim_a = claim("a", lower, higher, farther)
    assert {entry.question: (entry.status, entry.printed) for entry in claim_a.evidence} == {
        "nearer as a set": ("contradicted", "−0.41"),
        "lower SSIM": ("supported", "−0.039"),
        "higher RMSE": ("supported", "+0.012"),
    }
    assert (claim_a.status, claim_a.counts) == ("undecided", "2 supported, 1 contradicted from one training")
    assert claim("a", lower, higher).status == "supported"
    assert [claim_a.on(question).status for question in ("lower SSIM", "nearer as a set")] == [
        "supported",
        "contradicted",
    ]


def test_fid_comes_before_our_own_distance_and_each_has_its_name() -> None:
    gabor, fid = paired(-3.0, 1.0, "frechet_gabor"), paired(4.0, 1.0, "fid_paper-float")
    assert [(entry.metric, entry.status) for entry in claim("a", gabor, fid).evidence] == [("FID", "contradicted")]
    (entry,) = claim("a", gabor).evidence
    assert (entry.metric, entry.status, entry.would_be) == ("FD-Gabor", "undecided", "supported")
    assert entry.printed == "FID −0.41"


def test_number_of_the_paper_that_contradicts_its_claim_is_marked() -> None:
    where = {"run": "E07-fitted", "table": "3"}
    (entry,) = claim("a", paired(-0.3, 0.1, "fid_paper-float", **where)).evidence
    assert (entry.printed, entry.paper_disagrees, entry.status) == ("+0.28", True, "supported")


def blur(part: str, method: str, value: float, half: float = 1.0, **changes: Any) -> Score:
    where = {"run": "E15", "table": "5", "row": "CelebA, blur", "set": part, "method": method, "reference": "train"}
    return score(
        **{**where, "metric": "fid_clean", "value": value, "low": value - half, "high": value + half, **changes}
    )


def test_generation_from_blur() -> None:
    perfect, broken, naive = (
        blur("perfect", "tacos", 97.0),
        blur("broken", "tacos", 49.0),
        blur("broken", "naive", 300.0),
    )
    pair = blur("broken", "tacos-direct", -208.0)
    direct = blur("broken", "direct", 257.0)
    scores = perfect, broken, naive, pair, direct
    assert [claim(key, *scores).status for key in "bcd"] == ["supported"] * 3
    (entry,) = claim("b", *scores).evidence
    assert (entry.value, entry.interval, entry.printed) == ("−48.00", "−49.41 to −46.59", "−47.55")
    assert claim("b", perfect, replace(broken, value=98.0, low=97.0, high=99.0)).status == "undecided"
    assert claim("b", broken).status == "no data"  # one side alone is no evidence
    assert claim("c", direct, replace(pair, value=1.0, low=-1.0, high=3.0)).status == "undecided"
    assert claim("d", broken, replace(naive, value=40.0, low=39.0, high=41.0)).status == "contradicted"
    threshold = claim("c", direct).evidence[0]
    assert (threshold.value, threshold.printed) == ("257.00", "257.69")
    gabor = {"metric": "frechet_gabor"}
    assert claim("c", blur("broken", "direct", 257.0, **gabor)).status == "no data"  # 200 is a FID, not our distance


def test_estimated_noise() -> None:
    where = {"run": "E14", "row": "CelebA, noise"}
    scores = blur("noise", "estimated", 23.0, **where), blur("noise", "tacos", 60.0, **where)
    assert claim("e", *scores).status == "supported"
    assert claim("e", *scores).evidence[0].printed == "−36.80"


def test_limits_of_the_evidence_are_named_beside_the_status() -> None:
    laptop = paired(-0.2, 0.01, budget="laptop")
    claim_a = claim("a", laptop)
    assert (claim_a.status, claim_a.evidence[0].limits) == ("supported", "at the laptop budget, from one training")
    assert claim_a.counts == "1 supported at the laptop budget, from one training"
    html = index_page(cell_frame((laptop,), PAPER), (laptop,), [claim_a], {}, NOWHERE)
    assert html.count("at the laptop budget") >= 2
    several = claim("a", paired(-0.2, 0.01, trainings=3))
    assert "3 trainings" in index_page(cell_frame((laptop,), PAPER), (laptop,), [several], {}, NOWHERE)
    assert claim("a", paired(-0.2, 0.01)).evidence[0].limits == "from one training"
    assert claim("a", paired(-0.2, 0.01, trainings=3)).evidence[0].limits == ""
    embedded = claim("a", paired(-0.2, 0.01, budget="smoke", embedded=True)).evidence[0]
    assert embedded.limits == "at the smoke budget, from one training, on embedded images"


def test_fullest_training_on_real_data_decides() -> None:
    full, short = paired(0.2, 0.01), paired(-0.2, 0.01, budget="laptop", run="E02")
    embedded = paired(-0.2, 0.01, embedded=True, run="E03")
    claim_a = claim("a", short, embedded, full)
    assert (claim_a.status, len(claim_a.evidence), claim_a.deciding) == ("contradicted", 3, (claim_a.evidence[0],))
    assert claim("a", short, embedded).status == "supported"


def test_ablation_is_no_evidence() -> None:
    assert claim("a", paired(-0.2, 0.01, table="")).status == "no data"
    assert claim("a", paired(-0.2, 0.01, set="half")).status == "no data"


def test_page_escapes_claims() -> None:
    evil: Scores = (paired(-0.2, 0.01, row="<b>row"),)
    html = index_page(cell_frame(evil, PAPER), evil, judged(CLAIMS, evil, PAPER), {}, NOWHERE)
    assert "&lt;b&gt;row" in html
    assert "<b>" not in html
    assert "No current run is evidence for or against this claim" in html


def test_every_criterion_names_columns_that_the_paper_prints() -> None:
    """Otherwise, a typing error in the file would silently hide a number of the paper."""
    assert isinstance(CLAIMS, Statements)
    for statement in CLAIMS.claims.values():
        for criterion in statement.criteria:
            for column in filter(None, (criterion.paper or ["", "", ""])[:2]):
                assert [c for c in PAPER if c.column == column and c.metric == (criterion.paper or "")[2]], (
                    criterion.question
                )


def inpainting(part: str, method: str, value: float, **changes: Any) -> Score:
    return score(set=part, method=method, metric="ssim", value=value, low=value - 0.01, high=value + 0.01, **changes)


def test_evidence_says_what_a_sampler_knows_and_what_another_draw_gives() -> None:
    """A method that knows the mask's place wins by 0.2 and loses by 0.1 without this knowledge."""
    known = paired(0.2, 0.01), inpainting("test", "tacos", 0.9, known="drawn"), inpainting("test", "direct", 0.7)
    other = inpainting("test_redrawn", "tacos", 0.6, known="redrawn")
    evidence = claim("a", *known, other).evidence[0]
    assert evidence.knows_draw
    assert evidence.redrawn == "−0.1000 (−0.1141 to −0.0859)"
    without = claim("a", *known).evidence[0]
    assert (without.knows_draw, without.redrawn) == (True, "")
    blurred = claim("a", paired(0.2, 0.01), inpainting("test", "tacos", 0.9, known="severity")).evidence[0]
    assert (blurred.knows_draw, blurred.redrawn) == (False, "")
    scores = (*known, other)
    html = index_page(cell_frame(scores, PAPER), scores, judged(CLAIMS, scores, PAPER), {}, NOWHERE)
    assert html.count("knows the draw; with another: −0.1000") == 1
