"""The two files of Inception weights that FID needs: where they are offered, and their SHA-256."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from coldbench.core.downloads import download
from coldbench.core.errors import WITH_REQUIREMENTS, ColdbenchError, MissingFile, unknown
from coldbench.core.files import atomic, sha256
from coldbench.core.logs import log


@dataclass(frozen=True)
class Weights:
    """A file of weights: its name, the address at which its authors offer it, and its SHA-256."""

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
"""The weights of every FID protocol. `inception` describes the protocols."""


def of(protocol: str) -> Weights:
    """The weights that `protocol` needs; ColdbenchError if the protocol is unknown."""
    if protocol not in PROTOCOLS:
        raise unknown("FID protocol", protocol, PROTOCOLS)
    return PROTOCOLS[protocol]


def check(protocol: str, folder: Path) -> Path:
    """The file of weights that `protocol` needs; ColdbenchError if it is unknown, missing or another file."""
    weights = of(protocol)
    path = folder / weights.name
    if not path.is_file():
        raise MissingFile(f"{path} does not exist: FID ({protocol}) needs the file {weights.url}")
    if (digest := sha256(path)) != weights.sha256:
        raise ColdbenchError(
            f"{path} has the SHA-256 {digest[:12]}…, not {weights.sha256[:12]}…: it is not {weights.url}"
        )
    return path


def fetch(protocol: str, folder: Path) -> Path:
    """Download the weights that `protocol` needs into `folder`, unless the right file is present.

    ColdbenchError, which says what to put where, if the network fails or another file arrives. No partial file is left.
    """
    weights = of(protocol)
    path = folder / weights.name
    if path.is_file() and sha256(path) == weights.sha256:
        return path
    log.info("%s", weights.url)
    with atomic(path) as temporary:
        try:
            download(weights.url, temporary, weights.sha256)
        except (OSError, RuntimeError) as error:  # inside, because `atomic` takes an OSError for a failed write
            reason = str(error) or type(error).__name__
            raise ColdbenchError(
                f"cannot download {weights.name}: {reason}; get {weights.url} elsewhere, put it into {folder} "
                f"and set inception={folder}",
                WITH_REQUIREMENTS,
            ) from error
    return path
