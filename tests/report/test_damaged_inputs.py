"""Files of others: names and paths in them stay in their place, damage ends in one line, a full disk leaves no part."""

from __future__ import annotations

import contextlib
import copy
import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from cases import FIGURES, NOWHERE, PAPER, ROOT, SCORE, run_figures, score
from hypothesis import given, settings
from hypothesis import strategies as st

from coldbench.core.checksums import write_sealed
from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.scores import read_scores
from coldbench.evaluation.tables import write_table
from coldbench.report import calibration, cells, claims, discrepancies, figures, run_pages, sprites
from coldbench.report import figure_list as lists
from coldbench.report import run_figures as run_drawing
from coldbench.report.calibration import load_calibration
from coldbench.report.pages import index_page
from coldbench.report.paper import load_paper

RUN = ROOT / "results/published/laptop-cpu/laptop/E01-fitted"
RECORD = json.loads((RUN / "figures.json").read_text("utf-8"))
CALIBRATION = pd.read_parquet(ROOT / "results/published/laptop-cpu/calibration.parquet")
WORKFLOW = ROOT / "workflow"


def refused(culprit: str, function: Callable[..., Any], *arguments: Any) -> None:
    """The call ends in a ColdbenchError of one short line that names the culprit."""
    with pytest.raises(ColdbenchError, match=culprit) as raised:
        function(*arguments)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 400  # with the long path of the temporary folder


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run in a folder of results."""
    (tmp_path / "results/laptop/secret.png").parent.mkdir(parents=True)
    (tmp_path / "results/laptop/secret.png").write_text("secret")
    return Path(shutil.copytree(RUN, tmp_path / "results/laptop/E01-fitted"))


def with_value(keys: tuple[str | int, ...], value: Any) -> dict[str, Any]:
    """The list of figures with another value, or without the key for None."""
    record: Any = copy.deepcopy(RECORD)
    place = record
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    return dict(record)


PATH, COLUMNS = ("sprites", 0, "path"), ("sprites", 1, "columns")


@pytest.mark.parametrize(
    ("keys", "value", "culprit"),
    [
        *[(("metadata", "run"), name, "metadata.run") for name in ("../../../X", "/X", "a\0b", "<script>", "a" * 300)],
        (("metadata", "budget"), "..", "metadata.budget"),
        (("metadata", "name"), "a/b", "metadata.name"),
        *[(PATH, name, "is no file in") for name in ("../secret.png", "/etc/passwd", "a\0b", "", "x" * 5000)],
        (PATH, "figures/../figures/forward.png", "is no file in"),
        (PATH, "figures", "is no file in"),
        (PATH, ["figures/forward.png"], r"sprites.0.path"),
        (PATH, "figures/forward.png", "is damaged"),  # another sprite
        (PATH, "model.jsonl", "is damaged"),
        (COLUMNS, [], "sprites.1.columns"),
        (COLUMNS, ["a"] * 21, "sprites.1"),
        (COLUMNS, 3, "sprites.1.columns"),
        (("sprites", 1, "method"), "a/b", "sprites.1: 'a/b' is no name of a method"),
        (("sprites", 1, "method"), "", "sprites.1"),
        (("sprites", 0, "columns", 0), "other", "sprites.0"),
        (("sprites", 0, "kind"), "odd", "sprites.0.kind"),
        (("sprites", 0, "rows"), 10**9, "sprites.0"),
        (("sprites", 0, "tile"), 33, "sprites.0|pixels, not"),
        (("sprites", 0, "sha256"), "0" * 64, "is damaged"),
        (("sprites", 0, "sha256"), "x", "sprites.0.sha256"),
        (("sprites",), {"a": 1}, "sprites"),
        (("sets", "test", "start"), {"kind": "magic"}, "sets.test.start.kind"),
        (("sets",), {"../x": RECORD["sets"]["test"]}, "sets"),
        (("experiment", "degradation"), {"name": "blur"}, "no T"),
        (("experiment", "network"), [], "experiment.network"),
        (("training",), [[1]], "training"),
        (("training",), [[1, 2, 3, float("nan")]], "training"),
        (("distances",), [{"set": "test"}], "distances"),
        (("watermark",), "", "watermark"),
        (("metadata", "budget"), "paper", "watermark"),
        (("other",), 1, "other"),
    ],
)
def test_list_of_figures_is_checked_as_a_configuration_is(
    run: Path, keys: tuple[str | int, ...], value: Any, culprit: str
) -> None:
    write_sealed(run / "figures.json", with_value(keys, value))
    refused(culprit, lists.load, [run / "figures.json"])


@pytest.mark.parametrize("text", ["", "[]", "3", "null", '"a"', "{", "[" * 100_000, "{}"])
def test_other_json_is_no_list_of_figures(run: Path, text: str) -> None:
    (run / "figures.json").write_text(text)
    refused("figures.json", lists.load, [run / "figures.json"])


def test_link_out_of_the_folder_of_a_run_is_refused_and_a_linked_run_is_not(run: Path, tmp_path: Path) -> None:
    (tmp_path / "linked").symlink_to(run)
    assert lists.load([tmp_path / "linked/figures.json"])
    (run / "figures").rename(tmp_path / "elsewhere")
    (run / "figures").symlink_to(tmp_path / "elsewhere")
    refused("is no file in", lists.load, [run / "figures.json"])
    (run / "figures").unlink()
    (run / "figures").symlink_to("figures")
    refused("is no file in", lists.load, [run / "figures.json"])


@settings(max_examples=60, deadline=None)
@given(st.integers(0, (RUN / "figures/forward.png").stat().st_size - 1), st.sampled_from(["cut", "flip"]))
def test_damaged_sprite_is_refused(tmp_path_factory: pytest.TempPathFactory, place: int, damage: str) -> None:
    content = bytearray((RUN / "figures/forward.png").read_bytes())
    content[place] ^= 16
    path = tmp_path_factory.getbasetemp() / "damaged.png"
    path.write_bytes(content if damage == "flip" else content[:place])
    (sprite,) = (sprite for sprite in lists.load([RUN / "figures.json"])[0].sprites if sprite.kind == "forward")
    refused("damaged.png", sprites.check, sprite.model_copy(update={"path": path}))


def test_other_image_in_the_place_of_a_sprite_is_refused(run: Path) -> None:
    """A whole PNG of the same size."""
    naive, trajectory = (run / "figures" / f"test-{kind}.png" for kind in ("naive", "trajectory"))
    shutil.copy(naive, trajectory)
    refused("test-trajectory.png is damaged", lists.load, [run / "figures.json"])


@pytest.mark.parametrize("column", ["run", "budget", "set", "method", "protocol", "metric"])
@pytest.mark.parametrize("value", ["../../X", "/X", "<script>alert(1)</script>", "a\0b", "$\\foo$", "a" * 300, ""])
def test_names_in_scores_are_names(tmp_path: Path, column: str, value: str) -> None:
    write_table(pd.DataFrame([vars(SCORE) | {column: value}]), tmp_path / "scores.parquet", {})
    refused(f"wrong {column}", read_scores, [tmp_path / "scores.parquet"])


@pytest.mark.parametrize("text", ["[" * 100_000, "{", '{"seconds": 1' + "0" * 5000 + "}"])
def test_provenance_of_a_score_is_json(tmp_path: Path, text: str) -> None:
    refused("provenance is not JSON", index, score(provenance=text))


@pytest.mark.parametrize("text", ['{"seconds": 1' + "0" * 400 + "}", '{"seconds": NaN}', '{"seconds": [1]}', "[1]"])
def test_page_shows_odd_provenance(text: str) -> None:
    assert "\\ud800" in index(score(provenance='{"commit": "\\ud800"}')).encode("utf-8", "backslashreplace").decode()
    assert "<td>–</td>" in index(score(provenance=text))


def index(*scores: Any) -> str:
    return index_page(cells.cell_frame(scores, PAPER), scores, (), {}, NOWHERE)


@pytest.mark.parametrize("path", ["tables.csv", "claims.yaml", "discrepancies.yaml", "figures.yaml"])
@pytest.mark.parametrize("damage", ["utf-16", "list", "number", "empty", "nested", "folder", "absent", "date"])
def test_damaged_file_of_the_paper_is_refused(tmp_path: Path, path: str, damage: str) -> None:
    load = {"tables.csv": load_paper, "claims.yaml": claims.load, "figures.yaml": figures.load_plan}
    texts = {"list": "- 1\n", "number": "3", "empty": "", "nested": "[" * 300, "date": "2020-01-01: 2020-01-01"}
    file = tmp_path / path
    if damage == "folder":
        file.mkdir()
    elif damage == "utf-16":
        file.write_bytes((WORKFLOW / "paper" / path).read_text("utf-8").encode("utf-16"))
    elif damage in texts:
        file.write_text(texts[damage])
    refused(path, load.get(path, discrepancies.load), file)


PAPER_TEXT = (WORKFLOW / "paper/tables.csv").read_text("utf-8")
CLAIMS_TEXT = (WORKFLOW / "paper/claims.yaml").read_text("utf-8")
PANEL = "figures: {{1: {{title: a, caption: b, panels: [{{experiment: E01, {}}}]}}}}"


@pytest.mark.parametrize(
    ("load", "text", "culprit"),
    [
        (load_paper, PAPER_TEXT.replace(",ssim,", ",ssmi,", 1), "line 3: metric"),
        (load_paper, PAPER_TEXT.replace("misprint", "misprnt", 1), "line 3: erratum"),
        (load_paper, PAPER_TEXT + PAPER_TEXT.splitlines()[-1], "two cells"),
        (load_paper, PAPER_TEXT + "a,1", "line 120"),
        (load_paper, PAPER_TEXT.replace("swapped", "", 1), "is swapped with 0 cells"),
        (load_paper, PAPER_TEXT.replace("-fid,1,", "-fid,99,", 1), "unknown table .* '99'"),
        (load_paper, PAPER_TEXT.replace("438.59", "nan", 1), "line 2: value"),
        (load_paper, PAPER_TEXT.replace("43.86", "-1", 1), "line 2: tolerance"),
        (load_paper, PAPER_TEXT.replace(",tolerance", ",tolerence", 1), "tolerance is missing|tolerence"),
        (load_paper, PAPER_TEXT.replace("43.86,", "43.86,,,", 1), "line 2"),
        (load_paper, PAPER_TEXT.splitlines()[0], "no numbers"),
        (claims.load, CLAIMS_TEXT.replace('tables: ["5"]', 'tables: ["9"]', 1), "unknown table .* '9'"),
        (claims.load, CLAIMS_TEXT.replace("direct, ssim", "direct, ssmi", 1), "paper.2"),
        (claims.load, CLAIMS_TEXT.replace("threshold: 200", "threshold: .nan", 1), "threshold"),
        (claims.load, "metrics: 2020-01-01\nclaims: {}", "metrics"),
        (claims.load, "claims: {}", "metrics is missing"),
        (claims.load, "metrics: {}\nclaims: {a: {title: t, source: w, text: s, criteria: []}}", "claims.a.criteria"),
        (claims.load, "metrics: {m: [[ssim]]}\nclaims: {}", "metrics.m"),
        (claims.load, CLAIMS_TEXT.replace("metrics: ssim", "metrics: sim"), "ssim"),
        (claims.load, CLAIMS_TEXT.replace("expected: above", "expected: over"), "expected"),
        (claims.load, CLAIMS_TEXT.replace("method: tacos-direct", "method: tacos"), "nothing to compare with"),
        (figures.load_plan, "figures: {1: {title: a, caption: b, panels: []}}", "panels"),
        (figures.load_plan, PANEL.format("kind: row"), "kind"),
        (figures.load_plan, PANEL.format("kind: chain, stepz: [1]"), "stepz.*steps"),
        (figures.load_plan, PANEL.format("kind: results, methods: [original]"), "methods.0"),
        (figures.load_plan, PANEL.format("kind: results, methods: 3"), "methods"),
        (figures.load_plan, PANEL.format("kind: chain, steps: [a]"), "steps.0"),
        (discrepancies.load, "D1: 3", "D1"),
        (discrepancies.load, "D1: {question: q, paper: p, released: r, protocls: []}", "protocls"),
        (discrepancies.load, "E1: {question: q, paper: p, released: r}", "E1"),
        (discrepancies.load, "D1: {question: q, paper: p, released: r, scores: [{set: a}]}", "D1.scores.0"),
        *[(cells.load_planned, text, "file") for text in ("{", "[1]", "5", "null", "{}", "[" * 10**5, "[{}]")],
        (cells.load_planned, '[{"experiment": "E", "table": "1", "row": [], "skipped": ""}]', "rows.0.row"),
    ],
)
def test_wrong_value_in_a_file_of_the_paper_is_named(
    tmp_path: Path, load: Callable[[Path], Any], text: str, culprit: str
) -> None:
    (tmp_path / "file").write_text(text)
    refused(culprit, load, tmp_path / "file")


@pytest.mark.parametrize(
    ("change", "culprit"),
    [
        (lambda frame: frame.drop(columns="cell"), "cell is missing"),
        (lambda frame: frame.assign(value="x"), "value"),
        (lambda frame: frame.assign(metric="zzz"), "metric"),
        (lambda frame: frame.assign(table="../x"), "table"),
        (lambda frame: frame.assign(provenance="{"), "provenance"),
        (lambda frame: frame.assign(provenance="[1]"), "provenance"),
        (lambda frame: frame.assign(spread=-1.0), "spread"),
        (lambda frame: frame.assign(draws=0.5), "draws"),
        (lambda frame: frame.assign(rationale=[["a"]] * len(frame)), "rationale|damaged"),
        (lambda frame: frame[:1], "no pair of SSIM and RMSE"),
        (lambda frame: frame[["cell", "table", "row", "source"]], "no value"),
        (lambda frame: frame.drop(columns="value"), "no value"),
        (lambda frame: frame.assign(value=float("nan")), "no value"),
        (lambda frame: pd.DataFrame({"other": [1]}), "cell is missing"),
    ],
)
def test_damaged_calibration_is_refused(
    tmp_path: Path, change: Callable[[pd.DataFrame], pd.DataFrame], culprit: str
) -> None:
    write_table(change(CALIBRATION.copy()), tmp_path / "c.parquet", {})
    refused(culprit, lambda: calibration.rows(load_calibration(tmp_path / "c.parquet"), PAPER))


@pytest.mark.parametrize(
    "text",
    ["", "torn {", "[1]", "3", "{}", '{"step": "a", "loss": 1, "images_per_second": 1, "seconds": 1}',
     '{"step": 1, "loss": 1, "images_per_second": 1, "seconds": NaN}', "[" * 100_000, "\ud800"],
)  # fmt: skip
def test_damaged_training_log_is_refused(tmp_path: Path, text: str) -> None:
    good = '{"step": 1, "loss": NaN, "images_per_second": 1, "seconds": 2}\n'
    (tmp_path / "model.jsonl").write_bytes((good + text).encode("utf-16" if text == "\ud800" else "utf-8", "ignore"))
    if text:
        refused("is no training log", run_drawing._training, tmp_path / "model.jsonl")
    else:
        ((step, loss, _, seconds),) = run_drawing._training(tmp_path / "model.jsonl")
        assert (step, np.isnan(loss), seconds) == (1, True, 2)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Files of at most `size` bytes can be written, as on a disk without more space."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 500, 3_000])
def test_full_disk_leaves_no_part_of_a_file(tmp_path: Path, size: int) -> None:
    """A page or an image is complete or absent, and an older one stays."""
    runs = lists.load([RUN / "figures.json"])
    out, sheet = (
        tmp_path / "figures.html",
        sprites.Sheet("s", np.random.default_rng(0).random((9, 3, 32, 32)), "samples", ("",) * 3),
    )
    run_pages.write(figures.load_plan(FIGURES), (), runs, out)
    sprites.write(sheet, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with full_disk(size):
        refused("cannot write", run_pages.write, figures.load_plan(FIGURES), (score(run="E02"),), runs, out, "new")
        refused("cannot write", sprites.write, sheet, tmp_path, "text")
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_pages_of_other_runs_stay_and_odd_text_is_shown(tmp_path: Path) -> None:
    one, other = run_figures(tmp_path / "in", "E01"), run_figures(tmp_path / "in", "E04")
    run_pages.write(figures.load_plan(FIGURES), (), [one, other], tmp_path / "figures.html")
    page = (tmp_path / "runs/smoke/E04-a.html").read_text("utf-8")
    odd = one.model_copy(update={"watermark": "$\\foo$", "provenance": {"imported": "\ud800"}})
    run_pages.write(figures.load_plan(FIGURES), (), [odd], tmp_path / "figures.html")
    assert "\\ud800" in (tmp_path / "runs/smoke/E01-a.html").read_text("utf-8")
    assert (tmp_path / "runs/smoke/E04-a.html").read_text("utf-8") == page
