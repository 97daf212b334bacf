"""The command `coldbench`: the same verbs that the workflow's rules call."""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coldbench import __version__, cluster, progress
from coldbench.config import About, Sampling
from coldbench.errors import ColdbenchError
from coldbench.experiment import Experiment, from_json

if TYPE_CHECKING:
    import torch

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Replication suite for 'Cold Diffusion'. The workflow calls these verbs; run `snakemake` for whole tables.",
)

Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Log = Annotated[Path | None, typer.Option(help="write the progress lines to this file as well")]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads")]
Science = Annotated[str, typer.Option("--experiment", help="the resolved experiment: JSON, or a file that holds it")]
Words = Annotated[str, typer.Option("--about", help="title, cell, default and because, as JSON")]
Prepared = Annotated[Path, typer.Option("--data", help="folder written by `coldbench prepare`")]
Partner = Annotated[Path | None, typer.Option(help="prepared data set whose images a degradation mixes in")]
Work = Annotated[Path, typer.Option(help="folder for checkpoints or shards, which survive a stopped job")]
Out = Annotated[Path, typer.Option(help="file to write")]
Pages = Annotated[list[str] | None, typer.Option("--page", help="a page of the report that may be linked")]
Cache = Annotated[Path, typer.Option("--statistics", help="folder for the features of reference sets, made once")]
Fid = Annotated[
    list[str] | None, typer.Option(help="FID protocols: paper-float, legacy_pytorch, legacy_tensorflow, clean")
]
Devices = Annotated[Path, typer.Option(help="how fast devices are (YAML)")]
SPEEDS = Path("workflow/config/devices.yaml")
Inception = Annotated[Path | None, typer.Option(help="folder of the Inception weights that FID needs")]


def _setup(log: Path | None, name: str, device: str, threads: int | None) -> torch.device:
    """Progress lines to `log`, torch's threads, and the device; torch is imported only by the verbs that need it."""
    import torch

    progress.log_to(log, f"[{name}]")
    if threads:
        torch.set_num_threads(threads)
    if device not in ("auto", "cpu", "cuda"):
        raise ColdbenchError(f"unknown device '{device}' (valid: auto, cpu, cuda)")
    if device == "cuda" and not torch.cuda.is_available():
        raise ColdbenchError("device is cuda, but torch sees no GPU here; use device=auto or cpu")
    torch.backends.cudnn.allow_tf32 = False  # fp32 means it; a training with tf32 says so and turns it on
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _experiment(text: str) -> Experiment:
    try:
        content = text if text.lstrip().startswith("{") else Path(text).read_text()
    except OSError as error:
        raise ColdbenchError(f"cannot read experiment {text}: {error.strerror}") from error
    return from_json(Experiment, content, "experiment")


@app.command()
def plan(
    overlays: Annotated[
        list[Path] | None, typer.Argument(metavar="[CONFIG]...", help="over the grid, as after --configfile (YAML)")
    ] = None,
    device: Annotated[str, typer.Option(help="the kind of device, one of DEVICES")] = "h100",
    gpus: Annotated[int, typer.Option(min=1, help="how many of them")] = 8,
    json: Annotated[bool, typer.Option("--json", help="for other programs")] = False,
    grid: Annotated[Path, typer.Option(help="the grid (YAML)")] = Path("workflow/config/paper.yaml"),
    devices: Devices = SPEEDS,
) -> None:
    """Print what the grid costs before it is run: jobs, GPU-hours, wall hours and disk, per run and table."""
    from coldbench import cost
    from coldbench import plan as planning

    on = cost.device(devices, device)
    jobs = planning.jobs(planning.resolved(planning.read([grid, *(overlays or [])])), on)
    typer.echo((planning.as_json if json else planning.as_text)(jobs, on, gpus))


@app.command()
def fetch(name: str, folder: Path, log: Log = None) -> None:
    """Download data set NAME into FOLDER and check it; nothing to do if it is there."""
    from coldbench import data

    progress.log_to(log, f"[fetch {name}]")
    data.fetch(name, folder)


@app.command()
def fetch_weights(
    folder: Path, fid: Annotated[list[str], typer.Argument(help="FID protocols")], log: Log = None
) -> None:
    """Download the Inception weights that FID needs into FOLDER, verified; nothing to do if they are there."""
    from coldbench.metrics import weights

    progress.log_to(log, "[fetch weights]")
    for protocol in fid:
        weights.fetch(protocol, folder)


@app.command()
def prepare(
    name: str,
    out: Annotated[Path, typer.Option(help="folder to write")],
    size: Annotated[int, typer.Option(help="side of the images in pixels")] = 32,
    folder: Annotated[Path | None, typer.Option(help="where the data set lies; embedded ones need none")] = None,
    log: Log = None,
) -> None:
    """Decode data set NAME once into memory-mapped arrays of uint8 images."""
    from coldbench import data

    progress.log_to(log, f"[prepare {name}]")
    data.prepare(name, folder, size, out)
    progress.log.info("%s", data.info(out)["source"])


@app.command()
def train(
    experiment: Science,
    data: Prepared,
    out: Out,
    work: Work,
    partner: Partner = None,
    compile: Annotated[bool, typer.Option("--compile", help="compile the network (torch.compile)")] = False,
    channels_last: Annotated[bool, typer.Option("--channels-last", help="channels-last memory format")] = False,
    preview_every: Annotated[int, typer.Option(min=0, help="updates between pictures in WORK (0: none)")] = 0,
    checkpoint_every: Annotated[float, typer.Option(min=0, help="seconds between checkpoints")] = 60.0,
    time_limit: Annotated[
        float | None, typer.Option(min=0, help="minutes that a Slurm job has; it saves and stops before they are over")
    ] = None,
    max_cpu_hours: Annotated[
        float | None, typer.Option(min=0, help="refuse a training that would take longer without a GPU")
    ] = None,
    devices: Devices = SPEEDS,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Train one model; WORK keeps the checkpoints, from which a stopped training goes on."""
    resolved = _experiment(experiment)
    target = _setup(log, f"{resolved.run} train", device, threads)
    with contextlib.suppress(OSError):  # Snakemake removes LOG when a job runs again: this keeps it all
        progress.also_to(work / "train.log")
    from coldbench import train as training
    from coldbench.grid import refuse_on_cpu

    if target.type == "cpu" and max_cpu_hours is not None:
        refuse_on_cpu(resolved, max_cpu_hours, devices)
    from coldbench.engine import Options

    upkeep = training.Upkeep(checkpoint_every, preview_every, cluster.working_seconds(time_limit))
    training.train(resolved, data, out, work, target, partner, Options(compile, channels_last), upkeep)


@app.command("import")
def import_(source: Path, experiment: Science, out: Out, log: Log = None) -> None:
    """Turn a checkpoint of the released code (.pt) into a model, checking every key and shape."""
    resolved = _experiment(experiment)
    progress.log_to(log, f"[{resolved.run} import]")
    from coldbench import official

    official.import_model(source, out, resolved)


@app.command()
def export(model: Path, out: Out) -> None:
    """Write MODEL's weights for other code: .safetensors (plain names), or .pt in the released code's layout."""
    from coldbench import official

    official.export_model(model, out)


@app.command()
def sample(
    model: Path,
    data: Prepared,
    work: Work,
    out: Annotated[Path | None, typer.Option(help="manifest to write; none only makes shards")] = None,
    sampling: Annotated[str, typer.Option(help="sets, methods, images and more, as JSON")] = "{}",
    part: Annotated[
        str, typer.Option(help="k/n: without OUT, of every n-th shard from the k-th on what is missing")
    ] = "1/1",
    partner: Partner = None,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Sample MODEL: restore test images or generate new ones by every method; WORK keeps the finished shards."""
    target = _setup(log, f"{model.parent.name} sample", device, threads)
    from coldbench import sample as sampler

    k, slash, n = part.partition("/")
    if not (slash and k.isdecimal() and n.isdecimal() and 1 <= int(k) <= int(n)):
        raise ColdbenchError(f"part must be k/n with 1 ≤ k ≤ n, not '{part}'")
    resolved = from_json(Sampling, sampling, "sampling")
    sampler.run(model, data, out, work, resolved, target, partner, (int(k), int(n)))


@app.command()
def restore(
    model: Path,
    source: Annotated[Path, typer.Argument(help="an image, or a folder of images")],
    out: Annotated[Path, typer.Option(help="folder to write the restored images into")],
    method: Annotated[str, typer.Option(help="how to sample")] = "tacos",
    severity: Annotated[int | None, typer.Option(help="where the images stand [default: the model's T]")] = None,
    every: Annotated[int, typer.Option(min=1, help="severities taken at a time")] = 1,
    state: Annotated[list[str] | None, typer.Option(help="what is known, as NAME=NUMBERS: centre=10,12")] = None,
    resize: Annotated[bool, typer.Option("--resize", help="bring images of any size to the model's")] = False,
    official_shift: Annotated[
        bool, typer.Option("--official-shift", help="the released snow and colour sampler")
    ] = False,
    partner: Partner = None,
    seed: Annotated[int, typer.Option(min=0, help="of what is not known")] = 0,
    batch: Annotated[int, typer.Option(min=1, help="images in memory at once")] = 64,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Restore your own degraded images with MODEL; a stopped run goes on, and nothing foreign is overwritten."""
    target = _setup(log, "restore", device, threads)
    from coldbench import restore as restoring

    told = {}
    for text in state or []:
        name, equals, numbers = text.partition("=")
        if not equals:
            raise ColdbenchError(f"state must be NAME=NUMBERS, such as centre=10,12, not '{text}'")
        told[name] = numbers
    restoring.restore(
        model, source, out, target, method, severity, every, told, seed, batch, partner, resize, official_shift
    )


@app.command()
def evaluate(
    manifest: Path,
    about: Words,
    data: Prepared,
    out: Out,
    statistics: Cache,
    fid: Fid = None,
    inception: Inception = None,
    partner: Partner = None,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Score the sampled images that MANIFEST names, and the degraded ones they were made from."""
    target = _setup(log, f"{manifest.parent.name} evaluate", device, threads)
    from coldbench import evaluate as evaluation
    from coldbench import manifest as sampled
    from coldbench.experiment import checked

    science = checked(Experiment, sampled.facts(manifest)["experiment"], f"the experiment in {manifest}")
    found = evaluation.extractors(fid or [], inception, target)
    scorer = evaluation.Scorer(science, data, statistics, found, target)
    evaluation.evaluate(scorer, manifest, from_json(About, about, "about"), out, partner)


@app.command()
def collect(out: Out, scores: Annotated[list[Path], typer.Argument(help="scores (.parquet)")], log: Log = None) -> None:
    """Join SCORES into one tidy table, OUT (.parquet), and beside it the same as CSV."""
    from coldbench.report import inputs

    progress.log_to(log, "[collect]")
    inputs.collect(scores, out)


@app.command()
def calibrate(
    readings: Annotated[Path, typer.Argument(help="the readings (YAML)")] = Path("workflow/config/calibration.yaml"),
    data: Annotated[Path, typer.Option(help="where the data sets lie")] = Path("data"),
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")] = Path("workflow/paper/tables.csv"),
    out: Out = Path("results/calibration.parquet"),
    page: Annotated[Path, typer.Option(help="page to write")] = Path("reports/calibration.html"),
    images: Annotated[int | None, typer.Option(min=2, help="only the first images of each set: a quick look")] = None,
    device: Device = "auto",
    threads: Threads = None,
    link: Annotated[list[str] | None, typer.Option(help="a page of the report that may be linked")] = None,
    log: Log = None,
) -> None:
    """Find the reading of the paper that gives its Degraded cells; needs no trained model. Beside OUT, a CSV file."""
    target = _setup(log, "calibrate", device, threads)
    from coldbench import calibrate as calibration
    from coldbench import readings as reading
    from coldbench.report import calibration as view
    from coldbench.report import inputs

    try:
        text = readings.read_text()
    except OSError as error:
        raise ColdbenchError(f"cannot read {readings}: {error.strerror}") from error
    plan, cells = reading.load(text, str(readings)), inputs.load_paper(paper)
    began = time.monotonic()
    records = calibration.run(plan, data, target, images)
    facts = calibration.facts(records, time.monotonic() - began, target)
    view.write(records, cells, out, page, facts, images, link or [path.name for path in page.parent.glob("*.html")])


@app.command()
def status(
    config: Annotated[
        list[Path] | None,
        typer.Argument(help="configurations (YAML) on top of the paper's, as --configfile takes them"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="the same for programs")] = False,
) -> None:
    """Tell of every run whether its model is missing, being trained or done, and whether it was sampled and scored."""
    from coldbench import plan
    from coldbench import status as view

    grid = view.grid_of(plan.read([Path("workflow/config/paper.yaml"), *(config or [])]))
    lines = view.states(grid, Path(grid.config.results), time.time())
    typer.echo(view.as_json(lines) if as_json else view.as_text(lines))


@app.command()
def figures(
    manifest: Path,
    about: Words,
    training_log: Path,
    data: Prepared,
    out: Out,
    statistics: Cache,
    partner: Partner = None,
    log: Log = None,
) -> None:
    """Draw the pictures of one run as sprites, into `figures` beside OUT, their list."""
    _setup(log, f"{manifest.parent.name} figures", "cpu", None)
    from coldbench.report import gallery

    gallery.draw(manifest, from_json(About, about, "about"), training_log, data, out, partner, statistics)


@app.command()
def publish(
    runs: Annotated[list[Path], typer.Argument(help="finished runs: results/BUDGET/RUN")],
    out: Annotated[Path, typer.Option(help="folder to write: results/published/BUDGET-DEVICE")],
    calibration: Annotated[Path | None, typer.Option(help="the calibration's table (.parquet)")] = None,
) -> None:
    """Copy what the report shows of RUNS, small enough for a repository; `--config results=OUT` renders it alone."""
    from coldbench import publish as publishing

    for name in publishing.publish(runs, calibration, out):
        typer.echo(f"{name} in {out}")


@app.command("gallery")
def gallery_(
    plan: Annotated[Path, typer.Option(help="which runs make which figure of the paper (YAML)")],
    out: Out,
    inputs: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet) and lists of pictures (.json)")] = None,
    page: Pages = None,
    log: Log = None,
) -> None:
    """Render the page of figures, OUT, and beside it a page per run, with their images."""
    from coldbench.report import figures as paper
    from coldbench.report import gallery, runs
    from coldbench.report import inputs as reading

    progress.log_to(log, "[gallery]")
    files = inputs or []
    scores = reading.load_scores([path for path in files if path.suffix == ".parquet"])
    pictures = gallery.load([path for path in files if path.suffix == ".json"])
    written = runs.write(paper.load_plan(plan), scores, pictures, out, page or [])
    progress.log.info("%s, and pages of %d runs", out, len(written) - 1)


@app.command()
def table(
    number: str,
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")],
    out: Out,
    scores: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet); none shows the paper alone")] = None,
    plan: Annotated[str, typer.Option(help="JSON: which experiment makes which row, and why it is left out")] = "[]",
    page: Pages = None,
    log: Log = None,
) -> None:
    """Render table NUMBER from SCORES as a page, and beside it as CSV, LaTeX and JSON."""
    from coldbench.files import write_text
    from coldbench.report import inputs, latex, tables, twins
    from coldbench.report import page as pages

    progress.log_to(log, f"[table {number}]")
    rows, folders = inputs.load_scores(scores or []), inputs.folders_of(scores or [])
    view = tables.table_view(number, rows, inputs.load_paper(paper), inputs.plan_of(plan))
    for end, text in (
        (".csv", twins.table_csv(view)),
        (".tex", latex.table_tex(view)),
        (".json", twins.table_json(view, folders)),
    ):
        write_text(out.with_name(f"{out.stem}{end}"), text)
    write_text(out, pages.table_page(view, rows, pages.Site(frozenset(page or []), folders)))


@app.command()
def discrepancies(
    questions: Annotated[Path, typer.Argument(help="what is in question (YAML)")],
    out: Out,
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")],
    grid: Annotated[Path, typer.Option(help="the experiments with their protocols (YAML)")],
    readings: Annotated[Path, typer.Option(help="the readings of the calibration (YAML)")],
    scores: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet)")] = None,
    calibration: Annotated[Path | None, typer.Option(help="the calibration's table (.parquet)")] = None,
    page: Pages = None,
    log: Log = None,
) -> None:
    """Render what paper, README and code say differently, what we chose, and the evidence."""
    from coldbench.files import write_text
    from coldbench.report import discrepancies as view
    from coldbench.report import inputs, tables
    from coldbench.report.page import banner

    progress.log_to(log, "[discrepancies]")
    rows, cells = inputs.load_scores(scores or []), inputs.load_paper(paper)
    views = [tables.table_view(number, rows, cells) for number in tables.tables_of(cells)]
    lines = view.calibrated(calibration)
    sources = view.load(questions), view.grid_of(grid), view.readings_of(readings)
    found = view.discrepancies(*sources, lines, rows, views)
    write_text(out, view.page(found, banner(rows), page or []))


@app.command()
def report(
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")],
    claims: Annotated[Path, typer.Option(help="the paper's claims (YAML)")],
    out: Out,
    scores: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet)")] = None,
    plan: Annotated[str, typer.Option(help="JSON: which experiment makes which row, and why it is left out")] = "[]",
    page: Pages = None,
    log: Log = None,
) -> None:
    """Render the front page: scorecard, claims, all tables, runs and hours."""
    from coldbench.files import write_text
    from coldbench.report import claims as claiming
    from coldbench.report import inputs, tables
    from coldbench.report import page as pages

    progress.log_to(log, "[report]")
    rows, cells = inputs.load_scores(scores or []), inputs.load_paper(paper)
    planned = inputs.plan_of(plan)
    views = [tables.table_view(number, rows, cells, planned) for number in tables.tables_of(cells)]
    judged = claiming.judged(claiming.load(claims), rows, cells)
    site = pages.Site(frozenset(page or []), inputs.folders_of(scores or []))
    write_text(out, pages.index_page(views, rows, judged, site, out.parent))
    progress.log.info("%s", out)


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
        progress.log_end(f"error: {error}")
        sys.exit(f"coldbench: error: {error}")
    except progress.Interrupted as stop:
        progress.log_end(str(stop))
        print(f"coldbench: {stop}", file=sys.stderr)
        cluster.hand_over(stop)
        sys.exit(stop.status)
