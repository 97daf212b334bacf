"""Published results: small, whole, and enough for a report."""

import json
import re
import shutil
from pathlib import Path

import pytest
from checkout import ROOT, Checkout

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256
from coldbench.report.inputs import load_scores
from coldbench.report.publish import MARK, publish

PUBLISHED = sorted(path.parent for path in (ROOT / "results/published").glob(f"*/{MARK}"))
MACHINE = re.compile(r"""(?:^|[\s"'=,])/[\w.-]+/[\w.-]""")  # a path from the root of somebody's disk
VIEWS = {"all", "calibration", "discrepancies", "gallery", "report", "table"}


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    """Finished runs with all that a run leaves, weights and images as well."""
    (first, *_) = PUBLISHED
    shutil.copytree(first, tmp_path / "results")
    found = sorted(path.parent for path in (tmp_path / "results").glob("*/*/scores.parquet"))
    for run in found:
        (run / "model.safetensors").write_bytes(b"weights")
        (run / "shards").mkdir()
        (run / "shards/0.npy").write_bytes(b"images")
    return found


def files(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256(path) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("folder", PUBLISHED, ids=lambda path: path.name)
def test_what_is_published_is_whole_and_small_and_names_no_machine(folder: Path) -> None:
    found = files(folder)
    told = json.loads((folder / MARK).read_text())["files"]
    assert told == {name: digest for name, digest in found.items() if name != MARK}
    assert {Path(name).suffix for name in found} <= {".parquet", ".csv", ".json", ".jsonl", ".tsv", ".png"}
    assert sum((folder / name).stat().st_size for name in found) < 4e6
    texts = [(folder / name).read_text() for name in found if not name.endswith((".png", ".parquet"))]
    texts += [score.provenance for score in load_scores([folder / "scores.parquet"])]
    assert all(texts)
    assert MACHINE.search('{"data": "/a/b"}')
    assert not [found for text in texts for found in MACHINE.findall(text)]


def test_publishing_takes_what_a_report_shows_and_nothing_else(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "published/x"
    names = publish(runs, tmp_path / "results/calibration.parquet", out)
    assert names == [run.name for run in runs]
    first, again = files(PUBLISHED[0]), files(out)
    tables = {"scores.parquet", MARK}  # parquet files say which writer made them
    assert {k: v for k, v in again.items() if k not in tables} == {k: v for k, v in first.items() if k not in tables}

    publish(runs[:1], None, out)  # what was there is replaced
    assert {path.name for path in out.glob("*/*") if path.is_dir()} == {runs[0].name}
    assert not (out / "calibration.parquet").exists()
    assert [path.name for path in out.parent.iterdir()] == ["x"]


def test_nothing_is_lost_by_publishing(runs: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "published"
    publish(runs, None, out)
    before = files(out)
    (runs[-1] / "figures.json").unlink()
    with pytest.raises(
        ColdbenchError, match=r"is not finished: it has no figures.json; `snakemake .*figures.json` makes"
    ):
        publish(runs, None, out)
    assert files(out) == before
    with pytest.raises(ColdbenchError, match="holds other files than published results"):
        publish(runs[:1], None, tmp_path / "results" / runs[0].parent.name)
    assert (runs[0] / "model.safetensors").exists()
    with pytest.raises(ColdbenchError, match="name the runs to publish"):
        publish([], None, out)
    with pytest.raises(ColdbenchError, match=r"nope.parquet does not exist; `coldbench calibrate` makes it"):
        publish(runs[:1], tmp_path / "nope.parquet", out)
    (tmp_path / "file").touch()
    with pytest.raises(ColdbenchError, match="is a file; name a folder"):
        publish(runs[:1], None, tmp_path / "file")
    assert files(out) == before
    (out / "notes").mkdir()
    (out / "notes/mine.md").write_text("mine")
    with pytest.raises(ColdbenchError, match=r"notes/mine.md is no published result"):
        publish(runs[:1], None, out)
    assert (out / "notes/mine.md").read_text() == "mine"


def test_a_run_may_be_named_from_where_it_lies(
    runs: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(runs[0].parent)
    publish([Path(runs[0].name)], None, tmp_path / "out")
    assert (tmp_path / "out" / runs[0].parent.name / runs[0].name / "scores.parquet").exists()


def test_a_report_is_rendered_from_published_results_alone(tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    shutil.copytree(PUBLISHED[0], tmp_path / "shown")
    command = ("--cores", "2", "--config", "results=shown", "reports=pages")
    plan = checkout.snakemake("-n", *command)
    assert plan.plan.keys() == VIEWS, plan.end
    ended = checkout.snakemake(*command)
    assert ended.status == 0, ended.end
    pages = {path.name for path in (tmp_path / "pages").rglob("*.html")}
    runs = {path.parent.name for path in PUBLISHED[0].glob("*/*/scores.parquet")}
    assert {"index.html", "calibration.html", "table1.html", "figures.html", *(f"{run}.html" for run in runs)} <= pages
    assert not {path.name for path in tmp_path.iterdir()} & {"results", "data", "reports"}
    assert "Nothing to be done" in checkout.snakemake(*command).output
    wrong = checkout.snakemake("results/laptop/E01-fitted/model.safetensors", "-n", *command)
    assert wrong.status != 0
    assert wrong.told[0].startswith("coldbench: error: unknown target"), wrong.end
