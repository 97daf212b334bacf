"""Images as lossless sprites: one PNG of equal tiles in their own pixels, which the pages cut apart and enlarge."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from coldbench.core.errors import ColdbenchError
from coldbench.core.files import atomic

Images = NDArray[np.floating[Any]]

PIXELS = 800_000
"""Of a sprite at most: bounds its file, whatever the images hold."""
LETTER, LINE = 6, 11
"""Pixels that a letter and a line of the strip below the tiles take."""
KINDS = ("methods", "trajectory", "naive", "forward", "gallery")
"""What a sprite's columns are: methods with their input and original; severities of a trajectory (of Algorithm 1, of
the forward process); or nothing, in a sheet of samples."""


@dataclass(frozen=True)
class Sprite:
    """A PNG of `rows` × `columns` tiles of `tile` pixels, row by row `count` of them, with a strip of words below.

    `columns` are the columns' names: methods, or severities as text; `method` is what a trajectory or a sheet shows.
    """

    path: Path
    kind: str
    set: str
    method: str
    columns: tuple[str, ...]
    tile: int
    rows: int
    count: int
    height: int

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ColdbenchError(f"{self.path.name}: unknown kind of sprite {self.kind}")

    @property
    def width(self) -> int:
        return len(self.columns) * self.tile

    def place(self, column: str, row: int) -> Tile:
        """The tile of a column, by its name, in one row."""
        return self.tile_at(row * len(self.columns) + self.columns.index(column))

    def tile_at(self, index: int) -> Tile:
        """The tile at `index`, counted row by row."""
        row, column = divmod(index, len(self.columns))
        return Tile(self, column, row)


@dataclass(frozen=True)
class Tile:
    """One image of a sprite, and how a page cuts it out: its left and top edge in per cent of the enlarged sprite."""

    sprite: Sprite
    column: int
    row: int

    @property
    def left(self) -> float:
        return 100 * self.column / len(self.sprite.columns)

    @property
    def top(self) -> float:
        return 100 * self.row * self.sprite.tile / self.sprite.height


def rows_that_fit(columns: int, tile: int, wanted: int) -> int:
    """How many of the wanted rows fit into PIXELS, at least one."""
    return max(1, min(wanted, PIXELS // (columns * tile * tile)))


def write(
    tiles: Images, out: Path, kind: str, columns: tuple[str, ...], mark: str, part: str = "", method: str = ""
) -> Sprite:
    """Write (N, C, H, H) images in [0, 1], row by row, to `out`, with `mark` in a strip below.

    Values outside are clipped, and what is no number is black. ColdbenchError for other shapes.
    """
    if tiles.ndim != 4 or tiles.shape[1] not in (1, 3) or tiles.shape[2] != tiles.shape[3] or not tiles.size:
        raise ColdbenchError(f"{out.name}: images of shape {tiles.shape}; wanted (N, 1 or 3, H, H)")
    count, channels, size, _ = tiles.shape
    wide, rows = len(columns), -(-count // len(columns))
    pixels = (np.nan_to_num(tiles).clip(0, 1) * 255).round().astype(np.uint8)
    pixels = np.concatenate([pixels, np.full((rows * wide - count, channels, size, size), 255, dtype=np.uint8)])
    sheet = pixels.reshape(rows, wide, channels, size, size).transpose(0, 3, 1, 4, 2)
    sheet = sheet.reshape(rows * size, wide * size, channels)
    strip = _strip(mark, wide * size, channels)
    picture = np.concatenate([sheet, sheet[-1:], strip]) if mark else sheet  # where a browser rounds, no white shows
    with atomic(out) as temporary:
        Image.fromarray(picture[..., 0] if channels == 1 else picture).save(temporary, format="png", optimize=True)
    return Sprite(out, kind, part, method, columns, size, rows, count, len(picture))


def _strip(words: str, width: int, channels: int) -> NDArray[np.uint8]:
    """Black words on white, broken into as many lines as they need."""
    lines = textwrap.wrap(words, max(8, (width - 4) // LETTER)) or [""]
    image = Image.new("L", (width, LINE * len(lines) + 3), 255)
    draw = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        draw.text((2, 1 + LINE * number), line, fill=60, font=ImageFont.load_default_imagefont())
    strip: NDArray[np.uint8] = np.asarray(image)[..., None].repeat(channels, axis=2)
    return strip
