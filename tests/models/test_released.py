"""Checkpoints of the released code: what is taken from them, what is refused, and that nothing in them is executed."""

from __future__ import annotations

import json
import pickle
import re
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from cases import GOLDEN
from torch import Tensor

from coldbench import cli, data, degradations, models
from coldbench.core.config import Sampling
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Network
from coldbench.models import model_file, released
from coldbench.planning import grid
from coldbench.sampling import manifest
from coldbench.sampling.shards import SamplingPaths, sample_run

CPU = torch.device("cpu")
T = 4
Weights = dict[str, Tensor]
LAYOUTS = {  # folder of the released code: the prefix of its keys (protocol 1.6)
    "deblurring": "module.denoise_fn.",
    "older deblurring": "denoise_fn.module.",
    "snow": "denoise_fn.",
    "inpainting": "module.defade_fn.",
    "inpainting, one GPU": "defade_fn.",
    "older inpainting": "defade_fn.module.",
    "both wrapped": "module.denoise_fn.module.",
    "the network alone": "",
}
BLUR = {"name": "blur", "T": T, "kernel": 3, "kernel_rate": 2, "std": 1.0, "schedule": "linear", "rate": 0.5}
NOISE = {"name": "noise", "T": T}
ANIMALS = {"name": "animorphosis", "T": T, "partner": "photos"}
COLOUR = {"name": "inpainting_generation", "T": T, "std": 0.5, "rate": 0.6}


def kernels(channels: int = 1) -> Weights:
    """The kernels of BLUR, by the formula of protocol 2.1."""
    found = {}
    for i in range(T):
        axis = torch.exp(-((torch.arange(3 + 2 * i) - 1 - i) ** 2) / (2 * (1 + i / 2) ** 2))
        axis /= axis.sum()
        found[f"module.gaussian_kernels.{i}.weight"] = (axis[:, None] * axis).repeat(channels, 1, 1, 1)
    return found


def mixed() -> Weights:
    """ᾱ of NOISE, by the formula of protocol 2.7."""
    f = torch.cos((torch.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    alphas = torch.cumprod(1 - torch.clamp(1 - f[1:] / f[:-1], max=0.999), dim=0)
    found = {"alphas_cumprod": alphas, "sqrt_alphas_cumprod": alphas**0.5}
    return {
        f"module.{key}": value
        for key, value in (found | {"sqrt_one_minus_alphas_cumprod": (1 - alphas) ** 0.5}).items()
    }


def colours() -> Weights:
    """The weights of COLOUR, by the formula of protocol 2.3: the centre of a picture of 16 px is 7."""
    axis = (torch.arange(16) - 7) ** 2
    masks = [1 - torch.exp(-(axis[:, None] + axis) / (2 * (0.5 + 0.6 * i) ** 2)) for i in range(T - 1)]
    one = torch.ones(16, 16)
    colour = torch.stack([masks[0] * masks[1] * masks[2], masks[0] * masks[1], masks[0], one])[:, None]
    return {"module.alphas": 1 - colour, "module.one_minus_alphas": colour}


def schedule(spec: dict[str, object], size: int) -> Weights:
    return released.schedule(degradations.build(spec, size), 3)


def one_gpu(entries: Weights) -> Weights:
    return {key.removeprefix("module."): value for key, value in entries.items()}


BESIDE: dict[str, tuple[dict[str, object] | None, Callable[[], Weights]]] = {  # the degradation, and its schedule
    "nothing": (None, dict),
    "kernels": (BLUR, kernels),
    "kernels, one GPU": (BLUR, lambda: one_gpu(kernels())),
    "a blur's network": (BLUR, dict),
    "noise": (NOISE, mixed),
    "half precision": (NOISE, lambda: {key: value.half() for key, value in mixed().items()}),
    "animals": (ANIMALS, mixed),
    "colour fade": (COLOUR, colours),
}


def fresh(network: Network, seed: int) -> Weights:
    """Weights of a network with values of their own."""
    torch.manual_seed(seed)
    return models.build(network, 1, 16).state_dict()


def under(experiment: Experiment, degradation: dict[str, object] | None) -> Experiment:
    """The experiment with another degradation, unless that is None."""
    return experiment.model_copy(update={"degradation": degradation}) if degradation else experiment


@pytest.fixture
def weights(experiment: Experiment) -> Weights:
    return fresh(experiment.network, 0)


def released_file(
    path: Path, weights: Weights, prefix: str = "module.denoise_fn.", beside: Weights | None = None
) -> Path:
    """A checkpoint as the released trainers write it, `model` being other weights than `ema`."""
    ema = OrderedDict({prefix + key: value for key, value in weights.items()} | (beside or {}))
    model = OrderedDict((key, value + 1) for key, value in ema.items())
    torch.save({"step": 700_000, "model": model, "ema": ema}, path)
    return path


def equal(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def refused(source: Path, experiment: Experiment, out: Path) -> str:
    """The one line with which an import is refused; nothing is written."""
    with pytest.raises(ColdbenchError) as error:
        released.import_model(source, out, experiment)
    told = str(error.value)
    assert "\n" not in told
    assert str(source) in told
    assert len(told) < 1000
    assert not out.exists()
    assert {path.name for path in out.parent.iterdir()} <= {source.name, "other.pt"}
    return told


@pytest.mark.parametrize("beside", list(BESIDE))
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_every_layout_gives_the_averaged_weights(experiment, weights, tmp_path, layout, beside) -> None:
    """Key for key the `ema` entry, under each prefix, with or without kernels and schedules beside it."""
    degradation, entries = BESIDE[beside]
    experiment = under(experiment, degradation)
    source = released_file(tmp_path / "model.pt", weights, LAYOUTS[layout], entries())
    out = tmp_path / "model.safetensors"
    released.import_model(source, out, experiment)
    assert equal(safetensors.torch.load_file(out), weights)
    loaded = model_file.load_model(out, CPU, 1)
    assert loaded.experiment == experiment
    assert loaded.provenance == {"imported": "model.pt"}
    assert list(model_file.load_weights(out)[0]) == list(safetensors.torch.load_file(out))


def test_the_other_network_is_imported_alike(experiment, tmp_path) -> None:
    network = Network(name="unet_ddpm", dim=8, dim_mults=[1, 2], dropout=0.1, attention=8)
    ours = experiment.model_copy(update={"network": network})
    source = released_file(tmp_path / "model.pt", fresh(network, 1))
    released.import_model(source, tmp_path / "model.safetensors", ours)
    assert equal(safetensors.torch.load_file(tmp_path / "model.safetensors"), fresh(network, 1))


def test_half_and_double_precision_become_single(experiment, weights, tmp_path) -> None:
    source = released_file(tmp_path / "model.pt", {key: value.double() for key, value in weights.items()})
    assert equal(released.load(source, experiment), weights)
    source = released_file(tmp_path / "model.pt", {key: value.half() for key, value in weights.items()})
    found = released.load(source, experiment)
    assert {value.dtype for value in found.values()} == {torch.float32}
    for key, value in weights.items():
        torch.testing.assert_close(found[key], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("degradation", "beside", "length"),
    [
        (BLUR, {f"module.gaussian_kernels.{i}.weight": torch.ones(1, 1, 3, 3) for i in range(12)}, 12),
        (BLUR, {f"module.gaussian_kernels.{i}.weight": torch.ones(1, 1, 3, 3) for i in range(T - 1)}, T - 1),
        (NOISE, {"module.alphas_cumprod": torch.ones(200)}, 200),
        (ANIMALS, {"module.sqrt_one_minus_alphas_cumprod": torch.ones(T - 1)}, T - 1),
        (COLOUR, {"module.alphas": torch.ones(750, 1, 2, 2)}, 750),
        (COLOUR, {"one_minus_alphas": torch.ones(5, 1, 2, 2)}, 5),
    ],
)
def test_another_number_of_steps_is_told(experiment, weights, tmp_path, degradation, beside, length) -> None:
    source = released_file(tmp_path / "model.pt", weights, beside=beside)
    told = refused(source, under(experiment, degradation), tmp_path / "out.safetensors")
    assert f"was trained with T = {length}, but tiny-test-s3 has T = {T}" in told


FIRST, LAST = "module.gaussian_kernels.0.weight", f"module.gaussian_kernels.{T - 1}.weight"
OWN: dict[str, tuple[dict[str, object], Callable[[], Weights]]] = {
    "blur": (BLUR, kernels),
    "noise": (NOISE, mixed),
    "animorphosis": (ANIMALS, mixed),
    "inpainting_generation": (COLOUR, colours),
}


@pytest.mark.parametrize(
    ("name", "change", "told"),
    [
        ("blur", {FIRST: None}, "schedule of blur with T = 4: keys 1 missing (gaussian_kernels.0.weight)"),
        ("blur", {f"module.gaussian_kernels.{i}.weight": None for i in range(T - 1)}, "keys 3 missing (gaussian_ker"),
        ("blur", {LAST: torch.ones(1, 1, 15, 15)}, "gaussian_kernels.3.weight: (1, 1, 15, 15), not (1, 1, 9, 9)"),
        ("blur", {FIRST: torch.ones(3, 3, 3)}, "gaussian_kernels.0.weight: (3, 3, 3), not (1, 1, 3, 3)"),
        ("blur", {FIRST: kernels(3)[FIRST]}, "gaussian_kernels.0.weight: (3, 1, 3, 3), not (1, 1, 3, 3)"),
        ("blur", {FIRST: torch.full((1, 1, 3, 3), 1 / 9)}, "another schedule than tiny-test-s3: gaussian_kernels.0.w"),
        ("blur", {FIRST: torch.full((1, 1, 3, 3), float("nan"))}, "not finite in gaussian_kernels.0.weight"),
        ("blur", {FIRST: torch.ones(1, 1, 3, 3, dtype=torch.int64)}, "not floating point in gaussian_kernels.0.weight"),
        ("blur", {FIRST: kernels()[FIRST] + 0j}, "not floating point in gaussian_kernels.0.weight"),
        ("blur", {FIRST.removeprefix("module."): kernels()[FIRST]}, "gaussian_kernels.0.weight twice"),
        ("blur", {"module.gaussian_kernels.00.weight": kernels()[FIRST]}, "1 extra (gaussian_kernels.00.weight)"),
        ("blur", mixed(), "keys 3 extra (alphas_cumprod, sqrt_alphas_cumprod, sqrt_one_minus_alphas_cumprod)"),
        ("noise", {"module.alphas_cumprod": torch.tensor(1.0)}, "alphas_cumprod: (), not (4,)"),
        ("noise", {"module.sqrt_alphas_cumprod": None}, "keys 1 missing (sqrt_alphas_cumprod)"),
        ("noise", {"module.alphas_cumprod": torch.linspace(1, 0, T)}, "alphas_cumprod differ"),
        ("noise", kernels(), "keys 4 extra (gaussian_kernels.0.weight, "),
        ("animorphosis", colours(), "keys 2 extra (alphas, one_minus_alphas)"),
        (
            "inpainting_generation",
            {"module.alphas": torch.ones(T, 1, 128, 128)},
            "(4, 1, 128, 128), not (4, 1, 16, 16)",
        ),
        (
            "inpainting_generation",
            {"module.alphas": colours()["module.one_minus_alphas"]},
            "schedule than .*: alphas differ",
        ),
    ],
)
def test_another_schedule_is_refused(experiment, weights, tmp_path, name, change, told) -> None:
    """Of a file that is right but for one change (None: without that key)."""
    degradation, entries = OWN[name]
    changed = {key: value for key, value in (entries() | change).items() if value is not None}
    source = released_file(tmp_path / "model.pt", weights, beside=changed)
    assert re.search(
        re.escape(told).replace(r"\.\*", ".*"), refused(source, under(experiment, degradation), tmp_path / "o")
    )


@pytest.mark.parametrize("name", list(OWN))
def test_schedules_of_other_degradations_are_refused(experiment, weights, tmp_path, name) -> None:
    """Inpainting has none in its checkpoints."""
    source = released_file(tmp_path / "model.pt", weights, beside=OWN[name][1]())
    told = refused(source, experiment, tmp_path / "out.safetensors")
    assert "does not fit the schedule of inpainting with T = 4: keys " in told
    assert " extra (" in told


def test_schedules_are_those_of_the_released_code() -> None:
    """Against numbers that it computed itself, or that follow from its definitions."""
    made = schedule({"name": "blur", "T": 50, "kernel": 11, "std": 0.35, "schedule": "linear", "rate": 0.01}, 32)
    assert [list(value.shape) for value in made.values()] == [[3, 1, 11, 11]] * 50
    for i, centre, end in ((0, 0.967343, 0.0), (49, 0.474930, 9.61e-9)):  # of one axis: protocol 8
        kernel = made[f"gaussian_kernels.{i}.weight"]
        np.testing.assert_allclose(kernel[:, 0, 5, 5], centre**2, atol=2e-6)
        np.testing.assert_allclose(kernel[:, 0, 0, 5], centre * end, rtol=1e-3, atol=1e-12)
    golden = np.load(GOLDEN / "sched_cosine.npz")
    for steps in (10, 200, 1000):
        for key, value in schedule({"name": "noise", "T": steps}, 32).items():
            np.testing.assert_allclose(value, golden[f"{key}_T{steps}"], atol=4e-6)
    made = schedule({"name": "inpainting_generation", "T": 750, "std": 0.05, "rate": 0.05}, 128)
    golden = np.load(GOLDEN / "deg_colourfade_reverse_T750_init1.npz")
    for weight in (made["alphas"][:, 0], 1 - made["one_minus_alphas"][:, 0]):
        np.testing.assert_allclose(weight.mean(dim=(1, 2)), golden["alpha_mean_per_step"], atol=2e-6)
        np.testing.assert_allclose(weight[:, 0, 0], golden["alpha_corner_per_step"], atol=2e-6)
        np.testing.assert_allclose(weight[:, 63, 63], golden["alpha_centre_per_step"], atol=2e-6)


@pytest.mark.parametrize("dtype", [torch.int64, torch.complex64, torch.bool])
def test_weights_that_are_not_floating_point_are_refused(experiment, weights, tmp_path, dtype) -> None:
    weights["final_conv.1.bias"] = torch.ones(1, dtype=dtype)
    told = refused(released_file(tmp_path / "model.pt", weights), experiment, tmp_path / "out.safetensors")
    assert "not floating point in final_conv.1.bias" in told


def test_a_weight_under_two_prefixes_is_refused(experiment, weights, tmp_path) -> None:
    """Rather than one of the two dropped."""
    again = {"denoise_fn.final_conv.1.bias": weights["final_conv.1.bias"] + 1}
    told = refused(
        released_file(tmp_path / "model.pt", weights, beside=again), experiment, tmp_path / "out.safetensors"
    )
    assert "holds final_conv.1.bias twice, under two prefixes; the second is denoise_fn.final_conv.1.bias" in told


def test_keys_that_do_not_fit_are_counted_and_named(experiment, weights, tmp_path) -> None:
    """Missing, extra and misshapen keys in one line: how many, and the first of each."""
    wrong = dict(weights)
    gone = [key for key in wrong if key.startswith("mid_block1.")]
    for key in gone:
        del wrong[key]
    wrong |= {f"extra.{k}": torch.ones(1) for k in range(3)}
    wrong["final_conv.1.weight"] = torch.ones(3, 8, 1, 1)
    told = refused(released_file(tmp_path / "model.pt", wrong), experiment, tmp_path / "out.safetensors")
    assert f"{len(gone)} missing (" in told
    assert gone[0] in told
    assert "…" in told
    assert "3 extra (extra.0, extra.1, extra.2)" in told
    assert "1 of a wrong shape (final_conv.1.weight: (3, 8, 1, 1), not (1, 8, 1, 1))" in told


@pytest.mark.parametrize("key", ["module.denoise_fn_.x", "module.gaussian_kernels.1.bias", "alphas_of_mine", "betas"])
def test_an_entry_of_unknown_meaning_is_extra(experiment, weights, tmp_path, key) -> None:
    """What is neither network nor kernel nor schedule is named rather than dropped."""
    source = released_file(tmp_path / "model.pt", weights, beside={key: torch.ones(T)})
    assert f"1 extra ({key})" in refused(source, experiment, tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    "network",
    [
        Network(name="unet_ddpm", dim=8, dim_mults=[1, 2]),
        Network(dim=8, dim_mults=[1, 2], time=False),
        Network(dim=8, dim_mults=[1, 2, 4]),
        Network(dim=16, dim_mults=[1, 2]),
    ],
)
def test_another_architecture_is_refused(experiment, tmp_path, network) -> None:
    source = released_file(tmp_path / "model.pt", fresh(network, 0))
    told = refused(source, experiment, tmp_path / "out.safetensors")
    assert "does not fit the unet_convnext of 1 channels, dim 8: keys " in told


def test_a_truncated_file_is_refused(experiment, weights, tmp_path) -> None:
    """Cut anywhere, also within the last bytes."""
    whole = released_file(tmp_path / "model.pt", weights).read_bytes()
    for cut in [0, 1, 4, 100, *np.linspace(200, len(whole) - 23, 12).astype(int).tolist(), len(whole) - 1]:
        (tmp_path / "model.pt").write_bytes(whole[:cut])
        refused(tmp_path / "model.pt", experiment, tmp_path / "out.safetensors")


def test_a_flipped_bit_is_noticed(experiment, weights, tmp_path) -> None:
    """In each tensor one bit, which the format itself would not notice; and anywhere else, where it matters."""
    path, out = released_file(tmp_path / "model.pt", weights), tmp_path / "out.safetensors"
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    drawn = [value.numpy().tobytes() for value in weights.values() if len(value.unique()) > 4]
    inside = [whole.index(content) + random.integers(len(content)) for content in drawn]
    assert len(inside) > 20
    for place in (*inside, *random.integers(len(whole), size=40)):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        try:
            released.import_model(path, out, experiment)
        except ColdbenchError:
            assert not out.exists()
        else:  # padding between two entries, or a field of the format that means nothing here
            assert place not in inside
            assert equal(safetensors.torch.load_file(out), weights)
            out.unlink()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04" + bytes(40), bytes(1000)])
def test_what_is_no_checkpoint_is_refused(experiment, tmp_path, content) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    assert "cannot be read as tensors" in refused(tmp_path / "model.pt", experiment, tmp_path / "out.safetensors")


def test_a_missing_file_and_a_folder_are_told(experiment, tmp_path) -> None:
    assert "does not exist" in refused(tmp_path / "model.pt", experiment, tmp_path / "out.safetensors")
    (tmp_path / "model.pt").mkdir()
    assert "does not exist" in refused(tmp_path / "model.pt", experiment, tmp_path / "out.safetensors")


def test_a_zip_of_something_else_is_refused(experiment, tmp_path) -> None:
    with zipfile.ZipFile(tmp_path / "model.pt", "w") as archive:
        archive.writestr("hello.txt", "hello")
    assert "cannot be read as tensors" in refused(tmp_path / "model.pt", experiment, tmp_path / "out.safetensors")


def test_files_from_before_torch_1_6_are_read(experiment, weights, tmp_path) -> None:
    """The older format, a bare pickle stream, holds the same tensors; cut short it is refused."""
    ema = {f"module.denoise_fn.{key}": value for key, value in weights.items()}
    path = tmp_path / "model.pt"
    torch.save({"step": 1, "model": ema, "ema": ema}, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert equal(released.load(path, experiment), weights)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refused(path, experiment, tmp_path / "out.safetensors")


@pytest.mark.parametrize(
    ("state", "told"),
    [
        ({"step": 1, "model": {}}, "has no entry 'ema' with the averaged weights (keys step, model)"),
        ({}, "has no entry 'ema'"),
        ([torch.ones(1)], "has no entry 'ema' with the averaged weights (list)"),
        (torch.ones(1), "has no entry 'ema' with the averaged weights (Tensor)"),
        ({"ema": torch.ones(1)}, "has no entry 'ema' with the averaged weights (keys ema)"),
        ({"ema": None}, "has no entry 'ema'"),
        ({"ema": {}}, "missing"),
        ({"ema": {"module.denoise_fn.a": 3, "b": "text"}}, "module.denoise_fn.a, b in 'ema' is no tensor"),
        ({1: 2, "ema": {7: [1.0]}}, "7 in 'ema' is no tensor"),
        ({"ema": {7: torch.ones(1)}}, "7 in 'ema' is no tensor, named and dense"),
        ({"ema": {"a": torch.ones(1).to_sparse()}}, "a in 'ema' is no tensor, named and dense"),
    ],
)
def test_other_contents_are_refused(experiment, tmp_path, state, told) -> None:
    torch.save(state, tmp_path / "model.pt")
    assert told in refused(tmp_path / "model.pt", experiment, tmp_path / "out.safetensors")


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("where", ["top", "entry", "ema", "key"])
def test_nothing_in_a_file_is_executed(experiment, weights, tmp_path, form, where) -> None:
    """An object that would run code is refused wherever it hides, in one line, and does not run."""
    (tmp_path / "trap").mkdir()
    (tmp_path / "in").mkdir()
    trap = Trap(tmp_path / "trap" / "sprung")
    ema = {f"module.denoise_fn.{key}": value for key, value in weights.items()}
    state: object = {
        "top": trap,
        "entry": {"step": trap, "model": ema, "ema": ema},
        "ema": {"step": 1, "ema": ema | {"module.denoise_fn.trap": trap}},
        "key": {"step": 1, "ema": {(trap,): torch.ones(1)}},
    }[where]
    path = tmp_path / "in" / "model.pt"
    if form == "pickle":
        with path.open("wb") as stream:
            pickle.dump(state, stream, protocol=2)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=form == "zip")
    told = refused(path, experiment, tmp_path / "in" / "out.safetensors")
    assert "cannot be read as tensors" in told
    assert not list((tmp_path / "trap").iterdir())
    if form != "pickle":  # the trap does work where it is trusted
        torch.load(path, weights_only=False)
        assert list((tmp_path / "trap").iterdir())


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_weights_that_are_not_finite_are_refused(experiment, weights, tmp_path, value) -> None:
    weights["final_conv.1.bias"] = torch.tensor([value], dtype=torch.float64)  # 1e300 is infinite in single precision
    told = refused(released_file(tmp_path / "model.pt", weights), experiment, tmp_path / "out.safetensors")
    assert "weights are not finite in final_conv.1.bias" in told


FAMILIES = [(name, spec) for name, kind in degradations.DEGRADATIONS.items() for spec in kind.test_params]
PREFIX_OF = {"inpainting": "module.defade_fn.", "snow": "denoise_fn.", "decolorization": "denoise_fn."}


@pytest.mark.parametrize(
    ("name", "spec"), FAMILIES, ids=[f"{name}-{place}" for place, (name, _) in enumerate(FAMILIES)]
)
@pytest.mark.parametrize(("dataset", "channels"), [("digits", 1), ("photos", 3)])
def test_export_and_import_give_the_same_bits(experiment, tmp_path, name, spec, dataset, channels) -> None:
    """import(export(x)) is x for every family, and so is the checkpoint; it has step, model and ema."""
    model, theirs = tmp_path / "model.safetensors", tmp_path / "theirs.pt"
    experiment = experiment.model_copy(update={"degradation": {"name": name, **spec}, "dataset": dataset})
    weights = models.build(experiment.network, channels, 16).state_dict()
    model_file.save_model(model, weights, experiment, 1, {"world_size": 1})
    released.export_model(model, theirs)
    state = torch.load(theirs, weights_only=True)
    assert state.keys() == {"step", "model", "ema"}
    assert state["step"] == experiment.training.max_steps
    assert equal(state["model"], state["ema"])
    prefix = PREFIX_OF.get(name, "module.denoise_fn.")
    ema = dict(state["ema"])
    assert equal({key: ema.pop(prefix + key) for key in weights}, weights)
    steps, shapes = spec["T"], {key: list(value.shape) for key, value in ema.items()}
    if name == "blur":
        sides = [spec["kernel"] + i * spec.get("kernel_rate", 0) for i in range(steps)]
        assert shapes == {f"module.gaussian_kernels.{i}.weight": [channels, 1, k, k] for i, k in enumerate(sides)}
    elif name in ("noise", "animorphosis"):
        assert shapes == {key: [steps] for key in mixed()}
    elif name == "inpainting_generation":
        assert shapes == {key: [steps, 1, 16, 16] for key in colours()}
    else:
        assert not shapes
    released.import_model(theirs, tmp_path / "back.safetensors", experiment)
    assert equal(safetensors.torch.load_file(tmp_path / "back.safetensors"), weights)
    released.export_model(tmp_path / "back.safetensors", tmp_path / "again.pt")
    assert equal(torch.load(tmp_path / "again.pt", weights_only=True)["ema"], state["ema"])


@pytest.mark.parametrize("name", list(OWN))
def test_what_is_exported_beside_the_network_follows_the_formula(experiment, weights, tmp_path, name) -> None:
    degradation, entries = OWN[name]
    model, theirs = tmp_path / "model.safetensors", tmp_path / "theirs.pt"
    model_file.save_model(model, weights, under(experiment, degradation), 1)
    released.export_model(model, theirs)
    ema = torch.load(theirs, weights_only=True)["ema"]
    assert {key for key in ema if "denoise_fn" not in key} == set(entries())
    for key, value in entries().items():
        torch.testing.assert_close(ema[key], value, rtol=1e-4, atol=1e-6)


def test_plain_export_is_the_model(experiment, weights, tmp_path) -> None:
    model = tmp_path / "model.safetensors"
    model_file.save_model(model, weights, experiment, 1, {"world_size": 1})
    released.export_model(model, tmp_path / "plain.safetensors")
    assert equal(safetensors.torch.load_file(tmp_path / "plain.safetensors"), weights)
    assert (tmp_path / "plain.safetensors").read_bytes() == model.read_bytes()


def test_every_family_has_a_prefix() -> None:
    assert released.PREFIXES.keys() == degradations.DEGRADATIONS.keys()


@pytest.mark.parametrize("about", ["{", "3", "{}"])
def test_a_damaged_experiment_is_not_exported(weights, tmp_path, about) -> None:
    model = tmp_path / "model.safetensors"
    model_file.save_weights(model, weights, {"experiment": about})
    with pytest.raises(ColdbenchError, match=r"the experiment in .*model\.safetensors"):
        released.export_model(model, tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


@pytest.mark.parametrize("name", ["model.bin", "model", "model.PT", "model.safetensors.gz"])
def test_other_suffixes_are_refused(experiment, weights, tmp_path, name) -> None:
    model = tmp_path / "model.safetensors"
    model_file.save_model(model, weights, experiment, 1)
    with pytest.raises(ColdbenchError, match=r"its suffix must be \.safetensors or \.pt$"):
        released.export_model(model, tmp_path / "out" / name)
    assert not (tmp_path / "out").exists()


def test_only_our_models_are_exported(weights, tmp_path) -> None:
    safetensors.torch.save_file(weights, tmp_path / "strange.safetensors")
    for name, told in (("strange.safetensors", "holds no experiment"), ("none.safetensors", "cannot read model")):
        with pytest.raises(ColdbenchError, match=told):
            released.export_model(tmp_path / name, tmp_path / "out.pt")
    assert not (tmp_path / "out.pt").exists()


def test_an_unwritable_place_is_told(experiment, weights, tmp_path) -> None:
    """Where a file stands in the way of the folder."""
    model = tmp_path / "model.safetensors"
    model_file.save_model(model, weights, experiment, 1)
    (tmp_path / "file").write_text("")
    for name in ("file/out.pt", "file/out.safetensors"):
        with pytest.raises(ColdbenchError, match="cannot write"):
            released.export_model(model, tmp_path / name)


def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[object, str]:
    """The exit status of `coldbench …`, run in this process, and what it wrote to stderr."""
    monkeypatch.setattr(sys, "argv", ["coldbench", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    told = capsys.readouterr().err
    if isinstance(end.value.code, str):  # Python writes it to stderr and ends with 1
        return 1, told + end.value.code
    return end.value.code or 0, told


def test_the_command_line(experiment, weights, tmp_path, monkeypatch, capsys) -> None:
    """Status 0 and the files; or status 1, one line, and no file."""
    source = released_file(tmp_path / "theirs.pt", weights)
    science, model = experiment.model_dump_json(), tmp_path / "model.safetensors"
    assert command(monkeypatch, capsys, "import", source, "--experiment", science, "--out", model)[0] == 0
    assert equal(safetensors.torch.load_file(model), weights)
    (tmp_path / "experiment.json").write_text(science)
    again = tmp_path / "again.safetensors"
    words = ("import", source, "--experiment", tmp_path / "experiment.json", "--out", again)
    assert command(monkeypatch, capsys, *words)[0] == 0
    assert again.read_bytes() == model.read_bytes()
    assert command(monkeypatch, capsys, "export", model, "--out", tmp_path / "out.pt")[0] == 0
    exported = torch.load(tmp_path / "out.pt", weights_only=True)["ema"]
    assert equal(exported, {f"module.defade_fn.{key}": value for key, value in weights.items()})
    source.write_bytes(source.read_bytes()[:5000])
    none = tmp_path / "none.safetensors"
    status, told = command(monkeypatch, capsys, "import", source, "--experiment", science, "--out", none)
    assert (status, told.count("coldbench: error: ")) == (1, 1)
    assert "\n" not in told.strip()
    status, told = command(monkeypatch, capsys, "export", model, "--out", tmp_path / "out.zip")
    assert (status, told.count("coldbench: error: cannot export")) == (1, 1)
    assert not none.exists()
    assert not (tmp_path / "out.zip").exists()


def test_the_command_itself_ends_with_one_line(experiment, tmp_path) -> None:
    """The installed command in a process of its own: status 1 and no traceback."""
    (tmp_path / "model.pt").write_bytes(b"no checkpoint")
    words = ["import", "model.pt", "--experiment", experiment.model_dump_json(), "--out", "out.safetensors"]
    run = [sys.executable, "-c", "from coldbench.cli import main; main()", *words]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert done.stderr.startswith("coldbench: error: checkpoint model.pt cannot be read as tensors: ")
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


def test_an_imported_model_is_sampled_as_any_other(experiment, weights, digits, tmp_path) -> None:
    """It restores as the trained model of the same weights does, and its manifest says where it came from."""
    released.import_model(released_file(tmp_path / "theirs.pt", weights), tmp_path / "imported.safetensors", experiment)
    model_file.save_model(tmp_path / "trained.safetensors", weights, experiment, 1, {"world_size": 1})
    found = {}
    for name in ("imported", "trained"):
        out = tmp_path / name / "samples.json"
        settings = Sampling(images=5, batch_size=5, shard_size=5)
        paths = SamplingPaths(tmp_path / f"{name}.safetensors", digits, tmp_path / name / "shards")
        sample_run(paths, settings, CPU, out)
        found[name] = manifest.read_images(out, "test", "tacos")
        origin = json.loads(out.read_text())["provenance"]
        assert origin == ({"imported": "theirs.pt"} if name == "imported" else {"world_size": 1})
    assert found["imported"].shape == (5, *data.load(digits, "test").shape[1:])
    np.testing.assert_array_equal(found["imported"], found["trained"])


def test_whether_a_model_was_imported_is_read_off_its_head(experiment, weights, tmp_path) -> None:
    """True for an imported model, false for a trained, absent, foreign or damaged one; the weights are not read."""
    path = tmp_path / "model.safetensors"
    assert not grid.was_imported(path)
    model_file.save_model(path, weights, experiment, 1, {"world_size": 1})
    assert not grid.was_imported(path)
    model_file.save_model(path, weights, experiment, 1)
    assert not grid.was_imported(path)
    released.import_model(released_file(tmp_path / "theirs.pt", weights), path, experiment)
    assert grid.was_imported(path)
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    path.write_bytes(whole[:head])
    assert grid.was_imported(path)
    for content in (whole[: head - 9], whole[:7], b"", b"\xff" * 40, bytes(100), b"PK\x03\x04" + whole):
        path.write_bytes(content)
        assert not grid.was_imported(path)
    for about in ("{", "[]", "3", '{"provenance": null}', '{"provenance": 3}', '{"provenance": []}', "{}"):
        model_file.save_weights(path, weights, {"experiment": about})
        assert not grid.was_imported(path), about
    safetensors.torch.save_file(weights, path)
    assert not grid.was_imported(path)
    path.unlink()
    path.mkdir()
    assert not grid.was_imported(path)
