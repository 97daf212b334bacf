"""Write the pictures of README.md from the published results: `python .ci/pictures.py docs/restored.png`.

A row for each task: degraded, direct, TACoS and original of the same first test images.
"""

import sys
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from coldbench.report import figure_list
from coldbench.report.figure_list import RunFigures

ROOT = Path(__file__).parents[1]
RUNS = ROOT / "results/published/laptop-cpu/laptop"
TASKS = {"E01-fitted": "Deblurring", "E04-released": "Inpainting", "E07-fitted": "Super-resolution"}
ROWS = {"degraded": "degraded", "direct": "direct", "tacos": "TACoS", "original": "original"}
EXAMPLES, SCALE, GAP, LABEL, HEAD, FOOT = 4, 2, 14, 84, 26, 22


def image(figures: RunFigures, column: str, row: int) -> Image.Image:
    """One tile of the sprite of methods."""
    sprite = figures.find("methods", "test")
    if sprite is None:
        sys.exit(f"{figures.metadata.run} has no pictures of its methods")
    tile = sprite.place(column, row)
    corner = tile.column * sprite.tile, tile.row * sprite.tile
    return Image.open(sprite.path).crop((*corner, corner[0] + sprite.tile, corner[1] + sprite.tile))


def main(out: Path) -> None:
    """Compose and write the picture."""
    font = ImageFont.load_default(size=15)
    side = 32 * SCALE
    width = LABEL + len(TASKS) * (EXAMPLES * side + GAP)
    canvas = Image.new("RGB", (width, HEAD + len(ROWS) * (side + 4) + FOOT), "white")
    draw = ImageDraw.Draw(canvas)
    for column, (run, title) in enumerate(TASKS.items()):
        (figures,) = figure_list.load([RUNS / run / "figures.json"])
        left = LABEL + column * (EXAMPLES * side + GAP)
        draw.text((left, 2), title, fill="#333333", font=font)
        for row, (name, label) in enumerate(ROWS.items()):
            top = HEAD + row * (side + 4)
            draw.text((0, top + side // 2 - 9), label, fill="#333333", font=font)
            for example in range(EXAMPLES):
                tile = image(figures, name, example)
                canvas.paste(tile.resize((side, side), Image.Resampling.NEAREST), (left + example * side, top))
    watermark = f"MNIST test images, {figures.watermark}"
    draw.text((LABEL, canvas.height - FOOT + 3), watermark, fill="#333333", font=ImageFont.load_default(size=13))
    canvas.quantize(32).save(out, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
