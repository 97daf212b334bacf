"""The examples: every configuration is accepted with its plug-in, and the notebook's cells run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision

from coldbench.core import plugins
from coldbench.evaluation import measurements
from coldbench.planning import grid, layers

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_configuration_of_an_example_is_accepted(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Degradations, networks and samplers are built as before a run, and each has the hash of its code."""
    monkeypatch.chdir(tmp_path)
    if file.stem == "paired_images":
        subprocess.run([sys.executable, file.with_suffix(".py")], check=True)
    words = layers.words(["workflow/config/smoke.yaml", str(file.relative_to(ROOT))])
    raw = layers.read([ROOT / word for word in words])
    resolved = grid.build(raw, lambda budget, run: False, check_sources=False)
    components = plugins.declared(str(file.with_suffix(".py")))
    assert {component.name for component in components} == {file.stem}
    described = [run.model_dump_json() for run in resolved.report_runs.values()]
    assert any(components[0].source in text for text in described)


def test_lpips_of_equal_images_is_zero_and_grows_with_their_difference(tmp_path: Path) -> None:
    """With random weights in files of the right names and shapes, because the true ones are not at hand."""
    network = torchvision.models.alexnet(weights=None)
    torch.save(network.state_dict(), tmp_path / "alexnet-owt-7be5be79.pth")
    widths = (64, 192, 384, 256, 256)
    linear = {f"lin{number}.model.1.weight": torch.rand(1, width, 1, 1) for number, width in enumerate(widths)}
    torch.save(linear, tmp_path / "alex.pth")
    plugins.use([str(ROOT / "examples/lpips.py")])
    metric = measurements.per_image({"name": "lpips", "weights": str(tmp_path)})
    x, noise = torch.rand(3, 1, 32, 32), torch.randn(3, 1, 32, 32)
    assert metric(x, x).tolist() == [0, 0, 0]
    assert (metric(x, x + 0.02 * noise) < metric(x, x + 0.2 * noise)).all()


def test_cells_of_the_notebook_run() -> None:
    """In a process of its own, in order; nothing is asked of Jupyter."""
    notebook = json.loads((ROOT / "examples/api.ipynb").read_text())
    assert notebook["nbformat"] == 4
    code = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code")
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
