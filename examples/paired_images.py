"""A degradation that turns each image into its partner: pictures before and after something, in two folders."""

import functools
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

import coldbench
from coldbench.data.image_io import read_image, scan


@functools.cache
def pairs(before: str, after: str, size: int) -> dict[bytes, np.ndarray]:
    """The pictures in `after` by the pixels of those in `before`, uint8 (3, size, size)."""
    names, _ = scan(Path(before))
    return {read_image(Path(before, name), size).tobytes(): read_image(Path(after, name), size) for name in names}


@coldbench.degradation("paired_images")
class PairedImages(coldbench.Degradation):
    """D(x0, t) = (1 − t/T) x0 + t/T y, where y is the image of the same name in the folder `after`.

    `before` is the folder of the experiment's images, those of data set folder-NAME, and `after` has the same names. An
    image is found by its pixels; one that is not there is its own partner. Give the folder another name when its
    pictures change, because they are no part of the experiment's fingerprint.
    """

    T: Annotated[int, Field(ge=1, le=1000)] = 10
    before: str
    after: str

    needs_colour = True

    def draw_for(self, x0: Tensor, indices: Tensor, seed: int) -> dict[str, Tensor]:
        levels = ((x0 + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
        table = pairs(self.before, self.after, self.size)
        partners = np.stack([table.get(image.tobytes(), image) for image in levels])
        return {"y": torch.from_numpy(partners).to(x0.device).to(x0.dtype) / 127.5 - 1}

    def degrade(self, x0: Tensor, t: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        share = (t / self.T).to(x0.dtype)[:, None, None, None]
        return (1 - share) * x0 + share * drawn["y"].to(x0.dtype)


def write_pictures(folder: Path) -> None:
    """Write the photographs of scikit-image as `before`, and with eight grey levels as `after`."""
    from PIL import Image

    from coldbench.data import embedded

    for split in ("train", "test"):
        for number, image in enumerate(embedded.photos(Path(), 32, split)):
            if number % 10 == 0:
                picture = Image.fromarray(image.transpose(1, 2, 0))
                for name, each in (("before", picture), ("after", picture.convert("L").quantize(8))):
                    (folder / name / split).mkdir(parents=True, exist_ok=True)
                    each.convert("RGB").save(folder / name / split / f"{number}.png")


if __name__ == "__main__":
    write_pictures(Path("results/examples/pictures"))
