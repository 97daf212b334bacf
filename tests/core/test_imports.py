"""Loading core and the list of data sets is fast, because neither imports torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys

from cases import ROOT

from coldbench import core

MODULES = ["coldbench", *(f"coldbench.core.{module.name}" for module in pkgutil.iter_modules(core.__path__))]
HEAVY = {"torch", "torchvision", "skimage", "sklearn", "PIL"}


def test_core_and_the_list_of_data_sets_load_without_torch() -> None:
    code = f"import sys\nfor name in {[*MODULES, 'coldbench.data.registry']}:\n    __import__(name)\n"
    code += f"print(sorted({HEAVY} & sys.modules.keys()))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert answer.stdout.strip() == "[]"
