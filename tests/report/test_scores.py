"""Files of scores: what they hold survives, and a damaged one ends in one line."""

from __future__ import annotations

import math
from pathlib import Path

import pandas as pd
import pytest
from cases import synthetic

from coldbench.core.errors import ColdbenchError
from coldbench.report.inputs import collect, load_scores, scores_of


def test_scores_survive_files_and_merging_in_any_order(tmp_path: Path) -> None:
    frame = pd.DataFrame([vars(s) for s in synthetic()])
    frame[:5].to_parquet(tmp_path / "a.parquet")
    frame[5:].assign(low=None).to_parquet(tmp_path / "b.parquet")
    scores = load_scores([tmp_path / "a.parquet", tmp_path / "b.parquet"])
    assert scores[:5] == synthetic()[:5]
    assert math.isnan(scores[5].low)
    assert load_scores([]) == ()
    collect([tmp_path / "b.parquet", tmp_path / "a.parquet"], tmp_path / "all.parquet")
    joined = load_scores([tmp_path / "all.parquet"])
    assert sorted(map(repr, joined)) == sorted(map(repr, scores))
    collect([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "again.parquet")
    assert (tmp_path / "again.csv").read_text() == (tmp_path / "all.csv").read_text()
    assert len(pd.read_csv(tmp_path / "all.csv")) == len(scores)


def test_damaged_scores_are_refused_in_one_line(tmp_path: Path) -> None:
    frame = pd.DataFrame([vars(s) for s in synthetic()])
    for damaged, culprit in (
        (frame.drop(columns="value"), "lack the column value"),
        (frame.drop(columns=["set", "singular"]), "lack the columns set, singular"),
        (pd.concat([frame, frame[:1]]), "2 values for test degraded"),
        (frame.assign(n="many"), "n of the wrong kind: 'many'"),
    ):
        with pytest.raises(ColdbenchError, match=culprit):
            scores_of(damaged)
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    for path, culprit in (("torn.parquet", "not a readable scores file"), ("none.parquet", "does not exist")):
        with pytest.raises(ColdbenchError, match=culprit):
            load_scores([tmp_path / path])
