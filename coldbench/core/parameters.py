"""Parameters of components: the arguments of a function or class as typed fields that refuse what does not fit."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import is_dataclass
from typing import Any, get_type_hints

from pydantic import create_model

from coldbench.core.errors import ColdbenchError
from coldbench.core.plugin_source import KINDS, Component
from coldbench.core.validation import Strict, checked


def accepts(component: Component, function: Callable[..., Any], *names: str) -> None:
    """Raise ColdbenchError, with file and line, unless a component's function takes the arguments `names` by place."""
    try:
        inspect.signature(function).bind_partial(*names)
        missing = [
            each.name
            for each in list(inspect.signature(function).parameters.values())[len(names) :]
            if each.default is each.empty and each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
    except (TypeError, ValueError) as error:
        missing = [str(error)]
    if missing:
        code = getattr(function, "__code__", None)
        place = f"{code.co_filename}:{code.co_firstlineno}" if code else str(component)
        raise ColdbenchError(
            f"{place}: {function.__name__} of {KINDS[component.kind]} {component.name} must take the arguments "
            f"{', '.join(names)} and no other without a default ({missing[0]})"
        )


def arguments(
    function: Callable[..., Any], parameters: Mapping[str, Any], where: str, skip: Iterable[str] = ()
) -> dict[str, Any]:
    """`parameters` as the typed keyword arguments of a function or class, apart from those in `skip`.

    Without `skip` only keyword-only arguments are parameters. ColdbenchError naming `where`, the parameter and the
    nearest valid one, for an unknown, missing or wrong one, and for a default that can be changed.
    """
    return dict(_checked_arguments(function, parameters, where, frozenset(skip)))


def parameters_of(function: Callable[..., Any], skip: Iterable[str] = ()) -> list[str]:
    """The names of the parameters that `arguments` accepts."""
    return list(_schema(function, frozenset(skip)).model_fields)


def signature(function: Callable[..., Any]) -> list[str]:
    """The names of the arguments of a function or class."""
    return list(inspect.signature(function).parameters)


def _checked_arguments(
    function: Callable[..., Any], parameters: Mapping[str, Any], where: str, skip: frozenset[str]
) -> Iterator[tuple[str, Any]]:
    schema = _schema(function, skip)
    values = checked(schema, parameters, where)
    yield from ((name, getattr(values, name)) for name in schema.model_fields)


@functools.lru_cache(maxsize=256)
def _schema(function: Callable[..., Any], skip: frozenset[str]) -> type[Strict]:
    fields: dict[str, Any] = {}
    try:
        signature = inspect.signature(function, eval_str=not is_dataclass(function))
        hints = get_type_hints(function, include_extras=True) if is_dataclass(function) else {}
    except (NameError, TypeError, ValueError, SyntaxError) as error:
        raise ColdbenchError(f"{function.__name__}: its parameters cannot be read: {error}") from error
    for name, each in signature.parameters.items():
        if name in skip or (not skip and each.kind is not each.KEYWORD_ONLY):
            continue
        if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD):
            continue
        if isinstance(each.default, list | dict | set):
            code = getattr(getattr(function, "__init__", function), "__code__", None) or function.__code__
            place = f"{code.co_filename}:{code.co_firstlineno}"
            raise ColdbenchError(f"{place}: {function.__name__}: the default of {name} can be changed; use a tuple")
        annotation = hints.get(name, Any if each.annotation is each.empty else each.annotation)
        fields[name] = (annotation, ... if each.default is each.empty else each.default)
    return create_model(function.__name__, __base__=Strict, **fields)
