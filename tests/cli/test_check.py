"""`coldbench check`: the suite's own components keep all laws, and each wrong plug-in breaks the law that names it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldbench import cli
from coldbench.core import laws, plugins
from coldbench.core.laws import FAIL, PASS, SKIPPED, Finding

OWN = [(kind, name) for kind, names in plugins.OWN.items() for name in names]
EMBEDDED = {("dataset", "digits"), ("dataset", "photos")}
HEAD = """import numpy as np
import torch
from coldbench import Degradation, Sampler, dataset, degradation, metric, network, sampler


"""
DEGRADATION = """@degradation("it")
class It(Degradation):
    def degrade(self, x0, t, drawn):
        return {}
"""
DRAW = """
    def draw(self, indices, seed):
        return {{"z": torch.{}(len(indices))}}
"""
SAMPLER = """@sampler("it"{})
def it(x, x0_hat, s, r, d):
    {}
"""
NETWORK = """@network("it")
class It(torch.nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.layer = torch.nn.Conv2d(channels, channels, 1)
        self.unused = torch.nn.Identity()
        {}

    def forward(self, x, time):
        return {}
"""
TIMED = "self.layer(x) * (1 + time[:, None, None, None])"
METRIC = """@metric("it"{})
def it(originals, images):
    return {}
"""
MEAN = "(originals - images).abs().mean((1, 2, 3))"
DATASET = """@dataset("it", channels=1, train=4, test=3{})
def it(folder, size, split):
    first = 0 if split == "train" else 10
    for i in range(4 if split == "train" else 3):
        yield {}
"""
PIXELS = "np.random.default_rng(first + i).integers(0, 256, (1, size, size), dtype=np.uint8)"
RIGHT = {
    "degradation": DEGRADATION.format("x0 * 0.5"),
    "sampler": SAMPLER.format("", "return d(x0_hat, r)"),
    "network": NETWORK.format("", TIMED),
    "metric": METRIC.format(", best=0.0", MEAN),
    "dataset": DATASET.format("", PIXELS),
}
WRONG: dict[str, tuple[str, str, str]] = {  # what is wrong: text, the law that it breaks, a word of the reason
    "D mixes the batch": (DEGRADATION.format("x0 * 0.5 + x0.mean(0) * 0.5"), "batch independence", "mixed"),
    "D changes its input": (DEGRADATION.format("x0.mul_(0.5)"), "leaves its inputs", "images"),
    "D is float64": (DEGRADATION.format("(x0 * 0.5).double()"), "shape and dtype", "float64"),
    "D is NaN": (DEGRADATION.format("x0.sqrt()"), "finite", "severity 1"),
    "D has another shape": (DEGRADATION.format("x0[..., ::2]"), "shape and dtype", "16, 8"),
    "D is no tensor": (DEGRADATION.format("None"), "shape and dtype", "NoneType"),
    "D is random": (DEGRADATION.format("x0 * 0.5 + 0.1 * torch.rand_like(x0)"), "deterministic", "draw"),
    "D is too large": (DEGRADATION.format("x0 * 3"), "within bound", "`bound`"),
    "D raises": (DEGRADATION.format("x0 * {}['k']"), "shape and dtype", "it.py:9: KeyError: 'k'"),
    "D has one severity": (
        DEGRADATION.format("x0 * (1 - 0.1 * t.max())"), "severity per image", "severity"
    ),
    "D declares linear": (
        DEGRADATION.format("x0.abs()").replace("    def", "    linear = True\n\n    def"),
        "linear, keeps_mean", "linear",
    ),
    "draw by chance": (
        DEGRADATION.format("x0 * 0.5") + DRAW.format("rand"), "draw belongs to the image", "'z'",
    ),
    "draw of the batch": (
        DEGRADATION.format("x0 * 0.5") + DRAW.format("arange"), "draw belongs to the image", "'z'",
    ),
    "D has another base": (DEGRADATION.format("x0").replace("(Degradation)", ""), "can be built", "it.py:7"),
    "D lacks a parameter": (
        DEGRADATION.format("x0 * self.k").replace("    def", "    k: float\n\n    def"),
        "can be built", "'k' is missing",
    ),
    "D takes other arguments": (DEGRADATION.format("x0").replace(", drawn", ""), "can be built", "x0, t, drawn"),
    "D lacks degrade": (DEGRADATION.format("x0").replace("degrade(", "other("), "can be built", "degrade"),
    "R' is inexact": (SAMPLER.format("", "return 0.5 * d(x0_hat, r)"), "perfect restorer gives back x0", "exact=False"),
    "sampler mixes": (SAMPLER.format("", "return d(x0_hat, r) + (r > 0) * x.mean(0)"), "batch independence", "mixed"),
    "sampler changes x": (SAMPLER.format("", "return x.copy_(d(x0_hat, r))"), "leaves its inputs", "x_T"),
    "sampler is float64": (SAMPLER.format("", "return x.double()"), "shape, dtype, finite", "float64"),
    "sampler is NaN": (SAMPLER.format("", "return x / 0 * 0"), "shape, dtype, finite", "NaN"),
    "sampler is random": (
        SAMPLER.format("", "return d(x0_hat, r) + torch.rand_like(x) * r"), "deterministic", "redrawn"
    ),
    "sampler raises": (SAMPLER.format("", "return d.nothing"), "shape, dtype, finite", "it.py:8: AttributeError"),
    "sampler asks for severity 0": (
        SAMPLER.format("", "return d(d.restored(x, r), r)"), "shape, dtype, finite", "severity 0"
    ),
    "sampler has an option": (SAMPLER.format(", exactly=1", "return x"), "can be built", "'exact'"),
    "sampler has an option of a type": (SAMPLER.format(", exact=1", "return x"), "can be built", "exact must be"),
    "rule of three": (SAMPLER.format("", "return x").replace(", r, d", ""), "can be built", "it.py:6"),
    "sampler without step": ('@sampler("it")\nclass It(Sampler):\n    pass\n', "can be built", "step"),
    "sampler of another base": ('@sampler("it")\nclass It:\n    pass\n', "can be built", "it.py:7"),
    "R normalises the batch": (
        NETWORK.format("", f"torch.nn.functional.batch_norm({TIMED}, None, None, training=True)"),
        "batch independence in evaluation", "training mode",
    ),
    "R drops out": (
        NETWORK.format("", f"torch.nn.functional.dropout({TIMED})"), "deterministic in evaluation", "dropout"
    ),
    "R ignores t": (NETWORK.format("", "self.layer(x)"), "uses t", "severity"),
    "R leaves weights out": (
        NETWORK.format("self.unused = torch.nn.Linear(2, 2)", TIMED), "gradients reach every parameter", "unused.weight"
    ),
    "R hides weights": (
        NETWORK.format("self.hidden = [torch.nn.Conv2d(channels, channels, 1)]", f"self.hidden[0]({TIMED})"),
        "saved weights decide its output", "registered",
    ),
    "R has another shape": (NETWORK.format("", f"({TIMED})[..., 1:]"), "shape and dtype", "16, 15"),
    "R is float64": (NETWORK.format("", f"({TIMED}).double()"), "shape and dtype", "float64"),
    "R changes its input": (
        NETWORK.format("", TIMED.replace("(x)", "(x.detach().add_(0.1))")), "leaves its inputs", "in place"
    ),
    "R is no module": (NETWORK.format("", "x").replace("torch.nn.Module", "object"), "can be built", "torch.nn.Module"),
    "R raises": (NETWORK.format("self.rate = 1 / 0", "x"), "can be built", "it.py:12: ZeroDivisionError"),
    "metric of another best": (METRIC.format(", best=1.0", MEAN), "best for equal images", "`best` is 1"),
    "metric of another direction": (METRIC.format(", higher_is_better=True", MEAN), "direction", "higher"),
    "metric that is not symmetric": (
        METRIC.format("", f"{MEAN} * (1 + images.mean((1, 2, 3)))"), "symmetric", "symmetric=False"
    ),
    "metric of the batch": (METRIC.format("", f"{MEAN} - {MEAN}.mean() / 2"), "batch independence", "alone"),
    "metric of one value": (METRIC.format("", f"{MEAN}.mean()"), "one finite value for each image", "4 images"),
    "metric that is NaN": (METRIC.format("", f"{MEAN} / {MEAN}"), "one finite value for each image", "equal images"),
    "metric that changes images": (
        METRIC.format("", "images.sub_(originals).abs().mean((1, 2, 3))"), "leaves its inputs", "changes"
    ),
    "metric without contrast": (
        METRIC.format("", f"{MEAN} / images.std((1, 2, 3))"), "one finite value for each image", "one level"
    ),
    "metric with an option": (METRIC.format(", bets=0.0", MEAN), "can be built", "'best'"),
    "metric that is a class": ('@metric("it")\nclass It:\n    pass\n', "can be built", "function"),
    "data of floats": (DATASET.format("", f"{PIXELS} / 255"), "shape and dtype", "float64"),
    "data of another shape": (DATASET.format("", f"{PIXELS}[0]"), "shape and dtype", "(16, 16)"),
    "data of another count": (DATASET.format("", PIXELS).replace("test=3", "test=4"), "counts", "4 are declared"),
    "data of zeros and ones": (DATASET.format("", f"{PIXELS} // 128"), "range", "0…1"),
    "data by chance": (DATASET.format("", PIXELS.replace("first + i", "")), "deterministic", "again"),
    "data of one image": (DATASET.format("", PIXELS.replace("first + i", "first")), "different images", "copies"),
    "data that leak": (DATASET.format("", PIXELS.replace("first + i", "i")), "no test image in training", "3 test"),
    "data of two channels": (DATASET.format("", PIXELS).replace("channels=1", "channels=2"), "can be built", "1 or 3"),
    "data with an option": (DATASET.format(", colour=True", PIXELS), "can be built", "colour"),
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    """No plug-in is in use before or after a test."""
    plugins.use([])
    yield
    plugins.use([])


def check(monkeypatch: pytest.MonkeyPatch, *words: str) -> int | str | None:
    """The status of the command, or the message that ends it."""
    monkeypatch.setattr(sys, "argv", ["coldbench", "check", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code


def findings(text: str, folder: Path) -> list[Finding]:
    file = folder / "it.py"
    file.write_text(HEAD + text)
    return [each for component in laws.chosen(str(file), []) for each in laws.examine(component, {}, folder)]


@pytest.mark.parametrize(("kind", "name"), OWN, ids=lambda value: str(value))
def test_own_component_keeps_all_laws(kind: str, name: str, tmp_path: Path) -> None:
    found = list(laws.examine(plugins.find(kind, name), {}, tmp_path))
    assert not [each for each in found if each.result == FAIL]
    skipped = [each for each in found if each.result == SKIPPED]
    assert len(skipped) <= 1 or (kind == "dataset" and (kind, name) not in EMBEDDED)


@pytest.mark.parametrize("kind", RIGHT)
def test_right_plugin_keeps_all_laws(kind: str, tmp_path: Path) -> None:
    found = findings(RIGHT[kind], tmp_path)
    assert not [each for each in found if each.result == FAIL]
    assert found[0].result == PASS


@pytest.mark.parametrize("case", WRONG)
def test_wrong_plugin_breaks_the_law_that_names_it(case: str, tmp_path: Path) -> None:
    text, law, reason = WRONG[case]
    failed = {each.law: each.why for each in findings(text, tmp_path) if each.result == FAIL}
    assert law in failed
    assert reason in failed[law]
    assert not [why for why in failed.values() if "\n" in why or len(why) > 350]


def test_table_and_status_are_those_of_the_findings(tmp_path, monkeypatch, capsys) -> None:
    file = tmp_path / "two.py"
    file.write_text(HEAD + RIGHT["sampler"] + METRIC.format(", higher_is_better=True", MEAN).replace('"it"', '"up"'))
    assert not check(monkeypatch, str(file), "it")
    out = capsys.readouterr().out
    assert "method it" in out
    assert "metric up" not in out
    assert check(monkeypatch, str(file)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["component", "law", "result", "why"]
    assert [line.split()[:3] for line in lines if FAIL in line] == [["metric", "up", "direction"]]
    assert not check(monkeypatch, "--own", "tacos")
    assert "network evaluations" in capsys.readouterr().out


def test_parameters_of_the_command_line_reach_the_component(tmp_path, monkeypatch, capsys) -> None:
    file = tmp_path / "it.py"
    file.write_text(HEAD + DEGRADATION.format("x0 * self.k").replace("    def", "    k: float\n\n    def"))
    assert check(monkeypatch, str(file)) == 1
    assert not check(monkeypatch, str(file), "k=0.5")
    assert check(monkeypatch, str(file), "k=2.5") == 1
    assert "k=2.5" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "culprit"),
    [
        ((), "FILE"),
        (("none.py",), "none.py"),
        (("--own", "tacso"), "'tacos'"),
        (("it.py", "ti"), "'it'"),
        (("broken.py",), "broken.py:1"),
    ],
)
def test_what_cannot_be_checked_is_refused_in_one_line(words, culprit: str, tmp_path, monkeypatch) -> None:
    (tmp_path / "it.py").write_text(HEAD + RIGHT["sampler"])
    (tmp_path / "broken.py").write_text("def (")
    monkeypatch.chdir(tmp_path)
    message = check(monkeypatch, *words)
    assert isinstance(message, str)
    assert culprit in message
    assert "\n" not in message
