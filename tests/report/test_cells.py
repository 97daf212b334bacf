"""The frame of cells and its exports: every printed number once, every verdict, odd values, escaped names."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from cases import EVIL, PAPER, generated, hostile, score, synthetic

from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.scores import Scores
from coldbench.report import calibration
from coldbench.report.calibration import Record
from coldbench.report.cells import Cell, PlannedRow, cell_frame, cells_of, load_planned, printed_cells, table_frame
from coldbench.report.exports import escaped, table_csv, table_json, table_tex
from coldbench.report.layout import TABLES
from coldbench.report.pages import TableView, folded_gaps, scorecard
from coldbench.report.provenance import Folders, provenance
from coldbench.report.verdict import KINDS


def planned(experiment: str, table: str, row: str, skipped: str = "") -> PlannedRow:
    return PlannedRow(experiment=experiment, table=table, row=row, skipped=skipped)


PLANNED = (planned("E01", "1", "MNIST"), planned("E03", "1", "CelebA", "celeba needs 30,000 images"))


def tables() -> Iterator[tuple[str, pd.DataFrame, Scores]]:
    for scores in ((), hostile(), synthetic() + generated()):
        for number, frame in cell_frame(scores, PAPER, PLANNED).groupby("table", sort=False):
            yield str(number), frame, scores


def find(number: str, scores: Scores, row: str, method: str, measure: str) -> Cell:
    cells = cells_of(table_frame(number, scores, PAPER))
    place = (True, row, method, measure)
    return next(cell for cell in cells if (cell.in_paper, cell.row, cell.method, cell.measure) == place)


@pytest.mark.parametrize("scores", [(), synthetic(), generated(), synthetic() + generated(), hostile()])
def test_every_printed_number_is_one_cell(scores: Scores) -> None:
    frame = cell_frame(scores, PAPER)
    assert sorted(printed_cells(frame).paper_cell) == sorted(cell.cell for cell in PAPER)
    assert set(frame.verdict) <= set(KINDS)
    assert frame.reason.str.len().min() > 10


def test_hostile_table_has_every_verdict() -> None:
    assert set(table_frame("1", hostile(), PAPER).verdict) == set(KINDS)


def test_calibration_fills_degraded_cells_without_a_run_and_no_others() -> None:
    """By the selected protocol, with the verdict of the cell's tolerance; a run's own value comes first."""
    facts = {"cell": "T1-CIFAR-10", "table": 1, "row": "CIFAR-10", "source": "cifar10", "n": 10_000, "measured": "true"}
    values = {("fitted", "ssim"): 0.3149, ("fitted", "rmse"): 0.2, ("paper", "ssim"): 0.5, ("paper", "rmse"): 0.5}
    records = [Record(**facts, interpretation=i, metric=m, value=v) for (i, m), v in values.items()]
    row = PlannedRow(experiment="E02", protocol="fitted", table="1", row="CIFAR-10", skipped="")
    known = calibration.cells(records, PAPER, [row])
    before, after = (cells_of(cell_frame(synthetic(), PAPER, [row], each)) for each in ({}, known))
    changed = [new for old, new in zip(before, after, strict=True) if old.calibrated != new.calibrated]
    assert [(c.table, c.row, c.method, c.measure, c.value, c.verdict, c.calibrated) for c in changed] == [
        ("1", "CIFAR-10", "degraded", "ssim", 0.3149, "reproduced", "fitted"),
        ("1", "CIFAR-10", "degraded", "rmse", 0.2, "differs", "fitted"),
    ]
    assert calibration.cells(records, PAPER, [row.model_copy(update={"protocol": "released"})]) == {}
    quick = [each.model_copy(update={"provenance": {"first_images": 100}}) for each in records]
    assert calibration.cells(quick, PAPER, [row]) == {}
    own = (score(run="E02-fitted", row="CIFAR-10", method="degraded", metric="ssim", value=0.4),)
    cell = next(
        c
        for c in cells_of(cell_frame(own, PAPER, [row], known))
        if c.run and (c.method, c.measure) == ("degraded", "ssim")
    )
    assert (cell.value, cell.calibrated) == (0.4, "")


def test_missing_numbers_are_one_line_for_each_reason() -> None:
    rows = [planned(name, table, "CelebA", "no images") for name, table in (("E03", "1"), ("E06", "2"))]
    frame = cell_frame(synthetic(), PAPER, rows)
    gaps = folded_gaps(frame, rows)
    assert sum(gap.cells for gap in gaps) == (printed_cells(frame).verdict == "missing").sum()
    (gap,) = [gap for gap in gaps if gap.reason.startswith("no images")]
    assert gap.rows == "Table 1, CelebA; Table 2, CelebA"
    assert "[E03,E06]" in gap.reason


@pytest.mark.parametrize("number", ["5", "5.3", "A.7"])
def test_generated_images_are_compared_with_the_training_images(number: str) -> None:
    """Appendix A.7 shows other samples of the models of Table 5."""
    frame = table_frame(number, generated(), PAPER)
    printed = printed_cells(frame)
    assert frame.in_paper.all()
    assert set(printed.verdict) == {"reproduced"}
    assert set(printed[printed.metric != ""].metric) == {"fid_legacy_pytorch"}
    assert set(printed.reference) == {"train"}
    assert set(frame.measure) == {"fid"}
    assert "training images" in TABLES[number].caption


def test_run_without_a_set_says_so() -> None:
    without = tuple(score for score in generated() if (score.set, score.method) != ("broken", "direct"))
    cell = find("A.7", without, "CelebA, blur", "direct", "fid")
    assert (cell.metric, cell.verdict) == ("", "missing")
    assert "CelebA-blur has no Direct images" in cell.reason


def test_other_set_of_a_run_is_no_counterpart_of_a_printed_number() -> None:
    ablation = score(set="another_centre", method="tacos", value=0.15)
    assert find("1", (score(), ablation), "MNIST", "tacos", "rmse").metric == ""
    perfect = tuple(score for score in generated() if score.set == "perfect")
    frame = table_frame("5", perfect, PAPER)
    assert set(frame.column[frame.metric != ""]) == {"Perfect symmetry"}


def test_fid_comes_before_our_own_distance() -> None:
    gabor = score(metric="frechet_gabor", reference="test", value=3.0)
    fid = score(metric="fid_paper-float", reference="test", value=430.0)
    other = score(metric="fid_paper-float", reference="train", value=1.0)
    cell = find("1", (gabor,), "MNIST", "degraded", "fid")
    assert (cell.label, cell.printed, math.isnan(cell.difference)) == ("FD-Gabor", "FID 438.59", True)
    cell = find("1", (gabor, other, fid), "MNIST", "degraded", "fid")
    assert (cell.value, cell.printed, cell.verdict) == (430.0, "438.59", "reproduced")


def test_default_protocol_at_the_fullest_budget_is_the_row_of_the_paper() -> None:
    laptop = score(budget="laptop", value=0.3, method="tacos")
    released = score(run="E01-released", protocol="released", default=False, method="tacos", value=0.4)
    frame = table_frame("1", (released, laptop, score(method="tacos", value=0.15)), PAPER)
    values = frame[frame.value.notna()]
    assert values.value.tolist() == [0.15, 0.3, 0.4]
    assert values.in_paper.tolist() == [True, False, False]


def test_scorecard_counts_every_printed_number_once() -> None:
    counts = scorecard(cell_frame(synthetic(), PAPER))
    assert [sum(row.values()) for row in counts.values()] == [27, 27, 27, 12, 8, 3, 12, 2]
    assert list(counts["1"]) == list(KINDS)
    assert [row["misprint suspected"] for row in counts.values()] == [1, 0, 0, 0, 0, 0, 0, 0]
    counts = scorecard(cell_frame(generated(), PAPER))
    assert [row["reproduced"] for row in counts.values()] == [0, 0, 0, 0, 8, 3, 0, 2]


def test_missing_row_has_its_reason_and_command() -> None:
    view = TableView(TABLES["1"], tuple(cells_of(table_frame("1", (), PAPER, PLANNED))))
    assert {gap.rows: (gap.cells, gap.reason) for gap in view.gaps} == {
        "MNIST": (9, "E01 has not been run. To run it: `snakemake --config experiments=E01`"),
        "CIFAR-10": (9, "this configuration has no experiment for CIFAR-10"),
        "CelebA": (
            9,
            "E03 is skipped: celeba needs 30,000 images. To run it: `snakemake --config experiments=E03`",
        ),
    }
    frame = table_frame("A.7", (), PAPER, [planned("E15_celeba", "5", "CelebA, blur")])
    assert "experiments=E15_celeba" in frame.reason.iloc[0]


def test_unknown_table_is_refused_and_a_plan_is_read(tmp_path: Path) -> None:
    with pytest.raises(ColdbenchError, match=r"unknown table '9'.*1, 2, 3, 4, 5, 5\.3, 6, A\.7"):
        table_frame("9", (), PAPER)
    assert load_planned(None) == []
    (tmp_path / "rows.json").write_text('[{"experiment": "E", "table": "1", "row": "M", "skipped": ""}]')
    assert load_planned(tmp_path / "rows.json") == [planned("E", "1", "M")]


# --- exports


def test_csv_and_json_hold_every_cell_exactly() -> None:
    for number, frame, scores in tables():
        cells = cells_of(frame)
        lines = list(csv.DictReader(io.StringIO(table_csv(frame))))
        text = table_json(number, frame, scores, {})
        value = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        for cell, line, record in zip(cells, lines, value["cells"], strict=True):
            for key in ("table", "row", "run", "set", "method", "metric", "reference", "paper", "verdict", "reason"):
                assert line[key] == record[key] == getattr(cell, key)
            for key in ("value", "low", "high", "difference", "n"):
                exact = getattr(cell, key)
                finite = exact is not None and math.isfinite(exact)
                assert record[key] == (exact if finite else None)
                assert (float(line[key]) if finite else line[key] in ("", "inf", "-inf")) == (exact if finite else True)


def test_json_has_the_full_provenance_of_every_run() -> None:
    record = {"commit": "abc", "training": {"max_steps": 5, "rates": [0.1]}, "bad": math.nan}
    scores = (score(provenance=json.dumps(record)),)
    folders: Folders = {("E01-fitted", "paper"): Path("results/paper/E01-fitted")}
    value = json.loads(table_json("1", table_frame("1", scores, PAPER), scores, folders))
    (run,) = value["runs"]
    assert run["provenance"] == {**record, "bad": None}
    assert (run["run"], run["logs"]) == ("E01-fitted", "results/paper/E01-fitted/logs/")
    cell = next(cell for cell in value["cells"] if cell["metric"])
    assert cell["difference"] == pytest.approx(-0.0004)
    assert cell["paper_cell"] == "T1-MNIST-degraded-rmse"
    for number, frame, scores in tables():
        runs = {(run["run"], run["budget"]): run for run in json.loads(table_json(number, frame, scores, {}))["runs"]}
        assert runs.keys() == set(zip(frame.run, frame.budget, strict=True)) - {("", "")}
        for (run_name, _), run in runs.items():
            assert run["provenance"].keys() == provenance(next(s for s in scores if s.run == run_name)).keys()


def test_latex_escapes_everything() -> None:
    text = escaped(EVIL)
    assert text.isascii()
    assert all(part in text for part in (r"\%", r"\&", r"\textbackslash{}"))
    assert escaped("0.287 – −0.1 × é ∮\n") == r"0.287 -- $-$0.1 $\times$ e ? "


def _unescaped(line: str) -> str:
    """A line of LaTeX without its escaped characters."""
    return re.sub(r"\\[&%$#_{}\\]|\\text\w+\{\}", "", line)


def test_latex_is_balanced_and_every_line_has_all_columns() -> None:
    for number, frame, _ in tables():
        text = table_tex(number, frame)
        assert text.isascii()
        opened = re.findall(r"\\begin\{(\w+)\}", text)
        assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", text)) == ["minipage", "table", "tabular"]
        assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
        for line in (line for line in body.splitlines() if line.endswith(r"\\")):
            bare = _unescaped(line.removesuffix(r"\\"))
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert bare.count("&") + 1 + spans == 1 + 2 * len(TABLES[number].columns), line
        rest = _unescaped("\n".join(text.splitlines()[1:]).replace(r"\\", ""))
        assert not re.findall(r"[%#~]", rest.replace("$~", "$ ").replace("}~", "} "))
        assert rest.count("$") % 2 == 0
        assert rest.count("{") == rest.count("}")


def test_latex_has_values_intervals_and_notes() -> None:
    text = table_tex("1", table_frame("1", hostile(), PAPER))
    for part in (r"0.287$^{\dagger}$", "repeats the digits of the RMSE", "1.00e+300", "not a number", r"\neq",
                 "0.2861 -- 0.2871", "beyond the paper's rows"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(("value", "symbol"), [(0.287, "="), (0.5, r"\neq")])
def test_latex_symbol_is_that_of_the_verdict(value: float, symbol: str) -> None:
    text = table_tex("1", table_frame("1", (score(value=value, low=value, high=value),), PAPER))
    assert re.findall(rf"{value:.4f}\$\^\{{(.*?)\\,\d+\}}\$", text) == [symbol]


def test_latex_heads_stand_over_their_values() -> None:
    frame = table_frame("1", (score(value=0.5),), PAPER)
    (cell,) = (cell for cell in cells_of(frame) if cell.metric)
    lines = [line.removesuffix(r" \\").split(" & ") for line in table_tex("1", frame).splitlines()]
    (heads,) = (line for line in lines if line[0] == "Metric")
    (values,) = (line for line in lines if any(text.startswith("0.5000") for text in line))
    columns = [next(k for k, text in enumerate(values) if text.startswith(n)) for n in ("0.5000", cell.printed)]
    assert [heads[k] for k in columns] == ["Ours", "Paper"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex on this machine")
def test_latex_compiles(tmp_path: Path) -> None:
    parts = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    for k, (number, frame, _) in enumerate(tables()):
        (tmp_path / f"t{k}.tex").write_text(table_tex(number, frame))
        parts.append(rf"\input{{t{k}.tex}}\clearpage")
    (tmp_path / "all.tex").write_text("\n".join([*parts, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000


def test_cell_says_what_its_sampler_knows_and_what_another_draw_gives() -> None:
    known = score(method="tacos", metric="ssim", value=0.9, known="drawn")
    other = score(method="tacos", metric="ssim", set="test_redrawn", value=0.6, low=0.5, high=0.7, known="redrawn")
    cell = find("1", (known, other), "MNIST", "tacos", "ssim")
    assert (cell.known, cell.redrawn, cell.redrawn_low, cell.redrawn_high) == ("drawn", 0.6, 0.5, 0.7)
    alone = find("1", (known,), "MNIST", "tacos", "ssim")
    assert alone.known == "drawn"
    assert math.isnan(alone.redrawn)
