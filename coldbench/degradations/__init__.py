"""Degradations D(x, t): a file per family, the contract in `base`, the names in `registry`."""

from coldbench.degradations.base import Degradation, Drawn, initial_xt, network_input
from coldbench.degradations.inpainting import InpaintingGeneration
from coldbench.degradations.registry import DEGRADATIONS, build, complete_spec, for_experiment, with_partner

__all__ = [
    "DEGRADATIONS",
    "Degradation",
    "Drawn",
    "InpaintingGeneration",
    "build",
    "complete_spec",
    "for_experiment",
    "initial_xt",
    "network_input",
    "with_partner",
]
