"""Which runs count as finished where the grid is resolved: those that no training would have to make again."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coldbench.planning.grid import Grid, build
from coldbench.planning.products import Products


class FinishedRuns:
    """Says of a run, by its budget and name, whether it has scores that are current or need no training to be so.

    `raw` is the configuration. `refused` says why other scores that exist do not count, by their file. A run that is
    asked for because others sample its model does not count without that model.
    """

    def __init__(self, raw: Mapping[str, Any]) -> None:
        self.raw, self.results = raw, Path(str(raw.get("results", "results")))
        self.refused: dict[Path, str] = {}
        self._at = functools.cache(self._at_budget)

    def __call__(self, budget: str, run: str, with_model: bool = False, /) -> bool:
        file = self.results / budget / run / "scores.parquet"
        if not file.exists() or (self.results / "published.json").exists():  # published results are what they are
            return file.exists()
        grid, products = self._at(budget)
        resolved = grid.all_runs.get(run)
        if with_model:
            return resolved is not None and products.model(resolved).status == "current"
        if resolved and products.needs_no_training(resolved):
            return True
        self.refused[file] = products.scores(resolved).reason if resolved else "the grid has no such run"
        return False

    def _at_budget(self, budget: str) -> tuple[Grid, Products]:
        """All runs at one budget, with or without data."""
        everything = {**self.raw, "budget": budget, "reuse_budgets": [], "experiments": [], "datasets": []}
        grid = build(everything, lambda *_: False, check_operators=False, check_sources=False)
        return grid, Products(grid.by_budget, self.results, Path(grid.config.data), grid.config.fid)
