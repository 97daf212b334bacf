"""Searches the budget for a laptop: which network and training restore MNIST best after a given time; prints a table.

    python benchmarks/bench_budget.py --data data --minutes 3 --experiments E01 --out build/budget
    python benchmarks/bench_budget.py --data data --minutes 8 --experiments E04 E07 --only "dim 16" --out build/budget

Every candidate trains for the same CPU time of one thread, on the first 55,000 training images. It restores images of
the last 5,000, the validation split; the test images are not looked at. The training is the suite's own
(`training.loop.optimizer_step`); schedules other than a constant learning rate exist here only. A finished candidate
is not trained again, so a stopped search goes on where it was. `--jobs` candidates train side by side, each a process
of one thread; because the clock is the CPU's, other work on the machine changes little.

`budget.md` records what came out. Columns: steps in the time, images per second of training, milliseconds of one
network evaluation for an image in sampling, the training loss of the last tenth, SSIM and RMSE of direct
reconstruction and of TACoS.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from coldbench import data, degradations, models
from coldbench.core import rng
from coldbench.core.config import Config
from coldbench.core.experiment import Experiment
from coldbench.core.files import write_text
from coldbench.core.images import from_uint8
from coldbench.core.memory import keep_freed_memory
from coldbench.core.run import resolve
from coldbench.core.validation import merged
from coldbench.degradations import network_input
from coldbench.evaluation.metrics.similarity import scores_per_image
from coldbench.planning import layers
from coldbench.sampling.samplers import reconstruct
from coldbench.training import distributed
from coldbench.training.loop import TrainingSet, TrainingState, micro_batches, optimizer_step

CONFIG = [Path("workflow/config/paper.yaml")]
VALIDATION = 5_000
TODAY: dict[str, Any] = {
    "network": {"dim": 16, "dim_mults": [1, 2, 4, 8]},
    "training": {
        "batch_size": 32,
        "grad_accumulation": 1,
        "learning_rate": 1e-3,
        "ema_update_every": 1,
        "ema_start": 500,
    },
}


def network(**changes: Any) -> dict[str, Any]:
    """A candidate with another network."""
    return {"network": changes}


def training(**changes: Any) -> dict[str, Any]:
    """A candidate with another training."""
    return {"training": changes}


CANDIDATES: dict[str, dict[str, Any]] = {
    "dim 16": {},
    "dim 8": network(dim=8),
    "dim 24": network(dim=24),
    "dim 32": network(dim=32),
    "dim 16, mults 1 2 4": network(dim_mults=[1, 2, 4]),
    "dim 8, mults 1 4 8 16": network(dim=8, dim_mults=[1, 4, 8, 16]),
    "dim 16, mults 1 2 4 8 8": network(dim_mults=[1, 2, 4, 8, 8]),
    "dim 16, residual": network(residual=True),
    "rate 3e-4": training(learning_rate=3e-4),
    "rate 2e-3": training(learning_rate=2e-3),
    "rate 4e-3": training(learning_rate=4e-3),
    "batch 16": training(batch_size=16),
    "dim 8, batch 16": {**network(dim=8), **training(batch_size=16)},
    "dim 8, batch 16, EMA 0.999": {**network(dim=8), **training(batch_size=16, ema_decay=0.999)},
    "dim 8, mults 1 2 4, batch 16": {**network(dim=8, dim_mults=[1, 2, 4]), **training(batch_size=16)},
    "batch 64, rate 2e-3": training(batch_size=64, learning_rate=2e-3),
    "EMA 0.999": training(ema_decay=0.999),
    "cosine to 0, rate 2e-3": {**training(learning_rate=2e-3), "schedule": "cosine"},
    "warm-up, rate 2e-3": {**training(learning_rate=2e-3), "schedule": "warmup"},
}


def experiment_of(candidate: str, name: str) -> Experiment:
    """Experiment `name` of the grid with a candidate's network and training."""
    changes = {key: value for key, value in CANDIDATES[candidate].items() if key != "schedule"}
    config = merged(layers.read(CONFIG), {"budgets": {"search": merged(TODAY, changes)}})
    checked = Config.model_validate(config)
    return resolve(checked, name, checked.grid[name].protocol, "search").experiment


def rate_factor(schedule: str, progress: float, step: int) -> float:
    """The learning rate as a share of the candidate's, after a share `progress` of the time and `step` steps."""
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return min(1.0, (step + 1) / 200) if schedule == "warmup" else 1.0


def prepared(folder: Path, out: Path) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """MNIST's training images at 32 px, kept in `out`."""
    file = out / "train.npy"
    if not file.exists():
        images = np.stack(list(data.dataset("mnist").build(folder, 32, "train")))
        np.save(file.with_suffix(".new.npy"), images)
        file.with_suffix(".new.npy").replace(file)
    images: np.ndarray[Any, np.dtype[np.uint8]] = np.load(file, mmap_mode="r")
    return images


def restored(experiment: Experiment, weights: dict[str, Tensor], images: Tensor) -> dict[str, float]:
    """SSIM and RMSE of direct reconstruction and TACoS of the images (N, 1, 32, 32), and the time of an evaluation."""
    degradation = degradations.build(experiment.degradation, experiment.size)
    net = models.build(experiment.network, 1, experiment.size)
    net.load_state_dict(weights)
    drawn = degradation.draw_for(images, torch.arange(len(images)), 7)
    x_T = network_input(degradation, images, torch.full((len(images),), degradation.T), drawn)
    scores: dict[str, float] = {}
    restore = models.restorer(net, 16)
    for method in ("direct", "tacos"):
        start = time.process_time()
        out = reconstruct(restore, degradation, x_T, drawn, method)
        evaluations = 1 if method == "direct" else degradation.T
        scores["evaluation_ms"] = 1000 * (time.process_time() - start) / len(images) / evaluations
        original, shown = ((each + 1) / 2 for each in (images, out))
        ssims, mses = scores_per_image(original, shown.clamp(0, 1))
        scores[f"{method}_ssim"], scores[f"{method}_rmse"] = float(ssims.mean()), float(mses.mean() ** 0.5)
    return scores


def work(candidate: str, name: str, arguments: argparse.Namespace) -> None:
    """Train one candidate on one experiment for the CPU time and write its record."""
    torch.set_num_threads(1)
    keep_freed_memory()
    experiment = experiment_of(candidate, name)
    images = prepared(arguments.data, arguments.out)
    source = TrainingSet(
        images[:-VALIDATION], experiment, degradations.build(experiment.degradation, experiment.size), experiment.seed
    )
    validation = from_uint8(np.asarray(images[-VALIDATION : -VALIDATION + arguments.images]), torch.device("cpu"))
    torch.manual_seed(rng.derive(experiment.seed, "weights"))
    net = models.in_fast_format(models.build(experiment.network, 1, experiment.size).train())
    settings = experiment.training
    state = TrainingState.initial(net, settings.learning_rate, {})
    distributed.match_memory_format(net, state.optimizer, state.ema)
    start, limit, losses = time.process_time(), 60 * arguments.minutes, []
    while (seconds := time.process_time() - start) < limit:
        for group in state.optimizer.param_groups:
            schedule = CANDIDATES[candidate].get("schedule", "")
            group["lr"] = settings.learning_rate * rate_factor(schedule, seconds / limit, state.step)
        batches = micro_batches(source, state.step, range(settings.micro_batch), torch.device("cpu"))
        losses.append(float(optimizer_step(state, batches, settings)[0]))
    record = {
        "candidate": candidate,
        "experiment": name,
        "minutes": arguments.minutes,
        "images": arguments.images,
        "parameters": sum(weight.numel() for weight in net.parameters()),
        "steps": state.step,
        "images_per_second": state.step * settings.batch_size / seconds,
        "loss": float(np.mean(losses[-max(1, len(losses) // 10) :])),
        **restored(experiment, state.ema, validation),
    }
    write_text(record_file(candidate, name, arguments), json.dumps(record))


def record_file(candidate: str, name: str, arguments: argparse.Namespace) -> Path:
    """Where the record of a candidate on an experiment is kept."""
    return Path(arguments.out / f"{name}-{arguments.minutes:g}min-{candidate.replace(' ', '_')}.json")


def print_table(records: list[dict[str, Any]]) -> None:
    """The table of one experiment, best SSIM of direct reconstruction first."""
    first = records[0]
    print(f"\n{first['experiment']}: {first['minutes']:g} CPU minutes, {first['images']} validation images")
    print(f"{'candidate':26}{'parameters':>11}{'steps':>7}{'images/s':>10}{'ms':>7}{'loss':>9}", end="")
    print(f"{'direct SSIM':>13}{'RMSE':>8}{'TACoS SSIM':>12}{'RMSE':>8}")
    for r in sorted(records, key=lambda record: -record["direct_ssim"]):
        print(f"{r['candidate']:26}{r['parameters']:11,}{r['steps']:7,}{r['images_per_second']:10.1f}", end="")
        print(f"{r['evaluation_ms']:7.2f}{r['loss']:9.4f}{r['direct_ssim']:13.4f}{r['direct_rmse']:8.4f}", end="")
        print(f"{r['tacos_ssim']:12.4f}{r['tacos_rmse']:8.4f}")


def main() -> None:
    """Train the candidates that have no record yet, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, default=Path("build/budget"), help="folder of the records")
    parser.add_argument("--minutes", type=float, default=3.0, help="CPU minutes of training for each candidate")
    parser.add_argument("--images", type=int, default=200, help="validation images")
    parser.add_argument("--experiments", nargs="+", default=["E01"])
    parser.add_argument("--only", nargs="+", default=list(CANDIDATES), choices=list(CANDIDATES), metavar="CANDIDATE")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--work", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.work:
        work(*arguments.work, arguments)
        return
    prepared(arguments.data, arguments.out)
    tasks = [(candidate, name) for name in arguments.experiments for candidate in arguments.only]

    def trained(task: tuple[str, str]) -> dict[str, Any]:
        file = record_file(*task, arguments)
        if not file.exists():
            subprocess.run([sys.executable, __file__, *sys.argv[1:], "--work", *task], check=True)
            print(file.read_text(), file=sys.stderr, flush=True)
        record: dict[str, Any] = json.loads(file.read_text())
        return record

    with ThreadPoolExecutor(arguments.jobs) as pool:
        records = list(pool.map(trained, tasks))
    for name in arguments.experiments:
        print_table([record for record in records if record["experiment"] == name])


if __name__ == "__main__":
    main()
