"""The verb `check`: components against the laws of their kind."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from coldbench.core import laws
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import parse_yaml


def check(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FILE [NAME | KEY=VALUE]...",
            help="a file with components of your own; only those named; parameters that they are checked with",
        ),
    ] = None,
    own: Annotated[bool, typer.Option("--own", help="check the suite's own components; give no FILE")] = False,
    data: Annotated[Path, typer.Option(help="folder of the data sets")] = Path("data"),
) -> None:
    """Hold the components of FILE to the laws of their kind, on small inputs. Status 1 if one is broken."""
    file = None if own else next((word for word in words or [] if "=" not in word), None)
    if file is None and not own:
        raise ColdbenchError("check needs a FILE with components, or --own")
    rest = [word for word in words or [] if word != file]
    parameters = {}
    for word in rest:
        key, equals, value = word.partition("=")
        if equals:
            parameters[key] = parse_yaml(value, key)
    components = laws.chosen(file, [word for word in rest if "=" not in word])
    import torch

    torch.set_num_threads(1)  # the images are so small that several threads would wait for each other
    findings = [each for component in components for each in laws.examine(component, parameters, data)]
    typer.echo(laws.as_text(findings))
    failed = [each for each in findings if each.result == laws.FAIL]
    typer.echo(f"\n{len(failed)} of {len(findings)} laws are broken" if failed else "\nno law is broken")
    if failed:
        raise typer.Exit(1)
