"""The comparison of methods: tasks, baselines, ranks, what a method knows, and what is missing."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cases import EVIL, NOWHERE, generated, hostile, score, synthetic
from typer.testing import CliRunner

from coldbench.cli import app
from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.scores import read_scores, write_scores
from coldbench.evaluation.tables import read_facts, read_table, write_table
from coldbench.report.entries import load_values
from coldbench.report.exports import table_csv
from coldbench.report.methods import Task, tasks
from coldbench.report.methods_exports import COLUMNS, frame_of, methods_json, methods_tex
from coldbench.report.methods_page import quality_against_nfe, write
from coldbench.report.navigation import ReportFolder

PLAIN = {"severity": None, "assumed_severity": None, "known": "drawn", "stride": 1, "released_shift": False}
BLUR = {"name": "blur", "T": 20, "kernel": 11}
SETS = {"test": PLAIN}


def ssims(seed: int, shift: float = 0.0, n: int = 40) -> np.ndarray:
    """Values whose spread over images is that of `seed`, and is alike for all methods."""
    images, own = np.random.default_rng(0).normal(0, 0.1, n), np.random.default_rng(seed).normal(0, 0.02, n)
    return (0.6 + images + own + shift).astype(np.float32)


def make_run(
    folder: Path,
    methods: dict[tuple[str, str], np.ndarray],
    run: str = "E01-fitted",
    data: str = "d1",
    sets: dict[str, Any] | None = None,
    images: bool = True,
    known: dict[str, str] | None = None,
    nfe: dict[str, float] | None = None,
    **changes: Any,
) -> Path:
    """The scores of a run with these SSIM by set and method, and beside them its per-image values."""
    facts = {"data": data, "degradation": BLUR, "size": 32, "model": "m1", **changes.pop("facts", {})}
    scores, frames = [], []
    for (part, method), values in methods.items():
        more = {"known": (known or {}).get(part, "severity"), "nfe": (nfe or {}).get(method, math.nan)}
        common = {
            "run": run,
            "set": part,
            "method": method,
            "n": len(values),
            "provenance": json.dumps(facts),
            **changes,
        }
        common |= {} if method == "degraded" else more
        errors = (1 - values) ** 2
        metrics = {"ssim": (values.mean(), "higher"), "rmse": (np.sqrt(errors.mean()), "lower")}
        for metric, (value, direction) in {**metrics, "mine": metrics["ssim"]}.items():
            bounds = {"low": float(value) - 0.01, "high": float(value) + 0.01}
            scores.append(score(**common, metric=metric, value=float(value), direction=direction, **bounds))
        columns = {"ssim": values, "squared_error": errors, "mine": values}
        frames.append(pd.DataFrame({"set": part, "method": method, "image": range(len(values)), **columns}))
    place = folder / str(changes.get("budget", "paper")) / run
    place.mkdir(parents=True)
    write_scores(scores, place / "scores.parquet", {})
    if images:
        about = {"sets": SETS if sets is None else sets, "averages": {"mine": "mean"}}
        write_table(pd.concat(frames), place / "images.parquet", {}, facts=about)
    return place / "scores.parquet"


def found(*files: Path, baseline: str = "tacos") -> list[Task]:
    return tasks(read_scores(files), load_values(files), baseline)


def names(task: Task) -> list[str]:
    return [row.entry.score.method for row in task.rows]


METHODS = {
    ("test", "degraded"): ssims(1, -0.4),
    ("test", "direct"): ssims(2, -0.1),
    ("test", "tacos"): ssims(3),
    ("test", "twin"): ssims(4),
    ("test", "momentum"): ssims(5, 0.1),
}


def test_methods_are_ranked_and_differences_decided(tmp_path: Path) -> None:
    (task,) = found(make_run(tmp_path, METHODS))
    assert names(task)[0] == "momentum"
    assert names(task)[-2:] == ["direct", "degraded"]
    places = {row.entry.score.method: row.place for row in task.rows}
    assert (places["momentum"], places["tacos"], places["twin"], places["direct"]) == ("1", "2=", "2=", "4")
    outcomes = {row.entry.score.method: row.differences["ssim"].outcome for row in task.rows if row.differences}
    assert outcomes == {"momentum": "better", "twin": "undecided", "direct": "worse", "degraded": "worse"}
    rmse = {row.entry.score.method: row.differences["rmse"].outcome for row in task.rows if row.differences}
    assert rmse == outcomes  # the lower, the better
    assert (task.n, task.comparisons) == (40, 4)
    assert task.baseline
    assert not task.baseline.differences


def test_trainings_of_one_configuration_are_one_row(tmp_path: Path) -> None:
    """Decided over trainings: 3 models whose spread is larger than the difference decide nothing."""
    files = []
    for seed, shift in enumerate((-0.05, 0.0, 0.06)):
        methods = {
            ("test", "degraded"): ssims(1, -0.4),
            ("test", "direct"): ssims(10 + seed),
            ("test", "tacos"): ssims(20 + seed, shift),
        }
        name = "E01-fitted" + (f"-s{seed}" if seed else "")
        run = {"run": name, "seed": seed, "experiment": "E01", "facts": {"model": f"m{seed}"}}
        files.append(make_run(tmp_path, methods, **run))
    (task,) = found(*files)
    assert sorted(names(task)) == ["degraded", "direct", "tacos"]
    rows = {row.entry.score.method: row for row in task.rows}
    assert rows["direct"].entry.trainings == 3
    assert "mean of 3 trainings" in rows["direct"].note
    assert set(rows["tacos"].entry.also) == {"E01-fitted-s1", "E01-fitted-s2"}
    assert rows["direct"].differences["ssim"].outcome == "undecided"
    assert rows["degraded"].differences["ssim"].outcome == "worse"
    (one,) = found(files[0])
    assert {row.entry.score.method: row for row in one.rows}["direct"].differences["ssim"].outcome == "better"


def test_method_of_one_training_is_compared_with_its_own_model(tmp_path: Path) -> None:
    """The three models differ by more than the methods do, so only the same model says which method is better."""
    files = []
    for seed, shift in enumerate((-0.2, 0.1, 0.2)):
        name = "E01-fitted" + (f"-s{seed}" if seed else "")
        run = {"run": name, "seed": seed, "experiment": "E01", "facts": {"model": f"m{seed}"}}
        methods = {("test", way): ssims(10 * k + seed, shift) for k, way in enumerate(("tacos", "direct"))}
        files.append(make_run(tmp_path, methods, **run))
    mine = {("test", "mine"): ssims(7, -0.1), ("test", "tacos"): ssims(0, -0.2)}  # of the first model
    files.append(make_run(tmp_path, mine, run="M01-own", experiment="M01", facts={"model": "m0"}))
    (task,) = found(*files)
    rows = {row.entry.score.method: row for row in task.rows}
    assert (rows["tacos"].entry.trainings, rows["mine"].entry.trainings) == (3, 1)
    assert rows["mine"].note == "seed 0"
    difference = rows["mine"].differences["ssim"]
    assert difference.outcome == "better"
    assert difference.estimate.value == pytest.approx(float((ssims(7, -0.1) - ssims(0, -0.2)).mean()), abs=1e-6)
    assert rows["mine"].estimates["ssim"].value < rows["tacos"].estimates["ssim"].value


def test_any_method_is_the_baseline_on_request(tmp_path: Path) -> None:
    file = make_run(tmp_path, METHODS)
    (task,) = found(file, baseline="momentum")
    assert task.baseline
    assert task.baseline.entry.score.method == "momentum"
    assert {row.differences["ssim"].outcome for row in task.rows if row.differences} == {"worse"}
    (other,) = found(file, baseline="absent")
    assert other.baseline
    assert other.baseline.entry.score.method == "tacos"


def test_runs_on_the_same_images_and_degradation_share_a_task(tmp_path: Path) -> None:
    one = make_run(tmp_path, {("test", "tacos"): ssims(3, n=40)}, run="E01-fitted")
    two = make_run(tmp_path, {("test", "mine"): ssims(5, 0.2, n=40)[:30]}, run="X1-own", facts={"model": "m2"})
    (task,) = found(one, two)
    assert names(task) == ["mine", "tacos"]
    assert task.n == 30  # the images that both restored
    assert [row.estimates["ssim"].n for row in task.rows] == [30, 30]
    assert task.rows[1].estimates["ssim"].value == pytest.approx(ssims(3, n=40)[:30].mean())
    assert task.rows[0].differences["ssim"].outcome == "better"
    for facts in ({"data": "d2"}, {"degradation": {**BLUR, "T": 40}}, {"size": 64}):
        other = make_run(tmp_path / str(facts), {("test", "mine"): ssims(5, 0.2)}, run="X1-own", facts=facts)
        assert found(one, other) == []


def test_images_of_another_severity_are_another_task(tmp_path: Path) -> None:
    sets = {"test": PLAIN, "half": {**PLAIN, "severity": 10}, "wrong": {**PLAIN, "severity": 10, "assumed_severity": 5}}
    methods = {
        (part, method): ssims(k, 0.1 * (part != "test"))
        for k, (part, method) in enumerate(
            [("test", "tacos"), ("test", "direct"), ("half", "tacos"), ("half", "direct"), ("wrong", "tacos")]
        )
    }
    full, half = sorted(found(make_run(tmp_path, methods, sets=sets)), key=lambda task: task.severity or 0)
    assert {row.entry.score.set for row in full.rows} == {"test"}
    assert {row.entry.score.set for row in half.rows} == {"half", "wrong"}
    assert half.baseline
    assert half.baseline.entry.score.set == "half"  # the one that assumes the truth
    (wrong,) = (row for row in half.rows if row.entry.score.set == "wrong")
    assert (wrong.note, wrong.entry.known) == ("assumes severity 5", "a wrong severity")


def test_severity_follows_from_the_degraded_images_where_no_file_states_it(tmp_path: Path) -> None:
    ways = ("degraded", "direct", "tacos")
    methods = {(part, way): ssims(k, 0.1 * k) for k, part in enumerate(("test", "half")) for way in ways}
    split = found(make_run(tmp_path, methods, images=False))
    assert sorted(tuple({row.entry.score.set for row in task.rows}) for task in split) == [("half",), ("test",)]


def test_own_draw_stands_beside_another_one(tmp_path: Path) -> None:
    methods = {
        ("test", "tacos"): ssims(1, 0.3), ("test", "direct"): ssims(2), ("test_redrawn", "tacos"): ssims(3, -0.1),
    }  # fmt: skip
    sets = {"test": PLAIN, "test_redrawn": {**PLAIN, "known": "redrawn"}}
    (task,) = found(make_run(tmp_path, methods, sets=sets, known={"test": "drawn", "test_redrawn": "redrawn"}))
    pair = next(pair for pair in task.pairs if pair.known.entry.score.method == "tacos")
    assert pair.known.entry.score.set == "test"
    assert pair.other.entry.score.set == "test_redrawn"
    assert pair.gains["ssim"].low > 0.3
    assert task.baseline
    assert task.baseline.entry.score.known == "drawn"
    write([task], "tacos", (), ReportFolder(tmp_path / "report"))
    html = (tmp_path / "report/methods.html").read_text()
    assert "the image's own draw" in html.replace("&#39;", "'")
    assert "another draw" in html


def test_repeated_images_are_one_entry(tmp_path: Path) -> None:
    """Runs that share a model have the very same direct reconstructions."""
    one = make_run(tmp_path, {("test", "tacos"): ssims(1), ("test", "direct"): ssims(2)})
    strides = {("every_2", "tacos"): ssims(3), ("every_2", "direct"): ssims(2)}
    two = make_run(tmp_path, strides, run="A4-fitted", sets={"every_2": {**PLAIN, "stride": 2}})
    (task,) = found(one, two)
    assert sorted(names(task)) == ["direct", "tacos", "tacos"]
    (direct,) = (row.entry for row in task.rows if row.entry.score.method == "direct")
    assert (direct.score.run, direct.also) == ("E01-fitted", ("A4-fitted",))
    assert {row.note for row in task.rows} == {"", "2 severities a step"}


def test_scores_alone_are_shown_and_said(tmp_path: Path) -> None:
    file = make_run(tmp_path, METHODS, images=False)
    (task,) = found(file)
    assert task.baseline is None
    assert not any(row.differences for row in task.rows)
    assert names(task)[0] == "momentum"
    assert task.without_values == ("E01-fitted",)
    write([task], "tacos", read_scores([file]), ReportFolder(tmp_path / "report"))
    assert "E01-fitted. Their folders hold no" in (tmp_path / "report/methods.html").read_text()
    assert quality_against_nfe(task).panels == ()


def test_values_that_were_not_made_with_the_scores_are_refused(tmp_path: Path) -> None:
    file, other = make_run(tmp_path, METHODS), tmp_path / "other.parquet"
    values = file.with_name("images.parquet")
    write_table(read_table(values), other, {"samples": "others"}, facts=read_facts(values))
    other.replace(values)
    with pytest.raises(ColdbenchError, match=r"images.parquet was not made with .*scores.parquet; delete it"):
        found(file)


def test_quality_is_drawn_against_evaluations(tmp_path: Path) -> None:
    (task,) = found(
        make_run(tmp_path, METHODS, nfe={"direct": 1, "tacos": 20, "twin": 20, "momentum": 40}, budget="smoke")
    )
    chart = quality_against_nfe(task)
    assert chart.log
    assert [axes.axis for axes in chart.panels] == ["SSIM", "RMSE", "mine"]
    points = {line.method: [point.x for point in line.points] for line in chart.panels[0].lines}
    assert points == {"momentum": [40], "tacos": [20], "twin": [20], "direct": [1]}
    assert chart.panels[0].levels[0][0] == "Degraded"
    folder = ReportFolder(tmp_path / "report")
    write([task], "tacos", (), folder)
    svg = (folder.path / f"images/plots/{chart.panels[0].name}.svg").read_text()
    assert svg.count("<svg ") == 1
    assert "Smoke budget: not a replication" in (folder.path / "methods.html").read_text()


def test_exports_hold_every_value(tmp_path: Path) -> None:
    file = make_run(tmp_path, METHODS, title=EVIL, dataset_title=EVIL)
    (task,) = found(file)
    frame = frame_of([task])
    assert len(frame) == 5 * 3
    assert list(frame.columns) == list(COLUMNS)
    assert frame.groupby("metric").difference.count().to_dict() == {"ssim": 4, "rmse": 4, "mine": 4}
    assert table_csv(frame).count("\n") == 16
    value = json.loads(methods_json([task], "tacos", read_scores([file]), {}))
    assert len(value["comparisons"]) == 15
    assert value["runs"][0]["provenance"]["data"] == "d1"
    tex = methods_tex([task])
    assert tex.isascii()
    assert tex.count("{") - tex.count(r"\{") == tex.count("}") - tex.count(r"\}")
    columns = {line.count("&") for line in tex.split("\n") if line.endswith(r"\\") and "multicolumn" not in line}
    assert columns == {4 + 6}


def test_odd_scores_make_a_page(tmp_path: Path) -> None:
    for scores in ((), hostile(), synthetic(), generated()):
        listed = tasks(scores, {})
        write(listed, "tacos", scores, ReportFolder(tmp_path))
        html = (tmp_path / "methods.html").read_text()
        assert "<b>50" not in html
        assert methods_tex(listed)
        json.loads(methods_json(listed, "tacos", scores, {}))


def test_diverged_sampler_is_last_and_undecided(tmp_path: Path) -> None:
    broken = ssims(4)
    broken[3] = np.nan
    (task,) = found(make_run(tmp_path, {**METHODS, ("test", "twin"): broken}))
    row = task.rows[-1]
    assert (row.entry.score.method, row.rank, row.differences["ssim"].outcome) == ("twin", 0, "undecided")
    assert frame_of([task]).p.isna().any()
    write([task], "tacos", (), ReportFolder(tmp_path / "report"))


def test_page_states_its_files_and_its_baseline(tmp_path: Path) -> None:
    from coldbench.planning.products import page

    file, out = make_run(tmp_path / "results", METHODS), tmp_path / "reports/methods.html"
    out.parent.mkdir()
    result = CliRunner().invoke(app, ["render-methods", str(file), "--out", str(out), "--baseline", "direct"])
    assert not result.exception, result.output
    files = [file, file.with_name("images.parquet")]
    written = [out, *(out.with_suffix(end) for end in (".csv", ".tex", ".json"))]
    assert page(written, files, [], "direct").status == "current"
    assert page(written, files, [], "tacos").status == "outdated"
    assert page(written, files[:1], [], "direct").status == "outdated"
    out.with_suffix(".csv").write_text("changed")
    assert page(written, files, [], "direct").status == "outdated"


def test_page_without_a_folder_links_nothing() -> None:
    values = {"tasks": [], "charts": {}, "baseline": "TACoS", "without": []}
    html = NOWHERE.render("methods.html", "methods.html", **values, p_value=str, seconds_each=str)
    assert "No task" in html
