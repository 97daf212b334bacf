"""Where and how a benchmark runs ours: the options that the benchmarks share, the clock, and the peak for the MFU."""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from coldbench.core.experiment import Network
from coldbench.planning import cost
from coldbench.training import distributed

DEVICES = Path(__file__).parents[1] / "workflow/config/devices.yaml"


@dataclass(frozen=True)
class Place:
    """A device, and the number format and engine options of ours; plain readings are in fp32 and have none of them."""

    device: torch.device
    precision: str
    options: distributed.DeviceOptions

    def now(self) -> float:
        """The time in seconds, when everything asked of the device is done."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def utilisation(self, network: Network, channels: int, side: int, images_per_second: float, passes: int) -> str:
        """Model FLOP utilisation: the network's FLOPs for these images over the device's peak ("–": no peak known).

        passes: 1 for a forward pass, 3 for a training step; PaLM's definition (Chowdhery et al., 2022, appendix B).
        """
        peak = peaks(self.device).get(self.precision)
        if peak is None:
            return "–"
        return f"{passes * cost.size_of(network, channels, side).flops * images_per_second / peak:.1%}"

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        told = [name, f"torch {torch.__version__}", f"ours in {self.precision}"]
        told += [key.replace("_", "-") for key, on in vars(self.options).items() if on]
        return ", ".join(told)


def peaks(device: torch.device) -> dict[str, float]:
    """FLOP/s by number format of the entry in devices.yaml that this GPU's name contains; {} if there is none."""
    if device.type != "cuda":
        return {}
    name = torch.cuda.get_device_name(device).upper()
    found = [each for key, each in cost.devices(DEVICES).items() if key.upper().replace("-", " ") in name]
    return {str(precision): value for precision, value in found[0].peak.items()} if found else {}


def add_options(parser: argparse.ArgumentParser) -> None:
    """--device, --precision, --compile and --channels-last."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32", help="of ours")
    parser.add_argument("--compile", action="store_true", help="ours")
    parser.add_argument("--channels-last", action="store_true", help="ours")


def place(given: argparse.Namespace) -> Place:
    """What the options say."""
    options = distributed.DeviceOptions(given.compile, given.channels_last)
    return Place(torch.device(given.device), given.precision, options)


def command(given: argparse.Namespace) -> list[str]:
    """The same options for a process of its own."""
    flags = [f"--{key.replace('_', '-')}" for key in ("compile", "channels_last") if getattr(given, key)]
    return ["--device", given.device, "--precision", given.precision, *flags]
