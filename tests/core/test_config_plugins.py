"""What the configuration says of components: methods with parameters, names, keys, and the files of plug-ins."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from coldbench.core import plugins
from coldbench.core.config import Config
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Network
from coldbench.core.run import resolve
from coldbench.core.sampling_settings import Sampling
from coldbench.core.validation import checked, merged
from coldbench.degradations import build as build_degradation
from coldbench.planning import layers
from coldbench.planning.grid import Grid, build

TEXT = """import torch
from coldbench import Degradation, Sampler, degradation, metric, network, sampler


@sampler("push")
def push(x, x0_hat, s, r, d, *, beta: float = 0.5):
    return d(x0_hat, r)


@metric("mae")
def mae(originals, images, *, power: float = 1.0):
    return ((originals - images).abs() ** power).mean((1, 2, 3))


@degradation("dim")
class Dim(Degradation):
    def degrade(self, x0, t, drawn):
        return x0 * (1 - t / (self.T + 1)).to(x0.dtype)[:, None, None, None]


@network("tiny")
class Tiny(torch.nn.Module):
    def __init__(self, channels: int, width: int = 4):
        super().__init__()
        self.rates = torch.linspace(0, 1, width).tolist()
        self.layer = torch.nn.Conv2d(channels, channels, 1)

    def forward(self, x, time):
        return self.layer(x) * (1 + time[:, None, None, None])
"""
GRID: dict[str, Any] = {
    "budget": "b",
    "budgets": {"b": {"training": {"max_steps": 10}}},
    "grid": {
        "X": {
            "title": "x",
            "dataset": "digits",
            "size": 16,
            "protocol": "p",
            "protocols": {"p": {}},
            "degradation": {"name": "noise", "T": 4},
            "network": {"dim": 8, "dim_mults": [1, 2]},
        }
    },
}


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    """No plug-in is in use before or after a test."""
    plugins.use([])
    yield
    plugins.use([])


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "mine.py"
    path.write_text(TEXT)
    return str(path)


def grid(entry: dict[str, Any] | None = None, check_operators: bool = True, **changes: Any) -> Grid:
    return build(merged(GRID, {"grid": {"X": entry or {}}}, changes), lambda budget, run: False, check_operators)


def refusal(entry: dict[str, Any] | None = None, check_operators: bool = True, **changes: Any) -> str:
    with pytest.raises(ColdbenchError) as caught:
        grid(entry, check_operators, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_mappings_of_methods_become_labels_with_parameters() -> None:
    push = {"name": "push", "beta": 0.9}
    sets = {"a": {}, "b": {"methods": ["tacos", {"name": "push", "beta": -1}]}}
    sampling = checked(Sampling, {"methods": ["direct", push, {"name": "push"}], "sets": sets}, "sampling")
    assert sampling.methods == ["direct", "push_beta0.9", "push"]
    assert sampling.methods_of("b") == ["tacos", "push_betam1"]
    assert sampling.sampler("push_beta0.9") == push
    assert sampling.sampler("direct") == {"name": "direct"}
    assert checked(Sampling, sampling.model_dump(), "sampling") == sampling
    with pytest.raises(ColdbenchError, match="twice"):
        checked(Sampling, {"methods": [push, dict(push)]}, "sampling")


def test_run_holds_parameters_and_source_of_what_is_no_component_of_the_suite(file: str) -> None:
    sampling = {"methods": ["direct", {"name": "push", "beta": 0.9}]}
    entry = {"degradation": {"name": "dim"}, "network": {"name": "tiny", "width": "6"}, "sampling": sampling}
    run = grid(entry, plugins=[file], metrics=["mae", {"name": "mae", "power": 2}]).report_runs["X-p"]
    found = {kind: plugins.find(kind, name).source for kind, name in
             (("sampler", "push"), ("degradation", "dim"), ("network", "tiny"), ("metric", "mae"))}  # fmt: skip
    assert run.plugins == [file]
    assert run.sampling.samplers == {"push_beta0.9": {"name": "push", "beta": 0.9, "source": found["sampler"]}}
    assert run.experiment.degradation == {"name": "dim", "T": 4, "source": found["degradation"]}
    assert (run.experiment.network.source, run.experiment.network.parameters) == (found["network"], {"width": 6})
    assert run.metrics == [
        {"name": "mae", "source": found["metric"]},
        {"name": "mae", "power": 2, "source": found["metric"]},
    ]


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"sampling": {"methods": ["direkt"]}}, ("sampling.methods", "'direkt'", "'direct'")),
        ({"sampling": {"methods": ["puhs"]}}, ("sampling.methods", "'puhs'", "'push'")),
        ({"sampling": {"methods": [{"name": "taco"}]}}, ("sampling.methods", "'taco'", "'tacos'")),
        ({"degradation": {"name": "nois"}}, ("grid.X", "'nois'", "'noise'")),
        ({"network": {"name": "tinny"}}, ("grid.X", "'tinny'", "'tiny'")),
    ],
)
def test_unknown_name_is_refused_with_the_nearest_before_torch_is_needed(entry, words, file: str) -> None:
    message = refusal(entry, check_operators=False, plugins=[file])
    assert not [word for word in words if word not in message], message


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"sampling": {"methods": [{"name": "push", "bete": 1}]}}, ("'bete'", "'beta'")),
        ({"sampling": {"methods": [{"name": "push", "beta": "much"}]}}, ("beta", "number", "'much'")),
        ({"sampling": {"methods": [{"name": "tacos", "beta": 1}]}}, ("'beta'", "tacos")),
        ({"network": {"name": "tiny", "widht": 1}}, ("'widht'", "'width'")),
        ({"degradation": {"name": "dim", "TT": 1}}, ("'TT'", "'T'")),
        ({"network": {"name": "tiny", "width": "wide"}}, ("width", "'wide'")),
    ],
)
def test_wrong_parameter_is_refused_before_a_job_is_planned(entry, words, file: str) -> None:
    message = refusal(entry, plugins=[file])
    assert not [word for word in words if word not in message], message


def test_wrong_metrics_are_refused_before_a_job_is_planned(file: str) -> None:
    assert "'mae'" in refusal(plugins=[file], metrics=["mea"])
    assert "'power'" in refusal(plugins=[file], metrics=[{"name": "mae", "powre": 2}])


def test_other_keys_of_a_network_need_a_plugin(file: str) -> None:
    with pytest.raises(ColdbenchError, match=r"'widht'.*valid: .*dim"):
        checked(Network, {"widht": 8}, "network")
    plugins.use([file])
    assert checked(Network, {"name": "tiny", "width": "8"}, "network").parameters == {"width": 8}
    with pytest.raises(ColdbenchError, match="'width'"):
        checked(Network, {"name": "unet_ddpm", "width": 8}, "network")


WRONG = {
    "degradation": ("return x0 * (1", "return x0.mean(0, True) * (1", {"degradation": {"name": "dim"}}, "independence"),
    "sampler": ("return d(x0_hat, r)", "return x.double()", {"sampling": {"methods": ["push"]}}, "torch.float64"),
    "network": (
        "return self.layer(x)",
        "return self.layer(x)[..., 1:]",
        {"network": {"name": "tiny"}},
        "network tiny breaks the law",  # a long path shortens the rest of the line
    ),
    "metric": (".mean((1, 2, 3))", ".mean()", {}, "one value"),
}
"""By kind: what is replaced in the file by what, the entry that uses it, and the culprit."""


@pytest.mark.parametrize("kind", WRONG)
def test_plugin_that_breaks_a_law_is_refused_before_a_job_is_planned(kind: str, file: str) -> None:
    right, wrong, entry, culprit = WRONG[kind]
    assert right in TEXT
    changes = {"plugins": [file], "metrics": ["mae"] if kind == "metric" else []}
    grid(entry, **changes)
    Path(file).write_text(TEXT.replace(right, wrong))
    message = refusal(entry, **changes)
    assert f"{file}:" in message
    assert culprit in message


def test_plugins_are_relative_to_the_file_that_names_them(file: str, tmp_path: Path, monkeypatch) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    first, second = tmp_path / "first.yaml", folder / "second.yaml"
    first.write_text(yaml.safe_dump({**GRID, "plugins": "mine.py"}))
    second.write_text(yaml.safe_dump({"plugins": ["../mine.py", "b.py"]}))
    monkeypatch.chdir(folder)
    read = layers.load([str(first), str(second)])
    assert read[0].values["plugins"] == [str(tmp_path / "mine.py")]
    assert [Path(each).resolve() for each in read[1].values["plugins"]] == [tmp_path / "mine.py", folder / "b.py"]
    assert layers.load(["plugins=mine.py"])[0].values["plugins"] == ["mine.py"]


def test_resolved_configuration_needs_no_plugin_for_the_suites_own() -> None:
    config = checked(Config, GRID, "config")
    run = resolve(config, "X", "p", "b")
    assert (run.plugins, run.metrics, run.sampling.samplers) == ([], [], {})


MASK = {"name": "inpainting", "T": 4, "std": 1.0, "rate": 0.1}
ANYWHERE, CENTRE = {"centre_low": 0, "centre_high": 15}, {"centre_low": 7, "centre_high": 7}
BLUR = {"name": "blur", "T": 4, "kernel": 5, "std": 1.0, "schedule": "constant"}


@pytest.mark.parametrize(
    ("degradation", "sampling", "methods"),
    [
        ({**MASK, **ANYWHERE}, {}, ["naive", "tacos"]),
        ({**MASK, **ANYWHERE}, {"sets": {"test": {"methods": ["direct", "tacos"]}}}, ["tacos"]),
        ({**MASK, **ANYWHERE}, {"sets": {"test": {"methods": ["direct"]}}}, None),
        ({**MASK, **ANYWHERE}, {"sets": {"test": {"stride": 2}}}, None),
        ({**MASK, **ANYWHERE}, {"other_draw": False}, None),
        ({**MASK, **CENTRE}, {}, None),
        (BLUR, {}, None),
    ],
)
def test_set_with_another_draw_stands_beside_the_first_if_the_degradation_draws(degradation, sampling, methods) -> None:
    entry = {**GRID["grid"]["X"], "degradation": degradation, "sampling": sampling}
    run = build({**GRID, "grid": {"X": entry}}, lambda budget, run: False).report_runs["X-p"]
    other = run.sampling.sets.get("test_redrawn")
    assert (other and other.methods) == methods
    assert other is None or other.known == "redrawn"
    built = build_degradation(degradation, 16)
    assert built.draws == ("centre_low" in degradation and degradation["centre_low"] < degradation["centre_high"])
