"""What an explanation of a key holds, and how it is printed."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from coldbench.planning.schema import shown

WIDTH, LONGEST_WORD = 100, 60
DEFAULT = "default of the code"
NOT_SET = "not set"


@dataclass(frozen=True)
class Origin:
    """Where a value comes from: the kind of its layer, the place that states it, and the file or word of that.

    `layer` is "experiment", "protocol", "budget", "substitute" (a replaced data set), "configuration" (a key of all
    experiments), or "default" for a value that nothing states. `name` is that of the protocol, the budget, the data set
    that was replaced, or another experiment whose model is sampled.
    """

    layer: str = "default"
    name: str = ""
    place: str = ""
    source: str = ""

    @property
    def text(self) -> str:
        """The origin in words, without the place."""
        if self.layer == "default":
            return DEFAULT
        word = textwrap.shorten(self.source, LONGEST_WORD, placeholder=" …")
        source = f"command line, {word}" if "=" in self.source else self.source
        layer = "" if self.layer == "configuration" else f"{self.layer} {self.name}".rstrip() + ", "
        return layer + source


@dataclass(frozen=True)
class Value:
    """A value in force, for one experiment or (`experiment` is "") for all; `is_set` is false if there is none."""

    experiment: str
    value: Any
    is_set: bool
    origin: Origin

    @property
    def text(self) -> str:
        """The value in words."""
        return shown(self.value) if self.is_set else NOT_SET


@dataclass(frozen=True)
class Facts:
    """What a key means, its type and default, its values in force, and the keys below it with what each means."""

    description: str
    type: str
    default: str
    values: list[Value] = field(default_factory=list)
    keys: dict[str, str] = field(default_factory=dict)


def as_text(key: str, facts: Sequence[Facts]) -> str:
    """The answer for people: a paragraph for each meaning of the key, then the values with their experiments."""
    lines: list[str] = []
    for each in facts:
        head = f"{key}: {each.description}" if key else each.description
        kind = "; ".join(filter(None, [each.type, each.default]))
        lines += [*([""] if lines else []), textwrap.fill(head, WIDTH, subsequent_indent="  ")]
        lines += [textwrap.fill(kind, WIDTH, initial_indent="  ", subsequent_indent="    ")] if kind else []
        lines += [_line(f"  {name}", text) for name, text in each.keys.items()]
        groups: dict[str, list[str]] = {}
        for value in each.values:
            text = f"{value.text} ({value.origin.text})" if value.is_set else value.text
            groups.setdefault(text, []).append(value.experiment)
        for text, experiments in groups.items():
            names = f": {', '.join(experiments)}" if any(experiments) else ""
            lines.append(textwrap.fill(f"{text}{names}", WIDTH, initial_indent="  ", subsequent_indent="    "))
    return "\n".join(lines)


def as_json(key: str, facts: Sequence[Facts]) -> str:
    """The answer for other programs: for each meaning of the key its facts, and every value with its origin."""
    return json.dumps({"key": key, "facts": [asdict(each) for each in facts]}, indent=1)


def _line(key: str, text: str) -> str:
    line = f"{key:20} {text}"
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 2].rpartition(' ')[0]} …"
