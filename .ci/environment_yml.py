"""Write environment.yml, the lock file's pins for conda users: `python .ci/environment_yml.py LOCK OUT`."""

import re
import sys
from pathlib import Path

HEAD = """# The pins of requirements.lock for conda users; written by `make lock`, do not edit.
#   conda env create -f environment.yml && conda activate coldbench && pip install --no-deps -e .
# `snakemake --sdm conda` makes it by itself, for its jobs; coldbench is not among the pins, as jobs run the checkout's
# own code by workflow/bin/coldbench: nothing to install, and nothing that could be of another version.
name: coldbench
channels: [conda-forge, nodefaults]
dependencies:
  - python=3.11
  - pip
  - pip:
"""
EVERYWHERE = re.compile(r"sys_platform == 'darwin' or sys_platform == 'linux'|^ *$")


def main(lock: Path, out: Path) -> None:
    """Convert the pins, with the markers that matter."""
    lines = []
    for match in re.finditer(r"^([\w.-]+==\S+)(?: ; (.*?))? \\$", lock.read_text(), re.MULTILINE):
        pin, marker = match[1], match[2] or ""
        entry = pin if EVERYWHERE.fullmatch(marker) else f"{pin} ; {marker}"
        lines.append(f'      - "{entry}"\n')
    out.write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
