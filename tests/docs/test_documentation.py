"""README and docs/: every block runs, every command is accepted, every link leads somewhere, every number is data.

All blocks of a page are written into one checkout: a block whose first line is `# name.py` or `# name.yaml` is that
file. Other Python blocks run. Commands of `sh` blocks run too, Snakemake and `make` with `-n`. Blocks of `text` are
outputs, or commands for machines and data that no test has.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer
from cases import untrained
from checkout import Checkout
from PIL import Image
from processes import Process, coldbench

from coldbench import cli
from coldbench.core.run import resolve
from coldbench.planning import layers, plan

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LANGUAGES = {"python", "yaml", "sh", "text", "{toctree}", "{eval-rst}"}
MODELS = ("E01-fitted", "E04-released", "E07-fitted")


def text_of(page: Path) -> str:
    """A page without what is written from data."""
    return re.sub(r"^<!-- \w+: .*?<!-- end -->", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{re.escape(language)}\n(.*?)^```$", page.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def file_name(block: str) -> str:
    """The file that a block is, or ""."""
    first = block.partition("\n")[0]
    return first[2:] if re.fullmatch(r"# [\w-]+\.(py|yaml)", first) else ""


def commands(page: Path) -> list[str]:
    """The lines of the blocks of commands."""
    return [line for block in blocks(page, "sh") for line in block.splitlines() if line]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout with the files of all pages, untrained models of the laptop budget, and two images to restore."""
    folder = tmp_path_factory.mktemp("walk")
    checkout = Checkout(folder)
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / "results").mkdir()
    (folder / "results/published").symlink_to(ROOT / "results/published")
    for page in PAGES:
        for block in (*blocks(page, "python"), *blocks(page, "yaml")):
            if name := file_name(block):
                (folder / name).write_text(block)
    grid = plan.resolved(layers.read([ROOT / "workflow/config/paper.yaml", ROOT / "workflow/config/laptop.yaml"]))
    for name in MODELS:
        experiment = resolve(grid.config, *name.split("-"), "laptop").experiment
        model = folder / "results/laptop" / name / "model.safetensors"
        model.parent.mkdir(parents=True)
        untrained(model, experiment)
    for name in ("photos", "masked"):
        (folder / name).mkdir()
        for number in range(2):
            pixels = torch.randint(0, 255, (32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(number))
            Image.fromarray(pixels.numpy()).save(folder / name / f"{number}.png")
    shutil.copy(ROOT / "results/published/laptop-cpu/calibration.parquet", folder / "results")
    (folder / ".venv").mkdir()
    (folder / ".venv/.ready").touch()
    (folder / "data/flowers").mkdir(parents=True)
    for number in range(600):
        Image.new("RGB", (80, 70), (number % 256, number // 256, 0)).save(folder / f"data/flowers/{number:03}.png")
    return checkout


def test_every_block_has_a_language_that_is_checked() -> None:
    for page in PAGES:
        fences = re.findall(r"^```(.*)$", page.read_text("utf-8"), re.MULTILINE)
        assert set(fences[::2]) <= LANGUAGES, page.name
        assert set(fences[1::2]) <= {""}, page.name


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem)
def test_python_blocks_run(page: Path, checkout: Checkout) -> None:
    """In order, in one process, in a checkout with a model of the laptop budget."""
    code = "\n".join(block for block in blocks(page, "python") if not file_name(block) or ".py" in file_name(block))
    subprocess.run([sys.executable, "-c", code], check=True, cwd=checkout.folder, env=environment())


def environment() -> dict[str, str]:
    """Of a process that imports this checkout's package."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_of_a_page_run_one_after_the_other(page: Path, checkout: Checkout) -> None:
    """A command may use what an earlier one of its page has written."""
    for command in commands(page):
        program, *words = shlex.split(command.partition("#")[0])
        if program == "snakemake":
            more = ["--config"] if "--config" not in words else []
            data = [] if "missing_data=skip" in words else [*more, "missing_data=skip"]
            ended = checkout.snakemake(*words, *data, *(() if "-n" in words else ("-n",)))
            assert ended.status == 0, (command, ended.end)
        elif program == "coldbench":
            process = Process(coldbench, words, cwd=checkout.folder, one_output=True)
            output, _ = process.communicate(timeout=300)
            assert process.returncode == 0, (command, output)
        elif program == "make":
            subprocess.run(["make", "-n", *words], check=True, cwd=checkout.folder, stdout=subprocess.DEVNULL)
        else:
            assert program in ("du",), f"{command}: a program that no test knows"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_verbs_targets_and_options_in_running_text_exist(page: Path) -> None:
    """`coldbench verb --option` and `make target` between backticks; placeholders are left alone."""
    verbs = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for code in re.findall(r"`([^`\n]+)`", text_of(page)):
        words = code.split()
        if words[0] == "make" and len(words) > 1:
            assert words[1] in targets, code
        if words[0] != "coldbench" or len(words) < 2 or words[1].startswith("-") or words[1].isupper():
            continue
        assert words[1] in verbs, code
        known = {name for parameter in verbs[words[1]].params for name in parameter.opts}
        assert {word.partition("=")[0] for word in words[2:] if word.startswith("--")} <= known, code


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as a forge and MyST make them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_in_the_contents() -> None:
    index = (ROOT / "docs/index.md").read_text()
    listed = {line for block in re.findall(r"```{toctree}\n(.*?)```", index, re.DOTALL) for line in block.split()}
    assert {page.stem for page in (ROOT / "docs").glob("*.md")} - {"index"} <= listed


def test_readme_is_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 110
    code = next(block for block in blocks(ROOT / "README.md", "python"))
    assert len([line for line in code.splitlines() if line]) <= 11
