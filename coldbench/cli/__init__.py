"""The command `coldbench`: the same verbs that the workflow's rules call, each a function of this package."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from coldbench.cli import images, runs, views
from coldbench.cli.check import check
from coldbench.core import __version__, interrupts, logs, plugins
from coldbench.core.errors import ColdbenchError
from coldbench.training import slurm

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Replication suite for 'Cold Diffusion'. The workflow calls these verbs; run `snakemake` for whole tables.",
)
for verb in (
    *(runs.plan, runs.status, runs.explain),
    check,
    *(images.fetch, images.fetch_weights, runs.fetch_model, images.prepare),
    *(runs.train, runs.import_model, runs.export, runs.sample, runs.evaluate),
    *(images.degrade, images.restore, images.calibrate),
    *(
        views.merge_scores,
        views.render_figures,
        views.render_table,
        views.render_methods,
        views.render_discrepancies,
        views.render_calibration,
        views.render_index,
        views.publish,
        views.release,
    ),
):
    app.command("import" if verb is runs.import_model else None)(verb)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="show the version")] = False) -> None:
    if version:
        typer.echo(f"coldbench {__version__}")
        raise typer.Exit


def main() -> None:
    """Run the command line; a ColdbenchError ends it with one line on stderr and status 1."""
    try:
        app()
    except ColdbenchError as error:
        logs.log_failure(f"error: {error}")
        sys.exit(f"coldbench: error: {error}")
    except interrupts.Interrupted as stop:
        logs.log_failure(str(stop))
        print(f"coldbench: {stop}", file=sys.stderr)
        slurm.requeue(stop)
        sys.exit(stop.status)
    except Exception as error:
        if (line := plugins.located(error)) is None:
            raise
        logs.log_failure("".join(traceback.format_exception(error)))  # its author may need more than one line
        sys.exit(f"coldbench: error: {line}")
