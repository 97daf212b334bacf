"""The part of docs/configuration.md that lists every key: a section for each class of the schema, a row for each."""

import json
from collections.abc import Iterator
from pathlib import Path

from coldbench.planning.schema import Node, Schema

SCHEMA = Path(__file__).parents[1] / "workflow/schemas/config.schema.json"
FIRST = (
    "Entry",
    "Protocol",
    "Budget",
    "Preprocessing",
    "Network",
    "TrainingLayer",
    "SamplingLayer",
    "SampleSet",
    "Start",
)
"""The classes in the order in which a reader meets them; others follow."""


def page(schema: Schema) -> str:
    """The sections of all classes."""
    classes = schema.root["$defs"]
    names = [*FIRST, *(name for name in classes if name not in FIRST and name != "Degradation")]
    ordered = sorted(names, key=lambda name: name.startswith("degradation_"))
    parts = [section(schema, "Configuration", schema.root, 2)]
    for name in ordered:
        if name == next(each for each in ordered if each.startswith("degradation_")):
            parts.append(f"## Degradation\n\n{schema.description(classes['Degradation'])}\n")
        parts.append(section(schema, title(classes[name]), classes[name], 3 if name.startswith("degradation_") else 2))
    return "\n".join(parts)


def section(schema: Schema, heading: str, part: Node, level: int) -> str:
    """A heading, what the class is, and the table of its keys."""
    lines = [f"{'#' * level} {heading}", "", cell(schema.description(part)), ""]
    lines += ["| key | meaning | type and limits | default |", "|---|---|---|---|"]
    for key, node in part["properties"].items():
        row = (f"`{key}`", cell(schema.description(node)), cell(kind(schema, node)), default(node))
        lines.append(f"| {' | '.join(row)} |")
    return "\n".join([*lines, ""])


def kind(schema: Schema, node: Node) -> str:
    """The type of a key; for a class the link to its section, for a mapping of names that of their values."""
    referred = list(references(node))
    if not referred:
        return schema.type_of(node)
    links = ", or ".join(link(schema, name) for name in referred)
    return f"mapping of names, each to a {links}" if "patternProperties" in node else links


def references(node: Node) -> Iterator[str]:
    """The classes that a key or the values of a mapping are of."""
    for each in (node, *node.get("anyOf", ()), *node.get("patternProperties", {}).values()):
        if "$ref" in each:
            yield each["$ref"].rpartition("/")[2]


def link(schema: Schema, name: str) -> str:
    """A link to a class's section."""
    heading = title(schema.definition(name))
    return f"[{heading}](#{heading.lower().replace(' ', '-')})"


def title(part: Node) -> str:
    """The heading of a class."""
    return str(part["title"])


def default(node: Node) -> str:
    """The default as it is written in YAML; a dash if the key has none."""
    if "default" not in node:
        return "–"
    value = node["default"]
    return cell(f"`{(value or repr(value)) if isinstance(value, str) else json.dumps(value)}`")


def cell(text: str) -> str:
    """Text inside of a table or paragraph, where a bar would end a cell."""
    return text.replace("|", "\\|")
