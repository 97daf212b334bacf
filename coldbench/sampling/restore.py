"""A user's own degraded images × a model × a method → restored images in a folder.

What is random in the degradation cannot be seen in such an image: the user tells it, or it is drawn as for test images.
Every output is entered into a journal in the folder, with its hash, before it is written. A run that was stopped or
killed thus goes on where it was, and never overwrites a file that it did not write. An output that is not as it was
written, damaged or changed by the user, is made again, and comes out as it would have with all the others.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coldbench import data, degradations, models
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.files import atomic, sha256, write_text
from coldbench.core.images import from_uint8
from coldbench.core.interrupts import stoppable
from coldbench.core.logs import Ticker, log
from coldbench.core.validation import fingerprint
from coldbench.data.image_io import SUFFIXES, encode, list_images, read
from coldbench.degradations import Degradation, Drawn
from coldbench.models import model_file
from coldbench.sampling import journal
from coldbench.sampling.journal import JOURNAL, Record
from coldbench.sampling.samplers import Step, check, sample

RESULT = "restored.json"
GIVEN = ("naive", "tacos")
"""The methods that use what was drawn for an image once; the others draw at every step, or need no draw at all."""
NO_DRAW = ("direct", "estimated")
LARGEST = 1e9
"""Of the numbers that can be told."""


@dataclass(frozen=True)
class Item:
    """One image: its place among those of the source, its file, and its output's path inside the folder."""

    place: int
    path: Path
    output: str


@dataclass(frozen=True)
class Way:
    """How to restore: the network, D, what is told of D for every image (on the CPU), and the trajectory."""

    network: models.Restorer
    degradation: Degradation
    told: Drawn
    method: str
    severity: int
    stride: int
    seed: int
    released_shift: bool

    @property
    def length(self) -> int:
        """The number of steps."""
        return 1 if self.method == "direct" else len(range(0, self.severity, self.stride))

    def steps(self, x: Tensor, places: Tensor) -> Iterator[Step]:
        """The trajectory of the images x (N, C, size, size) in [-1, 1] that stand at `places` (N,) int64."""

        def draw(purpose: str) -> Drawn:
            return self.degradation.draw(places, rng.derive(self.seed, purpose))

        told = {key: value.to(x.device).expand(len(x), *value.shape) for key, value in self.told.items()}
        return sample(
            self.network,
            self.degradation,
            x,
            {**draw("test"), **told},
            self.method,
            self.severity,
            self.stride,
            self.released_shift,
            redraw=lambda s: draw(f"test, step {s}"),
        )


def restore(
    model: Path,
    source: Path,
    out: Path,
    device: torch.device,
    method: str = "tacos",
    severity: int | None = None,
    stride: int = 1,
    state: Mapping[str, str] | None = None,
    seed: int = 0,
    batch: int = 64,
    partner: Path | None = None,
    resize: bool = False,
    released_shift: bool = False,
) -> None:
    """Restore the image `source`, or all images in that folder and below it, by one method, into the folder `out`.

    The images stand at `severity` (default: the model's T); `stride` severities are taken at a time. `state` tells what
    the degradation would draw, by name: numbers with commas between them, the same for all images. What is not told is
    drawn from (seed, place of the image among those of the source). `partner` is the prepared data set of a degradation
    that mixes in other images. `resize` brings images of any size to the model's: see `read`. `released_shift` takes
    every D one severity too low, as the released code does for snow and colour (D11).

    Writes for each image an 8-bit PNG, clipped and rounded to nearest, of the same relative path with the suffix .png;
    then, last, `out`/restored.json, which names settings and files. A run that was stopped goes on; an output of other
    settings or of another image is made again, and so is one that was changed since: move what you edit. Raises
    ColdbenchError, before anything is written, for settings that do not fit the model, an image that cannot be read or
    has another size, two images with one output, an output that needs a folder where another output or a file stands,
    and an output, a restored.json or a journal that exists but was not written here.
    """
    loaded = model_file.load_model(model, device)
    experiment, side = loaded.experiment, loaded.experiment.size
    if experiment.partner and partner is None:
        raise ColdbenchError(
            f"{model} mixes in images of {experiment.partner}: give that data set, prepared, as partner"
        )
    degradation = degradations.for_experiment(experiment, partner)
    drawn = degradation.draw(torch.zeros(1, dtype=torch.int64), seed)
    told = parse_state(degradation, drawn, state or {})
    begin = _start(degradation, method, severity, stride, batch)
    tile = models.INFERENCE_BATCH[device.type]
    network = models.restorer(loaded.network, tile)
    way = Way(network, degradation, told, method, begin, stride, seed, released_shift)
    about = {
        "model": sha256(model),
        "method": method,
        "severity": begin,
        "stride": stride,
        "seed": seed,
        "state": {key: value.tolist() for key, value in told.items()},
        "partner": data.info(partner)["hash"] if partner else None,
        "resize": resize,
        "released_shift": released_shift,
    }
    settings = fingerprint(about)

    def entry(item: Item, content: str) -> Record:
        place = item.place if drawn else None  # where nothing is drawn, an image may change its place
        return {"output": item.output, "settings": settings, "place": place, "source": content}

    with stoppable() as stop, torch.inference_mode():
        items, records, missing = _items(source, out), journal.load(out), set[Item]()
        journal.refuse_foreign(out, [item.output for item in items], RESULT, records)
        for item in items:
            stop.check()
            _, content = read(item.path, side, loaded.channels, resize)
            if not journal.finished(out, records.get(item.output, {}), entry(item, content)):
                missing.add(item)
        if len(missing) < len(items):
            log.info("%d of %d images are there already", len(items) - len(missing), len(items))
        _warn(method, told, drawn)
        # Written anew, so that no line is cut short, to which the next would be joined; and never without an entry.
        records.setdefault(RESULT, {"output": RESULT, "sha256": None})
        write_text(out / JOURNAL, journal.lines(records))
        (out / RESULT).unlink(missing_ok=True)  # until the end the folder is not what it says
        batches = _batches(items, missing, batch, tile)
        ticker, seen = Ticker(max(1, way.length * sum(map(len, batches))), "image·step", 1), 0
        for chunk in batches:
            pixels, contents = zip(*(read(item.path, side, loaded.channels, resize) for item in chunk), strict=True)
            x = from_uint8(np.stack(pixels), device)
            for step in way.steps(x, torch.tensor([item.place for item in chunk], device=device)):
                x = step.x
                seen += len(x)
                stop.check()
                ticker.tick(seen, f"{method} · {chunk[0].output}")
            files = encode(x, f"{model} turns {chunk[0].path}, or another image of its batch,")
            made = {
                item.output: {**entry(item, content), "sha256": hashlib.sha256(file).hexdigest()}
                for item, content, file in zip(chunk, contents, files, strict=True)
                if item in missing
            }
            journal.append(out / JOURNAL, made)
            for item, file in zip(chunk, files, strict=True):
                if item in missing:
                    with atomic(out / item.output) as temporary:
                        temporary.write_bytes(file)
            records |= made
    whole = {**about, "experiment": experiment.model_dump(), "provenance": loaded.provenance, "device": str(device)}
    images = [
        {"file": item.path.name if source.is_file() else str(item.path.relative_to(source)), "output": item.output}
        | {key: records[item.output][key] for key in ("source", "sha256")}
        for item in items
    ]
    text = json.dumps({**whole, "images": images}, indent=1, sort_keys=True) + "\n"
    digest = hashlib.sha256(text.encode()).hexdigest()
    journal.append(out / JOURNAL, {RESULT: {"output": RESULT, "sha256": digest}})
    write_text(out / RESULT, text)
    log.info("%s: %d images, restored by %s from severity %d", out, len(items), method, begin)


def _batches(items: list[Item], missing: set[Item], size: int, tile: int) -> list[list[Item]]:
    """Batches of whole tiles, counted from the first image, of the tiles in which one is missing.

    A convolution may sum in another order at another place in the tile: so an image keeps its own, whatever is missing.
    """
    tiles = [items[i : i + tile] for i in range(0, len(items), tile)]
    wanted = [each for each in tiles if not missing.isdisjoint(each)]
    step = max(size // tile, 1)
    return [[item for each in wanted[i : i + step] for item in each] for i in range(0, len(wanted), step)]


def parse_state(degradation: Degradation, drawn: Drawn, words: Mapping[str, str]) -> Drawn:
    """What `words` tell of every image: per name a tensor of the type and shape of `drawn`'s, without the image's axis.

    `drawn` is a state of any images. Raises ColdbenchError, with the valid names and how many numbers each takes, for
    another name or number of numbers; and for what is no number of that type or lies outside the degradation's limits.
    """
    needed = "numbers needed: " + ", ".join(f"{key} {value[0].numel()}" for key, value in drawn.items())
    told = {}
    for key, text in words.items():
        if not drawn:
            raise ColdbenchError(f"state '{key}' cannot be told: {degradation.name} draws nothing")
        if key not in drawn:
            raise ColdbenchError(f"{unknown('state', key, drawn)}; {needed}")
        like, parts = drawn[key][0], text.split(",")
        if len(parts) != like.numel():
            raise ColdbenchError(f"state '{key}' is told {len(parts)} numbers; {needed}")
        low, high = (0, 1) if like.dtype == torch.bool else (-LARGEST, LARGEST)
        limits = getattr(degradation, f"{key}_low", low), getattr(degradation, f"{key}_high", high)
        numbers = [_number(key, part, like.is_floating_point(), *limits) for part in parts]
        told[key] = torch.tensor(numbers, dtype=like.dtype).reshape(like.shape)
    return told


def _number(key: str, text: str, fractional: bool, low: float, high: float) -> float:
    try:
        value = float(text) if fractional else int(text)
    except ValueError as error:
        what = "number" if fractional else "whole number"
        raise ColdbenchError(f"state '{key}': '{text.strip()}' is no {what}") from error
    if not low <= value <= high:
        raise ColdbenchError(f"state '{key}' must lie in {low:g}…{high:g}, not {value:g}")
    return value


def _start(degradation: Degradation, method: str, severity: int | None, stride: int, batch: int) -> int:
    """The severity to start from; ColdbenchError for what no trajectory of this degradation can be."""
    check(method, degradation)
    if severity is not None and not 1 <= severity <= degradation.T:
        raise ColdbenchError(
            f"severity {severity} is out of range: the model's {degradation.name} has 1…{degradation.T}"
        )
    if stride < 1 or batch < 1:
        raise ColdbenchError(f"stride and batch must be 1 or more, not {stride} and {batch}")
    return degradation.T if severity is None else severity


def _warn(method: str, told: Drawn, drawn: Drawn) -> None:
    """Say what is not known of the images, and what was told in vain."""
    if told and method not in GIVEN:
        log.warning("method %s makes no use of the state told: %s", method, ", ".join(told))
    hidden = [key for key in drawn if method not in GIVEN or key not in told]
    if hidden and method not in NO_DRAW:
        log.warning("not known from the images and drawn at random: %s", ", ".join(hidden))


def _items(source: Path, out: Path) -> list[Item]:
    """The images to restore, in their order; ColdbenchError if there are none or their outputs cannot be."""
    if not source.exists():
        raise ColdbenchError(f"{source} does not exist: give an image or a folder of images")
    if out.exists() and not out.is_dir():
        raise ColdbenchError(f"{out} is not a folder")
    paths, top = [source], source.parent
    if source.is_dir():
        if out.resolve().is_relative_to(source.resolve()):
            raise ColdbenchError(f"{out} lies in {source}, whose images are read: give a folder outside it")
        paths, top = list_images(source), source
    if not paths:
        raise ColdbenchError(f"{source} holds no images ({', '.join(SUFFIXES)})")
    found: dict[str, Path] = {}
    for path in paths:
        output = str(path.relative_to(top).with_suffix(".png"))
        if output in found:
            raise ColdbenchError(f"{found[output]} and {path} would both become {out / output}: rename one of them")
        found[output] = path
    for output, path in found.items():
        for folder in Path(output).parents:
            if (other := found.get(str(folder))) is not None:
                raise ColdbenchError(f"{other} would become {out / folder}, the folder of {path}'s: rename one of them")
    return [Item(place, path, output) for place, (output, path) in enumerate(found.items())]
