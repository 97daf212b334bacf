"""A copy of the workflow's files, in which tests type commands."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from processes import Process, snakemake
from safetensors.torch import load_file

from coldbench.core.validation import merged

ROOT = Path(__file__).parent.parent
BIN = Path(sys.executable).parent
PATIENCE = 300  # seconds until a run counts as hung, on a busy machine

# T = 6 gives sampling enough steps to be stopped in; every update checks for a signal.
TINY: dict[str, Any] = {
    "budget": "tiny",
    "device": "cpu",
    "experiments": ["X1"],
    "fid": [],
    "threads": {"train": 1, "sample": 1, "evaluate": 1},
    "budgets": {
        "tiny": {
            "network": {"dim": 8, "dim_mults": [1, 2]},
            "training": {
                "max_steps": 120,
                "batch_size": 4,
                "grad_accumulation": 1,
                "learning_rate": 2e-3,
                "ema_start": 20,
            },
            "sampling": {"images": 60, "batch_size": 4, "shard_size": 4},
        }
    },
    "grid": {
        "X1": {
            "title": "Deblurring, digits",
            "cell": {"table": 1, "row": ""},
            "dataset": "digits",
            "size": 16,
            "degradation": {"name": "blur", "T": 6, "kernel": 5, "std": 1.0, "schedule": "constant"},
            "protocol": "a",
            "protocols": {"a": {"rationale": "a test"}, "b": {"rationale": "another", "degradation": {"T": 3}}},
        }
    },
}


@dataclass(frozen=True)
class Ended:
    """The exit status and the whole output of a command."""

    status: int
    output: str

    @property
    def end(self) -> str:
        """What to show of a failed command."""
        return self.output[-3000:]

    @property
    def errors(self) -> list[str]:
        """The error lines of coldbench."""
        return [line for line in self.output.splitlines() if line.startswith("coldbench: error: ")]

    @property
    def plan(self) -> dict[str, int]:
        """Jobs by rule, without the total."""
        jobs = re.findall(r"^(\w+) +(\d+)$", self.output, re.MULTILINE)
        return {rule: int(count) for rule, count in jobs if rule != "total"}


Running = Process | subprocess.Popen[str]


SHOW = ("--cores", "1", "--config", "results=shown", "reports=pages")
"""What the README's command renders published results by; here they are copied to `shown`."""


class Checkout:
    """A copy of the workflow's files, in which commands are typed. One that is already in `folder` is used.

    `program` takes the place of Snakemake, in a process that Python starts anew.
    """

    def __init__(self, folder: Path, program: Sequence[str] = ()) -> None:
        self.folder, self.program = folder, program
        if (folder / "Snakefile").exists():
            return
        for file in ("Snakefile", "environment.yml"):
            shutil.copy(ROOT / file, folder)
        shutil.copytree(ROOT / "workflow", folder / "workflow")
        for link in ("profiles", "slurm"):
            (folder / link).symlink_to((ROOT / link).readlink())

    def start(self, *arguments: str) -> Running:
        """Snakemake as a terminal starts it: a process group of its own, and Ctrl-C not ignored."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE", "PYTEST"))}
        environment = {**kept, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
        if not self.program:
            return Process(snakemake, arguments, environment, self.folder, one_output=True)
        return subprocess.Popen(
            [*self.program, *arguments],
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL) and None,
        )

    def snakemake(self, *arguments: str, patience: float = PATIENCE) -> Ended:
        process = self.start(*arguments)
        try:
            output, _ = process.communicate(timeout=patience)
        finally:
            end_group(process)
        return Ended(process.returncode, output)

    def tiny(self, *arguments: str, **overlay: Any) -> Ended:
        """Snakemake at the tiny budget, with more configuration on top."""
        (self.folder / "tiny.yaml").write_text(yaml.safe_dump(merged(TINY, overlay)))
        return self.snakemake("--cores", "1", *arguments, "--configfile", "tiny.yaml")


def with_published_results(folder: Path) -> Checkout:
    """A checkout in `folder` with the published results as `shown`."""
    shutil.copytree(ROOT / "results/published/laptop-cpu", folder / "shown")
    return Checkout(folder)


def end_group(process: Running) -> None:
    """Leave nothing of a command running."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def wait_for(process: Running, what: Callable[[], bool], patience: float = PATIENCE) -> None:
    """Wait until `what` is so; fail if the command ends before."""
    until = time.monotonic() + patience
    while not what():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < until
        time.sleep(0.02)


def assert_same_weights(run: Path, other: Path) -> None:
    ours, theirs = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def trained(plan: Ended) -> set[str]:
    """The runs whose models a plan trains."""
    return set(re.findall(r"^ *output: \S+/([\w-]+)/model\.safetensors", plan.output, re.MULTILINE))
