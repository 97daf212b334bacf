"""Snakemake on the shipped workflow: plans, refusals, what an edit plans again, and stopping in the middle.

Each test works in a copy of the workflow's files, at a budget of seconds on embedded images. A start of Snakemake costs
seconds, so tests ask several things of one.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from checkout import (
    BIN,
    PATIENCE,
    ROOT,
    TINY,
    Checkout,
    Ended,
    Running,
    assert_same_weights,
    end_group,
    trained,
    wait_for,
)
from PIL import Image
from processes import Process, coldbench
from safetensors.torch import load_file

from coldbench import data
from coldbench.core.experiment import Experiment
from coldbench.core.files import sha256
from coldbench.core.validation import merged
from coldbench.models import released
from coldbench.models.header import read_header
from coldbench.models.model_file import save_model

LONG = {"max_steps": 100_000}
TABLE, RUN = "reports/table1.html", "results/tiny/X1-a"


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    return Checkout(tmp_path_factory.mktemp("checkout"))


def assert_nothing_made(checkout: Checkout) -> None:
    assert not (checkout.folder / "results").exists()
    assert not (checkout.folder / "reports").exists()


# Plans and refusals


ALONE = {
    "E01-fitted",
    "E02-fitted",
    "E04-released",
    "E05-released",
    "E07-fitted",
    "E08-fitted",
    "E10-fitted",
    "E12-fitted",
}
"""The models of what needs no faces or animals: those of the ablations are among them."""


def test_default_profile_plans_the_models_of_downloadable_data(checkout: Checkout) -> None:
    plan = checkout.snakemake("-n")
    assert plan.status == 0, plan.end
    assert trained(plan) == ALONE
    assert plan.plan["train"] == 8
    assert plan.plan["sample"] == plan.plan["evaluate"] == 12
    assert plan.plan["fetch"] == plan.plan["prepare"] == 2
    assert plan.plan["render_table"] == 8
    assert all(plan.plan[rule] == 1 for rule in ("calibrate", "render_calibration", "merge_scores", "render_index"))
    assert not {"fetch_weights", "degraded", "sample_part"} & plan.plan.keys()
    assert "results/laptop/E01-fitted/model.safetensors" in plan.output
    assert re.search(r"^coldbench: E18 is left out: .*AFHQ", plan.output, re.MULTILINE)
    assert_nothing_made(checkout)


def test_smoke_profile_plans_every_experiment(checkout: Checkout) -> None:
    """Every experiment of the grid; where stand-ins make two models the same, it is trained once."""
    plan = checkout.snakemake("-n", "--workflow-profile", "smoke")
    assert plan.status == 0, plan.end
    assert plan.plan["sample"] == plan.plan["evaluate"] == 24
    assert plan.plan["train"] == len(trained(plan)) == 16
    assert {"E14_celeba-released", "E15_celeba-released", "E16-released", "E18-released", *ALONE} <= trained(plan)
    assert plan.plan["prepare"] == 3
    assert "reports/smoke/index.html" in plan.output
    assert "mnist" not in " ".join(re.findall(r"^ *output: .*", plan.output, re.MULTILINE))
    assert "is left out" not in plan.output
    assert_nothing_made(checkout)


def test_slurm_profile_asks_for_gpus_at_the_papers_budget(checkout: Checkout) -> None:
    """A cluster gets the paper's budget on CUDA: nothing of this machine's profile may reach it."""
    (checkout.folder / "skip.yaml").write_text("missing_data: skip")
    plan = checkout.snakemake("--profile", "slurm", "all", "-n", "--printshellcmds", "--configfile", "skip.yaml")
    assert plan.status == 0, plan.end
    assert trained(plan) == ALONE
    assert plan.plan["train"] == 8
    assert plan.plan["fetch_weights"] == 1
    assert "results/paper/E01-fitted/model.safetensors" in plan.output
    assert "results/laptop" not in plan.output
    assert "--device auto" in plan.output
    assert "--device cpu" not in plan.output
    for rule, words in {"train": "gpu=1, runtime=1440", "sample": "gpu=1", "evaluate": "gpu=1"}.items():
        matches = re.findall(rf"^rule {rule}:$.*?^ *resources: (.*?)$", plan.output, re.MULTILINE | re.DOTALL)
        assert len(matches) == plan.plan[rule]
        for resources in matches:
            assert "slurm_partition=gpu" in resources
            assert all(word in resources for word in words.split(", ")), resources
    assert "--fid paper-float --fid legacy_pytorch --fid clean" in plan.output


def test_config_option_takes_lists_mappings_and_flags(checkout: Checkout) -> None:
    """Lists, mappings and flags, whose numbers Snakemake leaves as text; folders with spaces; a row that is none."""
    words = ("seeds=[0, 1]", "threads={train: 3}", "compile=true", "results=my results/", "fid=paper-float")
    smoke = ("-n", "-p", "--configfile", "workflow/config/smoke.yaml", "--config")
    plan = checkout.snakemake(*smoke, *words, "experiments=E18", "inception=my weights")
    assert plan.status == 0, plan.end
    for part in (
        "my results/smoke/E18-released-s1/model.safetensors",
        "--compile",
        "--partner 'my results/data/photos-35'",
        "--inception 'my weights'",
    ):
        assert part in plan.output
    (message,) = checkout.snakemake(*smoke, "grid={E01: {cell: {table: 1, row: MNITS}}}").errors
    assert "unknown row of table 1 in grid.E01.cell 'MNITS': did you mean 'MNIST'" in message
    assert_nothing_made(checkout)


@pytest.mark.slow
def test_whole_paper_is_planned(tmp_path: Path) -> None:
    """With all data at hand every model is planned, in seconds. Of the images, planning reads the names alone."""
    checkout = Checkout(tmp_path, (str(BIN / "snakemake"),))  # started anew, as its time is measured
    animals = {"train": {"cat": 5153, "dog": 4739, "wild": 4738}, "val": {"cat": 500, "dog": 500, "wild": 500}}
    folders = {"CelebA-HQ/images-128": 30_000}
    folders |= {f"AFHQ/afhq/{split}/{kind}": n for split, kinds in animals.items() for kind, n in kinds.items()}
    for name, count in folders.items():
        folder = tmp_path / "data" / name
        folder.mkdir(parents=True)
        for number in range(count):
            (folder / f"{number:05}.jpg").touch()
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    plan = checkout.snakemake("-n", "--profile", "slurm", "all")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert plan.status == 0, plan.end
    assert len(trained(plan)) == plan.plan["train"] == 19  # E17 and the ablations sample the models of others
    assert {f"E{k:02}" for k in range(1, 14)} <= {run.partition("-")[0] for run in trained(plan)}
    assert plan.plan["sample"] == plan.plan["evaluate"] == 24
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    assert spent < 30  # of a processor's time; 17 were measured on a quiet machine, 22 on one with seven jobs a core


@pytest.mark.parametrize(
    ("arguments", "culprit", "nearest"),
    [
        (["reports/tabel1.html"], "'reports/tabel1.html'", "'reports/table1.html'"),
        (["--config", "bugdet=laptop"], "'bugdet'", "'budget'"),
    ],
)
def test_mistyped_word_is_refused(checkout: Checkout, arguments: list[str], culprit: str, nearest: str) -> None:
    ended = checkout.snakemake(*arguments)
    assert ended.status != 0
    assert "Traceback" not in ended.output
    assert len(ended.errors) == 1
    assert culprit in ended.errors[0]
    assert f"did you mean {nearest}?" in ended.errors[0]
    assert ended.output.splitlines()[-1] == ended.errors[0]
    assert_nothing_made(checkout)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["reports/table9.html"], ["'reports/table9.html'", "reports/table"]),
        (["./reports/table9.html"], ["reports/table9.html", "reports/table"]),
        (["results/laptop/E01-fited/model.safetensors"], ["'results/laptop/E01-fitted/model.safetensors'"]),
        (["--config", "budget=paper", "device=cpu"], ["days", "budget=laptop"]),
        (["--config", "missing_data=refuse"], ["E03", "CelebA-HQ", "--config missing_data=skip"]),
        (["--config", "experiments=E18"], ["E18", "AFHQ"]),
        (["--config", "data=no/such/folder"], ["'no/such/folder'", "mnist"]),
        (["--workflow-profile", "smoke", "--config", "results=Snakefile"], ["Snakefile"]),
    ],
)
def test_mistake_is_refused_in_one_line(checkout: Checkout, arguments: list[str], words: list[str]) -> None:
    ended = checkout.snakemake(*arguments)
    assert ended.status != 0
    assert "Traceback" not in ended.output
    assert len(ended.errors) == 1, ended.end
    assert not [word for word in words if word not in ended.errors[0]], ended.errors[0]
    assert_nothing_made(checkout)


# A whole run, and what an edit plans again


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which Table 1 has been made at the tiny budget, in a folder with a space in its name."""
    made = Checkout(tmp_path_factory.mktemp("a checkout"))
    first = made.tiny(TABLE)
    assert first.status == 0, first.end
    assert "Deblurring, digits" in (made.folder / TABLE).read_text()
    again = made.tiny(TABLE)
    assert again.status == 0, again.end
    assert "Nothing to be done" in again.output
    return made


@pytest.mark.slow
def test_run_leaves_the_files_of_the_readme(finished: Checkout) -> None:
    run = finished.folder / RUN
    manifest = json.loads((run / "samples.json").read_text())
    assert manifest["sets"].keys() == {"test"}
    assert manifest["sets"]["test"]["images"] == 60
    assert (run / manifest["sets"]["test"]["trajectory"]).exists()
    assert {shard["method"] for shard in manifest["shards"]} == {"direct", "naive", "tacos"}
    assert all(sha256(run / shard["file"]) == shard["sha256"] for shard in manifest["shards"])
    assert [json.loads(line)["step"] for line in (run / "model.jsonl").read_text().splitlines()][-1] == 120
    assert not [path for path in finished.folder.rglob(".*.safetensors") if path.is_file()]  # no temporary file is left


@pytest.mark.slow
def test_other_words_comments_and_threads_plan_no_training(finished: Checkout) -> None:
    """Nor does any source file that is newer than the results, or another profile."""
    workflow = finished.folder / "workflow"
    commented = [finished.folder / "Snakefile", *workflow.glob("rules/*.smk"), *workflow.glob("profiles/*/config.yaml")]
    for path in commented:
        path.write_text(path.read_text() + "\n# a comment\n")
    for path in [*workflow.rglob("*"), *(ROOT / "coldbench").rglob("*.*")]:
        if path.is_file() and path.parent.name != "paper":  # what tables are made of
            path.touch()
    words = {"title": "Another title", "protocols": {"a": {"rationale": "other words"}}}
    plan = finished.tiny(TABLE, "-n", grid={"X1": words}, threads={"train": 2, "sample": 2})
    assert plan.status == 0, plan.end
    assert set(plan.plan) == {"evaluate", "render_table"}


@pytest.mark.slow
def test_another_device_or_data_folder_plans_nothing(finished: Checkout) -> None:
    """Results of a cluster are shown on a laptop, and a data folder may move."""
    (finished.folder / "elsewhere").mkdir(exist_ok=True)
    plan = finished.tiny(TABLE, "-n", device="auto", data="elsewhere")
    assert plan.status == 0, plan.end
    assert not plan.plan, plan.plan


@pytest.mark.slow
def test_learning_rate_retrains_its_model_alone(finished: Checkout) -> None:
    plan = finished.tiny(TABLE, "-n", budgets={"tiny": {"training": {"learning_rate": 1e-3}}})
    assert plan.status == 0, plan.end
    assert plan.plan == {"train": 1, "sample": 1, "evaluate": 1, "render_table": 1}


@pytest.mark.slow
def test_new_experiment_plans_only_its_own_jobs(finished: Checkout) -> None:
    """One with a model of its own is trained; those that sample the model of X1, by name or in fact, are not."""
    new = {**TINY["grid"]["X1"], "protocols": {"a": {"rationale": "new", "degradation": {"std": 2.0}}}}
    same = {**TINY["grid"]["X1"], "protocols": {"a": {"rationale": "the very same model"}}}
    lent = {
        "title": "Fewer steps",
        "model": "X1",
        "sampling": {"sets": {"every_2": {"stride": 2}}},
        "cell": {"table": 1},
    }
    names = ["X1", "X2", "X3", "X4"]
    plan = finished.tiny(TABLE, "-n", experiments=names, grid={"X2": new, "X3": same, "X4": lent})
    assert plan.status == 0, plan.end
    assert plan.plan == {"train": 1, "sample": 3, "evaluate": 3, "render_table": 1}
    assert trained(plan) == {"X2-a"}


@pytest.mark.slow
def test_snapshots_are_kept_scored_and_drawn_as_curves(finished: Checkout, tmp_path: Path) -> None:
    """A finished training is not run again for them: what it did not keep is trained anew, and gives the same bits."""
    steps = {"budgets": {"tiny": {"training": {"snapshots": [40, 80]}}}}
    later = finished.tiny("reports/index.html", "-n", **steps)
    assert later.status == 0, later.end
    assert trained(later) == {"X1-a-40steps", "X1-a-80steps"}
    checkout = Checkout(tmp_path)
    made = checkout.tiny("reports/index.html", "reports/figures.html", **steps)
    assert made.status == 0, made.end
    run = tmp_path / "results/tiny/X1-a"
    assert_same_weights(run, finished.folder / "results/tiny/X1-a")
    for step in (40, 80):
        copied = tmp_path / f"results/tiny/X1-a-{step}steps"
        assert sha256(copied / "model.safetensors") == sha256(run / f"snapshots/step-{step}.safetensors")
        assert "is a copy of" in (copied / "logs/train.log").read_text()
    page = (tmp_path / "reports/figures.html").read_text()
    assert "Quality against training" in page
    assert "80 steps" in page
    assert "80 steps" not in (tmp_path / "reports/methods.html").read_text()
    again = checkout.tiny("reports/index.html", "-n", **steps)
    assert "Nothing to be done" in again.output


@pytest.mark.slow
def test_every_file_of_a_run_and_every_protocol_is_a_target(finished: Checkout) -> None:
    other = "results/tiny/X1-b/model.safetensors"
    plan = finished.tiny(f"{RUN}/figures.json", "results/data/digits-16/train.npy", other, "-n")
    assert plan.status == 0, plan.errors
    assert plan.plan == {"train": 1}


@pytest.mark.slow
def test_copied_results_are_current_whatever_their_dates(finished: Checkout, tmp_path: Path) -> None:
    """Copied into another checkout, whose name is odd, without Snakemake's records, and with data of the future."""
    folder = tmp_path / "it's 100 % [odd] $HOME"
    folder.mkdir()
    checkout = Checkout(folder)
    for name in ("results", "reports"):
        shutil.copytree(finished.folder / name, folder / name)
    now = time.time()
    for path in folder.rglob("results/**/*"):
        os.utime(path, (now, now + (1e8 if "data" in path.parts else -1e8)))
    again = checkout.tiny(TABLE)
    assert again.status == 0, again.end
    assert "Nothing to be done" in again.output

    model = folder / RUN / "model.safetensors"
    before = model.read_bytes()
    (folder / RUN / "figures.json").unlink()
    scores = (folder / RUN / "scores.parquet").read_bytes()
    drawn = checkout.tiny(f"{RUN}/figures.json")
    assert drawn.status == 0, drawn.end
    assert drawn.plan == {"evaluate": 1}
    assert "scores.parquet is up to date" in drawn.output
    assert (folder / RUN / "scores.parquet").read_bytes() == scores
    forced = checkout.tiny(str(model.relative_to(folder)), "--force")
    assert forced.status == 0, forced.end
    assert "is finished" in forced.output
    assert model.read_bytes() == before

    shutil.rmtree(folder / RUN / "shards")
    refused = checkout.tiny(f"{RUN}/figures.json", "--force")
    assert refused.status != 0
    assert (folder / RUN / "figures.json").exists(), "nothing could draw them again"
    assert any((folder / RUN / "figures").iterdir())


@pytest.mark.slow
def test_selection_takes_nothing_out_of_tables(finished: Checkout, tmp_path: Path) -> None:
    """A run of another experiment adds its rows, and another budget has a table of its own."""
    checkout = Checkout(tmp_path)
    shutil.copytree(finished.folder / "results", tmp_path / "results")
    assert checkout.tiny(f"{RUN}/figures.json").status == 0
    lent = {"title": "Fewer", "model": "X1", "sampling": {"sets": {"half": {"stride": 2}}, "methods": ["direct"]}}
    table = tmp_path / "results" / "tiny" / "scores.csv"
    made = checkout.tiny("results/tiny/scores.parquet", TABLE, experiments=["X2"], grid={"X2": lent})
    assert made.status == 0, made.end
    assert {line.split(",")[0] for line in table.read_text().splitlines()[1:]} == {"X1-a", "X2-a"}
    assert "Deblurring, digits" in (tmp_path / TABLE).read_text()
    before = table.read_bytes()
    other = {"budgets": {"other": {**TINY["budgets"]["tiny"], "sampling": {"images": 4}}}, "budget": "other"}
    plan = checkout.tiny("-n", "results/other/scores.parquet", **other)
    assert "results/other/scores.csv" in plan.output
    assert "results/tiny/scores" not in plan.output
    assert table.read_bytes() == before


ODD = "folder-ca(ts) + dogs|100 % [a]* 'b' $HOME ü"


@pytest.mark.slow
def test_changed_folder_of_any_name_is_prepared_again(tmp_path: Path, photos: Path) -> None:
    """More images than before: everything made from them is made again; the same images with other dates: nothing."""
    checkout = Checkout(tmp_path)
    folder = tmp_path / "data" / ODD.removeprefix("folder-")
    folder.mkdir(parents=True)
    images = data.load(photos, "train")

    def add(first: int, stop: int) -> None:
        for number in range(first, stop):
            Image.fromarray(images[number].transpose(1, 2, 0)).save(folder / f"{number}.png")

    sampling = {"images": 3, "batch_size": 4, "shard_size": 4}
    tiny = {"training": {"max_steps": 2, "ema_update_every": 1}, "sampling": sampling}
    overlay = {"grid": {"X1": {"dataset": ODD}}, "budgets": {"tiny": tiny}}
    scores = f"{RUN}/scores.parquet"
    add(0, 40)
    made = checkout.tiny(scores, **overlay)
    assert made.status == 0, made.end
    assert "Nothing to be done" in checkout.tiny(scores, **overlay).output
    model = (tmp_path / RUN / "model.safetensors").read_bytes()

    os.utime(folder / "3.png", (1, 1))
    again = checkout.tiny(scores, **overlay)
    assert again.status == 0, again.end
    assert "is finished" in again.output
    assert (tmp_path / RUN / "model.safetensors").read_bytes() == model
    assert "Nothing to be done" in checkout.tiny(scores, **overlay).output

    add(40, 50)
    plan = checkout.tiny(scores, "-n", **overlay)
    assert {"prepare", "train", "sample", "evaluate"} <= plan.plan.keys()
    assert "has changed" in plan.output


@pytest.mark.slow
def test_long_training_on_a_cpu_is_refused_before_a_model_is_touched(finished: Checkout, tmp_path: Path) -> None:
    """A finished model that fits is no training; one of other settings is not removed by the refusal."""
    checkout = Checkout(tmp_path)
    shutil.copytree(finished.folder / "results", tmp_path / "results")
    model = tmp_path / RUN / "model.safetensors"
    before = model.read_bytes()
    target = f"{RUN}/model.safetensors"
    assert "Nothing to be done" in checkout.tiny(target, max_cpu_hours=1e-9).output
    refused = checkout.tiny(target, max_cpu_hours=1e-9, budgets={"tiny": {"training": {"learning_rate": 1e-3}}})
    assert len(refused.errors) == 1, refused.end
    assert "max_cpu_hours" in refused.errors[0]
    assert model.read_bytes() == before

    header = read_header(model)
    aside = model.with_name(f"model.{header.experiment.fingerprint}.{header.data}.safetensors")
    model.rename(aside)  # as a training of other settings sets it aside
    back = checkout.tiny(target, max_cpu_hours=1e-9)
    assert back.status == 0, back.end
    assert model.read_bytes() == before


def test_checkout_whose_path_holds_braces_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "a {b}"
    folder.mkdir()
    (message,) = Checkout(folder).snakemake("-n").errors
    assert "a {b}" in message


@pytest.mark.slow
def test_chosen_experiment_starts_no_calibration(checkout: Checkout) -> None:
    assert "calibrate" not in checkout.snakemake("-n", "--config", "experiments=E07").plan
    page = checkout.snakemake("-n", "reports/calibration.html", "--config", "experiments=E07")
    assert page.plan.get("calibrate") == 1, page.end


# Stopping


def test_equal_weights_make_equal_files(experiment: Experiment, tmp_path: Path) -> None:
    """The checksum of a model names its shards: a training that is repeated must not throw away what was sampled."""
    weights = {"a": torch.arange(3.0), "b": torch.zeros(2, 2)}
    for number in range(8):
        save_model(tmp_path / f"{number}.safetensors", weights, experiment, 1)
    assert len({path.read_bytes() for path in tmp_path.glob("*.safetensors")}) == 1


def stop(process: Running) -> Ended:
    """Ctrl-C: a terminal sends SIGINT to the whole foreground group."""
    os.killpg(process.pid, signal.SIGINT)
    try:
        output, _ = process.communicate(timeout=PATIENCE)
    finally:
        end_group(process)
    return Ended(process.returncode, output)


def shards(run: Path) -> dict[tuple[str, str, int], str]:
    """The checksums of the restored images."""
    listed = json.loads((run / "samples.json").read_text())["shards"]
    return {(shard["set"], shard["method"], shard["first"]): shard["sha256"] for shard in listed}


@pytest.mark.slow
def test_two_sampling_jobs_make_the_shards_of_one(finished: Checkout, tmp_path: Path) -> None:
    """And one of them that lacks its shards, or has damaged ones, is made up for by the last job."""
    checkout = Checkout(tmp_path)
    shutil.copytree(finished.folder / "results", tmp_path / "results")
    run = tmp_path / RUN
    (run / "samples.json").unlink()
    shutil.rmtree(run / "shards")
    sampling = {"tiny": {"sampling": {"jobs": 2}}}
    made = checkout.tiny(f"{RUN}/samples.json", budgets=sampling)
    assert made.status == 0, made.end
    assert made.plan == {"sample_part": 2, "sample": 1}
    assert "45 of 45 shards are finished already" in made.output
    assert shards(run) == shards(finished.folder / RUN)

    paths = sorted(run.glob("shards/*/*.npy"))
    assert [path.name for path in paths] == [
        path.name for path in sorted((finished.folder / RUN).glob("shards/*/*.npy"))
    ]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-1])
    (run / "samples.json").unlink()
    again = checkout.tiny(f"{RUN}/samples.json", budgets=sampling)
    assert again.status == 0, again.end
    assert again.plan == {"sample": 1}
    assert "43 of 45 shards are finished already" in again.output
    assert shards(run) == shards(finished.folder / RUN)


@pytest.mark.slow
def test_ctrl_c_loses_and_changes_nothing(finished: Checkout, tmp_path: Path) -> None:
    """Stopped while training and again while sampling, a run ends with the very files of an undisturbed one."""
    checkout = Checkout(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    command = ("--cores", "1", f"{RUN}/samples.json", "--configfile", "tiny.yaml")
    run, log = tmp_path / RUN, tmp_path / RUN / "logs" / "train.log"

    training = checkout.start(*command)
    wait_for(training, lambda: log.exists() and "step " in log.read_text())
    stopped = stop(training)
    assert stopped.status != 0
    assert "Traceback" not in stopped.output
    assert "stopped by SIGINT; finished work is kept" in stopped.output
    assert not (run / "model.safetensors").exists()
    assert list(run.glob("checkpoints/*/step-*.pt"))

    sampling = checkout.start(*command)
    wait_for(sampling, lambda: any(run.glob("shards/*/*.npy")))
    stopped = stop(sampling)
    assert stopped.status != 0
    assert "Traceback" not in stopped.output
    resumed = re.search(r"resuming at step (\d+) of 120", log.read_text())
    assert resumed
    assert 0 < int(resumed[1]) < 120
    assert (run / "model.safetensors").exists()
    assert not (run / "samples.json").exists()
    dates = {path: path.stat().st_mtime_ns for path in run.glob("shards/*/*.npy")}

    last = checkout.snakemake(*command)
    assert last.status == 0, last.end
    assert f"{len(dates)} of 45 shards are finished already" in last.output
    assert "train]" not in last.output
    assert all(path.stat().st_mtime_ns == then for path, then in dates.items())
    assert_same_weights(run, finished.folder / RUN)
    assert shards(run) == shards(finished.folder / RUN)


@pytest.mark.slow
def test_job_that_fails_leaves_what_another_finished_meanwhile(tmp_path: Path) -> None:
    """Two checkouts may share their results: no older file comes back, and no file of the other is deleted."""
    checkout = Checkout(tmp_path)
    run = tmp_path / RUN
    model, training_log, log = run / "model.safetensors", run / "model.jsonl", run / "logs" / "train.log"
    run.mkdir(parents=True)
    model.write_text("older")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(merged(TINY, {"budgets": {"tiny": {"training": LONG}}})))
    training = checkout.start("--cores", "1", f"{RUN}/model.safetensors", "--configfile", "tiny.yaml")
    wait_for(training, lambda: log.exists() and "step " in log.read_text())
    model.write_text("newer")
    training_log.write_text("newer")
    (heartbeat,) = run.glob("checkpoints/*/heartbeat.json")
    os.kill(json.loads(heartbeat.read_text())["pid"], signal.SIGTERM)
    output, _ = training.communicate(timeout=PATIENCE)
    assert training.returncode != 0, output
    assert (model.read_text(), training_log.read_text()) == ("newer", "newer")


@pytest.fixture
def read_only(finished: Checkout, tmp_path: Path) -> Iterator[Path]:
    """The finished results in a folder where nobody can write, also not root."""
    folder = tmp_path / "of a colleague"
    shutil.copytree(finished.folder / "results", folder)
    if mounted := os.geteuid() == 0:
        if not shutil.which("mount"):
            pytest.skip("needs mount")
        for options in (["--bind", folder], ["-o", "remount,bind,ro"]):
            done = subprocess.run(["mount", *options, folder], capture_output=True, check=False)
            if done.returncode:
                subprocess.run(["umount", folder], capture_output=True, check=False)
                pytest.skip("may not mount")
    else:
        subprocess.run(["chmod", "-R", "a-w", folder], check=True)
    yield folder
    subprocess.run(["umount", folder] if mounted else ["chmod", "-R", "u+w", folder], check=True)


@pytest.mark.slow
def test_results_that_cannot_be_written_are_planned_and_shown(read_only: Path, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    (tmp_path / "results").symlink_to(read_only)
    shown = checkout.tiny(TABLE)
    assert shown.status == 0, shown.end
    assert "Deblurring, digits" in (tmp_path / TABLE).read_text()
    target = "results/tiny/X1-b/model.safetensors"
    assert checkout.tiny("-n", target).plan.get("train") == 1
    refused = checkout.tiny(target)
    assert len(refused.errors) == 1, refused.end
    assert "X1-b" in refused.errors[0]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_killed_training_resumes_to_the_same_weights(finished: Checkout, tmp_path: Path, number: int) -> None:
    """A cluster ends a job with SIGTERM, which saves the state, or SIGKILL, which loses at most one interval."""
    (description,) = (finished.folder / "results" / "runs").glob("tiny-X1-a-*.json")
    words = ["train", str(description), "--data", str(finished.folder / "results" / "data" / "digits-16")]
    words += ["--out", str(tmp_path / "model.safetensors"), "--checkpoint-dir", str(tmp_path)]
    words += ["--log", str(tmp_path / "log"), "--device", "cpu", "--threads", "1"]

    job = Process(coldbench, words, one_output=True)
    wait_for(job, lambda: (tmp_path / "log").exists() and "step " in (tmp_path / "log").read_text())
    job.send_signal(number)
    output, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == (75 if number == signal.SIGTERM else -number)  # 75: EX_TEMPFAIL, run it again
    assert "Traceback" not in output
    assert not (tmp_path / "model.safetensors").exists()

    job = Process(coldbench, words, one_output=True)
    output, _ = job.communicate(timeout=PATIENCE)
    assert job.returncode == 0, output
    assert ("resuming at step" in output) == (number == signal.SIGTERM)
    assert_same_weights(tmp_path, finished.folder / RUN)


@pytest.mark.slow
def test_damaged_shard_is_sampled_again(finished: Checkout, tmp_path: Path) -> None:
    """A flipped bit in a restored image never becomes a score: following the error's advice brings the image back."""
    folder = tmp_path / "results"
    shutil.copytree(finished.folder / "results", folder)
    manifest = tmp_path / RUN / "samples.json"
    facts = json.loads(manifest.read_text())
    shard = manifest.parent / facts["shards"][0]["file"]
    content = bytearray(shard.read_bytes())
    content[-1] ^= 0x40
    shard.write_bytes(content)

    def run(*arguments: str | Path) -> Ended:
        process = Process(coldbench, [*map(str, arguments)])
        _, errors = process.communicate(timeout=PATIENCE)
        return Ended(process.returncode, errors)

    data = folder / "data" / "digits-16"
    (description,) = (folder / "runs").glob("tiny-X1-a-*.json")
    words = ("--feature-cache", tmp_path / "features")
    scores = tmp_path / "scores.parquet"
    ended = run("evaluate", description, manifest, *words, "--data", data, "--out", scores, "--device", "cpu")
    assert ended.status == 1
    assert len(ended.errors) == 1
    assert str(shard) in ended.errors[0]
    assert not scores.exists()

    assert f"delete {manifest}, then run again" in ended.errors[0]
    manifest.unlink()
    model = manifest.with_name("model.safetensors")
    where = ("--data", data, "--out", manifest, "--shard-dir", manifest.with_name("shards"))
    where += ("--device", "cpu", "--threads", "1")
    mended = run("sample", description, model, *where)
    assert mended.status == 0, mended.output
    assert f"{shard} is damaged and will be made again" in mended.output
    assert sha256(shard) == facts["shards"][0]["sha256"]
    assert json.loads(manifest.read_text())["shards"] == facts["shards"]
    ended = run("evaluate", description, manifest, *words, "--data", data, "--out", scores, "--device", "cpu")
    assert ended.status == 0, ended.output
    assert scores.exists()


@pytest.mark.slow
def test_values_that_are_not_those_of_the_scores_are_made_again_alone(finished: Checkout, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    shutil.copytree(finished.folder / "results", tmp_path / "results")
    values, scores = (tmp_path / RUN / name for name in ("images.parquet", "scores.parquet"))
    before = values.read_bytes(), scores.read_bytes()
    values.write_bytes(before[0][:-9])
    made = checkout.tiny("reports/methods.html")
    assert made.status == 0, made.end
    assert made.plan == {"evaluate": 1, "render_methods": 1}
    assert f"{RUN}/scores.parquet is completed: {RUN}/images.parquet is damaged" in made.output
    assert (values.read_bytes(), scores.read_bytes()) == before


@pytest.mark.slow
def test_page_of_methods_outlives_a_failed_job(finished: Checkout, tmp_path: Path) -> None:
    checkout = Checkout(tmp_path)
    shutil.copytree(finished.folder / "results", tmp_path / "results")
    (tmp_path / "reports").mkdir()
    pages = [tmp_path / "reports" / f"methods.{end}" for end in ("html", "csv", "tex", "json")]
    for page in pages:
        page.write_text("older")
    (tmp_path / RUN / "shards").rename(tmp_path / RUN / "moved")  # so that the values cannot be made again
    (tmp_path / RUN / "images.parquet").write_bytes(b"")
    failed = checkout.tiny("reports/methods.html")
    assert len(failed.errors) == 1, failed.end
    assert f"{RUN}/images.parquet" in failed.errors[0]
    assert [page.read_text() for page in pages] == ["older"] * 4


@pytest.mark.slow
def test_imported_model_is_sampled_and_never_trained(finished: Checkout, tmp_path: Path) -> None:
    """A checkpoint of the released code takes the place of a training, for good: without its file, and unnamed."""
    source = tmp_path / "released.pt"
    released.export_model(finished.folder / RUN / "model.safetensors", source)
    checkout = Checkout(tmp_path)
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    command = ("--cores", "1", "reports/index.html", "results/tiny/scores.parquet", "--configfile", "tiny.yaml")
    planned = checkout.snakemake("-n", *command, "--config", f"imports={{X1-a: {source}}}")
    assert planned.plan.get("import_model") == 1, planned.end
    assert "train" not in planned.plan
    done = checkout.snakemake(*command, "--config", f"imports={{X1-a: {source}}}")
    assert done.status == 0, done.end
    ours, theirs = (load_file(place / RUN / "model.safetensors") for place in (tmp_path, finished.folder))
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert shards(tmp_path / RUN) == shards(finished.folder / RUN)
    assert "imported from released.pt" in (tmp_path / "reports/runs/tiny/X1-a.html").read_text()
    assert "X1-a" in (tmp_path / "results/tiny/scores.csv").read_text()
    pictures = sorted(path.name for path in (tmp_path / RUN / "figures").glob("*.png"))
    assert pictures == ["forward.png", "test-methods.png", "test-naive.png", "test-trajectory.png"]
    source.unlink()
    assert "Nothing to be done" in checkout.snakemake(*command).output
    wrong = checkout.snakemake("-n", *command, "--config", f"imports={{X1-c: {source}}}")
    assert len(wrong.errors) == 1
    assert "unknown run in imports 'X1-c': did you mean 'X1-" in wrong.errors[0]
