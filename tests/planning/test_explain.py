"""What `coldbench explain` says: the values of the resolved runs, and the layer that really decides each."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cases import ROOT
from hypothesis import given
from hypothesis import strategies as st

from coldbench import degradations
from coldbench.cli import app
from coldbench.core.errors import ColdbenchError
from coldbench.core.validation import deciding, merged
from coldbench.planning import layers
from coldbench.planning.explain import Explainer
from coldbench.planning.facts import Value, as_json, as_text
from coldbench.planning.layers import Layer

OVERLAID: dict[str, tuple[str, ...]] = {
    "as it is": (),
    "this machine": ("workflow/config/laptop.yaml",),
    "short": ("workflow/config/laptop.yaml", "workflow/config/short.yaml"),
    "smoke": ("workflow/config/smoke.yaml",),
    "further experiments": ("workflow/config/laptop.yaml", "workflow/config/variants.yaml"),
    "words": (
        "workflow/config/laptop.yaml",
        "budget=paper",
        "protocol=paper",
        "substitute={celeba: photos, afhq: photos, cifar10: photos}",
        "grid={E04: {training: {max_steps: 4000}, protocols: {paper: {training: {loss: l2}}}},"
        " E01: {degradation: {T: 30}, sampling: {methods: [direct, {name: tacos, t_offset: 1}]}}}",
        "grid={E04: {training: {max_steps: 5000}}, E07: {sampling: {other_draw: true}}}",
        "budgets={paper: {training: {batch_size: 32}, sampling: {images: 100}}}",
    ),
}
"""Files and words on top of the grid."""
EXPERIMENTS = ("E01", "E04", "E07", "E15_celeba", "E18", "A3")
"""Experiments of several families, one that samples another's model, and one with a partner."""


@pytest.fixture(autouse=True)
def _checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@cache
def stated(name: str) -> tuple[Layer, ...]:
    return tuple(layers.load([layers.GRID, *OVERLAID[name]]))


@cache
def explainer(name: str) -> Explainer:
    return Explainer(stated(name))


def one(explainer: Explainer, key: str) -> Value:
    """The value in force of a key of one experiment, or of all."""
    (facts,) = explainer.explain(key)
    (value,) = facts.values
    return value


def resolved_value(explainer: Explainer, experiment: str, key: str) -> Any:
    """The value that the run works with, read from the run itself."""
    run, path = explainer.run(experiment), key.split(".")
    if path[0] == "degradation":
        built: Any = degradations.build(run.experiment.degradation, run.experiment.size)
        return run.experiment.degradation["name"] if path[1] == "name" else getattr(built, path[1])
    owners = {"title": run.metadata, "cell": run.metadata, "protocol": run.metadata, "sampling": run}
    value: Any = owners.get(path[0], run.experiment)
    for part in path:
        value = value[part] if isinstance(value, Mapping) else getattr(value, part)
    return value


def plain(value: Any) -> Any:
    return json.loads(json.dumps(value, default=lambda each: each.model_dump()))


# Values


@pytest.mark.parametrize("name", OVERLAID)
def test_explained_value_of_every_key_is_that_of_the_run(name: str) -> None:
    explained, count = explainer(name), 0
    for experiment in explained.config.grid:
        for key in explained.leaves(experiment):
            if key != "model":  # the name of an experiment; a run names the run that it samples
                value = one(explained, f"{experiment}.{key}")
                assert value.is_set, (experiment, key)
                assert value.value == plain(resolved_value(explained, experiment, key)), (experiment, key)
                assert value == one(explained, f"grid.{experiment}.{key}")
                count += 1
    assert count > 40 * len(explained.config.grid)


@pytest.mark.parametrize("name", OVERLAID)
def test_key_of_all_experiments_gathers_what_each_of_them_has(name: str) -> None:
    explained = explainer(name)
    for key in ("training.max_steps", "degradation.T", "degradation.kernel", "sampling.sets.test.stride", "dataset"):
        gathered = [value for facts in explained.explain(key) for value in facts.values]
        names = [value.experiment for value in gathered]
        knowing = [each for each in explained.config.grid if key in explained.leaves(each)]
        assert sorted(names) == sorted(knowing)
        assert gathered == [one(explained, f"{each}.{key}") for each in names]


@pytest.mark.parametrize("name", OVERLAID)
def test_explained_value_of_a_key_of_the_configuration_is_that_of_the_configuration(name: str) -> None:
    explained = explainer(name)
    for key in type(explained.config).model_fields.keys() - {"grid", "budgets", "threads", "substitute"}:
        value = one(explained, key)
        assert value.value == getattr(explained.config, key), key
        stating = [layer.source for layer in stated(name) if key in layer.values]
        assert value.origin.source == (stating[-1] if stating else ""), key


# Layers

JSON = st.recursive(
    st.one_of(st.none(), st.integers(0, 9), st.text("ab", max_size=1)),
    lambda below: st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), max_size=4))
def test_deciding_layer_is_the_one_whose_value_the_merged_layers_have(some: list[dict[str, Any]]) -> None:
    """Leaf by leaf: the layer has the value, and without it the value is another or decided by another layer."""
    waiting: list[tuple[tuple[str, ...], Any]] = [((), merged(*some))]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Mapping) and value:
            waiting += [((*path, key), each) for key, each in value.items()]
        elif path:
            number = deciding(some, path)
            assert number is not None
            below: Any = some[number]
            for key in path:
                below = below[key]
            assert below == value
            assert all(deciding([layer], path) is None for layer in some[number + 1 :])
    assert deciding(some, ("d",)) is None
    assert deciding([], ("a",)) is None


def without(layer: Layer, place: str) -> Layer:
    """The layer without what it states at a place; keys of this configuration hold no full stops."""
    values = plain(layer.values)
    *above, last = place.split(".")
    part = values
    for key in above:
        part = part[key]
    del part[last]
    return Layer(layer.source, values)


@pytest.mark.parametrize("name", OVERLAID)
def test_without_the_named_statement_the_value_comes_from_elsewhere(name: str) -> None:
    """The named place of the named layer really states the value. A place that several runs share is tried once."""
    explained, given_layers, tried = explainer(name), stated(name), set()
    for experiment, key in ((each, key) for each in EXPERIMENTS for key in explained.leaves(each)):
        value = one(explained, f"{experiment}.{key}")
        if value.origin.layer == "default" or ".samplers." in value.origin.place or value.origin in tried:
            continue
        tried.add(value.origin)
        last = max(number for number, each in enumerate(given_layers) if each.source == value.origin.source)
        changed = list(given_layers)
        changed[last] = without(changed[last], value.origin.place)
        try:
            again = one(Explainer(changed), f"{experiment}.{key}")
        except ColdbenchError:  # no title, data set, protocol or degradation is left, or settings no longer fit
            continue
        assert again.origin != value.origin, key
    assert len(tried) > 40


@pytest.mark.parametrize("name", [name for name in OVERLAID if OVERLAID[name]])
def test_nothing_comes_from_a_layer_that_is_left_out(name: str) -> None:
    sources = {layer.source for layer in stated(name)}
    for left_out in OVERLAID[name]:
        explained = Explainer([layer for layer in stated(name) if layer.source != left_out])
        values = [one(explained, f"{each}.{key}") for each in ("E01", "E04") for key in explained.leaves(each)]
        assert {value.origin.source for value in values} - {""} <= sources - {left_out}


ORIGINS = {
    ("as it is", "E04.training.max_steps"): ("default", ""),
    ("as it is", "E04.degradation.std"): ("experiment", "grid.E04.degradation.std"),
    ("this machine", "E04.training.max_steps"): ("budget", "budgets.laptop.training.max_steps"),
    ("this machine", "A3.degradation.T"): ("experiment", "grid.E01.degradation.T"),
    ("smoke", "E04.degradation.T"): ("experiment", "grid.E04.degradation.T"),
    ("smoke", "E04.dataset"): ("substitute", "substitute.mnist"),
    ("smoke", "E18.degradation.partner"): ("substitute", "substitute.afhq"),
    ("words", "E04.protocol"): ("configuration", "protocol"),
    ("words", "E04.training.loss"): ("protocol", "grid.E04.protocols.paper.training.loss"),
    ("words", "E04.training.batch_size"): ("budget", "budgets.paper.training.batch_size"),
    ("words", "E01.sampling.methods"): ("experiment", "grid.E01.sampling.methods"),
    ("words", "E01.sampling.samplers.tacos_t_offset1.t_offset"): (
        "experiment", "grid.E01.sampling.samplers.tacos_t_offset1.t_offset",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("name", "key"), ORIGINS)
def test_origin_names_layer_and_place(name: str, key: str) -> None:
    origin = one(explainer(name), key).origin
    assert (origin.layer, origin.place) == ORIGINS[name, key]
    assert origin.source in ("", *(layer.source for layer in stated(name)))


def test_later_word_takes_precedence_over_an_earlier_one() -> None:
    value = one(explainer("words"), "grid.E04.training.max_steps")
    assert value.origin.source.startswith("grid={E04: {training: {max_steps: 5000}}") or value.value == 60_000


# Other places

LAPTOP = layers.read([ROOT / "workflow/config/paper.yaml"])["budgets"]["laptop"]


def test_place_of_a_layer_is_explained_as_that_layer_states_it() -> None:
    explained = explainer("this machine")
    assert one(explained, "budgets.laptop.training.max_steps").value == LAPTOP["training"]["max_steps"]
    assert one(explained, "grid.E01.protocols.paper.degradation.T").value == 40
    for key in ("budgets.paper.training.max_steps", "grid.E01.protocols.fitted.training.max_steps"):
        assert not one(explained, key).is_set


@pytest.mark.parametrize(
    "key", ["training", "E04.training", "E04.sampling.sets", "budgets", "grid", "E04", "degradation"]
)
def test_group_of_keys_lists_the_keys_below_it(key: str) -> None:
    for facts in explainer("this machine").explain(key):
        assert not facts.values
        assert all(text.strip() for text in facts.keys.values())
        for below in facts.keys:
            assert explainer("this machine").explain(f"{key}.{below}")


def test_parameters_of_degradations_that_mean_different_things_are_kept_apart() -> None:
    facts = explainer("this machine").explain("degradation.rate")
    assert len({each.description for each in facts}) == len(facts) > 1


REFUSED = {
    "trainig.max_steps": "training.max_steps",
    "max_steps": "training.max_steps",
    "E04.trainig": "E04.training",
    "E04.training.max_stesp": "E04.training.max_steps",
    "grid.E04.training.max_stesp": "E04.training.max_steps",
    "E4.training.max_steps": "E04.training.max_steps",
    "training.max_step": "training.max_steps",
    "E04.degradation.kernel_size": "T",
    "degradation.paddin": "degradation.padding",
    "E04.sampling.sets.tset": "E04.sampling.sets.test",
    "budgets.lapto": "budgets.laptop",
    "budgets.laptop.trainin": "budgets.laptop.training",
    "grid.E04.protocols.pape": "grid.E04.protocols.paper",
    "threads.trian": "threads.train",
    "fids": "fid",
    "budget=paper": "budget",
    "": "budget",
    ".": "budget",
    "training.": "training",
}
"""Unknown keys, and what the line names."""


@pytest.mark.parametrize("key", REFUSED)
def test_unknown_key_ends_in_one_line_with_the_nearest_one(key: str) -> None:
    with pytest.raises(ColdbenchError) as caught:
        explainer("this machine").explain(key)
    message = str(caught.value)
    assert message.startswith("unknown key")
    assert REFUSED[key] in message
    assert "\n" not in message


# Plug-ins


def test_parameters_of_a_plugin_are_explained_as_far_as_they_are_known() -> None:
    explained = Explainer(layers.load([layers.GRID, "workflow/config/smoke.yaml", "examples/low_dose_ct.yaml"]))
    own = [each for each, entry in explained.config.grid.items() if entry.degradation["name"] == "low_dose_ct"]
    assert own
    for key in explained.leaves(own[0]):
        value = one(explained, f"{own[0]}.{key}")
        if key.startswith("degradation."):
            assert value.origin.source
            assert value.value == explained.run(own[0]).experiment.degradation[key.split(".")[1]]


# The verb


def run_verb(*words: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from coldbench.cli import main\ntry: main()\nfinally: assert 'torch' not in sys.modules"
    return subprocess.run([sys.executable, "-c", code, "explain", *words], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("words", [(), ("E04.degradation.T",), ("training.max_steps", "--json"), ("fid", "fid=clean")])
def test_answer_needs_no_torch_and_comes_soon(words: tuple[str, ...]) -> None:
    before = time.monotonic()
    ended = run_verb(*words)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip()
    assert time.monotonic() - before < 10  # about a second on an idle machine


def test_unknown_key_ends_the_verb_in_one_line() -> None:
    ended = run_verb("trainig.max_steps")
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert "'training.max_steps'" in ended.stderr


def test_lines_are_short_and_name_every_experiment() -> None:
    explained = explainer("this machine")
    for key in ("training.max_steps", "degradation.T", "fid", "sampling.methods", "E04.degradation"):
        text = as_text(key, explained.explain(key))
        assert max(map(len, text.splitlines())) <= 100
        facts = explained.explain(key)
        assert all(value.experiment in text for each in facts for value in each.values)
    assert len(as_text("", explained.listed()).splitlines()) > 35


def test_json_holds_every_value_with_its_place() -> None:
    explained = explainer("this machine")
    answer = json.loads(as_json("training.max_steps", explained.explain("training.max_steps")))
    (facts,) = answer["facts"]
    assert len(facts["values"]) == len(explained.grid.report_runs)
    assert {value["origin"]["place"] for value in facts["values"]} == {"budgets.laptop.training.max_steps"}


def test_verb_takes_the_words_of_plan() -> None:
    verbs = {command.callback.__name__: command for command in app.registered_commands if command.callback}
    plan, explain = (verbs[name].callback.__annotations__ for name in ("plan", "explain"))
    assert {key: plan[key] for key in ("config", "profile", "as_json")}.items() <= explain.items()


def test_file_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ColdbenchError, match=r"paper\.yaml"):
        Explainer(layers.load(layers.words([])))
