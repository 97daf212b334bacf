"""What planning needs loads fast, because it does not import torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from cases import ROOT

from coldbench import core

MODULES = ["coldbench", *(f"coldbench.core.{module.name}" for module in pkgutil.iter_modules(core.__path__))]
OTHERS = ["coldbench.data.registry", "coldbench.models.header", "coldbench.evaluation.scores"]
HEAVY = {"torch", "torchvision", "skimage", "sklearn", "PIL", "pandas"}


def test_core_and_what_results_say_of_themselves_load_without_torch() -> None:
    code = f"import sys\nfor name in {[*MODULES, *OTHERS]}:\n    __import__(name)\n"
    code += f"print(sorted({HEAVY} & sys.modules.keys()))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"
