"""Checkpoints of the released code: import, refusals, export, and that nothing in a file is executed."""

from __future__ import annotations

import json
import pickle
import resource
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from cases import GOLDEN, run_file, sampled
from torch import Tensor

from coldbench import cli, data, degradations, models
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment, Network
from coldbench.models import model_file, released
from coldbench.planning import products
from coldbench.sampling import manifest

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
    entries = {}
    for i in range(T):
        axis = torch.exp(-((torch.arange(3 + 2 * i) - 1 - i) ** 2) / (2 * (1 + i / 2) ** 2))
        axis /= axis.sum()
        entries[f"module.gaussian_kernels.{i}.weight"] = (axis[:, None] * axis).repeat(channels, 1, 1, 1)
    return entries


def mixed() -> Weights:
    """ᾱ of NOISE, by the formula of protocol 2.7."""
    f = torch.cos((torch.arange(T + 1) / T + 0.008) / 1.008 * np.pi / 2) ** 2
    alphas = torch.cumprod(1 - torch.clamp(1 - f[1:] / f[:-1], max=0.999), dim=0)
    return {
        "module.alphas_cumprod": alphas,
        "module.sqrt_alphas_cumprod": alphas**0.5,
        "module.sqrt_one_minus_alphas_cumprod": (1 - alphas) ** 0.5,
    }


def colours() -> Weights:
    """The weights of COLOUR, by the formula of protocol 2.3: the centre of an image of 16 px is 7."""
    axis = (torch.arange(16) - 7) ** 2
    masks = [1 - torch.exp(-(axis[:, None] + axis) / (2 * (0.5 + 0.6 * i) ** 2)) for i in range(T - 1)]
    one = torch.ones(16, 16)
    colour = torch.stack([masks[0] * masks[1] * masks[2], masks[0] * masks[1], masks[0], one])[:, None]
    return {"module.alphas": 1 - colour, "module.one_minus_alphas": colour}


SCHEDULES: dict[str, tuple[dict[str, object], Callable[[], Weights]]] = {
    "blur": (BLUR, kernels),
    "noise": (NOISE, mixed),
    "animorphosis": (ANIMALS, mixed),
    "inpainting_generation": (COLOUR, colours),
}
BESIDE: dict[str, tuple[dict[str, object] | None, Callable[[], Weights]]] = {
    "nothing": (None, dict),
    **SCHEDULES,
    "blur on one GPU": (BLUR, lambda: {key.removeprefix("module."): value for key, value in kernels().items()}),
    "blur without its schedule": (BLUR, dict),
    "noise in half precision": (NOISE, lambda: {key: value.half() for key, value in mixed().items()}),
}


def initial_weights(network: Network, seed: int = 0, channels: int = 1) -> Weights:
    torch.manual_seed(seed)
    return models.build(network, channels, 16).state_dict()


def under(experiment: Experiment, degradation: dict[str, object] | None) -> Experiment:
    """The experiment with another degradation, unless that is None."""
    return experiment.model_copy(update={"degradation": degradation}) if degradation else experiment


@pytest.fixture
def weights(experiment: Experiment) -> Weights:
    return initial_weights(experiment.network)


@pytest.fixture
def model(experiment: Experiment, weights: Weights, tmp_path: Path) -> Path:
    """A model as a training writes it."""
    model_file.save_model(tmp_path / "model.safetensors", weights, experiment, 1, {"world_size": 1})
    return tmp_path / "model.safetensors"


def released_file(
    path: Path, weights: Weights, beside: Weights | None = None, prefix: str = "module.denoise_fn."
) -> Path:
    """A checkpoint as the released trainers write it; `model` has other weights than `ema`."""
    ema = OrderedDict({prefix + key: value for key, value in weights.items()} | (beside or {}))
    torch.save({"step": 700_000, "model": OrderedDict((k, v + 1) for k, v in ema.items()), "ema": ema}, path)
    return path


def equal(a: Weights, b: Weights) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def refusal(source: Path, experiment: Experiment) -> str:
    """The one line that refuses the import of `source`; nothing is written."""
    before = set(source.parent.iterdir())
    with pytest.raises(ColdbenchError) as error:
        released.import_model(source, source.parent / "out.safetensors", experiment)
    line = str(error.value)
    assert "\n" not in line
    assert str(source) in line
    assert len(line) < 1000
    assert set(source.parent.iterdir()) == before
    return line


@pytest.mark.parametrize("beside", list(BESIDE))
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_import_returns_the_averaged_weights_of_every_layout(experiment, weights, tmp_path, layout, beside) -> None:
    degradation, entries = BESIDE[beside]
    experiment = under(experiment, degradation)
    source = released_file(tmp_path / "model.pt", weights, entries(), LAYOUTS[layout])
    out = tmp_path / "model.safetensors"
    released.import_model(source, out, experiment)
    assert equal(safetensors.torch.load_file(out), weights)
    loaded = model_file.load_model(out, CPU)
    assert (loaded.experiment, loaded.channels) == (experiment, 1)
    assert loaded.provenance == {"imported": "model.pt"}


def test_import_covers_the_ddpm_network(experiment, tmp_path) -> None:
    network = Network(name="unet_ddpm", dim=8, dim_mults=[1, 2], dropout=0.1, attention=8)
    source = released_file(tmp_path / "model.pt", initial_weights(network, 1))
    imported = released.load(source, experiment.model_copy(update={"network": network}))
    assert equal(imported, initial_weights(network, 1))


def test_half_and_double_precision_become_float32(experiment, weights, tmp_path) -> None:
    source = released_file(tmp_path / "model.pt", {key: value.double() for key, value in weights.items()})
    assert equal(released.load(source, experiment), weights)
    source = released_file(tmp_path / "model.pt", {key: value.half() for key, value in weights.items()})
    imported = released.load(source, experiment)
    assert {value.dtype for value in imported.values()} == {torch.float32}
    torch.testing.assert_close(imported, weights, rtol=1e-3, atol=1e-4)


def test_files_from_before_torch_1_6_are_read(experiment, weights, tmp_path) -> None:
    """The older format is a bare pickle stream."""
    ema = {f"module.denoise_fn.{key}": value for key, value in weights.items()}
    path = tmp_path / "model.pt"
    torch.save({"step": 1, "model": ema, "ema": ema}, path, _use_new_zipfile_serialization=False)
    assert not zipfile.is_zipfile(path)
    assert equal(released.load(path, experiment), weights)
    whole = path.read_bytes()
    for cut in (10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:cut])
        refusal(path, experiment)


def test_schedules_are_those_of_the_released_code() -> None:
    """Compared with numbers that it computed, or that follow from its definitions."""

    def schedule(spec: dict[str, object], size: int) -> Weights:
        return released.schedule(degradations.build(spec, size), 3)

    blur = schedule({"name": "blur", "T": 50, "kernel": 11, "std": 0.35, "schedule": "linear", "rate": 0.01}, 32)
    assert [list(value.shape) for value in blur.values()] == [[3, 1, 11, 11]] * 50
    for i, centre, end in ((0, 0.967343, 0.0), (49, 0.474930, 9.61e-9)):  # of one axis: protocol 8
        kernel = blur[f"gaussian_kernels.{i}.weight"]
        np.testing.assert_allclose(kernel[:, 0, 5, 5], centre**2, atol=2e-6)
        np.testing.assert_allclose(kernel[:, 0, 0, 5], centre * end, rtol=1e-3, atol=1e-12)
    golden = np.load(GOLDEN / "sched_cosine.npz")
    for steps in (10, 200, 1000):
        for key, value in schedule({"name": "noise", "T": steps}, 32).items():
            np.testing.assert_allclose(value, golden[f"{key}_T{steps}"], atol=4e-6)
    fade = schedule({"name": "inpainting_generation", "T": 750, "std": 0.05, "rate": 0.05}, 128)
    golden = np.load(GOLDEN / "deg_colourfade_reverse_T750_init1.npz")
    for weight in (fade["alphas"][:, 0], 1 - fade["one_minus_alphas"][:, 0]):
        np.testing.assert_allclose(weight.mean(dim=(1, 2)), golden["alpha_mean_per_step"], atol=2e-6)
        np.testing.assert_allclose(weight[:, 0, 0], golden["alpha_corner_per_step"], atol=2e-6)
        np.testing.assert_allclose(weight[:, 63, 63], golden["alpha_centre_per_step"], atol=2e-6)


# Refusals

NET = "module.denoise_fn."
BIAS, HEAD = f"{NET}final_conv.1.bias", f"{NET}final_conv.1.weight"
KERNEL, LAST = "module.gaussian_kernels.0.weight", f"module.gaussian_kernels.{T - 1}.weight"
ONES = torch.ones(1, 1, 3, 3)
# Each row: the schedule of the file, a change of its entries (None: removed), words of the refusal.
REFUSED: list[tuple[str, dict[str, Tensor | None], str]] = [
    # another T
    ("blur", {f"module.gaussian_kernels.{i}.weight": ONES for i in range(T, 12)}, "T = 12, but tiny-test-s3 has T"),
    ("blur", {LAST: None}, "with T = 3, but tiny-test-s3 has T = 4"),
    ("noise", {"module.alphas_cumprod": torch.ones(200)}, "T = 200"),
    ("animorphosis", {"module.sqrt_one_minus_alphas_cumprod": torch.ones(T - 1)}, "T = 3"),
    ("inpainting_generation", {"module.alphas": torch.ones(750, 1, 2, 2)}, "T = 750"),
    ("inpainting_generation", {"module.one_minus_alphas": torch.ones(5, 1, 2, 2)}, "T = 5"),
    # another schedule
    ("blur", {KERNEL: None}, "schedule of blur with T = 4: keys 1 missing (gaussian_kernels.0.weight)"),
    ("blur", {f"module.gaussian_kernels.{i}.weight": None for i in range(T - 1)}, "keys 3 missing (gaussian_ker"),
    ("blur", {LAST: torch.ones(1, 1, 15, 15)}, "gaussian_kernels.3.weight: (1, 1, 15, 15), not (1, 1, 9, 9)"),
    ("blur", {KERNEL: torch.ones(3, 3, 3)}, "gaussian_kernels.0.weight: (3, 3, 3), not (1, 1, 3, 3)"),
    ("blur", {KERNEL: kernels(3)[KERNEL]}, "gaussian_kernels.0.weight: (3, 1, 3, 3), not (1, 1, 3, 3)"),
    ("blur", {KERNEL: ONES / 9}, "another schedule than tiny-test-s3: gaussian_kernels.0.weight differ"),
    ("blur", {KERNEL: ONES * float("nan")}, "not finite in gaussian_kernels.0.weight"),
    ("blur", {KERNEL: ONES.long()}, "not floating point in gaussian_kernels.0.weight"),
    ("blur", {KERNEL: kernels()[KERNEL] + 0j}, "not floating point in gaussian_kernels.0.weight"),
    ("blur", {KERNEL.removeprefix("module."): ONES}, "gaussian_kernels.0.weight twice"),
    ("blur", {"module.gaussian_kernels.00.weight": ONES}, "1 extra (gaussian_kernels.00.weight)"),
    ("blur", mixed(), "keys 3 extra (alphas_cumprod, sqrt_alphas_cumprod, sqrt_one_minus_alphas_cumprod)"),
    ("noise", {"module.alphas_cumprod": torch.tensor(1.0)}, "alphas_cumprod: (), not (4,)"),
    ("noise", {"module.sqrt_alphas_cumprod": None}, "keys 1 missing (sqrt_alphas_cumprod)"),
    ("noise", {"module.alphas_cumprod": torch.linspace(1, 0, T)}, "alphas_cumprod differ"),
    ("noise", kernels(), "keys 4 extra (gaussian_kernels.0.weight, "),
    ("animorphosis", colours(), "keys 2 extra (alphas, one_minus_alphas)"),
    ("inpainting_generation", {"module.alphas": torch.ones(T, 1, 128, 128)}, "(4, 1, 128, 128), not (4, 1, 16, 16)"),
    ("inpainting_generation", {"module.alphas": colours()["module.one_minus_alphas"]}, "tiny-test-s3: alphas differ"),
    # inpainting, the experiment of the tests, has no schedule
    *(("nothing", entries(), "schedule of inpainting with T = 4: keys ") for _, entries in SCHEDULES.values()),
    # other weights
    *(("nothing", {BIAS: torch.ones(1, dtype=dtype)}, "not floating point in final_conv.1.bias")
      for dtype in (torch.int64, torch.complex64, torch.bool)),
    *(("nothing", {BIAS: torch.tensor([value], dtype=torch.float64)}, "weights are not finite in final_conv.1.bias")
      for value in (float("nan"), float("inf"), 1e300)),  # 1e300 is infinite in float32
    ("nothing", {BIAS.removeprefix("module."): torch.ones(1)}, f"the second is {BIAS.removeprefix('module.')}"),
    ("nothing", {HEAD: torch.ones(3, 8, 1, 1)}, "1 of a wrong shape (final_conv.1.weight: (3, 8, 1, 1), not"),
    ("nothing", {f"{NET}extra.{k}": torch.ones(1) for k in range(5)}, "5 extra (extra.0, extra.1, extra.2, extra.3, …"),
    *(("nothing", {key: torch.ones(T)}, f"1 extra ({key})")
      for key in ("module.denoise_fn_.x", "module.gaussian_kernels.1.bias", "alphas_of_mine", "betas")),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "change", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_an_entry_that_does_not_fit_is_refused(experiment, weights, tmp_path, name, change, words) -> None:
    """In a file that is right but for one change."""
    degradation, schedule = BESIDE[name]
    entries = {f"{NET}{key}": value for key, value in weights.items()} | schedule() | change
    entries = {key: value for key, value in entries.items() if value is not None}
    source = released_file(tmp_path / "model.pt", entries, prefix="")
    assert words in refusal(source, under(experiment, degradation))


def test_missing_extra_and_misshapen_keys_stand_in_one_line(experiment, weights, tmp_path) -> None:
    missing = [key for key in weights if key.startswith("mid_block1.")]
    wrong = {key: value for key, value in weights.items() if key not in missing}
    wrong |= {"extra": torch.ones(1), "final_conv.1.weight": torch.ones(3, 8, 1, 1)}
    line = refusal(released_file(tmp_path / "model.pt", wrong), experiment)
    for words in (
        f"{len(missing)} missing ({missing[0]}",
        "1 extra (extra)",
        "1 of a wrong shape (final_conv.1.weight",
    ):
        assert words in line


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
    source = released_file(tmp_path / "model.pt", initial_weights(network))
    assert "does not fit the unet_convnext of 1 channels, dim 8: keys " in refusal(source, experiment)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"step": 1, "model": {}}, "has no entry 'ema' with the averaged weights (keys step, model)"),
        ([torch.ones(1)], "has no entry 'ema' with the averaged weights (list)"),
        (torch.ones(1), "has no entry 'ema' with the averaged weights (Tensor)"),
        ({"ema": torch.ones(1)}, "has no entry 'ema' with the averaged weights (keys ema)"),
        ({"ema": None}, "has no entry 'ema'"),
        ({"ema": {}}, "missing"),
        ({"ema": {"module.denoise_fn.a": 3, "b": "text"}}, "module.denoise_fn.a, b in 'ema' is no tensor"),
        ({1: 2, "ema": {7: [1.0]}}, "7 in 'ema' is no tensor"),
        ({"ema": {7: torch.ones(1)}}, "7 in 'ema' is no tensor, named and dense"),
        pytest.param(
            {"ema": {"a": torch.ones(1).to_sparse()}},
            "a in 'ema' is no tensor, named and dense",
            marks=pytest.mark.filterwarnings("ignore:Validating sparse"),
        ),
        (b"", "cannot be read as tensors"),
        (b"not a checkpoint", "cannot be read as tensors"),
        (b"PK\x03\x04" + bytes(40), "cannot be read as tensors"),
        (bytes(1000), "cannot be read as tensors"),
        ("zip", "cannot be read as tensors"),
        ("folder", "does not exist"),
        (None, "does not exist"),
    ],
)
def test_a_file_without_averaged_weights_is_refused(experiment, tmp_path, content, words) -> None:
    path = tmp_path / "model.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("hello.txt", "hello")
    elif content == "folder":
        path.mkdir()
    elif content is not None:
        torch.save(content, path)
    assert words in refusal(path, experiment)


def test_a_truncated_file_is_refused(experiment, weights, tmp_path) -> None:
    path = released_file(tmp_path / "model.pt", weights)
    whole = path.read_bytes()
    for cut in [0, 1, 4, 100, *np.linspace(200, len(whole) - 23, 12).astype(int).tolist(), len(whole) - 1]:
        path.write_bytes(whole[:cut])
        refusal(path, experiment)


def test_a_flipped_bit_is_noticed(experiment, weights, tmp_path) -> None:
    """In every tensor, where torch would not notice it; and anywhere else where it matters."""
    path = released_file(tmp_path / "model.pt", weights)
    whole, random = path.read_bytes(), np.random.default_rng(0)
    contents = [value.numpy().tobytes() for value in weights.values() if len(value.unique()) > 4]
    inside = [whole.index(content) + random.integers(len(content)) for content in contents]
    assert len(inside) > 20
    for position in (*inside, *random.integers(len(whole), size=40)):
        flipped = bytearray(whole)
        flipped[position] ^= 1 << random.integers(8)
        path.write_bytes(flipped)
        try:
            imported = released.load(path, experiment)
        except ColdbenchError:
            continue
        assert position not in inside  # it was padding, or a field of the format without a meaning for torch
        assert equal(imported, weights)


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
@pytest.mark.parametrize("position", ["top", "entry", "ema", "key"])
def test_nothing_in_a_file_is_executed(experiment, weights, tmp_path, form, position) -> None:
    """An object that would run code is refused wherever it stands, and does not run."""
    (tmp_path / "in").mkdir()
    path, sprung = tmp_path / "in" / "model.pt", tmp_path / "sprung"
    trap, ema = Trap(sprung), {f"{NET}{key}": value for key, value in weights.items()}
    content: object = {
        "top": trap,
        "entry": {"step": trap, "model": ema, "ema": ema},
        "ema": {"step": 1, "ema": ema | {f"{NET}trap": trap}},
        "key": {"step": 1, "ema": {(trap,): torch.ones(1)}},
    }[position]
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    line = refusal(path, experiment)
    assert "holds other objects than tensors: " in line
    assert "weights_only" not in line
    assert not sprung.exists()
    if form != "pickle":  # the trap works where torch trusts the file
        torch.load(path, weights_only=False)
        assert sprung.exists()


HOSTILE = "\x1b[2J\n" + "x" * 1_000_000


@pytest.mark.parametrize(
    "content",
    [
        {HOSTILE: 1},
        {"ema": {HOSTILE: 3}},
        {"ema": {HOSTILE + str(number): torch.ones(1) for number in range(9)}},
        {"ema": {f"{NET}{HOSTILE}": torch.ones(1), f"module.defade_fn.{HOSTILE}": torch.ones(1)}},
        {"ema": {"a": range}},
        {"ema": {"a": torch.nn.Linear(1, 1)}},
        {"ema": {BIAS: torch.ones((1,) * 60)}},
    ],
)
def test_a_hostile_file_is_refused_in_a_short_line_without_its_control_characters(experiment, tmp_path, content):
    """Nor is torch's advice passed on to load whatever a file holds."""
    torch.save(content, tmp_path / "model.pt")
    line = refusal(tmp_path / "model.pt", experiment)
    assert len(line.replace(str(tmp_path), "")) < 900
    assert line.isprintable()
    assert "weights_only" not in line


# Export


@pytest.mark.parametrize("name", ["out.pt", "out.safetensors"])
def test_an_export_to_a_full_disk_leaves_no_file(model, tmp_path, monkeypatch, capsys, name) -> None:
    """A limit of the size of files stands for the full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (9000, limits[1]))
    try:
        status, stderr = run(monkeypatch, capsys, "export", model, "--out", tmp_path / "out" / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (status, stderr.strip().count("\n")) == (1, 0)
    assert "cannot write" in stderr
    assert not list((tmp_path / "out").iterdir())


FAMILIES = [(name, spec) for name, kind in degradations.DEGRADATIONS.items() for spec in kind.test_params]
OTHER_PREFIXES = {"inpainting": "module.defade_fn.", "snow": "denoise_fn.", "decolorization": "denoise_fn."}


@pytest.mark.parametrize(("name", "spec"), FAMILIES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(FAMILIES)])
@pytest.mark.parametrize(("dataset", "channels"), [("digits", 1), ("photos", 3)])
def test_import_of_an_export_has_the_same_bits(experiment, tmp_path, name, spec, dataset, channels) -> None:
    """For every family; and so has an export of that import."""
    model, checkpoint = tmp_path / "model.safetensors", tmp_path / "checkpoint.pt"
    experiment = experiment.model_copy(update={"degradation": {"name": name, **spec}, "dataset": dataset})
    weights = initial_weights(experiment.network, channels=channels)
    model_file.save_model(model, weights, experiment, channels)
    released.export_model(model, checkpoint)
    content = torch.load(checkpoint, weights_only=True)
    assert content.keys() == {"step", "model", "ema"}
    assert content["step"] == experiment.training.max_steps
    assert equal(content["model"], content["ema"])
    prefix, ema, steps = OTHER_PREFIXES.get(name, NET), dict(content["ema"]), spec["T"]
    assert equal({key: ema.pop(prefix + key) for key in weights}, weights)
    sides = [spec.get("kernel", 0) + i * spec.get("kernel_rate", 0) for i in range(steps)]
    expected = {
        "blur": {f"module.gaussian_kernels.{i}.weight": [channels, 1, k, k] for i, k in enumerate(sides)},
        "noise": {key: [steps] for key in mixed()},
        "animorphosis": {key: [steps] for key in mixed()},
        "inpainting_generation": {key: [steps, 1, 16, 16] for key in colours()},
    }
    assert {key: list(value.shape) for key, value in ema.items()} == expected.get(name, {})
    released.import_model(checkpoint, tmp_path / "back.safetensors", experiment)
    assert equal(safetensors.torch.load_file(tmp_path / "back.safetensors"), weights)
    released.export_model(tmp_path / "back.safetensors", tmp_path / "again.pt")
    assert equal(torch.load(tmp_path / "again.pt", weights_only=True)["ema"], content["ema"])


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_an_exported_schedule_follows_the_formula(experiment, weights, tmp_path, name) -> None:
    degradation, entries = SCHEDULES[name]
    released.save(tmp_path / "checkpoint.pt", weights, under(experiment, degradation))
    ema = torch.load(tmp_path / "checkpoint.pt", weights_only=True)["ema"]
    schedule = {key: value for key, value in ema.items() if "denoise_fn" not in key}
    torch.testing.assert_close(schedule, entries(), rtol=1e-4, atol=1e-6)


def test_an_export_to_safetensors_is_the_model_itself(model, tmp_path) -> None:
    released.export_model(model, tmp_path / "plain.safetensors")
    assert (tmp_path / "plain.safetensors").read_bytes() == model.read_bytes()


def test_every_family_has_a_prefix() -> None:
    assert released.PREFIXES.keys() == degradations.DEGRADATIONS.keys()


@pytest.mark.parametrize(
    ("metadata", "out", "words"),
    [
        ({"experiment": "{"}, "out.pt", "damaged, or no model"),
        ({"experiment": "3"}, "out.pt", "damaged, or no model"),
        ({"experiment": "{}"}, "out.pt", "states no checksum"),
        ({"other": "text"}, "out.pt", "damaged, or no model"),
        ("missing", "out.pt", "does not exist"),
        (None, "model.bin", "its suffix must be .safetensors or .pt"),
        (None, "model", "its suffix must be .safetensors or .pt"),
        (None, "model.PT", "its suffix must be .safetensors or .pt"),
        (None, "model.safetensors.gz", "its suffix must be .safetensors or .pt"),
        (None, "model.safetensors/out.pt", "cannot write"),  # a file stands where the folder should be
        (None, "model.safetensors/out.safetensors", "cannot write"),
    ],
)
def test_what_cannot_be_exported_is_refused(model, weights, tmp_path, metadata, out, words) -> None:
    if metadata == "missing":
        model.unlink()
    elif metadata:
        safetensors.torch.save_file(weights, model, metadata)
    before = set(tmp_path.iterdir())
    with pytest.raises(ColdbenchError) as error:
        released.export_model(model, tmp_path / out)
    assert words in str(error.value)
    assert set(tmp_path.iterdir()) == before


# The command line, and what other verbs make of an imported model


def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: object) -> tuple[object, str]:
    """The exit status of `coldbench …` in this process, and its stderr."""
    monkeypatch.setattr(sys, "argv", ["coldbench", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    stderr = capsys.readouterr().err
    if isinstance(end.value.code, str):  # Python writes it to stderr and ends with 1
        return 1, stderr + end.value.code
    return end.value.code or 0, stderr


def test_import_and_export_end_with_files_or_with_one_line(experiment, weights, tmp_path, monkeypatch, capsys) -> None:
    source = released_file(tmp_path / "released.pt", weights)
    description, model = run_file(tmp_path, experiment), tmp_path / "model.safetensors"
    assert run(monkeypatch, capsys, "import", source, "--run", description, "--out", model)[0] == 0
    assert equal(safetensors.torch.load_file(model), weights)
    assert run(monkeypatch, capsys, "export", model, "--out", tmp_path / "out.pt")[0] == 0
    exported = torch.load(tmp_path / "out.pt", weights_only=True)["ema"]
    assert equal(exported, {f"module.defade_fn.{key}": value for key, value in weights.items()})
    source.write_bytes(source.read_bytes()[:5000])
    before = set(tmp_path.iterdir())
    for words in (
        ("import", source, "--run", description, "--out", tmp_path / "none.safetensors"),
        ("export", model, "--out", tmp_path / "out.zip"),
    ):
        status, stderr = run(monkeypatch, capsys, *words)
        assert (status, stderr.count("coldbench: error: "), stderr.strip().count("\n")) == (1, 1, 0)
    assert set(tmp_path.iterdir()) == before


def test_the_command_in_its_own_process_ends_with_one_line(experiment, tmp_path) -> None:
    (tmp_path / "model.pt").write_bytes(b"no checkpoint")
    words = ["import", "model.pt", "--run", str(run_file(tmp_path, experiment)), "--out", "out.safetensors"]
    command = [sys.executable, "-c", "from coldbench.cli import main; main()", *words]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert done.stderr.startswith("coldbench: error: checkpoint model.pt cannot be read as tensors: ")


def test_an_imported_model_is_sampled_as_a_trained_one(experiment, weights, model, digits, tmp_path) -> None:
    """The same weights give the same samples, and the manifest names the origin of the model."""
    imported = tmp_path / "imported.safetensors"
    released.import_model(released_file(tmp_path / "released.pt", weights), imported, experiment)
    samples = []
    for path, provenance in ((imported, {"imported": "released.pt"}), (model, {"world_size": 1})):
        out = sampled(tmp_path / path.stem, path, digits, images=5, batch_size=5, shard_size=5)
        assert json.loads(out.read_text())["provenance"] == provenance
        samples.append(manifest.read_images(out, "test", "tacos"))
    assert samples[0].shape == (5, *data.load(digits, "test").shape[1:])
    np.testing.assert_array_equal(*samples)


def test_import_sets_a_trained_model_aside(experiment, weights, tmp_path) -> None:
    path, source = tmp_path / "model.safetensors", released_file(tmp_path / "released.pt", weights)
    model_file.save_model(path, weights, experiment, 1, {"world_size": 1}, {"data": "0123456789ab"})
    model_file.log_of(path).write_text("a log")
    before = path.read_bytes()
    for _ in range(2):
        released.import_model(source, path, experiment)
        (aside,) = tmp_path.glob("model.*.safetensors")
        assert aside.read_bytes() == before
        assert model_file.log_of(aside).read_text() == "a log"
        assert not model_file.log_of(path).exists()


def test_the_head_of_a_model_tells_whether_it_was_imported(experiment, weights, tmp_path) -> None:
    """False for a trained, missing, foreign or damaged model; the weights are not read."""
    path = tmp_path / "model.safetensors"
    assert not products.was_imported(path)
    for provenance in (None, {"world_size": 1}):
        model_file.save_model(path, weights, experiment, 1, provenance)
        assert not products.was_imported(path)
    released.import_model(released_file(tmp_path / "released.pt", weights), path, experiment)
    assert products.was_imported(path)
    whole = path.read_bytes()
    head = 8 + int.from_bytes(whole[:8], "little")
    for content in (
        whole[:-1],
        whole[:head],
        whole[: head - 9],
        whole[:7],
        b"",
        b"\xff" * 40,
        bytes(100),
        b"PK\x03\x04" + whole,
    ):
        path.write_bytes(content)
        assert not products.was_imported(path)
    for text in ("{", "[]", "3", '{"provenance": null}', '{"provenance": 3}', '{"provenance": []}', "{}"):
        safetensors.torch.save_file(weights, path, {"experiment": text})
        assert not products.was_imported(path), text
    safetensors.torch.save_file(weights, path)
    assert not products.was_imported(path)
    path.unlink()
    path.mkdir()
    assert not products.was_imported(path)
