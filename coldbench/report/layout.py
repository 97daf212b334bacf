"""What stands where in the paper's tables: their columns and lines, and what they are called."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A group of the table: our set and method, the paper's words for it, if any, and what stands above it."""

    set: str
    method: str
    paper: tuple[str, ...]
    label: str
    hint: str


@dataclass(frozen=True)
class Measure:
    """A line of the table: our metrics with their references, best first, and the paper's metric beside them."""

    metrics: tuple[tuple[str, str], ...]
    paper: str
    hint: str


RESTORED = (
    Column("test", "degraded", ("degraded",), "Degraded", "the input of the network"),
    Column("test", "tacos", ("sampled", "reconstruction"), "Sampled", "TACoS, Algorithm 2"),
    Column("test", "direct", ("direct",), "Direct", "one step"),
    Column("test", "naive", (), "Naive", "Algorithm 1; not in the paper"),
)
NOISE_AND_BLUR = (
    Column("noise", "tacos", ("fixed_noise",), "Fixed noise", "hot diffusion, TACoS"),
    Column("noise", "estimated", ("estimated_noise",), "Estimated noise", "hot diffusion, DDIM"),
    Column("perfect", "tacos", ("perfect_symmetry",), "Perfect symmetry", "blur, TACoS"),
    Column("broken", "tacos", ("broken_symmetry",), "Broken symmetry", "blur with noise of 0.002, TACoS"),
)
GENERATED = (Column("generated", "tacos", ("generated",), "Generated", "TACoS, Algorithm 2"),)
ABLATED = (
    Column("broken", "direct", ("direct",), "Direct", "one step from x_T"),
    Column("broken", "naive", (), "Naive", "Algorithm 1; no number in the paper"),
)
COLUMNS = {
    **dict.fromkeys(("1", "2", "3", "4"), RESTORED),
    "5": NOISE_AND_BLUR,
    "5.3": GENERATED,
    "6": RESTORED,
    "A.7": ABLATED,
}
"""What stands in each table."""
ALSO = {"A.7": "5"}
"""Appendix A.7 shows other samples of the models of Table 5."""

SIMILARITY = (
    Measure((("ssim", ""),), "ssim", "more is better"),
    Measure((("rmse", ""),), "rmse", "less is better"),
)
RESTORATION = (Measure((("fid_paper-float", "test"), ("frechet_gabor", "test")), "fid", "less is better"), *SIMILARITY)
GENERATION = (
    Measure(
        (("fid_legacy_pytorch", "train"), ("fid_clean", "train"), ("frechet_gabor", "train")), "fid", "less is better"
    ),
)


def measures(number: str) -> tuple[Measure, ...]:
    """The lines of a table: generated images have no originals."""
    return RESTORATION if COLUMNS[number] is RESTORED else GENERATION


def heading(number: str) -> str:
    """What a table is called: "Table 1", and for numbers in the text "Section 5.3" and "Appendix A.7"."""
    return f"Appendix {number}" if number.startswith("A") else f"{'Section' if '.' in number else 'Table'} {number}"


BUDGETS = ("paper", "gpu-hour", "short", "laptop", "smoke")
"""Where one run was made at several, the first of these stands in the table."""
