"""The report: every verdict, every printed cell once, honest names, safe HTML."""

from __future__ import annotations

import csv
import io
import json
import math
import re
from pathlib import Path

import jinja2
import pandas as pd
import pytest
from cases import PAPER, TABLES, generated, score, synthetic

from coldbench.core.errors import ColdbenchError
from coldbench.report.ablations import METHODS, ablations
from coldbench.report.exports import table_csv
from coldbench.report.inputs import PaperCell, Score, Scores, collect, load_paper, load_scores, scores_of
from coldbench.report.layout import COLUMNS, heading
from coldbench.report.navigation import render
from coldbench.report.page import banner, index_page, runs_of, scorecard, table_page
from coldbench.report.tables import Cell, TableView, table_view, tables_of
from coldbench.report.verdict import KINDS, judge, metric_name, quantity, shown


def printed(cell: str) -> PaperCell:
    return next(c for c in PAPER if c.cell == cell)


@pytest.fixture
def views() -> list[TableView]:
    return [table_view(number, synthetic(), PAPER) for number in TABLES]


def find(view: TableView, label: str, method: str, metric: str) -> Cell:
    cells = [cell for row in view.rows if row.label == label for cell in row.cells]
    return next(cell for cell in cells if (cell.column.method, cell.measure.paper) == (method, metric))


# --- verdicts


@pytest.mark.parametrize(
    ("ours", "cell", "kind", "says"),
    [
        (score(), "T1-MNIST-degraded-rmse", "reproduced", "n = 10,000"),
        (score(value=0.2876), "T1-MNIST-degraded-rmse", "reproduced", "tolerance of 0.0006"),  # the edge belongs to it
        (score(value=0.2885), "T1-MNIST-degraded-rmse", "differs", "+0.0015"),
        (score(budget="smoke"), "T1-MNIST-degraded-rmse", "reproduced", "0.287"),  # needs no network: any budget
        (score(metric="ssim", value=0.0145), "T1-MNIST-degraded-ssim", "misprint suspected", "0.0145"),
        (
            score(metric="ssim", value=0.287),
            "T1-MNIST-degraded-ssim",
            "reproduced",
            "0.287",
        ),  # the flag decides nothing
        (score(method="tacos"), "T1-MNIST-sampled-rmse", "differs", "0.154"),
        (score(method="tacos", value=0.15), "T1-MNIST-sampled-rmse", "reproduced", "0.01"),
        (score(method="tacos", value=0.15, budget="laptop"), "T1-MNIST-sampled-rmse", "not comparable", "laptop"),
        (score(metric="frechet_gabor"), "T1-MNIST-degraded-fid", "not comparable", "feature extractor"),
        (score(metric="fid_paper-float", value=430.0), "T1-MNIST-degraded-fid", "reproduced", "438.59"),
        (score(metric="fid_clean", value=500.0), "T1-MNIST-degraded-fid", "differs", "+61.4"),
        (score(metric="kid_clean", value=0.4), "T1-MNIST-degraded-fid", "not comparable", "KID here, FID in the paper"),
        (score(metric="fid_clean", singular=True), "T1-MNIST-degraded-fid", "not comparable", "fewer images than"),
        (score(metric="fid_clean", value=math.nan, singular=True), "T1-MNIST-degraded-fid", "missing", "not a number"),
        (score(embedded=True), "T1-MNIST-degraded-rmse", "not comparable", "embedded"),
        (score(value=math.nan), "T1-MNIST-degraded-rmse", "missing", "not a number"),
        (score(value=math.inf), "T1-MNIST-degraded-rmse", "missing", "infinite"),
        (score(value=1e30), "T1-MNIST-degraded-rmse", "differs", "1.00e+30"),
        (score(metric="ssim", value=0.2), "T4-CelebA-degraded-ssim", "differs", "no stated snow severity"),
        (
            score(metric="ssim", value=0.9, method="direct"),
            "T4-CelebA-reconstruction-ssim",
            "misprint suspected",
            "0.907",
        ),
        (  # neither the one number nor the other: a suspected exchange excuses nothing
            score(metric="ssim", value=0.5, method="direct"),
            "T4-CelebA-reconstruction-ssim",
            "differs",
            "and from 0.907 as well",
        ),
    ],
)
def test_verdict(ours: Score, cell: str, kind: str, says: str) -> None:
    verdict = judge(ours, printed(cell), "")
    assert (verdict.kind, says in verdict.reason) == (kind, True), verdict


def test_a_distance_of_fewer_images_is_not_compared() -> None:
    """The Degraded cells need no network, but a Fréchet distance falls with the number of images."""
    few = score(metric="fid_paper-float", reference="test", value=430.0, n=2500, budget="short")
    assert judge(few, printed("T1-MNIST-degraded-fid"), "").kind == "reproduced"
    found = judge(few, printed("T1-MNIST-degraded-fid"), "", whole=10_000)
    assert (found.kind, "of all images, here 10,000" in found.reason) == ("not comparable", True)
    assert judge(few, printed("T1-MNIST-degraded-fid"), "", whole=2500).kind == "reproduced"
    (cell,) = [
        cell
        for row in table_view("1", (few, score(budget="short")), PAPER).rows
        for cell in row.cells
        if cell.ours == few
    ]
    assert cell.verdict == found


def test_verdict_without_a_value_or_a_counterpart() -> None:
    assert judge(None, PAPER[0], "not run yet").reason == "not run yet"
    assert judge(score(method="naive"), None, "").kind == "not comparable"


@pytest.mark.parametrize(
    ("metric", "reference", "what", "name"),
    [
        ("ssim", "", "ssim", "SSIM"),
        ("rmse_per_image", "", "rmse", "RMSE (per_image)"),
        ("frechet_gabor", "test", "frechet_gabor", "FD-Gabor (test, n = 10,000)"),
        ("fid_paper-float", "test", "fid", "FID (paper-float, test, n = 10,000)"),
        ("fid_legacy_pytorch", "train", "fid", "FID (legacy_pytorch, train, n = 10,000)"),
        ("kid_clean", "train", "kid", "KID (clean, train, n = 10,000)"),
    ],
)
def test_a_metric_is_named_with_all_it_depends_on(metric: str, reference: str, what: str, name: str) -> None:
    assert quantity(metric) == what
    assert metric_name(score(metric=metric, reference=reference)) == name


def test_shown_keeps_a_cell_short() -> None:
    assert [shown(v) for v in (0.0, 0.28661, 31.234, 1e12, -3e-9)] == [
        "0.0000",
        "0.2866",
        "31.23",
        "1.00e+12",
        "−3.00e−09",
    ]


# --- the paper's numbers


def test_paper_file_has_every_table_and_sane_tolerances() -> None:
    assert {cell.table for cell in PAPER} == set(TABLES)
    assert all(0 < cell.tolerance <= 0.11 * max(cell.value, 0.3) for cell in PAPER)
    assert {cell.erratum for cell in PAPER} == {"", "misprint", "swapped", "unresolved"}
    assert all(cell.note for cell in PAPER if cell.erratum)


def test_paper_file_errors_name_the_place(tmp_path: Path) -> None:
    head = "cell,table,row,task,column,metric,value,tolerance,erratum,note\n"
    broken = tmp_path / "tables.csv"
    for line, culprit in [
        ("a,1,M,t,c,ssim,zero,1,,", "line 2"),
        ("a,1,M,t,c,ssim,1,1,misprnt,", "misprint"),
        ("a,1", "line 2"),
    ]:
        broken.write_text(head + line + "\n")
        with pytest.raises(ColdbenchError, match=culprit):
            load_paper(broken)
    with pytest.raises(ColdbenchError, match="does not exist"):
        load_paper(tmp_path / "none.csv")


# --- tables


@pytest.mark.parametrize("number", TABLES)
@pytest.mark.parametrize("scores", [(), synthetic(), generated(), synthetic() + generated()])
def test_every_printed_cell_stands_once(number: str, scores: Scores) -> None:
    view = table_view(number, scores, PAPER)
    cells = [cell.paper.cell for row in view.rows for cell in row.cells if cell.paper]
    assert sorted(cells) == sorted(c.cell for c in PAPER if c.table == number)


@pytest.mark.parametrize("number", ["5", "5.3", "A.7"])
def test_generations_stand_beside_their_printed_numbers(number: str) -> None:
    """Against the training images, by the first of our protocols; A.7 shows other samples of Table 5's models."""
    view = table_view(number, generated(), PAPER)
    assert not view.extra
    cells = [cell for row in view.rows for cell in row.cells if cell.paper]
    assert {cell.verdict.kind for cell in cells} == {"reproduced"}
    assert {(cell.ours.metric, cell.ours.reference) for cell in cells if cell.ours} == {("fid_legacy_pytorch", "train")}
    assert "training images" in view.caption
    assert not [cell for row in view.rows for cell in row.cells if cell.measure.paper in ("ssim", "rmse")]
    without = tuple(score for score in generated() if not (score.set == "broken" and score.method == "direct"))
    found = find(table_view("A.7", without, PAPER), "CelebA, blur", "direct", "fid")
    assert found.ours is None
    assert "no Direct images of CelebA-blur" in found.verdict.reason


def test_sets_are_not_mixed_up() -> None:
    """An ablation of a run is no counterpart of a printed number, though its method is that of one."""
    misled = score(set="another_centre", method="tacos", value=0.15)
    assert find(table_view("1", (score(), misled), PAPER), "MNIST", "tacos", "rmse").ours is None
    perfect = [score for score in generated() if score.set == "perfect"]
    view = table_view("5", tuple(perfect), PAPER)
    shown = [cell.column.label for row in view.rows for cell in row.cells if cell.ours]
    assert set(shown) == {"Perfect symmetry"}


def test_the_best_known_distance_stands_in_the_table() -> None:
    """FID by the paper's reading before our own filter bank, which stands there where nothing else was made."""
    gabor = score(metric="frechet_gabor", reference="test", value=3.0)
    fid = score(metric="fid_paper-float", reference="test", value=430.0)
    other = score(metric="fid_paper-float", reference="train", value=1.0)
    assert find(table_view("1", (gabor,), PAPER), "MNIST", "degraded", "fid").printed == "FID 438.59"
    cell = find(table_view("1", (gabor, other, fid), PAPER), "MNIST", "degraded", "fid")
    assert (cell.ours, cell.printed, cell.verdict.kind) == (fid, "438.59", "reproduced")


def test_table_shows_what_exists_and_why_the_rest_is_missing(views: list[TableView]) -> None:
    assert find(views[0], "MNIST", "degraded", "rmse").verdict.kind == "reproduced"
    assert find(views[0], "MNIST", "degraded", "ssim").verdict.kind == "misprint suspected"
    assert find(views[0], "MNIST", "tacos", "ssim").verdict.kind == "not comparable"
    missing = find(views[0], "CelebA", "direct", "ssim")
    assert missing.printed == "0.607"
    assert "no experiment for CelebA in this configuration" in missing.verdict.reason
    assert [row.run.dataset for row in views[0].extra if row.run] == ["digits"]
    untrained = table_view("1", synthetic()[:3], PAPER)
    assert "E01-fitted" in find(untrained, "MNIST", "tacos", "ssim").verdict.reason


def test_the_selected_protocol_at_the_best_budget_is_the_row() -> None:
    laptop = score(budget="laptop", value=0.3, method="tacos")
    released = score(run="E01-released", protocol="released", default=False, method="tacos", value=0.4)
    view = table_view("1", (released, laptop, score(method="tacos", value=0.15)), PAPER)
    assert find(view, "MNIST", "tacos", "rmse").value == "0.1500"
    assert [row.run.run for row in view.extra if row.run] == ["E01-fitted", "E01-released"]


def test_scorecard_counts_printed_cells(views: list[TableView]) -> None:
    counts = scorecard(views)
    assert list(counts) == list(KINDS)
    assert [sum(column) for column in zip(*counts.values(), strict=True)] == [27, 27, 27, 12, 8, 3, 12, 2]
    assert sum(map(sum, counts.values())) == len(PAPER)
    assert counts["misprint suspected"] == [1, 0, 0, 0, 0, 0, 0, 0]
    made = scorecard([table_view(number, generated(), PAPER) for number in TABLES])
    assert made["reproduced"] == [0, 0, 0, 0, 8, 3, 0, 2]


def test_unknown_table_names_the_valid_ones() -> None:
    assert tables_of(PAPER) == TABLES
    assert set(COLUMNS) == set(TABLES)
    assert [heading(number) for number in TABLES[-4:]] == ["Table 5", "Section 5.3", "Table 6", "Appendix A.7"]
    with pytest.raises(ColdbenchError, match=r"unknown table '9'.*1, 2, 3, 4, 5, 5\.3, 6, A\.7"):
        table_view("9", (), PAPER)


def test_csv_twin_round_trips() -> None:
    for view in [table_view(number, synthetic() + generated(), PAPER) for number in TABLES]:
        lines = list(csv.DictReader(io.StringIO(table_csv(view))))
        cells = [cell for row in view.rows + view.extra for cell in row.cells]
        assert len(lines) == len(cells)
        for line, cell in zip(lines, cells, strict=True):
            assert (line["verdict"], line["reason"]) == (cell.verdict.kind, cell.verdict.reason)
            assert (line["set"], line["method"]) == (cell.column.set, cell.column.method)
            assert line["reference"] == (cell.ours.reference if cell.ours else "")
            assert line["paper"] == (cell.paper.printed if cell.paper else "")
            assert (float(line["value"]) if line["value"] else None) == (cell.ours.value if cell.ours else None)


# --- scores


def test_scores_round_trip_through_parquet(tmp_path: Path) -> None:
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


def test_bad_scores_are_told_in_one_line(tmp_path: Path) -> None:
    frame = pd.DataFrame([vars(s) for s in synthetic()])
    with pytest.raises(ColdbenchError, match="lack the column value"):
        scores_of(frame.drop(columns="value"))
    with pytest.raises(ColdbenchError, match="lack the columns set, singular"):
        scores_of(frame.drop(columns=["set", "singular"]))
    with pytest.raises(ColdbenchError, match="2 values for test degraded"):
        scores_of(pd.concat([frame, frame[:1]]))
    with pytest.raises(ColdbenchError, match="n of the wrong kind: 'many'"):
        scores_of(frame.assign(n="many"))
    (tmp_path / "torn.parquet").write_bytes(b"PAR1")
    with pytest.raises(ColdbenchError, match="not a readable scores file"):
        load_scores([tmp_path / "torn.parquet"])
    with pytest.raises(ColdbenchError, match="does not exist"):
        load_scores([tmp_path / "none.parquet"])


# --- pages


def test_pages_never_call_our_distance_fid(views: list[TableView]) -> None:
    """FID is the paper's number, or the name of a line in which nothing of ours stands."""
    html = index_page(views, synthetic())
    assert "FD-Gabor" in html
    told = [
        " ".join(text.split()) for text in re.findall(r"\S+\s+FID\b.{0,40}", re.sub(r"<[^>]+>", " ", html), re.DOTALL)
    ]
    ours = [text for text in told if not re.match(r"\S+ FID less is better", text)]
    assert ours
    assert all(re.match(r"paper FID \d|here, FID in the paper", text) for text in ours), ours
    lines = [line for view in views for row in view.rows + view.extra for line in row.lines]
    empty = [name for name, _, cells in lines if name == "FID" and not any(cell.ours for cell in cells)]
    assert len(told) - len(ours) == len(empty) == [name for name, *_ in lines].count("FID")
    assert "3.25" in html  # our distance, by its own name


def test_pages_say_what_a_fid_depends_on() -> None:
    """Protocol, reference split and n stand beside the number, and a run without it says so."""
    scores = synthetic() + generated()
    html = index_page([table_view(number, scores, PAPER) for number in TABLES], scores)
    assert "FID (legacy_pytorch, train, n = 6,400)" in html
    assert "6,400 images" in html


def test_page_escapes_names_and_survives_odd_values() -> None:
    evil = '<script>alert("x")</script>'
    scores = (
        score(run=evil, rationale=evil, title=evil, provenance=json.dumps({evil: evil})),
        score(run=evil, rationale=evil, title=evil, metric="ssim", value=math.nan, low=math.nan, high=math.nan),
        score(
            run=evil, rationale=evil, title=evil, method="tacos", metric="frechet_gabor", reference="test", value=1e300
        ),
    )
    html = index_page([table_view("1", scores, PAPER)], scores)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "1.00e+300" in html
    assert "not a number" in html


def test_a_page_shows_the_runs_behind_its_numbers() -> None:
    """Also appendix A.7, whose numbers come from the models of Table 5."""
    for number, run in (("5", "CelebA-blur"), ("5.3", "CelebA-animorphosis"), ("A.7", "CelebA-blur")):
        html = table_page(table_view(number, generated(), PAPER), generated())
        assert "No results yet" not in html, number
        assert f'<th scope="row">{run}</th>' in html, number


def test_page_of_nothing_says_so() -> None:
    html = table_page(table_view("2", (), PAPER), ())
    assert "No results yet" in html
    assert "no experiment for MNIST" in html.replace("No experiment", "no experiment")


@pytest.mark.parametrize(
    ("scores", "title", "says"),
    [
        ((score(budget="smoke", embedded=True, row=""),), "Smoke run", "Nothing here is a replication"),
        (synthetic(), "Laptop run", "Degraded columns on the paper's data"),
        ((score(embedded=True, row=""),), "Embedded images", "Nothing here"),
        ((score(budget="mine"),), "Mine run", "(mine budget)"),
        ((score(budget="short"),), "Short run", "trained for 20,000 updates"),
        ((score(budget="gpu-hour"),), "GPU-hour run", "trained for 20,000 updates"),
        ((score(budget="gpu-hour"), score(method="tacos")), "GPU-hour run, in part", "the other rows are judged"),
    ],
)
def test_banner_warns(scores: Scores, title: str, says: str) -> None:
    warning = banner(scores)
    assert warning
    assert warning.title == title
    assert says in warning.text
    assert warning.watermark in table_page(table_view("1", scores, PAPER), scores)


def test_no_banner_for_a_replication() -> None:
    assert banner((score(),)) is None
    assert 'class="banner"' not in table_page(table_view("1", (score(),), PAPER), (score(),))


def test_run_facts_merge_provenance() -> None:
    (run,) = runs_of((score(), score(metric="ssim", provenance='{"device": "cuda", "seconds": 2}')))
    assert (run.fact("device"), run.fact("seconds"), run.fact("absent")) == ("cpu; cuda", "2", "–")
    with pytest.raises(ColdbenchError, match="not JSON"):
        runs_of((score(provenance="{"),))


def test_an_undefined_name_in_a_template_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        render("index.html", views=[], banner=None, runs=[], commands=())


# --- ablations


def test_ablations_stand_beside_the_ordinary_samples_of_their_model() -> None:
    origin = {"provenance": json.dumps({"model": "abc"}), "method": "tacos"}
    ordinary = [score(**origin, metric=metric, value=value) for metric, value in (("ssim", 0.71), ("rmse", 0.15))]
    stranger = score(**{**origin, "provenance": json.dumps({"model": "xyz"})}, run="E09-fitted", metric="ssim")
    changed = [
        score(**origin, run="A4-fitted", title="Fewer steps", table="", row="", set=part, metric="ssim", value=value)
        for part, value in (("every_10", 0.5), ("every_2", 0.7))
    ]
    (found,) = ablations((*ordinary, stranger, *changed))
    assert [(line.label, line.ordinary) for line in found.lines] == [
        ("E01-fitted, as it is", True),
        ("every 2", False),
        ("every 10", False),
    ]
    tacos = list(METHODS).index("tacos")
    assert [line.cells[tacos][0][0] for line in found.lines] == ["0.7100", "0.7000", "0.5000"]
    assert found.lines[1].cells[tacos][1] == ("", "")
    html = index_page([], (*ordinary, *changed))
    assert "Beyond the paper" in html
    assert "Every 10" in html
    assert "Beyond the paper" not in index_page([], tuple(ordinary))
