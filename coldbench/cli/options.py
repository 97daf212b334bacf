"""The options and the start-up that several verbs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coldbench.core import logs, plugins
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import check_writable
from coldbench.core.memory import keep_freed_memory
from coldbench.core.run import Run
from coldbench.core.validation import from_json

if TYPE_CHECKING:
    import torch


def check_file(path: Path | None) -> Path | None:
    """Refuse a file that cannot be written before the command does its work."""
    return path if path is None else check_writable(path)


def check_folder(path: Path | None) -> Path | None:
    """The same for a folder."""
    return path if path is None else check_writable(path, folder=True)


Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Log = Annotated[Path | None, typer.Option(help="write the progress lines to this file as well", callback=check_file)]
Threads = Annotated[int | None, typer.Option(min=1, help="CPU threads")]
PluginFiles = Annotated[
    list[str] | None,
    typer.Option("--plugin", metavar="FILE", help="a file with components of your own; may be repeated"),
]
RunFile = Annotated[Path, typer.Argument(help="the facts of the run (JSON), written by the workflow")]
Prepared = Annotated[Path, typer.Option("--data", help="folder written by `coldbench prepare`")]
Partner = Annotated[Path | None, typer.Option(help="prepared data set whose images a degradation mixes in")]
Out = Annotated[Path, typer.Option(help="file to write", callback=check_file)]
FeatureCache = Annotated[
    Path, typer.Option(help="folder for the features of reference sets, computed once", callback=check_folder)
]
Fid = Annotated[
    list[str] | None, typer.Option(help="FID protocols: paper-float, legacy_pytorch, legacy_tensorflow, clean")
]
Devices = Annotated[Path, typer.Option(help="speeds of devices (YAML)")]
SPEEDS = Path("workflow/config/devices.yaml")
PAPER = Path("workflow/paper/tables.csv")
CALIBRATED = Path("results/calibration.parquet")
INTERPRETATIONS = Path("workflow/config/calibration.yaml")
Inception = Annotated[Path | None, typer.Option(help="folder of the Inception weights that FID needs")]


def setup(log: Path | None, name: str, device: str, threads: int | None) -> torch.device:
    """Progress lines to `log`, torch's threads, and the device; torch is imported only by the verbs that need it."""
    keep_freed_memory()
    import torch

    logs.log_to(log, f"[{name}]")
    if threads:
        torch.set_num_threads(threads)
    if device not in ("auto", "cpu", "cuda"):
        raise ColdbenchError(f"unknown device '{device}' (valid: auto, cpu, cuda)")
    if device == "cuda" and not torch.cuda.is_available():
        raise ColdbenchError("device is cuda, but torch sees no GPU here; use device=auto or cpu")
    torch.backends.cudnn.allow_tf32 = False  # fp32 means it; a training with tf32 says so and turns it on
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def text_of(path: Path, what: str) -> str:
    """The text of a user's file, `what` it should be; ColdbenchError if it cannot be read or is no UTF-8."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ColdbenchError(f"cannot read {what} {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ColdbenchError(f"{what} {path} is no text in UTF-8 (byte {error.start})") from error


def read_run(path: Path) -> Run:
    """The run in a run file, with its plug-ins in use; ColdbenchError if a file cannot be read or is something else."""
    run = from_json(Run, text_of(path, "run file"), str(path))
    plugins.use(run.plugins)
    return run
