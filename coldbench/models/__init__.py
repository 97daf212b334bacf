"""Restoration networks R(x_t, t): the networks, how they are built, run, saved, loaded and imported."""

from coldbench.models.registry import NETWORKS, build
from coldbench.models.restorer import INFERENCE_BATCH, Restorer, restorer

__all__ = ["INFERENCE_BATCH", "NETWORKS", "Restorer", "build", "restorer"]
