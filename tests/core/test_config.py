"""What a fingerprint depends on, how layers merge, and what the schema refuses."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from coldbench.core.config import Sampling
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.validation import checked, fingerprint, from_json, merged


@pytest.mark.parametrize("text", ["{", "[]", '{"name": 1}', '{"nmae": "x"}'])
def test_an_experiment_that_is_none_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ColdbenchError) as caught:
        from_json(Experiment, text, "experiment")
    assert str(caught.value).startswith("experiment")
    assert "\n" not in str(caught.value)


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
    tested = {"dataset", "size", "seed", "degradation", "preprocessing", "network", "training"}
    assert set(Experiment.model_fields) == tested | {"name", "protocol", "budget"}


@pytest.mark.parametrize("part", ["preprocessing", "network", "training"])
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


@pytest.mark.parametrize("sets", [{"x": {"start": {"kind": "means"}}}, {"x": {}, "y": {"start": {"kind": "grid"}}}])
def test_a_generation_says_how_many(sets: dict[str, Any]) -> None:
    with pytest.raises(ColdbenchError, match="must say how many images to generate"):
        checked(Sampling, {"sets": sets}, "sampling")
    assert checked(Sampling, {"sets": sets, "images": 3}, "sampling").restores == ("y" in sets)
