"""The scores table: round trips, merging, and refusals."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cases
import numpy as np
import pandas as pd
import pytest
from cases import ROOT, synthetic
from hypothesis import given
from hypothesis import strategies as st

from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.scores import Scores, merge_scores, read_scores, validate_scores, write_scores
from coldbench.evaluation.trainings import over_trainings

PUBLISHED = ROOT / "results/published/laptop-cpu/scores.parquet"


def test_scores_round_trip_through_parquet(tmp_path: Path) -> None:
    """Null bounds are read as NaN, and null texts as empty ones."""
    scores = synthetic()
    write_scores(scores, tmp_path / "a.parquet", "samples")
    assert read_scores([tmp_path / "a.parquet"]) == scores
    for score in validate_scores(pd.read_parquet(tmp_path / "a.parquet").assign(low=None, row=None).to_dict("records")):
        assert math.isnan(score.low)
        assert score.row == ""
    assert read_scores([]) == ()


def test_merged_scores_do_not_depend_on_the_order_of_files(tmp_path: Path) -> None:
    scores = synthetic()
    write_scores(scores[:5], tmp_path / "a.parquet", "")
    write_scores(scores[5:], tmp_path / "b.parquet", "")
    for out, order in (("one", "ab"), ("two", "ba")):
        merge_scores([tmp_path / f"{name}.parquet" for name in order], tmp_path / f"{out}.parquet")
    assert (tmp_path / "one.csv").read_bytes() == (tmp_path / "two.csv").read_bytes()
    assert sorted(map(repr, read_scores([tmp_path / "one.parquet"]))) == sorted(map(repr, scores))
    assert len(pd.read_csv(tmp_path / "one.csv")) == len(scores)


def test_scores_are_replaced_whole(tmp_path: Path) -> None:
    """A reader that opened the older file reads it to its end."""
    write_scores(synthetic(), tmp_path / "new.parquet", "")
    out = tmp_path / "scores.parquet"
    for replace in (lambda: write_scores(synthetic(), out, ""), lambda: merge_scores([tmp_path / "new.parquet"], out)):
        out.write_bytes(b"older scores")
        with out.open("rb") as reader:
            replace()
            assert reader.read() == b"older scores"
        assert len(read_scores([out])) == len(synthetic())


def test_merging_published_scores_changes_no_byte_of_their_csv(tmp_path: Path) -> None:
    merge_scores([PUBLISHED], tmp_path / "scores.parquet")
    assert (tmp_path / "scores.csv").read_bytes() == PUBLISHED.with_suffix(".csv").read_bytes()


REFUSALS: list[tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = [  # change, offending key
    (lambda frame: frame.drop(columns="value"), "lack the column value"),
    (lambda frame: frame.drop(columns=["set", "singular"]), "lack the columns set, singular"),
    (lambda frame: pd.concat([frame, frame[:1]]), "2 values for test degraded"),
    (lambda frame: frame.assign(n="many"), "wrong n: 'many'"),
    (lambda frame: frame.assign(seed=None), "wrong seed"),
]


@pytest.mark.parametrize(("change", "names"), REFUSALS)
def test_wrong_scores_are_refused(change: Callable[[pd.DataFrame], pd.DataFrame], names: str) -> None:
    frame = change(pd.DataFrame([vars(score) for score in synthetic()]))
    with pytest.raises(ColdbenchError, match=names):
        validate_scores(frame.to_dict("records"))


@pytest.mark.parametrize(("content", "names"), [(b"PAR1", "states no checksum"), (None, "does not exist")])
def test_unreadable_scores_are_refused(tmp_path: Path, content: bytes | None, names: str) -> None:
    if content is not None:
        (tmp_path / "scores.parquet").write_bytes(content)
    with pytest.raises(ColdbenchError, match=names):
        read_scores([tmp_path / "scores.parquet"])


def seeds(*values: float, half: float = 0.01, **changes: Any) -> Scores:
    common = {"method": "tacos", "metric": "ssim", **changes}
    return tuple(
        cases.score(seed=seed, run=f"E01-s{seed}", value=value, low=value - half, high=value + half, **common)
        for seed, value in enumerate(values)
    )


def test_trainings_of_several_seeds_count_as_one_value_with_their_spread() -> None:
    """With 95 %: t = 4.303 for three trainings; the part over images stays as wide as that of one training."""
    (one,) = over_trainings(seeds(0.860, 0.872, 0.885))
    deviation = np.std([0.860, 0.872, 0.885], ddof=1)
    width = math.hypot(4.302653 * deviation / math.sqrt(3), 0.01)
    assert one.value == pytest.approx(np.mean([0.860, 0.872, 0.885]))
    assert (one.trainings, one.run, one.spread) == (3, "E01-s0", pytest.approx(deviation))
    assert (one.low, one.high) == (pytest.approx(one.value - width), pytest.approx(one.value + width))


@pytest.mark.parametrize(("metric", "method", "least"), [
    ("frechet_gabor", "naive", 0.0), ("fid_clean", "tacos", 0.0), ("rmse", "direct", 0.0),
    ("frechet_gabor", "tacos-direct", -9.0), ("ssim", "tacos", -9.0), ("kid_clean", "tacos", -9.0),
])  # fmt: skip
def test_interval_of_a_distance_over_trainings_has_no_negative_part(metric: str, method: str, least: float) -> None:
    own = tuple(dataclasses.replace(each, metric=metric, method=method) for each in seeds(0.1, 0.5, 0.2))
    (one,), (as_ssim,) = over_trainings(own), over_trainings(seeds(0.1, 0.5, 0.2))
    assert as_ssim.low < 0
    assert (one.low, one.high) == (max(as_ssim.low, least), as_ssim.high)


def test_one_training_keeps_its_value_and_interval() -> None:
    (one,) = own = seeds(0.86)
    assert over_trainings(own) == own
    assert (one.trainings, math.isnan(one.spread)) == (1, True)


def test_only_scores_that_differ_in_their_seed_alone_are_trainings_of_one_configuration() -> None:
    """Not those of other images, protocols or budgets, nor two of equal seeds; the degraded images need no training."""
    first, second = seeds(0.8, 0.9)
    for changes in ({"n": 99}, {"protocol": "paper"}, {"budget": "laptop"}, {"set": "half"}, {"steps": 9}, {"seed": 0}):
        assert len(over_trainings((first, dataclasses.replace(second, **changes)))) == 2, changes
    degraded = over_trainings(
        (dataclasses.replace(first, method="degraded"), dataclasses.replace(second, method="degraded"))
    )
    assert degraded == (dataclasses.replace(first, method="degraded"),)


@given(st.lists(st.floats(-1, 1), min_size=2, max_size=9), st.floats(0, 1))
def test_interval_over_trainings_contains_that_over_images_and_is_wider(values: list[float], half: float) -> None:
    (one,) = over_trainings(seeds(*values, half=half))
    assert one.low <= one.value - half + 1e-9
    assert one.high >= one.value + half - 1e-9
