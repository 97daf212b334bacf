"""The figures of a run: sprites lose no pixel, and every sprite shows the samples themselves."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from cases import MARK, METADATA, change_images, sampled, untrained
from PIL import Image

from coldbench import data
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.report import figure_list, run_figures, sprites
from coldbench.report.figure_list import RunFigures
from coldbench.report.run_figures import Inputs
from coldbench.report.sprites import Sheet, Sprite
from coldbench.sampling import trajectories
from coldbench.sampling.manifest import made_from, read_images, read_manifest

CPU = torch.device("cpu")
LOG = '{"step": 1, "loss": 0.5, "images_per_second": 3.0, "seconds": 61.0}\n'


def tiles_of(sprite: Sprite | None) -> np.ndarray:
    """The tiles of a sprite as its file holds them: (N, C, H, W)."""
    assert sprite is not None
    pixels = np.asarray(Image.open(sprite.path))
    pixels = pixels[..., None] if pixels.ndim == 2 else pixels
    assert pixels.shape[:2] == (sprite.height, sprite.width)
    side, wide = sprite.tile, len(sprite.columns)
    places = [divmod(k, wide) for k in range(sprite.count)]
    return np.stack(
        [pixels[r * side : (r + 1) * side, c * side : (c + 1) * side].transpose(2, 0, 1) for r, c in places]
    )


def eight_bit(images: np.ndarray) -> np.ndarray:
    return (images.clip(0, 1) * 255).round().astype(np.uint8)


# --- sprites


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("text", ["", MARK])
def test_every_pixel_of_every_tile_is_at_its_place(tmp_path: Path, channels: int, text: str) -> None:
    values = np.random.default_rng(0).integers(0, 256, (6, channels, 9, 9))
    sprite = sprites.write(Sheet("s", values / 255, "methods", ("degraded", "direct", "original")), tmp_path, text)
    assert (sprite.rows, sprite.width) == (2, 27)
    assert np.array_equal(tiles_of(sprite), values)
    strip = np.asarray(Image.open(sprite.path))[18:]
    assert (len(strip) > 0) == bool(text)
    if text:
        assert (strip[1:] < 128).any()
        assert len(strip) > 2 * sprites.LINE  # the text needs several lines
    place = sprite.place("direct", 1)
    assert (place.column, place.row) == (1, 1)
    assert sprite.tile_at(5) == sprite.place("original", 1)


def test_odd_values_are_clipped_or_black_and_other_shapes_are_refused(tmp_path: Path) -> None:
    images = np.array([-3.0, math.nan, 7.0]).reshape(3, 1, 1, 1) * np.ones((3, 1, 4, 4))
    sprite = sprites.write(Sheet("s", images, "samples", ("", "")), tmp_path)
    assert [int(tile.max()) for tile in tiles_of(sprite)] == [0, 0, 255]
    assert (np.asarray(Image.open(sprite.path))[4:, 4:] == 255).all()  # an unfinished row ends in white
    for shape in ((0, 1, 4, 4), (2, 2, 4, 4), (2, 1, 4, 5), (4, 4)):
        with pytest.raises(ColdbenchError, match="images of shape"):
            sprites.write(Sheet("bad", np.zeros(shape), "samples", ("",)), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["s.png"]


def test_size_of_a_sprite_is_bounded() -> None:
    assert sprites.rows_that_fit(5, 32, 12) == 12
    assert 5 * 128**2 * sprites.rows_that_fit(5, 128, 12) <= sprites.PIXELS < 5 * 128**2 * 12
    assert sprites.rows_that_fit(300, 128, 6) == 1


# --- the figures of a run


def draw(folder: Path, prepared: Path, feature_cache: Path | None = None) -> RunFigures:
    inputs = Inputs(folder / "samples.json", folder / "model.jsonl", prepared, None, feature_cache)
    run_figures.draw(inputs, METADATA, folder / "figures.json")
    (run,) = figure_list.load([folder / "figures.json"])
    return run


@pytest.fixture
def drawn(digits: Path, experiment: Experiment, tmp_path: Path) -> tuple[RunFigures, Path]:
    """The figures of a tiny run that restores, and its folder."""
    model = untrained(tmp_path / "model.safetensors", experiment)
    sets = {"test": {}, "half": {"severity": 2}, "leaps": {"stride": 3, "methods": ["tacos"]}}
    sampled(tmp_path, model, digits, images=17, sets=sets, max_frames=3)
    (tmp_path / "model.jsonl").write_text(LOG)
    return draw(tmp_path, digits, tmp_path / "features"), tmp_path


def test_sprites_of_a_restoring_run_show_its_samples(drawn: tuple[RunFigures, Path], digits: Path) -> None:
    run, folder = drawn
    manifest = folder / "samples.json"
    comparison = run.find("methods", "test")
    assert comparison
    assert comparison.columns == ("degraded", "direct", "naive", "tacos", "original")
    columns = tiles_of(comparison).reshape(12, 5, 1, 16, 16).swapaxes(0, 1)
    for k, method in enumerate(("direct", "naive", "tacos"), start=1):
        assert np.array_equal(columns[k], eight_bit(read_images(manifest, "test", method)[:12])), method
    assert np.array_equal(columns[4], data.load(digits, "test")[:12])
    with np.load(folder / read_manifest(manifest).sets["test"].trajectory) as arrays:
        assert np.array_equal(columns[0][:6], eight_bit(arrays["degraded"]))
    half = tiles_of(run.find("methods", "half"))[::5]
    assert not np.array_equal(half, columns[0])  # a smaller severity
    assert np.array_equal(half[:6], tiles_of(run.find("trajectory", "half"))[::3])
    leaps = run.find("methods", "leaps")
    assert leaps
    assert leaps.columns == ("degraded", "direct", "tacos", "original")  # R(x_T) is known without sampling
    assert leaps.rows == trajectories.SHOWN

    # Both trajectories go from the same start at the same severities to their own results.
    ends = {}
    for kind, method in (("trajectory", "tacos"), ("naive", "naive")):
        sprite = run.find(kind, "test")
        assert sprite
        assert (sprite.columns, sprite.method) == (("4", "2", "0"), method)
        ends[method] = tiles_of(sprite).reshape(6, 3, 1, 16, 16)
        assert np.array_equal(ends[method][:, -1], eight_bit(read_images(manifest, "test", method, first=6)))
    assert np.array_equal(ends["tacos"][:, 0], ends["naive"][:, 0])
    assert run.find("naive", "leaps") is None

    # The forward process begins with the original and ends with the input of the network.
    forward = run.find("forward")
    assert forward
    assert forward.columns == ("0", "1", "2", "3", "4")
    tiles = tiles_of(forward).reshape(6, 5, 1, 16, 16)
    assert np.array_equal(tiles[:, 0], data.load(digits, "test")[:6])
    assert np.array_equal(tiles[:, -1], columns[0][:6])


def test_distances_are_of_the_first_images_of_a_set(drawn: tuple[RunFigures, Path], digits: Path) -> None:
    from coldbench.evaluation.metrics import gabor
    from coldbench.evaluation.metrics.frechet import Statistics, frechet_distance

    run, folder = drawn
    rows = [row for row in run.distances if (row.set, row.method) == ("test", "tacos")]
    assert [row.n for row in rows] == [4, 8] == [17 // 4, 17 // 2]
    features = gabor.features(torch.from_numpy(read_images(folder / "samples.json", "test", "tacos"))).numpy()
    originals = torch.from_numpy(data.load(digits, "test")[:17] / 255)
    reference = Statistics.of(gabor.features(originals).numpy())
    for row in rows:
        expected = frechet_distance(Statistics.of(features[: row.n]), reference)
        assert row.value == pytest.approx(expected, rel=1e-6)
        assert row.low < row.high


def test_generating_run_has_samples_and_no_originals(photos: Path, experiment: Experiment, tmp_path: Path) -> None:
    degradation = {"name": "blur", "T": 3, "kernel": 5, "std": 1.0, "schedule": "constant", "padding": "circular",
                   "quantized": True}  # fmt: skip
    generating = experiment.model_copy(update={"degradation": degradation, "dataset": "photos"})
    model = untrained(tmp_path / "model.safetensors", generating, channels=3)
    sampled(tmp_path, model, photos, images=19, sets={"broken": {"start": {"kind": "means", "noise_level": 0.002}}})
    run = draw(tmp_path, photos)
    assert run.training == (), "a lost log costs the training curve alone"
    (tmp_path / "model.jsonl").write_text("torn {")
    with pytest.raises(ColdbenchError, match="is no training log of this version"):
        draw(tmp_path, photos)
    (tmp_path / "model.jsonl").write_text(LOG)
    run = draw(tmp_path, photos)
    assert run.training
    samples = eight_bit(read_images(tmp_path / "samples.json", "broken", "tacos"))
    assert np.array_equal(tiles_of(run.find("samples", "broken")), samples)
    comparison = run.find("methods", "broken")
    assert comparison
    assert comparison.columns == ("degraded", "direct", "naive", "tacos")
    assert (run.distances, run.watermark) == ((), MARK)
    assert run.made_from == made_from(tmp_path / "samples.json", METADATA)


def test_list_of_figures_is_plain_data_and_its_folder_can_be_moved(drawn: tuple[RunFigures, Path]) -> None:
    _, folder = drawn
    record = json.loads((folder / "figures.json").read_text())
    files = {f"figures/{path.name}" for path in (folder / "figures").iterdir()}
    assert {sprite["path"] for sprite in record["sprites"]} == files
    moved = folder.rename(folder.with_name(f"{folder.name}-moved"))
    (run,) = figure_list.load([moved / "figures.json"])
    assert all(sprite.path.is_file() for sprite in run.sprites)


def test_samples_of_other_images_are_refused(drawn: tuple[RunFigures, Path], photos: Path) -> None:
    _, folder = drawn
    with pytest.raises(ColdbenchError, match="was sampled from other test images"):
        draw(folder, photos)


def test_other_partner_images_are_refused(digits: Path, experiment: Experiment, tmp_path: Path) -> None:
    mixing = {"name": "animorphosis", "T": 3, "partner": "digits"}
    model = untrained(tmp_path / "model.safetensors", experiment.model_copy(update={"degradation": mixing}))
    sampled(tmp_path, model, digits, digits, images=4)
    changed = Path(shutil.copytree(digits, tmp_path / "changed"))
    inputs = Inputs(tmp_path / "samples.json", tmp_path / "model.jsonl", digits, digits)
    run_figures.draw(inputs, METADATA, tmp_path / "figures.json")
    change_images(changed, "train")
    with pytest.raises(ColdbenchError, match="other partner images"):
        run_figures.draw(replace(inputs, partner=changed), METADATA, tmp_path / "figures.json")


def test_model_on_the_way_of_a_training_shows_its_comparisons_alone(
    digits: Path, experiment: Experiment, tmp_path: Path
) -> None:
    """Its trajectories would repeat those of the finished model at a price in every folder of results."""
    sampled(tmp_path, untrained(tmp_path / "model.safetensors", experiment.at(6)), digits, images=5, max_frames=3)
    run = draw(tmp_path, digits)
    assert [sprite.kind for sprite in run.sprites] == ["methods"]
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == ["test-methods.png"]
