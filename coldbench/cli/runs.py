"""The verbs of a run: from the plan of all to the scores of one."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path
from typing import Annotated

import typer

from coldbench.cli.options import (
    SPEEDS,
    Device,
    Devices,
    FeatureCache,
    Fid,
    Inception,
    Log,
    Out,
    Partner,
    Prepared,
    RunFile,
    Threads,
    read_run,
    setup,
)
from coldbench.core import logs
from coldbench.core.errors import ColdbenchError
from coldbench.training import slurm


def plan(
    overlays: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[CONFIG]...", help="changes of the grid: files (YAML) as after --configfile, or KEY=VALUE"
        ),
    ] = None,
    device: Annotated[str, typer.Option(help="the kind of device, one of DEVICES")] = "h100",
    gpus: Annotated[int, typer.Option(min=1, help="how many of them")] = 8,
    json: Annotated[bool, typer.Option("--json", help="for other programs")] = False,
    grid: Annotated[Path, typer.Option(help="the grid (YAML)")] = Path("workflow/config/paper.yaml"),
    devices: Devices = SPEEDS,
) -> None:
    """Print the cost of the grid before it is run: jobs, GPU-hours, wall hours and disk, per run and table."""
    from coldbench.core.validation import merged
    from coldbench.planning import cost, layers
    from coldbench.planning import plan as planning

    on, stated = cost.device(devices, device), layers.load([grid, *(overlays or [])])
    resolved = planning.resolved(merged(*(layer.values for layer in stated)))
    for line in layers.without_effect(resolved, stated):
        typer.echo(f"coldbench: {line}", err=True)
    jobs = planning.jobs(resolved, on)
    typer.echo((planning.as_json if json else planning.as_text)(jobs, on, gpus))


def status(
    config: Annotated[
        list[str] | None,
        typer.Argument(help="changes of the grid: files (YAML) as after --configfile, or KEY=VALUE"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the same for programs")] = False,
) -> None:
    """Print the status of every run: its model missing, running or done, and whether it was sampled and scored."""
    from coldbench.planning import layers, plan
    from coldbench.planning import status as view

    grid = plan.resolved(layers.read([Path("workflow/config/paper.yaml"), *(config or [])]))
    statuses = view.run_statuses(grid, Path(grid.config.results), time.time())
    typer.echo(view.as_json(statuses) if as_json else view.as_text(statuses))


def train(
    run_file: RunFile,
    data: Prepared,
    out: Out,
    checkpoint_dir: Annotated[Path, typer.Option(help="folder for checkpoints, which survive a stopped job")],
    partner: Partner = None,
    compile: Annotated[bool, typer.Option("--compile", help="compile the network (torch.compile)")] = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="channels-last memory format")] = False,
    checkpoint_every: Annotated[float, typer.Option(min=0, help="seconds between checkpoints")] = 60.0,
    time_limit: Annotated[
        float | None,
        typer.Option(min=0, help="minutes of the Slurm job; the training saves and stops before they end"),
    ] = None,
    max_cpu_hours: Annotated[
        float | None, typer.Option(min=0, help="refuse a training that would take longer without a GPU")
    ] = None,
    devices: Devices = SPEEDS,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Train the model of a run. A stopped training resumes from CHECKPOINT_DIR."""
    experiment = read_run(run_file).experiment
    target = setup(log, f"{experiment.run} train", device, threads)
    with contextlib.suppress(ColdbenchError):  # Snakemake removes LOG when a job runs again
        logs.add_file(checkpoint_dir / "train.log")
    from coldbench.planning.grid import refuse_on_cpu
    from coldbench.training import loop
    from coldbench.training.distributed import DeviceOptions

    if target.type == "cpu" and max_cpu_hours is not None:
        refuse_on_cpu(experiment, max_cpu_hours, devices)
    paths = loop.TrainingPaths(data, out, checkpoint_dir, partner)
    options = loop.LoopOptions(checkpoint_every, slurm.usable_runtime(time_limit))
    loop.train(experiment, paths, target, options, DeviceOptions(compile, channels_last))


def import_model(
    source: Path,
    run: Annotated[Path, typer.Option(help="the facts of the run (JSON), written by the workflow")],
    out: Out,
    log: Log = None,
) -> None:
    """Turn a checkpoint of the released code (.pt) into a model, checking every key, shape and schedule."""
    experiment = read_run(run).experiment
    logs.log_to(log, f"[{experiment.run} import]")
    from coldbench.models import released

    released.import_model(source, out, experiment)


def export(model: Path, out: Out) -> None:
    """Write MODEL's weights for other code: .safetensors (plain names), or .pt in the released code's layout."""
    from coldbench.models import released

    released.export_model(model, out)


def sample(
    run_file: RunFile,
    model: Path,
    data: Prepared,
    shard_dir: Annotated[Path, typer.Option(help="folder for shards, which survive a stopped job")],
    out: Annotated[Path | None, typer.Option(help="manifest to write; without it, only shards are made")] = None,
    part: Annotated[
        str, typer.Option(help="k/n, without OUT: make the missing ones of every n-th shard, from the k-th on")
    ] = "1/1",
    partner: Partner = None,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Sample MODEL: restore test images or generate new ones by every method; SHARD_DIR keeps the finished shards."""
    target = setup(log, f"{model.parent.name} sample", device, threads)
    from coldbench.sampling.shards import SamplingPaths, sample_part, sample_run

    k, slash, n = part.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise ColdbenchError(f"part must be k/n with 1 ≤ k ≤ n, not '{part}'")
    sampling = read_run(run_file).sampling
    paths = SamplingPaths(model, data, shard_dir, partner)
    if out is None:
        sample_part(paths, sampling, target, int(k), int(n))
    else:
        sample_run(paths, sampling, target, out)


def evaluate(
    run_file: RunFile,
    manifest: Path,
    data: Prepared,
    out: Out,
    feature_cache: FeatureCache,
    fid: Fid = None,
    inception: Inception = None,
    partner: Partner = None,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Score the sampled images of MANIFEST, and the degraded images that they restore."""
    target = setup(log, f"{manifest.parent.name} evaluate", device, threads)
    from coldbench.evaluation.evaluator import Evaluator
    from coldbench.evaluation.metrics.extractors import extractors
    from coldbench.evaluation.scores import write_scores

    features = extractors(fid or [], inception, target)
    evaluator = Evaluator(manifest, data, feature_cache, features, target, partner)
    write_scores(evaluator.evaluate(read_run(run_file).metadata), out)
