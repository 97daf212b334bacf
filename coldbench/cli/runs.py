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
    PluginFiles,
    Prepared,
    RunFile,
    Threads,
    check_file,
    check_folder,
    read_run,
    setup,
)
from coldbench.core import logs, plugins
from coldbench.core.errors import ColdbenchError
from coldbench.training import slurm

ConfigWords = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[CONFIG]...",
        help="changes of the grid, as Snakemake takes them: files (YAML) as after --configfile, and KEY=VALUE as after "
        "--config. Without a file: that of this machine (laptop.yaml)",
    ),
]
ProfileName = Annotated[
    str | None, typer.Option(metavar="NAME", help="as after snakemake --profile: the paper's budget, on a cluster")
]
Json = Annotated[bool, typer.Option("--json", help="for other programs")]


def plan(
    config: ConfigWords = None,
    profile: ProfileName = None,
    device: Annotated[
        str | None, typer.Option(help="the kind of device, one of DEVICES [default: cpu, with --profile h100]")
    ] = None,
    gpus: Annotated[
        int | None, typer.Option(min=1, help="how many of them [default: 1, with --profile 8]", show_default=False)
    ] = None,
    as_json: Json = False,
    devices: Devices = SPEEDS,
) -> None:
    """Print what Snakemake would run and its cost: jobs, device hours, wall hours and disk, per run and table."""
    from coldbench.core.validation import merged
    from coldbench.planning import cost, layers
    from coldbench.planning import plan as planning

    on = cost.device(devices, device or ("h100" if profile else "cpu"))
    stated = layers.load(layers.words(config or [], cluster=profile is not None))
    grid = planning.resolved(merged(*(layer.values for layer in stated)))
    for line in layers.without_effect(grid, stated):
        typer.echo(f"coldbench: {line}", err=True)
    jobs = planning.jobs(grid, on)
    typer.echo((planning.as_json if as_json else planning.as_text)(jobs, on, gpus or (8 if profile else 1)))


def status(config: ConfigWords = None, profile: ProfileName = None, as_json: Json = False) -> None:
    """Print the status of every run: its model missing, running or done, and whether it was sampled and scored."""
    from coldbench.planning import layers, plan
    from coldbench.planning import status as view

    grid = plan.resolved(layers.read(layers.words(config or [], cluster=profile is not None)))
    statuses = view.run_statuses(grid, time.time())
    typer.echo(view.as_json(statuses) if as_json else view.as_text(statuses))


def explain(
    key: Annotated[
        str | None,
        typer.Argument(help="such as budget, training.max_steps or E04.training.max_steps; without it, all are listed"),
    ] = None,
    config: ConfigWords = None,
    profile: ProfileName = None,
    as_json: Json = False,
) -> None:
    """Print what a key of the configuration means, and its value for each experiment with the layer that sets it."""
    from coldbench.planning import facts as view
    from coldbench.planning import layers
    from coldbench.planning.explain import Explainer

    explainer = Explainer(layers.load(layers.words(config or [], cluster=profile is not None)))
    facts = explainer.listed() if key is None else explainer.explain(key)
    typer.echo((view.as_json if as_json else view.as_text)(key or "", facts))


def train(
    run_file: RunFile,
    data: Prepared,
    out: Out,
    checkpoint_dir: Annotated[
        Path, typer.Option(help="folder for checkpoints, which survive a stopped job", callback=check_folder)
    ],
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
    from coldbench.planning.checks import refuse_on_cpu
    from coldbench.training import finished, loop
    from coldbench.training.distributed import DeviceOptions

    paths = loop.TrainingPaths(data, out, checkpoint_dir, partner)
    identity = finished.training_identity(experiment, data, partner)
    finished.take_snapshot(out, experiment, identity)
    if target.type == "cpu" and max_cpu_hours is not None and finished.find(out, identity) is None:
        refuse_on_cpu(experiment, max_cpu_hours, devices)
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


def fetch_model(
    name: Annotated[str, typer.Argument(help="a model of the manifest, such as E04-released")],
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL_OR_FOLDER", help="where manifest.json and the models are")
    ] = None,
    out: Annotated[Path, typer.Option(help="folder for the model", callback=check_folder)] = Path("models"),
    log: Log = None,
) -> None:
    """Download the published model NAME into OUT, verified. A present one is left alone."""
    logs.log_to(log, f"[fetch-model {name}]")
    from coldbench.models import fetch

    typer.echo(fetch.fetch_model(name, source, out))


def export(model: Path, out: Out, plugin: PluginFiles = None) -> None:
    """Write MODEL's weights for other code: .safetensors (plain names), or .pt in the released code's layout."""
    plugins.use(plugin or [])
    from coldbench.models import released

    released.export_model(model, out)


def sample(
    run_file: RunFile,
    model: Path,
    data: Prepared,
    shard_dir: Annotated[
        Path, typer.Option(help="folder for shards, which survive a stopped job", callback=check_folder)
    ],
    out: Annotated[
        Path | None, typer.Option(help="manifest to write; without it, only shards are made", callback=check_file)
    ] = None,
    part: Annotated[
        str, typer.Option(help="k/n, without OUT: make the missing ones of every n-th shard, from the k-th on")
    ] = "1/1",
    partner: Partner = None,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Sample MODEL: restore test images or generate new ones by every method; SHARD_DIR keeps the finished shards."""
    run = read_run(run_file)
    target = setup(log, f"{run.metadata.run} sample", device, threads)
    from coldbench.sampling.shards import SamplingPaths, sample_part, sample_run

    k, slash, n = part.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise ColdbenchError(f"part must be k/n with 1 ≤ k ≤ n, not '{part}'")
    paths = SamplingPaths(model, data, shard_dir, partner)
    if out is None:
        sample_part(paths, run.sampling, target, int(k), int(n))
    else:
        sample_run(paths, run.sampling, target, out)


def evaluate(
    run_file: RunFile,
    manifest: Path,
    data: Prepared,
    out: Out,
    feature_cache: FeatureCache,
    fid: Fid = None,
    inception: Inception = None,
    partner: Partner = None,
    figures: Annotated[
        Path | None,
        typer.Option(help="also draw images: the list of them (.json), in a folder of its name", callback=check_file),
    ] = None,
    training_log: Annotated[Path | None, typer.Option(help="training log (.jsonl) for the drawn loss")] = None,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Score the sampled images of MANIFEST, and the degraded images that they restore. Scores that fit are kept.

    The values of each image are written beside OUT as images.parquet. Only they are made again where they alone do not
    fit. FIGURES are the images of the report; one process draws and scores, because starting one takes seconds.
    """
    target = setup(log, f"{manifest.parent.name} evaluate", device, threads)
    run = read_run(run_file)
    from coldbench.evaluation.scoring import Features, ScoringPaths, score_run

    score_run(ScoringPaths(manifest, data, feature_cache, partner), run, Features(fid or [], inception), target, out)
    if figures:
        from coldbench.report import run_figures

        nothing = manifest.with_name("no-training-log")
        inputs = run_figures.Inputs(manifest, training_log or nothing, data, partner, feature_cache)
        run_figures.draw(inputs, run.metadata, figures)
