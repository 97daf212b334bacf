"""The command `coldbench`: the same verbs that the workflow's rules call."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coldbench import __version__, progress
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
Cache = Annotated[Path, typer.Option("--statistics", help="folder for the features of reference sets, made once")]
Fid = Annotated[
    list[str] | None, typer.Option(help="FID protocols: paper-float, legacy_pytorch, legacy_tensorflow, clean")
]
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
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def _experiment(text: str) -> Experiment:
    try:
        content = text if text.lstrip().startswith("{") else Path(text).read_text()
    except OSError as error:
        raise ColdbenchError(f"cannot read experiment {text}: {error.strerror}") from error
    return from_json(Experiment, content, "experiment")


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
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Train one model; WORK keeps the checkpoints, from which a stopped training goes on."""
    resolved = _experiment(experiment)
    target = _setup(log, f"{resolved.run} train", device, threads)
    from coldbench import train as training
    from coldbench.engine import Options

    training.train(resolved, data, out, work, target, partner, Options(compile, channels_last), preview_every)


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
    view.write(records, cells, out, page, calibration.facts(records, time.monotonic() - began, target), images)


@app.command()
def figures(manifest: Path, about: Words, training_log: Path, out: Out, log: Log = None) -> None:
    """Draw the figures of one run."""
    from coldbench.report import gallery

    progress.log_to(log, f"[{manifest.parent.name} figures]")
    gallery.draw(manifest, from_json(About, about, "about"), training_log, out)


@app.command()
def table(
    number: str,
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")],
    out: Out,
    scores: Annotated[list[Path] | None, typer.Argument(help="scores (.parquet); none shows the paper alone")] = None,
    log: Log = None,
) -> None:
    """Render table NUMBER from SCORES as a page, and beside it as CSV."""
    from coldbench.files import write_text
    from coldbench.report import inputs, page, tables

    progress.log_to(log, f"[table {number}]")
    rows = inputs.load_scores(scores or [])
    view = tables.table_view(number, rows, inputs.load_paper(paper))
    write_text(out.with_suffix(".csv"), tables.table_csv(view))
    write_text(out, page.table_page(view, rows))


@app.command()
def report(
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")],
    out: Out,
    inputs: Annotated[list[Path], typer.Argument(help="scores (.parquet) and figure lists (.json)")],
    log: Log = None,
) -> None:
    """Render the whole report as one self-contained page."""
    from coldbench.files import write_text
    from coldbench.report import gallery, page, tables
    from coldbench.report import inputs as reading

    progress.log_to(log, "[report]")
    scores = reading.load_scores([path for path in inputs if path.suffix == ".parquet"])
    cells = reading.load_paper(paper)
    views = [tables.table_view(number, scores, cells) for number in tables.tables_of(cells)]
    pictures = gallery.load([path for path in inputs if path.suffix == ".json"])
    write_text(out, page.index_page(views, scores, pictures))
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
        sys.exit(stop.status)
