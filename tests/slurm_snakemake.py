"""Snakemake with the Slurm plugin asking for the status of its jobs at least every five seconds.

The plugin waits ten seconds longer after every check without news, up to three minutes, and has no option for it. The
tests would spend most of their time waiting. Nothing else differs from the command `snakemake`.
"""

import sys

from snakemake.cli import main
from snakemake_executor_plugin_slurm import Executor

SECONDS = 5


def _interval(executor: Executor) -> float:
    return min(vars(executor).get("_interval", SECONDS), SECONDS)


def _set_interval(executor: Executor, seconds: float) -> None:
    vars(executor)["_interval"] = seconds


if __name__ == "__main__":
    Executor.next_seconds_between_status_checks = property(_interval, _set_interval)
    sys.argv[0] = "snakemake"
    main()
