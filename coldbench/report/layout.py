"""The paper's tables (their numbers, columns and measures), the budgets and the methods, each with its title."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of a table: our set and method, the paper's names for the column, its label and a hint below it."""

    set: str
    method: str
    paper: tuple[str, ...]
    label: str
    hint: str


@dataclass(frozen=True)
class Measure:
    """A line of a table: the paper's metric, and our metrics with their references, the most comparable one first."""

    paper: str
    metrics: tuple[tuple[str, str], ...]
    hint: str


@dataclass(frozen=True)
class Table:
    """One table of the paper, or numbers of its text; `models_of` is the table whose models it samples as well."""

    number: str
    task: str
    columns: tuple[Column, ...]
    measures: tuple[Measure, ...]
    models_of: str = ""

    @property
    def heading(self) -> str:
        """What the table is called: "Table 1", and for numbers of the text "Section 5.3" or "Appendix A.7"."""
        if self.number.startswith("A"):
            return f"Appendix {self.number}"
        return f"{'Section' if '.' in self.number else 'Table'} {self.number}"

    @property
    def caption(self) -> str:
        restored = "distance of each set of images from the originals"
        generated = "distance of the generated images from the training images"
        what = restored if self.columns is RESTORED else generated
        return f"{self.heading}. {self.task.capitalize()}: {what}"

    @property
    def page(self) -> str:
        """The file of the table's page in the folder of the report."""
        return f"table{self.number}.html"

    def hint(self, measure: str) -> str:
        """Whether more or less of a measure is better."""
        return next(entry.hint for entry in self.measures if entry.paper == measure)

    @property
    def sources(self) -> tuple[str, ...]:
        """The tables whose runs the table shows."""
        return tuple(filter(None, (self.number, self.models_of)))


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
ONE_STEP = (
    Column("broken", "direct", ("direct",), "Direct", "one step from x_T"),
    Column("broken", "naive", (), "Naive", "Algorithm 1; no number in the paper"),
)
RESTORATION = (
    Measure("fid", (("fid_paper-float", "test"), ("frechet_gabor", "test")), "less is better"),
    Measure("ssim", (("ssim", ""),), "more is better"),
    Measure("rmse", (("rmse", ""),), "less is better"),
)
# Generated images have no originals, so they have no SSIM and no RMSE.
GENERATION = (
    Measure("fid", (("fid_legacy_pytorch", "train"), ("fid_clean", "train"), ("frechet_gabor", "train")),
            "less is better"),
)  # fmt: skip

TABLES = {
    table.number: table
    for table in (
        Table("1", "deblurring", RESTORED, RESTORATION),
        Table("2", "inpainting", RESTORED, RESTORATION),
        Table("3", "super-resolution", RESTORED, RESTORATION),
        Table("4", "desnowification", RESTORED, RESTORATION),
        Table("5", "generation", NOISE_AND_BLUR, GENERATION),
        Table("5.3", "generation", GENERATED, GENERATION),
        Table("6", "colorization", RESTORED, RESTORATION),
        Table("A.7", "blur generation", ONE_STEP, GENERATION, models_of="5"),
    )
}
"""Every table by its number, in the order of the report."""


@dataclass(frozen=True)
class Budget:
    """The title of a run at some budget, and how its networks were trained."""

    title: str
    training: str


FULL_SIZE = "networks of full size, trained for 20,000 steps"
BUDGETS = {
    "paper": Budget("Paper run", "networks trained as in the paper"),
    "gpu-hour": Budget("GPU-hour run", FULL_SIZE),
    "short": Budget("Short run", FULL_SIZE),
    "laptop": Budget("Laptop run", "networks trained for minutes, not for the paper's hundreds of thousands of steps"),
    "smoke": Budget("Smoke run", "tiny networks, trained for seconds"),
}
"""The budgets, the fullest first. Where a run exists at several budgets, the report shows the fullest one.

A budget of the user's own counts as less full than all of them, because its name does not say how full it is.
"""


def budget_of(name: str) -> Budget:
    """The title and training of a budget, also of one that a user defined."""
    own = Budget(f"{name[:1].upper()}{name[1:]} run", f"a shorter training than the paper's ({name} budget)")
    return BUDGETS.get(name, own)


def budget_rank(name: str) -> int:
    """The place of a budget in BUDGETS; an unknown one comes last."""
    return list(BUDGETS).index(name) if name in BUDGETS else len(BUDGETS)


METHODS = {
    "direct": "Direct",
    "naive": "Algorithm 1",
    "naive_resampled": "Algorithm 1, resampled",
    "tacos": "TACoS",
    "resampled": "TACoS, resampled",
    "estimated": "Estimated noise",
    "ddpm": "DDPM",
}
"""The title of every method of the suite, in the order of their columns in a comparison."""


def method_title(label: str) -> str:
    """The title of a method; that of a plug-in is its label."""
    return METHODS.get(label, label)


def is_method(label: str) -> bool:
    """Whether the method of a score is a way of sampling: neither the degraded images nor a difference of two."""
    return label != "degraded" and "-" not in label


def in_order(labels: Iterable[str]) -> list[str]:
    """The methods, each once: those of METHODS in its order, then those of plug-ins in their own."""
    own = list(METHODS)
    return sorted(dict.fromkeys(labels), key=lambda label: own.index(label) if label in own else len(own))


def run_page(budget: str, run: str) -> str:
    """The page of a run in the folder of the report, at the place that the run has in `results`."""
    return f"runs/{budget}/{run}.html"
