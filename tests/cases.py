"""What tests of several packages are made of: places, scores, pictures of a run, and untrained models."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from coldbench import data, models
from coldbench.core.config import TableCell
from coldbench.core.experiment import Experiment, Network, Training
from coldbench.core.files import sha256
from coldbench.core.run import Run, RunMetadata
from coldbench.core.sampling_settings import Sampling, Start
from coldbench.evaluation.scores import Score, Scores
from coldbench.models import model_file
from coldbench.report import sprites
from coldbench.report.figure_list import LogLine, RunFigures, watermark_of
from coldbench.report.navigation import ReportFolder
from coldbench.report.paper import load_paper
from coldbench.report.sprites import Sprite
from coldbench.sampling.manifest import SampledSet
from coldbench.sampling.shards import SamplingPaths, sample_run

ROOT = Path(__file__).parents[1]
CONFIG = ROOT / "workflow" / "config"
DEVICES = CONFIG / "devices.yaml"
GOLDEN = Path(__file__).parent / "golden"
SHARED = ROOT.parent / "shared"
"""Golden vectors and data beside the checkout; tests that need them are skipped without."""
REAL = Path(os.environ.get("COLDBENCH_TEST_DATA", SHARED / "data"))

PAPER = load_paper(ROOT / "workflow" / "paper" / "tables.csv")
SCORE = Score(
    run="E01-fitted",
    experiment="E01",
    title="Deblurring, MNIST",
    table="1",
    row="MNIST",
    protocol="fitted",
    default=True,
    rationale="20 blur steps",
    budget="paper",
    dataset="mnist",
    dataset_title="MNIST",
    embedded=False,
    set="test",
    method="degraded",
    metric="rmse",
    reference="",
    value=0.2866,
    low=0.2861,
    high=0.2871,
    n=10_000,
    singular=False,
    seed=0,
    provenance=json.dumps({"commit": "0123456789abcdef", "device": "cpu"}),
)
FIGURES = ROOT / "workflow" / "paper" / "figures.yaml"
EVIL = "<b>50 % & $x_1^2$ #~{\\\"'`[] é − ∮"
NOWHERE = ReportFolder(Path("no-such-folder"))
"""A report without any other page."""
MARK = "smoke budget: not a replication"
PLAIN = SampledSet(images=20, methods=["direct", "naive", "tacos"], trajectory="shards/trajectory.npz")
METADATA = RunMetadata(
    name="tiny", protocol="test", budget="smoke", run="tiny-test-s3", title="Tiny", cell=TableCell(table=2, row=""),
    default=True, rationale="a test",
)  # fmt: skip


def score(**changes: Any) -> Score:
    return replace(SCORE, **changes)


def synthetic() -> Scores:
    """A laptop run on MNIST in two readings, and an embedded one: all verdicts of a real page."""
    laptop = {"budget": "laptop"}
    values = {"frechet_gabor": 3.25, "ssim": 0.0145, "rmse": 0.2866}
    split = {"frechet_gabor": "test"}
    fitted = [score(**laptop, metric=m, reference=split.get(m, ""), value=value) for m, value in values.items()]
    fitted += [
        score(**laptop, method=method, metric=metric, reference=split.get(metric, ""), value=value + 0.5, n=512)
        for method in ("tacos", "direct", "naive")
        for metric, value in values.items()
    ]
    other = {**laptop, "run": "E01-paper", "protocol": "paper", "default": False, "rationale": "40 blur steps"}
    reading = [score(**other, metric="ssim", value=0.0130), score(**other, metric="rmse", value=0.2885)]
    digits = {"run": "E01-digits", "row": "", "dataset": "digits", "dataset_title": "digits", "embedded": True}
    extra = [score(**laptop, **digits, method=method, n=360) for method in ("degraded", "tacos")]
    return tuple(fitted + reading + extra)


def generated() -> Scores:
    """Every generation that the paper prints a number of, at its budget, with the printed number as our own."""
    ways = {"fixed_noise": ("noise", "tacos"), "estimated_noise": ("noise", "estimated")}
    ways |= {"perfect_symmetry": ("perfect", "tacos"), "broken_symmetry": ("broken", "tacos")}
    ways |= {"direct": ("broken", "direct"), "generated": ("generated", "tacos")}
    scores = []
    for cell in PAPER:
        if cell.table in ("5", "5.3", "A.7"):
            kind, run = ways[cell.column], cell.row.replace(", ", "-")
            where = {"run": run, "table": "5" if cell.table == "A.7" else cell.table, "row": cell.row}
            where |= {"set": kind[0], "method": kind[1], "n": 6400}
            scores.append(score(**where, metric="fid_legacy_pytorch", reference="train", value=cell.value))
            scores.append(score(**where, metric="fid_legacy_pytorch", reference="test", value=cell.value + 9))
            scores.append(score(**where, metric="fid_clean", reference="train", value=cell.value + 7))
            scores.append(score(**where, metric="kid_clean", reference="train", value=0.01))
    return tuple(scores)


def run_file(folder: Path, experiment: Experiment, sampling: Sampling | None = None) -> Path:
    """A run file in `folder`, as the workflow writes it."""
    run = Run(experiment=experiment, metadata=METADATA, sampling=sampling or Sampling(), model=experiment.run)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "run.json"
    path.write_text(run.model_dump_json())
    return path


def hostile() -> Scores:
    """Every verdict, an erratum, a huge value, NaN, infinity, and a name that every format must escape."""
    names = {"run": "E01-evil_1", "rationale": EVIL, "title": EVIL, "dataset_title": EVIL}
    cifar = {"run": "E02", "row": "CIFAR-10"}
    return (
        score(**names),
        score(**names, metric="ssim", value=0.0145, low=0.01, high=0.02),
        score(**names, method="tacos", value=1e300, low=-1e300, high=1e301),
        score(**names, method="tacos", metric="ssim", value=math.nan, low=math.nan, high=math.nan),
        score(**names, method="direct", metric="frechet_gabor", reference="test", value=math.inf, low=0.1),
        score(**cifar, value=0.5),
        score(**cifar, method="naive", value=0.2, provenance=json.dumps({"loss": math.nan, "list": [math.inf, 1]})),
        score(run="extra", row="", dataset="digits", dataset_title=EVIL, embedded=True),
    )


def untrained(path: Path, experiment: Experiment, channels: int = 1, seed: int = 0) -> Path:
    """A model with random weights: sampling does not care."""
    torch.manual_seed(seed)
    network = models.build(experiment.network, channels, experiment.size)
    model_file.save_model(path, network.state_dict(), experiment, channels)
    return path


def sampled(folder: Path, model: Path, prepared: Path, partner: Path | None = None, **sampling: Any) -> Path:
    """The manifest of the model's samples, made in `folder` on the CPU."""
    paths, manifest = SamplingPaths(model, prepared, folder / "shards", partner), folder / "samples.json"
    sample_run(paths, Sampling(**sampling), torch.device("cpu"), manifest)
    return manifest


def run_figures(folder: Path, name: str, T: int = 6, channels: int = 1, sets: Any = None, **changes: Any) -> RunFigures:
    """The figures of a run as small random images; the run restores if no `sets` are given."""
    sets = sets or {"test": PLAIN}
    metadata = RunMetadata(
        **{"name": name, "protocol": "a", "budget": "smoke", "run": f"{name}-a", "title": f"Title {name}",
           "cell": TableCell(table=1, row="MNIST"), "default": True, "rationale": "a test", **changes}
    )  # fmt: skip
    random = np.random.default_rng(7)
    severities = tuple(map(str, range(T, -1, -1)))

    def draw(file: str, kind: str, columns: tuple[str, ...], rows: int, *shown: str) -> Sprite:
        tiles = random.random((rows * len(columns), channels, 8, 8))
        return sprites.write(sprites.Sheet(file, tiles, kind, columns, *shown), folder / metadata.run, MARK)

    drawn = []
    for set_name, sampling in sets.items():
        generated = sampling.start is not None
        methods = (method for method in sampling.methods if method != "direct")
        columns = ("degraded", "direct", *methods, *(() if generated else ("original",)))
        drawn.append(draw(f"{set_name}-methods", "methods", columns, 6 if generated else 12, set_name))
        drawn.append(draw(f"{set_name}-trajectory", "trajectory", severities, 6, set_name, "tacos"))
        if "naive" in sampling.methods:
            drawn.append(draw(f"{set_name}-naive", "naive", severities, 6, set_name, "naive"))
        if generated:
            drawn.append(draw(f"{set_name}-samples", "samples", ("",) * 8, 2, set_name, "tacos"))
    drawn.append(draw("forward", "forward", tuple(reversed(severities)), 6))
    experiment = Experiment(
        name=name, protocol="a", budget="smoke", dataset="digits", size=8, seed=0,
        degradation={"name": "blur", "T": T}, network=Network(dim=8), training=Training(max_steps=40),
    )  # fmt: skip
    training = tuple(LogLine(float(k), 1 / k, 9.0, float(k)) for k in range(1, 9))
    watermark = watermark_of(metadata.budget, True)
    return RunFigures(
        metadata=metadata, embedded=True, watermark=watermark, experiment=experiment, provenance={},
        model=f"model of {name}", sets=sets, sprites=tuple(drawn), training=training, distances=(),
    )  # fmt: skip


GENERATED = {
    "perfect": PLAIN.model_copy(update={"start": Start(kind="means"), "methods": ["tacos"]}),
    "broken": PLAIN.model_copy(update={"start": Start(kind="means", noise_level=0.002)}),
}


def change_images(prepared: Path, split: str) -> None:
    """Replace the images of a split in a prepared data set by darker ones, as if its source held them."""
    replace_images(prepared, split, 255 - data.load(prepared, split) // 2)


def replace_images(prepared: Path, split: str, images: np.ndarray) -> None:
    """Replace the images of a split in a prepared data set, as if its source held them."""
    path = prepared / f"{split}.npy"
    np.save(path, images)
    description = data.info(prepared)
    sums = {**description["sha256"], split: sha256(path)}
    counts = {**description["counts"], split: len(images)}
    data.write_info(prepared, {**description, "sha256": sums, "counts": counts, "hash": "0123456789ab"})
