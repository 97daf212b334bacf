"""Commands in processes of their own that start at once: children of a server that has imported torch and Snakemake.

Python with torch and Snakemake takes seconds of a processor to start, and the tests need a hundred such processes.
Arguments, environment, output, signals and exit statuses are those of any process.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(["snakemake.cli", "coldbench.cli", "coldbench.degradations", "coldbench.training.loop"])


def coldbench() -> None:
    """The command `coldbench`, with one thread, because tests run beside each other."""
    import torch

    from coldbench import cli

    torch.set_num_threads(1)
    cli.main()


def snakemake() -> None:
    """The command `snakemake`."""
    from snakemake.cli import main

    main()


class Process:
    """A process that runs `command` with the words of a command line; the interface is a part of `subprocess.Popen`'s.

    As a terminal starts it: in a process group of its own, and Ctrl-C is not ignored.
    """

    def __init__(
        self,
        command: Callable[[], None],
        words: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        one_output: bool = False,
    ) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._out = Path(self._folder.name, "out")
        self._err = self._out if one_output else Path(self._folder.name, "err")
        place = (cwd or Path.cwd(), dict(env or os.environ), self._out, self._err)
        self._process = SERVER.Process(target=_run, args=(command, [command.__name__, *words], *place))
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0)
        return self._process.exitcode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end; all that went to stdout and to stderr. With `one_output`, both went to the first.

        A process that has not ended in time shows where it stands, and what it has written.
        """
        try:
            self.wait(timeout)
        except subprocess.TimeoutExpired as late:
            self.send_signal(signal.SIGUSR1)
            time.sleep(1)
            processes = subprocess.run(["ps", "-eo", "pid,ppid,stat,etime,time,args"], capture_output=True, text=True)
            written = "\n".join([*self._written(), processes.stdout])
            raise AssertionError(f"not ended after {timeout} s:\n{written}") from late
        return self._written()

    def _written(self) -> tuple[str, str]:
        return self._out.read_text(), "" if self._err == self._out else self._err.read_text()

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self._process.kill()


def _run(
    command: Callable[[], None], words: list[str], folder: Path, environment: dict[str, str], out: Path, err: Path
) -> None:
    os.setsid()
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    for path, stream in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    faulthandler.register(signal.SIGUSR1, file=2)
    sys.argv = words
    command()
