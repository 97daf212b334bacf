"""What a key of the configuration means, and which layer decides its value for which experiment.

The values are those of the resolved runs. The layer is found by the rule by which layers are merged (`deciding`): first
among experiment, protocol and budget, then among the files and words that state the place of the first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coldbench.core.config import OWN_KEYS, PARTS, SamplingLayer
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.run import Run, chosen_protocol, resolve, stated
from coldbench.core.validation import deciding, merged
from coldbench.planning.facts import Facts, Origin, Value
from coldbench.planning.grid import Grid
from coldbench.planning.layers import Layer
from coldbench.planning.plan import resolved
from coldbench.planning.schema import Node, Schema, shown

Path = tuple[str, ...]
PARTNER = ("degradation", "partner")


@dataclass(frozen=True)
class _Found:
    """A key below a tree of values: its path, what the schema says of it, and its value if it has one."""

    path: Path
    node: Node
    value: Any = None
    is_set: bool = False


class Explainer:
    """Explains keys of the configuration that some files and words make.

    ColdbenchError, as of `coldbench plan`, if it is wrong. Imports no torch.
    """

    def __init__(self, layers: Sequence[Layer], schema: Schema | None = None) -> None:
        self.layers, self.schema = layers, schema or Schema()
        self.grid: Grid = resolved(merged(*(layer.values for layer in layers)))
        self.config = self.grid.config
        self.tree = {
            **self.config.model_dump(),
            **self.config.model_dump(include={"budgets", "grid"}, exclude_unset=True),
        }
        self.entry = self.schema.definition("Entry")

    def run(self, experiment: str) -> Run:
        """The run of an experiment that the report shows, also of one that a filter leaves out."""
        names = (run for run in self.grid.report_runs.values() if run.metadata.name == experiment)
        config = self.config
        run = next((run for run in names if not run.experiment.snapshot), None)
        return run or resolve(config, experiment, chosen_protocol(config, experiment), config.budget)

    def explain(self, key: str) -> list[Facts]:
        """What `key` means and its values in force; more than one answer if experiments differ in what it means.

        ColdbenchError with the nearest key for an unknown one.
        """
        if not all(key.split(".")):
            raise self._unknown(key)
        name, rest = _first(self.config.grid, key.removeprefix("grid."))
        top, _ = _first(self.schema.root["properties"], key)
        if name and (top is None or key.startswith("grid.")) and _first({"protocols": None}, rest)[0] is None:
            found = _walk(self.schema, self.entry, self._values(self.run(name)), rest, f"{name}.")
            return [self._facts(found, name)]
        if top is not None or name:
            return [self._facts(_walk(self.schema, self.schema.root, self.tree, key if top else f"grid.{key}", ""))]
        if _first(self.entry["properties"], key)[0] is None:
            raise self._unknown(key)
        return self._of_all(key)

    def _unknown(self, key: str) -> ColdbenchError:
        """The error for a key whose beginning is no key of the configuration, of an experiment, and no experiment."""
        tail = key.partition(".")[2]
        below = [key for part in PARTS for key in self._described(self.entry["properties"][part], f"{part}.")]
        below += [f"{name}.{tail}" for name in self.config.grid if tail]
        return unknown("key", key, [*self.schema.root["properties"], *self.entry["properties"], *below])

    def listed(self) -> list[Facts]:
        """The keys of the whole configuration, and those of an experiment, with what they mean."""
        top, below = self._described(self.schema.root), self._described(self.entry)
        examples = "Keys of an experiment: training.max_steps for all, E04.training.max_steps for one."
        return [Facts("Keys of the configuration.", "", "", keys=top), Facts(examples, "", "", keys=below)]

    def _described(self, node: Node, prefix: str = "") -> dict[str, str]:
        return {f"{prefix}{key}": self.schema.description(each) for key, each in self.schema.choices(node).items()}

    def leaves(self, experiment: str) -> list[str]:
        """The paths of all keys of an experiment that have no keys below them, without the experiment's name."""
        waiting = [_Found((), self.entry, self._values(self.run(experiment)), True)]
        paths = []
        while waiting:
            found = waiting.pop()
            below = self.schema.choices(found.node, found.value) if found.value is not None or not found.path else {}
            waiting += [_child(found, key, node) for key, node in below.items() if key != "protocols" or found.path]
            if not below:
                paths.append(".".join(found.path))
        return paths

    def _of_all(self, key: str) -> list[Facts]:
        """A key of every experiment of the report that knows it, gathered where it means the same."""
        facts: dict[tuple[str, str, str], Facts] = {}
        refused: ColdbenchError | None = None
        for name in dict.fromkeys(run.metadata.name for run in self.grid.report_runs.values()):
            try:
                found = _walk(self.schema, self.entry, self._values(self.run(name)), key, "")
            except ColdbenchError as error:
                refused = refused or error
                continue
            each = self._facts(found, name, of_all=True)
            same = facts.setdefault((each.description, each.type, each.default), each)
            if same is not each:
                same.values.extend(each.values)
                same.keys.update(each.keys)
        if not facts and refused:
            raise refused
        return list(facts.values())

    def _facts(self, found: _Found, experiment: str = "", of_all: bool = False) -> Facts:
        """What a key means, with its value for an experiment ("": for all), or the keys below it with theirs."""
        description, below = self.schema.description(found.node), self.schema.choices(found.node, found.value)
        if below and found.value is not None:
            keys = {key: self._in_a_line(_child(found, key, node), experiment, of_all) for key, node in below.items()}
            return Facts(description, "keys and values", "", keys=keys)
        default = f"default {shown(found.node['default'])}" if "default" in found.node else "no default"
        return Facts(description, self.schema.type_of(found.node), default, [self._value(found, experiment)])

    def _in_a_line(self, found: _Found, experiment: str, of_all: bool) -> str:
        """A key in a list of keys: its value and origin if it is one of one experiment, else what it means."""
        title = _at(found.value, ("title",)) or _at(found.value, ("rationale",))
        below = self.schema.choices(found.node, found.value)
        if of_all or title or (below and found.value is not None):
            return str(title or self.schema.description(found.node))
        value = self._value(found, experiment)
        return f"{value.text} ({value.origin.text})" if value.is_set else value.text

    def _values(self, run: Run) -> dict[str, Any]:
        """The values of a run, by the keys of its experiment in the configuration."""
        entry, experiment = self.config.grid[run.metadata.name], run.experiment
        names = {"dataset": experiment.dataset, "size": experiment.size, "protocol": run.metadata.protocol}
        return {
            **{"title": run.metadata.title, "cell": run.metadata.cell.model_dump(), "model": entry.model, **names},
            "protocols": {name: each.model_dump(exclude_unset=True) for name, each in entry.protocols.items()},
            "degradation": {key: value for key, value in experiment.degradation.items() if key != "source"},
            "preprocessing": experiment.preprocessing.model_dump(),
            "network": experiment.network.model_dump(exclude={"source"}),
            "training": experiment.training.model_dump(),
            "sampling": run.sampling.model_dump(),
        }

    def _value(self, found: _Found, experiment: str) -> Value:
        """The value of a key for an experiment, or ("") as the configuration states it, with its origin."""
        if experiment:
            return Value(experiment, found.value, found.is_set, self._origin(self.run(experiment), found.path))
        place: Path = ()
        if found.path[0] in ("budgets", "grid"):
            place = found.path[: 4 if found.path[2:3] == ("protocols",) else 2]
        origin = self._at_place("configuration", "", place, found.path[len(place) :])
        is_set = found.is_set and (bool(origin.source) or not place)  # the defaults of a layer set nothing
        return Value("", found.value, is_set, origin)

    def _origin(self, run: Run, path: Path) -> Origin:
        """Which layer decides a key of a run."""
        name, protocol = run.metadata.name, run.metadata.protocol
        entry = self.config.grid[name]
        if path == ("protocol",) and self.config.protocol in entry.protocols:
            return self._at_place("configuration", "", (), path)
        for replaced in {("dataset",): entry.dataset, ("degradation", "partner"): self._partner(run)}.items():
            if path == replaced[0] and replaced[1] in self.config.substitute:
                return self._at_place("substitute", str(replaced[1]), (), ("substitute", str(replaced[1])))
        layers: dict[Path, Mapping[str, Any]] = {("grid", name): entry.model_dump(exclude_unset=True)}
        if path[0] in PARTS:
            layers = dict(stated(self.config, name, protocol, run.metadata.budget))
        number = deciding(list(layers.values()), path)
        if number is None:
            return Origin()
        place, layer = list(layers)[number], ("experiment", "protocol", "budget")[number]
        own = place[0] == "budgets" or (len(place) == 2 and path[0] in (*OWN_KEYS, "model"))
        if entry.model is not None and not own:
            place = ("grid", entry.model, *place[2:])
        return self._at_place(layer, "" if place == ("grid", name) else place[-1], place, path)

    def _partner(self, run: Run) -> Any:
        """The data set that the configuration states for a degradation to mix in, before substitution."""
        metadata = run.metadata
        return _at(merged(*stated(self.config, metadata.name, metadata.protocol, metadata.budget).values()), PARTNER)

    def _at_place(self, layer: str, name: str, place: Path, path: Path) -> Origin:
        """The origin of what the last file or word states at a place of the configuration."""
        number = deciding([_part(each.values, place, path) for each in self.layers], path)
        if number is None:
            return Origin()
        return Origin(layer, name, ".".join((*place, *path)), self.layers[number].source)


def _first(choices: Mapping[str, Any], key: str) -> tuple[str | None, str]:
    """The choice that a dotted key begins with, the longest because names may hold full stops, and what follows it."""
    for name in sorted(choices, key=len, reverse=True):
        if key == name or key.startswith(f"{name}."):
            return name, key[len(name) + 1 :]
    return None, key


def _child(found: _Found, key: str, node: Node) -> _Found:
    """The key below another, with the value that it has there, or its default if nothing replaces the mapping."""
    path = (*found.path, key)
    if isinstance(found.value, Mapping) and key in found.value:
        return _Found(path, node, found.value[key], True)
    if isinstance(found.value, Mapping) and "default" in node:
        return _Found(path, node, node["default"], True)
    return _Found(path, node)


def _walk(schema: Schema, node: Node, value: Any, key: str, parent: str) -> _Found:
    """The key below a node and its value; ColdbenchError with the nearest key for an unknown one."""
    found = _Found((), node, value, True)
    while key:
        choices = schema.choices(found.node, found.value)
        name, rest = _first(choices, key)
        if name is None:
            prefix = parent + "".join(f"{each}." for each in found.path)
            raise unknown("key", key, choices, prefix)
        found, key = _child(found, name, choices[name]), rest
    return found


def _at(value: Any, path: Path) -> Any:
    for key in path:
        value = value.get(key) if isinstance(value, Mapping) else None
    return value


def _part(values: Mapping[str, Any], place: Path, path: Path) -> Mapping[str, Any]:
    """What one layer states at a place, with its methods as the configuration reads them (`Sampling.samplers`)."""
    part = _at(values, place)
    if not isinstance(part, Mapping):
        return {}
    if path[:1] == ("sampling",) and place and isinstance(part.get("sampling"), Mapping):
        return {"sampling": SamplingLayer.model_validate(part["sampling"]).model_dump(exclude_unset=True)}
    return part
