"""The schema of the configuration: what a fingerprint depends on, how layers merge, what is converted and refused."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from coldbench.core.config import Config
from coldbench.core.errors import ColdbenchError, MissingFile, unknown
from coldbench.core.experiment import Experiment, Network, Preprocessing, Training
from coldbench.core.sampling_settings import Sampling
from coldbench.core.validation import checked, fingerprint, from_json, merged

# Fingerprints


def other(value: Any) -> Any:
    """Another value of the same type."""
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


def variants(experiment: Experiment) -> dict[str, Experiment]:
    """The experiment with one value changed, for every value of it, by the path of the value."""
    changed = {}
    for field in Experiment.model_fields:
        value = getattr(experiment, field)
        if isinstance(value, BaseModel):
            for key in type(value).model_fields:
                part = value.model_copy(update={key: other(getattr(value, key))})
                changed[f"{field}.{key}"] = experiment.model_copy(update={field: part})
        elif isinstance(value, Mapping):
            for key in value:
                part = {**value, key: other(value[key])}
                changed[f"{field}.{key}"] = experiment.model_copy(update={field: part})
        else:
            changed[field] = experiment.model_copy(update={field: other(value)})
    return changed


def test_fingerprint_depends_on_every_value_but_the_names(experiment: Experiment) -> None:
    prints = {path: variant.fingerprint for path, variant in variants(experiment).items()}
    unchanged = {path for path, value in prints.items() if value == experiment.fingerprint}
    assert unchanged == {"name", "protocol", "budget", "snapshot", "training.snapshots"}
    assert len(set(prints.values())) == len(prints) - len(unchanged) + 1
    assert len(prints) > 25


def test_fingerprint_is_pinned(experiment: Experiment) -> None:
    """Every trained model is found by its fingerprint: a change needs a new `HASH_VERSION`."""
    assert experiment.fingerprint == "2aef98e0e5f5118f"


def test_fingerprint_survives_json_and_another_order_of_keys(experiment: Experiment) -> None:
    assert fingerprint({"a": 1, "b": {"c": 2, "d": 3}}) == fingerprint({"b": {"d": 3, "c": 2}, "a": 1})
    again = from_json(Experiment, experiment.model_dump_json(), "experiment")
    assert again == experiment
    assert again.fingerprint == experiment.fingerprint


def test_default_training_and_network_are_the_papers() -> None:
    """Appendix A: 700,000 steps of 32 × 2 images, Adam at 2e-5, average of decay 0.995 every 10 steps from 2,000."""
    training, network = Training(), Network()
    assert (training.max_steps, training.batch_size, training.micro_batch) == (700_000, 64, 32)
    assert (training.learning_rate, training.loss, training.precision) == (2e-5, "l1", "fp32")
    assert (training.ema_decay, training.ema_update_every, training.ema_start) == (0.995, 10, 2000)
    assert (network.dim, network.dim_mults) == (64, [1, 2, 4, 8])


# Conversion and refusals


def test_numbers_and_flags_may_be_text(experiment: Experiment) -> None:
    assert checked(Training, {"max_steps": "40", "learning_rate": "1e-3"}, "training").learning_rate == 1e-3
    assert checked(Preprocessing, {"flip": "true", "resize": "35"}, "x") == Preprocessing(flip=True, resize=35)
    text = {"name": "blur", "T": "24", "std": "2.5", "quantized": "false", "schedule": "constant", "centre": ["1", "2"]}
    values = {**experiment.model_dump(), "degradation": text}
    assert checked(Experiment, values, "experiment").degradation == {
        "name": "blur", "T": 24, "std": 2.5, "quantized": False, "schedule": "constant", "centre": [1, 2],
    }  # fmt: skip


REFUSED: dict[str, tuple[type[BaseModel], dict[str, Any], str, str]] = {
    "unknown key": (Training, {"learning_rat": 0.1}, "'learning_rat'", "'learning_rate'"),
    "unknown key of a set": (Sampling, {"sets": {"x": {"strid": 2}}}, "'sets.x.strid'", "'sets.x.stride'"),
    "unknown key of a budget": (Config, {"budget": "b", "budgets": {"b": {"trainig": {}}}}, "b.trainig", "b.training"),
    "missing key": (Config, {"budgets": {"b": {}}}, "budget", "missing"),
    "word for a number": (Training, {"max_steps": "many"}, "'many'", "integer"),
    "half a step": (Training, {"max_steps": 1.5}, "1.5", "integer"),
    "no step": (Training, {"max_steps": 0}, "not 0", "equal to 1"),
    "rate of 5": (Training, {"learning_rate": 5}, "not 5", "less than 1"),
    "rate that is no number": (Training, {"learning_rate": float("nan")}, "nan", "finite"),
    "batch that does not divide": (Training, {"grad_accumulation": 3}, "grad_accumulation 3", "batch_size 64"),
    "average never taken": (Training, {"max_steps": 5}, "ema_update_every 10", "max_steps 5"),
    "odd width": (Network, {"dim": 15}, "not 15", "multiple of 2"),
    "method twice": (Sampling, {"methods": ["direct", "direct"]}, "methods", "direct"),
    "unknown start": (Sampling, {"sets": {"x": {"start": {"kind": "mean"}}}}, "'mean'", "'means'"),
    "start of an image": (Sampling, {"sets": {"x": {"start": {"kind": "noise"}, "severity": 3}}}, "sets.x", "severity"),
    "generation without a number": (Sampling, {"sets": {"x": {"start": {"kind": "grid"}}}}, "images", "how many"),
    "slash in a name": (Sampling, {"sets": {"a/b": {}}}, "a/b", "pattern"),
}
"""Schema, value, offending key or value, nearest valid choice or limit."""


@pytest.mark.parametrize("case", REFUSED)
def test_bad_value_is_refused_in_one_line_with_the_nearest_choice(case: str) -> None:
    model, value, culprit, choice = REFUSED[case]
    with pytest.raises(ColdbenchError) as caught:
        checked(model, value, "file")
    message = str(caught.value)
    assert "file" in message
    assert culprit in message
    assert choice in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["{", "[]", '{"name": 1}', '{"nmae": "x"}'])
def test_text_that_is_no_experiment_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ColdbenchError) as caught:
        from_json(Experiment, text, "experiment")
    assert str(caught.value).startswith("experiment")
    assert "\n" not in str(caught.value)


def test_generation_with_a_number_of_images_restores_nothing() -> None:
    generated = {"start": {"kind": "means"}}
    assert not checked(Sampling, {"sets": {"x": generated}, "images": 3}, "sampling").restores
    assert checked(Sampling, {"sets": {"x": generated, "y": {}}, "images": 3}, "sampling").restores


# Messages


@settings(deadline=None)
@given(st.text(max_size=2000), st.text(max_size=2000))
def test_message_is_one_printable_line_whatever_it_quotes(start: str, end: str) -> None:
    for kind, longest in ((ColdbenchError, 300), (MissingFile, 600)):
        message = str(kind(start + end))
        assert len(message) <= longest
        assert message.isprintable()
        assert str(kind(message)) == message
        if len(start + end) <= longest and (start + end).isprintable():
            assert message == start + end


def test_long_message_keeps_culprit_and_advice() -> None:
    message = str(unknown("key", "trainnig" + "\x1b[31m\n" * 10**6, ["training", *map(str, range(999))]))
    assert message.startswith("unknown key 'trainnig\\x1b[31m ")
    assert message.endswith("training)")


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
def test_merging_is_associative(a: dict[str, Any], b: dict[str, Any], c: dict[str, Any]) -> None:
    assert merged(a, b, c) == merged(merged(a, b), c)


@settings(deadline=None)
@given(Layers, Layers)
def test_later_layer_takes_precedence_key_by_key(below: dict[str, Any], above: dict[str, Any]) -> None:
    before = copy.deepcopy((below, above))
    result = merged(below, above)
    assert (below, above) == before, "the layers themselves are not changed"

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
