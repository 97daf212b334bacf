"""`snakemake --sdm`: jobs in an image use its Python and packages, and the code of the checkout that plans them.

Apptainer itself is played by a script that runs the command with another PATH, as in an image.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from cases import ROOT

APPTAINER = """#!/bin/bash
[ "$1" = --version ] && echo apptainer version 1.3.0 && exit
echo "$@" >> calls
PATH={image}:/usr/bin:/bin exec bash -c "${{@: -1}}"
"""
PYTHON = """#!/bin/bash
echo python in the image: "$@" >> calls
exec {python} "$@"
"""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the workflow with the code beside it, an `apptainer`, and an image's folder of commands."""
    for file in ("Snakefile", "environment.yml"):
        shutil.copy(ROOT / file, tmp_path)
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    (tmp_path / "profiles").symlink_to("workflow/profiles")
    (tmp_path / "coldbench").symlink_to(ROOT / "coldbench")
    for path, text in {
        "bin/apptainer": APPTAINER.format(image=tmp_path / "image"),
        "image/python": PYTHON.format(python=sys.executable),
        "image/coldbench": "#!/bin/bash\necho another version >> calls\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
        (tmp_path / path).chmod(0o755)
    return tmp_path


def snakemake(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("SNAKEMAKE", "PYTEST"))}
    environment["PATH"] = f"{checkout / 'bin'}:{environment['PATH']}"
    command = [str(Path(sys.executable).with_name("snakemake")), "--workflow-profile", "smoke", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment, capture_output=True, text=True, check=False)


def test_jobs_in_an_image(checkout: Path):
    target, image = "results/data/digits-32/info.json", "container=some.sif"
    ended = snakemake(checkout, target, "--sdm", "apptainer", "--config", "experiments=E01", image)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    calls = (checkout / "calls").read_text().splitlines()
    assert all(" some.sif bash -c " in asked for asked in calls[::2])
    command = f"python in the image: {checkout}/workflow/bin/coldbench"
    fetched, prepared = calls[1::2]
    assert fetched.startswith(f"{command} fetch digits ")
    assert prepared.startswith(f"{command} prepare digits ")

    (checkout / target).unlink()
    ended = snakemake(checkout, target, "--config", "experiments=E01", image)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert (checkout / target).exists()
    assert len((checkout / "calls").read_text().splitlines()) == 4, "without --sdm an image is not heard"


def test_no_image(checkout: Path):
    ended = snakemake(checkout, "-n", "--sdm", "apptainer", "--config", "experiments=E01")
    assert ended.returncode == 1
    assert "coldbench: error: --sdm apptainer needs an image: --config container=" in ended.stdout + ended.stderr
