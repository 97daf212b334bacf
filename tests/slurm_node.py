"""A real Slurm of one node on this machine, from Debian's packages: `python tests/slurm_node.py up|down`, as root.

The node claims more CPUs than there are, so that several jobs run at once, and GPUs that no driver owns: Slurm hands
them out as it would real ones. The configuration has to lie in /etc/slurm, the only place that the jobs of Snakemake's
Slurm plugin find; one that is not ours is never touched.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

ETC = Path("/etc/slurm")
BASE = Path("/var/tmp/coldbench-slurm")
OURS = "# Made by coldbench's tests/slurm_node.py; `down` removes it.\n"
PACKAGES = ("slurmctld", "slurmd", "slurm-client", "munge")
PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged")
GPUS = 4
TRACKING = {"linuxproc": "task/none", "cgroup": "task/cgroup"}
"""How processes are tracked, and what goes with it. Real clusters use cgroups, where signals reach fewer processes."""

SLURM_CONF = """\
ClusterName=coldbench
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
StateSaveLocation={base}/state
SlurmdSpoolDir={base}/spool
SlurmctldPidFile={base}/slurmctld.pid
SlurmdPidFile={base}/slurmd.pid
SlurmctldLogFile={base}/slurmctld.log
SlurmdLogFile={base}/slurmd.log
ReturnToService=2
MailProg=/bin/true
ProctrackType=proctrack/{tracking}
TaskPlugin={task}
JobAcctGatherType=jobacct_gather/linux
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=2,batch_sched_delay=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
KillWait=10
MinJobAge=3600
SlurmdTimeout=15
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=256000 Gres=gpu:fake:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={host} Default=YES MaxTime=2-0 PriorityTier=10 PreemptMode=OFF State=UP
PartitionName=gpu Nodes={host} MaxTime=2-0 PriorityTier=10 State=UP
"""
GRES_CONF = "NodeName={host} Name=gpu Type=fake File={base}/gpu[0-{last}]\n"
CGROUP_CONF = """\
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
ConstrainCores=no
ConstrainRAMSpace=no
ConstrainSwapSpace=no
ConstrainDevices=yes
"""


def absent() -> str:
    """Why no Slurm can be brought up here, or ""."""
    if os.geteuid() != 0:
        return "only root can start a Slurm"
    if lacking := [program for program in PROGRAMS if not shutil.which(program)]:
        return f"{', '.join(lacking)} not installed (apt-get install {' '.join(PACKAGES)})"
    foreign = ETC / "slurm.conf"
    if foreign.exists() and not foreign.read_text().startswith(OURS):
        return f"{foreign} belongs to another Slurm"
    return ""


def cgroups() -> bool:
    """Whether processes can be tracked by cgroups here (version 1, writable)."""
    folder = Path("/sys/fs/cgroup/freezer")
    return folder.is_dir() and os.access(folder, os.W_OK) and Path("/sys/fs/cgroup/devices").is_dir()


def up(tracking: str = "linuxproc") -> None:
    """Bring the node up, with an empty queue; whatever an earlier one left is removed."""
    down()
    for folder in (BASE / "state", BASE / "spool", ETC):
        folder.mkdir(parents=True, exist_ok=True)
    for number in range(GPUS):
        os.mknod(BASE / f"gpu{number}", 0o020666, os.makedev(121, number))  # a major number that nothing owns
    facts = {
        "host": socket.gethostname().split(".")[0],
        "base": BASE,
        "gpus": GPUS,
        "last": GPUS - 1,
        "tracking": tracking,
        "task": TRACKING[tracking],
    }
    for name, text in (("slurm", SLURM_CONF), ("gres", GRES_CONF), ("cgroup", CGROUP_CONF)):
        (ETC / f"{name}.conf").write_text(OURS + text.format(**facts))
    if subprocess.run("munge -n | unmunge", shell=True, capture_output=True, check=False).returncode:
        shutil.rmtree("/run/munge", ignore_errors=True)
        subprocess.run(["install", "-d", "-o", "munge", "-g", "munge", "-m", "755", "/run/munge"], check=True)
        subprocess.run(
            ["setpriv", "--reuid", "munge", "--regid", "munge", "--clear-groups", "munged", "--force"], check=True
        )
        wait("munge", lambda: answers("munge -n | unmunge"))
    subprocess.run(["slurmctld"], check=True)
    wait("slurmctld", lambda: answers("scontrol ping"))
    start_slurmd()


def start_slurmd() -> None:
    """Start the node's daemon, and wait until Slurm hands out the node."""
    subprocess.run(["slurmd", "-N", socket.gethostname().split(".")[0]], check=True)
    wait("node", lambda: state() in {"idle", "mix", "alloc"})


def kill_slurmd() -> None:
    """Kill the node's daemon and everything that works under it, as a power cut does."""
    end("slurmd", signal.SIGKILL)
    subprocess.run(["pkill", "-KILL", "slurmstepd"], check=False)


def down() -> None:
    """End every job and both daemons, and remove the configuration and what they wrote."""
    if (ETC / "slurm.conf").exists() and answers("scontrol ping"):
        subprocess.run(["scancel", "--user=root"], capture_output=True, check=False)
        with contextlib.suppress(TimeoutError):
            wait("jobs", lambda: not subprocess.run(["squeue", "-h"], capture_output=True, check=False).stdout, 30)
    for name in ("slurmd", "slurmctld"):
        end(name, signal.SIGTERM)
    shutil.rmtree(BASE, ignore_errors=True)
    for path in ETC.glob("*.conf") if ETC.is_dir() else ():
        if path.read_text().startswith(OURS):
            path.unlink()


def end(name: str, number: int) -> None:
    """Send a signal to a daemon and wait for its end."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError, ValueError):
        process = int((BASE / f"{name}.pid").read_text())
        os.kill(process, number)
        with contextlib.suppress(TimeoutError):
            wait(name, lambda: not Path(f"/proc/{process}").exists(), 20)


def state() -> str:
    """How Slurm sees the node: idle, mix, alloc, down, …"""
    sinfo = subprocess.run(["sinfo", "-h", "-p", "cpu", "-o", "%t"], capture_output=True, text=True, check=False)
    return sinfo.stdout.strip().rstrip("*")


def answers(command: str) -> bool:
    return subprocess.run(command, shell=True, capture_output=True, check=False).returncode == 0


def wait(what: str, ready: Callable[[], object], seconds: float = 60) -> None:
    """Wait until `ready()`; TimeoutError, with the end of the logs, if it takes longer."""
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            logs = [f"{path}:\n{path.read_text()[-2000:]}" for path in sorted(BASE.glob("*.log"))]
            raise TimeoutError("\n".join([f"{what}: not ready after {seconds:.0f} s", *logs]))
        time.sleep(0.2)


@contextlib.contextmanager
def running(tracking: str = "linuxproc") -> Iterator[None]:
    """A Slurm within the block."""
    up(tracking)
    try:
        yield
    finally:
        down()


if __name__ == "__main__":
    if why := absent():
        sys.exit(f"no Slurm here: {why}")
    match sys.argv[1:]:
        case ["up", *tracking]:
            up(*tracking)
            print(subprocess.run(["sinfo"], capture_output=True, text=True, check=True).stdout)
        case ["down"]:
            down()
        case _:
            sys.exit(f"usage: {sys.argv[0]} up [{'|'.join(TRACKING)}] | down")
