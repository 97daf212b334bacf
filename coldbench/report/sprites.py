"""Images as lossless sprites: one PNG of equal tiles in their original pixels, which pages cut out and enlarge."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from pydantic import Field, PositiveInt, model_validator

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic, sha256
from coldbench.core.sampling_settings import LABEL
from coldbench.core.validation import Strict

Images = NDArray[np.floating[Any]]

PIXELS = 800_000
"""The most pixels of a sprite, which bound the size of its file."""
LETTER, LINE = 6, 11
"""The width of a letter and the height of a line in the strip below the tiles, in pixels."""


@dataclass(frozen=True)
class Sheet:
    """The tiles of a sprite, (N, C, H, H) in [0, 1] row by row, and what they show."""

    name: str
    tiles: Images
    kind: str
    columns: tuple[str, ...]
    set: str = ""
    method: str = ""


class Sprite(Strict):
    """A PNG of `rows` × `columns` tiles of `tile` pixels, of which the first `count` are used; a text is below them.

    `columns` are the names of the columns: methods, or severities as text. `method` is the method of all tiles, or "".
    `sha256` is that of the file.
    """

    path: Path
    kind: Literal["methods", "trajectory", "naive", "forward", "samples"]
    """What the columns are: the methods with their input and original; the severities of a trajectory, of one of
    Algorithm 1, or of the forward process; or nothing, for samples."""
    set: str
    method: str
    columns: Annotated[tuple[Annotated[str, Field(max_length=50)], ...], Field(min_length=1)]
    tile: PositiveInt
    rows: PositiveInt
    count: PositiveInt
    height: PositiveInt
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]

    @model_validator(mode="after")
    def _columns_fit_the_kind(self) -> Sprite:
        if self.kind == "methods":
            fits = "degraded" in self.columns and all(re.fullmatch(LABEL, column) for column in self.columns)
        elif self.kind == "samples":
            fits = not any(self.columns)
        else:
            fits = all(column.isdecimal() for column in self.columns)
        if not fits:
            raise ValueError(f"{self.kind} has other columns")
        if not re.fullmatch(LABEL, self.method) and (self.method or self.kind in ("trajectory", "naive")):
            raise ValueError(f"{self.method!r:.50} is no name of a method")
        if not (self.rows - 1) * len(self.columns) < self.count <= self.rows * len(self.columns):
            raise ValueError(f"{self.count} tiles do not fill {self.rows} rows")
        return self

    @property
    def width(self) -> int:
        return len(self.columns) * self.tile

    def place(self, column: str, row: int) -> Tile:
        """The tile of a named column in one row."""
        return self.tile_at(row * len(self.columns) + self.columns.index(column))

    def tile_at(self, index: int) -> Tile:
        """The tile at `index`, counted row by row."""
        row, column = divmod(index, len(self.columns))
        return Tile(self, column, row)


@dataclass(frozen=True)
class Tile:
    """One image of a sprite."""

    sprite: Sprite
    column: int
    row: int


def rows_that_fit(columns: int, tile: int, at_most: int) -> int:
    """The number of rows of tiles that fit into PIXELS: at least one, and at most `at_most`."""
    return max(1, min(at_most, PIXELS // (columns * tile * tile)))


def write(sheet: Sheet, folder: Path, text: str = "") -> Sprite:
    """Write a sheet into `folder` as a PNG, with `text` in a strip below its tiles.

    Values outside [0, 1] are clipped, and NaN becomes black. Raises ColdbenchError for tiles of other shapes.
    """
    tiles, out = sheet.tiles, folder / f"{sheet.name}.png"
    if tiles.ndim != 4 or tiles.shape[1] not in (1, 3) or tiles.shape[2] != tiles.shape[3] or not tiles.size:
        raise ColdbenchError(f"{out.name}: images of shape {tiles.shape}; expected (N, 1 or 3, H, H)")
    count, channels, size, _ = tiles.shape
    wide, rows = len(sheet.columns), -(-count // len(sheet.columns))
    pixels = (np.nan_to_num(tiles).clip(0, 1) * 255).round().astype(np.uint8)
    pixels = np.concatenate([pixels, np.full((rows * wide - count, channels, size, size), 255, dtype=np.uint8)])
    image = pixels.reshape(rows, wide, channels, size, size).transpose(0, 3, 1, 4, 2)
    image = image.reshape(rows * size, wide * size, channels)
    if text:  # the repeated last row keeps white out of the tiles where a browser rounds
        image = np.concatenate([image, image[-1:], _strip(text, wide * size, channels)])
    with atomic(out) as temporary:
        Image.fromarray(image[..., 0] if channels == 1 else image).save(temporary, format="png", optimize=True)
    facts = {"kind": sheet.kind, "set": sheet.set, "method": sheet.method, "columns": sheet.columns}
    return Sprite.model_validate(
        {**facts, "path": out, "tile": size, "rows": rows, "count": count, "height": len(image), "sha256": sha256(out)}
    )


def check(sprite: Sprite) -> None:
    """Raise ColdbenchError if the file of a sprite was changed, is no PNG or has another size than its tiles."""
    try:
        digest = sha256(sprite.path)
        with Image.open(sprite.path, formats=["PNG"]) as image:
            size = image.size
    except Exception as error:  # Pillow raises many kinds, also for a file of another format
        raise ColdbenchError(f"{sprite.path} is damaged: {error}") from error
    if digest != sprite.sha256:
        raise ColdbenchError(f"{sprite.path} is damaged: its content does not match its checksum")
    if size != (sprite.width, sprite.height) or sprite.height < sprite.rows * sprite.tile:
        raise ColdbenchError(f"{sprite.path} has {size[0]} × {size[1]} pixels, not {sprite.width} × {sprite.height}")


def _strip(text: str, width: int, channels: int) -> NDArray[np.uint8]:
    """Black text on white, in as many lines as it needs."""
    lines = textwrap.wrap(text, max(8, (width - 4) // LETTER)) or [""]
    image = Image.new("L", (width, LINE * len(lines) + 3), 255)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((2, 1 + LINE * number), line, fill=60, font=ImageFont.load_default_imagefont())
    strip: NDArray[np.uint8] = np.asarray(image)[..., None].repeat(channels, axis=2)
    return strip
