"""Write FLOPs and bytes of the networks of the shipped configurations: `python .ci/network_sizes.py OUT`."""

import sys
from pathlib import Path

from coldbench.core.files import write_json
from coldbench.planning import cost, layers, plan

CONFIG = Path(__file__).parents[1] / "workflow" / "config"


def main(out: Path) -> None:
    """Count every network of the paper's grid at every budget, and of the variants."""
    networks = []
    for overlays in ([], ["smoke.yaml"], ["laptop.yaml", "variants.yaml"], ["short.yaml"], ["gpu-hour.yaml"]):
        words = [CONFIG / name for name in ("paper.yaml", *overlays)]
        networks += map(cost.network_of, plan.resolved(layers.read(words)).all_runs.values())
    for device in cost.devices(CONFIG / "devices.yaml").values():
        for row in device.measured:
            if row.network != cost.INCEPTION:
                networks.append((cost.measured_network(row), row.channels, row.size))
    write_json(out, cost.network_sizes(networks))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
