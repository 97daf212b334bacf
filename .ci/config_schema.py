"""Write the configuration's JSON schema, for editors and `coldbench explain`: `python .ci/config_schema.py OUT`.

What `Config` says of itself is completed with the parameters of the suite's own degradations, which only their classes
know. No key is required, because an overlay states a part of them.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from coldbench.core.config import Config
from coldbench.degradations import DEGRADATIONS

NO_PARAMETERS = ("size", "images")
"""Fields of a degradation that the experiment states elsewhere, or that are loaded."""


class Schema(GenerateJsonSchema):
    """The schema with short defaults: those of a model are what its own keys say."""

    def encode_default(self, dft: Any) -> Any:
        """A default as JSON; inside of mappings a model shows what it states, not the defaults of its keys."""
        if isinstance(dft, Mapping):
            dft = {
                key: each.model_dump(exclude_unset=True) if isinstance(each, BaseModel) else each
                for key, each in dft.items()
            }
        return super().encode_default(dft)

    def handle_invalid_for_json_schema(self, schema: Any, error_info: str) -> dict[str, Any]:
        """Nothing for an array, the loaded images of a degradation, which `NO_PARAMETERS` leaves out."""
        return {}


def config_schema() -> dict[str, Any]:
    """The schema of a whole configuration."""
    schema = Config.model_json_schema(schema_generator=Schema)
    for name, kind in DEGRADATIONS.items():
        schema["$defs"][f"degradation_{name}"] = _parameters(name, kind)
    schema["$defs"]["Degradation"] = _any_degradation()
    for each in (schema, *schema["$defs"].values()):
        each.pop("required", None)
    for key, part in _properties(schema):
        if key == "degradation":
            part["$ref"] = "#/$defs/Degradation"
            for word in ("type", "additionalProperties", "default", "title"):
                part.pop(word, None)
        if "$ref" in part:
            part.pop("default", None)
    return schema


def _properties(schema: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for each in (schema, *schema["$defs"].values()):
        yield from each.get("properties", {}).items()


def _parameters(name: str, kind: type) -> dict[str, Any]:
    """What a configuration may state of one degradation; a protocol states a part of it, so nothing is required."""
    whole = TypeAdapter(kind).json_schema(schema_generator=Schema)
    keys = {key: part for key, part in whole["properties"].items() if key not in NO_PARAMETERS}
    description = (kind.__doc__ or "").partition("\n\n")[0]
    named = {"const": name, "type": "string", "description": f"Name of the degradation, {name} here."}
    return {
        "title": f"Degradation {name}",
        "description": description,
        "type": "object",
        "properties": {"name": named, **keys},
        "additionalProperties": False,
    }


def _any_degradation() -> dict[str, Any]:
    """One of the suite's own degradations, or one of a plug-in, whose parameters only the plug-in knows."""
    own = [{"$ref": f"#/$defs/degradation_{name}"} for name in DEGRADATIONS]
    own_name = {"properties": {"name": {"enum": list(DEGRADATIONS)}}, "required": ["name"]}
    other = {
        "description": "The degradation of a plug-in, or a layer that states no name.",
        "type": "object",
        "properties": {
            "name": {"type": "string", "description": "Name of the degradation, as its plug-in declares it."}
        },
        "not": own_name,
    }
    return {
        "title": "Degradation",
        "description": "Name and parameters of D(x, t). The parameters depend on the name.",
        "anyOf": [*own, other],
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(config_schema(), indent=1) + "\n")
