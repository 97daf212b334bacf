"""The grid: which runs a configuration resolves to, what is refused, and which changes retrain a model.

Everything here runs in this process on the shipped files of workflow/config, with overlays as a user would write them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from cases import CONFIG

from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Network, Training
from coldbench.core.run import resolve
from coldbench.core.validation import merged
from coldbench.planning.checks import refuse_on_cpu
from coldbench.planning.grid import Grid, build

SHIPPED = ("paper", "gpu-hour", "short", "laptop", "smoke")
EMBEDDED = {"substitute": {"celeba": "photos", "afhq": "photos"}}
"""Over the paper's grid: nothing in it lacks its data."""


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIG / f"{name}.yaml").read_text(encoding="utf-8"))


def config(overlay: str | Mapping[str, Any] = "", base: str = "laptop") -> dict[str, Any]:
    """The shipped grid with a shipped overlay and one of our own (YAML text), as Snakemake would hand it over."""
    own = yaml.safe_load(overlay) if isinstance(overlay, str) else overlay
    return merged(load("paper"), {} if base == "paper" else load(base), own or {})


def whole(overlay: str | Mapping[str, Any] = "") -> Grid:
    """The paper's grid with every experiment, as on a machine that has all data."""
    own = yaml.safe_load(overlay) if isinstance(overlay, str) else overlay
    return grid(merged(EMBEDDED, own or {}), "paper")


def grid(overlay: str | Mapping[str, Any] = "", base: str = "laptop", done: tuple[str, ...] = ()) -> Grid:
    return build(config(overlay, base), lambda budget, run, *_: f"{budget}/{run}" in done)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data lie in the working directory, so the default data folder is one to download into."""
    monkeypatch.chdir(tmp_path)


# The shipped configurations


@pytest.mark.parametrize("base", SHIPPED)
def test_shipped_configurations_are_valid(base: str) -> None:
    built = whole() if base == "paper" else grid(base=base)
    assert built.report_runs
    assert built.report_runs.items() <= built.all_runs.items()
    assert {run.metadata.budget for run in built.all_runs.values()} == {base}
    assert len(built.report_runs) == len({run.metadata.name for run in built.report_runs.values()})
    names = set(built.config.experiments or built.config.grid)
    assert {run.metadata.name for run in built.report_runs.values()} | built.skipped.keys() == names


@pytest.mark.parametrize("name", ["trainings", "curve"])
def test_rows_of_mnist_are_three_trainings_with_snapshots(name: str) -> None:
    built = grid(load(name))
    wanted = {"trainings": {"E01", "E04"}, "curve": {"E07"}}[name]
    assert {run.metadata.name for run in built.report_runs.values()} == wanted
    for experiment in wanted:
        runs = [run for run in built.report_runs.values() if run.metadata.name == experiment]
        assert {run.experiment.seed for run in runs} == {0, 1, 2}
        last = runs[0].experiment.training.max_steps
        snapshots = runs[0].experiment.training.snapshots
        assert min(snapshots) * 16 == last
        assert len(runs) == 3 * (1 + len(snapshots))


@pytest.mark.parametrize("base", SHIPPED)
def test_names_that_stand_in_paths_are_safe(base: str) -> None:
    for name, run in (whole() if base == "paper" else grid(base=base)).all_runs.items():
        assert name == run.experiment.run == run.metadata.run
        for part in (name, run.metadata.budget, *run.sampling.sets):
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", part)


def test_the_hour_on_a_gpu_has_inpainting_as_the_paper_states_it() -> None:
    """Its two commands: E04 at the paper's budget, then the others, beside which E04 is shown."""
    stated = grid({"budget": "paper", "experiments": ["E04"]}, "gpu-hour").report_runs
    (run,) = stated.values()
    training, masks = run.experiment.training, run.experiment.degradation
    assert (run.metadata.run, training.max_steps, training.batch_size) == ("E04-stated", 60_000, 128)
    assert (training.learning_rate, training.ema_decay, training.precision) == (2e-5, 0.995, "bf16")
    assert (masks["std"], masks["centre_low"], masks.get("width", "std")) == (1.0, 1, "std")
    rest = grid(base="gpu-hour", done=("paper/E04-stated",)).report_runs
    budgets = {name: run.metadata.budget for name, run in rest.items()}
    assert budgets == {"E01-fitted": "gpu-hour", "E04-stated": "paper", "E07-fitted": "gpu-hour"}
    assert rest["E04-stated"].experiment == run.experiment
    for each in rest.values():
        assert each.sampling.images is None
        assert each.sampling.methods == ["direct", "naive", "tacos"]


def test_numbers_and_flags_may_be_text() -> None:
    """As Snakemake's --config leaves them within lists and mappings."""
    typed = {
        "seeds": ["0", "1"],
        "compile": "true",
        "checkpoint_every": "1e1",
        "threads": {"train": "3"},
        "results": "elsewhere/",
        "grid": {
            "E01": {
                "degradation": {"T": "24", "std": "2.5"},
                "sampling": {"images": "7"},
                "training": {"max_steps": "40"},
            }
        },
    }
    built = grid({**typed, "experiments": "E01"})
    config, run = built.config, built.report_runs["E01-fitted-s1"]
    assert (config.seeds, config.compile, config.threads["train"], config.results) == ([0, 1], True, 3, "elsewhere")
    assert (run.experiment.degradation["T"], run.experiment.degradation["std"]) == (24, 2.5)
    assert (run.experiment.seed, run.sampling.images) == (1, 500)  # the budget has the last word
    assert grid({"seeds": 1}).config.seeds == grid({"seeds": "1"}).config.seeds == [1]
    assert (
        built.report_runs["E01-fitted"].experiment
        == grid({"grid": {"E01": {"degradation": {"T": 24, "std": 2.5}}}}).report_runs["E01-fitted"].experiment
    )


def test_imported_checkpoint_is_used_by_its_borrowers(tmp_path: Path) -> None:
    """For a run that samples another's model it would be: the name of the owner is asked for."""
    source = tmp_path / "model.pt"
    source.touch()
    assert whole({"imports": {"E11-fitted": str(source)}}).all_runs["E11-released"].model == "E11-fitted"
    with pytest.raises(
        ColdbenchError, match=r"^imports\.E11-released: it samples the model of E11-fitted; import that"
    ):
        whole({"imports": {"E11-released": str(source)}})
    assert whole({"imports": {"E11-released": str(source)}, "protocol": "released"}).report_runs["E11-released"].trains


def test_report_shows_one_protocol_of_each_experiment() -> None:
    for built in (whole(), grid(base="smoke")):
        assert {run.metadata.name for run in built.report_runs.values()} == set(built.config.grid)
        assert len(built.report_runs) == len(built.config.grid)
        assert all(run.metadata.default == (name in built.report_runs) for name, run in built.all_runs.items())


def test_every_experiment_of_the_paper_has_its_table() -> None:
    """E01 to E13 restore, E14 to E18 generate, and nothing else claims a place in the paper's tables."""
    cells: dict[str, set[str]] = {}
    for run in whole().report_runs.values():
        if run.metadata.cell.table:
            cells.setdefault(run.metadata.cell.table, set()).add(run.metadata.cell.row)
            assert run.sampling.restores == (run.metadata.cell.table in {"1", "2", "3", "4", "6"})
    three, two = {"MNIST", "CIFAR-10", "CelebA"}, {"CIFAR-10", "CelebA"}
    generated = {f"{data}, {kind}" for data in ("CelebA", "AFHQ") for kind in ("noise", "blur")}
    animals = {f"CelebA, {kind}" for kind in ("inpainting", "super-resolution", "animorphosis")}
    assert cells == {"1": three, "2": three, "3": three, "4": two, "6": two, "5": generated, "5.3": animals}


def test_variants_add_to_the_grid() -> None:
    """Other people's settings: they can be chosen at any budget, and claim no place in the paper's tables."""
    ours = set(grid().report_runs)
    built = grid(load("variants"))
    added = {name: run for name, run in built.report_runs.items() if name not in ours}
    assert {run.metadata.name for run in added.values()} == set(load("variants")["grid"])
    assert all(run.trains and not run.metadata.cell.table and run.metadata.rationale for run in added.values())


# What is lent: models, data, seeds


def test_shared_models_are_trained_once() -> None:
    """Every run knows the run whose model it samples; that one is there, trains, and is the very same model."""
    for built in (whole(), grid(base="smoke")):
        for name, run in built.all_runs.items():
            owner = built.all_runs[run.model]
            assert owner.trains, (name, run.model)
            assert owner.experiment.fingerprint == run.experiment.fingerprint
            assert owner.metadata.budget == run.metadata.budget
        trained = [run.experiment.fingerprint for run in built.all_runs.values() if run.trains]
        assert len(set(trained)) == len(trained)


def test_an_experiment_takes_all_but_its_own_words_from_its_model() -> None:
    runs = whole().all_runs
    lender, borrower = runs["E09-fitted"], runs["E17-fitted"]
    assert borrower.model == "E09-fitted"
    assert borrower.experiment == lender.experiment.model_copy(update={"name": "E17"})
    assert borrower.metadata.title == "Generation from 2 x 2 pixels, CelebA"
    assert borrower.metadata.cell.table == "5.3"
    assert set(borrower.sampling.sets) == {"generated"}
    assert runs["A1-fitted"].model == "E04-fitted"


def test_a_model_asked_for_alone_brings_its_owner() -> None:
    """`--config experiments=A1` needs E04's training, which the filter does not name."""
    built = grid("experiments: [A1]")
    assert set(built.report_runs) == {"A1-released"}
    assert built.all_runs["E04-released"].trains
    assert not {name for name, run in built.all_runs.items() if run.metadata.name not in ("A1", "E04")}


@pytest.mark.parametrize("base", ["short", "laptop"])
def test_experiments_without_data_are_skipped_with_the_reason(base: str) -> None:
    """MNIST and CIFAR-10 can be downloaded; faces and animals cannot, and each reason says what is needed."""
    built = grid(base=base)
    assert set(built.datasets) == {"mnist", "cifar10"}
    absent = {name for name, run in whole({"substitute": {}}).report_runs.items() if run.experiment.dataset == "photos"}
    assert built.skipped.keys() == {name.partition("-")[0] for name in absent}
    for name, why in built.skipped.items():
        assert "AFHQ" in why or "CelebA-HQ" in why, name
        assert "\n" not in why


def test_missing_data_are_refused_by_the_paper_and_where_they_are_asked_for() -> None:
    with pytest.raises(ColdbenchError, match=r"^E03: .*CelebA-HQ.* without it: --config missing_data=skip$"):
        grid(base="paper")
    with pytest.raises(ColdbenchError, match=r"^E18: .*AFHQ"):
        grid("experiments: [E01, E18]")  # also where others are skipped
    with pytest.raises(ColdbenchError, match=r"no experiment has its data: .*CelebA-HQ"):
        grid("datasets: [celeba]")


def test_finished_experiment_needs_no_data_also_where_it_is_named() -> None:
    done = ("laptop/E03-fitted", "laptop/E18-released", "laptop/E18-released-s1")
    for overlay in ("experiments: [E03]", "{experiments: [E03, E01], missing_data: refuse}"):
        assert {"E03-fitted"} <= grid(overlay, done=done).report_runs.keys()
    assert len(grid("{experiments: [E18], seeds: [0, 1]}", done=done).report_runs) == 2
    with pytest.raises(ColdbenchError, match=r"^E18: .*AFHQ"):
        grid("{experiments: [E18], seeds: [0, 2]}", done=done)  # one of its runs is not finished


def test_damaged_data_are_not_skipped(tmp_path: Path) -> None:
    raw = tmp_path / "own" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "t10k-images-idx3-ubyte").write_bytes(b"x")
    (raw / "train-images-idx3-ubyte").write_bytes(b"x")
    with pytest.raises(ColdbenchError, match="truncated or damaged"):
        grid({"data": str(tmp_path / "own"), "missing_data": "skip"})


def test_every_seed_is_a_run_of_its_own() -> None:
    """All seeds of the chosen protocol, the first of the others; only seed 0 has the plain name."""
    built = grid("{experiments: [E04, A1], seeds: [0, 3]}")
    assert set(built.report_runs) == {"E04-released", "E04-released-s3", "A1-released", "A1-released-s3"}
    assert built.report_runs["A1-released-s3"].model == "E04-released-s3"
    assert {built.all_runs[name].experiment.seed for name in ("E04-released-s3", "A1-released-s3")} == {3}
    assert "E04-fitted-s3" not in built.all_runs
    only = grid("{experiments: [E04], seeds: [3]}")
    assert set(only.report_runs) == {"E04-released-s3"}
    assert all(run.experiment.seed == 3 for run in only.all_runs.values())


# What is refused: (overlay, words of the one line)


def named(experiment: str, protocol: str) -> str:
    """An overlay with a new experiment of this name, sound in all else."""
    entry = {"title": "New", "cell": {"table": 3, "row": ""}, "dataset": "digits", "protocol": protocol}
    entry |= {"degradation": {"name": "superresolution", "T": 3}, "protocols": {protocol: {}}}
    return yaml.safe_dump({"grid": {experiment: entry}})


BAD = {
    # keys
    "top-level key": ("bugdet: laptop", "'bugdet'", "did you mean 'budget'?"),
    "nested key": ("grid: {E01: {training: {learning_rat: 0.1}}}", "training.learning_rat'", "learning_rate'?"),
    "entry key": ("grid: {E01: {titel: x}}", "'grid.E01.titel'", "did you mean 'grid.E01.title'?"),
    "cell key": ("grid: {E01: {cell: {tabel: 1}}}", "'grid.E01.cell.tabel'", "did you mean 'grid.E01.cell.table'?"),
    "budget part": ("budgets: {laptop: {trainnig: {max_steps: 5}}}", "trainnig", "'budgets.laptop.training'?"),
    "budget key": ("budgets: {laptop: {training: {max_stepz: 5}}}", "training.max_stepz'", "training.max_steps'?"),
    "network key": ("grid: {E01: {network: {dmi: 8}}}", "network.dmi'", "network.dim'?"),
    "protocol key": ("grid: {E01: {protocols: {fitted: {rationle: x}}}}", "fitted.rationle'", "fitted.rationale'?"),
    "threads key": ("threads: {trian: 2}", "threads.trian", "'train'"),
    # names
    "budget": ("budget: laptpo", "'laptpo'", "did you mean 'laptop'?"),
    "accepted budget": ("reuse_budgets: [papr]", "'papr'", "did you mean 'paper'?"),
    "baseline": ("baseline: tacso", "'tacso'", "did you mean 'tacos'?"),
    "protocol": ("protocol: relased", "'relased'", "did you mean 'released'?"),
    "protocol of an entry": ("grid: {E01: {protocol: fited}}", "E01 'fited'", "did you mean 'fitted'?"),
    "experiment": ("experiments: [E19]", "experiment 'E19'", "E01"),
    "experiment in lower case": ("experiments: [e01]", "'e01'", "did you mean 'E01'?"),
    "data set": ("grid: {E01: {dataset: mnits}}", "'mnits'", "did you mean 'mnist'?"),
    "filtered data set": ("datasets: [mnits]", "'mnits'", "did you mean 'mnist'?"),
    "data set standing in": ("substitute: {mnist: digts}", "'digts'", "did you mean 'digits'?"),
    "data set stood in for": ("substitute: {mnits: digits}", "'mnits'", "did you mean 'mnist'?"),
    "degradation": ("grid: {E01: {degradation: {name: blurr}}}", "E01", "'blurr'", "did you mean 'blur'?"),
    "parameter": ("grid: {E01: {degradation: {kernal: 5}}}", "E01", "'kernal'", "did you mean 'kernel'?"),
    "schedule": ("grid: {E01: {degradation: {schedule: constnat}}}", "'constnat'", "did you mean 'constant'?"),
    "network": ("budgets: {laptop: {network: {name: unet_convnxt}}}", "'unet_convnxt'", "'unet_convnext'?"),
    "method": ("budgets: {laptop: {sampling: {methods: [direkt]}}}", "sampling.methods", "'direkt'", "'direct'"),
    "device": ("device: gpu", "device", "'gpu'", "'cuda'"),
    "filter that fits nothing": ("datasets: [photos]", "photos", "mnist"),
    # models of others
    "model that is none": ("grid: {A1: {model: E99}}", "model of A1 'E99'", "E01"),
    "model of a borrower": ("grid: {A1: {model: A2}}", "model of A1 'A2'"),
    "borrower with a degradation": ("grid: {A1: {degradation: {T: 5}}}", "grid.A1.degradation", "model of E04"),
    "borrower with a protocol": ("grid: {A1: {protocols: {fitted: {}}}}", "grid.A1.protocols", "title, cell, sampling"),
    # sets of samples
    "start that is none": ("grid: {A1: {sampling: {sets: {x: {start: {kind: mean}}}}}}", "sets.x.start.kind", "'mean'"),
    "start that does not fit": (
        "grid: {A1: {sampling: {images: 5, sets: {x: {start: {kind: noise}}}}}}", "A1", "'noise'", "means",
    ),
    "start of a degraded image": (
        "grid: {A1: {sampling: {images: 5, sets: {x: {start: {kind: means}, severity: 3}}}}}", "sets.x", "no image",
    ),
    "generations without a number": ("grid: {E17: {sampling: {images: null}}}", "sampling", "how many images"),
    "severity above T": ("grid: {A3: {sampling: {sets: {half: {severity: 70}}}}}", "set half: severity", "1…20", "70"),
    "assumed above T": ("grid: {A3: {sampling: {sets: {half: {assumed_severity: 70}}}}}", "half: assumed_severity"),
    "method without noise": ("grid: {A4: {sampling: {methods: [ddpm]}}}", "A4", "ddpm needs noise"),
    "key of a set": ("grid: {A4: {sampling: {sets: {every_2: {strid: 2}}}}}", "sets.every_2.strid'", "stride'?"),
    "method of a set twice": ("grid: {A4: {sampling: {sets: {x: {methods: [naive, naive]}}}}}", "sets.x", "naive"),
    "no every": ("grid: {A4: {sampling: {sets: {x: {stride: 0}}}}}", "sets.x.stride", "0"),
    "slash in a set": ("grid: {A4: {sampling: {sets: {a/b: {stride: 2}}}}}", "a/b"),
    "no seed": ("seeds: []", "seeds"),
    "negative seed": ("seeds: [-1]", "seeds.0", "-1"),
    "fid": ("fid: [cleen]", "fid.0", "'cleen'", "'clean'"),
    "missing data": ("missing_data: ignore", "missing_data", "'ignore'", "'skip'"),
    # types
    "word for a number": ("seeds: [abc]", "seeds.0", "integer", "'abc'"),
    "word for a rate": ("budgets: {laptop: {training: {learning_rate: fast}}}", "training.learning_rate", "'fast'"),
    "list for a mapping": ("grid: [E01]", "grid", "E01"),
    "word for an entry": ("grid: {E01: hello}", "grid.E01", "'hello'"),
    "empty entry": ("grid: {E01: null}", "grid.E01", "None"),
    "empty protocol": ("grid: {E01: {protocols: {fitted: null}}}", "grid.E01.protocols.fitted"),
    "number for a degradation": ("grid: {E01: {degradation: 5}}", "grid.E01.degradation", "5"),
    "number for a reason": ("grid: {E01: {protocols: {fitted: {rationale: 5}}}}", "grid.E01", "fitted", "rationale"),
    "T in words": ("grid: {E01: {degradation: {T: many}}}", "E01", "T must be a whole number", "'many'"),
    "two runs of one name": (
        "grid: {E01-fitted: {title: a, dataset: mnist, degradation: {name: decolorization, T: 2}, protocol: b,"
        " protocols: {b: {}}}, E01: {protocols: {fitted-b: {}}}}",
        "E01-fitted-b", "rename one of them",
    ),
    "protocol like a seed": ("{seeds: [0, 1], grid: {E01: {protocols: {fitted-s1: {}}}}}", "E01-fitted-s1", "seed 1"),
    "import of another seed": ("{seeds: [1], imports: {E01-fitted: x}}", "run in imports", "E01-fitted-s1"),
    "large before the crop": ("grid: {E01: {preprocessing: {resize: 300}}}", "preprocessing.resize 300", "16 to 256"),
    "widths that begin elsewhere": ("grid: {E01: {network: {dim_mults: [2, 4]}}}", "dim_mults", "begin with 1"),
    "angle brackets in a folder": ("reports: a<b>c", "reports", "'a<b>c'"),
    "number for a partner": ("grid: {E18: {degradation: {partner: 5}}}", "grid.E18.degradation", "partner", "not 5"),
    "threads in words": ("threads: {train: two}", "threads.train", "'two'"),
    "missing title": ("grid: {X: {cell: {table: 1, row: ''}}}", "grid.X.title", "missing"),
    # values that make no sense
    "no update": ("budgets: {laptop: {training: {max_steps: 0}}}", "training.max_steps", "1", "0"),
    "negative updates": ("budgets: {laptop: {training: {max_steps: -5}}}", "training.max_steps", "-5"),
    "half an update": ("budgets: {laptop: {training: {max_steps: 1.5}}}", "training.max_steps", "1.5"),
    "updates in words": ("budgets: {laptop: {training: {max_steps: many}}}", "training.max_steps", "'many'"),
    "odd accumulation": ("budgets: {laptop: {training: {grad_accumulation: 3}}}", "batch_size 32", "accumulation 3"),
    "learning rate 5": ("budgets: {laptop: {training: {learning_rate: 5}}}", "training.learning_rate", "less than 1"),
    "learning rate nan": ("budgets: {laptop: {training: {learning_rate: .nan}}}", "training.learning_rate", "nan"),
    "average never taken": ("budgets: {laptop: {training: {max_steps: 5, ema_update_every: 10}}}", "every 10"),
    "more images than there are": ("budgets: {laptop: {sampling: {images: 20000}}}", "images", "20000", "10000"),
    "no method": ("budgets: {laptop: {sampling: {methods: []}}}", "sampling.methods"),
    "a method twice": ("budgets: {laptop: {sampling: {methods: [direct, direct]}}}", "sampling.methods", "direct"),
    "no threads": ("threads: {train: 0}", "threads.train", "0"),
    "no such table": ("grid: {E01: {cell: {table: 7}}}", "cell.table", "'7'", "'5.3'"),
    "T = 9 halvings": ("grid: {E07: {degradation: {T: 9}}}", "E07", "reduced 5 times", "T ≤ 5"),
    "fractional T": ("grid: {E01: {degradation: {T: 2.5}}}", "E01", "T must be a whole number", "2.5"),
    "negative std": ("grid: {E01: {degradation: {std: -1.0}}}", "E01", "std", "-1.0"),
    "even kernel": ("grid: {E01: {degradation: {kernel: 10}}}", "E01", "kernel must be odd", "10"),
    "odd width": ("budgets: {laptop: {network: {dim: 15}}}", "network.dim", "multiple of 2", "15"),
    "side that does not halve": ("grid: {E01: {size: 30}}", "E01", "multiple of 8", "30"),
    "too many stages": ("budgets: {laptop: {network: {dim_mults: [1,1,1,1,1,1,1]}}}", "7 stages", "64", "32"),
    "side out of range": ("grid: {E04: {size: 264}}", "E04", "264", "256"),
    # mistakes that the chosen budget hides
    "value a budget hides": ("grid: {E01: {training: {learning_rate: fast}}}", "training.learning_rate", "'fast'"),
    "budget not chosen": ("budgets: {mine: {training: {max_steps: -3}}}", "mine", "training.max_steps", "-3"),
    # names become folders and patterns
    "slash in a name": (named("E/9", "a"), "E/9"),
    "space in a name": (named("E 9", "a"), "E 9"),
    "dots for a protocol": (named("E9", ".."), "E9", "'..'"),
    "slash in a budget": ("{budget: a/b, budgets: {a/b: {training: {max_steps: 3}}}}", "a/b"),
    # folders
    "no results folder": ("results: ''", "results"),
    "braces in a folder": ("results: 'a{b}'", "results", "a{b}"),
    "missing data folder": ("data: /no/such/folder", "'/no/such/folder'", "mnist needs", "train-images-idx3-ubyte"),
    "number for a folder": ("data: 5", "data", "5"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_configuration_is_refused_in_one_line(case: str) -> None:
    overlay, *words = BAD[case]
    with pytest.raises(ColdbenchError) as caught:
        grid(overlay)
    message = str(caught.value)
    assert "\n" not in message
    assert not [word for word in words if word not in message], message


# Images of folders, counted before any job


def pictures(folder: Path, train: int, test: int) -> None:
    """A folder of empty image files: they are counted and not read."""
    for split, count in (("train", train), ("test", test)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            (folder / split / f"{number}.png").touch()


def of_folder(**changes: Any) -> dict[str, Any]:
    """The smoke run on the images of data/cats, at 32 images for each set."""
    return merged({"substitute": {"mnist": "digits", "cifar10": "folder-cats", "celeba": "folder-cats"}}, changes)


FEW: dict[str, tuple[tuple[int, int], dict[str, Any], tuple[str, ...]]] = {
    "test images": ((18, 2), {"experiments": ["E05"]}, ("budgets.smoke.sampling.images is 32", "folder-cats has 2")),
    "test images of a protocol": (
        (18, 40),
        {"experiments": ["E05"], "budget": "paper",
         "grid": {"E05": {"protocols": {"paper": {"sampling": {"images": 50}}}}}},
        ("grid.E05.protocols.paper.sampling.images is 50", "folder-cats has 40"),
    ),
    "whole test set": (
        (9, 1),
        {"experiments": ["E05"], "budget": "paper"},
        ("E05 needs 2", "test set of folder-cats has 1"),
    ),
    "images of a set": (
        (90, 40),
        {"experiments": ["E05"], "budgets": {"smoke": {"sampling": {"images": 1}}}},
        ("budgets.smoke.sampling.images is 1", "need 2"),
    ),
    "images of embedded data": (
        (90, 40),
        {"experiments": ["E01"], "budgets": {"smoke": {"sampling": {"images": 500}}}},
        ("budgets.smoke.sampling.images is 500", "digits has 360"),
    ),
    "mixture": (
        (7, 40),
        {"experiments": ["E17"], "grid": {"E17": {"sampling": {"sets": {"generated": {"start": {"components": 8}}}}}}},
        ("grid.E17.sampling.sets.generated.start.components is 8", "folder-cats has 7 training images"),
    ),
    "mixture of embedded data": (
        (90, 40),
        {"experiments": ["E14_afhq", "E15_afhq"],
         "grid": {"E15_afhq": {"sampling": {"sets": {"broken": {"start": {"components": 5000}}}}}}},
        ("grid.E15_afhq.sampling.sets.broken.start.components is 5000", "photos has"),
    ),
    "references of a generation": ((1, 40), {"experiments": ["E16"]}, ("set generated", "1 are too few", "need 2")),
    "test images of a generation": ((9, 1), {"experiments": ["E16"]}, ("test images of folder-cats", "1 are too few")),
    "no test images": ((9, 0), {"experiments": ["E05"]}, ("cats holds no test images",)),
    "partner": (
        (0, 40),
        {"experiments": ["E18"], "substitute": {"celeba": "photos", "afhq": "folder-cats"}},
        ("cats holds no train images",),
    ),
    "partner of a protocol": (
        (0, 40),
        {"experiments": ["E18"], "substitute": {"celeba": "photos"},
         "grid": {"E18": {"protocols": {"cats": {"degradation": {"partner": "folder-cats"}}}}}},
        ("cats holds no train images",),
    ),
    "enough": ((2, 32), {"experiments": ["E05", "E16"]}, ()),
}  # fmt: skip


@pytest.mark.parametrize("case", FEW)
def test_too_few_images_are_refused_before_any_job(case: str, tmp_path: Path) -> None:
    (train, test), changes, words = FEW[case]
    pictures(tmp_path / "data" / "cats", train, test)
    if not words:
        assert grid(of_folder(**changes), "smoke").report_runs
        return
    with pytest.raises(ColdbenchError) as caught:
        grid(of_folder(**changes), "smoke")
    assert not [word for word in words if word not in str(caught.value)], str(caught.value)


def test_images_are_not_counted_for_a_plan() -> None:
    """Its data may lie on another machine."""
    built = build(config(of_folder(experiments=["E05"]), "smoke"), lambda *_: False, False, check_sources=False)
    assert set(built.datasets) == {"folder-cats"}


# Names of folders

ODD_NAMES = ("cats+dogs", "ca(ts)", "a|b", "100 %", "a b", "größe", "-x", ".x", "a..b", "*", "'")
PLACES = (".", "..", "a/b", "../x", "/etc", "a\0b", "a\nb", "a\tb", "a\x7fb", "x" * 181, "ö" * 91, "{x}")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_name_that_a_file_may_have_names_a_data_set(name: str, tmp_path: Path) -> None:
    pictures(tmp_path / "data" / name, 2, 2)
    few = {"laptop": {"sampling": {"images": 2}}}
    built = grid({"substitute": {"mnist": f"folder-{name}"}, "experiments": ["E01"], "budgets": few})
    assert set(built.datasets) == {f"folder-{name}"}


@pytest.mark.parametrize("name", PLACES)
def test_name_that_leads_elsewhere_names_no_data_set(name: str) -> None:
    for overlay in (
        {"substitute": {"mnist": f"folder-{name}"}},
        {"grid": {"E01": {"dataset": f"folder-{name}"}}},
        {"datasets": [f"folder-{name}"]},
        {"grid": {"E18": {"degradation": {"partner": f"folder-{name}"}}}},
        {"grid": {"E18": {"protocols": {"released": {"degradation": {"partner": f"folder-{name}"}}}}}},
    ):
        with pytest.raises(ColdbenchError) as caught:
            grid(overlay)
        message = str(caught.value)
        assert re.search("is a path|control character|is longer|braces", message)
        assert message.isprintable()


@pytest.mark.parametrize(("key", "word"), [("datasets", "mnist"), ("experiments", "E01"), ("reuse_budgets", "paper")])
def test_single_value_is_a_list_of_one(key: str, word: str) -> None:
    """`--config experiments=E01` arrives as a string."""
    done = ("paper/E01-fitted",)
    assert grid({key: word}, done=done).all_runs == grid({key: [word]}, done=done).all_runs
    assert grid({"fid": "clean"}).config.fid == ["clean"]


def test_table_numbers_become_text() -> None:
    """YAML reads 5.3 as a number; both spellings name the same table."""
    for table in (2, "2", 5.3, "5.3", "A.7", ""):
        run = grid({"grid": {"E01": {"cell": {"table": table}}}}).report_runs["E01-fitted"]
        assert run.metadata.cell.table == str(table)


def test_an_experiment_named_twice_is_one() -> None:
    assert list(grid("experiments: [E01, E01]").report_runs) == ["E01-fitted"]


def test_damaged_data_are_refused_before_any_job(tmp_path: Path) -> None:
    raw = tmp_path / "own" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, size in (("train-images-idx3-ubyte", 47040016), ("t10k-images-idx3-ubyte", 5_000_000)):
        with (raw / name).open("wb") as stream:
            stream.truncate(size)  # sparse: no bytes are written
    with pytest.raises(
        ColdbenchError, match=r"t10k-images-idx3-ubyte is truncated or damaged: 5000000 bytes"
    ) as caught:
        grid({"data": str(tmp_path / "own")})
    assert "\n" not in str(caught.value)


def test_embedded_data_need_no_folder() -> None:
    assert set(grid({"data": "/no/such/folder"}, base="smoke").datasets) == {"digits", "photos"}


# Fingerprints


def prints(overlay: str = "") -> dict[str, str]:
    return {name: run.experiment.fingerprint for name, run in grid(overlay).all_runs.items()}


@pytest.mark.parametrize(
    "overlay",
    [
        "grid: {E01: {title: Another}}",
        "grid: {E01: {cell: {table: 2, row: Other}}}",
        "grid: {E01: {protocols: {fitted: {rationale: other words}}}}",
        "grid: {E01: {sampling: {batch_size: 7}}}",
        "budgets: {laptop: {sampling: {images: 5, batch_size: 2, shard_size: 2, methods: [direct]}}}",
        "threads: {train: 16}",
        "max_cpu_hours: 1",
        "device: cpu",
        "{results: elsewhere, reports: nowhere}",
        "protocol: released",
        "{missing_data: refuse, experiments: [E01, E02, E04, E05, E07, E08, E10, E12, A1, A2, A3, A4]}",
        "grid: {A4: {sampling: {sets: {every_2: {stride: 3, released_shift: true}}}}}",
        "{budgets: {laptop: {sampling: {inference_batch: 5, precision: bf16, jobs: 3, max_frames: 4, compile: true}}}}",
        "{fid: [clean], inception: somewhere}",
    ],
)
def test_words_sampling_and_machine_leave_fingerprints_alone(overlay: str) -> None:
    assert prints(overlay) == prints()


def test_the_name_of_a_budget_leaves_fingerprints_alone() -> None:
    same = {"budget": "mine", "budgets": {"mine": load("paper")["budgets"]["laptop"]}}
    assert {n: r.experiment.fingerprint for n, r in grid(same).all_runs.items()} == prints()


def test_models_of_the_grid_are_distinct() -> None:
    """But for models that are borrowed, which are the same on purpose."""
    config = whole({"substitute": {"afhq": "digits"}}).config  # as for animals, another data set than for faces
    seen: dict[str, str] = {}
    for name, entry in config.grid.items():
        for protocol in entry.protocols if entry.model is None else ():
            if name in ("E10", "E11", "E13") and protocol == "released":
                continue  # the released sampler for the model of the fitted protocol
            fingerprint = resolve(config, name, protocol, "paper").experiment.fingerprint
            assert fingerprint not in seen, (name, protocol, seen[fingerprint])
            seen[fingerprint] = f"{name}-{protocol}"
    assert len(seen) > 25


# Layers


def test_an_overlay_changes_only_what_it_names() -> None:
    before = whole().all_runs
    after = whole("grid: {E01: {degradation: {std: 6.0}}}").all_runs
    assert after["E01-fitted"].experiment.degradation == {**before["E01-fitted"].experiment.degradation, "std": 6.0}
    borrowed = {name for name in before if before[name].model.startswith("E01-")}
    assert {n for n in before if before[n] != after[n]} == borrowed
    assert borrowed == {
        f"{name}-{protocol}" for name in ("E01", "A3", "A4") for protocol in ("fitted", "paper", "released")
    }


def test_protocol_lies_over_the_entry_and_budget_over_both() -> None:
    text = """
    budget: mine
    budgets: {mine: {training: {max_steps: 70}, network: {dim: 8}}}
    grid:
      E07:
        training: {max_steps: 50, batch_size: 6}
        network: {dim: 32}
        protocols: {fitted: {training: {batch_size: 10}, degradation: {T: 2}}}
    """
    run = grid(text).all_runs["E07-fitted"]
    assert run.experiment.training.max_steps == 70
    assert run.experiment.training.batch_size == 10
    assert run.experiment.training.learning_rate == Training().learning_rate
    assert run.experiment.network == Network(dim=8)
    assert run.experiment.degradation == {"name": "superresolution", "T": 2, "reduce": "average"}


def test_the_chosen_protocol_is_trained_where_an_experiment_has_it() -> None:
    only = {"experiments": ["E01", "E04", "E07", "A1", "A3"]}
    names = {"E01-released", "E04-released", "E07-released", "A1-released", "A3-released"}
    assert set(grid({"protocol": "released", **only}).report_runs) == names
    names = {"E01-paper", "E04-paper", "E07-fitted", "A1-paper", "A3-paper"}
    assert set(grid({"protocol": "paper", **only}).report_runs) == names


def test_a_substitute_replaces_the_data_set_everywhere() -> None:
    assert grid("datasets: [digits]", base="smoke").datasets == {"digits": {32, 35}}
    animals = grid("experiments: [E18]", base="smoke").report_runs["E18-released"].experiment
    assert (animals.dataset, animals.partner) == ("photos", "photos")


def test_filters_select_experiments_and_data_sets() -> None:
    assert set(grid("experiments: [E04]").all_runs) == {"E04-released", "E04-fitted", "E04-paper", "E04-stated"}
    photos = grid("datasets: [photos]", base="smoke").report_runs
    assert {run.experiment.dataset for run in photos.values()} == {"photos"}
    digits = grid("datasets: [digits]", base="smoke").report_runs
    assert {run.metadata.name for run in digits.values()} == {"E01", "E04", "E07", "A1", "A3", "A4"}
    assert len(photos) + len(digits) == len(grid(base="smoke").report_runs)


def test_results_of_reuse_budgets_are_used_where_they_exist() -> None:
    built = grid(done=("paper/E01-fitted", "smoke/E04-released", "short/E07-fitted", "paper/E07-fitted"))
    assert built.config.reuse_budgets == ["paper", "gpu-hour", "short"]
    budgets = {name: run.metadata.budget for name, run in built.all_runs.items()}
    assert budgets["E01-fitted"] == budgets["E07-fitted"] == "paper"  # the first that is accepted and there
    assert budgets["E01-paper"] == budgets["E04-released"] == "laptop"
    assert budgets["A3-fitted"] == "paper"  # it samples a model that is there
    assert budgets["A3-paper"] == "laptop"
    assert built.all_runs["A3-fitted"].experiment.network == Network()


def test_resolving_names_the_place_of_a_mistake() -> None:
    bad = grid().config.model_copy(update={"seeds": ["x"]})
    with pytest.raises(ColdbenchError, match=r"^grid\.E01, protocol fitted, budget laptop: seed"):
        resolve(bad, "E01", "fitted", "laptop")


# Cost


def test_the_budget_of_the_paper_is_refused_on_a_cpu_with_the_ways_out() -> None:
    run = whole().report_runs["E01-fitted"].experiment
    with pytest.raises(ColdbenchError) as caught:
        refuse_on_cpu(run, 24, CONFIG / "devices.yaml")
    message = str(caught.value)
    assert "\n" not in message
    for word in ("E01-fitted", "budget paper", "days", "24 hours", "--profile slurm", "budget=laptop", "max_cpu_hours"):
        assert word in message
    refuse_on_cpu(run, 24 * 365 * 2, CONFIG / "devices.yaml")


@pytest.mark.parametrize("base", ["laptop", "smoke"])
def test_small_budgets_are_not_refused(base: str) -> None:
    for run in grid(base=base).all_runs.values():
        refuse_on_cpu(run.experiment, 1, CONFIG / "devices.yaml")


# Sampling


def test_the_methods_of_a_set_win_over_those_of_the_run() -> None:
    sampling = whole().report_runs["E15_celeba-released"].sampling
    assert sampling.methods_of("perfect") == ["tacos"]
    assert sampling.methods_of("broken") == ["direct", "naive", "tacos"]


@pytest.mark.parametrize("layer", ["protocols: {released: {sampling: {other_draw: true}}}", ""])
def test_upper_layer_may_state_a_default_again(layer: str) -> None:
    """What a protocol or budget states counts, also where it is the default of the code."""
    lower = f"grid: {{E04: {{sampling: {{other_draw: false}}, {layer}}}}}"
    upper = {} if layer else {"budgets": {"laptop": {"sampling": {"other_draw": True}}}}
    assert not grid("grid: {E04: {sampling: {other_draw: false}}}").report_runs["E04-released"].sampling.other_draw
    assert grid(merged(yaml.safe_load(lower), upper)).report_runs["E04-released"].sampling.other_draw
