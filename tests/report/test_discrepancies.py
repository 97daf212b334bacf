"""The discrepancies: all 28, each with a choice or a decision, and evidence from the calibration and the scores."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import NOWHERE, PAPER, ROOT, SCORE

from coldbench.evaluation.scores import Scores
from coldbench.report import discrepancies as view
from coldbench.report.calibration import Record
from coldbench.report.cells import cell_frame
from coldbench.report.discrepancies import Discrepancy, mentions
from coldbench.report.navigation import ReportFolder
from coldbench.report.pages import banner

WORKFLOW = ROOT / "workflow"
QUESTIONS = view.load(WORKFLOW / "paper" / "discrepancies.yaml")
GRID = view.load_grid(WORKFLOW / "config" / "paper.yaml")
INTERPRETATIONS = view.load_interpretations(WORKFLOW / "config" / "calibration.yaml")


def entries(records: list[Record] | None = None, scores: Scores = ()) -> dict[str, Discrepancy]:
    sources = view.Sources(GRID, INTERPRETATIONS, records or [])
    return {d.key: d for d in view.discrepancies(QUESTIONS, sources, scores, cell_frame(scores, PAPER))}


LINE = {"table": 1, "row": "MNIST", "source": "mnist"}


def record(cell: str, interpretation: str, metric: str, value: float, verdict: str = "exact") -> Record:
    where: dict[str, Any] = {**LINE, "cell": cell, "interpretation": interpretation}
    return Record(**where, metric=metric, value=value, printed="0.287", n=10_000, verdict=verdict)


def test_each_of_the_28_questions_has_a_choice_or_a_decision() -> None:
    assert list(QUESTIONS) == [f"D{k}" for k in range(1, 29)]
    for d in entries().values():
        assert d.question.decision or any(choice.selected for choice in d.choices), d.key


@pytest.mark.parametrize("file", ["paper.yaml", "calibration.yaml", "smoke.yaml", "variants.yaml"])
def test_every_number_in_a_configuration_is_explained(file: str) -> None:
    named = set(re.findall(r"\bD\d+\b", (WORKFLOW / "config" / file).read_text("utf-8")))
    assert named <= set(QUESTIONS)


def test_further_answers_are_existing_protocols() -> None:
    protocols = {f"{name}.{protocol}" for name, entry in GRID.items() for protocol in entry["protocols"]}
    for key, question in QUESTIONS.items():
        assert set(question.protocols) <= protocols, key
        for place in question.protocols:
            name, protocol = place.split(".")
            assert not mentions(key, GRID[name]["protocols"][protocol]["rationale"]), f"{key}: {place} names it already"


def test_d1_is_not_mentioned_by_d11() -> None:
    assert mentions("D1", "20 steps (D1)")
    assert mentions("D1", "(D11, D1)")
    assert not mentions("D1", "the released sampler (D11, D14)")


def test_choices_are_read_from_the_protocols() -> None:
    first = entries()["D1"].choices
    assert [(c.protocol, c.experiments, c.selected) for c in first] == [
        ("fitted", ("E01",), True),
        ("paper", ("E01",), False),
    ]
    assert first[0].rationale == GRID["E01"]["protocols"]["fitted"]["rationale"]
    assert first[1].changes == "degradation: T: 40"
    shared = [c for c in entries()["D6"].choices if c.protocol == "released" and "E04" in c.experiments]
    assert [c.experiments for c in shared] == [("E04", "E05")]


def test_evidence_is_read_from_the_calibration() -> None:
    records = [
        record("T1-MNIST", "paper", "ssim", 0.0130, verdict="differs"),
        record("T1-MNIST", "paper", "rmse", 0.28846, verdict="differs"),
        record("T1-MNIST", "fitted", "ssim", 0.0145, verdict=""),  # a copy of the data: not the best source
        Record.model_validate({**LINE, "cell": "T1-CelebA", "interpretation": None, "missing": "30,000 images"}),
    ]
    d = entries(records)
    by_name = {e.interpretation: e for e in d["D1"].evidence}
    assert (by_name["paper"].ours, by_name["paper"].printed) == ("0.0130 / 0.2885", "0.287 / 0.287")
    assert by_name["fitted"].missing == view.NOT_CALIBRATED
    assert d["D1"].verdict_counts == (("differs", 1),)
    celeba = [e for e in d["D2"].evidence if e.row == "CelebA"]
    assert {e.missing for e in celeba} == {"no data; 30,000 images"}
    html = view.page(list(d.values()), None, NOWHERE)
    assert "0.0130 / 0.2885" in html
    assert "CelebA: no data; 30,000 images." in html


def test_evidence_is_read_from_the_scores() -> None:
    run = replace(SCORE, rationale="20 blur steps (D1)")
    noise = replace(
        SCORE, run="E14", table="5", row="CelebA, noise", set="noise", method="naive", metric="frechet_gabor"
    )
    noise = replace(noise, reference="train", value=3.5, low=3.0, high=4.0, budget="laptop")
    d = entries(scores=(run, noise))
    assert [(t.run.run, t.verdicts) for t in d["D1"].tallies] == [("E01-fitted", (("reproduced", 1), ("missing", 8)))]
    assert not d["D11"].tallies
    assert [(s.run, text) for s, _, text in d["D20"].values] == [("E14", "3.5000 (3.0000 – 4.0000)")]
    html = view.page(list(d.values()), banner((run, noise)), NOWHERE)
    assert "E14, noise, naive: FD-Gabor" in html
    assert "at the laptop budget" in html
    assert 'class="banner"' in html


def test_page_escapes_names_and_has_every_question(tmp_path: Path) -> None:
    (tmp_path / "index.html").touch()
    lines = [record("T1-MNIST", "paper", metric, 0.0, verdict="<script>x") for metric in ("ssim", "rmse")]
    d = entries(lines)
    html = view.page(list(d.values()), None, ReportFolder(tmp_path))
    assert "&lt;script&gt;x" in html
    assert "<script" not in html
    assert 'href="index.html"' in html
    assert 'href="calibration.html"' not in html
    assert all(f'id="D{k}"' in html for k in range(1, 29))
