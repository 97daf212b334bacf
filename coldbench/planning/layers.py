"""The layers of a configuration: the grid, and overlays on top of it (files, and words like budget=paper).

Snakemake reads and merges its files itself. So a key that stands twice, and a part that one layer replaces by something
else, are seen only here, where each layer is read alone.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from coldbench.core.config import PARTS, Config
from coldbench.core.files import parse_yaml, read_yaml
from coldbench.core.run import Run
from coldbench.core.validation import check_layer, merged, parse_text
from coldbench.planning.checks import source_of
from coldbench.planning.grid import Grid

GRID = "workflow/config/paper.yaml"
"""The paper's grid, which every configuration changes."""
THIS_MACHINE = "workflow/config/laptop.yaml"
"""The configuration that `snakemake` has without a profile (profiles/default)."""


@dataclass(frozen=True)
class Layer:
    """What one file or word of a configuration states; `source` is the file or the word."""

    source: str
    values: dict[str, Any]


def words(given: Sequence[str], cluster: bool = False) -> list[str]:
    """The files and words that `snakemake` would read: the grid, the `given` files, then words like budget=paper.

    Without a file it reads the one of this machine, as the default profile says; a `cluster` has none.
    """
    settings = [word for word in given if _is_setting(word)]
    files = [word for word in given if not _is_setting(word)] or ([] if cluster else [THIS_MACHINE])
    return [GRID, *files, *settings]


def load(words: Sequence[Path | str]) -> list[Layer]:
    """The layers in files (YAML, or JSON) and words like budget=paper, in their order.

    ColdbenchError for one that cannot be read, states a key twice, or holds a key or value that no configuration has.
    """
    return list(map(_layer, map(str, words)))


def read(words: Sequence[Path | str]) -> dict[str, Any]:
    """Files and words on top of each other, later ones over earlier ones; ColdbenchError as from `load`."""
    return merged(*(layer.values for layer in load(words)))


def of_snakemake(files: Sequence[Path | str], arguments: Sequence[str] | None = None) -> list[Layer]:
    """The layers that Snakemake was given: its `workflow.configfiles`, of which the last is the grid, and --config.

    Of the words of the command line (`arguments`; None: those of this process) only mappings and lists are read,
    because Snakemake takes others as text. ColdbenchError as from `load`.
    """
    words = [word.partition("=") for word in (sys.argv if arguments is None else arguments)]
    nested = ["".join(word) for word in words if word[0] in Config.model_fields and word[2].startswith(("{", "["))]
    return load([*files[-1:], *files[:-1], *nested])


def plugin_files(files: Sequence[Path | str], arguments: Sequence[str] | None = None) -> list[str]:
    """The plug-ins of the last layer that names some, as paths from the working directory; arguments as above."""
    words = [word for word in (sys.argv if arguments is None else arguments) if word.startswith("plugins=")]
    layers = load([*files[-1:], *files[:-1], *words])
    return next((layer.values["plugins"] for layer in reversed(layers) if "plugins" in layer.values), [])


def _is_setting(word: str) -> bool:
    key, equals, _ = word.partition("=")
    return bool(equals) and key.isidentifier()


def _layer(word: str) -> Layer:
    key, _, value = word.partition("=")
    if _is_setting(word):
        values = {key: _value(key, value)}
        check_layer(Config, values, "config")
    else:
        values = read_yaml(Path(word))
        check_layer(Config, values, word)
    if "plugins" in values:
        files = [values["plugins"]] if isinstance(values["plugins"], str) else values["plugins"]
        folder = Path() if _is_setting(word) else Path(word).parent
        values = {**values, "plugins": [str(folder / file) for file in files]}
    return Layer(word, values)


def _value(key: str, text: str) -> Any:
    """The value of a word as Snakemake reads it: a number, a flag or text, which "1e3" and "yes" are not in YAML."""
    text = text.strip("'\"")
    for convert in (int, float, {"True": True, "False": False}.__getitem__):
        with contextlib.suppress(ValueError, KeyError):
            return convert(text)
    try:
        scalar = yaml.load(text, Loader=yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError):
        return parse_yaml(text, key) if text.startswith(("{", "[")) else text
    return scalar if isinstance(scalar, str) and text else parse_yaml(text, key)


def without_effect(grid: Grid, layers: Sequence[Layer]) -> list[str]:
    """A line for every value that an overlay states for an experiment, but that the protocol or budget replaces.

    The first of `layers` is the grid. Nothing is said of it and of the overlays in its folder, in which budgets replace
    values on purpose, and nothing of a value that a later overlay replaces.
    """
    suite = Path(layers[0].source).resolve().parent
    own = [layer for layer in layers[1:] if Path(layer.source).resolve().parent != suite or "=" in layer.source]
    lines = [_replaced(grid, *each) for layer in own for each in _stated(grid, layer.values)]
    return list(dict.fromkeys(filter(None, lines)))


def _stated(grid: Grid, values: Mapping[str, Any]) -> Iterator[tuple[Run, str, str, str, Any]]:
    """Each value that an overlay states for a run: the run, the path of its entry or protocol, part, key and value."""
    for run in grid.all_runs.values():
        name, protocol = run.metadata.name, run.metadata.protocol
        entry = values.get("grid", {}).get(name, {})
        places = {f"grid.{name}.protocols.{protocol}": entry.get("protocols", {}).get(protocol, {})}
        if run.metadata.default:
            places[f"grid.{name}"] = entry
        for place, parts in places.items():
            for part in PARTS:
                for key, value in parts.get(part, {}).items():
                    yield run, place, part, key, value


def _replaced(grid: Grid, run: Run, place: str, part: str, key: str, value: Any) -> str:
    """What replaces a value that an overlay states at `place`; empty if nothing does."""
    of_run: Any = run.sampling if part == "sampling" else getattr(run.experiment, part)
    used = of_run[key] if isinstance(of_run, Mapping) else getattr(of_run, key)
    source = source_of(grid.config, run, part, key)
    if source == place or isinstance(value, Mapping) or parse_text(value) == used:
        return ""
    return f"{place}.{part}.{key} has no effect: {source}.{part}.{key} is {used}"
