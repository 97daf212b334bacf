"""Measures the jobs of one experiment and a calibration at 128 pixels, of this checkout and of another; prints a table.

    python benchmarks/bench_jobs.py --against ../before [--images 400] [--dim 16] [--rounds 2]

Each checkout prepares the embedded photographs at CelebA's size and trains a network for two steps, because the time of
sampling and scoring does not depend on the weights. Then the jobs that its Snakefile names run in turns, each from
nothing, in a process of its own with one thread. "Scoring" includes the drawing of figures, which older checkouts do in
a job of its own. The calibration scores CelebA's rows on 200 photographs. The system's seconds are those of the kernel,
mostly for memory. Figures are medians.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

EXPERIMENT = "E03-fitted"
JOBS = {"sampling": ("sample",), "scoring": ("evaluate", "draw-figures"), "calibration": ("calibrate",)}
OVERLAY = """
budget: smoke
fid: []
substitute: {{celeba: photos}}
experiments: [E03]
threads: {{prepare: 1, train: 1, sample: 1, evaluate: 1, report: 1}}
grid: {{E03: {{degradation: {{T: 3}}}}}}
budgets:
  smoke:
    network: {{dim: {dim}, dim_mults: [1, 2, 4, 8]}}
    training: {{max_steps: 2, batch_size: 4}}
    sampling: {{images: {images}, batch_size: 64, shard_size: 64, max_frames: 4}}
"""


class Checkout:
    """A checkout and the results that it made."""

    def __init__(self, source: Path, work: Path, overlay: str) -> None:
        self.source, self.work = source.resolve(), work
        self.work.mkdir()
        (self.work / "overlay.yaml").write_text(overlay)
        rows = yaml.safe_load((self.source / "workflow/config/calibration.yaml").read_text())["rows"]
        photographs = {name: {**row, "dataset": "photos"} for name, row in rows.items() if row["dataset"] == "celeba"}
        (self.work / "calibration.yaml").write_text(yaml.safe_dump({"rows": photographs}))
        programs = [str(self.source / "workflow/bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.environment = {**os.environ, "PYTHONPATH": str(self.source), "PATH": ":".join(programs)}
        self.snakemake("--until", "train")
        self.commands = [
            line.split("Shell command:", 1)[1].strip()
            for line in self.snakemake("--dry-run", "--printshellcmds").splitlines()
            if "Shell command:" in line
        ]
        files = f"{self.work}/calibration.yaml --data {self.work} --out {self.work}/calibration.parquet"
        self.commands.append(f"coldbench calibrate {files} --images 200 --device cpu --threads 1")

    def snakemake(self, *options: str) -> str:
        """What the workflow prints; it ends the benchmark when it fails."""
        configuration = [f"results={self.work / 'results'}", f"reports={self.work / 'reports'}"]
        command = ["snakemake", "--cores", "1", "--configfile", str(self.work / "overlay.yaml"), *options]
        done = subprocess.run(
            [*command, "--config", *configuration],
            cwd=self.source,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        if done.returncode:
            sys.exit(done.stdout)
        return done.stdout

    def clear(self) -> None:
        """Delete what was made of the model."""
        folder = self.work / "results/smoke" / EXPERIMENT
        for made in self.work.glob("calibration.parquet*"):
            made.unlink()
        for made in [p for p in folder.iterdir() if not p.name.startswith("model") and p.name != "logs"]:
            shutil.rmtree(made) if made.is_dir() else made.unlink()

    def run(self, verb: str) -> tuple[float, float, float]:
        """Seconds of user and system, and the peak memory in MB, of a verb's job; nothing if it has none."""
        found = [command for command in self.commands if f"coldbench {verb} " in command]
        total = (0.0, 0.0, 0.0)
        for command in found:
            words = command[command.index("coldbench ") :].split()
            process = subprocess.Popen(
                words, cwd=self.source, env=self.environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode:
                sys.exit(f"failed in {self.source}: {command}")
            total = (total[0] + used.ru_utime, total[1] + used.ru_stime, max(total[2], used.ru_maxrss / 1024))
        return total


def main() -> None:
    """Prepare both checkouts, run the jobs in turns and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", type=Path, help="another checkout of coldbench")
    for name, default in {"images": 400, "dim": 16, "rounds": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    arguments = parser.parse_args()
    sources = {"before": arguments.against} if arguments.against else {}
    sources["now"] = Path(__file__).parents[1]
    overlay = OVERLAY.format(dim=arguments.dim, images=arguments.images)
    rows: dict[tuple[str, str], list[tuple[float, float, float]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        checkouts = {name: Checkout(source, Path(folder, name), overlay) for name, source in sources.items()}
        for turn in range(arguments.rounds):
            for name, checkout in checkouts.items():
                checkout.clear()
                for job, verbs in JOBS.items():
                    began = time.perf_counter()
                    parts = [checkout.run(verb) for verb in verbs]
                    used = (sum(p[0] for p in parts), sum(p[1] for p in parts), max(p[2] for p in parts))
                    rows.setdefault((job, name), []).append(used)
                    print(f"round {turn + 1}, {job}, {name}: {time.perf_counter() - began:.0f} s", file=sys.stderr)
    print(f"\n{EXPERIMENT}, 128 px, dim {arguments.dim}, {arguments.images} images, one thread")
    print(f"{'job':12}{'checkout':10}{'user s':>9}{'system s':>10}{'of user':>9}{'MB':>8}")
    for job in JOBS:
        for name in sources:
            user, system, memory = (statistics.median(row[k] for row in rows[job, name]) for k in range(3))
            print(f"{job:12}{name:10}{user:9.1f}{system:10.1f}{system / user:9.0%}{memory:8.0f}")


if __name__ == "__main__":
    main()
