"""The software and the device that produced a result; every row of the scores carries them."""

from __future__ import annotations

import functools
import hashlib
import platform
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coldbench.core import __version__
from coldbench.core.files import files_hash
from coldbench.core.validation import fingerprint

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


@functools.cache
def code_hash() -> str:
    """The hash of this package's files: code, templates and tables."""
    folder = Path(__file__).parents[1]
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".py", ".html", ".css", ".js", ".json"))
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.relative_to(folder).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def page_hash(files: Iterable[Path], *settings: str) -> str:
    """The hash of `files`, `settings` and this package, which a page states: new numbers or code render it again."""
    return fingerprint([code_hash(), files_hash(files), *settings])


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
