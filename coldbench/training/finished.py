"""Finished models: one that fits a training is kept, any other is set aside and used again once it fits."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Any

from coldbench import data
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import copy, write_text
from coldbench.core.logs import log
from coldbench.core.validation import fingerprint
from coldbench.models.header import read_header, snapshot_file
from coldbench.models.model_file import log_of, set_aside


def training_identity(experiment: Experiment, prepared: Path, partner: Path | None = None) -> dict[str, Any]:
    """Everything that decides the weights of a training: the experiment and the hashes of the prepared images."""
    identity = {"experiment": experiment.hash_inputs, "data": data.info(prepared)["hash"]}
    return identity | ({"partner": data.info(partner)["hash"]} if partner else {})


def fits(model: Path, identity: dict[str, Any]) -> bool:
    """Whether a training of this identity made `model`. A missing or damaged model does not fit."""
    try:
        header = read_header(model)
    except ColdbenchError:
        return False
    made_from = header.experiment.fingerprint, header.data, header.partner
    return made_from == (fingerprint(identity["experiment"]), identity["data"], identity.get("partner"))


def find(model: Path, identity: dict[str, Any]) -> Path | None:
    """The finished model of this identity, at `model` or set aside beside it; None if there is none."""
    others = sorted(model.parent.glob(f"{glob.escape(model.stem)}.*{model.suffix}"))
    return next((file for file in (model, *others) if fits(file, identity)), None)


def keep(model: Path) -> None:
    """Say that a finished model is kept; an empty training log takes the place of one that is missing."""
    log.info("%s is finished: it was made from this experiment and these images", model)
    if not log_of(model).exists():
        log.warning("its training log is missing, so reports show no training curve")
        write_text(log_of(model), "")


def take_snapshot(model: Path, experiment: Experiment, identity: dict[str, Any]) -> None:
    """Copy to `model` the snapshot that the whole training kept, if there is one and it fits."""
    whole = model.parent.with_name(experiment.whole_run) / model.name
    kept = snapshot_file(whole, experiment.training.max_steps)
    if not experiment.snapshot or fits(model, identity) or not fits(kept, identity):
        return
    set_aside(model)
    for file, place in ((log_of(kept), log_of(model)), (kept, model)):
        if file.exists():
            copy(file, place)
    log.info("%s is a copy of %s", model, kept)


def take_back(model: Path, identity: dict[str, Any]) -> None:
    """Put a model that fits and was set aside in its place again, if there is one."""
    other = find(model, identity)
    if other in (None, model):
        return
    set_aside(model)
    for file, place in ((log_of(other), log_of(model)), (other, model)):
        if file.exists():
            file.replace(place)
    keep(model)
