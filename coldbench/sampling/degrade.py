"""A user's own clean images × a degradation → degraded images in a folder, with what was drawn for each of them.

The images are degraded one by one, so that no bit depends on how many there are. A run that was stopped or killed
continues, and its results are those of an undisturbed run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from coldbench import data, degradations
from coldbench.core import __version__, plugins, rng
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.files import sha256
from coldbench.core.images import from_uint8
from coldbench.core.interrupts import stoppable
from coldbench.core.logs import Ticker, log
from coldbench.core.validation import fingerprint
from coldbench.data.image_io import read
from coldbench.degradations import Degradation, Drawn
from coldbench.models.header import read_header
from coldbench.sampling import drawn_file
from coldbench.sampling.drawn_file import PURPOSE, DrawnFile, ImageDraw
from coldbench.sampling.output_images import (
    DEGRADE,
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

CPU = torch.device("cpu")


@dataclass(frozen=True)
class DegradeSettings:
    """How images are degraded: to `severity` (None: T), with draws from `seed`; `resize` brings any size to D's."""

    severity: int | None = None
    seed: int = 0
    resize: bool = False


@dataclass(frozen=True)
class Corruption:
    """D for images of `channels` channels: `spec` is its complete description, `partner` the hash of what it mixes in.

    The images are brought to `severity` with draws from `seed`.
    """

    degradation: Degradation
    spec: dict[str, Any]
    channels: int
    severity: int
    seed: int
    resize: bool
    partner: str | None

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that decides an output apart from its image: the fields of the same names in drawn.json."""
        return {
            "degradation": self.spec,
            "size": self.degradation.size,
            "channels": self.channels,
            "severity": self.severity,
            "seed": self.seed,
            "purpose": PURPOSE,
            "partner": self.partner,
            "resize": self.resize,
        }

    def read(self, item: Item) -> tuple[npt.NDArray[np.uint8], dict[str, str]]:
        """The image's pixels (C, size, size), and what its output says of itself."""
        pixels, source = read(item.path, self.degradation.size, self.channels, self.resize)
        text = {"settings": fingerprint(self.identity), "source": source}
        return pixels, {**text, "index": str(item.index)} if self.degradation.draws else text

    def apply(self, pixels: npt.NDArray[np.uint8], index: int) -> tuple[Tensor, Drawn]:
        """The degraded image, float32 (1, C, size, size), and what was drawn for it, without the axis of the images."""
        x0 = from_uint8(pixels[None], CPU)
        drawn = self.degradation.draw_for(x0, torch.tensor([index]), rng.derive(self.seed, PURPOSE))
        xt = degradations.initial_xt(self.degradation, x0, drawn, self.severity)
        return xt, {name: value[0] for name, value in drawn.items()}


def of_model(model: Path, settings: DegradeSettings, partner: Path | None = None) -> Corruption:
    """The degradation that the model in `model` restores; `partner` is the prepared data set that it mixes in.

    ColdbenchError if the model cannot be read or `settings` do not fit.
    """
    header = read_header(model)
    return corruption(header.experiment.degradation, header.experiment.size, header.channels, settings, partner)


def of_words(
    name: str,
    parameters: Mapping[str, Any],
    size: int,
    channels: int,
    settings: DegradeSettings,
    partner: Path | None = None,
) -> Corruption:
    """The degradation `name` with its parameters, for `size` × `size` images of `channels` channels.

    ColdbenchError with the nearest valid choice for an unknown name or parameter, and for settings that do not fit.
    """
    for key in {"name", "source"} & parameters.keys():
        raise unknown(f"parameter of degradation {name}", key, _parameters(name))
    spec = plugins.described("degradation", {**parameters, "name": name})
    return corruption(spec, size, channels, settings, partner)


def corruption(
    spec: Mapping[str, Any], size: int, channels: int, settings: DegradeSettings, partner: Path | None
) -> Corruption:
    """The degradation of `spec` and how it is applied; ColdbenchError if anything does not fit."""
    if channels not in (1, 3):
        raise ColdbenchError(f"images have 1 or 3 channels, not {channels}")
    if spec.get("partner") and partner is None:
        raise ColdbenchError(
            f"degradation {spec['name']} mixes in images of {spec['partner']}: give that prepared data set as partner"
        )
    degradation = degradations.with_partner(spec, size, partner)
    if degradation.needs_colour and channels != 3:
        raise ColdbenchError(f"degradation {degradation.name} needs images of 3 channels, not {channels}")
    severity = degradation.T if settings.severity is None else settings.severity
    if not 1 <= severity <= degradation.T:
        raise ColdbenchError(f"severity {severity} is out of range: {degradation.name} has 1…{degradation.T}")
    complete = degradations.complete_spec(spec, degradation)
    mixed_in = data.info(partner)["hash"] if partner else None
    return Corruption(degradation, complete, channels, severity, settings.seed, settings.resize, mixed_in)


def degrade(corruption: Corruption, source: Path, out: Path) -> None:
    """Degrade the image `source`, or all images in that folder and below it, into the folder `out`.

    Each image becomes an 8-bit PNG of the same relative path with the suffix .png, clamped and rounded to nearest. A
    warning says how much that loses. `out`/drawn.json is written last; it holds what was drawn for each image. A
    stopped run continues. Outputs of other settings or of another source, and outputs that were damaged or changed, are
    made again.

    Raises ColdbenchError, before anything is written, for an image that cannot be read or has another size, outputs
    that are in each other's way, files in `out` that degrade did not write, and draws of other images there.
    """
    with stoppable() as stop, torch.inference_mode():
        items = list_items(source, out)
        refuse_foreign(out, items, DEGRADE)
        _refuse_loss(out, items)
        for item in items:
            stop.check()
            corruption.read(item)
        prepare_folder(out, DEGRADE)
        ticker, values, images, made = Ticker(len(items), "image", 1), {}, list[ImageDraw](), 0
        for item in items:
            stop.check()
            pixels, text = corruption.read(item)
            xt, drawn = corruption.apply(pixels, item.index)
            values = drawn_file.types_of(drawn, corruption.degradation.name)
            (stored,) = to_pixels(xt, f"{corruption.degradation.name} turns {item.path}")
            if not is_up_to_date(out / item.output, text, DEGRADE, stored):
                write_png(out / item.output, stored, text, DEGRADE)
                made += 1
            images.append(_record(corruption, item, text["source"], sha256(out / item.output), xt, drawn))
            ticker.tick(len(images), item.output)
    facts = {"version": 1, "coldbench": __version__, **corruption.identity, "values": values, "images": images}
    write_result(out, DrawnFile.model_validate(facts).model_dump(), DEGRADE)
    _warn(images)
    name, severity, T = corruption.degradation.name, corruption.severity, corruption.degradation.T
    if made < len(items):
        log.info("%d of %d images were degraded already", len(items) - made, len(items))
    log.info("%s: %d images degraded by %s to severity %d of %d", out, len(items), name, severity, T)
    log.info("coldbench restore --drawn %s reads what was drawn", out / DEGRADE.result)


def _record(corruption: Corruption, item: Item, source: str, written: str, xt: Tensor, drawn: Drawn) -> ImageDraw:
    """The entry of one image in drawn.json."""
    excess = (xt.abs() - 1).clamp(min=0) / 2 * 255  # half a level is what rounding loses
    again = {}
    if any(value.numel() > drawn_file.MOST_NUMBERS for value in drawn.values()):
        again = drawn_file.redrawn(corruption.degradation, item.index, corruption.seed, PURPOSE)
    return ImageDraw(
        file=item.output,
        index=item.index,
        source=source,
        sha256=written,
        clamped=(excess > 0.5).double().mean().item(),
        excess=round(excess.max().item(), 3),
        **drawn_file.kept(drawn, again),
    )


def _warn(images: Sequence[ImageDraw]) -> None:
    """Log what the 8-bit files lose beyond rounding."""
    losing = [image for image in images if image.clamped > 0]
    if losing:
        log.warning(
            "%d of %d images lose more than rounding in 8-bit files: %.1f %% of their values leave the range of an "
            "image, by up to %.0f levels of 255, and are clamped",
            *(len(losing), len(images)),
            *(100 * sum(image.clamped for image in losing) / len(losing), max(image.excess for image in losing)),
        )


def _refuse_loss(out: Path, items: Sequence[Item]) -> None:
    """Raise ColdbenchError if drawn.json in `out` holds the draw of an image there that is not among `items`."""
    path = out / DEGRADE.result
    if not is_result(path):
        return
    own = {item.output for item in items}
    for image in drawn_file.read_drawn(path).images:
        if image.file not in own and (out / image.file).exists():
            raise ColdbenchError(
                f"{path} holds what was drawn for {image.file}, which is no image of this run: give another folder, "
                f"or delete {out / image.file}"
            )


def _parameters(name: str) -> list[str]:
    kind: Any = degradations.registry.kind_of(name)
    return sorted(kind.__pydantic_fields__.keys() - {"size", "images"})
