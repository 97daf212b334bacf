"""The laws of components: what `coldbench check` holds a degradation, sampler, network, metric or data set to.

Every kind has a module `contract` in the package of that kind, with its LAWS, and the cases in which they are tried:
`cases(name, parameters, data)` for `coldbench check`, `cases_of(spec, channels, size)` with the parameters of a run.
A law is a function of one case. It returns a note or None, and raises `Broken` with the reason if the case breaks it,
or `Skipped` if the law does not apply.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.plugin_source import KINDS, Component
from coldbench.core.plugins import OWN

CONTRACTS = {
    "degradation": "coldbench.degradations.contract",
    "sampler": "coldbench.sampling.contract",
    "network": "coldbench.models.contract",
    "metric": "coldbench.evaluation.contract",
    "dataset": "coldbench.data.contract",
}
"""By kind: the module of its laws, imported when a component of that kind is checked."""
PASS, FAIL, SKIPPED = "pass", "FAIL", "skipped"


class Broken(Exception):
    """A case breaks a law; the message says how, in a few words with numbers."""


class Skipped(Exception):
    """A law does not apply to a case; the message says why."""


@dataclass(frozen=True)
class Law:
    """A law by name.

    `required` ones are also tried on every plug-in in use, before a job is planned. If a `basic` one is broken, the
    laws behind it are skipped, because they would be broken for the same reason.
    """

    name: str
    hold: Callable[[Any], str | None]
    required: bool = False
    basic: bool = False


@dataclass(frozen=True)
class Finding:
    """What came out when one law was tried on one component; `why` is a note of a law that holds, too."""

    component: str
    law: str
    result: str
    why: str = ""


def chosen(file: str | None, names: Sequence[str]) -> list[Component]:
    """The components with these names in a plug-in file, which is then in use, or of the suite (None); [] means all.

    ColdbenchError naming the nearest one for an unknown name, and as from `plugins.use`.
    """
    if file is None:
        components = [plugins.find(kind, name) for kind in OWN for name in OWN[kind]]
    else:
        plugins.use([file])
        components = plugins.declared(file)
    known = [each.name for each in components]
    for name in names:
        if name not in known:
            raise unknown(f"component of {file or 'the suite'}", name, known)
    return [each for each in components if not names or each.name in names]


def examine(component: Component, parameters: Mapping[str, Any], data: Path) -> Iterator[Finding]:
    """Try all laws of a component's kind on it, with `parameters` added to those of its cases.

    `data` is the folder of data sets. Whatever a component's own code raises ends up in a finding.
    """
    title, contract = f"{KINDS[component.kind]} {component.name}", importlib.import_module(CONTRACTS[component.kind])
    try:
        cases = list(contract.cases(component.name, parameters, data))
    except Exception as error:  # a plug-in's own code may raise anything
        yield Finding(title, "can be built", *_result(error))
        return
    yield Finding(title, "can be built", PASS)
    broken = ""
    for law in contract.LAWS:
        result, why = (SKIPPED, f"'{broken}' is broken") if broken else _tried(law, cases)
        yield Finding(title, law.name, result, why)
        if law.basic and result == FAIL:
            broken = law.name


def require(kind: str, name: str, cases: Iterable[Any]) -> None:
    """Raise ColdbenchError, with file and line, if a case of a plug-in breaks a required law of its kind."""
    component, cases = plugins.find(kind, name), list(cases)
    for law in importlib.import_module(CONTRACTS[kind]).LAWS:
        if law.required:
            result, why = _tried(law, cases)
            if result == FAIL:
                raise ColdbenchError(f"{component}: {KINDS[kind]} {name} breaks the law '{law.name}': {why}")


def _tried(law: Law, cases: Iterable[Any]) -> tuple[str, str]:
    """The result of a law over all cases: that of the first that breaks it, else the first note."""
    outcomes = []
    for case in cases:
        try:
            note = law.hold(case)
        except Exception as error:  # a plug-in's own code may raise anything
            result, why = _result(error)
            if result == FAIL:
                return FAIL, " ".join(filter(None, [why, f"({case})" if str(case) else ""]))
            outcomes.append((result, why))
        else:
            outcomes.append((PASS, note or ""))
    passed = [why for result, why in outcomes if result == PASS]
    return (PASS, next(filter(None, passed), "")) if passed else (SKIPPED, outcomes[0][1] if outcomes else "")


def _result(error: Exception) -> tuple[str, str]:
    if isinstance(error, Skipped):
        return SKIPPED, str(error)
    if isinstance(error, Broken | ColdbenchError):
        return FAIL, str(ColdbenchError(str(error)))
    return FAIL, str(plugins.located(error) or ColdbenchError(f"{type(error).__name__}: {error}"))


def as_text(findings: Sequence[Finding]) -> str:
    """The findings as a table with the columns component, law, result and why."""
    rows = [("component", "law", "result", "why")]
    for finding in findings:
        rows.append((finding.component, finding.law, finding.result, finding.why))
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([row[column].ljust(widths[column]) for column in range(3)] + [row[3]]).rstrip() for row in rows
    )


def cases_in(
    component: Any,
    name: str,
    parameters: Mapping[str, Any],
    size: int,
    cases_of: Callable[[dict[str, Any], int], Iterator[Any]],
) -> Iterator[Any]:
    """What `cases_of` makes of each of a component's `test_params`, or of its defaults, with `parameters` on top.

    `size` is the side of images in pixels where no parameter says another. ColdbenchError, with the ways to give a
    missing parameter, if the component cannot be built.
    """
    stated: Sequence[Mapping[str, Any]] = getattr(component, "test_params", None) or ({},)
    for each in stated:
        values = {"name": name, **each, **parameters}
        try:
            yield from cases_of(values, values.pop("size", size))
        except ColdbenchError as error:
            raise _advice(component, error) from error


def _advice(component: Any, error: ColdbenchError) -> ColdbenchError:
    if "is missing" not in str(error) or getattr(component, "test_params", None):
        return error
    return ColdbenchError(
        f"{error}: give it a default, say KEY=VALUE, or list sets of parameters in test_params of {component.__name__}"
    )


def labelled(parameters: Mapping[str, Any]) -> str:
    """Parameters in a few words, without name and source of the component."""
    return " ".join(f"{key}={value}" for key, value in parameters.items() if key not in ("name", "source"))
