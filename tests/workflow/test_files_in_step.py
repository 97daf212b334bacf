"""Files that are derived from others are up to date, and the lock file serves every machine."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import numpy as np
import yaml
from cases import ROOT
from PIL import Image

from coldbench import __version__
from coldbench.core.config import Config


def test_schema_matches_the_code(tmp_path):
    out = tmp_path / "config.schema.json"
    subprocess.run([sys.executable, ROOT / ".ci/config_schema.py", out], check=True, cwd=ROOT)
    assert out.read_text() == (ROOT / "workflow/schemas/config.schema.json").read_text(), "make schema"


def test_schema_holds_the_limits():
    """A validator in the wrong place hides them: what is refused must be refused by the schema as well."""
    properties = Config.model_json_schema()["properties"]
    assert properties["checkpoint_every"]["minimum"] == 0
    assert properties["max_cpu_hours"]["exclusiveMinimum"] == 0
    one, several = properties["seeds"]["anyOf"]
    assert (one["minimum"], several["items"]["minimum"], several["minItems"]) == (0, 0, 1)
    assert properties["threads"]["additionalProperties"]["minimum"] == 1
    assert all(re.search(properties[name]["pattern"], "a{b}") is None for name in ("results", "reports"))


def test_conda_pins_match_the_lock_file(tmp_path):
    out = tmp_path / "environment.yml"
    subprocess.run([sys.executable, ROOT / ".ci/environment_yml.py", ROOT / "requirements.lock", out], check=True)
    assert out.read_text() == (ROOT / "environment.yml").read_text()


def test_generated_parts_of_the_texts_match_the_data(tmp_path):
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    copies = [Path(shutil.copy(page, tmp_path)) for page in pages]
    subprocess.run([sys.executable, ROOT / ".ci/texts.py", *copies], check=True)
    for page, copy in zip(pages, copies, strict=True):
        assert copy.read_text() == page.read_text(), "make texts"


def test_pictures_of_the_readme_match_the_published_results(tmp_path):
    out = tmp_path / "restored.png"
    subprocess.run([sys.executable, ROOT / ".ci/pictures.py", out], check=True)
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in (out, ROOT / "docs/restored.png")]
    assert np.array_equal(*pictures), "make texts"


def steps(text: str) -> list[str]:
    """The commands of a Dockerfile's RUN lines or of an Apptainer definition's %post, without their order's frills."""
    text = text.replace("\\\n", " ")
    lines = (
        re.findall(r"^RUN (.*)$", text, re.MULTILINE)
        or re.search(r"^%post\n(.*?)^%", text, re.DOTALL | re.MULTILINE)[1].splitlines()
    )
    commands = [" ".join(command.split()) for line in lines for command in line.split(" && ")]
    return [command for command in commands if command not in ("", "set -e")]


def test_both_images_install_from_the_lock_file():
    """Dockerfile, Apptainer definition and conda environment: one Python, the lock file's pins, the same files."""
    docker, apptainer = (ROOT / "Dockerfile").read_text(), (ROOT / "apptainer.def").read_text()
    assert steps(docker) == steps(apptainer)
    pip = [command for command in steps(docker) if "pip" in command]
    assert pip == [
        "python -m pip install --no-cache-dir --compile --require-hashes -r /opt/coldbench/requirements.lock",
        "python -m pip install --no-cache-dir --compile --no-deps --no-build-isolation /opt/coldbench",
    ]
    copied = {name for line in re.findall(r"^COPY (.*) \S+$", docker, re.MULTILINE) for name in line.split()}
    assert copied == set(re.findall(r"^    (\S+) /opt/coldbench/\1$", apptainer, re.MULTILINE))
    assert copied == set(re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE))
    assert all((ROOT / name).exists() for name in copied)

    image = re.search(r"^FROM (\S+)$", docker, re.MULTILINE)[1]
    assert image == re.search(r"^From: (\S+)$", apptainer, re.MULTILINE)[1]
    python = re.fullmatch(r"python:(3\.\d+)-slim-bookworm", image)[1]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    assert f"python={python}" in environment["dependencies"]
    makefile = (ROOT / "Makefile").read_text()
    assert f"--python-version {python} " in makefile, "the lock file is resolved for this Python"
    assert not re.search(r"https?://|--index|--find-links", docker + apptainer)


def test_lock_file_has_hashes_and_no_address():
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"https?://|--index|--find-links", text)
    pins = re.findall(r"^([\w.-]+)==\S+.*\n( +--hash=sha256:)?", text, re.MULTILINE)
    assert len(pins) > 50
    assert all(hashed for _, hashed in pins)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    requirements = project["dependencies"] + project["optional-dependencies"]["dev"]
    names = {name.lower().replace("_", "-") for name, _ in pins}
    assert {re.split(r"[<>=]", line)[0].lower() for line in requirements} <= names


def imports(folder: str) -> set[str]:
    """The top-level names that the modules of a folder import, its own excepted."""
    names, own = set(), {path.stem for path in (ROOT / folder).rglob("*.py")} | {"coldbench"}
    for path in (ROOT / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {name.name.partition(".")[0] for name in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names.add(node.module.partition(".")[0])
    return names - own - set(sys.stdlib_module_names)


def test_imported_packages_are_declared():
    """A package that only comes along with another one is gone when that one no longer needs it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {"coldbench": project["dependencies"], "tests": project["optional-dependencies"]["dev"]}
    declared["tests"] = declared["tests"] + declared["coldbench"]
    packages = packages_distributions()
    for folder, lines in declared.items():
        names = {re.split(r"[<>=]", line)[0] for line in lines}
        needed = {packages[name][0].lower().replace("_", "-"): name for name in imports(folder)}
        assert not {name: package for package, name in needed.items() if package not in names}, folder


def test_command_of_the_checkout_runs_its_code(tmp_path):
    """workflow/bin/coldbench runs the code beside it, with the packages of whatever Python comes first on PATH."""
    shutil.copytree(ROOT / "workflow/bin", tmp_path / "workflow/bin")
    (tmp_path / "coldbench").mkdir()
    (tmp_path / "coldbench/__init__.py").touch()
    (tmp_path / "coldbench/cli.py").write_text("import sys, torch\ndef main(): print(__file__, sys.executable)\n")
    path = f"{tmp_path / 'workflow/bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    ended = subprocess.run(["coldbench"], env={**os.environ, "PATH": path}, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == [str(tmp_path / "coldbench/cli.py"), sys.executable]


def test_version_is_the_same_everywhere():
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == __version__
    assert f"version: {__version__}" in (ROOT / "CITATION.cff").read_text()
