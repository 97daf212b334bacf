"""Restoration networks R(x_t, t): the networks, how they are built, run, saved, loaded and imported."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coldbench.models.inference import INFERENCE_BATCH, Restorer, compiled, in_fast_format, restorer
    from coldbench.models.registry import NETWORKS, build

__all__ = ["INFERENCE_BATCH", "NETWORKS", "Restorer", "build", "compiled", "in_fast_format", "restorer"]


def __getattr__(name: str) -> Any:
    """Import the networks when they are asked for, because `header` is read where torch is not loaded."""
    if name not in __all__:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    module = "registry" if name in ("NETWORKS", "build") else "inference"
    return getattr(importlib.import_module(f"{__name__}.{module}"), name)
