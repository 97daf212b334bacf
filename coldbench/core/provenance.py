"""Where a number comes from: what every row of the results carries."""

from __future__ import annotations

import functools
import platform
import subprocess
from pathlib import Path
from typing import Any

import torch

from coldbench import __version__


@functools.cache
def commit() -> str:
    """The commit of the source tree this package runs from, with '+changes' if it differs; '' outside a checkout."""
    git = ["git", "-C", str(Path(__file__).parents[1])]
    try:
        head = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        dirty = subprocess.run([*git, "status", "--porcelain", "--", "."], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")


def device_name(device: torch.device) -> str:
    """The device as a person names it."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    threads = torch.get_num_threads()
    return f"CPU, {threads} thread{'s' * (threads > 1)}, {platform.machine()}"


def provenance(device: torch.device, **facts: Any) -> dict[str, Any]:
    """Version, commit, device and library versions, and what the caller adds."""
    return {
        "coldbench": __version__,
        "commit": commit(),
        "device": device_name(device),
        "torch": torch.__version__,
        "python": platform.python_version(),
        **facts,
    }
