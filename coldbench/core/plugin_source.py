"""What the text of a module says of its components: their names, their places, and a hash of their code."""

from __future__ import annotations

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coldbench.core.errors import ColdbenchError

KINDS = {
    "degradation": "degradation",
    "sampler": "method",
    "network": "network",
    "metric": "metric",
    "dataset": "data set",
}
"""The decorators, and what each kind is called in messages."""


@dataclass(frozen=True)
class Component:
    """What the text of a module says of one of its components.

    `place` is the file of a plug-in, or the name of an installed module. `source` is a hash of the code of the
    component and of all that it uses in its module, and of the modules beside a plug-in that this code imports, without
    comments and docstrings; "" for the suite's own. `draws` says of a degradation whether it draws.
    """

    kind: str
    name: str
    place: str
    line: int
    source: str
    draws: bool = False

    def __str__(self) -> str:
        return f"{self.place}:{self.line}"


def components_in(text: bytes, place: str, version: str | None = None) -> list[Component]:
    """The components in the text of a module. With `version` it is an own (""), or an installed module."""
    tree = _parsed(text, place)
    components = []
    for node in ast.walk(tree) if version is None else ():
        for call in getattr(node, "decorator_list", []):
            if node not in tree.body and _kind(call) is not None:
                raise ColdbenchError(f"{place}:{call.lineno}: a component must stand at the top level of its file")
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            for call in node.decorator_list:
                if (kind := _kind(call)) is not None:
                    name = call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None  # type: ignore[attr-defined]
                    if not isinstance(name, str) or not name.isidentifier() or len(name) > 40:
                        raise ColdbenchError(
                            f"{place}:{call.lineno}: write the name of a {KINDS[kind]} itself into its decorator: "
                            "letters, digits and _, at most 40"
                        )
                    folder = Path(place).parent if version is None else None
                    source = "" if version == "" else _hash(text, tree, node, version or "", folder)
                    components.append(Component(kind, name, place, node.lineno, source, _draws(tree, node)))
    return components


def _parsed(text: bytes, place: str) -> ast.Module:
    try:
        return ast.parse(text, filename=place)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = getattr(error, "lineno", None) or 1
        raise ColdbenchError(f"{place}:{line}: {getattr(error, 'msg', None) or error}") from error


def _kind(call: ast.expr) -> str | None:
    """The kind that a decorator such as `@coldbench.sampler("name")` registers; None for any other."""
    function = call.func if isinstance(call, ast.Call) else None
    name = getattr(function, "id", None) or getattr(function, "attr", None)
    return name if name in KINDS else None


def _draws(tree: ast.Module, node: ast.stmt) -> bool:
    """Whether a class, or one of its bases in the same module, defines `draw` or `draw_for`."""
    if not isinstance(node, ast.ClassDef):
        return False
    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
    own = any(isinstance(each, ast.FunctionDef) and each.name in ("draw", "draw_for") for each in node.body)
    return own or any(_draws(tree, each) for each in tree.body if isinstance(each, ast.ClassDef) and each.name in bases)


def _hash(text: bytes, tree: ast.Module, node: ast.stmt, version: str, folder: Path | None) -> str:
    """A hash of the code of `node` and of all top-level statements that it uses, 16 characters.

    Statements that bind no name may have effects, so all of them count, and so do the modules in `folder` that any of
    these statements imports.
    """
    binding: dict[str, list[ast.stmt]] = {}
    needed = [node]
    for statement in tree.body:
        bound = list(_bound(statement))
        for name in bound:
            binding.setdefault(name, []).append(statement)
        if not bound and not _is_docstring(statement):
            needed.append(statement)
    for statement in needed:  # grows
        for each in ast.walk(statement):
            used = binding.get(each.id, []) if isinstance(each, ast.Name) else []
            needed += [other for other in used if other not in needed]
    code = _code(text, tree)
    digest = hashlib.sha256(version.encode())
    for statement in sorted(needed, key=lambda each: each.lineno):
        first = min([statement.lineno, *(each.lineno for each in getattr(statement, "decorator_list", []))])
        lines = [code.get(number, "") for number in range(first, (statement.end_lineno or first) + 1)]
        digest.update("\n".join(filter(None, lines)).encode() + b"\n\n")
    for name, file in sorted(modules_beside(folder, needed).items()) if folder else ():
        own = _code(file.read_bytes(), _parsed(file.read_bytes(), str(file)))
        digest.update("\n".join([name, *filter(None, own.values())]).encode() + b"\n\n")
    return digest.hexdigest()[:16]


def modules_beside(folder: Path, statements: Iterable[ast.AST]) -> dict[str, Path]:
    """The files of the modules in `folder` that `statements` import, by the modules' names, and what these import."""
    found: dict[str, Path] = {}
    waiting = list(statements)
    for statement in waiting:  # grows
        for name in _imports(statement):
            for part in range(1, name.count(".") + 2):
                module = ".".join(name.split(".")[:part])
                place = folder.joinpath(*module.split("."))
                file = next(
                    (each for each in (place / "__init__.py", place.with_suffix(".py")) if each.is_file()), None
                )
                if file and module not in found and name.split(".")[0] != "coldbench":
                    found[module] = file
                    waiting.append(_parsed(file.read_bytes(), str(file)))
    return found


def _imports(statement: ast.AST) -> Iterator[str]:
    """The full names of the modules, and of what may be modules, that a statement imports."""
    for each in ast.walk(statement):
        if isinstance(each, ast.Import):
            yield from (alias.name for alias in each.names)
        elif isinstance(each, ast.ImportFrom) and each.module and not each.level:
            yield from (f"{each.module}.{alias.name}" for alias in each.names)


def _bound(statement: ast.stmt) -> Iterator[str]:
    """The names that a top-level statement binds."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        yield statement.name
    elif isinstance(statement, ast.Import | ast.ImportFrom):
        yield from (each.asname or each.name.split(".")[0] for each in statement.names)
    else:
        yield from (
            each.id for each in ast.walk(statement) if isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store)
        )


def _is_docstring(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _code(text: bytes, tree: ast.Module) -> dict[int, str]:
    """The lines of code by their number, without comments, docstrings and spaces at their ends."""
    lines = dict(enumerate(text.decode(errors="replace").splitlines(), 1))
    for token in tokenize.tokenize(io.BytesIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row] = lines[row][:column]
    for node in ast.walk(tree):
        for statement in getattr(node, "body", []) if not isinstance(node, ast.Lambda | ast.IfExp) else []:
            if _is_docstring(statement) and isinstance(statement.value.value, str):
                for row in range(statement.lineno, (statement.end_lineno or statement.lineno) + 1):
                    lines[row] = ""
    return {number: line.rstrip() for number, line in lines.items()}
