"""The schema that editors and `coldbench explain` read: every key says what it means; files and code agree with it."""

from __future__ import annotations

import json
import re
import runpy
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from cases import ROOT
from jsonschema import Draft202012Validator

from coldbench import degradations
from coldbench.core.errors import ColdbenchError
from coldbench.degradations import DEGRADATIONS

SCHEMA = json.loads((ROOT / "workflow/schemas/config.schema.json").read_text(encoding="utf-8"))
SHIPPED = sorted(
    path
    for folder in ("workflow/config", "examples")
    for path in (ROOT / folder).glob("*.yaml")
    if path.name not in ("calibration.yaml", "devices.yaml")
)
SENTENCE = re.compile(r"[A-Z].*\.", re.DOTALL)


def keys() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every key: its class, its name, and what the schema says of it."""
    for name, part in [("Config", SCHEMA), *SCHEMA["$defs"].items()]:
        for key, described in part.get("properties", {}).items():
            yield name, key, described


def faults(schema: dict[str, Any], value: Any) -> list[str]:
    return [f"{error.json_path}: {error.message[:200]}" for error in Draft202012Validator(schema).iter_errors(value)]


DEGRADATION = {"$ref": "#/$defs/Degradation", "$defs": SCHEMA["$defs"]}


def test_every_key_is_described_by_a_sentence() -> None:
    named = {f"{name}.{key}": str(described.get("description", "")) for name, key, described in keys()}
    assert len(named) > 120
    assert not {key for key, text in named.items() if not SENTENCE.fullmatch(text) or len(text.split()) < 3}
    empty_words = re.compile(r"changes of (network|training|sampling|preprocessing|the defaults)", re.IGNORECASE)
    assert not {key for key, text in named.items() if empty_words.match(text)}


def test_every_class_is_described() -> None:
    assert all(part["description"].strip() for part in [SCHEMA, *SCHEMA["$defs"].values()])


def test_no_default_repeats_the_keys_of_another_class() -> None:
    for name, key, described in keys():
        assert "$ref" not in described or "default" not in described, f"{name}.{key}"
        assert len(json.dumps(described.get("default"))) < 60, f"{name}.{key}"


def test_schema_is_valid() -> None:
    Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_files_fit_the_schema(path: Any) -> None:
    """An editor shows no fault in them."""
    assert faults(SCHEMA, yaml.safe_load(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("name", DEGRADATIONS)
def test_schema_knows_every_parameter_of_a_degradation(name: str) -> None:
    """The same parameters and defaults, and every set of parameters that is built fits."""
    kind: Any = DEGRADATIONS[name]
    part = SCHEMA["$defs"][f"degradation_{name}"]["properties"]
    fields = {key: each for key, each in kind.__pydantic_fields__.items() if key not in ("size", "images")}
    assert part.keys() == {"name", *fields}
    for key, each in fields.items():
        assert part[key].get("default") == (None if each.is_required() else each.default), key
    for parameters in kind.test_params:
        degradations.build({"name": name, **parameters}, 16)
        assert faults(DEGRADATION, {"name": name, **parameters}) == []


def beyond() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every own degradation with one value beyond a limit, of another type, or under an unknown key."""
    for name, kind in DEGRADATIONS.items():
        good = {"name": name, **kind.test_params[0]}
        yield f"{name} key", {**good, "strange": 1}
        for key, part in SCHEMA["$defs"][f"degradation_{name}"]["properties"].items():
            for limit, sign in (("minimum", -1), ("maximum", 1)):
                if limit in part:
                    yield f"{name} {key} {limit}", {**good, key: part[limit] + sign}
            if key != "name":
                yield f"{name} {key} type", {**good, key: {"a": 1}}
            if "enum" in part:
                yield f"{name} {key} choice", {**good, key: "another"}


@pytest.mark.parametrize(("case", "spec"), list(beyond()), ids=lambda each: each if isinstance(each, str) else "")
def test_value_that_no_degradation_takes_is_refused_by_the_schema_too(case: str, spec: dict[str, Any]) -> None:
    with pytest.raises(ColdbenchError):
        degradations.build(spec, 16)
    assert faults(DEGRADATION, spec)


@pytest.mark.parametrize(
    "spec",
    [{"T": 40}, {"rate": 0.2, "centre_low": 0}, {"name": "mine", "anything": [1, 2]}, {"anything": "x"}, {}],
    ids=str,
)
def test_schema_is_open_for_layers_and_plugins(spec: dict[str, Any]) -> None:
    assert faults(DEGRADATION, spec) == []


def test_script_describes_what_is_committed() -> None:
    script = runpy.run_path(str(ROOT / ".ci/config_schema.py"))
    assert script["config_schema"]() == SCHEMA


# The page of all keys


@pytest.fixture(scope="module")
def page() -> str:
    text = (ROOT / "docs/configuration.md").read_text(encoding="utf-8")
    return text[text.index("<!-- keys: ") : text.index("<!-- end -->")]


def test_page_has_a_row_of_four_cells_for_every_key(page: str) -> None:
    rows = [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in page.splitlines() if line.startswith("| `")]
    assert all(len(row) == 4 and all(cell.strip() for cell in row) for row in rows)
    assert sorted(row[0].strip("`") for row in rows) == sorted(key for _, key, _ in keys())


def test_links_of_the_page_lead_to_its_sections(page: str) -> None:
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    places = {heading.lower().replace(" ", "-") for heading in headings}
    assert len(places) == len(headings)
    assert set(re.findall(r"\]\(#([^)]*)\)", page)) <= places
    assert {part["title"] for part in SCHEMA["$defs"].values()} <= set(headings)
