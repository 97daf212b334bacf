"""The software and the device that produced a result; every row of the scores carries them."""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldbench import __version__

# torch is imported inside functions, so that the status, the plan and the list of data sets answer without loading it.
if TYPE_CHECKING:
    import torch


@functools.cache
def commit() -> str:
    """The commit of the checkout that holds this package, with '+changes' if files differ; '' outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def device_name(device: torch.device) -> str:
    """The name of the GPU, or the CPU with its number of threads and architecture."""
    import torch

    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}, {platform.machine()}"


def provenance(device: torch.device, **facts: Any) -> dict[str, Any]:
    """Version, commit, device and library versions, and the `facts` of the caller."""
    import torch

    return {
        "coldbench": __version__,
        "commit": commit(),
        "device": device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **facts,
    }
