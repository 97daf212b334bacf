"""Files that are derived from others are up to date, and the lock file serves every machine."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from coldbench import __version__
from coldbench.config import Config

ROOT = Path(__file__).parents[1]


def test_schema_is_that_of_the_code():
    assert json.loads((ROOT / "workflow/schemas/config.schema.json").read_text()) == Config.model_json_schema()


def test_conda_pins_are_those_of_the_lock_file(tmp_path):
    out = tmp_path / "environment.yml"
    subprocess.run([sys.executable, ROOT / ".ci/environment_yml.py", ROOT / "requirements.lock", out], check=True)
    assert out.read_text() == (ROOT / "environment.yml").read_text()


def test_lock_file_has_hashes_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?://|--index|--find-links", text)
    pins = re.findall(r"^([\w.-]+)==\S+.*\n( +--hash=sha256:)?", text, re.MULTILINE)
    assert len(pins) > 50
    assert all(hashed for _, hashed in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {name.lower().replace("_", "-") for name, _ in pins}
    assert {re.split(r"[<>=]", line)[0].lower() for line in wanted} <= names


def test_one_version():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()


def test_readme_example_is_a_degradation(tmp_path):
    """The README's example of an own degradation works as printed, and stays short."""
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code is not None
    assert code[1].count("\n") <= 40
    (tmp_path / "fade.py").write_text(code[1])
    check = (
        "import torch; from fade import Fade; from coldbench.degradations import Degradation; D = Fade(8, 4);"
        "assert isinstance(D, Degradation); x = torch.rand(2, 1, 8, 8);"
        "assert torch.equal(D(x, torch.tensor([0, 2]), {}), torch.stack([x[0], x[1] / 2]))"
    )
    subprocess.run([sys.executable, "-c", check], check=True, cwd=tmp_path)
