"""Restoring a user's own images: the samplers' result to the level, any image file, and nothing lost or overwritten."""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from coldbench import data, degradations, models
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Network
from coldbench.core.images import from_uint8, to_unit_interval
from coldbench.core.interrupts import Interrupted
from coldbench.data.image_io import encode
from coldbench.models import model_file
from coldbench.sampling import journal, restore, samplers

CPU = torch.device("cpu")
SEED = 5
NOISE = {"name": "noise", "T": 4}
SNOW = {"name": "snow", "T": 3, "level": 1, "shared": 2}
BLUR = {"name": "blur", "T": 3, "kernel": 3, "std": 1.0}
DRAWN = "not known from the images and drawn at random: "


def save(path: Path, experiment: Experiment, channels: int = 1, **change: Any) -> Path:
    """A model of the experiment, changed: untrained, but of loud predictions, so that whatever is done to it shows."""
    torch.manual_seed(0)
    changed = experiment.model_copy(update=change)
    weights = models.build(changed.network, channels, changed.size).state_dict()
    loud = {key: 10 * value if key in model_file.HEADS else value for key, value in weights.items()}
    model_file.save_model(path, loud, changed, channels)
    return path


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine images are three tiles."""
    monkeypatch.setitem(models.INFERENCE_BATCH, "cpu", 4)


@pytest.fixture
def model(experiment: Experiment, tmp_path: Path) -> Path:
    """The inpainting of 16 px, grey, T = 4."""
    return save(tmp_path / "model.safetensors", experiment)


@pytest.fixture
def digits_16(digits: Path, experiment: Experiment) -> np.ndarray:
    """Nine test images under their masks, uint8 (9, 16, 16)."""
    D = degradations.build(experiment.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")[:9]), CPU)
    x = degradations.initial_xt(D, x0, D.draw(torch.arange(9), rng.derive(SEED, "test")))
    return (to_unit_interval(x) * 255).round().to(torch.uint8).numpy()[:, 0]


@pytest.fixture
def source(digits_16: np.ndarray, tmp_path: Path) -> Path:
    """The nine as 1.png … 9.png, two of them in folders, whose natural order is theirs."""
    names = ["1.png", "2.png", "3.png", "04.png", "10.PNG", "a/2.png", "a/11.png", "b.c.png", "d/e/1.png"]
    for name, image in zip(names, digits_16, strict=True):
        write(tmp_path / "source" / name, image)
    return tmp_path / "source"


def write(path: Path, image: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def run(model: Path, source: Path, out: Path, **options: Any) -> dict[str, np.ndarray]:
    """The restored images by their names."""
    restore.restore(model, source, out, CPU, **{"seed": SEED, **options})
    return pictures(out)


def pictures(out: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(out)): np.asarray(Image.open(path)) for path in sorted(out.rglob("[!.]*.png"))}


def equal(found: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> None:
    assert found.keys() == reference.keys()
    for name, image in found.items():
        np.testing.assert_array_equal(image, reference[name])


def by_samplers(
    model: Path,
    inputs: np.ndarray,
    told: dict[str, Tensor] | None = None,
    partners: np.ndarray | None = None,
    **options: Any,
) -> np.ndarray:
    """The 8-bit inputs (N, C, H, W), restored by `samplers.sample` alone."""
    loaded = model_file.load_model(model, CPU, inputs.shape[1])
    D = degradations.build(loaded.experiment.degradation, loaded.experiment.size, partners)
    places = torch.arange(len(inputs))
    state = {**D.draw(places, rng.derive(SEED, "test")), **(told or {})}

    def fresh(s: int) -> dict[str, Tensor]:
        return D.draw(places, rng.derive(SEED, f"test, step {s}"))

    with torch.inference_mode():
        x = from_uint8(inputs, CPU)
        network = models.restorer(loaded.network)
        for step in samplers.sample(network, D, x, state, redraw=fresh, **{"method": "tacos", **options}):
            x = step.x
    return np.clip(np.rint(to_unit_interval(x).numpy() * 255), 0, 255).astype(np.uint8)


def close(found: dict[str, np.ndarray], expected: np.ndarray) -> None:
    """Within one level, in the natural order that the `source` has."""
    names = ["1", "2", "3", "04", "10", "a/2", "a/11", "b.c", "d/e/1"]
    assert set(found) == {f"{name}.png" for name in names}
    mine = np.stack([found[f"{name}.png"] for name in names]).astype(int)
    assert np.abs(mine - expected[:, 0]).max() <= 1


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"method": "direct"},
        {"method": "naive"},
        {"method": "resampled"},
        {"method": "naive_resampled"},
        {"method": "direct", "severity": 2},
        {"severity": 3, "stride": 2},
        {"severity": 4},
    ],
    ids=str,
)
def test_own_images_are_restored_as_by_the_samplers(model, source, digits_16, tmp_path, options):
    found = run(model, source, tmp_path / "out", **options)
    sampling = {"start" if key == "severity" else key: value for key, value in options.items()}
    close(found, by_samplers(model, digits_16[:, None], **sampling))
    assert all(image.dtype == np.uint8 and image.shape == (16, 16) for image in found.values())


@pytest.mark.parametrize("method", ["tacos", "estimated", "ddpm"])
def test_methods_of_noise(experiment, source, digits_16, tmp_path, method):
    model = save(tmp_path / "noise.safetensors", experiment, degradation=NOISE)
    close(run(model, source, tmp_path / "out", method=method), by_samplers(model, digits_16[:, None], method=method))


def test_the_outcome_differs_by_method_severity_step_and_seed(model, source, tmp_path):
    options = [{}, {"method": "naive"}, {"method": "direct"}, {"severity": 3}, {"stride": 2}, {"seed": 6}]
    found = [run(model, source, tmp_path / str(place), **each) for place, each in enumerate(options)]
    for one, other in itertools.combinations(found, 2):
        assert np.abs(one["2.png"].astype(int) - other["2.png"]).max() > 3


def test_batches_change_nothing(model, source, tmp_path):
    reference = run(model, source, tmp_path / "9", batch=9)
    for batch in (1, 4, 64):
        equal(run(model, source, tmp_path / f"b{batch}", batch=batch), reference)


def test_an_image_has_its_place_in_its_tile(model, source, tmp_path, monkeypatch):
    """Whatever is there already: a network that shows each image's place in the tile says the same of it again."""

    def telling(network: Any, tile: int) -> models.Restorer:
        return lambda x, s: x * 0 + (torch.arange(len(x)) % tile / tile)[:, None, None, None]

    monkeypatch.setattr(models, "restorer", telling)
    out = tmp_path / "out"
    reference = run(model, source, out, method="direct")
    assert len({image.mean() for image in reference.values()}) == 4
    for names in (["3.png"], ["1.png", "b.c.png"], ["04.png", "10.png", "d/e/1.png"]):
        before = dates(out)
        for name in names:
            (out / name).unlink()
        equal(run(model, source, out, method="direct", batch=1), reference)
        assert remade(before, out) == set(names)


def test_colour_and_the_other_network(experiment, tmp_path):
    """Three channels and the channels of each network follow from the model's file alone."""
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    for place, image in enumerate(pixels):
        write(tmp_path / "source" / f"{place}.png", image)
    for name in models.NETWORKS:
        network = Network(name=name, dim=8, dim_mults=[1, 2], attention=8)
        model = save(tmp_path / f"{name}.safetensors", experiment, 3, network=network)
        found = np.stack(list(run(model, tmp_path / "source", tmp_path / name).values())).astype(int)
        expected = by_samplers(model, pixels.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)
        assert np.abs(found - expected).max() <= 1


def test_values_are_clipped_and_rounded_to_nearest():
    x = torch.tensor([[-9.0, -0.4], [0.4, 0.6], [99.6, 254.4], [254.6, 300.0]]).reshape(1, 1, 4, 2) / 255 * 2 - 1
    (grey,), (colour,) = encode(x, ""), encode(x.expand(-1, 3, -1, -1), "")
    expected = np.array([[0, 0], [0, 1], [100, 254], [255, 255]])
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(grey))), expected)
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(colour))), np.dstack([expected] * 3))


def test_the_result_names_everything(model, source, tmp_path, experiment):
    run(model, source, tmp_path / "out", method="naive", severity=3, stride=2, state={"centre": " 3,12"})
    facts = json.loads((tmp_path / "out" / "restored.json").read_text())
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    assert facts.pop("experiment") == experiment.model_dump()
    images = facts.pop("images")
    assert facts == {
        "model": digest, "method": "naive", "severity": 3, "stride": 2, "seed": SEED, "state": {"centre": [3, 12]},
        "partner": None, "resize": False, "released_shift": False, "provenance": {}, "device": "cpu",
    }  # fmt: skip
    assert [image["file"] for image in images][3:6] == ["04.png", "10.PNG", "a/2.png"]
    for image in images:
        assert image["source"] == hashlib.sha256((source / image["file"]).read_bytes()).hexdigest()
        assert image["sha256"] == hashlib.sha256((tmp_path / "out" / image["output"]).read_bytes()).hexdigest()


def test_one_file(model, source, digits_16, tmp_path):
    found = run(model, source / "10.PNG", tmp_path / "out")
    assert list(found) == ["10.png"]
    expected = by_samplers(model, digits_16[4:5, None])[0, 0]
    assert np.abs(found["10.png"].astype(int) - expected).max() <= 1
    assert json.loads((tmp_path / "out" / "restored.json").read_text())["images"][0]["file"] == "10.PNG"


# What is told of the state


def test_a_told_centre_is_used_for_every_image(model, source, digits_16, tmp_path):
    found = run(model, source, tmp_path / "out", state={"centre": "3, 12"})
    close(found, by_samplers(model, digits_16[:, None], {"centre": torch.tensor([[3, 12]]).expand(9, 2)}))
    mirrored = run(model, source, tmp_path / "mirrored", state={"centre": "12,3"})
    assert np.abs(found["2.png"].astype(int) - mirrored["2.png"]).max() > 3


def test_what_is_not_told_is_drawn_and_said(experiment, model, source, digits_16, tmp_path, caplog):
    def said(path: Path, folder: str, **options: Any) -> list[str]:
        caplog.clear()
        run(path, source, tmp_path / folder, **options)
        return [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]

    assert said(model, "a") == [DRAWN + "centre"]
    assert said(model, "b", state={"centre": "3,12"}) == []
    assert said(model, "c", method="direct") == []
    assert said(model, "d", method="resampled") == [DRAWN + "centre"]
    vain = "method resampled makes no use of the state told: centre"
    assert said(model, "e", method="resampled", state={"centre": "3,12"}) == [vain, DRAWN + "centre"]
    assert said(save(tmp_path / "blur.safetensors", experiment, degradation=BLUR), "f") == []

    snow = save(tmp_path / "snow.safetensors", experiment, degradation=SNOW)
    assert said(snow, "g") == [DRAWN + "flakes, vertical"]
    told = {"vertical": torch.ones(9, dtype=torch.bool)}
    assert said(snow, "h", state={"vertical": "1"}) == [DRAWN + "flakes"]
    close(pictures(tmp_path / "h"), by_samplers(snow, digits_16[:, None], told))


def test_a_whole_tensor_can_be_told(experiment, source, digits_16, tmp_path):
    model = save(tmp_path / "noise.safetensors", experiment, degradation=NOISE)
    z = torch.arange(3 * 16 * 16) / 300
    found = run(model, source, tmp_path / "out", state={"z": ",".join(map(str, z.tolist()))})
    close(found, by_samplers(model, digits_16[:, None], {"z": z.reshape(1, 3, 16, 16).expand(9, -1, -1, -1)}))


@pytest.mark.parametrize(
    ("degradation", "state", "words"),
    [
        (None, {"center": "1,2"}, r"unknown state 'center': did you mean 'centre'\? .*; numbers needed: centre 2$"),
        (None, {"centre": "5"}, "state 'centre' is told 1 numbers; numbers needed: centre 2"),
        (None, {"centre": "5,6,7"}, "state 'centre' is told 3 numbers; numbers needed: centre 2"),
        (None, {"centre": "5, x"}, "state 'centre': 'x' is no whole number"),
        (None, {"centre": "5,6.5"}, "state 'centre': '6.5' is no whole number"),
        (None, {"centre": ""}, "state 'centre' is told 1 numbers"),
        (None, {"centre": "5,1"}, "state 'centre' must lie in 2…13, not 1"),
        (None, {"centre": "14,5"}, "state 'centre' must lie in 2…13, not 14"),
        (SNOW, {"flake": "1"}, "did you mean 'flakes'.*; numbers needed: flakes 256, vertical 1"),
        (SNOW, {"vertical": "2"}, "state 'vertical' must lie in 0…1, not 2"),
        (SNOW, {"vertical": "yes"}, "state 'vertical': 'yes' is no whole number"),
        (SNOW, {"flakes": ",".join(["nan"] * 256)}, r"state 'flakes' must lie in -1e\+09…1e\+09, not nan"),
        (SNOW, {"flakes": ",".join(["x"] * 256)}, "state 'flakes': 'x' is no number"),
        (BLUR, {"centre": "1,2"}, "state 'centre' cannot be told: blur draws nothing"),
    ],
)
def test_a_state_that_cannot_be(experiment, source, tmp_path, degradation, state, words):
    model = save(tmp_path / "m.safetensors", experiment, degradation=degradation or experiment.degradation)
    with pytest.raises(ColdbenchError, match=words):
        run(model, source, tmp_path / "out", state=state)
    assert not (tmp_path / "out").exists()


def test_a_partner(experiment, source, digits, digits_16, tmp_path):
    """Another picture is drawn from the prepared data set, whose content is part of the settings."""
    mixed = {"name": "animorphosis", "T": 3, "partner": "digits"}
    model = save(tmp_path / "mixed.safetensors", experiment, degradation=mixed)
    with pytest.raises(ColdbenchError, match=r"mixes in images of digits: give that data set, prepared, as partner"):
        run(model, source, tmp_path / "out")
    found = run(model, source, tmp_path / "out", partner=digits)
    facts = json.loads((tmp_path / "out" / "restored.json").read_text())
    assert facts["partner"] == data.info(digits)["hash"]
    close(found, by_samplers(model, digits_16[:, None], partners=np.array(data.load(digits, "train"))))

    data.prepare("digits", None, 20, tmp_path / "larger")
    before = dates(tmp_path / "out")
    found = run(model, source, tmp_path / "out", partner=tmp_path / "larger")
    assert remade(before, tmp_path / "out") == set(before)
    larger = np.array(data.load(tmp_path / "larger", "train"))
    close(found, by_samplers(model, digits_16[:, None], partners=larger[:, :, 2:18, 2:18]))


# Any image file

EVEN = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([EVEN, EVEN.T, 255 - EVEN], axis=-1)
LUMA = np.rint(COLOUR @ [0.299, 0.587, 0.114])


def seen(path: Path, channels: int, side: int = 16, resize: bool = False) -> np.ndarray:
    pixels, digest = restore.read(path, side, channels, resize)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (channels, side, side)
    assert digest == hashlib.sha256(path.read_bytes()).hexdigest()
    return pixels.astype(int)


def test_grey_and_colour(tmp_path):
    grey, colour = write(tmp_path / "grey.png", EVEN), write(tmp_path / "colour.png", COLOUR)
    np.testing.assert_array_equal(seen(grey, 1)[0], EVEN)
    np.testing.assert_array_equal(seen(grey, 3), np.stack([EVEN] * 3))
    np.testing.assert_array_equal(seen(colour, 3), COLOUR.transpose(2, 0, 1))
    assert np.abs(seen(colour, 1)[0] - LUMA).max() <= 1


def test_sixteen_bits_are_scaled_not_clipped(tmp_path):
    wide = EVEN.astype(np.uint16) * 257
    np.testing.assert_array_equal(seen(write(tmp_path / "a.png", wide), 1)[0], EVEN)
    np.testing.assert_array_equal(seen(write(tmp_path / "b.png", wide), 3)[2], EVEN)
    between = np.full((16, 16), 1000 * 257 // 10, np.uint16)  # 100.0 levels
    np.testing.assert_array_equal(seen(write(tmp_path / "c.png", between + 128), 1), 100)
    np.testing.assert_array_equal(seen(write(tmp_path / "d.png", between + 129), 1), 101)


@pytest.mark.filterwarnings("error")
def test_palette_transparency_and_other_kinds(tmp_path):
    picture = Image.fromarray(COLOUR)
    indexed = picture.quantize(16)
    indexed.save(tmp_path / "palette.png", transparency=bytes(range(16)))
    expected = np.asarray(indexed.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(seen(tmp_path / "palette.png", 3), expected)
    assert np.ptp(seen(tmp_path / "palette.png", 1)) > 100

    alpha = np.dstack([COLOUR, EVEN])
    np.testing.assert_array_equal(seen(write(tmp_path / "rgba.png", alpha), 3), COLOUR.transpose(2, 0, 1))
    np.testing.assert_array_equal(seen(write(tmp_path / "la.png", np.dstack([EVEN, EVEN.T])), 1)[0], EVEN)
    Image.fromarray(EVEN > 99).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(seen(tmp_path / "bits.png", 1)[0], 255 * (EVEN > 99))
    picture.convert("CMYK").save(tmp_path / "cmyk.jpg", quality=100)
    assert np.abs(seen(tmp_path / "cmyk.jpg", 3) - COLOUR.transpose(2, 0, 1)).mean() < 8
    assert np.abs(seen(tmp_path / "cmyk.jpg", 1)[0] - LUMA).mean() < 8


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_turned_as_its_tag_says(tmp_path, kind):
    smooth = np.add.outer(np.arange(16) * 10, np.arange(16) * 3).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left: to be shown turned to the right
    path = tmp_path / f"turned.{kind.lower()}"
    Image.fromarray(np.rot90(smooth)).save(path, kind, exif=exif, quality=100)
    assert np.abs(seen(path, 1)[0] - smooth).max() <= (0 if kind == "PNG" else 3)


def test_another_size_is_an_error_or_resized(model, tmp_path):
    wide = np.zeros((32, 50), np.uint8)
    wide[:, 9:41] = EVEN.repeat(2, 0).repeat(2, 1)  # the middle square
    path = write(tmp_path / "source" / "wide.png", wide)
    words = r"wide\.png has 50x32 pixels, but the model restores 16x16; --resize"
    with pytest.raises(ColdbenchError, match=words):
        run(model, tmp_path / "source", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    square = np.asarray(Image.fromarray(wide[:, 9:41]).resize((16, 16), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(seen(path, 1, resize=True)[0], square)
    tall = write(tmp_path / "tall.png", np.ascontiguousarray(wide.T))
    np.testing.assert_array_equal(seen(tall, 1, resize=True)[0], square.T)
    np.testing.assert_array_equal(seen(write(tmp_path / "same.png", EVEN), 1, resize=True)[0], EVEN)
    found = run(model, tmp_path / "source", tmp_path / "out", resize=True)
    assert np.abs(found["wide.png"] - by_samplers(model, square[None, None])[0, 0].astype(int)).max() <= 1


def test_damaged_images_are_named_before_any_work(model, source, tmp_path):
    whole = (source / "1.png").read_bytes()
    disguised = io.BytesIO()
    Image.fromarray(EVEN).save(disguised, "GIF")
    for content in (whole[:-30], b"", b"no image", disguised.getvalue()):
        (source / "z.png").write_bytes(content)
        with pytest.raises(ColdbenchError, match=r"source/z\.png cannot be decoded as an image: (?!.*BytesIO)") as told:
            run(model, source, tmp_path / "out")
        assert "\n" not in str(told.value)
        assert not (tmp_path / "out").exists()
    (source / "z.png").unlink()
    (source / "z.png").symlink_to("nowhere")
    with pytest.raises(ColdbenchError, match=r"source/z\.png cannot be read: No such file"):
        run(model, source, tmp_path / "out")


# Settings and folders that cannot be


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "taco"}, "unknown method 'taco': did you mean 'tacos'"),
        ({"method": "ddpm"}, "method ddpm needs noise or another image, not inpainting"),
        ({"method": "estimated"}, "method estimated needs noise or another image, not inpainting"),
        ({"severity": 5}, "severity 5 is out of range: the model's inpainting has 1…4"),
        ({"severity": 0}, "severity 0 is out of range"),
        ({"stride": 0}, "stride and batch must be 1 or more, not 0 and 64"),
        ({"batch": 0}, "stride and batch must be 1 or more, not 1 and 0"),
    ],
)
def test_settings_that_cannot_be(model, source, tmp_path, options, words):
    with pytest.raises(ColdbenchError, match=words):
        run(model, source, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_models_that_cannot_be(model, source, tmp_path):
    with pytest.raises(ColdbenchError, match=r"cannot read model .*none\.safetensors"):
        run(tmp_path / "none.safetensors", source, tmp_path / "out")
    model_file.save_weights(model, {"conv": torch.zeros(1)}, {"experiment": "{}"})
    with pytest.raises(ColdbenchError, match=r"the experiment in .*model\.safetensors"):
        run(model, source, tmp_path / "out")


@pytest.mark.parametrize("method", ["direct", "tacos"])
def test_a_model_that_makes_no_numbers(model, source, tmp_path, experiment, method):
    weights, _ = model_file.load_weights(model)
    weights["final_conv.1.bias"] += float("nan")
    model_file.save_model(model, weights, experiment, 1)
    words = {"direct": r"model\.safetensors turns .*1\.png, or another .* no numbers", "tacos": "NaN or infinity"}
    with pytest.raises(ColdbenchError, match=words[method]):
        run(model, source, tmp_path / "out", method=method)
    assert not pictures(tmp_path / "out")


def test_sources_that_cannot_be(model, source, tmp_path):
    with pytest.raises(ColdbenchError, match=r"none does not exist: give an image or a folder of images"):
        run(model, tmp_path / "none", tmp_path / "out")
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    write(tmp_path / "empty" / ".hidden" / "a.png", EVEN)
    with pytest.raises(ColdbenchError, match=r"empty holds no images \(\.jpg, \.jpeg, \.png\)"):
        run(model, tmp_path / "empty", tmp_path / "out")
    with pytest.raises(ColdbenchError, match=r"notes\.txt cannot be decoded"):
        run(model, tmp_path / "empty" / "notes.txt", tmp_path / "out")
    write(source / "a" / "2.jpeg", EVEN)
    with pytest.raises(ColdbenchError, match=r"a/2\.jpeg and .*a/2\.png would both become .*out/a/2\.png: rename one"):
        run(model, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_outputs_that_cannot_be(model, source, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(source)
    monkeypatch.chdir(source)
    for out in (source, source / "deeper" / "out", tmp_path / "link" / "out", Path("x"), source / ".hidden"):
        with pytest.raises(ColdbenchError, match=r"lies in .*source, whose images are read: give a folder out"):
            run(model, source, out)
    with pytest.raises(ColdbenchError, match=r"model\.safetensors is not a folder"):
        run(model, source, model)
    assert len(list(source.iterdir())) == 8
    run(model, source, tmp_path / "source2")  # a name that begins alike is no folder inside


def test_foreign_files_are_never_overwritten(model, source, tmp_path):
    out = tmp_path / "out"
    write(out / "mine.png", EVEN)
    (out / "notes.txt").write_text("mine")
    for name in ("a/11.png", "restored.json"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
        words = rf"out/{name} exists and was not written by restore: move it or give another folder"
        with pytest.raises(ColdbenchError, match=words):
            run(model, source, out)
        assert (out / name).read_text() == "mine"
        (out / name).unlink()
    (out / "1.png").symlink_to("nowhere")
    with pytest.raises(ColdbenchError, match=r"out/1\.png exists and was not written"):
        run(model, source, out)
    (out / "1.png").unlink()
    assert len(run(model, source, out)) == 10
    np.testing.assert_array_equal(pictures(out)["mine.png"], EVEN)

    write(source / "new.png", EVEN)  # a later run, too, leaves alone what it did not write
    write(out / "new.png", EVEN)
    with pytest.raises(ColdbenchError, match=r"out/new\.png exists and was not written"):
        run(model, source, out)
    with pytest.raises(ColdbenchError, match=r"source/1\.png exists and was not written"):
        run(model, source / "1.png", source)


@pytest.mark.parametrize("content", [b"mine", b"[1]\n2\n", b'{"output": "a"}\n', bytes(range(256)), b"{}\n" * 9])
def test_a_foreign_journal_is_never_replaced(model, source, tmp_path, content):
    """A file of that name in which no line is an entry."""
    out = tmp_path / "out"
    out.mkdir()
    (out / restore.JOURNAL).write_bytes(content)
    with pytest.raises(ColdbenchError, match=r"out/\.restored\.jsonl exists and was not written by restore: move it"):
        run(model, source, out)
    assert (out / restore.JOURNAL).read_bytes() == content
    assert not pictures(out)
    (out / restore.JOURNAL).unlink()
    (out / restore.JOURNAL).mkdir()
    with pytest.raises(ColdbenchError, match=r"cannot read .*out/\.restored\.jsonl: Is a directory"):
        run(model, source, out)


@pytest.mark.parametrize("torn", [False, True])
def test_a_journal_without_images_is_ones_own(model, source, tmp_path, monkeypatch, torn):
    """Killed before the first entry of an image, or in the middle of it."""
    out = tmp_path / "out"

    def dying(path: Path, records: Any) -> None:
        if torn:
            path.open("a").write(journal.lines(records)[:9])
        raise Killed

    monkeypatch.setattr(journal, "append", dying)
    with pytest.raises(Killed):
        run(model, source, out)
    monkeypatch.undo()
    assert len(run(model, source, out)) == 9


def test_a_foreign_result_is_never_replaced(model, source, tmp_path):
    """Neither in a folder of ours, nor after a run that was stopped; nor is one's own that was changed."""
    out = tmp_path / "out"
    run(model, source, out)
    own = (out / "restored.json").read_text()
    for content in ("mine", own + "\n", ""):
        (out / "restored.json").write_text(content)
        with pytest.raises(ColdbenchError, match=r"out/restored\.json exists and was not written by restore: move it"):
            run(model, source, out)
        assert (out / "restored.json").read_text() == content
    (out / "restored.json").write_text(own)
    run(model, source, out, method="naive")
    assert json.loads((out / "restored.json").read_text())["method"] == "naive"
    (out / "restored.json").unlink()
    (out / "restored.json").mkdir()
    with pytest.raises(ColdbenchError, match=r"out/restored\.json exists and was not written by restore"):
        run(model, source, out)


def test_outputs_in_each_others_way(model, source, tmp_path):
    """Told before anything is written."""
    out = tmp_path / "out"
    write(source / "x" / "c.jpg", EVEN)
    write(source / "x" / "c.png" / "y" / "b.png", EVEN)
    words = r"x/c\.jpg would become .*out/x/c\.png, the folder of .*x/c\.png/y/b\.png's: rename one of them"
    with pytest.raises(ColdbenchError, match=words):
        run(model, source, out)
    assert not out.exists()
    (source / "x" / "c.jpg").unlink()
    for name in ("d", "x/c.png"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("mine")
        with pytest.raises(ColdbenchError, match=rf"out/{name} is no folder, but {name}/.*\.png needs one: move it"):
            run(model, source, out)
        assert [path for path in out.rglob("*") if path.is_file()] == [out / name]
        (out / name).unlink()
    (source / "x" / "c.png").rename(source / "x" / "c")
    run(model, source, out)
    (out / "2.png").unlink()
    (out / "2.png").mkdir()
    with pytest.raises(ColdbenchError, match=r"out/2\.png exists and was not written by restore"):
        run(model, source, out)
    assert (out / "restored.json").exists()


# Going on


class Killed(BaseException):
    """Ends a run anywhere, like a kill."""


def dates(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("[!.]*.png")}


def remade(before: dict[str, int], out: Path) -> set[str]:
    return {name for name, date in dates(out).items() if before.get(name) != date}


@pytest.mark.parametrize("torn", [False, True])
def test_a_killed_run_goes_on(model, source, tmp_path, monkeypatch, torn):
    """Killed between two files of a batch: those that were written are kept, also the journal's torn last line."""
    reference = run(model, source, tmp_path / "reference", batch=4)
    out, original, count = tmp_path / "out", restore.atomic, itertools.count()

    def dying(path: Path) -> Any:
        if next(count) == 6:
            raise Killed
        return original(path)

    monkeypatch.setattr(restore, "atomic", dying)
    with pytest.raises(Killed):
        run(model, source, out, batch=4)
    monkeypatch.undo()
    before = dates(out)
    assert len(before) == 6
    assert not (out / "restored.json").exists()
    if torn:
        entries = out / restore.JOURNAL
        entries.write_text(entries.read_text()[:-20])
    found = run(model, source, out, batch=4)
    assert remade(before, out) == set(reference) - set(before)
    equal(found, reference)
    lines = (out / restore.JOURNAL).read_text().splitlines()
    assert {json.loads(line)["output"] for line in lines} == {*reference, "restored.json"}
    before = dates(out)
    (out / "restored.json").unlink()
    run(model, source, out)
    assert not remade(before, out)
    assert (out / "restored.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_cleanly(model, source, tmp_path, monkeypatch, number):
    reference, out, original = run(model, source, tmp_path / "reference"), tmp_path / "out", journal.append

    def append(path: Path, records: Any) -> None:
        original(path, records)
        signal.raise_signal(number)

    monkeypatch.setattr(journal, "append", append)
    with pytest.raises(Interrupted, match=f"stopped by {number.name}; finished work is kept"):
        run(model, source, out, batch=4)
    monkeypatch.undo()
    before = dates(out)
    assert len(before) == 4
    equal(run(model, source, out), reference)
    assert len(remade(before, out)) == 5


def test_a_signal_ends_the_reading(model, source, tmp_path, monkeypatch):
    original = restore.read

    def read(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return original(*arguments)

    monkeypatch.setattr(restore, "read", read)
    with pytest.raises(Interrupted):
        run(model, source, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_process_killed_outright_goes_on(model, source, tmp_path):
    """SIGKILL as soon as there is a first output."""
    for place in range(91):
        write(source / "more" / f"{place}.png", np.full((16, 16), place, np.uint8))
    script = (
        "import sys, torch; from pathlib import Path; from coldbench.sampling.restore import restore; "
        "torch.set_num_threads(1); "
        f"restore(*map(Path, sys.argv[1:]), torch.device('cpu'), seed={SEED}, batch=1)"
    )
    out = tmp_path / "out"
    with subprocess.Popen([sys.executable, "-c", script, model, source, out], stderr=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 120
        while not dates(out) and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    before = dates(out)
    assert 0 < len(before) < 100
    assert not (out / "restored.json").exists()
    assert len(run(model, source, out)) == 100
    assert not remade(before, out) & set(before)


def test_damaged_and_missing_outputs_are_made_again(model, source, tmp_path):
    out = tmp_path / "out"
    reference = run(model, source, out)
    before = dates(out)
    content = bytearray((out / "a" / "2.png").read_bytes())
    content[-20] ^= 1
    (out / "a" / "2.png").write_bytes(content)
    (out / "3.png").unlink()
    equal(run(model, source, out), reference)
    assert remade(before, out) == {"a/2.png", "3.png"}


@pytest.mark.parametrize(
    "options",
    [
        {"method": "naive"},
        {"severity": 3},
        {"stride": 2},
        {"seed": 6},
        {"state": {"centre": "4,5"}},
        {"resize": True},
        {"released_shift": True},
    ],
    ids=str,
)
def test_other_settings_make_all_again(model, source, tmp_path, options):
    out = tmp_path / "out"
    run(model, source, out)
    before = dates(out)
    found = run(model, source, out, **options)
    assert remade(before, out) == set(before)
    equal(found, run(model, source, tmp_path / "fresh", **options))
    for image in json.loads((out / "restored.json").read_text())["images"]:
        assert image["sha256"] == hashlib.sha256((out / image["output"]).read_bytes()).hexdigest()


def test_another_model_makes_all_again_and_another_batch_nothing(model, source, tmp_path, experiment):
    out = tmp_path / "out"
    run(model, source, out)
    before = dates(out)
    run(model, source, out, batch=2)
    assert not remade(before, out)
    weights, _ = model_file.load_weights(model)
    weights["final_conv.1.bias"] += 0.5
    model_file.save_model(model, weights, experiment, 1)
    run(model, source, out)
    assert remade(before, out) == set(before)


def test_while_a_rerun_is_unfinished_there_is_no_result(model, source, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(model, source, out)

    def dying(path: Path) -> Any:
        raise Killed

    monkeypatch.setattr(restore, "atomic", dying)
    with pytest.raises(Killed):
        run(model, source, out, method="naive")
    assert not (out / "restored.json").exists()


def test_changed_added_and_removed_images(model, source, tmp_path, experiment):
    out = tmp_path / "out"
    run(model, source, out)
    before = dates(out)
    write(source / "3.png", EVEN)
    run(model, source, out)
    assert remade(before, out) == {"3.png"}

    write(source / "05.png", EVEN)  # the images behind it move on by a place, which decides what is drawn for them
    before = dates(out)
    found = run(model, source, out)
    assert remade(before, out) == {"05.png", "10.png", "a/2.png", "a/11.png", "b.c.png", "d/e/1.png"}
    equal(found, run(model, source, tmp_path / "fresh"))

    (source / "05.png").unlink()
    run(model, source, out)
    assert "05.png" not in [image["output"] for image in json.loads((out / "restored.json").read_text())["images"]]
    write(source / "05.png", EVEN)
    run(model, source, out)  # what it once wrote, it may write again

    blur = save(tmp_path / "blur.safetensors", experiment, degradation=BLUR)
    run(blur, source, tmp_path / "blurred")
    write(source / "06.png", EVEN)
    before = dates(tmp_path / "blurred")
    run(blur, source, tmp_path / "blurred")
    assert remade(before, tmp_path / "blurred") == {"06.png"}
