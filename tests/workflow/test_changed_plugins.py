"""A run of nothing but plug-ins: a changed component plans the stage that it decides and what follows, and no other."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest
from checkout import Checkout

PAGE = "reports/methods.html"
MINE = '''"""A component of each kind."""

import numpy as np
import torch

import coldbench


@coldbench.dataset("stripes", channels=1, train=40, test=12)
def stripes(folder, size, split):
    """Waves of another length and direction for each image."""
    for number in range({"train": 40, "test": 12}[split]):
        rows, columns = np.mgrid[:size, :size]
        wave = np.sin((0.2 + number % 7 / 10) * rows + number / 9 * columns)
        yield (127 + 120 * wave).astype(np.uint8)[None]


@coldbench.degradation("fade")
class Fade(coldbench.Degradation):
    def degrade(self, x0, t, drawn):
        share = (t / self.T).to(x0.dtype)[:, None, None, None]
        return x0 * (1 - 0.9 * share)


@coldbench.network("small")
class Small(torch.nn.Module):
    def __init__(self, channels, width: int = 4):
        super().__init__()
        self.first = torch.nn.Conv2d(channels, width, 3, padding=1)
        self.time = torch.nn.Linear(1, width)
        self.last = torch.nn.Conv2d(width, channels, 3, padding=1)

    def forward(self, x, time):
        h = self.first(x) + self.time(time[:, None].float() / 10)[:, :, None, None]
        return self.last(torch.nn.functional.gelu(h))


@coldbench.sampler("half")
def half(x, x0_hat, s, r, d, *, share: float = 0.5):
    return x + share * (d(x0_hat, r) - d(x0_hat, s))


@coldbench.metric("mae", best=0.0)
def mae(originals, images):
    return (originals - images).abs().mean((1, 2, 3))
'''
GRID: dict[str, Any] = {
    "plugins": "mine.py",
    "experiments": ["own"],
    "metrics": ["mae"],
    "budgets": {"tiny": {"training": {"max_steps": 20}, "sampling": {"images": 12}}},
    "grid": {
        "own": {
            "title": "All of one's own",
            "dataset": "stripes",
            "size": 16,
            "degradation": {"name": "fade", "T": 4},
            "network": {"name": "small", "width": 6},
            "sampling": {"methods": ["direct", "tacos", {"name": "half", "share": 1.0}]},
            "protocol": "p",
            "protocols": {"p": {"rationale": "a test"}},
        }
    },
}
SCORED = {"evaluate": 1, "render_methods": 1}
SAMPLED = {"sample": 1, **SCORED}
TRAINED = {"train": 1, **SAMPLED}
CHANGES: dict[str, tuple[str, str, dict[str, int]]] = {
    "comment": ("return x + share", "# as TACoS does\n    return x + share", {}),
    "metric": ("images).abs().mean", "images).abs().sqrt().mean", SCORED),
    "sampler": ("x + share *", "x + 1.1 * share *", SAMPLED),
    "network": ("functional.gelu", "functional.relu", TRAINED),
    "degradation": ("0.9 * share", "0.8 * share", TRAINED),
    "data set": ("127 + 120 *", "127 + 110 *", {"prepare": 1, **TRAINED}),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout in which the page of methods has been made from the plug-ins of one file."""
    checkout = Checkout(tmp_path_factory.mktemp("plugins"))
    (checkout.folder / "mine.py").write_text(MINE)
    made = checkout.tiny(PAGE, **GRID)
    assert made.status == 0, made.end
    return checkout


@pytest.mark.slow
def test_page_names_the_methods_and_metrics_of_plugins(finished: Checkout) -> None:
    table = pd.read_csv((finished.folder / PAGE).with_suffix(".csv"))
    assert {"direct", "tacos", "half_share1.0", "degraded"} <= set(table.method)
    assert "mae" in set(table.metric)
    assert "half_share1.0" in (finished.folder / PAGE).read_text()


@pytest.mark.slow
@pytest.mark.parametrize("what", CHANGES)
def test_change_plans_its_stage_and_what_follows(what: str, finished: Checkout) -> None:
    old, new, expected = CHANGES[what]
    file = finished.folder / "mine.py"
    assert MINE.count(old) == 1
    file.write_text(MINE.replace(old, new))
    plan = finished.tiny(PAGE, "-n", **GRID)
    file.write_text(MINE)
    assert plan.status == 0, plan.end
    assert plan.plan == expected
