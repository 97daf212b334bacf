"""Downloads of files, by torch, that do not wait for a silent server forever."""

from __future__ import annotations

import socket
from pathlib import Path

TIMEOUT = 60.0
"""Seconds without a byte before a download fails."""


def download(url: str, out: Path, sha256: str | None = None) -> None:
    """Download `url` to `out`, and compare it with `sha256` if that is given.

    OSError or another exception of urllib if the network fails, RuntimeError for another SHA-256. A server that closes
    the connection too early gives a short file without an exception.
    """
    from torch.hub import download_url_to_file

    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch sets none
    try:
        download_url_to_file(url, str(out), hash_prefix=sha256, progress=False)
    finally:
        socket.setdefaulttimeout(before)
