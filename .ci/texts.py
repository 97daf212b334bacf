"""Write the parts of README.md and docs/ that are data: `python .ci/texts.py [FILE…]`.

A part stands between `<!-- NAME: … -->` and `<!-- end -->`; PARTS says what writes it.
"""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import reference_texts
import result_texts
import training_texts

ROOT = Path(__file__).parents[1]
PARTS: dict[str, Callable[[], str]] = {
    "calibration": result_texts.calibration,
    "claims": training_texts.statements,
    "commands": reference_texts.commands,
    "contract": result_texts.contract,
    "curve": training_texts.curve,
    "differences": training_texts.differences,
    "discrepancies": reference_texts.discrepancies,
    "errata": result_texts.errata,
    "keys": reference_texts.keys,
    "protocols": reference_texts.protocols,
    "results": result_texts.results,
    "samplers": training_texts.samplers,
    "status": result_texts.status,
    "summary": result_texts.summary,
    "values": training_texts.values,
}


def main(files: list[Path]) -> None:
    """Rewrite the parts of every file."""
    for file in files:
        text = file.read_text("utf-8")
        for name in re.findall(r"^<!-- (\w+): ", text, re.MULTILINE):
            if name not in PARTS:
                sys.exit(f"{file} has a part {name} that nothing writes (known: {', '.join(PARTS)})")
            pattern = rf"(<!-- {name}: .*? -->\n).*?(<!-- end -->)"
            body = PARTS[name]()
            text = re.sub(pattern, lambda found: found[1] + body + found[2], text, flags=re.DOTALL)  # noqa: B023
        file.write_text(text, "utf-8")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))])
