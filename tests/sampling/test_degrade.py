"""Degrading a user's own images: the samplers' D to the level, and restoring by the file of draws gives them back."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cases import untrained
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image
from torch import Tensor

from coldbench import data, degradations, models
from coldbench.core import plugins, rng
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import sha256
from coldbench.core.images import from_uint8, to_uint8, to_unit_interval
from coldbench.core.interrupts import Interrupted
from coldbench.core.validation import fingerprint
from coldbench.degradations import contract
from coldbench.degradations.registry import DEGRADATIONS
from coldbench.sampling import degrade, drawn_file, restore
from coldbench.sampling.degrade import DegradeSettings
from coldbench.sampling.drawn_file import DrawnFile, read_drawn
from coldbench.sampling.restore import RestoreSettings

CPU = torch.device("cpu")
SEED = 5
NAMES = ["2.png", "10.png", "a/2.png"]
"""The outputs of `clean` in natural order."""
NOISE = {"name": "noise", "T": 4}
SNOW = {"name": "snow", "T": 3, "level": 1, "shared": 2}
BLUR = {"name": "blur", "T": 3, "kernel": 3, "std": 1.0}
MASK = {"name": "inpainting", "T": 4, "std": 1.0, "rate": 0.5, "centre_low": 2, "centre_high": 13}
PLUGIN = """
import torch
import coldbench


@coldbench.degradation("grain")
class Grain(coldbench.Degradation):
    \"\"\"One brightness and one layer of noise an image, and the photons that it would emit itself.\"\"\"

    T: int = 4
    offset: float = 0.0

    def draw(self, indices, seed):
        z = coldbench.rng.normal(seed, "grain", indices, self.size**2).reshape(-1, self.size, self.size)
        return {"level": coldbench.rng.integers(seed, "level", indices, 0, 9)[:, 0], "z": z}

    def draw_for(self, x0, indices, seed):
        drawn = self.draw(indices, seed)
        return {**drawn, "photons": (x0[:, 0].double() + drawn["z"]).to(torch.float64)}

    def degrade(self, x0, t, drawn):
        share = (t / self.T).to(x0.dtype)[:, None, None, None]
        grain = 0.02 * drawn["level"].to(x0.dtype)[:, None, None] * drawn["z"].to(x0.dtype)
        return (1 - share / 2) * x0 + 0.1 * share * (grain + drawn["photons"].to(x0.dtype))[:, None] + self.offset
"""
SPECS = [{"name": name, **each} for name, kind in DEGRADATIONS.items() for each in kind.test_params]
CASES = [(spec, channels) for spec in SPECS for channels in (1, 3) if channels == 3 or spec["name"] != "decolorization"]


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    yield
    plugins.use([])


@pytest.fixture
def grain(tmp_path: Path) -> str:
    """A plug-in whose values are kept in all three ways."""
    file = tmp_path / "grain.py"
    file.write_text(PLUGIN)
    return str(file)


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    """Three photographs, one in a folder below."""
    pixels = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 3), np.uint8)
    pixels[1] = pixels[1] // 4 + np.arange(16, dtype=np.uint8)[:, None, None] * 12
    for name, image in zip(NAMES, pixels, strict=True):
        write(tmp_path / "clean" / name.replace("10.png", "10.BMP"), image)
    return tmp_path / "clean"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "degraded"


def write(path: Path, image: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(path)
    return path


def pixels_of(folder: Path, names: list[str]) -> np.ndarray:
    """uint8 (N, C, H, W)."""
    images = [np.asarray(Image.open(folder / name)) for name in names]
    return np.stack([image[None] if image.ndim == 2 else image.transpose(2, 0, 1) for image in images])


def originals(clean: Path, channels: int) -> Tensor:
    """The clean images, float32 (3, channels, 16, 16) in [-1, 1]."""
    names = [name.replace("10.png", "10.BMP") for name in NAMES]
    modes = [np.asarray(Image.open(clean / name).convert("RGB" if channels == 3 else "L")) for name in names]
    return from_uint8(np.stack([each.reshape(16, 16, -1).transpose(2, 0, 1) for each in modes]), CPU)


def corruption(spec: dict[str, Any], channels: int = 1, partner: Path | None = None, **settings: Any) -> Any:
    parameters = {key: value for key, value in spec.items() if key != "name"}
    chosen = DegradeSettings(**{"seed": SEED, **settings})
    return degrade.of_words(spec["name"], parameters, 16, channels, chosen, partner)


def run(spec: dict[str, Any], clean: Path, out: Path, channels: int = 1, **options: Any) -> DrawnFile:
    """Degrade by `spec` and read the file of draws."""
    degrade.degrade(corruption(spec, channels, **options), clean, out)
    return read_drawn(out / "drawn.json")


def expected(D: degradations.Degradation, x0: Tensor, severity: int | None = None) -> tuple[Tensor, dict[str, Tensor]]:
    """xt and the draws of all images together."""
    drawn = D.draw_for(x0, torch.arange(len(x0)), rng.derive(SEED, "degrade"))
    return degradations.initial_xt(D, x0, drawn, severity), drawn


def restored(
    monkeypatch: pytest.MonkeyPatch, model: Path, out: Path, x0: Tensor, partner: Path | None = None, **settings: Any
) -> tuple[np.ndarray, dict[str, Tensor]]:
    """The pixels that a perfect restorer gives from the degraded images, and the draw that the sampler got."""
    seen: list[dict[str, Tensor]] = []
    sample = restore.sample

    def recorded(network: Any, D: Any, x: Tensor, drawn: dict[str, Tensor], *rest: Any, **options: Any) -> Any:
        seen.append(drawn)
        return sample(network, D, x, drawn, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(models, "restorer", lambda network, batch: lambda x, s: x0.to(x.dtype))
        patch.setattr(restore, "sample", recorded)
        folder = out.with_name(f"restored-{settings.get('method')}")
        options = {"drawn": out / "drawn.json", **settings}
        restore.restore(model, out, folder, RestoreSettings(**options), CPU, partner)
    return pixels_of(folder, NAMES), seen[0]


# The law of the round trip


@pytest.mark.parametrize(("spec", "channels"), CASES, ids=str)
def test_draws_return_to_the_sampler_and_a_perfect_restorer_gives_the_originals_back(
    spec, channels, clean, out, experiment, photos, tmp_path, monkeypatch
):
    """For every degradation of the suite. TACoS keeps what the 8-bit file of x_T lost; naive sampling forgets it."""
    partner = photos if "partner" in spec else None
    run(spec, clean, out, channels, partner=partner)
    model = untrained(tmp_path / "m.safetensors", experiment.model_copy(update={"degradation": spec}), channels)
    round_trip(degradations.with_partner(spec, 16, partner), model, clean, out, channels, partner, monkeypatch)


def round_trip(
    D: degradations.Degradation, model: Path, clean: Path, out: Path, channels: int, partner: Any, monkeypatch: Any
) -> None:
    x0 = originals(clean, channels)
    xt, drawn = expected(D, x0)
    stored = from_uint8(pixels_of(out, NAMES), CPU)
    assert (stored - xt.clamp(-1, 1)).abs().max() <= 1.01 / 255
    for method in ("naive", "tacos"):
        images, known = restored(monkeypatch, model, out, x0, partner, method=method)
        assert known.keys() == drawn.keys()
        assert all(torch.equal(known[key], drawn[key]) for key in drawn)
        result = x0 if method == "naive" else x0 + stored - D(x0, D.T, drawn)
        difference = images.astype(int) - to_uint8(to_unit_interval(result)).numpy().astype(int)
        assert np.abs(difference).max() <= (0 if method == "naive" else 1)


def test_a_plug_in_makes_the_same_round_trip_with_values_kept_in_three_ways(
    grain, clean, out, experiment, tmp_path, monkeypatch
):
    plugins.use([grain])
    file = run({"name": "grain"}, clean, out)
    for image in file.images:
        assert list(image.numbers) == ["level"]
        assert list(image.encoded) == ["photons"]
        assert image.made_again == ["z"]
    spec = plugins.described("degradation", {"name": "grain"})
    model = untrained(tmp_path / "m.safetensors", experiment.model_copy(update={"degradation": spec}))
    round_trip(degradations.build(spec, 16), model, clean, out, 1, None, monkeypatch)
    (tmp_path / "grain.py").write_text(PLUGIN.replace("0.02", "0.03"))
    plugins.use([grain])
    changed = {**spec, "source": plugins.find("degradation", "grain").source}
    model = untrained(tmp_path / "m.safetensors", experiment.model_copy(update={"degradation": changed}))
    with pytest.raises(ColdbenchError, match=r"degradation\.source"):
        restore.restore(model, out, tmp_path / "x", RestoreSettings(drawn=out / "drawn.json"), CPU)


DTYPES = ("bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")


def read_again(
    drawn: dict[str, Tensor], again: dict[str, Tensor], index: int, seed: int, D: degradations.Degradation
) -> dict[str, Tensor]:
    """A draw without the axis of the images, after its way through the text of a file."""
    facts = {"file": "a.png", "index": index, "source": "0" * 64, "sha256": "0" * 64, "clamped": 0, "excess": 0}
    whole = {
        "version": 1, "coldbench": "", "degradation": {"name": "x"}, "size": 2, "channels": 1, "severity": 1,
        "seed": seed, "purpose": "degrade", "partner": None, "resize": False,
        "values": drawn_file.types_of(drawn, "any"),
        "images": [{**facts, **drawn_file.kept(drawn, again)}],
    }  # fmt: skip
    file = DrawnFile.model_validate_json(DrawnFile.model_validate(whole).model_dump_json())
    return file.draw(file.images[0], D)


@given(value=st.sampled_from(DTYPES).flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_side=5))))
def test_any_value_comes_back_from_the_file_bit_for_bit(value: np.ndarray) -> None:
    again = read_again({"v": torch.from_numpy(value)}, {}, 0, 0, degradations.build(NOISE, 16))["v"]
    assert (str(again.dtype), tuple(again.shape)) == (f"torch.{value.dtype}", value.shape)
    assert again.numpy().tobytes() == value.tobytes()


@settings(max_examples=60, deadline=None)
@given(spec=st.sampled_from(SPECS), seed=st.integers(0, 2**32 - 1), index=st.integers(0, 10**6))
def test_draw_of_any_seed_and_image_comes_back_from_the_file(spec: dict[str, Any], seed: int, index: int) -> None:
    D = degradations.build(spec, 16, contract.partners(16))
    drawn = {name: value[0] for name, value in D.draw(torch.tensor([index]), rng.derive(seed, "degrade")).items()}
    again = read_again(drawn, drawn_file.redrawn(D, index, seed, "degrade"), index, seed, D)
    assert again.keys() == drawn.keys()
    assert all(torch.equal(again[name], drawn[name]) for name in drawn)


# The degraded images and their file


@pytest.mark.parametrize("severity", [None, 1, 2])
@pytest.mark.parametrize("spec", [BLUR, MASK, SNOW], ids=lambda spec: spec["name"])
def test_images_are_degraded_as_the_test_images_of_a_run(spec, severity, clean, out):
    run(spec, clean, out, severity=severity)
    xt, _ = expected(degradations.build(spec, 16), originals(clean, 1), severity)
    difference = pixels_of(out, NAMES).astype(int) - to_uint8(to_unit_interval(xt)).numpy()
    assert np.abs(difference).max() <= 1  # a batch may be summed in another order


def test_file_says_what_was_drawn_and_from_what(clean, out):
    file = run(MASK, clean, out, severity=3)
    assert [image.file for image in file.images] == NAMES
    assert [image.index for image in file.images] == [0, 1, 2]
    assert (file.severity, file.size, file.channels, file.seed) == (3, 16, 1, SEED)
    assert file.degradation == {
        **MASK, "width": "std", "fill": 0.0, "quantized": False, "rounding": "truncate"
    }  # fmt: skip
    _, drawn = expected(degradations.build(MASK, 16), originals(clean, 1))
    for image, centre, name in zip(file.images, drawn["centre"].tolist(), ("2.png", "10.BMP", "a/2.png"), strict=True):
        assert image.numbers == {"centre": centre}
        assert image.source == sha256(clean / name)
        assert image.sha256 == sha256(out / image.file)
        assert image.clamped == 0
    assert not [each for each in run(NOISE, clean, out).images if each.made_again != ["z"] or each.numbers]
    assert len((out / "drawn.json").read_text()) < 3000


def test_restoration_without_the_file_draws_something_else_and_hints_at_it(
    clean, out, experiment, tmp_path, monkeypatch, caplog
):
    """Also with the seed of degrading, or else nobody would see what knowing the draw is worth."""
    caplog.set_level("INFO", logger="coldbench")
    run(MASK, clean, out)
    model = untrained(tmp_path / "m.safetensors", experiment.model_copy(update={"degradation": MASK}))
    x0 = originals(clean, 1)
    _, blind = restored(monkeypatch, model, out, x0, drawn=None, seed=SEED)
    assert "--drawn" in caplog.text
    _, drawn = expected(degradations.build(MASK, 16), x0)
    assert not torch.equal(blind["centre"], drawn["centre"])
    caplog.clear()
    restored(monkeypatch, model, out, x0, seed=SEED)
    assert "--drawn" not in caplog.text
    assert "drawn at random" not in caplog.text


def test_warning_says_how_much_more_than_rounding_is_lost(clean, out, tmp_path, caplog):
    caplog.set_level("WARNING", logger="coldbench")
    run(MASK, clean, out)
    assert not caplog.records
    file = run(NOISE, clean, out)
    assert "3 of 3 images" in caplog.text
    xt, _ = expected(degradations.build(NOISE, 16), originals(clean, 1))
    outside = (xt.abs() - 1).clamp(min=0) / 2 * 255
    for image, each in zip(file.images, outside, strict=True):
        assert image.clamped == pytest.approx((each > 0.5).double().mean().item())
        assert image.excess == pytest.approx(each.max().item(), abs=0.01)
    assert f"{outside.max():.0f} levels" in caplog.text


def test_draws_of_other_images_and_of_subfolders_are_found_by_path(clean, out, experiment, tmp_path):
    file = run(MASK, clean, out)
    model = untrained(tmp_path / "m.safetensors", experiment.model_copy(update={"degradation": MASK}))
    settings = RestoreSettings(drawn=out / "drawn.json")
    moved = tmp_path / "moved"
    for name in NAMES:
        write(moved / name, np.asarray(Image.open(out / name)))
    loaded = restore.load_restoration(model, settings, CPU, None)
    sources = [(out, [0, 1, 2]), (out / "a", [2]), (out / "a" / "2.png", [2]), (moved, [0, 1, 2]), (out / "2.png", [0])]
    for source, indices in sources:
        items = restore.list_items(source, tmp_path / "x")
        loaded.draws.assign(items, source)
        assert [loaded.draws.entries[item] for item in items] == [file.images[index] for index in indices]


# Refusals


def model_of(tmp_path: Path, experiment: Any, **change: Any) -> Path:
    return untrained(tmp_path / "m.safetensors", experiment.model_copy(update={"degradation": MASK, **change}))


def edit(path: Path, change: Callable[[dict[str, Any]], Any], seal: bool = True) -> None:
    """Change the content of a file of draws, with its fingerprint unless `seal` is false."""
    content = json.loads(path.read_text())
    stated = content.pop("fingerprint")
    change(content)
    path.write_text(json.dumps({**content, "fingerprint": fingerprint(content) if seal else stated}))


@pytest.mark.parametrize(
    ("change", "settings", "words"),
    [
        ({"degradation": SNOW}, {}, r"degradation\.name inpainting.*snow"),
        ({"degradation": {**MASK, "rate": 0.25}}, {}, r"degradation\.rate 0\.5.*0\.25"),
        ({"degradation": {**MASK, "quantized": True}}, {}, r"degradation\.quantized False.*True"),
        ({"degradation": {**MASK, "T": 5}}, {}, r"degradation\.T 4.*5"),
        ({"size": 20}, {}, "size 16.*20"),
        ({}, {"severity": 3}, "severity 3 .*drawn.json.* 4"),
        ({}, {"severity": 5}, "severity 5 .*1…4"),
        ({}, {"known": {"centre": "3,4"}}, "'centre' .*drawn.json"),
        ({}, {"known": {"center": "3,4"}}, "'center': did you mean 'centre'"),
        ({}, {"drawn": Path("none.json")}, "none.json does not exist"),
    ],
)
def test_draws_that_do_not_fit_the_model_are_refused(change, settings, words, clean, out, experiment, tmp_path):
    run(MASK, clean, out)
    model, folder = model_of(tmp_path, experiment, **change), tmp_path / "restored"
    with pytest.raises(ColdbenchError, match=words):
        restore.restore(model, out, folder, RestoreSettings(**{"drawn": out / "drawn.json", **settings}), CPU)
    assert not folder.exists()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_text(path.read_text()[:-40]), "damaged"),
        (lambda path: path.write_bytes(b"\xff"), "damaged"),
        (lambda path: path.write_text("[]"), "drawn.json"),
        (lambda path: path.write_text('{"images": 3}'), "drawn.json"),
        (lambda path: edit(path, lambda content: content["images"][0].update(index=7), seal=False), "was changed"),
        (lambda path: edit(path, lambda content: content.update(version=2)), "version 2"),
        (lambda path: edit(path, lambda content: content.update(sede=2)), "'sede': did you mean 'seed'"),
        (lambda path: edit(path, lambda content: content.pop("seed")), "seed is missing"),
        (lambda path: edit(path, lambda content: content["images"][1].pop("numbers")), "images.1.numbers is missing"),
        (lambda path: edit(path, lambda content: content["images"][1]["numbers"].clear()), "10.png"),
        (lambda path: edit(path, lambda content: content["images"][1]["numbers"].update(centre=[1])), "10.png"),
        (lambda path: edit(path, lambda content: content["images"].pop(1)), "10.png.*did you mean"),
        (lambda path: edit(path, lambda content: content["values"]["centre"].update(dtype="int")), "dtype"),
        (lambda path: edit(path, spoil), "2.png.*decoded"),
    ],
)
def test_damaged_and_incomplete_files_are_refused_before_any_work(damage, words, clean, out, experiment, tmp_path):
    run(MASK, clean, out)
    damage(out / "drawn.json")
    folder = tmp_path / "restored"
    with pytest.raises(ColdbenchError, match=words) as refusal:
        restore.restore(model_of(tmp_path, experiment), out, folder, RestoreSettings(drawn=out / "drawn.json"), CPU)
    assert "\n" not in str(refusal.value)
    assert not folder.exists()


def spoil(content: dict[str, Any]) -> None:
    content["images"][0] |= {"numbers": {}, "encoded": {"centre": "no base64"}}


def test_another_partner_is_refused(clean, out, experiment, photos, digits, tmp_path):
    spec = {"name": "animorphosis", "T": 3, "partner": "photos"}
    run(spec, clean, out, 3, partner=photos)
    model = untrained(tmp_path / "m.safetensors", experiment.model_copy(update={"degradation": spec}), 3)
    with pytest.raises(ColdbenchError, match=f"partner {data.info(photos)['hash']}.*{data.info(digits)['hash']}"):
        restore.restore(model, out, tmp_path / "x", RestoreSettings(drawn=out / "drawn.json"), CPU, digits)


@pytest.mark.parametrize(
    ("spec", "options", "words"),
    [
        ({"name": "blurr"}, {}, "'blurr': did you mean 'blur'"),
        ({**BLUR, "kernal": 3}, {}, "'kernal': did you mean 'kernel'"),
        ({**BLUR, "kernel": 4}, {}, "kernel must be odd"),
        ({**BLUR, "size": 3}, {}, "'size'"),
        ({**BLUR, "source": 3}, {}, "'source'"),
        ({"name": "blur", "T": 3}, {}, "'kernel' is missing"),
        (BLUR, {"severity": 4}, "severity 4 .*1…3"),
        (BLUR, {"severity": 0}, "severity 0 .*1…3"),
        (BLUR, {"channels": 2}, "1 or 3 channels, not 2"),
        ({"name": "decolorization", "T": 3}, {"channels": 1}, "decolorization needs images of 3"),
        ({"name": "animorphosis", "T": 3, "partner": "photos"}, {}, "images of photos: give"),
    ],
)
def test_degradations_and_settings_that_do_not_fit_are_refused(spec, options, words):
    with pytest.raises(ColdbenchError, match=words):
        corruption(spec, **options)


def test_what_degrade_did_not_write_is_refused_and_stays(clean, out):
    for name in ("10.png", "drawn.json", "a"):
        (out / name).parent.mkdir(exist_ok=True)
        (out / name).write_text("mine")
        with pytest.raises(ColdbenchError, match=f"{name}.*move it or give another folder"):
            run(MASK, clean, out)
        assert (out / name).read_text() == "mine"
        assert len(list(out.iterdir())) == 1
        (out / name).unlink()


def test_neither_verb_overwrites_the_images_of_the_other(clean, out, experiment, tmp_path):
    run(MASK, clean, out)
    model, both = model_of(tmp_path, experiment), tmp_path / "both"
    restore.restore(model, out, both, RestoreSettings(method="direct"), CPU)
    with pytest.raises(ColdbenchError, match=r"2[.]png .*not written by degrade"):
        run(MASK, clean, both)
    with pytest.raises(ColdbenchError, match=r"2[.]png .*not written by restore"):
        restore.restore(model, both, out, RestoreSettings(method="direct"), CPU)


def test_draws_of_other_images_are_not_lost(clean, out, tmp_path):
    run(MASK, clean, out)
    before = (out / "drawn.json").read_bytes()
    with pytest.raises(ColdbenchError, match=r"drawn for 10[.]png"):
        run(MASK, clean / "2.png", out)
    assert (out / "drawn.json").read_bytes() == before
    for name in ("a/2.png", "10.png"):
        (out / name).unlink()
    assert len(run(MASK, clean / "2.png", out).images) == 1


# Continuing


def dates(out: Path) -> dict[str, int]:
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in out.rglob("[!.]*.png")}


def test_a_stopped_run_continues(clean, out, tmp_path, monkeypatch):
    run(MASK, clean, tmp_path / "reference")
    write_png = degrade.write_png

    def stopping(*arguments: Any) -> None:
        write_png(*arguments)
        signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(degrade, "write_png", stopping)
        with pytest.raises(Interrupted):
            run(MASK, clean, out)
    before = dates(out)
    assert list(before) == ["2.png"]
    assert not (out / "drawn.json").exists()
    run(MASK, clean, out)
    assert dates(out)["2.png"] == before["2.png"]
    for path in (tmp_path / "reference").rglob("*.*"):
        assert path.read_bytes() == (out / path.relative_to(tmp_path / "reference")).read_bytes()


@pytest.mark.parametrize("options", [{"seed": 6}, {"severity": 3}, {"resize": True}], ids=str)
def test_other_settings_make_all_again_and_the_same_none(options, clean, out):
    run(MASK, clean, out)
    before = dates(out)
    run(MASK, clean, out)
    assert dates(out) == before
    run(MASK, clean, out, **options)
    assert not dates(out).items() & before.items()


def test_changed_and_damaged_images_alone_are_made_again(clean, out):
    run(MASK, clean, out)
    before = dates(out)
    (out / "10.png").write_bytes((out / "10.png").read_bytes()[:-30])
    write(clean / "2.png", np.full((16, 16), 9, np.uint8))
    run(MASK, clean, out)
    assert {name for name, date in dates(out).items() if before[name] != date} == {"2.png", "10.png"}


def test_restored_images_follow_their_draws(clean, out, experiment, tmp_path, caplog):
    """Another draw of one image makes that one again, and so does leaving the draws out."""
    run(MASK, clean, out)
    model, folder, drawn = model_of(tmp_path, experiment), tmp_path / "restored", out / "drawn.json"

    def remade(settings: RestoreSettings) -> set[str]:
        before = dates(folder)
        restore.restore(model, out, folder, settings, CPU)
        return {name for name, date in dates(folder).items() if before.get(name) != date}

    assert remade(RestoreSettings(drawn=drawn)) == set(NAMES)
    assert not remade(RestoreSettings(drawn=drawn))
    edit(drawn, lambda content: content["images"][1]["numbers"].update(centre=[2, 2]))
    assert remade(RestoreSettings(drawn=drawn)) == {"10.png"}
    assert remade(RestoreSettings()) == set(NAMES)
    assert remade(RestoreSettings(drawn=drawn)) == set(NAMES)
    write(out / "10.png", np.full((16, 16), 9, np.uint8))
    assert remade(RestoreSettings(drawn=drawn)) == {"10.png"}
    assert "other files" in caplog.text
