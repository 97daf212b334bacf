"""The schema of the configuration, as its file states it: what each key means, what it may be, and its default.

`.ci/config_schema.py` writes the file. It knows the parameters of the suite's own degradations, for which the classes
themselves would load torch.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from coldbench.core.files import read_json

FILE = "workflow/schemas/config.schema.json"
Node = Mapping[str, Any]
"""What the schema says of one key, or of all values of a mapping."""
PLUGIN_KEY: Node = {"description": "Parameter of a plug-in, which its own code describes."}
WORDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}


class Schema:
    """The keys of the configuration by their places. A node is what the schema says of one place."""

    def __init__(self, file: Path | str = FILE) -> None:
        self.root: Node = read_json(Path(file))

    def definition(self, name: str) -> Node:
        """What the schema says of a class."""
        found: Node = self.root["$defs"][name]
        return found

    def choices(self, node: Node, value: Any = None) -> dict[str, Node]:
        """The keys below `node`, those of free mappings as `value`, the value there, names them; empty for a leaf."""
        found: dict[str, Node] = {}
        for part in self._mappings(node, value):
            free = [*part.get("patternProperties", {}).values(), part.get("additionalProperties")]
            names = [*part.get("propertyNames", {}).get("enum", ()), *(value if isinstance(value, Mapping) else ())]
            described = next((PLUGIN_KEY if each is True else each for each in free if each), None)
            if described is not None:
                above = {} if "$ref" in described else {"description": node.get("description", "")}
                found |= {str(name): {**above, **described} for name in names}
            found |= part.get("properties", {})
        return found

    def description(self, node: Node) -> str:
        """What a key means, in one line; for a value of a mapping, what its class says."""
        referred = self.root["$defs"][node["$ref"].rpartition("/")[2]] if "$ref" in node else {}
        return " ".join(str(node.get("description", referred.get("description", ""))).split())

    def type_of(self, node: Node) -> str:
        """The type and limits of a key in words: "whole number, 1 to 512, multiple of 2, or null"."""
        if "anyOf" in node:
            return ", or ".join(dict.fromkeys(map(self.type_of, node["anyOf"])))
        if "$ref" in node or node.get("type") == "object" or "properties" in node:
            keys = ", ".join(self.choices(node))
            return f"mapping with the keys {keys}" if keys else "mapping"
        if "const" in node or "enum" in node:
            return f"one of {', '.join(shown(each) for each in node.get('enum', [node.get('const')]))}"
        if node.get("type") == "array":
            return f"list{_range(node, 'minItems', 'maxItems', ' of {} values')}, each {self.type_of(node['items'])}"
        return WORDS.get(node.get("type", ""), "any value") + "".join(_limits(node))

    def _mappings(self, node: Node, value: Any) -> Iterator[Node]:
        """The mappings that a key may be. Of a degradation whose name `value` states, only that of the name.

        Under the name of a plug-in's degradation every key may stand.
        """
        if "$ref" in node:
            yield from self._mappings(self.definition(node["$ref"].rpartition("/")[2]), value)
        elif "anyOf" in node:
            parts = [part for each in node["anyOf"] for part in self._mappings(each, value)]
            names = [_name_of(part).get("const") for part in parts]  # those of degradations; None for other mappings
            name = value.get("name") if isinstance(value, Mapping) else None
            if name in names and name is not None:
                parts = [parts[names.index(name)]]
            elif any(names) and name is not None:
                parts = [{"additionalProperties": True, "properties": {"name": _name_of(parts[-1])}}]
            yield from parts
        elif node.get("type") == "object" or "properties" in node:
            yield node


def _name_of(part: Node) -> Node:
    name: Node = part.get("properties", {}).get("name", {})
    return name


def _limits(node: Node) -> Iterator[str]:
    yield _range(node, "minimum", "maximum", ", {}")
    if "exclusiveMinimum" in node:
        yield f", above {shown(node['exclusiveMinimum'])}"
    if "exclusiveMaximum" in node:
        yield f", below {shown(node['exclusiveMaximum'])}"
    if "multipleOf" in node:
        yield f", multiple of {node['multipleOf']}"


def _range(node: Node, low: str, high: str, text: str) -> str:
    if low in node and high in node:
        return text.format(f"{shown(node[low])} to {shown(node[high])}")
    if low in node:
        return text.format(f"at least {shown(node[low])}")
    return text.format(f"at most {shown(node[high])}") if high in node else ""


def shown(value: Any) -> str:
    """A value as text: 2,000; true; fp32; '' for an empty text; [1, 2]; {"a": 1}."""
    if isinstance(value, str):
        return value or "''"
    if isinstance(value, bool) or value is None:
        return json.dumps(value)
    if isinstance(value, int | float):
        return f"{value:,}" if isinstance(value, int) else f"{value:g}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(shown, value))}]"
    return json.dumps(value, ensure_ascii=False)
