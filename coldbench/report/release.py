"""A release of models: the model files of finished runs in one folder, with a manifest and how to upload them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path

from coldbench.core import __version__
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import copy, read_json, sha256, write_json, write_text
from coldbench.core.logs import log
from coldbench.core.validation import checked
from coldbench.evaluation.scores import read_scores
from coldbench.models.fetch import MANIFEST, Manifest, ModelEntry
from coldbench.models.model_file import load_weights

MODEL = "model.safetensors"
UPLOAD = "upload.txt"
"""The file with the commands that upload a release."""


def release(runs: Iterable[Path], out: Path) -> str:
    """Copy the models of `runs`, folders BUDGET/RUN of results, to `out`, and return the commands that upload them.

    Each model becomes NAME.safetensors, where NAME is its run's. manifest.json follows when all models are there. What
    an earlier release wrote to `out` is replaced.

    ColdbenchError, before anything is written, if a run has no finished model or a damaged one, if two have one name,
    or if `out` holds files that no release wrote.
    """
    entries: dict[str, ModelEntry] = {}
    models: dict[str, Path] = {}
    for run in dict.fromkeys(runs):
        entry = _entry(run)
        if entry.name in entries:
            raise ColdbenchError(f"{run} and {models[entry.name].parent} are both named {entry.name}: leave one out")
        entries[entry.name], models[entry.name] = entry, run / MODEL
    if not entries:
        raise ColdbenchError("name the runs whose models are released, as results/BUDGET/RUN")
    manifest = Manifest(version=1, coldbench=__version__, models=[entries[name] for name in sorted(entries)])
    old = _refuse_foreign(out, {entry.file: entry.sha256 for entry in manifest.models})
    for entry in manifest.models:
        if not (out / entry.file).exists() or sha256(out / entry.file) != entry.sha256:
            copy(models[entry.name], out / entry.file)
    for file in old.keys() - {entry.file for entry in manifest.models}:
        (out / file).unlink(missing_ok=True)
    text = commands(manifest)
    write_json(out / MANIFEST, manifest.model_dump())
    write_text(out / UPLOAD, text)
    log.info("%s: %d models, %.1f MB", out, len(entries), sum(entry.bytes for entry in manifest.models) / 1e6)
    return text


def commands(manifest: Manifest) -> str:
    """The commands that upload a release to a GitHub repository, and the one that fetches a model from there."""
    tag = f"models-{manifest.coldbench}"
    files = shlex.join([MANIFEST, *(model.file for model in manifest.models)])
    address = f"https://github.com/OWNER/REPOSITORY/releases/download/{tag}"
    return (
        "# in the folder of these files; OWNER/REPOSITORY is the repository on GitHub\n"
        f"gh release create {tag} --repo OWNER/REPOSITORY --title {tag} --notes 'for coldbench fetch-model' {files}\n"
        "# the same files again, after a change\n"
        f"gh release upload {tag} --repo OWNER/REPOSITORY --clobber {files}\n"
        "# whoever wants a model; RELEASE in coldbench/models/fetch.py makes the address the default\n"
        f"coldbench fetch-model {shlex.quote(manifest.models[0].name)} --from {address}\n"
    )


def _entry(run: Path) -> ModelEntry:
    """The entry of a run's model; ColdbenchError if it is missing, damaged, or of another version."""
    model = run / MODEL
    if not model.is_file():
        raise ColdbenchError(f"{run} is not finished: it has no {MODEL}; `snakemake {model}` makes it")
    _, header = load_weights(model)
    experiment = header.experiment
    if "imported" in header.provenance:
        log.warning("%s was imported from a checkpoint of other people: see whether their licence lets you", model)
    title = f"{experiment.degradation.get('name')} on {experiment.dataset}, {experiment.size} px"
    if (run / "scores.parquet").exists():
        title = next((score.title for score in read_scores([run / "scores.parquet"])), title)
    return ModelEntry(
        name=experiment.run,
        file=f"{experiment.run}{model.suffix}",
        bytes=model.stat().st_size,
        sha256=sha256(model),
        fingerprint=experiment.fingerprint,
        title=title,
        budget=experiment.budget,
    )


def _refuse_foreign(out: Path, new: Mapping[str, str]) -> dict[str, str]:
    """The files of the release that `out` holds, with their SHA-256; those of `new` may be there already.

    ColdbenchError if it holds anything else.
    """
    if not out.exists():
        return {}
    if not out.is_dir():
        raise ColdbenchError(f"{out} is a file; name a folder")
    old: dict[str, str] = {}
    if (out / MANIFEST).exists():
        manifest = checked(Manifest, read_json(out / MANIFEST), str(out / MANIFEST))
        old = {model.file: model.sha256 for model in manifest.models}
    for path in sorted(out.iterdir()):
        if path.name.startswith(".") or path.name in ((MANIFEST, UPLOAD) if (out / MANIFEST).exists() else ()):
            continue  # a killed release leaves hidden files
        if not path.is_file() or sha256(path) not in (old.get(path.name), new.get(path.name)):
            raise ColdbenchError(f"{path} is no file of a release; move it, or choose another folder")
    return old
