"""The verbs of images: data sets, restoration of a user's images, and calibration."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from coldbench.cli.options import (
    CALIBRATED,
    INTERPRETATIONS,
    PAPER,
    Device,
    Log,
    Out,
    Partner,
    PluginFiles,
    Threads,
    check_folder,
    setup,
    text_of,
)
from coldbench.core import logs, plugins
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.files import check_writable, files_hash, parse_yaml


def fetch(name: str, folder: Path, plugin: PluginFiles = None, log: Log = None) -> None:
    """Download data set NAME into FOLDER and check it. A present data set is left alone."""
    from coldbench import data

    plugins.use(plugin or [])
    logs.log_to(log, f"[fetch {name}]")
    data.fetch(name, folder)


def fetch_weights(
    folder: Path, fid: Annotated[list[str], typer.Argument(help="FID protocols")], log: Log = None
) -> None:
    """Download the Inception weights that FID needs into FOLDER, verified. Present files are left alone."""
    from coldbench.evaluation.metrics import weights

    logs.log_to(log, "[fetch weights]")
    for protocol in fid:
        weights.fetch(protocol, folder)


def prepare(
    name: str,
    out: Annotated[Path, typer.Option(help="folder to write", callback=check_folder)],
    size: Annotated[int, typer.Option(help="side of the images in pixels")] = 32,
    folder: Annotated[Path | None, typer.Option(help="folder of the data sets; embedded ones need none")] = None,
    plugin: PluginFiles = None,
    log: Log = None,
) -> None:
    """Decode data set NAME once into memory-mapped arrays of uint8 images."""
    from coldbench import data

    plugins.use(plugin or [])
    logs.log_to(log, f"[prepare {name}]")
    data.prepare(name, folder, size, out)
    logs.log.info("%s", data.info(out)["source"])


def degrade(
    degradation: Annotated[
        str, typer.Argument(help="a model, whose degradation is taken, or the NAME of a degradation")
    ],
    source: Annotated[Path, typer.Argument(help="a clean image, or a folder of clean images")],
    out: Annotated[Path, typer.Option(help="folder for the degraded images", callback=check_folder)],
    parameters: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="parameters of the degradation NAME: T=20 kernel=11 std=7"),
    ] = None,
    size: Annotated[int | None, typer.Option(min=2, help="side of the images in pixels, for NAME")] = None,
    channels: Annotated[int | None, typer.Option(help="3 (colour) or 1 (grey), for NAME [default: 3]")] = None,
    severity: Annotated[int | None, typer.Option(help="severity of the results [default: T]")] = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of what is drawn for each image")] = 0,
    resize: Annotated[bool, typer.Option("--resize", help="bring images of any size to the side")] = False,
    partner: Partner = None,
    plugin: PluginFiles = None,
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Degrade your own clean images, as MODEL's experiment or by the degradation NAME, to PNG files in OUT.

    OUT/drawn.json holds what was drawn for each image; `coldbench restore --drawn` reads it. The files have 8 bits:
    values are rounded, and clamped where they leave the range of an image. A warning says how many and how far. A
    stopped run continues, and no other file is overwritten.
    """
    setup(log, "degrade", "cpu", threads)
    plugins.use(plugin or [])
    from coldbench.sampling import degrade as degrading

    settings = degrading.DegradeSettings(severity, seed, resize)
    if degradation in plugins.names("degradation"):
        if size is None:
            raise ColdbenchError(f"degradation {degradation} needs --size, the side of the images in pixels")
        values = {}
        for word in parameters or []:
            key, equals, text = word.partition("=")
            if not equals:
                raise ColdbenchError(f"'{word}' is not KEY=VALUE, such as T=20")
            values[key] = parse_yaml(text, key)
        corruption = degrading.of_words(degradation, values, size, channels or 3, settings, partner)
    elif not Path(degradation).exists() and Path(degradation).suffix != ".safetensors":
        raise unknown("model or degradation", degradation, plugins.names("degradation"))
    else:
        stated = {"--size": size, "--channels": channels, **{word: word for word in parameters or []}}
        if other := [name for name, value in stated.items() if value is not None]:
            raise ColdbenchError(f"{other[0]} is for the NAME of a degradation; {degradation} states its own")
        corruption = degrading.of_model(Path(degradation), settings, partner)
    degrading.degrade(corruption, source, out)


def restore(
    model: Path,
    source: Annotated[Path, typer.Argument(help="an image, or a folder of images")],
    out: Annotated[Path, typer.Option(help="folder for the restored images", callback=check_folder)],
    method: Annotated[str, typer.Option(help="sampling method")] = "tacos",
    severity: Annotated[
        int | None, typer.Option(help="severity of the images [default: that of --drawn, or the model's T]")
    ] = None,
    stride: Annotated[int, typer.Option(min=1, help="severities per step")] = 1,
    known: Annotated[
        list[str] | None,
        typer.Option(
            help="what is known of the degradation, as NAME=NUMBERS: centre=ROW,COLUMN, colour=RED,GREEN,BLUE"
        ),
    ] = None,
    drawn: Annotated[
        Path | None, typer.Option(metavar="FILE", help="drawn.json of `coldbench degrade`: what each image's D drew")
    ] = None,
    resize: Annotated[bool, typer.Option("--resize", help="bring images of any size to the model's")] = False,
    released_shift: Annotated[
        bool, typer.Option("--released-shift", help="the released snow and colour sampler")
    ] = False,
    partner: Partner = None,
    plugin: PluginFiles = None,
    seed: Annotated[int, typer.Option(min=0, help="seed of what is not known")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="images in memory at once; changes no result")] = 64,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Restore your own degraded images with MODEL; a stopped run continues, and no other file is overwritten.

    An output of other settings or of another image is made again, and so is one that was changed: move what you edit.
    """
    target = setup(log, "restore", device, threads)
    plugins.use(plugin or [])
    from coldbench.sampling import restore as restoration

    numbers = {}
    for text in known or []:
        name, equals, values = text.partition("=")
        if not equals:
            raise ColdbenchError(f"--known '{text}' is not NAME=NUMBERS, such as centre=10,12")
        numbers[name] = values
    settings = restoration.RestoreSettings(
        method, severity, stride, numbers, seed, batch_size, resize, released_shift, drawn
    )
    restoration.restore(model, source, out, settings, target, partner)


def calibrate(
    interpretations: Annotated[Path, typer.Argument(help="the interpretations to score (YAML)")] = INTERPRETATIONS,
    data: Annotated[Path, typer.Option(help="folder of the data sets")] = Path("data"),
    paper: Annotated[Path, typer.Option(help="the paper's printed numbers (CSV)")] = PAPER,
    out: Out = CALIBRATED,
    images: Annotated[int | None, typer.Option(min=2, help="only the first images of each set: a quick look")] = None,
    device: Device = "auto",
    threads: Threads = None,
    log: Log = None,
) -> None:
    """Find the interpretation of the paper that gives its Degraded cells, without a trained model (also writes CSV).

    A finished table of the same interpretations and data is kept.
    """
    target = setup(log, "calibrate", device, threads)
    from coldbench import data as datasets
    from coldbench.evaluation import calibration
    from coldbench.evaluation.interpretations import load
    from coldbench.report import calibration as view
    from coldbench.report.paper import load_paper

    check_writable(out)
    plan = load(text_of(interpretations, "interpretations"), str(interpretations))
    cells = load_paper(paper)
    present = {row.dataset for row in plan.rows.values() if datasets.available(row.dataset, data)}
    digests = {name: datasets.source_digest(name, data) for name in sorted(present)}
    made_from = {"inputs": files_hash([interpretations, paper]), "data": digests}
    more = {"first_images": images} if images else {}
    if view.keep_calibration(out, made_from | more):
        return
    began = time.monotonic()
    records = calibration.run(plan, data, target, images)
    facts = calibration.facts(records, time.monotonic() - began, target)
    view.write_calibration(records, cells, out, facts | more, made_from | more)
