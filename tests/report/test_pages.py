"""The pages of tables and the front page: honest names, safe HTML, provenance, warnings, and no dead link."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from urllib.parse import unquote

import jinja2
import pytest
from cases import EVIL, NOWHERE, PAPER, generated, hostile, score, synthetic

from coldbench.evaluation.scores import Score, Scores, write_scores
from coldbench.report import provenance
from coldbench.report.ablations import METHODS, ablations
from coldbench.report.cells import cell_frame, table_frame
from coldbench.report.formats import css_text
from coldbench.report.layout import TABLES
from coldbench.report.navigation import ReportFolder, _allowed
from coldbench.report.pages import banner, hours, index_page, progress, table_page, trainings_text
from coldbench.report.provenance import folders_of


def table(number: str, scores: Scores, folder: ReportFolder = NOWHERE) -> str:
    return table_page(number, table_frame(number, scores, PAPER), scores, {}, folder)


def index(scores: Scores, folder: ReportFolder = NOWHERE) -> str:
    return index_page(cell_frame(scores, PAPER), scores, (), {}, folder)


def links(html: str) -> set[str]:
    """The pages of the report that a page links."""
    return {unquote(link) for link in re.findall(r'href="([^"#:]+\.html)', html)}


# --- numbers and names


def test_page_never_calls_our_distance_fid() -> None:
    """FID is the paper's number, or the name of a line that has no value of ours."""
    html = index(synthetic())
    assert "FD-Gabor" in html
    assert "3.25" in html
    main = re.sub(r'<dl class="sides">.*?</dl>', "", html[html.index("<main") :], flags=re.DOTALL)  # explains the two
    text = re.sub(r"<[^>]+>", " ", main)
    contexts = [" ".join(part.split()) for part in re.findall(r"\S+\s+FID\b\s+\S+", text)]
    assert "paper FID 438.59" in contexts
    assert all(re.match(r"paper FID \d|here, FID in|\S+ FID less", context) for context in contexts), contexts
    gabor = score(metric="frechet_gabor", reference="test", value=3.0)
    assert "Degraded, FD-Gabor</h2>" in table("1", (gabor,))


def test_fid_stands_beside_everything_it_depends_on() -> None:
    html = index(synthetic() + generated())
    assert "FID (legacy_pytorch, train, n = 6,400)" in html
    assert "6,400 images" in html


def test_page_escapes_names_and_shows_odd_values() -> None:
    script = '<script>alert("x")</script>'
    names = {"row": "", "dataset_title": script, "rationale": script, "title": script}
    scores = (score(**names, provenance=json.dumps({script: script})), score(**names, metric="ssim", value=math.nan))
    for html in (index(scores), table("1", scores)):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        assert "not a number" in html
    for number in TABLES:
        assert "<b>50" not in table(number, hostile())
    assert "<b>50" not in index(hostile())
    assert "1.00e+300" in index(hostile())


@pytest.mark.parametrize(
    ("number", "run"), [("5", "CelebA-blur"), ("5.3", "CelebA-animorphosis"), ("A.7", "CelebA-blur")]
)
def test_page_names_the_runs_of_its_numbers(number: str, run: str) -> None:
    html = table(number, generated())
    assert "No results yet" not in html
    assert f"{run}<!--/link--></th>" in html


def test_page_lists_missing_numbers_with_reasons() -> None:
    html = table("2", ())
    assert "No results yet" in html
    assert "this configuration has no experiment for MNIST" in html
    assert "Missing numbers" in html
    assert "Missing numbers" not in table("5.3", generated())


@pytest.mark.parametrize(("number", "source"), [("1", "1"), ("2", "2"), ("5", "5"), ("A.7", "5")])
def test_page_names_no_run_of_another_table(number: str, source: str) -> None:
    """Appendix A.7 shows other samples of the models of Table 5."""
    sources = ("1", "2", "5")
    html = table(number, tuple(score(run=f"run-of-{each}", table=each, row="") for each in sources))
    assert [each for each in sources if f"run-of-{each}" in html] == [source]


@pytest.mark.parametrize(
    ("scores", "title", "text"),
    [
        ((score(budget="smoke", embedded=True, row=""),), "Smoke run", "Nothing on this page is a replication"),
        (synthetic(), "Laptop run", "Degraded columns on the paper's data"),
        ((score(embedded=True, row=""),), "Embedded images", "Nothing on this page"),
        ((score(budget="mine"),), "Mine run", "(mine budget)"),
        ((score(budget="laptop"), score(budget="mine")), "Mine run and Laptop run", "(mine budget)"),
        ((score(budget="short"),), "Short run", "trained for 20,000 steps"),
        ((score(budget="gpu-hour"), score(method="tacos")), "GPU-hour run, in part", "the other rows are judged"),
    ],
)
def test_banner_warns_of_everything_but_a_replication(scores: Scores, title: str, text: str) -> None:
    warning = banner(scores)
    assert warning
    assert warning.title == title
    assert text in warning.text
    assert warning.watermark in table("1", scores)
    assert banner((score(),)) is None
    assert 'class="banner"' not in table("1", (score(),))


@pytest.mark.parametrize("text", ["Laptop run: not a replication", EVIL, 'a"; } </style><script>', "two\nlines", "a\\"])
def test_text_in_a_style_sheet_cannot_end_its_quotes(text: str) -> None:
    """A budget's name is a user's; its banner is repeated in the margin of every printed sheet."""
    escaped = css_text(text)
    assert not re.search(r"[\"'<>&\n]|\\(?![0-9a-f]+ )", escaped)
    assert re.sub(r"\\([0-9a-f]+) ", lambda match: chr(int(match[1], 16)), escaped) == text


# --- provenance


def test_card_of_a_value_has_its_provenance(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "paper" / "E01-fitted"
    (folder / "logs").mkdir(parents=True)
    (folder / "model.jsonl").write_text('{"step": 1, "seconds": 3}\n{"step": 2, "seconds": 7200}\n')
    (folder / "logs" / "sample.tsv").write_text("s\th:m:s\n90.5\t0:01:30\n")
    record = {"commit": "abc123", "fingerprint": "f1f2", "data": "d1d2", "seconds": 61.0}
    record |= {"trained_on": "H100", "device": "cpu"}
    own, folders = score(provenance=json.dumps(record)), {("E01-fitted", "paper"): folder}
    (run,) = provenance.runs_of((own,), folders)
    facts = dict(provenance.facts_of(own, run))
    assert facts["wall time"] == "training 2.0 h, sampling 90 s, scoring 61 s"
    assert (facts["commit"], facts["configuration"], facts["data"]) == ("abc123", "f1f2", "d1d2")
    assert (facts["trained on"], facts["scored on"]) == ("H100", "cpu")
    assert (facts["seed"], facts["images"], facts["logs"]) == ("0", "10,000 of MNIST", f"{folder}/logs/")
    (entry,) = hours([run])
    assert (entry.device, entry.training, entry.sampling, entry.scoring) == ("H100; cpu", "2.0 h", "90 s", "61 s")


def test_sampling_took_no_less_than_its_shards(tmp_path: Path) -> None:
    """The record is that of the last job, which may have found all shards or most of them finished."""
    (tmp_path / "logs").mkdir()
    record = tmp_path / "logs" / "sample.tsv"
    own = [score(method=method, metric=metric, n=100, seconds=0.2) for method in ("direct", "tacos") for metric in "ab"]
    for recorded, seconds in (("2.5", 40), ("90.5", 90.5), ("", 40)):
        record.write_text(f"s\th:m:s\n{recorded}\t0:00:00\n")
        assert provenance.work_of([score(method="degraded"), *own], tmp_path).sampling == seconds
    record.unlink()
    assert provenance.work_of(own, tmp_path).sampling == 40


def test_fact_without_a_record_is_left_out(tmp_path: Path) -> None:
    bare = score(provenance="")
    (run,) = provenance.runs_of((bare,), {})
    assert not {"commit", "wall time", "logs", "trained on"} & dict(provenance.facts_of(bare, run)).keys()
    (tmp_path / "model.jsonl").write_text("torn {")
    assert provenance.work_of([bare], tmp_path) == provenance.Work(None, None, None)
    (entry,) = hours([run])
    assert (entry.device, entry.training, entry.scoring) == ("–", "–", "–")


def test_provenance_of_a_run_merges_that_of_its_values() -> None:
    other = score(metric="ssim", provenance='{"device": "cuda", "seconds": 2}')
    (run,) = provenance.runs_of((score(), other), {})
    assert (run.fact("device"), run.fact("seconds"), run.fact("absent")) == ("cpu; cuda", "2", "–")


def test_every_value_has_exactly_one_card() -> None:
    for scores in ((), hostile(), synthetic() + generated()):
        for number, frame in cell_frame(scores, PAPER).groupby("table", sort=False):
            html = table_page(str(number), frame, scores, {}, NOWHERE)
            cards = re.findall(r'popover id="([^"]+)"', html)
            assert len(cards) == len(set(cards)) == sum(frame.metric != "")
            assert set(cards) == set(re.findall(r'popovertarget="([^"]+)">', html))


def test_folders_of_runs_are_those_of_their_scores(tmp_path: Path) -> None:

    write_scores(synthetic(), tmp_path / "scores.parquet", {})
    assert folders_of([tmp_path / "scores.parquet"])[("E01-digits", "laptop")] == tmp_path
    assert folders_of([]) == {}


# --- links


def test_page_links_only_pages_in_the_folder(tmp_path: Path) -> None:
    folder = ReportFolder(tmp_path)
    alone = table("1", (score(),), folder)
    assert links(alone) == set()
    assert 'class="site"' not in alone
    (tmp_path / "runs/paper").mkdir(parents=True)
    for page in ("index.html", "tableA.7.html", "figures.html", "runs/paper/E01-fitted.html"):
        (tmp_path / page).touch()
    html = table("1", (score(),), folder)
    assert links(html) == {"index.html", "table1.html", "tableA.7.html", "figures.html", "runs/paper/E01-fitted.html"}
    assert 'href="runs/paper/E01-fitted.html#set-test"' in html
    assert re.findall(r'href="([^"]+)" aria-current="page"', html) == ["table1.html"]
    page = folder.render("discrepancies.html", "runs/paper/x.html", discrepancies=[])
    assert 'href="../../index.html#runs" aria-current="true"' in page


def test_front_page_updates_the_links_of_the_others_and_nothing_else(tmp_path: Path) -> None:
    """The order of rendering makes no difference in the end: each page is what it would be if it came last."""
    scores, folder = (score(run="E01-a+b"), score()), ReportFolder(tmp_path, '<"made from">')
    others = {"runs/paper/E01-fitted.html": b"of another program", "mine.html": "\ufeffé".encode("utf-16")}
    (tmp_path / "runs/paper").mkdir(parents=True)
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "dangling.html").symlink_to("nowhere")
    tables = {number: tmp_path / TABLES[number].page for number in ("1", "2")}
    for number, path in tables.items():
        path.write_text(table(number, scores, folder), "utf-8")
        os.utime(path, ns=(10**18, 10**18))
    (tmp_path / "index.html").write_text(index((score(),), ReportFolder(tmp_path, "other")), "utf-8")
    for number, path in tables.items():
        text = path.read_text("utf-8")
        assert text == table(number, scores, folder)
        assert '<meta name="coldbench-made-from" content="&lt;&#34;made from&#34;&gt;">' in text
        assert path.stat().st_mtime_ns == 10**18
        assert links(text) >= {"index.html", "table1.html", "table2.html"}
    assert {name: (tmp_path / name).read_bytes() for name in others} == others
    for name in (*others, "table2.html"):
        (tmp_path / name).unlink()
    folder.refresh()
    assert links(tables["1"].read_text("utf-8")) == {"index.html", "table1.html"} == folder.pages()


def test_front_page_states_the_size_of_its_folder(tmp_path: Path) -> None:
    for name, size in {"images/a.png": 2_000_000, "logs/a.log": 9_000_000, "smoke/index.html": 9_000_000}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"x" * size)  # logs and other reports do not count, nor does an older front page
    (tmp_path / "images" / "loop").symlink_to(tmp_path)
    (tmp_path / "index.html").write_text("x" * 9_000_000)
    folder = ReportFolder(tmp_path)
    assert folder.size("index.html") == (1, 2_000_000)
    html = index((), folder)
    size = re.search(r"a folder of 2 files, ([\d.]+) MB", html)
    assert size
    assert float(size.group(1)) == pytest.approx((2_000_000 + len(html.encode())) / 1e6, abs=0.06)
    assert NOWHERE.size("index.html") == (0, 0)


# --- templates


def test_undefined_name_in_a_template_is_an_error() -> None:
    with pytest.raises(jinja2.UndefinedError):
        NOWHERE.render("index.html", "index.html", views=[], banner=None, runs=[], commands=())


def test_only_scripts_of_the_package_run() -> None:
    policy = re.search(r"script-src ([^\"]+)\"", table("1", ()))
    assert policy
    assert policy[1] == "'none'"
    player = Path(provenance.__file__).with_name("templates") / "player.js"
    html = f"<script>\n{player.read_text('utf-8')}\n</script><script>alert(1)</script>"
    assert _allowed(html).count("sha256-") == 1
    assert _allowed("<script>alert(1)</script>") == "'none'"


# --- ablations


def test_ablation_stands_beside_the_unchanged_samples_of_its_model() -> None:
    model = {"provenance": json.dumps({"model": "abc"}), "method": "tacos"}
    unchanged = [score(**model, metric=metric, value=value) for metric, value in (("ssim", 0.71), ("rmse", 0.15))]
    other = {**model, "provenance": json.dumps({"model": "xyz"}), "metric": "ssim"}
    others = [score(**other, run=run) for run in ("E00-fitted", "E09-fitted")]
    changed = [
        score(**model, run="A4-fitted", title="Fewer steps", table="", row="", set=name, metric="ssim", value=value)
        for name, value in (("every_10", 0.5), ("every_2", 0.7))
    ]
    (ablation,) = ablations((*unchanged, *others, *changed))
    assert [entry.label for entry in ablation.sets] == ["E01-fitted, unchanged", "every 2", "every 10"]
    tacos = list(METHODS).index("tacos")
    assert [entry.values[tacos][0][0] for entry in ablation.sets] == ["0.7100", "0.7000", "0.5000"]
    assert ablation.sets[1].values[tacos][1] == ("", "")
    (without,) = ablations((*others, *changed))
    assert [entry.label for entry in without.sets] == ["every 2", "every 10"]
    assert "Every 10" in index((*unchanged, *changed))
    assert 'id="ablations"' not in index(tuple(unchanged))


def test_each_training_has_its_own_table_of_quality_against_steps() -> None:
    """The same run at two budgets, of which one is under way: each has its own columns of steps and its own title."""

    def at(budget: str, steps: int, method: str) -> Score:
        on_the_way = {"run": f"E01-fitted-{steps}steps", "table": "", "row": "", "title": f"after {steps} steps"}
        finished = {"run": "E01-fitted"} if steps == 100 else on_the_way
        own = {"budget": budget, "steps": steps, "method": method, "metric": "ssim", "snapshot": steps != 100}
        return score(**(own | finished))

    laptop = [at("laptop", steps, method) for steps in (100, 10) for method in ("direct", "tacos")]
    other = [at("other", steps, "direct") for steps in (500, 50, 5)]
    single = [at("single", 7, "direct")]
    tables = progress((*laptop, *other, *single))
    assert [(table.title, table.steps, len(table.lines)) for table in tables] == [
        (laptop[0].title, (10, 100), 2),
        ("after 500 steps", (5, 50, 500), 1),
    ]
    assert [point.steps for point in tables[1].lines[0]] == [5, 50, 500]


def test_a_run_at_two_budgets_counts_its_trainings_for_each() -> None:
    ours = [score(method="tacos", budget="laptop", seed=seed) for seed in range(3)]
    scores = (*ours, score(method="tacos", budget="other"))
    texts = trainings_text(scores).split(", ")
    assert [("laptop" in text, "other" in text, text.split()[-1]) for text in texts] == [
        (True, False, "times"),
        (False, True, "once"),
    ]
    assert "budget" not in trainings_text(scores[:3])


def test_an_ablation_at_two_budgets_is_shown_for_each() -> None:
    own = {"run": "A4-fitted", "table": "", "row": "", "method": "tacos", "metric": "ssim"}
    shown = ablations((score(**own, budget="laptop", value=0.5), score(**own, budget="other", value=0.75)))
    assert [(each.run.budget, [len(part.values) for part in each.sets]) for each in shown] == [
        ("laptop", [4]),
        ("other", [4]),
    ]
