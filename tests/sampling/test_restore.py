"""Restoring a user's own images: the samplers' result to the level, and no file is lost or overwritten."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image, PngImagePlugin
from torch import Tensor

from coldbench import data, degradations, models
from coldbench.core import rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Network
from coldbench.core.files import sha256
from coldbench.core.images import from_uint8, to_unit_interval
from coldbench.core.interrupts import Interrupted
from coldbench.models import model_file
from coldbench.models.header import read_header
from coldbench.sampling import output_images, restore, samplers
from coldbench.sampling.restore import RestoreSettings

CPU = torch.device("cpu")
SEED = 5
NOISE = {"name": "noise", "T": 4}
SNOW = {"name": "snow", "T": 3, "level": 1, "shared": 2}
BLUR = {"name": "blur", "T": 3, "kernel": 3, "std": 1.0}
EVEN = np.arange(256, dtype=np.uint8).reshape(16, 16)
HEADS = ("final_conv.1.weight", "conv_out.weight")
"""The last convolution of each network."""
NAMES = ["1.png", "2.png", "3.png", "04.png", "10.png", "a/2.png", "a/11.png", "b.c.png", "d/e/1.png"]
"""The outputs of `source` in natural order."""


def save(path: Path, experiment: Experiment, channels: int = 1, **change: Any) -> Path:
    """An untrained model of the changed experiment whose predictions are large, so that every difference shows."""
    torch.manual_seed(0)
    changed = experiment.model_copy(update=change)
    weights = models.build(changed.network, channels, changed.size).state_dict()
    large = {key: 10 * value if key in HEADS else value for key, value in weights.items()}
    model_file.save_model(path, large, changed, channels)
    return path


@pytest.fixture(autouse=True)
def small_inference_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nine images need three inference batches."""
    monkeypatch.setitem(models.INFERENCE_BATCH, "cpu", 4)


@pytest.fixture
def model(experiment: Experiment, tmp_path: Path) -> Path:
    """Inpainting at 16 px, grey, T = 4."""
    return save(tmp_path / "model.safetensors", experiment)


@pytest.fixture
def masked(digits: Path, experiment: Experiment) -> np.ndarray:
    """Nine test images under their masks, uint8 (9, 16, 16)."""
    D = degradations.build(experiment.degradation, 16)
    x0 = from_uint8(np.array(data.load(digits, "test")[:9]), CPU)
    x = degradations.initial_xt(D, x0, D.draw(torch.arange(9), rng.derive(SEED, "test")))
    return (to_unit_interval(x) * 255).round().to(torch.uint8).numpy()[:, 0]


@pytest.fixture
def source(masked: np.ndarray, tmp_path: Path) -> Path:
    """The nine in a folder, three of them in folders below it."""
    for name, image in zip(NAMES, masked, strict=True):
        write(tmp_path / "source" / name.replace("10.png", "10.PNG"), image)
    return tmp_path / "source"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def write(path: Path, image: np.ndarray, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path, **options)
    return path


def run(model: Path, source: Path, out: Path, partner: Path | None = None, **settings: Any) -> dict[str, np.ndarray]:
    """The restored images by name."""
    restore.restore(model, source, out, RestoreSettings(**{"seed": SEED, **settings}), CPU, partner)
    return outputs(out)


def outputs(out: Path) -> dict[str, np.ndarray]:
    return {str(path.relative_to(out)): np.asarray(Image.open(path)) for path in sorted(out.rglob("[!.]*.png"))}


def result(out: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((out / "restored.json").read_text())
    return content


def equal(images: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert images.keys() == expected.keys()
    for name, image in images.items():
        np.testing.assert_array_equal(image, expected[name], err_msg=name)


def differ(image: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.abs(image.astype(int) - other).max() > 3)


def by_samplers(
    model: Path,
    inputs: np.ndarray,
    known: dict[str, Tensor] | None = None,
    partners: np.ndarray | None = None,
    **options: Any,
) -> np.ndarray:
    """The 8-bit inputs (N, C, H, W), restored by `samplers.sample` alone."""
    loaded = model_file.load_model(model, CPU, inputs.shape[1])
    D = degradations.build(loaded.experiment.degradation, loaded.experiment.size, partners)
    indices = torch.arange(len(inputs))
    drawn = {**D.draw(indices, rng.derive(SEED, "test")), **(known or {})}

    def redraw(s: int) -> dict[str, Tensor]:
        return D.draw(indices, rng.derive(SEED, f"test, step {s}"))

    with torch.inference_mode():
        x, network = from_uint8(inputs, CPU), models.restorer(loaded.network)
        for step in samplers.sample(network, D, x, drawn, redraw=redraw, **{"method": "tacos", **options}):
            x = step.x
    return np.clip(np.rint(to_unit_interval(x).numpy() * 255), 0, 255).astype(np.uint8)


def close(images: dict[str, np.ndarray], expected: np.ndarray) -> None:
    """Within one level."""
    assert set(images) == set(NAMES)
    assert np.abs(np.stack([images[name] for name in NAMES]).astype(int) - expected[:, 0]).max() <= 1


# The samplers' result


@pytest.mark.parametrize(
    "settings",
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
def test_images_are_restored_as_by_the_samplers(model, source, masked, out, settings):
    images = run(model, source, out, **settings)
    options = {"start" if key == "severity" else key: value for key, value in settings.items()}
    close(images, by_samplers(model, masked[:, None], **options))
    assert all(image.dtype == np.uint8 and image.shape == (16, 16) for image in images.values())


@pytest.mark.parametrize("method", ["tacos", "estimated", "ddpm"])
def test_images_with_noise_are_restored_as_by_the_samplers(experiment, source, masked, tmp_path, out, method):
    model = save(tmp_path / "noise.safetensors", experiment, degradation=NOISE)
    close(run(model, source, out, method=method), by_samplers(model, masked[:, None], method=method))


def test_method_severity_stride_and_seed_change_the_result(model, source, tmp_path):
    settings = [{}, {"method": "naive"}, {"method": "direct"}, {"severity": 3}, {"stride": 2}, {"seed": 6}]
    runs = [run(model, source, tmp_path / str(number), **each) for number, each in enumerate(settings)]
    for images, others in itertools.combinations(runs, 2):
        assert differ(images["2.png"], others["2.png"])


@pytest.mark.parametrize("name", models.NETWORKS)
def test_channels_follow_from_the_models_file(experiment, tmp_path, out, name):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3), np.uint8)
    for number, image in enumerate(pixels):
        write(tmp_path / "source" / f"{number}.png", image)
    network = Network(name=name, dim=8, dim_mults=[1, 2], **({"attention": 8} if name == "unet_ddpm" else {}))
    colour, grey = (save(tmp_path / f"{count}.safetensors", experiment, count, network=network) for count in (3, 1))
    images = np.stack(list(run(colour, tmp_path / "source", out).values())).astype(int)
    assert np.abs(images - by_samplers(colour, pixels.transpose(0, 3, 1, 2)).transpose(0, 2, 3, 1)).max() <= 1
    assert run(grey, tmp_path / "source", tmp_path / "grey")["0.png"].shape == (16, 16)


def test_a_single_file_is_restored(model, source, masked, out):
    images = run(model, source / "10.PNG", out)
    assert list(images) == ["10.png"]
    assert np.abs(images["10.png"].astype(int) - by_samplers(model, masked[4:5, None])[0, 0]).max() <= 1
    assert result(out)["images"][0]["file"] == "10.PNG"


def test_other_sizes_are_restored_with_resize_alone(model, tmp_path, out):
    wide = np.zeros((32, 50), np.uint8)
    wide[:, 9:41] = EVEN.repeat(2, 0).repeat(2, 1)
    write(tmp_path / "source" / "wide.png", wide)
    with pytest.raises(ColdbenchError, match=r"wide\.png has 50x32 pixels.*16x16.*resize"):
        run(model, tmp_path / "source", out)
    assert not out.exists()
    square = np.asarray(Image.fromarray(wide[:, 9:41]).resize((16, 16), Image.Resampling.BILINEAR))
    images = run(model, tmp_path / "source", out, resize=True)
    assert np.abs(images["wide.png"] - by_samplers(model, square[None, None])[0, 0].astype(int)).max() <= 1


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_are_clamped_and_rounded_and_every_level_survives_a_file(tmp_path, channels):
    between = [-9.0, -0.4, 0.4, 0.6, 99.6, 254.4, 254.6, 300.0]
    x = torch.tensor([*between, *range(256)]).reshape(1, 1, 8, 33) / 255 * 2 - 1
    expected = np.array([0, 0, 0, 1, 100, 254, 255, 255, *range(256)]).reshape(8, 33)
    (pixels,) = output_images.to_pixels(x.expand(-1, channels, -1, -1), "")
    output_images.write_png(tmp_path / "a.png", pixels, {}, output_images.RESTORE)
    image = np.asarray(Image.open(tmp_path / "a.png"))
    np.testing.assert_array_equal(image, expected if channels == 1 else np.dstack([expected] * 3))


def test_restored_json_names_settings_and_files(model, source, out, experiment):
    run(model, source, out, method="naive", severity=3, stride=2, known={"centre": " 3,12"})
    content = result(out)
    images = content.pop("images")
    assert content.pop("experiment") == experiment.model_dump()
    assert len(content.pop("fingerprint")) == 16
    assert content == {
        "model": read_header(model).sha256, "method": "naive", "severity": 3, "stride": 2, "seed": SEED,
        "known": {"centre": [3, 12]}, "partner": None, "resize": False, "released_shift": False, "provenance": {},
        "device": "cpu",
    }  # fmt: skip
    assert [image["output"] for image in images] == NAMES
    assert images[4]["file"] == "10.PNG"
    for image in images:
        assert image["source"] == sha256(source / image["file"])
        assert image["sha256"] == sha256(out / image["output"])


def test_each_png_states_what_it_was_made_from(model, source, out, experiment, tmp_path):
    run(model, source, out)
    blurred = tmp_path / "blurred"
    run(save(tmp_path / "blur.safetensors", experiment, degradation=BLUR), source, blurred)
    common = {"settings", "source", "pixels"}
    for folder, keywords in ((out, {*common, "index"}), (blurred, common)):
        texts = [Image.open(folder / name).info for name in NAMES]
        for text, image in zip(texts, result(folder)["images"], strict=True):
            assert set(text) == {f"coldbench-{keyword}" for keyword in keywords}
            assert text["coldbench-source"] == image["source"]
        assert len({text["coldbench-settings"] for text in texts}) == 1
    assert [Image.open(out / name).info["coldbench-index"] for name in NAMES] == list("012345678")


# What is known of the degradation


def test_a_known_centre_is_used_for_every_image(model, source, masked, out, tmp_path):
    images = run(model, source, out, known={"centre": "3, 12"})
    close(images, by_samplers(model, masked[:, None], {"centre": torch.tensor([[3, 12]]).expand(9, 2)}))
    mirrored = run(model, source, tmp_path / "mirrored", known={"centre": "12,3"})
    assert differ(images["2.png"], mirrored["2.png"])


def test_whole_tensors_and_flags_can_be_known(experiment, source, masked, tmp_path):
    noise = save(tmp_path / "noise.safetensors", experiment, degradation=NOISE)
    z = torch.arange(3 * 16 * 16) / 300
    images = run(noise, source, tmp_path / "noise", known={"z": ",".join(map(str, z.tolist()))})
    close(images, by_samplers(noise, masked[:, None], {"z": z.reshape(1, 3, 16, 16).expand(9, -1, -1, -1)}))
    snow = save(tmp_path / "snow.safetensors", experiment, degradation=SNOW)
    images = run(snow, source, tmp_path / "snow", known={"vertical": "1"})
    close(images, by_samplers(snow, masked[:, None], {"vertical": torch.ones(9, dtype=torch.bool)}))


CENTRE = {"centre": "3,12"}


@pytest.mark.parametrize(
    ("degradation", "settings", "unused", "drawn"),
    [
        (None, {}, "", "centre"),
        (None, {"known": CENTRE}, "", ""),
        (None, {"method": "direct"}, "", ""),
        (None, {"method": "direct", "known": CENTRE}, "centre", ""),
        (None, {"method": "resampled"}, "", "centre"),
        (None, {"method": "resampled", "known": CENTRE}, "centre", "centre"),
        (BLUR, {}, "", ""),
        (SNOW, {}, "", "flakes, vertical"),
        (SNOW, {"known": {"vertical": "1"}}, "", "flakes"),
        (NOISE, {"method": "estimated"}, "", ""),
        (NOISE, {"method": "ddpm"}, "", "z"),
        (None, {"method": "naive", "known": CENTRE, "severity": 1}, "centre", ""),  # its only step ends at D(x, 0)
        (None, {"method": "naive", "severity": 3, "stride": 3}, "", ""),
        (None, {"method": "tacos", "known": CENTRE, "severity": 1}, "", ""),
        (None, {"method": "tacos", "known": CENTRE, "severity": 1, "released_shift": True}, "centre", ""),
        (None, {"method": "naive_resampled", "known": CENTRE}, "centre", "centre"),
    ],
)
def test_a_warning_names_what_is_drawn_and_what_is_not_used(
    experiment, source, tmp_path, out, caplog, degradation, settings, unused, drawn
):
    model = save(tmp_path / "m.safetensors", experiment, degradation=degradation or experiment.degradation)
    caplog.set_level("INFO", logger="coldbench")
    run(model, source / "1.png", out, **settings)
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    expected = [f"method {settings.get('method')} does not use what is known: {unused}"] * bool(unused)
    assert warnings == expected + [f"not known and drawn at random: {drawn}"] * bool(drawn)
    assert "is taken to be degraded by" in caplog.text


def test_a_partner_data_set_is_part_of_the_settings(experiment, source, digits, masked, tmp_path, out):
    mixed = {"name": "animorphosis", "T": 3, "partner": "digits"}
    model = save(tmp_path / "mixed.safetensors", experiment, degradation=mixed)
    with pytest.raises(ColdbenchError, match="images of digits: give that prepared data set as partner"):
        run(model, source, out)
    images = run(model, source, out, partner=digits)
    assert result(out)["partner"] == data.info(digits)["hash"]
    close(images, by_samplers(model, masked[:, None], partners=np.array(data.load(digits, "train"))))
    data.prepare("digits", None, 20, tmp_path / "larger")
    before = dates(out)
    images = run(model, source, out, partner=tmp_path / "larger")
    assert remade(before, out) == set(before)
    larger = np.array(data.load(tmp_path / "larger", "train"))
    close(images, by_samplers(model, masked[:, None], partners=larger[:, :, 2:18, 2:18]))


# Refusals


@pytest.mark.parametrize(
    ("degradation", "settings", "words"),
    [
        (None, {"method": "taco"}, "method 'taco': did you mean 'tacos'"),
        (None, {"method": "ddpm"}, "method ddpm .* not inpainting"),
        (None, {"method": "estimated"}, "method estimated .* not inpainting"),
        (None, {"severity": 5}, "severity 5 .* 1…4"),
        (None, {"severity": 0}, "severity 0 .* 1…4"),
        (None, {"stride": 0}, "stride 0 .* 1 or more"),
        (None, {"batch_size": 0}, "batch size 0 .* 1 or more"),
        (None, {"known": {"center": "1,2"}}, r"'center': did you mean 'centre'\? .*: centre 2 \(row, column\)$"),
        (None, {"known": {"centre": "5"}}, "'centre' has 1 numbers; .*: centre 2"),
        (None, {"known": {"centre": "5,6,7"}}, "'centre' has 3 numbers; .*: centre 2"),
        (None, {"known": {"centre": ""}}, "'centre' has 1 numbers; .*: centre 2"),
        (None, {"known": {"centre": "5, x"}}, "'centre': 'x' .* whole number"),
        (None, {"known": {"centre": "5,6.5"}}, "'centre': '6.5' .* whole number"),
        (None, {"known": {"centre": "5,1"}}, "'centre' .* 2…13, not 1"),
        (None, {"known": {"centre": "14,5"}}, "'centre' .* 2…13, not 14"),
        (SNOW, {"known": {"flake": "1"}}, "'flake': did you mean 'flakes'.*: flakes 256, vertical 1"),
        (SNOW, {"known": {"vertical": "2"}}, "'vertical' .* 0…1, not 2"),
        (SNOW, {"known": {"vertical": "yes"}}, "'vertical': 'yes' .* whole number"),
        (SNOW, {"known": {"flakes": ",".join(["nan"] * 256)}}, r"'flakes' .* -1e\+09…1e\+09, not nan"),
        (SNOW, {"known": {"flakes": ",".join(["x"] * 256)}}, "'flakes': 'x' is no number"),
        (BLUR, {"known": {"centre": "1,2"}}, "'centre' .* blur draws nothing"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(
    experiment, source, tmp_path, out, degradation, settings, words
):
    model = save(tmp_path / "m.safetensors", experiment, degradation=degradation or experiment.degradation)
    with pytest.raises(ColdbenchError, match=words):
        run(model, source, out, **settings)
    assert not out.exists()


def test_models_that_cannot_restore_are_refused(model, source, out, tmp_path, experiment):
    weights, _ = model_file.load_weights(model)
    weights["final_conv.1.bias"] += float("nan")
    nan = tmp_path / "nan.safetensors"
    model_file.save_model(nan, weights, experiment, 1)
    safetensors.torch.save_file({"conv": torch.zeros(1)}, model, {"experiment": "{}"})
    refusals = [
        (tmp_path / "none.safetensors", "tacos", r"none\.safetensors"),
        (model, "tacos", r"model\.safetensors states no checksum"),
        (nan, "direct", r"nan\.safetensors turns .*1\.png, or another .* NaN"),
        (nan, "tacos", "NaN or infinity"),
    ]
    for path, method, words in refusals:
        with pytest.raises(ColdbenchError, match=words):
            run(path, source, out, method=method)
        assert not outputs(out)


def disguised(source: Path) -> None:
    Image.fromarray(EVEN).save(source / "z.eps")
    (source / "z.eps").rename(source / "z.png")


@pytest.mark.parametrize(
    ("prepare", "words"),
    [
        (lambda source: (source / "z.png").write_bytes((source / "1.png").read_bytes()[:-30]), r"z\.png .* decoded"),
        (lambda source: (source / "z.png").write_bytes(b""), r"z\.png .* decoded"),
        (lambda source: (source / "z.png").write_bytes(b"no image"), r"z\.png .* decoded"),
        (disguised, r"z\.png .* decoded"),
        (lambda source: (source / "z.png").symlink_to("none"), r"z\.png cannot be read"),
        (lambda source: write(source / "a/2.jpeg", EVEN), r"a/2\.jpeg and .*a/2\.png would .*out/a/2\.png: rename one"),
        (
            lambda source: (write(source / "x/c.jpg", EVEN), write(source / "x/c.png/y/b.png", EVEN)),
            r"x/c\.jpg would become .*out/x/c\.png, the folder of .*x/c\.png/y/b\.png's: rename one",
        ),
    ],
)
def test_sources_that_cannot_be_restored_are_refused_before_any_work(model, source, out, prepare, words):
    prepare(source)
    with pytest.raises(ColdbenchError, match=words) as refusal:
        run(model, source, out)
    assert "\n" not in str(refusal.value)
    assert "BytesIO" not in str(refusal.value)
    assert not out.exists()


def test_folders_that_cannot_be_used_are_refused(model, source, out, tmp_path, monkeypatch):
    (tmp_path / "link").symlink_to(source)
    (tmp_path / "empty" / ".hidden").mkdir(parents=True)
    (tmp_path / "empty" / "notes.txt").write_text("nothing")
    write(tmp_path / "empty" / ".hidden" / "a.png", EVEN)
    monkeypatch.chdir(source)
    nested = "lies in .*source.*: give a folder outside it"
    refusals = [
        (source, source, nested),
        (source, source / "deeper" / "out", nested),
        (source, tmp_path / "link" / "out", nested),
        (source, Path("x"), nested),
        (source, source / ".hidden", nested),
        (source, model, r"model\.safetensors is not a folder"),
        (source, model / "out", r"cannot write .*model\.safetensors/out"),
        (tmp_path / "none", out, "none does not exist: give an image or a folder"),
        (tmp_path / "empty", out, r"empty holds no images \(\.jpg, .*\.png"),
        (tmp_path / "empty" / "notes.txt", out, r"notes\.txt cannot be decoded"),
    ]
    for path, folder, words in refusals:
        with pytest.raises(ColdbenchError, match=words):
            run(model, path, folder)
    assert not out.exists()
    assert len(list(source.iterdir())) == 8
    run(model, source, tmp_path / "source2")  # its name begins like that of the source, but it lies outside


@pytest.mark.parametrize("finished", [False, True])
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("restored.json", lambda path: path.write_text("mine")),
        ("restored.json", lambda path: path.write_text("")),
        ("restored.json", lambda path: path.write_text('{"method": "tacos"}')),
        ("restored.json", Path.mkdir),
        ("1.png", lambda path: path.write_text("mine")),
        ("1.png", lambda path: write(path, EVEN)),
        ("1.png", lambda path: path.symlink_to("nowhere")),
        ("1.png", Path.mkdir),
        ("a/11.png", lambda path: path.write_text("mine")),
        ("d", lambda path: path.write_text("mine")),
    ],
)
def test_what_restore_did_not_write_is_refused_and_stays(model, source, out, finished, name, change):
    if finished:
        run(model, source, out)
    path = out / name
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    change(path)
    content = path.read_bytes() if path.is_file() else None
    files = list(out.rglob("*"))
    with pytest.raises(ColdbenchError, match=f"out/{name} .*: move it or give another folder"):
        run(model, source, out, method="naive")
    assert list(out.rglob("*")) == files
    assert content is None or path.read_bytes() == content


def test_a_changed_restored_json_is_refused_and_stays(model, source, out):
    run(model, source, out)
    text = (out / "restored.json").read_text()
    (out / "restored.json").write_text(text.replace('"seed": 5', '"seed": 6'))
    with pytest.raises(ColdbenchError, match=r"out/restored\.json exists"):
        run(model, source, out)
    (out / "restored.json").write_text(text)
    run(model, source, out, method="naive")
    assert result(out)["method"] == "naive"


def test_other_files_in_the_folder_stay(model, source, out):
    write(out / "mine.png", EVEN)
    (out / "notes.txt").parent.mkdir(exist_ok=True)
    (out / "notes.txt").write_text("mine")
    assert len(run(model, source, out)) == 10
    np.testing.assert_array_equal(outputs(out)["mine.png"], EVEN)
    assert (out / "notes.txt").read_text() == "mine"


def test_an_image_of_the_source_is_never_overwritten(model, source, out):
    with pytest.raises(ColdbenchError, match=r"source/1\.png is an image of the source: give another folder"):
        run(model, source / "1.png", source)
    run(model, source, out)
    content = (out / "1.png").read_bytes()
    with pytest.raises(ColdbenchError, match=r"out/1\.png is an image of the source: give another folder"):
        run(model, out / "1.png", out)
    assert (out / "1.png").read_bytes() == content


# Continuing


class Killed(BaseException):
    """Ends a run anywhere, like a kill."""


def dates(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("[!.]*.png")}


def remade(before: dict[str, int], out: Path) -> set[str]:
    return {name for name, date in dates(out).items() if before.get(name) != date}


@contextlib.contextmanager
def after(count: int, act: Callable[[], None]) -> Iterator[None]:
    """Within the block `act` happens when `count` files have been written."""
    write_png, numbers = restore.write_png, itertools.count(1)

    def write(*arguments: Any) -> None:
        write_png(*arguments)
        if next(numbers) == count:
            act()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(restore, "write_png", write)
        yield


def kill() -> None:
    raise Killed


def test_batch_size_changes_no_level(model, source, tmp_path):
    reference = run(model, source, tmp_path / "9", batch_size=9)
    for batch_size in (1, 4, 64):
        equal(run(model, source, tmp_path / f"b{batch_size}", batch_size=batch_size), reference)


def test_an_image_made_again_keeps_its_batch_index(model, source, out, monkeypatch):
    """This network's prediction is the batch index."""

    def restorer(network: Any, inference_batch: int) -> models.Restorer:
        return lambda x, s: x * 0 + (torch.arange(len(x)) % inference_batch / inference_batch)[:, None, None, None]

    monkeypatch.setattr(models, "restorer", restorer)
    reference = run(model, source, out, method="direct")
    assert len({image.mean() for image in reference.values()}) == 4
    for names in (["3.png"], ["1.png", "b.c.png"], ["04.png", "10.png", "d/e/1.png"]):
        before = dates(out)
        for name in names:
            (out / name).unlink()
        equal(run(model, source, out, method="direct", batch_size=1), reference)
        assert remade(before, out) == set(names)


def test_a_killed_run_continues(model, source, out, tmp_path):
    reference = run(model, source, tmp_path / "reference", batch_size=4)
    with after(6, kill), pytest.raises(Killed):
        run(model, source, out, batch_size=4)
    before = dates(out)
    assert len(before) == 6
    assert not (out / "restored.json").exists()
    equal(run(model, source, out, batch_size=4), reference)
    assert remade(before, out) == set(reference) - set(before)
    before = dates(out)
    (out / "restored.json").unlink()
    run(model, source, out)
    assert not remade(before, out)
    assert (out / "restored.json").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_run_cleanly(model, source, out, tmp_path, number):
    reference = run(model, source, tmp_path / "reference")
    with after(4, lambda: signal.raise_signal(number)), pytest.raises(Interrupted, match=number.name):
        run(model, source, out, batch_size=4)
    before = dates(out)
    assert len(before) == 4
    equal(run(model, source, out), reference)
    assert len(remade(before, out)) == 5


def test_a_signal_ends_the_reading(model, source, out, monkeypatch):
    read = restore.read

    def interrupted(*arguments: Any) -> Any:
        signal.raise_signal(signal.SIGTERM)
        return read(*arguments)

    monkeypatch.setattr(restore, "read", interrupted)
    with pytest.raises(Interrupted):
        run(model, source, out)
    assert not out.exists()


def test_a_process_killed_outright_continues(model, source, out, tmp_path, monkeypatch):
    """SIGKILL as soon as the first output exists."""
    monkeypatch.setitem(models.INFERENCE_BATCH, "cpu", 16)  # as in the process
    for number in range(91):
        write(source / "more" / f"{number}.png", np.full((16, 16), number, np.uint8))
    script = (
        "import sys, torch; from pathlib import Path; from coldbench.sampling.restore import RestoreSettings, restore; "
        f"settings = RestoreSettings(seed={SEED}, batch_size=1); torch.set_num_threads(1); "
        "restore(*map(Path, sys.argv[1:]), settings, torch.device('cpu'))"
    )
    with subprocess.Popen([sys.executable, "-c", script, model, source, out], stderr=subprocess.DEVNULL) as process:
        limit = time.monotonic() + 120
        while not dates(out) and process.poll() is None and time.monotonic() < limit:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
    before = dates(out)
    assert 0 < len(before) < 100
    assert not (out / "restored.json").exists()
    images = run(model, source, out)
    assert not remade(before, out) & set(before)
    equal(images, run(model, source, tmp_path / "reference"))


def test_damaged_changed_and_missing_outputs_alone_are_made_again(model, source, out):
    reference = run(model, source, out)
    before = dates(out)
    content = bytearray((out / "a/2.png").read_bytes())
    content[-20] ^= 1
    (out / "a/2.png").write_bytes(content)
    (out / "1.png").write_bytes((out / "1.png").read_bytes()[:-30])
    edited = Image.open(out / "2.png")
    text = PngImagePlugin.PngInfo()
    for keyword, value in edited.info.items():
        text.add_text(keyword, value)
    edited.point(lambda level: 255 - level).save(out / "2.png", pnginfo=text)
    (out / "3.png").unlink()
    equal(run(model, source, out), reference)
    assert remade(before, out) == {"1.png", "2.png", "3.png", "a/2.png"}


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "naive"},
        {"severity": 3},
        {"stride": 2},
        {"seed": 6},
        {"known": {"centre": "4,5"}},
        {"resize": True},
        {"released_shift": True},
    ],
    ids=str,
)
def test_other_settings_make_all_again(model, source, out, tmp_path, settings):
    run(model, source, out)
    before = dates(out)
    images = run(model, source, out, **settings)
    assert remade(before, out) == set(before)
    equal(images, run(model, source, tmp_path / "new", **settings))
    assert all(image["sha256"] == sha256(out / image["output"]) for image in result(out)["images"])


def test_another_model_makes_all_again_and_another_batch_size_none(model, source, out, experiment):
    run(model, source, out)
    before = dates(out)
    run(model, source, out, batch_size=2)
    assert not remade(before, out)
    weights, _ = model_file.load_weights(model)
    weights["final_conv.1.bias"] += 0.5
    model_file.save_model(model, weights, experiment, 1)
    run(model, source, out)
    assert remade(before, out) == set(before)


def test_an_unfinished_rerun_has_no_restored_json(model, source, out):
    run(model, source, out)
    with after(1, kill), pytest.raises(Killed):
        run(model, source, out, method="naive")
    assert not (out / "restored.json").exists()


def test_changed_and_added_images_alone_are_made(model, source, out, tmp_path, experiment):
    run(model, source, out)
    before = dates(out)
    write(source / "3.png", EVEN)
    run(model, source, out)
    assert remade(before, out) == {"3.png"}

    write(source / "05.png", EVEN)  # changes the index of the images behind it, and so what is drawn for them
    before = dates(out)
    images = run(model, source, out)
    assert remade(before, out) == {"05.png", "10.png", "a/2.png", "a/11.png", "b.c.png", "d/e/1.png"}
    equal(images, run(model, source, tmp_path / "new"))

    (source / "05.png").unlink()
    run(model, source, out)
    assert "05.png" not in [image["output"] for image in result(out)["images"]]
    write(source / "05.png", EVEN)
    run(model, source, out)  # its output remained, and restore wrote it

    blur = save(tmp_path / "blur.safetensors", experiment, degradation=BLUR)
    run(blur, source, tmp_path / "blurred")
    write(source / "06.png", EVEN)
    before = dates(tmp_path / "blurred")
    run(blur, source, tmp_path / "blurred")
    assert remade(before, tmp_path / "blurred") == {"06.png"}
