"""A table as a page, as LaTeX and as JSON: every verdict, what is missing and why, odd values, hostile names."""

from __future__ import annotations

import json
import math
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cases import PAPER, SCORE, TABLES, generated, synthetic

from coldbench.core.errors import ColdbenchError
from coldbench.report import navigation, provenance
from coldbench.report.exports import table_json
from coldbench.report.inputs import Folders, Planned, Scores, folders_of, plan_of
from coldbench.report.latex import escaped, table_tex
from coldbench.report.navigation import bar, code, render, size_of
from coldbench.report.page import Site, hours, index_page, runs_of, table_page
from coldbench.report.tables import TableView, table_view
from coldbench.report.verdict import KINDS

EVIL = "<b>50 % & $x_1^2$ #~{\\\"'`[] é − ∮"
PLAN = (Planned("E01", "1", "MNIST", ""), Planned("E03", "1", "CelebA", "celeba needs 30,000 images"))


def score(**changes: Any) -> Any:
    return replace(SCORE, **changes)


def hostile() -> Scores:
    """Every verdict, an erratum, a huge value, no number, and a name that must be escaped everywhere."""
    names = {"run": EVIL, "rationale": EVIL, "title": EVIL, "protocol": EVIL, "dataset_title": EVIL}
    cifar = {"run": "E02", "row": "CIFAR-10"}
    return (
        score(**names),
        score(**names, metric="ssim", value=0.0145, low=0.01, high=0.02),
        score(**names, method="tacos", value=1e300, low=-1e300, high=1e301),
        score(**names, method="tacos", metric="ssim", value=math.nan, low=math.nan, high=math.nan),
        score(**names, method="direct", metric="frechet_gabor", reference="test", value=math.inf, low=0.1),
        score(**cifar, value=0.5),
        score(**cifar, method="naive", value=0.2, provenance=json.dumps({"loss": math.nan, "list": [math.inf, 1]})),
        score(run="extra", row="", dataset="digits", dataset_title=EVIL, embedded=True),
    )


def everything() -> Iterator[tuple[TableView, Scores]]:
    for scores in ((), hostile(), synthetic() + generated()):
        for number in TABLES:
            yield table_view(number, scores, PAPER, PLAN), scores


def test_the_hostile_table_has_every_verdict() -> None:
    kinds = {cell.verdict.kind for cell in table_view("1", hostile(), PAPER).judged}
    kinds |= {cell.verdict.kind for row in table_view("1", hostile(), PAPER).rows for cell in row.cells}
    assert kinds == set(KINDS)


# --- what is missing


def test_a_missing_row_says_why_and_what_makes_it() -> None:
    view = table_view("1", (), PAPER, PLAN)
    reasons = {gap.rows: (gap.cells, gap.reason) for gap in view.gaps}
    assert reasons == {
        "MNIST": (9, "E01 has not been run: `snakemake --config experiments=E01` makes it"),
        "CIFAR-10": (9, "no experiment for CIFAR-10 in this configuration"),
        "CelebA": (
            9,
            "E03 is left out: celeba needs 30,000 images. To make it: `snakemake --config experiments=E03`",
        ),
    }
    html = table_page(view, ())
    assert "What is missing" in html
    assert "<code>snakemake --config experiments=E03</code>" in html
    made = tuple(score(row=row, run=row, method=m, metric="ssim") for row in ("MNIST",) for m in ("tacos", "direct"))
    assert {gap.cells for gap in table_view("1", made, PAPER, PLAN).gaps if gap.rows == "CelebA"} == {9}
    assert not table_view("5.3", generated(), PAPER).gaps
    assert "What is missing" not in table_page(table_view("5.3", generated(), PAPER), generated())


def test_appendix_a7_waits_for_the_experiment_of_table_5() -> None:
    plan = (Planned("E15_celeba", "5", "CelebA, blur", ""),)
    assert "experiments=E15_celeba" in table_view("A.7", (), PAPER, plan).gaps[0].reason


def test_the_plan_is_checked() -> None:
    assert plan_of("") == plan_of("[]") == ()
    assert plan_of('[{"experiment": "E", "table": "1", "row": "M", "why": ""}]') == (Planned("E", "1", "M", ""),)
    for text in ("{", '[{"experiment": "E"}]', "[1]"):
        with pytest.raises(ColdbenchError, match="plan"):
            plan_of(text)


# --- provenance


def test_a_value_tells_where_it_comes_from(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "paper" / "E01-fitted"
    (folder / "logs").mkdir(parents=True)
    (folder / "model.jsonl").write_text('{"update": 1, "seconds": 3}\n{"update": 2, "seconds": 7200}\n')
    (folder / "logs" / "sample.tsv").write_text("s\th:m:s\n90.5\t0:01:30\n")
    told = {"commit": "abc123", "fingerprint": "f1f2", "data": "d1d2", "device": "H100", "seconds": 61.0}
    mine = score(provenance=json.dumps(told))
    folders: Folders = {("E01-fitted", "paper"): folder}
    facts = dict(provenance.facts_of(mine, folders))
    assert facts["wall time"] == "training 2.0 h, sampling 90 s, scoring 61 s"
    assert (facts["commit"], facts["configuration"], facts["data"]) == ("abc123", "f1f2", "d1d2")
    assert (facts["seed"], facts["images"], facts["logs"]) == ("0", "10,000 of MNIST", f"{folder}/logs/")
    html = table_page(table_view("1", (mine,), PAPER), (mine,), Site(frozenset(["runs/E01-fitted.html"]), folders))
    ids = re.findall(r'popovertarget="([^"]+)">', html)
    assert len(ids) == 1
    assert f'popover id="{ids[0]}"' in html
    assert 'href="runs/E01-fitted.html#set-test"' in html
    assert "runs/E01" not in table_page(table_view("1", (mine,), PAPER), (mine,))  # not there, not linked
    (spell,) = hours(runs_of((mine,), folders))
    assert (spell.device, spell.training, spell.sampling, spell.scoring) == ("H100", "2.0 h", "90 s", "61 s")


def test_what_is_not_recorded_is_not_invented(tmp_path: Path) -> None:
    bare = score(provenance="")
    facts = dict(provenance.facts_of(bare, {}))
    assert not {"commit", "wall time", "logs", "trained on"} & facts.keys()
    (tmp_path / "model.jsonl").write_text("torn {")
    assert provenance.work_of(bare, tmp_path) == provenance.Work(None, None, None)
    (spell,) = hours(runs_of((bare,)))
    assert (spell.device, spell.training, spell.scoring) == ("–", "–", "–")


def test_every_value_of_a_page_has_its_own_card() -> None:
    for view, scores in everything():
        html = table_page(view, scores)
        targets = set(re.findall(r'popovertarget="([^"]+)">', html))
        cards = re.findall(r'popover id="([^"]+)"', html)
        assert len(cards) == len(set(cards))
        assert targets == set(cards)
        assert len(cards) == sum(1 for row in view.rows + view.extra for cell in row.cells if cell.ours)


def test_a_card_never_calls_our_distance_fid() -> None:
    gabor = score(metric="frechet_gabor", reference="test", value=3.0)
    html = table_page(table_view("1", (gabor,), PAPER), (gabor,))
    assert "Degraded, FD-Gabor</h2>" in html


def test_durations() -> None:
    assert [provenance.duration(s) for s in (0.4, 61.2, 100, 5969, 36000)] == [
        "0.4 s",
        "61 s",
        "2 min",
        "99 min",
        "10.0 h",
    ]


# --- HTML


def test_pages_escape_every_name() -> None:
    for number in TABLES:
        html = table_page(table_view(number, hostile(), PAPER), hostile())
        assert "<b>50" not in html
    html = index_page([table_view("1", hostile(), PAPER)], hostile())
    assert "<b>50" not in html
    assert "&lt;b&gt;50 %" in html
    assert "1.00e+300" in html


def test_code_is_marked_and_escaped() -> None:
    assert str(code("run `a <b>` now")) == "run <code>a &lt;b&gt;</code> now"
    assert str(code("an `open end")) == "an `open end"


def test_the_bar_links_only_what_is_there() -> None:
    alone = bar("table1.html", [])
    assert not alone
    assert 'class="site"' not in table_page(table_view("1", (), PAPER), ())
    links = bar("runs/E01.html", ["index.html", "table1.html", "tableA.7.html", "figures.html", "runs/E01.html"])
    assert [(link.label, link.href, link.current) for link in (*links.front, *links.tables, *links.places)] == [
        ("Front page", "../index.html", ""),
        ("1", "../table1.html", ""),
        ("A.7", "../tableA.7.html", ""),
        ("Figures", "../figures.html", ""),
        ("Runs", "../index.html#runs", "true"),
    ]
    assert [link.current for link in bar("table1.html", ["table1.html", "table2.html"]).tables] == ["page", ""]


def test_only_our_own_scripts_run() -> None:
    policy = r"script-src ('none'|'sha256-[A-Za-z0-9+/=]+')\""
    assert re.search(policy, table_page(table_view("1", (), PAPER), ())).group(1) == "'none'"  # type: ignore[union-attr]
    with pytest.raises(Exception, match="undefined"):
        render("table.html")
    player = Path(navigation.__file__).with_name("templates") / "player.js"
    html = f"<script>\n{player.read_text('utf-8')}\n</script><script>alert(1)</script>"
    assert navigation._allowed(html).count("sha256-") == 1
    assert navigation._allowed("<script>alert(1)</script>") == "'none'"


def test_the_front_page_states_the_size_of_its_folder(tmp_path: Path) -> None:
    assert "opens from disk" not in index_page([], ())
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"x" * 2_000_000)
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_bytes(b"x" * 9_000_000)
    (tmp_path / "smoke").mkdir()
    (tmp_path / "smoke" / "index.html").write_bytes(b"x" * 9_000_000)  # another report within
    (tmp_path / "index.html").write_bytes(b"x" * 9_000_000)  # an older self
    assert size_of(tmp_path, tmp_path / "index.html") == (1, 2_000_000)
    html = index_page([], (), folder=tmp_path)
    size = re.search(r"a folder of 2 files, ([\d.]+) MB", html)
    assert size
    assert float(size.group(1)) == pytest.approx((2_000_000 + len(html.encode())) / 1e6, abs=0.06)
    assert size_of(tmp_path / "none") == (0, 0)


# --- JSON


def test_json_twin_round_trips() -> None:
    for view, scores in everything():
        value = json.loads(table_json(view, {}), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert json.loads(json.dumps(value)) == value
        rows = view.rows + view.extra
        assert [row["printed"] for row in value["rows"]] == [True] * len(view.rows) + [False] * len(view.extra)
        for row, told in zip(rows, value["rows"], strict=True):
            assert (told["row"], told["run"]) == (row.label, row.run.run if row.run else None)
            for cell, found in zip(row.cells, told["cells"], strict=True):
                assert (found["verdict"], found["reason"]) == (cell.verdict.kind, cell.verdict.reason)
                assert (found["paper"] or {}).get("value") == (cell.paper.value if cell.paper else None)
                ours = found["ours"] or {"value": None, "n": None}
                assert ours["value"] == (cell.ours.value if cell.ours and cell.ours.finite else None)
                assert ours["n"] == (cell.ours.n if cell.ours else None)
        for name, run in value["runs"].items():
            score = next(s for s in scores if s.run == name)
            assert run["provenance"].keys() == provenance.provenance(score).keys()
        assert sum(gap["cells"] for gap in value["missing"]) == sum(c.verdict.kind == "missing" for c in view.judged)


def test_json_twin_has_the_whole_provenance() -> None:
    told = {"commit": "abc", "training": {"max_steps": 5, "rates": [0.1]}, "bad": math.nan}
    scores = (score(provenance=json.dumps(told)),)
    folders: Folders = {("E01-fitted", "paper"): Path("results/paper/E01-fitted")}
    value = json.loads(table_json(table_view("1", scores, PAPER), folders))
    run = value["runs"]["E01-fitted"]
    assert run["provenance"] == {**told, "bad": None}
    assert run["logs"] == "results/paper/E01-fitted/logs/"
    cell = next(c for c in value["rows"][0]["cells"] if c["ours"])
    assert cell["difference"] == pytest.approx(-0.0004)
    assert cell["paper"]["cell"] == "T1-MNIST-degraded-rmse"


def test_folders_are_found_in_the_files(tmp_path: Path) -> None:
    import pandas as pd

    pd.DataFrame([vars(s) for s in synthetic()]).to_parquet(tmp_path / "scores.parquet")
    assert folders_of([tmp_path / "scores.parquet"])[("E01-digits", "laptop")] == tmp_path
    assert folders_of([]) == {}


# --- LaTeX


def test_latex_escapes_everything() -> None:
    text = escaped(EVIL)
    assert text.isascii()
    assert r"\%" in text
    assert r"\&" in text
    assert r"\textbackslash{}" in text
    assert escaped("0.287 – −0.1 × é ∮\n") == r"0.287 -- $-$0.1 $\times$ e ? "


def _plain(line: str) -> str:
    """A line of LaTeX without what is escaped."""
    return re.sub(r"\\[&%$#_{}\\]|\\text\w+\{\}", "", line)


@pytest.mark.parametrize("number", TABLES)
def test_latex_is_whole(number: str) -> None:
    """Environments balance, every line has the same number of columns, and no special character stands bare."""
    for scores in ((), hostile(), synthetic() + generated()):
        view = table_view(number, scores, PAPER, PLAN)
        text = table_tex(view)
        assert text.isascii()
        opened = re.findall(r"\\begin\{(\w+)\}", text)
        assert sorted(opened) == sorted(re.findall(r"\\end\{(\w+)\}", text)) == ["minipage", "table", "tabular"]
        assert text.count(r"\toprule") == text.count(r"\bottomrule") == 1
        body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
        wanted = 1 + 2 * len(view.columns)
        for line in (line for line in body.splitlines() if line.endswith(r"\\")):
            bare = _plain(line.removesuffix(r"\\"))
            spans = sum(int(n) - 1 for n in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert bare.count("&") + 1 + spans == wanted, line
        lines = text.splitlines()[1:]  # after the comment
        rest = _plain("\n".join(lines).replace(r"\\", ""))
        assert not re.findall(r"[%#~]", rest.replace("$~", "$ ").replace("}~", "} ").replace("?~", "? "))
        assert rest.count("$") % 2 == 0
        assert rest.count("{") == rest.count("}")


def test_latex_says_what_the_page_says() -> None:
    scores = hostile()
    text = table_tex(table_view("1", scores, PAPER))
    assert r"0.287$^{\dagger}$" in text
    assert "repeats the digits of the RMSE" in text
    assert "1.00e+300" in text
    assert "not a number" in text
    assert r"\neq" in text
    assert "0.2861 -- 0.2871" in text
    assert "beyond the paper's rows" in text


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="no pdflatex on this machine")
def test_latex_compiles(tmp_path: Path) -> None:
    parts = [r"\documentclass{article}", r"\usepackage{booktabs}", r"\begin{document}"]
    for k, (view, _) in enumerate(everything()):
        (tmp_path / f"t{k}.tex").write_text(table_tex(view))
        parts.append(rf"\input{{t{k}.tex}}\clearpage")
    (tmp_path / "all.tex").write_text("\n".join([*parts, r"\end{document}"]))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "all.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
