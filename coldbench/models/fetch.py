"""Published models: what a release says of its files, and how one is fetched and verified."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import quote

from pydantic import Field, PositiveInt, model_validator

from coldbench.core.downloads import TIMEOUT, download
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.files import atomic, below, read_json, sha256
from coldbench.core.logs import log
from coldbench.core.validation import Name, RunName, Strict, checked

RELEASE = ""
"""The address of the suite's own release, the folder of its manifest.json; "" as long as there is none."""
MANIFEST = "manifest.json"
LONGEST = 1 << 22
"""The largest manifest in bytes."""


class ModelEntry(Strict):
    """One model of a release."""

    name: RunName
    """The name of the run that trained it."""
    file: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]*\.safetensors$", max_length=180)]
    bytes: PositiveInt
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    fingerprint: str
    """That of its experiment."""
    title: str
    budget: Name


class Manifest(Strict):
    """The file manifest.json of a release."""

    version: Literal[1]
    coldbench: str
    models: list[ModelEntry]

    @model_validator(mode="after")
    def _names_differ(self) -> Manifest:
        for key in ("name", "file"):
            for value, count in Counter(getattr(model, key) for model in self.models).items():
                if count > 1:
                    raise ValueError(f"{count} models have the {key} {value}")
        return self


def fetch_model(name: str, source: str | None, out: Path) -> Path:
    """Copy the model `name` of a release into the folder `out`, and return its file. A present right file is kept.

    `source` is the release: a folder, or an address (http, https); None is RELEASE. The file appears when its size and
    SHA-256 are those of the manifest. What a killed run left is removed by the next one.

    ColdbenchError, and no file, if there is no such model, if the release cannot be read, for a wrong hash, and for
    another file in the model's place.
    """
    release = RELEASE if source is None else source
    if not release:
        raise ColdbenchError(
            "no release of the suite's own models is known: give the folder or address of one as --from"
        )
    release = release.rstrip("/") if _is_address(release) else release
    manifest = read_manifest(release)
    entry = next((model for model in manifest.models if model.name == name), None)
    if entry is None:
        raise unknown("model", name, [model.name for model in manifest.models])
    path = out / entry.file
    if os.path.lexists(path):
        if path.is_file() and (digest := sha256(path)) == entry.sha256:
            log.info("%s is there already", path)
            return path
        has = f"has the SHA-256 {digest}" if path.is_file() else "is no file"
        raise ColdbenchError(f"{path} {has}, not {entry.sha256} as {MANIFEST} says: move it or give another --out")
    log.info("%s from %s, %.1f MB", entry.file, release, entry.bytes / 1e6)
    with atomic(path) as temporary:
        _get(release, entry.file, temporary)
        _verify(temporary, entry, release)
    log.info("%s: %s, %s budget", path, entry.title, entry.budget)
    return path


def read_manifest(release: str) -> Manifest:
    """The manifest of a release, a folder or an address; ColdbenchError if it cannot be read or is something else."""
    if not _is_address(release):
        path = Path(release, MANIFEST)
        if not Path(release).is_dir():
            raise ColdbenchError(f"{release} is no folder; an address begins with http:// or https://")
        return _manifest(read_json(path), str(path))
    url = f"{release}/{MANIFEST}"
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT) as answer:
            content = answer.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise ValueError(f"it has more than {LONGEST:,} bytes")
        return _manifest(json.loads(content), url)
    except (OSError, http.client.HTTPException, ValueError, RecursionError) as error:
        raise ColdbenchError(f"cannot read {url}: {error or type(error).__name__}") from error


def _manifest(content: object, where: str) -> Manifest:
    if not isinstance(content, dict) or "models" not in content:
        raise ColdbenchError(f"{where} is no manifest of a release of models")
    return checked(Manifest, content, where)


def _is_address(release: str) -> bool:
    return release.startswith(("http://", "https://"))


def _get(release: str, file: str, out: Path) -> None:
    """Write the content of a release's file to `out`; ColdbenchError if that fails."""
    where = f"{release}/{quote(file)}" if _is_address(release) else str(below(Path(release), Path(file)))
    try:
        if _is_address(release):
            download(where, out)
        else:
            shutil.copyfile(where, out)
    except (OSError, http.client.HTTPException, ValueError) as error:  # `atomic` would take an OSError for its own
        raise ColdbenchError(f"cannot get {where}: {error or type(error).__name__}; run again") from error


def _verify(path: Path, entry: ModelEntry, release: str) -> None:
    """Raise ColdbenchError unless the content of `path` is the one that the manifest describes."""
    if (size := path.stat().st_size) < entry.bytes:
        raise ColdbenchError(f"{entry.file} ended after {size:,} of {entry.bytes:,} bytes, from {release}; run again")
    if (digest := sha256(path)) != entry.sha256:
        raise ColdbenchError(
            f"{entry.file} has the SHA-256 {digest}, not {entry.sha256}: it is damaged, or another one than {MANIFEST} "
            f"of {release} describes"
        )
