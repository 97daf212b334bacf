"""The two files of Inception weights that FID needs: where they are offered, and how they are known (by SHA-256)."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from coldbench.core.errors import ColdbenchError, MissingFile, unknown
from coldbench.core.files import atomic, sha256
from coldbench.core.logs import log

TIMEOUT = 60
"""Seconds without an answer after which a download is given up."""


@dataclass(frozen=True)
class Weights:
    """A file of weights: its name, where its authors offer it, and what it must hash to."""

    name: str
    url: str
    sha256: str


PORT = Weights(
    "pt_inception-2015-12-05-6726825d.pth",
    "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth",
    "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)
ORIGINAL = Weights(
    "inception-2015-12-05.pt",
    "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/inception-2015-12-05.pt",
    "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4",
)
PROTOCOLS = {"paper-float": PORT, "legacy_pytorch": PORT, "legacy_tensorflow": ORIGINAL, "clean": ORIGINAL}
"""The weights of every FID protocol; `inception` says what a protocol does with them."""


def of(protocol: str) -> Weights:
    """The weights that `protocol` needs; ColdbenchError if there is no such protocol."""
    if protocol not in PROTOCOLS:
        raise unknown("FID protocol", protocol, PROTOCOLS)
    return PROTOCOLS[protocol]


def check(protocol: str, folder: Path) -> Path:
    """The file of weights that `protocol` needs; ColdbenchError if it is unknown, absent or another file."""
    wanted = of(protocol)
    path = folder / wanted.name
    if not path.is_file():
        raise MissingFile(f"{path} does not exist: FID ({protocol}) needs the file {wanted.url}")
    if (found := sha256(path)) != wanted.sha256:
        raise ColdbenchError(f"{path} has the SHA-256 {found[:12]}…, not {wanted.sha256[:12]}…: it is not {wanted.url}")
    return path


def fetch(protocol: str, folder: Path) -> Path:
    """Download what `protocol` needs into `folder`, verified; the file as it is if it is there and right.

    ColdbenchError, telling what to put where, if the network fails or another file arrives; then nothing is left.
    """
    from urllib.request import urlopen

    wanted = of(protocol)
    path = folder / wanted.name
    if path.is_file() and sha256(path) == wanted.sha256:
        return path
    help_ = f"get {wanted.url} elsewhere, put it into {folder} and set inception={folder}"
    log.info("%s", wanted.url)
    with atomic(path) as temporary:
        digest = hashlib.sha256()
        try:
            with urlopen(wanted.url, timeout=TIMEOUT) as answer, temporary.open("wb") as stream:
                while block := answer.read(1 << 20):
                    digest.update(block)
                    stream.write(block)
        except OSError as error:  # within: `atomic` would take it for a failure to write
            raise ColdbenchError(f"cannot download {wanted.name}: {error}; {help_}") from error
        if digest.hexdigest() != wanted.sha256:
            raise ColdbenchError(f"{wanted.url} delivered another file (SHA-256 {digest.hexdigest()[:12]}…); {help_}")
    return path
