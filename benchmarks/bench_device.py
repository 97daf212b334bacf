"""Shared by the benchmarks: the device options, the clock, and the utilisation of the device."""

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
class BenchDevice:
    """A device, with the precision and the options of this package; a baseline runs in fp32 without options."""

    device: torch.device
    precision: str
    options: distributed.DeviceOptions

    def now(self) -> float:
        """The time in seconds after the device has finished its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    def utilisation(self, network: Network, channels: int, size: int, images_per_second: float, passes: int) -> str:
        """Model FLOP utilisation (MFU): FLOPs of the network per second over the peak of the device, "–" if unknown.

        `passes` is 1 for a forward pass and 3 for a training step, as in PaLM (Chowdhery et al., 2022, appendix B).
        """
        peak = peak_flops(self.device).get(self.precision)
        if peak is None:
            return "–"
        return f"{passes * cost.size_of(network, channels, size).flops * images_per_second / peak:.1%}"

    def __str__(self) -> str:
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else "CPU"
        options = [key.replace("_", "-") for key, enabled in vars(self.options).items() if enabled]
        return ", ".join([name, f"torch {torch.__version__}", f"coldbench in {self.precision}", *options])


def peak_flops(device: torch.device) -> dict[str, float]:
    """Peak FLOP/s by precision, from the entry of devices.yaml that the GPU's name contains; empty if none does."""
    if device.type != "cuda":
        return {}
    name = torch.cuda.get_device_name(device).upper()
    for key, entry in cost.devices(DEVICES).items():
        if key.upper().replace("-", " ") in name:
            return {str(precision): value for precision, value in entry.peak.items()}
    return {}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add --device, --precision, --compile and --channels-last."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--precision", choices=["fp32", "tf32", "bf16"], default="fp32", help="of this package")
    parser.add_argument("--compile", action="store_true", help="compile the network of this package")
    parser.add_argument("--channels-last", action="store_true", help="channels-last memory format in this package")


def bench_device(arguments: argparse.Namespace) -> BenchDevice:
    """The device and its options from the command line."""
    options = distributed.DeviceOptions(arguments.compile, arguments.channels_last)
    return BenchDevice(torch.device(arguments.device), arguments.precision, options)


def as_words(arguments: argparse.Namespace) -> list[str]:
    """The same options as words of another command."""
    flags = [f"--{key.replace('_', '-')}" for key in ("compile", "channels_last") if getattr(arguments, key)]
    return ["--device", arguments.device, "--precision", arguments.precision, *flags]
