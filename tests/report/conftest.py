"""The report of the published results, which takes half a minute, rendered once for all workers."""

from __future__ import annotations

import os
import shutil

import pytest
from checkout import SHOW, Checkout, with_published_results
from filelock import FileLock


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """A checkout that rendered the published results to `pages`: one table by itself first, then everything."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder, finished = shared / "published", shared / "published.finished"
    with FileLock(shared / "published.lock"):
        if finished.exists():
            return Checkout(folder)
        shutil.rmtree(folder, ignore_errors=True)
        checkout = with_published_results(folder)
        for target in (["--", "pages/table1.html"], []):
            ended = checkout.snakemake(*SHOW, *target)
            assert ended.status == 0, ended.end
        finished.touch()
    return checkout
