"""What is made again: a product is compared with what it says it was made from, never by its date."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coldbench import data
from coldbench.core.files import files_hash
from coldbench.core.validation import merged
from coldbench.evaluation.evaluator import Evaluator
from coldbench.evaluation.metrics.extractors import GABOR
from coldbench.evaluation.scores import merge_scores, read_scores, write_scores
from coldbench.evaluation.tables import is_up_to_date, read_facts, read_made_from, read_table, write_table
from coldbench.planning import workflow
from coldbench.planning.plan import resolved
from coldbench.planning.products import Product, Products, difference
from coldbench.planning.reuse import FinishedRuns
from coldbench.report import run_figures
from coldbench.sampling.manifest import made_from
from coldbench.sampling.shards import SamplingPaths, sample_run
from coldbench.training import loop

CPU = torch.device("cpu")
CONFIG: dict[str, Any] = {
    "budget": "tiny",
    "budgets": {
        "tiny": {
            "network": {"dim": 8, "dim_mults": [1, 2]},
            "training": {"max_steps": 2, "batch_size": 4, "ema_update_every": 1, "learning_rate": 1e-3},
            "sampling": {"images": 3},
        }
    },
    "grid": {
        "X1": {
            "title": "own model",
            "dataset": "folder-cats",
            "size": 16,
            "protocol": "a",
            "protocols": {"a": {}},
            "degradation": {"name": "superresolution", "T": 2},
        },
        "X2": {"title": "the model of another", "model": "X1"},
    },
}
STAGES = ("prepared", "model", "samples", "scores", "figures")


class Place:
    """A folder with a data folder and results, and the products of X1 and X2 in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "results"

    def products(self, **overlay: Any) -> tuple[Products, Any]:
        grid = resolved(merged(CONFIG, {"results": str(self.results), "data": str(self.folder / "data")}, overlay))
        runs = grid.by_budget
        return Products(runs, self.results, self.folder / "data"), runs["tiny", "X1-a"]

    def status(self, **overlay: Any) -> dict[str, str]:
        products, run = self.products(**overlay)
        made: dict[str, Product] = {stage: getattr(products, stage)(run) for stage in STAGES[1:]}
        made["prepared"] = products.prepared("folder-cats", 16)
        return {stage: made[stage].status for stage in STAGES}

    def run(self, name: str) -> Path:
        return self.results / "tiny" / "X1-a" / name

    def files(self) -> list[Path]:
        return [path for path in self.folder.rglob("*") if path.is_file()]

    def make(self) -> None:
        """Every stage, by the functions that the commands call."""
        _, run = self.products()
        prepared = self.results / "data" / "folder-cats-16"
        data.prepare("folder-cats", self.folder / "data", 16, prepared)
        model, manifest = self.run("model.safetensors"), self.run("samples.json")
        loop.train(run.experiment, loop.TrainingPaths(prepared, model, self.run("checkpoints")), CPU)
        sample_run(SamplingPaths(model, prepared, self.run("shards")), run.sampling, CPU, manifest)
        evaluator = Evaluator(manifest, prepared, self.results / "features", [GABOR], CPU)
        facts = {**made_from(manifest, run.metadata), "fid": []}
        write_scores(evaluator.evaluate(run.metadata), self.run("scores.parquet"), facts)
        evaluator.write_values(self.run("images.parquet"), facts)
        inputs = run_figures.Inputs(manifest, model.with_suffix(".jsonl"), prepared)
        run_figures.draw(inputs, run.metadata, self.run("figures.json"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    from PIL import Image

    folder = tmp_path_factory.mktemp("finished")
    cats = folder / "data" / "cats"
    cats.mkdir(parents=True)
    for number, image in enumerate(data.load(photos, "train")[:40]):
        Image.fromarray(image.transpose(1, 2, 0)).save(cats / f"{number}.png")
    Place(folder).make()
    return folder


@pytest.fixture
def place(finished: Path, tmp_path: Path) -> Place:
    """A copy, whose files have the dates of the copy in no order."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    return Place(tmp_path)


ALL_CURRENT = dict.fromkeys(STAGES, "current")


def test_finished_run_is_current_and_its_jobs_need_nothing(place: Place) -> None:
    assert place.status() == ALL_CURRENT
    products, run = place.products()
    assert products.why_hidden(run) == ""
    assert all(getattr(products, stage)(run).to_make_first == [] for stage in STAGES[1:])


@given(shifts=st.lists(st.integers(-(10**9), 10**9), min_size=5, max_size=5))
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dates_of_results_decide_nothing(finished: Path, shifts: list[int]) -> None:
    """Also of the future: only the sources of a data set are compared by time."""
    place = Place(finished)
    results = sorted(path for path in place.files() if place.results in path.parents)
    dates = {path: path.stat().st_mtime_ns for path in results}
    try:
        for number, path in enumerate(results):
            when = 1_800_000_000 + shifts[number % len(shifts)]
            os.utime(path, (when, when))
        assert place.status() == ALL_CURRENT
    finally:
        for path, date in dates.items():
            os.utime(path, ns=(date, date))


@pytest.mark.parametrize(
    ("overlay", "outdated"),
    [
        ({"budgets": {"tiny": {"training": {"learning_rate": 2e-3}}}}, ("model", "samples", "scores", "figures")),
        ({"grid": {"X1": {"degradation": {"T": 3}}}}, ("model", "samples", "scores", "figures")),
        ({"budgets": {"tiny": {"sampling": {"images": 2}}}}, ("samples", "scores", "figures")),
        ({"budgets": {"tiny": {"sampling": {"methods": ["direct"]}}}}, ("samples", "scores", "figures")),
        ({"grid": {"X1": {"title": "another title"}}}, ("scores", "figures")),
        ({"budgets": {"tiny": {"sampling": {"jobs": 2}}}}, ()),
        ({"threads": {"train": 2}, "compile": True, "checkpoint_every": 1.0}, ()),
    ],
)
def test_change_of_configuration_outdates_its_stage_and_those_after(
    place: Place, overlay: dict[str, Any], outdated: tuple[str, ...]
) -> None:
    expected = {stage: "outdated" if stage in outdated else "current" for stage in STAGES}
    assert place.status(**overlay) == expected
    assert place.status() == ALL_CURRENT, "and back"


def _touch(place: Place) -> None:
    os.utime(place.folder / "data/cats/3.png", (1, 1))


def _add(place: Place) -> None:
    shutil.copy(place.folder / "data/cats/3.png", place.folder / "data/cats/40.png")


def _replace(place: Place) -> None:
    shutil.copy(place.folder / "data/cats/4.png", place.folder / "data/cats/3.png")


def _rename(place: Place) -> None:
    (place.folder / "data/cats/3.png").rename(place.folder / "data/cats/three.png")


def _remove(place: Place) -> None:
    (place.folder / "data/cats/3.png").unlink()


@pytest.mark.parametrize("change", [_touch, _add, _replace, _rename, _remove])
def test_changed_source_outdates_everything_made_from_it(place: Place, change: Callable[[Place], None]) -> None:
    change(place)
    assert set(place.status().values()) == {"outdated"}


def test_commands_keep_what_a_touched_source_leaves_equal(place: Place) -> None:
    """The same pixels: prepared again, and then everything is current as it was, without another training."""
    kept = {path: path.stat().st_mtime_ns for path in (place.run("model.safetensors"), place.run("samples.json"))}
    _touch(place)
    place.make()
    assert place.status() == ALL_CURRENT
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_other_pixels_train_again_and_keep_no_old_score(place: Place) -> None:
    weights = place.run("model.safetensors").read_bytes()
    _add(place)
    place.make()
    assert place.status() == ALL_CURRENT
    assert place.run("model.safetensors").read_bytes() != weights


@pytest.mark.parametrize(
    "gone", ["data", "results/data", "results/tiny/X1-a/model.safetensors", "results/tiny/X1-a/samples.json"]
)
def test_what_was_deleted_outdates_nothing(place: Place, gone: str) -> None:
    (place.results / "data/folder-cats.fetched").touch()
    path = place.folder / gone
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    status = place.status()
    assert "outdated" not in status.values()
    assert status["scores"] == status["figures"] == "current"


def test_missing_shard_is_made_again_only_where_it_is_needed(place: Place) -> None:
    next(place.run("shards").rglob("*.npy")).unlink()
    assert place.status() == {**ALL_CURRENT, "samples": "incomplete"}
    place.run("scores.parquet").unlink()
    products, run = place.products()
    assert products.scores(run).to_make_first == [str(place.run("samples.json"))]


def test_model_of_other_settings_is_kept_beside_the_new_one(place: Place) -> None:
    _, changed = place.products(budgets={"tiny": {"training": {"learning_rate": 2e-3}}})
    _, run = place.products()
    before = place.run("model.safetensors").read_bytes()
    paths = loop.TrainingPaths(
        place.results / "data" / "folder-cats-16", place.run("model.safetensors"), place.run("other checkpoints")
    )
    loop.train(changed.experiment, paths, CPU)
    (aside,) = place.run("model.safetensors").parent.glob(f"model.{run.experiment.fingerprint}.*.safetensors")
    assert aside.read_bytes() == before
    assert aside.with_suffix(".jsonl").exists()

    assert place.products()[0].has_model(run), "so no length of a training refuses it"
    inode = aside.stat().st_ino
    shutil.rmtree(place.run("other checkpoints"))
    loop.train(run.experiment, paths, CPU)
    assert place.run("model.safetensors").stat().st_ino == inode, "used again, not trained again"
    assert place.run("model.jsonl").read_text()
    assert len(list(place.run("model.safetensors").parent.glob(f"model.{changed.experiment.fingerprint}.*"))) == 2


def test_model_of_other_images_is_kept_beside_the_new_one(place: Place) -> None:
    before = place.run("model.safetensors").read_bytes()
    _add(place)
    place.make()
    assert [path.read_bytes() for path in place.run(".").glob("model.*.safetensors")] == [before]


def test_finished_model_without_its_log_is_kept(place: Place) -> None:
    """The log is no part of what decides: it is made empty, and reports go without a training curve."""
    inode = place.run("model.safetensors").stat().st_ino
    place.run("model.jsonl").unlink()
    shutil.rmtree(place.run("checkpoints"))
    assert place.status() == ALL_CURRENT
    place.make()
    assert place.run("model.safetensors").stat().st_ino == inode
    assert place.run("model.jsonl").read_text() == ""


@pytest.mark.parametrize("name", ["model.safetensors", "samples.json", "scores.parquet", "figures.json"])
@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff" * 99])
def test_unreadable_product_is_outdated_and_no_error(place: Place, name: str, content: bytes) -> None:
    place.run(name).write_bytes(content)
    stage = {"model.safetensors": "model", "figures.json": "figures"}.get(name, name.partition(".")[0])
    assert place.status()[stage] == "outdated"


@pytest.mark.parametrize(
    "change", [lambda path, other: path.write_bytes(other.read_bytes()), lambda path, _: path.unlink()]
)
def test_sprite_that_is_not_the_drawn_one_outdates_the_figures(
    place: Place, change: Callable[[Path, Path], object]
) -> None:
    """Here by a whole image of the run in another's place."""
    other, path = sorted(place.run("figures").glob("*.png"))[:2]
    before = path.read_bytes()
    change(path, other)
    assert place.status() == {**ALL_CURRENT, "figures": "outdated"}
    products, run = place.products()
    assert not products.is_shown(run)
    assert path.name in products.why_hidden(run), "a report says what it leaves out"
    place.make()
    assert place.status() == ALL_CURRENT
    assert path.read_bytes() == before


def _of_another_run(values: Path) -> None:
    write_table(read_table(values), values, {**read_made_from(values), "samples": "0" * 64}, facts=read_facts(values))


DAMAGE: dict[str, Callable[[Path], object]] = {
    "deleted": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-9]),
    "flipped": lambda file: file.write_bytes(file.read_bytes().replace(b"ssim", b"ssin")),
    "of another run": _of_another_run,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_scores_without_their_per_image_values_are_incomplete(place: Place, how: str) -> None:
    """As long as the samples can give the values. Nothing is sampled again for them."""
    current = dict.fromkeys(STAGES, "current")
    assert place.status() == current
    DAMAGE[how](place.run("images.parquet"))
    assert place.status() == {**current, "scores": "incomplete"}
    shutil.rmtree(place.run("shards"))
    assert place.status() == {**current, "samples": "incomplete"}


def test_scores_of_more_fid_protocols_than_asked_for_stay(place: Place) -> None:
    """A laptop that computes no FID shows the scores of a cluster, and loses none of their values."""
    _, run = place.products()
    file = place.run("scores.parquet")
    stated = {**made_from(place.run("samples.json"), run.metadata), "fid": ["clean", "paper-float"]}
    write_scores(read_scores([file]), file, stated)
    values = file.with_name("images.parquet")
    write_table(read_table(values), values, stated)

    def status(*fid: str) -> tuple[str, bool]:
        products = Products(place.products()[0].runs, place.results, place.folder / "data", fid)
        return products.scores(run).status, is_up_to_date(file, {**stated, "fid": sorted(fid)})

    for fid in ([], ["clean"], ["paper-float", "clean"]):
        assert status(*fid) == ("current", True)
    assert status("clean", "legacy_pytorch") == ("outdated", False)


def test_results_of_a_better_budget_are_taken_where_no_training_would_follow(place: Place) -> None:
    """Scores without a model are taken as long as they are current. What is not taken is named."""
    file, model = place.run("scores.parquet"), place.run("model.safetensors")
    less = {"budgets": {"less": CONFIG["budgets"]["tiny"]}, "budget": "less", "reuse_budgets": ["tiny"]}
    where = {"results": str(place.results), "data": str(place.folder / "data")}

    def taken(name: str = "X1-a", **overlay: Any) -> tuple[str, list[Path]]:
        raw = merged(CONFIG, less, where, overlay)
        finished = FinishedRuns(raw)
        finished("tiny", name)
        return resolved(raw).all_runs[name].metadata.budget, list(finished.refused)

    assert taken() == ("tiny", [])
    assert taken(grid={"X1": {"title": "another"}}) == ("tiny", [])  # scored again
    assert taken(budgets={"tiny": {"training": {"learning_rate": 1e-4}}}) == ("less", [file])
    before = file.read_bytes()
    file.write_bytes(b"")
    assert taken() == ("tiny", [])
    assert taken("X2-a") == ("tiny", [])  # samples the model
    model.rename(model.with_name("moved"))
    assert taken() == ("less", [file])
    file.write_bytes(before)
    assert taken() == ("tiny", [])
    assert taken("X2-a") == ("less", [])


def test_difference_names_the_first_fact_and_ignores_unknown_ones() -> None:
    assert difference({"data": "a", "model": "b"}, {"data": "a", "model": None}) == ""
    assert "model" in difference({"data": "a", "model": "b"}, {"data": "a", "model": "c"})
    assert "fid" in difference({}, {"fid": []})


def test_calibration_outlives_absent_data_and_notices_changed_ones(place: Place) -> None:
    table, inputs = place.results / "calibration.parquet", [place.folder / "rows.yaml"]
    (place.folder / "other").mkdir()
    for number in range(20):
        shutil.copy(place.folder / f"data/cats/{number}.png", place.folder / "other")

    def status() -> str:
        names = ["folder-cats", "folder-other"]
        return place.products()[0].calibration(table, names, [], inputs).status

    (place.folder / "other").rename(place.folder / "data/other")
    digests = {name: data.source_digest(name, place.folder / "data") for name in ("folder-cats", "folder-other")}
    write_table(pd.DataFrame({"value": [1.0]}), table, {"inputs": files_hash(inputs), "data": digests}, "a\n")
    assert status() == "current"
    table.with_suffix(".csv").write_text("")
    assert status() == "outdated", "a CSV that is cut"
    table.with_suffix(".csv").write_text("a\n")
    (place.folder / "data/other").rename(place.folder / "other")
    assert status() == "current", "a disk that is not mounted"
    _add(place)
    assert status() == "outdated"


def test_table_of_scores_with_another_csv_is_merged_again(place: Place) -> None:
    table = place.results / "tiny/scores.parquet"

    def status() -> str:
        products, run = place.products()
        return products.merged(table, [run]).status

    merge_scores([place.run("scores.parquet")], table)
    csv = table.with_suffix(".csv")
    good = csv.read_bytes()
    assert status() == "current"
    for damaged in (b"", good[:-9], good.replace(b"digits", b"letters").replace(b"X1", b"X9"), good + b"more"):
        csv.write_bytes(damaged)
        assert status() == "outdated"
        merge_scores([place.run("scores.parquet")], table)
        assert (csv.read_bytes(), status()) == (good, "current")


def test_damaged_run_file_is_written_again(place: Place) -> None:
    """A job takes its settings from it."""
    _, run = place.products()
    workflow.write_run_files([run], place.results)
    path = workflow.run_file(run, place.results)
    good = path.read_text()
    for damaged in ("", good.replace("0.001", "0.002")):
        path.write_text(damaged)
        workflow.write_run_files([run], place.results)
        assert path.read_text() == good


def walk(product: Product) -> Iterator[Product]:
    yield product
    for source in product.sources:
        yield from walk(source)


def test_nothing_made_needs_every_stage_in_order(tmp_path: Path) -> None:
    products, run = Place(tmp_path).products()
    stages = list(walk(products.figures(run)))
    assert {each.status for each in stages} == {"missing"}
    names = {each.file.name for each in stages}
    assert names == {
        "figures.json", "scores.parquet", "samples.json", "model.safetensors", "info.json", "folder-cats.fetched"
    }  # fmt: skip
