"""Paired comparisons: Holm's correction, decisions, ties."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import ttest_rel

from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.comparison import LEVEL, compare, holm, no_difference, paired_p, ranks

P = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def against(baseline: str, values: dict[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """The pairs of every other method with the baseline."""
    return {name: (each, values[baseline]) for name, each in values.items() if name != baseline}


def rejected(p: list[float], level: float) -> set[int]:
    """Holm's procedure as he states it: from the smallest on, until one fails."""
    order = sorted(range(len(p)), key=lambda k: p[k])
    found: set[int] = set()
    for place, index in enumerate(order):
        if not p[index] * (len(p) - place) < level:
            break
        found.add(index)
    return found


@given(P)
def test_corrected_values_reject_what_holms_procedure_rejects(p: list[float]) -> None:
    corrected = holm(p)
    for level in (0.001, 0.01, 0.05, 0.2):
        assert {k for k, each in enumerate(corrected) if each < level} == rejected(p, level)


@given(P, st.randoms())
def test_correction_keeps_the_order_and_never_lowers_a_value(p: list[float], random: object) -> None:
    corrected = holm(p)
    assert all(a <= b <= 1 for a, b in zip(p, corrected, strict=True))
    assert [corrected[k] for k in np.argsort(p, kind="stable")] == sorted(corrected)
    order = list(range(len(p)))
    random.shuffle(order)  # type: ignore[attr-defined]
    assert holm([p[k] for k in order]) == [corrected[k] for k in order]


def test_correction_of_an_example_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.01]) == [0.01]
    assert holm([]) == []
    assert holm([math.nan, 0.02]) == pytest.approx([1.0, 0.04])  # an impossible test counts as one


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(5, 60))
def test_comparison_does_not_depend_on_the_order_of_images(seed: int, n: int) -> None:
    generator = np.random.default_rng(seed)
    values = {name: generator.random(n) for name in "abc"}
    order = generator.permutation(n)
    one = compare(against("a", values), "mean", True, 0)
    other = compare(against("a", {name: each[order] for name, each in values.items()}), "mean", True, 0)
    for name in "bc":
        assert one[name].estimate.value == pytest.approx(other[name].estimate.value, abs=1e-12)
        assert one[name].p == pytest.approx(other[name].p, rel=1e-6)
        assert one[name].p == pytest.approx(ttest_rel(values[name], values["a"]).pvalue)
        assert one[name].outcome == other[name].outcome


@pytest.mark.parametrize("statistic", ["mean", "root_mean"])
def test_equal_methods_are_undecided(statistic: str) -> None:
    values = np.random.default_rng(0).random(50)
    same = compare(against("a", {"a": values, "b": values.copy()}), statistic, True, 0)["b"]
    assert (same.estimate.value, same.p, same.corrected, same.outcome) == (0, 1, 1, "undecided")
    assert no_difference(values, values.copy(), statistic, 0)


@pytest.mark.parametrize(("higher", "outcome"), [(True, "better"), (False, "worse")])
def test_direction_of_the_metric_says_who_is_better(higher: bool, outcome: str) -> None:
    generator = np.random.default_rng(1)
    a = generator.random(200)
    values = {"a": a, "more": a + 0.1 + 0.01 * generator.random(200), "noise": a + generator.normal(0, 1e-3, 200)}
    found = compare(against("a", values), "mean", higher, 0)
    assert found["more"].outcome == outcome
    assert found["more"].decided
    swapped = compare(against("more", values), "mean", higher, 0)["a"]
    assert {found["more"].outcome, swapped.outcome} == {"better", "worse"}
    assert swapped.estimate.value == pytest.approx(-found["more"].estimate.value)


def test_more_comparisons_decide_less() -> None:
    generator = np.random.default_rng(2)
    a = generator.random(40)
    b = a + generator.normal(0.1, 0.27, 40)
    alone = compare(against("a", {"a": a, "b": b}), "mean", True, 0)["b"]
    others = {f"c{k}": a + generator.normal(0, 0.3, 40) for k in range(20)}
    among = compare(against("a", {"a": a, "b": b, **others}), "mean", True, 0)["b"]
    assert alone.p == among.p
    assert alone.corrected < LEVEL < among.corrected
    assert (alone.outcome, among.outcome) == ("better", "undecided")


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        ([1.0], [2.0], math.nan),
        ([1.0, math.nan], [1.0, 2.0], math.nan),
        ([1.0, math.inf], [1.0, 2.0], math.nan),
        ([1.0, 2.0], [0.5, 1.5], 0.0),
        ([1.0, 2.0], [1.0, 2.0], 1.0),
    ],
)
def test_values_without_a_test_are_undecided_and_silent(a: list[float], b: list[float], p: float) -> None:
    assert paired_p(np.array(a), np.array(b)) == pytest.approx(p, nan_ok=True)
    found = compare(against("b", {"a": np.array(a), "b": np.array(b)}), "mean", True, 0)["a"]
    assert found.decided == (p == 0)


def test_several_trainings_widen_what_images_alone_would_decide() -> None:
    """Two configurations of equal mean quality: over trainings 5 % of the decisions are wrong, over images most."""
    generator = np.random.default_rng(3)
    wrong = {"trainings": 0, "images": 0}
    for _ in range(400):
        images = generator.normal(0, 0.1, 100)
        a, b = (images + generator.normal(0, 0.02, (3, 1)) + generator.normal(0, 0.02, (3, 100)) for _ in range(2))
        wrong["trainings"] += paired_p(a, b) < LEVEL
        wrong["images"] += paired_p(a[0], b[0]) < LEVEL
    assert wrong["trainings"] <= 0.08 * 400
    assert wrong["images"] >= 0.5 * 400


def test_interval_of_several_trainings_covers_a_further_one() -> None:
    """The interval and the test agree, and one training of a method is compared with every training of the other."""
    generator = np.random.default_rng(4)
    a = generator.normal(0, 0.1, 100) + np.array([[0.01], [0.03], [0.05]])
    b = np.zeros((1, 100))
    found = compare(against("b", {"a": a, "b": b}), "mean", True, 0)["a"]
    assert found.estimate.value == pytest.approx(a.mean())
    t_half = 4.303 * 0.02 / 3**0.5
    assert found.estimate.high - found.estimate.value > t_half
    assert found.decided == (found.estimate.low > 0)


def test_unequal_images_are_refused() -> None:
    with pytest.raises(ColdbenchError, match="pairs"):
        compare({"a": (np.zeros(3), np.zeros(4))}, "mean", True, 0)


def test_methods_that_tie_with_the_first_share_its_rank() -> None:
    means = {"a": 0.9, "b": 0.88, "c": 0.86, "d": 0.5}
    assert ranks("abcd", lambda x, y: abs(means[x] - means[y]) < 0.03) == {"a": 1, "b": 1, "c": 3, "d": 4}
    assert ranks("abcd", lambda x, y: True) == dict.fromkeys("abcd", 1)
    assert ranks("", lambda x, y: True) == {}
