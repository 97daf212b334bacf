"""The configuration: what is refused and in which words, what a fingerprint depends on, how layers merge.

Everything here runs in this process on the shipped files of workflow/config, with overlays as a user would write them.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from coldbench.errors import ColdbenchError
from coldbench.experiment import Experiment, Network, Training, fingerprint, from_json, merged, resolve
from coldbench.grid import Grid, build, cpu_hours, refuse_on_cpu

CONFIG = Path(__file__).parent.parent / "workflow" / "config"
SHIPPED = ("paper", "laptop", "smoke")


def load(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIG / f"{name}.yaml").read_text(encoding="utf-8"))


def config(overlay: str | Mapping[str, Any] = "", base: str = "laptop") -> dict[str, Any]:
    """The shipped grid with a shipped overlay and one of our own (YAML text), as Snakemake would hand it over."""
    own = yaml.safe_load(overlay) if isinstance(overlay, str) else overlay
    return merged(load("paper"), {} if base == "paper" else load(base), own or {})


def grid(overlay: str | Mapping[str, Any] = "", base: str = "laptop", done: tuple[str, ...] = ()) -> Grid:
    return build(config(overlay, base), lambda budget, run: f"{budget}/{run}" in done)


@pytest.fixture(autouse=True)
def _empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No data lie in the working directory, so the default data folder is one to download into."""
    monkeypatch.chdir(tmp_path)


# The shipped configurations


@pytest.mark.parametrize("base", SHIPPED)
def test_shipped_configurations_are_valid(base: str) -> None:
    found = grid(base=base)
    assert found.trained
    assert found.trained.keys() <= found.readings.keys()
    assert {run.experiment.budget for run in found.readings.values()} == {base}


@pytest.mark.parametrize("base", SHIPPED)
def test_names_that_stand_in_paths_are_safe(base: str) -> None:
    for name, run in grid(base=base).readings.items():
        assert name == run.experiment.run
        for part in (name, run.experiment.budget):
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]*", part)


def test_one_protocol_of_each_experiment_is_trained() -> None:
    found = grid(base="paper")
    assert {run.experiment.name for run in found.trained.values()} == set(found.config.grid)
    assert len(found.trained) == len(found.config.grid)
    assert all(run.about.default == (name in found.trained) for name, run in found.readings.items())


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
    "budget part": ("budgets: {laptop: {trainnig: {updates: 5}}}", "trainnig", "'budgets.laptop.training'?"),
    "budget key": ("budgets: {laptop: {training: {updats: 5}}}", "'training.updats'", "'training.updates'?"),
    "network key": ("grid: {E01: {network: {dmi: 8}}}", "'network.dmi'", "did you mean 'network.dim'?"),
    "protocol key": ("grid: {E01: {protocols: {fitted: {becuase: x}}}}", "'becuase'", "did you mean 'because'?"),
    "threads key": ("threads: {trian: 2}", "threads.trian", "'train'"),
    # names
    "budget": ("budget: laptpo", "'laptpo'", "did you mean 'laptop'?"),
    "accepted budget": ("accept: [papr]", "'papr'", "did you mean 'paper'?"),
    "protocol": ("protocol: relased", "'relased'", "did you mean 'released'?"),
    "protocol of an entry": ("grid: {E01: {protocol: fited}}", "E01 'fited'", "did you mean 'fitted'?"),
    "experiment": ("experiments: [E10]", "experiment 'E10'", "E01"),
    "experiment in lower case": ("experiments: [e01]", "'e01'", "did you mean 'E01'?"),
    "data set": ("grid: {E01: {dataset: mnits}}", "'mnits'", "did you mean 'mnist'?"),
    "filtered data set": ("datasets: [mnits]", "'mnits'", "did you mean 'mnist'?"),
    "data set standing in": ("stand_in: {mnist: digts}", "'digts'", "did you mean 'digits'?"),
    "data set stood in for": ("stand_in: {mnits: digits}", "'mnits'", "did you mean 'mnist'?"),
    "degradation": ("grid: {E01: {degradation: {name: blurr}}}", "E01", "'blurr'", "did you mean 'blur'?"),
    "parameter": ("grid: {E01: {degradation: {kernal: 5}}}", "E01", "'kernal'", "did you mean 'kernel'?"),
    "schedule": ("grid: {E01: {degradation: {schedule: constnat}}}", "'constnat'", "did you mean 'constant'?"),
    "network": ("budgets: {laptop: {network: {name: unet_convnxt}}}", "'unet_convnxt'", "'unet_convnext'?"),
    "method": ("budgets: {laptop: {sampling: {methods: [direkt]}}}", "sampling.methods", "'direkt'", "'direct'"),
    "device": ("device: gpu", "device", "'gpu'", "'cuda'"),
    "filter that fits nothing": ("datasets: [photos]", "photos", "mnist"),
    # types
    "word for a number": ("seed: abc", "seed", "integer", "'abc'"),
    "word for a rate": ("budgets: {laptop: {training: {learning_rate: fast}}}", "training.learning_rate", "'fast'"),
    "list for a mapping": ("grid: [E01]", "grid", "E01"),
    "word for an entry": ("grid: {E01: hello}", "grid.E01", "'hello'"),
    "empty entry": ("grid: {E01: null}", "grid.E01", "None"),
    "empty protocol": ("grid: {E01: {protocols: {fitted: null}}}", "grid.E01.protocols.fitted"),
    "number for a degradation": ("grid: {E01: {degradation: 5}}", "grid.E01.degradation", "5"),
    "number for a reason": ("grid: {E01: {protocols: {fitted: {because: 5}}}}", "grid.E01", "fitted", "because"),
    "quoted T": ("grid: {E01: {degradation: {T: '20'}}}", "E01", "T must be a whole number", "'20'"),
    "threads in words": ("threads: {train: two}", "threads.train", "'two'"),
    "missing title": ("grid: {X: {cell: {table: 1, row: ''}}}", "grid.X.title", "missing"),
    # values that make no sense
    "no update": ("budgets: {laptop: {training: {updates: 0}}}", "training.updates", "1", "0"),
    "negative updates": ("budgets: {laptop: {training: {updates: -5}}}", "training.updates", "-5"),
    "half an update": ("budgets: {laptop: {training: {updates: 1.5}}}", "training.updates", "1.5"),
    "updates in words": ("budgets: {laptop: {training: {updates: many}}}", "training.updates", "'many'"),
    "odd accumulation": ("budgets: {laptop: {training: {accumulation: 3}}}", "total_batch 32", "accumulation 3"),
    "learning rate 5": ("budgets: {laptop: {training: {learning_rate: 5}}}", "training.learning_rate", "less than 1"),
    "learning rate nan": ("budgets: {laptop: {training: {learning_rate: .nan}}}", "training.learning_rate", "nan"),
    "average never taken": ("budgets: {laptop: {training: {updates: 5, ema_every: 10}}}", "ema_every", "10", "5"),
    "more images than there are": ("budgets: {laptop: {sampling: {images: 20000}}}", "images", "20000", "10000"),
    "no method": ("budgets: {laptop: {sampling: {methods: []}}}", "sampling.methods"),
    "a method twice": ("budgets: {laptop: {sampling: {methods: [direct, direct]}}}", "sampling.methods", "direct"),
    "no threads": ("threads: {train: 0}", "threads.train", "1"),
    "no such table": ("grid: {E01: {cell: {table: 7}}}", "cell.table", "7"),
    "T = 9 halvings": ("grid: {E07: {degradation: {T: 9}}}", "E07", "reduced 5 times", "T ≤ 5"),
    "fractional T": ("grid: {E01: {degradation: {T: 2.5}}}", "E01", "T must be a whole number", "2.5"),
    "negative std": ("grid: {E01: {degradation: {std: -1.0}}}", "E01", "std", "-1.0"),
    "even kernel": ("grid: {E01: {degradation: {kernel: 10}}}", "E01", "kernel must be odd", "10"),
    "odd width": ("budgets: {laptop: {network: {dim: 15}}}", "network.dim", "multiple of 2", "15"),
    "side that does not halve": ("grid: {E01: {size: 30}}", "E01", "multiple of 8", "30"),
    "too many stages": ("budgets: {laptop: {network: {dim_mults: [1,1,1,1,1,1,1]}}}", "7 stages", "64", "32"),
    "side out of range": ("grid: {E01: {size: 264}}", "E01", "264", "256"),
    # mistakes that the chosen budget hides
    "value a budget hides": ("grid: {E01: {training: {learning_rate: fast}}}", "training.learning_rate", "'fast'"),
    "budget not chosen": ("budgets: {mine: {training: {updates: -3}}}", "mine", "training.updates", "-3"),
    # names become folders and patterns
    "slash in a name": (named("E/9", "a"), "E/9"),
    "space in a name": (named("E 9", "a"), "E 9"),
    "dots for a protocol": (named("E9", ".."), "E9", "'..'"),
    "slash in a budget": ("{budget: a/b, budgets: {a/b: {training: {updates: 3}}}}", "a/b"),
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


@pytest.mark.parametrize("key", ["datasets", "experiments"])
def test_a_filter_given_as_a_word_works_or_tells_how_to_write_it(key: str) -> None:
    """`--config experiments=E01` arrives as a string, and the first error a newcomer sees should get him further."""
    word = {"datasets": "mnist", "experiments": "E01"}[key]
    try:
        found = list(grid({key: word}).trained)
    except ColdbenchError as error:
        told = str(error)
    else:
        told = f"[{word}]"
        assert found == list(grid({key: [word]}).trained)
    assert f"[{word}]" in told


def test_an_experiment_named_twice_is_one() -> None:
    assert list(grid("experiments: [E01, E01]").trained) == ["E01-fitted"]


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


@pytest.mark.parametrize("text", ["{", "[]", '{"name": 1}', '{"nmae": "x"}'])
def test_an_experiment_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ColdbenchError) as caught:
        from_json(Experiment, text, "experiment")
    assert str(caught.value).startswith("experiment")
    assert "\n" not in str(caught.value)


# Fingerprints


def prints(overlay: str = "", base: str = "laptop") -> dict[str, str]:
    return {name: run.experiment.fingerprint for name, run in grid(overlay, base).readings.items()}


@pytest.mark.parametrize(
    "overlay",
    [
        "grid: {E01: {title: Another}}",
        "grid: {E01: {cell: {table: 2, row: Other}}}",
        "grid: {E01: {protocols: {fitted: {because: other words}}}}",
        "grid: {E01: {sampling: {batch: 7}}}",
        "budgets: {laptop: {sampling: {images: 5, batch: 2, shard: 2, methods: [direct]}}}",
        "threads: {train: 16}",
        "max_cpu_hours: 1",
        "device: cpu",
        "{results: elsewhere, reports: nowhere}",
        "protocol: released",
        "experiments: [E01, E04, E07]",
    ],
)
def test_words_sampling_and_machine_leave_fingerprints_alone(overlay: str) -> None:
    assert prints(overlay) == prints()


def test_the_name_of_a_budget_leaves_fingerprints_alone() -> None:
    same = {"budget": "mine", "budgets": {"mine": load("paper")["budgets"]["laptop"]}}
    assert {n: r.experiment.fingerprint for n, r in grid(same).readings.items()} == prints()


@pytest.mark.parametrize("field", ["name", "protocol", "budget"])
def test_names_are_no_science(experiment: Experiment, field: str) -> None:
    assert experiment.model_copy(update={field: "other"}).fingerprint == experiment.fingerprint


def other(value: Any) -> Any:
    """A value of the same type that is not the same."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 0.5 or 0.5
        case None:
            return 99
        case str():
            return value + "x"
        case list():
            return [*value, 1]
    raise TypeError(type(value))


@pytest.mark.parametrize("field", ["dataset", "size", "seed"])
def test_every_field_of_an_experiment_is_science(experiment: Experiment, field: str) -> None:
    changed = experiment.model_copy(update={field: other(getattr(experiment, field))})
    assert changed.fingerprint != experiment.fingerprint


def test_no_field_of_an_experiment_is_forgotten_here() -> None:
    tested = {"dataset", "size", "seed", "degradation", "images", "network", "training"}
    assert set(Experiment.model_fields) == tested | {"name", "protocol", "budget"}


@pytest.mark.parametrize("part", ["images", "network", "training"])
def test_every_field_of_the_parts_is_science(experiment: Experiment, part: str) -> None:
    below: BaseModel = getattr(experiment, part)
    found = {experiment.fingerprint}
    for field in type(below).model_fields:
        changed = below.model_copy(update={field: other(getattr(below, field))})
        found.add(experiment.model_copy(update={part: changed}).fingerprint)
    assert len(found) == 1 + len(type(below).model_fields)


def test_every_parameter_of_a_degradation_is_science(experiment: Experiment) -> None:
    found = {experiment.fingerprint}
    for key, value in experiment.degradation.items():
        changed = {**experiment.degradation, key: other(value)}
        found.add(experiment.model_copy(update={"degradation": changed}).fingerprint)
    assert len(found) == 1 + len(experiment.degradation)


def test_the_order_of_keys_and_a_trip_through_json_change_nothing(experiment: Experiment) -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    again = from_json(Experiment, experiment.model_dump_json(), "experiment")
    assert again == experiment
    assert again.fingerprint == experiment.fingerprint


def test_fingerprints_of_the_grid_are_distinct() -> None:
    found = prints(base="paper")
    assert len(set(found.values())) == len(found)


# Layers

Trees = st.recursive(
    st.integers(0, 9) | st.none() | st.sampled_from("xyz") | st.lists(st.integers(0, 9), max_size=2),
    lambda below: st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)
Layers = st.dictionaries(st.sampled_from("abc"), Trees, max_size=3)


@settings(deadline=None)
@given(Layers)
def test_merging_with_nothing_or_itself_changes_nothing(layer: dict[str, Any]) -> None:
    assert merged() == {}
    assert merged(layer) == merged({}, layer) == merged(layer, {}) == merged(layer, layer) == layer


@settings(deadline=None)
@given(Layers, Layers, Layers)
def test_layers_are_merged_from_below(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    assert merged(a, b, c) == merged(merged(a, b), c)


@settings(deadline=None)
@given(Layers, Layers)
def test_the_upper_layer_wins_key_by_key(below: dict[str, Any], above: dict[str, Any]) -> None:
    before = copy.deepcopy((below, above))
    result = merged(below, above)
    assert (below, above) == before  # layers themselves are left alone

    def check(result: Any, below: Any, above: Any) -> None:
        assert result.keys() == below.keys() | above.keys()
        for key in result:
            if key not in above:
                assert result[key] == below[key]
            elif isinstance(above[key], dict) and isinstance(below.get(key), dict):
                check(result[key], below[key], above[key])
            else:
                assert result[key] == above[key]

    check(result, below, above)


def test_an_overlay_changes_only_what_it_names() -> None:
    before = grid(base="paper").readings
    after = grid("grid: {E01: {degradation: {std: 6.0}}}", base="paper").readings
    assert after["E01-fitted"].experiment.degradation == {**before["E01-fitted"].experiment.degradation, "std": 6.0}
    assert {n for n in before if before[n] != after[n]} == {"E01-fitted", "E01-paper"}


def test_protocol_lies_over_the_entry_and_budget_over_both() -> None:
    text = """
    budget: mine
    budgets: {mine: {training: {updates: 70}, network: {dim: 8}}}
    grid:
      E07:
        training: {updates: 50, total_batch: 6}
        network: {dim: 32}
        protocols: {fitted: {training: {total_batch: 10}, degradation: {T: 2}}}
    """
    run = grid(text).readings["E07-fitted"]
    assert run.experiment.training.updates == 70
    assert run.experiment.training.total_batch == 10
    assert run.experiment.training.learning_rate == Training().learning_rate
    assert run.experiment.network == Network(dim=8)
    assert run.experiment.degradation == {"name": "superresolution", "T": 2, "reduce": "average"}


def test_the_chosen_protocol_is_trained_where_an_experiment_has_it() -> None:
    assert set(grid("protocol: released").trained) == {"E01-fitted", "E04-released", "E07-released"}
    assert set(grid("protocol: paper").trained) == {"E01-paper", "E04-released", "E07-fitted"}


def test_a_stand_in_replaces_the_data_set_everywhere() -> None:
    assert grid("datasets: [digits]", base="smoke").datasets == {"digits": {32}}


def test_filters_select_experiments_and_data_sets() -> None:
    assert set(grid("experiments: [E04]").readings) == {"E04-released", "E04-fitted"}
    assert set(grid("datasets: [photos]", base="smoke").trained) == {"S1-smoke", "S2-smoke", "S3-smoke"}


def test_accepted_results_are_taken_where_they_exist() -> None:
    found = grid(done=("paper/E01-fitted", "smoke/E04-released"))  # laptop.yaml accepts the paper's budget only
    assert found.readings["E01-fitted"].experiment.budget == "paper"
    assert found.readings["E01-paper"].experiment.budget == "laptop"
    assert found.readings["E04-released"].experiment.budget == "laptop"


def test_resolving_names_the_place_of_a_mistake() -> None:
    checked = grid().config
    bad = checked.model_copy(update={"seed": "x"})
    with pytest.raises(ColdbenchError, match=r"^grid\.E01, protocol fitted, budget laptop: seed"):
        resolve(bad, "E01", "fitted", "laptop")


# Cost


def test_the_budget_of_the_paper_is_refused_on_a_cpu_with_the_ways_out() -> None:
    run = grid(base="paper").trained["E01-fitted"].experiment
    with pytest.raises(ColdbenchError) as caught:
        refuse_on_cpu(run, 24)
    message = str(caught.value)
    assert "\n" not in message
    for word in ("E01-fitted", "budget paper", "days", "24 hours", "--profile slurm", "budget=laptop", "max_cpu_hours"):
        assert word in message
    refuse_on_cpu(run, 24 * 365)


@pytest.mark.parametrize("base", ["laptop", "smoke"])
def test_small_budgets_are_not_refused(base: str) -> None:
    for run in grid(base=base).trained.values():
        refuse_on_cpu(run.experiment, 1)


def test_cost_grows_with_updates_batch_width_and_side(experiment: Experiment) -> None:
    base = cpu_hours(experiment)
    training, network = experiment.training, experiment.network
    assert cpu_hours(experiment.model_copy(update={"size": 32})) == pytest.approx(4 * base)
    for field in ("updates", "total_batch"):
        twice = training.model_copy(update={field: 2 * getattr(training, field)})
        assert cpu_hours(experiment.model_copy(update={"training": twice})) == pytest.approx(2 * base)
    wider = network.model_copy(update={"dim": 2 * network.dim})
    assert cpu_hours(experiment.model_copy(update={"network": wider})) > 2 * base
