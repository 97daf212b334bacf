"""The parts of docs/ that are reference: commands, configuration keys, protocols and discrepancies."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import click
import config_docs
import pandas as pd
import typer

from coldbench import cli
from coldbench.core.config import Config
from coldbench.core.files import read_yaml
from coldbench.planning.schema import Schema
from coldbench.report import discrepancies as report

ROOT = Path(__file__).parents[1]
GRID = ROOT / "workflow/config/paper.yaml"
BY_HAND = (
    *("plan", "status", "explain", "check"),
    *("restore", "degrade", "fetch-model", "release"),
    *("calibrate", "import", "export", "publish"),
)
"""The verbs that people type, in the order of the page."""


_TYPE = r" <(list\[)?(str|[Pp]ath|int|float|.* range)\]?>"
"""The type that typer adds to the name of an option; its description says it better."""


def commands() -> str:
    """Every verb with its arguments and options."""
    group = typer.main.get_command(cli.app)
    assert isinstance(group, click.Group) or hasattr(group, "commands")
    verbs = group.commands
    typed = [name for name in BY_HAND if name in verbs]
    lines = ["## Typed by hand", ""]
    for name in typed:
        lines += _verb(name, verbs[name])
    lines += ["## Called by the workflow", ""]
    for name in sorted(set(verbs) - set(typed)):
        lines += _verb(name, verbs[name])
    return "\n".join(lines)


def _verb(name: str, command: Any) -> list[str]:
    with typer.Context(command, info_name=f"coldbench {name}") as context:
        usage = re.sub(r"\{(\w+)\}", lambda name: name[1].upper(), " ".join(command.collect_usage_pieces(context)))
        lines = [f"### `coldbench {name}`", "", " ".join((command.help or "").split()), ""]
        lines += ["```text", f"coldbench {name} {usage}", "```", ""]
        rows = [parameter.get_help_record(context) for parameter in command.params if parameter.name != "help"]
    rows = [row for row in rows if row]
    if rows:
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| `{_flat(re.sub(_TYPE, '', left))}` | {_flat(right)} |" for left, right in rows]
        lines.append("")
    return lines


def keys() -> str:
    """Every key of the configuration."""
    return config_docs.page(Schema(config_docs.SCHEMA))


def protocols() -> str:
    """Every experiment with its protocols and their reasons; the default one first."""
    grid = Config.model_validate(read_yaml(GRID)).grid
    lines = ["| experiment | protocol | why | changes |", "|---|---|---|---|"]
    for name, entry in grid.items():
        if entry.model:
            continue
        for label, protocol in sorted(entry.protocols.items(), key=lambda item: item[0] != entry.protocol):
            shown = f"**{label}** (default)" if label == entry.protocol else label
            changes = protocol.model_dump(exclude_unset=True, exclude={"rationale"})
            lines.append(f"| {name} | {shown} | {_flat(protocol.rationale)} | {_settings(changes)} |")
    return "\n".join(lines) + "\n"


def _settings(changes: dict[str, Any]) -> str:
    texts = (f"{part}: {', '.join(f'{k} {v}' for k, v in values.items())}" for part, values in changes.items())
    return _flat("; ".join(texts))


def _flat(text: str) -> str:
    return " ".join(str(text).split()).replace("|", "\\|")


def discrepancies() -> str:
    """Every question on which paper and released code differ, with our answers."""
    questions = report.load(ROOT / "workflow/paper/discrepancies.yaml")
    grid = report.load_grid(GRID)
    lines: list[str] = []
    no_cells = pd.DataFrame({"run": [], "table": [], "budget": []})
    for entry in report.discrepancies(questions, report.Sources(grid, {}, []), [], no_cells):
        question = entry.question
        lines += [f"### {entry.key}. {_flat(question.question)}", ""]
        lines += [f"- *Paper*: {_flat(question.paper)}", f"- *README and code*: {_flat(question.released)}"]
        for choice in entry.choices:
            label = f"Protocol `{choice.protocol}`" + (", the default" if choice.selected else "")
            lines.append(f"- *{label}* ({', '.join(choice.experiments)}): {_flat(choice.rationale)}")
        if question.decision:
            lines.append(f"- *Every experiment*: {_flat(question.decision)}")
        lines.append("")
    return "\n".join(lines)
