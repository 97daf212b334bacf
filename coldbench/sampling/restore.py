"""A user's own degraded images × a model × a method → restored images in a folder.

The images do not show what is random in the degradation. The user gives what is known: the same for all images, or
the draw of each by the file of `coldbench degrade`. The rest is drawn as for test images, from (seed, index of the
image). A run that was stopped or killed continues with the missing images, and its results are those of an undisturbed
run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import data, models
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.files import sha256
from coldbench.core.images import from_uint8
from coldbench.core.interrupts import stoppable
from coldbench.core.logs import Ticker, log
from coldbench.core.validation import fingerprint
from coldbench.data.image_io import read
from coldbench.degradations import Degradation, Drawn
from coldbench.models import model_file
from coldbench.sampling.known_draws import KnownDraws
from coldbench.sampling.output_images import (
    DEGRADE,
    RESTORE,
    Item,
    is_result,
    is_up_to_date,
    list_items,
    prepare_folder,
    refuse_foreign,
    to_pixels,
    write_png,
    write_result,
)
from coldbench.sampling.samplers import Step, check, method_of, sample, sources

KNOWN_LIMIT = 1e9
"""The largest magnitude of a known number."""


@dataclass(frozen=True)
class RestoreSettings:
    """How images are restored.

    They are at `severity` (None: that of `drawn`, or the model's T); a step spans `stride` severities. `known` gives,
    by name, numbers that the degradation would draw, separated by commas and the same for all images. `drawn` is the
    file drawn.json of `coldbench degrade`, with the draw of each image. The rest is drawn from `seed`. `resize` brings
    images of any size to the model's. `released_shift` evaluates every D one severity too low, as the released code
    does for snow and colour (D11). `batch_size` images are in memory at once; it changes no result.
    """

    method: str = "tacos"
    severity: int | None = None
    stride: int = 1
    known: Mapping[str, str] = field(default_factory=dict)
    seed: int = 0
    batch_size: int = 64
    resize: bool = False
    released_shift: bool = False
    drawn: Path | None = None


@dataclass(frozen=True)
class Restoration:
    """A loaded model and how it restores: from `severity`, with `known` values (on the CPU) for every image.

    `draws` knows what was drawn for each image, if a file says so. `random` names what the degradation draws.
    `identity` holds everything that decides an output apart from its image and its draw.
    """

    model: model_file.Model
    restore: models.Restorer
    degradation: Degradation
    settings: RestoreSettings
    severity: int
    random: tuple[str, ...]
    known: Drawn
    draws: KnownDraws | None
    identity: dict[str, Any]

    @property
    def step_count(self) -> int:
        """The number of steps of an image."""
        return len(method_of(self.settings.method).severities(self.severity, self.settings.stride))

    @property
    def known_names(self) -> list[str]:
        """The names of what is known of every image."""
        return [*self.known, *(self.draws.file.values if self.draws else ())]

    def drawn(self, batch: Sequence[Item], device: torch.device) -> Drawn:
        """What the sampler knows of the images of a batch: known values, and draws in place of the rest."""
        known = {key: value.to(device).expand(len(batch), *value.shape) for key, value in self.known.items()}
        if self.draws:
            return {**known, **self.draws.of(batch, device)}
        indices = torch.tensor([item.index for item in batch], device=device)
        return {**self.degradation.draw(indices, rng.derive(self.settings.seed, "test")), **known}

    def steps(self, x: Tensor, batch: Sequence[Item]) -> Iterator[Step]:
        """The trajectories of the images x (N, C, size, size) in [-1, 1] of the items in `batch`."""
        indices = torch.tensor([item.index for item in batch], device=x.device)

        def draw(purpose: str) -> Drawn:
            return self.degradation.draw(indices, rng.derive(self.settings.seed, purpose))

        return sample(
            self.restore,
            self.degradation,
            x,
            self.drawn(batch, x.device),
            self.settings.method,
            start=self.severity,
            stride=self.settings.stride,
            released_shift=self.settings.released_shift,
            redraw=lambda s: draw(f"test, step {s}"),
        )

    def read(self, item: Item) -> tuple[npt.NDArray[np.uint8], dict[str, str]]:
        """The image's pixels (C, size, size), and what its output says of itself."""
        size, channels = self.model.experiment.size, self.model.channels
        pixels, source = read(item.path, size, channels, self.settings.resize)
        text = {"settings": fingerprint(self.identity), "source": source}
        text |= {"index": str(item.index)} if self.random else {}
        return pixels, {**text, "drawn": self.draws.identity(item)} if self.draws else text

    def warn(self) -> None:
        """Log what the images are taken for, what is not known of them, and what is known but not used."""
        settings, name, T = self.settings, self.degradation.name, self.degradation.T
        log.info(
            "every image is taken to be degraded by %s at severity %d of %d (--severity): any other, such as a clean "
            "photograph, comes out changed",
            *(name, self.severity, T),
        )
        used = sources(settings.method, self.degradation, self.severity, settings.stride, settings.released_shift)
        known = self.known_names
        if known and "drawn" not in used:
            log.warning("method %s does not use what is known: %s", settings.method, ", ".join(known))
        drawn = [name for name in self.random if "redrawn" in used or ("drawn" in used and name not in known)]
        if drawn:
            log.warning("not known and drawn at random: %s", ", ".join(drawn))


def restore(
    model: Path,
    source: Path,
    out: Path,
    settings: RestoreSettings,
    device: torch.device,
    partner: Path | None = None,
) -> None:
    """Restore the image `source`, or all images in that folder and below it, into the folder `out`.

    `partner` is the prepared data set of a degradation that mixes in other images. Each image becomes an 8-bit PNG of
    the same relative path with the suffix .png, clamped and rounded to nearest. `out`/restored.json is written last; it
    names settings and files. A stopped run continues. Outputs of other settings or of another source, and outputs that
    were damaged or changed, are made again.

    Raises ColdbenchError, before anything is written, for settings that do not fit the model, an image that cannot be
    read or has another size, an image whose draw is not known, outputs that are in each other's way, and files in `out`
    that restore did not write.
    """
    restoration = load_restoration(model, settings, device, partner)
    inference_batch = models.INFERENCE_BATCH[device.type]
    hashes: dict[str, str] = {}
    missing: set[Item] = set()
    with stoppable() as stop, torch.inference_mode():
        items = list_items(source, out)
        refuse_foreign(out, items, RESTORE)
        if restoration.draws:
            restoration.draws.assign(items, source)
        for item in items:
            stop.check()
            _, text = restoration.read(item)
            hashes[item.output] = text["source"]
            if not is_up_to_date(out / item.output, text, RESTORE):
                missing.add(item)
        if len(missing) < len(items):
            log.info("%d of %d images are restored already", len(items) - len(missing), len(items))
        restoration.warn()
        if restoration.draws:
            restoration.draws.warn(hashes)
        elif is_result(beside := (source if source.is_dir() else source.parent) / DEGRADE.result):
            log.info("%s may hold what was drawn for these images: --drawn %s reads it", beside, beside)
        prepare_folder(out, RESTORE)
        batches = batches_of(items, missing, settings.batch_size, inference_batch)
        ticker, done = Ticker(max(1, restoration.step_count * sum(map(len, batches))), "image·step", 1), 0
        for batch in batches:
            pixels, texts = zip(*map(restoration.read, batch), strict=True)
            x = from_uint8(np.stack(pixels), device)
            for step in restoration.steps(x, batch):
                x = step.x
                done += len(x)
                stop.check()
                ticker.tick(done, f"{settings.method} · {batch[0].output}")
            restored = to_pixels(x, f"{model} turns {batch[0].path}, or another image of its batch,")
            for item, image, text in zip(batch, restored, texts, strict=True):
                if item in missing:
                    write_png(out / item.output, image, text, RESTORE)
                    hashes[item.output] = text["source"]
    images = [
        {
            "file": item.path.name if source.is_file() else str(item.path.relative_to(source)),
            "output": item.output,
            "source": hashes[item.output],
            "sha256": sha256(out / item.output),
            **({"drawn": restoration.draws.identity(item)} if restoration.draws else {}),
        }
        for item in items
    ]
    origin = {"experiment": restoration.model.experiment.model_dump(), "provenance": restoration.model.provenance}
    write_result(out, {**restoration.identity, **origin, "device": str(device), "images": images}, RESTORE)
    log.info("%s: %d images restored by %s from severity %d", out, len(items), settings.method, restoration.severity)


def load_restoration(model: Path, settings: RestoreSettings, device: torch.device, partner: Path | None) -> Restoration:
    """Load the model; ColdbenchError if it cannot be loaded or `settings` do not fit it."""
    loaded = model_file.load_model(model, device)
    experiment = loaded.experiment
    degradation = loaded.degradation(partner)
    check(settings.method, degradation)
    partner_hash = data.info(partner)["hash"] if partner else None
    draws = KnownDraws.read(settings.drawn, degradation, experiment, partner_hash) if settings.drawn else None
    default = draws.file.severity if draws else degradation.T
    severity = default if settings.severity is None else settings.severity
    if not 1 <= severity <= degradation.T:
        raise ColdbenchError(
            f"severity {severity} is out of range: the model's {degradation.name} has 1…{degradation.T}"
        )
    for key, value in (("stride", settings.stride), ("batch size", settings.batch_size)):
        if value < 1:
            raise ColdbenchError(f"{key} {value} is out of range: 1 or more")
    if draws:
        draws.refuse(severity, settings.known)
    example = degradation.draw(torch.zeros(1, dtype=torch.int64), settings.seed)
    known = parse_known(degradation, example, settings.known)
    identity = {
        "model": loaded.sha256,
        "method": settings.method,
        "severity": severity,
        "stride": settings.stride,
        "seed": settings.seed,
        "known": {key: value.tolist() for key, value in known.items()},
        "partner": partner_hash,
        "resize": settings.resize,
        "released_shift": settings.released_shift,
        **({"drawn": "of each image"} if draws else {}),  # its own text says which
    }
    network = models.restorer(loaded.network, models.INFERENCE_BATCH[device.type])
    return Restoration(loaded, network, degradation, settings, severity, tuple(example), known, draws, identity)


def batches_of(items: list[Item], missing: set[Item], batch_size: int, inference_batch: int) -> list[list[Item]]:
    """Batches of whole inference batches, counted from the first image; those without a missing image are left out.

    Each image keeps its batch index, because a convolution's last bits can differ between batch positions.
    """
    parts = [items[start : start + inference_batch] for start in range(0, len(items), inference_batch)]
    parts = [part for part in parts if not missing.isdisjoint(part)]
    count = max(batch_size // inference_batch, 1)
    return [[item for part in parts[start : start + count] for item in part] for start in range(0, len(parts), count)]


def parse_known(degradation: Degradation, example: Drawn, known: Mapping[str, str]) -> Drawn:
    """The numbers in `known` as tensors of the types and shapes in `example`, without the axis of the images.

    `example` is a draw of the degradation. Raises ColdbenchError, with the valid names and how many numbers each needs,
    for another name or count of numbers, and for a number of another type or outside the degradation's limits.
    """
    orders = {key: f" ({order})" for key, order in degradation.orders.items()}
    counts = [f"{key} {value[0].numel()}{orders.get(key, '')}" for key, value in example.items()]
    needed = f"numbers needed: {', '.join(counts)}"
    tensors = {}
    for key, text in known.items():
        if not example:
            raise ColdbenchError(f"known '{key}' is not possible: {degradation.name} draws nothing")
        if key not in example:
            raise ColdbenchError(f"{unknown('name of what is known', key, example)}; {needed}")
        like, parts = example[key][0], text.split(",")
        if len(parts) != like.numel():
            raise ColdbenchError(f"known '{key}' has {len(parts)} numbers; {needed}")
        low, high = (0, 1) if like.dtype == torch.bool else (-KNOWN_LIMIT, KNOWN_LIMIT)
        limits = getattr(degradation, f"{key}_low", low), getattr(degradation, f"{key}_high", high)
        numbers = [_number(key, part, like.is_floating_point(), *limits) for part in parts]
        tensors[key] = torch.tensor(numbers, dtype=like.dtype).reshape(like.shape)
    return tensors


def _number(key: str, text: str, fractional: bool, low: float, high: float) -> float:
    try:
        value = float(text) if fractional else int(text)
    except ValueError as error:
        what = "number" if fractional else "whole number"
        raise ColdbenchError(f"known '{key}': '{text.strip()}' is no {what}") from error
    if not low <= value <= high:
        raise ColdbenchError(f"known '{key}' must be in {low:g}…{high:g}, not {value:g}")
    return value
