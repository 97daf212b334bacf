"""The networks by name, and how one is built from its description in an experiment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Network
from coldbench.core.parameters import accepts, arguments, parameters_of, signature
from coldbench.core.validation import checked

GIVEN = ("channels", "size")
"""What every network is built for; all its other arguments are parameters."""
NETWORKS = tuple(plugins.OWN["network"])
"""The suite's own."""


def build(network: Network | Mapping[str, Any], channels: int, size: int) -> nn.Module:
    """The network that an experiment describes, for (N, channels, size, size) images, with newly initialised weights.

    Raises ColdbenchError for an unknown name, a side that its stages cannot halve, an option that it does not have, and
    a parameter of a plug-in's network that is wrong.
    """
    network = network if isinstance(network, Network) else checked(Network, network, "network")
    name, where = network.name, f"network {network.name}"
    kind = plugins.load("network", name, network.source).object
    component = plugins.find("network", name)
    if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
        raise ColdbenchError(f"{component}: {kind.__name__} is no subclass of torch.nn.Module")
    accepts(component, kind.forward, "self", "x", "time")
    accepted = parameters_of(kind, GIVEN)
    defaults = {key: each.default for key, each in Network.model_fields.items()}
    fields = {key: value for key, value in network if key in defaults and key != "name"}
    for key, value in fields.items():
        budgets_state_it = key in ("dim", "dim_mults") and name not in NETWORKS
        if key not in accepted and value != defaults[key] and not budgets_state_it:
            raise ColdbenchError(f"{where} has no {key}, but {key} is {value}")
    stages = len(network.dim_mults)
    if "dim_mults" in accepted and size % 2 ** (stages - 1):
        raise ColdbenchError(
            f"{where} with {stages} stages needs a side that is a multiple of {2 ** (stages - 1)}, not {size}"
        )
    values = {key: value for key, value in fields.items() if key in accepted} | network.parameters
    given = {key: value for key, value in (("channels", channels), ("size", size)) if key in signature(kind)}
    try:
        built = kind(**given, **arguments(kind, values, where, GIVEN))
    except (ValueError, TypeError) as error:
        raise plugins.located(error) or ColdbenchError(f"{where}: {error}") from error
    return built
