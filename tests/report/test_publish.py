"""Published results: small, complete, and enough for a report."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pandas as pd
import pytest
from checkout import ROOT, SHOW, Checkout, with_published_results
from typer.testing import CliRunner

from coldbench.cli import app
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256
from coldbench.evaluation.scores import read_scores
from coldbench.evaluation.tables import read_made_from, read_table, write_table
from coldbench.planning.products import page
from coldbench.report.layout import TABLES
from coldbench.report.publish import RECORD, publish

PUBLISHED = sorted(path.parent for path in (ROOT / "results/published").glob(f"*/{RECORD}"))
LOCAL_PATH = re.compile(r"""(?:^|[\s"'=,])/[\w.-]+/[\w.-]""")
ENDS = {"table1": (".html", ".csv", ".tex", ".json")}
RENDERED = {"all", "plan_rows"} | {
    f"render_{page}" for page in ("calibration", "discrepancies", "figures", "index", "methods", "table")
}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Finished runs with all files of a run, also weights and images."""
    shutil.copytree(PUBLISHED[0], tmp_path / "results")
    folders = sorted(path.parent for path in (tmp_path / "results").glob("*/*/scores.parquet"))
    for run in folders:
        (run / "model.safetensors").write_bytes(b"weights")
        (run / "shards").mkdir()
        (run / "shards/0.npy").write_bytes(b"images")
    return folders


def digests(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_published_results_are_complete_small_and_without_local_paths(folder: Path) -> None:
    files = digests(folder)
    recorded = json.loads((folder / RECORD).read_text())["files"]
    assert recorded == {name: digest for name, digest in files.items() if name != RECORD}
    assert {Path(name).suffix for name in files} <= {".parquet", ".csv", ".json", ".jsonl", ".tsv", ".png"}
    assert sum((folder / name).stat().st_size for name in files) < 8e6
    texts = [(folder / name).read_text() for name in files if not name.endswith((".png", ".parquet"))]
    texts += [score.provenance for score in read_scores([folder / "scores.parquet"])]
    assert all(texts)
    assert LOCAL_PATH.search('{"data": "/a/b"}')
    assert not [path for text in texts for path in LOCAL_PATH.findall(text)]


def test_publish_copies_what_a_report_needs_and_nothing_else(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "published/x"
    assert publish(runs, tmp_path / "results/calibration.parquet", out) == [run.name for run in runs]
    first, again = digests(PUBLISHED[0]), digests(out)
    tables = {"scores.parquet", RECORD}  # a parquet file names its writer
    assert {k: v for k, v in again.items() if k not in tables} == {k: v for k, v in first.items() if k not in tables}

    publish(runs[:1], None, out)  # replaces what it published before
    assert {path.name for path in out.glob("*/*") if path.is_dir()} == {runs[0].name}
    assert not (out / "calibration.parquet").exists()
    assert [path.name for path in out.parent.iterdir()] == ["x"]


def test_per_image_values_are_published_where_they_exist(runs: list[Path], tmp_path: Path) -> None:
    for run in runs[1:]:
        (run / "images.parquet").unlink(missing_ok=True)
    values = runs[0] / "images.parquet"
    write_table(pd.DataFrame({"ssim": [0.5]}), values, read_made_from(runs[0] / "scores.parquet"))
    publish(runs, None, tmp_path / "out")
    published = {path.parent.name: path.read_bytes() for path in (tmp_path / "out").rglob("images.parquet")}
    assert published == {runs[0].name: values.read_bytes()}
    before = digests(tmp_path / "out")
    write_table(pd.DataFrame({"ssim": [0.5]}), tmp_path / "other.parquet", {"samples": "others"})
    for content in (b"", (tmp_path / "other.parquet").read_bytes()):
        values.write_bytes(content)
        with pytest.raises(ColdbenchError, match=r"images\.parquet"):
            publish(runs, None, tmp_path / "out")
    assert digests(tmp_path / "out") == before


def test_models_on_the_way_are_published_without_per_image_values(runs: list[Path], tmp_path: Path) -> None:
    """Curves show their scores alone."""
    snapshots = [run for run in runs if run.name.endswith("steps")]
    for run in snapshots:
        shutil.copy(runs[0] / "images.parquet", run)
        values = read_table(run / "images.parquet")
        write_table(values, run / "images.parquet", read_made_from(run / "scores.parquet"))
    publish(runs, None, tmp_path / "out")
    with_values = {path.parent.name for path in (tmp_path / "out").rglob("images.parquet")}
    assert snapshots
    assert with_values == {run.name for run in runs} - {run.name for run in snapshots}


def test_refused_publication_changes_nothing(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "published"
    publish(runs, None, out)
    before = digests(out)
    (runs[-1] / "figures.json").unlink()
    (tmp_path / "file").touch()
    for chosen, calibration, target, culprit in (
        (runs, None, out, r"is not finished: it has no figures.json; `snakemake .*figures.json` makes"),
        (runs[:1], None, tmp_path / "results" / runs[0].parent.name, "holds other files than published results"),
        ([], None, out, "name the runs to publish"),
        (runs[:1], tmp_path / "nope.parquet", out, r"nope.parquet does not exist; `coldbench calibrate` writes it"),
        (runs[:1], None, tmp_path / "file", "is a file; name a folder"),
    ):
        with pytest.raises(ColdbenchError, match=culprit):
            publish(chosen, calibration, target)
        assert digests(out) == before
    assert (runs[0] / "model.safetensors").exists()
    (out / "notes").mkdir()
    (out / "notes/mine.md").write_text("mine")
    record = json.loads((out / RECORD).read_text())
    for mine in ("notes/mine.md", "scores.csv"):  # also a file of that name that was changed, or only named
        (out / mine).write_text("mine")
        with pytest.raises(ColdbenchError, match=rf"{mine} is no published result"):
            publish(runs[:1], None, out)
        assert (out / mine).read_text() == "mine"
        (out / RECORD).write_text(json.dumps({**record, "files": {**record["files"], "notes/mine.md": "0"}}))
        with pytest.raises(ColdbenchError, match=rf"{mine} is no published result"):
            publish(runs[:1], None, out)
        shutil.rmtree(out / "notes", ignore_errors=True)
    for text in ("[]", '{"files": 5}', "{"):
        (out / RECORD).write_text(text)
        with pytest.raises(ColdbenchError, match=RECORD):
            publish(runs[:1], None, out)


def test_publication_that_fails_midway_leaves_the_older_one_whole(runs: list[Path], tmp_path: Path) -> None:
    """A missing sprite is noticed when it is copied."""
    out = tmp_path / "published/x"
    publish(runs[:2], None, out)
    before = digests(out)
    next(runs[1].rglob("*.png")).unlink()
    with pytest.raises(ColdbenchError, match=r"\.png"):
        publish(runs[:2], None, out)
    assert digests(out) == before
    assert [path.name for path in out.parent.iterdir()] == ["x"]


def test_run_may_be_named_from_its_parent_folder(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs[0].parent)
    publish([Path(runs[0].name)], None, tmp_path / "out")
    assert (tmp_path / "out" / runs[0].parent.name / runs[0].name / "scores.parquet").exists()


def test_every_page_states_what_it_was_made_from(tmp_path: Path) -> None:
    """The hash of its files in the order in which the workflow lists them."""
    workflow, run = ROOT / "workflow", PUBLISHED[0] / "laptop/E01-fitted"
    paper, scores = workflow / "paper/tables.csv", run / "scores.parquet"
    questions, claims, plan = (workflow / "paper" / f"{name}.yaml" for name in ("discrepancies", "claims", "figures"))
    grid, ways = workflow / "config/paper.yaml", workflow / "config/calibration.yaml"
    figures, calibration = run / "figures.json", PUBLISHED[0] / "calibration.parquet"
    for name, command, files in (
        ("figures", [scores, figures, "--figures", plan, "--paper", paper], [scores, figures, plan, paper]),
        ("table1", ["1", scores, "--paper", paper], [scores, paper]),
        (
            "discrepancies",
            [questions, scores, "--paper", paper, "--grid", grid, "--interpretations", ways],
            [questions, scores, grid, paper, ways],
        ),
        ("calibration", [calibration, "--paper", paper], [calibration, paper]),
        ("index", [scores, "--paper", paper, "--claims", claims], [scores, paper, claims]),
    ):
        out = tmp_path / f"{name}.html"
        verb = f"render-{name.removesuffix('1')}"
        ended = CliRunner().invoke(app, list(map(str, [verb, *command, "--out", out])))
        assert ended.exit_code == 0, ended.output
        outputs = [out.with_suffix(end) for end in ENDS[name]] if name in ENDS else [out]
        assert page(outputs, files, []).status == "current"
        for export in outputs[1:]:
            good = export.read_bytes()
            for damaged in (b"", good[:-9], good.replace(b"1", b"2")):
                export.write_bytes(damaged)
                assert page(outputs, files, []).status == "outdated", export.suffix
            export.write_bytes(good)
        assert page(outputs, files[1:], []).status == "outdated"
        whole = out.read_bytes()
        out.write_bytes(whole[:-20])
        assert page(outputs, files, []).status == "outdated", "a page that is cut"
        out.write_bytes(whole)
    table = [tmp_path / f"table1{end}" for end in ENDS["table1"]]
    assert page(table, [scores, paper], []).status == "current", "the index keeps the statement"


def test_report_is_rendered_from_published_results_alone(published: Checkout) -> None:
    pages = {path.name for path in (published.folder / "pages").rglob("*.html")}
    runs = {path.parent.name for path in PUBLISHED[0].glob("*/*/scores.parquet")}
    assert {"index.html", "calibration.html", "table1.html", "figures.html", *(f"{run}.html" for run in runs)} <= pages
    table = (published.folder / "pages/table1.html").read_text()
    assert all(f'href="{page}"' in table for page in ("index.html", "tableA.7.html", "runs/laptop/E01-fitted.html"))
    assert not {path.name for path in published.folder.iterdir()} & {"results", "data", "reports"}
    assert "Nothing to be done" in published.snakemake(*SHOW).output  # new links are no reason to render again


def test_one_page_of_published_results_is_rendered_alone_and_once(tmp_path: Path) -> None:
    checkout = with_published_results(tmp_path)
    one = checkout.snakemake(*SHOW, "--", "pages/table1.html")
    assert one.status == 0, one.end
    assert {path.name for path in (tmp_path / "pages").glob("*.html")} == {"table1.html"}
    plan = checkout.snakemake("-n", *SHOW)
    assert plan.plan.keys() == RENDERED - {"plan_rows"}, plan.end
    assert plan.plan["render_table"] == len(TABLES) - 1
    wrong = checkout.snakemake("results/laptop/E01-fitted/model.safetensors", "-n", *SHOW)
    assert wrong.status != 0
    assert wrong.errors[0].startswith("coldbench: error: unknown target"), wrong.end
