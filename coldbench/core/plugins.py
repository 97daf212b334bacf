"""Components by kind and name: the suite's own, those of plug-in files, and those of installed packages.

A component is a class or function under a decorator of this module, such as `@sampler("momentum")`. Which components a
module holds is read from its text. A module is imported when one of its components is built, so `status` and `plan`
load nothing for a component that no run uses, and no module that the configuration does not name is ever imported.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, is_dataclass
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import pydantic.dataclasses
from pydantic import ConfigDict
from pydantic.dataclasses import is_pydantic_dataclass

from coldbench.core.errors import ColdbenchError, unknown
from coldbench.core.plugin_source import KINDS, Component, components_in, modules_beside

GROUP = "coldbench"
"""The group of entry points: an installed package names its components, and the module that each is in."""
OWN: dict[str, dict[str, str]] = {
    "degradation": {
        "animorphosis": "coldbench.degradations.mixing",
        "blur": "coldbench.degradations.blur",
        "decolorization": "coldbench.degradations.decolorization",
        "inpainting": "coldbench.degradations.inpainting",
        "inpainting_generation": "coldbench.degradations.inpainting",
        "noise": "coldbench.degradations.mixing",
        "snow": "coldbench.degradations.snow",
        "superresolution": "coldbench.degradations.superresolution",
    },
    "sampler": dict.fromkeys(
        ("direct", "naive", "tacos", "estimated", "resampled", "naive_resampled", "ddpm"),
        "coldbench.sampling.samplers",
    ),
    "network": {
        "unet_convnext": "coldbench.models.unet_convnext",
        "unet_ddpm": "coldbench.models.unet_ddpm",
    },
    "metric": dict.fromkeys(("ssim", "rmse", "psnr"), "coldbench.evaluation.metrics.similarity"),
    "dataset": dict.fromkeys(
        ("mnist", "cifar10", "celeba", "celeba_aligned", "afhq", "digits", "photos"), "coldbench.data.registry"
    ),
}
"""The suite's own components, as an installed package names its own by entry points: kind, name, module."""

Object = TypeVar("Object", bound=Callable[..., Any])
PARAMETERS = ConfigDict(strict=True, extra="forbid", arbitrary_types_allowed=True, validate_default=True)
"""Of parameters and defaults: `True` and 2.5 are no whole numbers, "1" is no number, and an unknown one is an error."""


@dataclass(frozen=True)
class Registered:
    """A component's class or function, and the keywords of its decorator."""

    object: Any
    options: dict[str, Any] = field(default_factory=dict)


_registered: dict[tuple[str, str, str], Registered] = {}
"""By module, kind and name: what the decorators were applied to."""
_plugins: dict[tuple[str, str], Component] = {}
"""By kind and name: the components of the plug-in files in use."""
_files: set[str] = set()
"""The files of the plug-ins that were imported, as tracebacks name them."""


def _register(kind: str, name: str, options: dict[str, Any], frozen: bool | None = None) -> Callable[[Object], Object]:
    def decorate(target: Object) -> Object:
        own_fields = "__dataclass_fields__" in vars(target)  # a base may be a dataclass as well
        if own_fields and kind == "degradation" and not is_pydantic_dataclass(target):  # type: ignore[arg-type]
            raise TypeError(f"leave out @dataclass above {target.__name__}: @degradation makes it one")
        if frozen is not None and inspect.isclass(target) and not own_fields:
            if "__init__" in vars(target):
                raise TypeError(f"leave out __init__ of {target.__name__}: annotated attributes are its parameters")
            annotations = _annotations(target)
            if kind == "degradation" and not is_dataclass(target):  # so that a class need not repeat them
                target.__annotations__ = annotations = {"size": int, "T": int, **annotations}
            for each in annotations:
                if isinstance(getattr(target, each, None), list | dict | set):
                    raise TypeError(f"the default of {each} can be changed, in {target.__name__}; use a tuple")
            target = pydantic.dataclasses.dataclass(frozen=frozen, kw_only=True, config=PARAMETERS)(target)  # type: ignore[assignment]
        _registered[target.__module__, kind, name] = Registered(target, options)
        return target

    return decorate


def _annotations(target: type) -> dict[str, Any]:
    """The annotated attributes of a class and of its bases, as far as these are no dataclasses of their own.

    A class gets those of its bases as its own, because dataclasses look at no other.
    """
    found: dict[str, Any] = {}
    for base in reversed(target.__mro__[:-1]):
        if not base.__module__.startswith(("coldbench.", "abc")) and not is_dataclass(base):
            found |= inspect.get_annotations(base)
    if found:
        target.__annotations__ = found
    return found


def degradation(name: str) -> Callable[[Object], Object]:
    """Register a subclass of `degradations.Degradation` as the degradation `name`.

    Its annotated attributes become typed, frozen parameters (a pydantic dataclass), if it is no dataclass yet.
    """
    return _register("degradation", name, {}, frozen=True)


def sampler(name: str, **options: Any) -> Callable[[Object], Object]:
    """Register an update rule or a subclass of `sampling.samplers.Sampler` as the method `name`.

    Parameters are the keyword-only arguments of the rule, or the annotated attributes of the class. The options are
    `exact`, `one_step` and `estimates_z`: fields of `sampling.samplers.Method`.
    """
    return _register("sampler", name, options, frozen=False)


def network(name: str) -> Callable[[Object], Object]:
    """Register a `torch.nn.Module` as the network `name`.

    It is built with the keywords `channels` and `size`, and with its parameters, the other arguments of `__init__`.
    """
    return _register("network", name, {})


def metric(name: str, **options: Any) -> Callable[[Object], Object]:
    """Register a function of originals and images as the metric `name`.

    Its parameters are its keyword-only arguments. The options are `higher_is_better`, `best`, `symmetric`, `average`:
    the fields of `evaluation.measurements.PerImage`.
    """
    return _register("metric", name, options)


def dataset(name: str, **options: Any) -> Callable[[Object], Object]:
    """Register a function of folder, size and split that yields images as the data set `name`.

    The options are `channels` and the numbers of images, `train` and `test`; the texts `title` and `preprocessing`; and
    the functions `files` and `check` of a data set in files: the fields of `data.Dataset`.
    """
    return _register("dataset", name, options)


def use(files: Iterable[str]) -> None:
    """Make the components in `files`, and no other plug-in files, known by their names.

    ColdbenchError, with file and line, for a file that cannot be read or is no Python, that declares no component or
    one by a name that is taken.
    """
    _plugins.clear()
    for file in {os.path.realpath(file): file for file in files}.values():  # a file may be named by two paths
        for component in declared(file):
            key = component.kind, component.name
            if component.name in OWN[component.kind]:
                raise ColdbenchError(f"{component}: the name '{component.name}' is taken by the suite's own")
            if key in _plugins:
                raise ColdbenchError(f"{component}: the name '{component.name}' is taken by {_plugins[key]}")
            _plugins[key] = component


def declared(file: str) -> list[Component]:
    """The components that a plug-in file declares, read from its text; ColdbenchError as from `use`."""
    components = components_in(_text(file), file)
    if not components:
        raise ColdbenchError(f'{file} declares no component: put a decorator such as @coldbench.sampler("name") on one')
    names = [(each.kind, each.name) for each in components]
    for each in components:
        if names.count((each.kind, each.name)) > 1:
            raise ColdbenchError(f"{each}: the {KINDS[each.kind]} '{each.name}' is declared twice")
    return components


def _text(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ColdbenchError(f"cannot read plug-in {file}: {error.strerror or error}") from error


def names(kind: str) -> list[str]:
    """The names of all components of a kind."""
    installed = []
    for name, entry in _entry_points().items():
        with contextlib.suppress(ColdbenchError):  # a broken package that nobody named is no reason to end
            installed += [name] * any(each.kind == kind for each in _of_entry(entry))
    return [*OWN[kind], *(name for each, name in _plugins if each == kind), *installed]


def find(kind: str, name: str) -> Component:
    """The component of a kind by its name, without importing it; ColdbenchError naming the nearest one if none is."""
    if name in OWN[kind]:
        return _own(kind, name)
    if (kind, name) in _plugins:
        return _plugins[kind, name]
    for each in _of_entry(_entry_points().get(name)):
        if (each.kind, each.name) == (kind, name):
            return each
    raise unknown(KINDS[kind], name, names(kind))


def _found(kind: str, name: str, source: str | None) -> Component:
    """`find`, whose error says how to name the file of a component that a model or run was made with."""
    try:
        return find(kind, name)
    except ColdbenchError as error:
        hint = "; a file of components has it: name that file (--plugin FILE, or plugins in a configuration)"
        raise ColdbenchError(f"{error}{hint if source else ''}") from None


def load(kind: str, name: str, source: str | None = None) -> Registered:
    """The registered class or function of a component; its module is imported if it is not yet.

    With `source`, ColdbenchError if the component's code is another by now. ColdbenchError with file and line if the
    import fails.
    """
    component, text = _found(kind, name, source), b""
    if (kind, name) in _plugins and name not in OWN[kind]:  # what is executed is what was compared
        text = _text(component.place)
        now = components_in(text, component.place)
        component = next((each for each in now if (each.kind, each.name) == (kind, name)), component)
    if source is not None and component.source != source:
        raise ColdbenchError(
            f"{component}: the code of {KINDS[kind]} '{name}' has changed since this run was planned or trained"
        )
    module = _executed(component.place, text) if text else _imported(component.place)
    if (module.__name__, kind, name) not in _registered:
        raise ColdbenchError(f"{component}: importing it does not register the {KINDS[kind]} '{name}'")
    return _registered[module.__name__, kind, name]


def described(kind: str, spec: Mapping[str, Any]) -> dict[str, Any]:
    """A component's name and parameters, with the hash of its source if it is no component of the suite."""
    component = find(kind, spec["name"])
    return {**spec, "source": component.source} if component.source else dict(spec)


def located(error: BaseException, reason: str = "") -> ColdbenchError | None:
    """An exception that a plug-in's own code raised, as one line with its file and line; None for any other."""
    frames = [each for each in traceback.extract_tb(error.__traceback__) if each.filename in _files]
    return ColdbenchError(f"{frames[-1].filename}:{frames[-1].lineno}: {reason or _reason(error)}") if frames else None


@functools.cache
def _own(kind: str, name: str) -> Component:
    module = OWN[kind][name]
    if kind == "dataset":
        return Component(kind, name, module, 1, "")
    file = Path(__file__).parents[1].joinpath(*module.split(".")[1:]).with_suffix(".py")
    components = components_in(file.read_bytes(), module, "")
    return next(each for each in components if (each.kind, each.name) == (kind, name))


@functools.cache
def _entry_points() -> dict[str, importlib.metadata.EntryPoint]:
    points = importlib.metadata.entry_points(group=GROUP)
    return {point.name: point for point in points}


@functools.cache
def _of_entry(point: importlib.metadata.EntryPoint | None) -> list[Component]:
    """The components in the module of an entry point, read from its file without importing anything."""
    if point is None:
        return []
    paths, found = None, None
    parts = point.module.split(".")
    for number in range(1, len(parts) + 1):
        found = PathFinder.find_spec(".".join(parts[:number]), paths)
        if found is None:
            break
        paths = found.submodule_search_locations
    if found is None or not found.origin:
        raise ColdbenchError(f"entry point {point.name} of group {GROUP}: module {point.module} is not installed")
    return components_in(Path(found.origin).read_bytes(), point.module, point.dist.version if point.dist else "0")


def _imported(module: str) -> ModuleType:
    try:
        imported = importlib.import_module(module)
    except ColdbenchError:
        raise
    except Exception as error:  # a plug-in's own code may raise anything
        raise ColdbenchError(f"{module}: {_reason(error)}") from error
    if imported.__file__ and not module.startswith("coldbench."):
        _files.add(imported.__file__)
    return imported


@functools.lru_cache(maxsize=64)
def _executed(file: str, text: bytes) -> ModuleType:
    """The module of a plug-in file, executed once for each content."""
    name = f"coldbench_plugin_{hashlib.sha256(file.encode() + text).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up there
    _files.add(file)
    folder = str(Path(file).resolve().parent)
    if folder not in sys.path:  # for the modules beside it
        sys.path.append(folder)
    try:
        exec(compile(text, file, "exec", dont_inherit=True), module.__dict__)
        _check_modules(file, text)
    except ColdbenchError:
        del sys.modules[name]
        raise
    except Exception as error:
        del sys.modules[name]
        raise located(error) or ColdbenchError(f"{file}:1: {_reason(error)}") from error
    return module


def _check_modules(file: str, text: bytes) -> None:
    """Raise ColdbenchError if a module beside a plug-in has the name of another that was imported in its place."""
    for name, place in modules_beside(Path(file).parent, [ast.parse(text)]).items():
        imported = getattr(sys.modules.get(name), "__file__", None)
        if imported and not place.samefile(imported):
            raise ColdbenchError(f"{file}: {name} is {imported}, not {place}: rename one of them")


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
