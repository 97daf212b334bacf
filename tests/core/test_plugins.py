"""The registry of components: which names a file declares, when its code counts as changed, and installed packages."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from coldbench.core import plugins
from coldbench.core.errors import ColdbenchError

TEXT = '''"""A file of two components."""

from coldbench import metric, sampler

SCALE = 0.5
OTHER = 3


def helper(x):
    return SCALE * x


@sampler("mine")
def mine(x, x0_hat, s, r, d, *, beta: float = 0.5):
    """One line."""
    return helper(x)  # half


@metric("far")
def far(originals, images):
    return OTHER * originals
'''
UNCHANGED = {
    "comment": ("# half", "# half of it"),
    "docstring": ("One line.", "Another line."),
    "docstring of the file": ("of two components", "of some components"),
    "blank line": ("    return helper(x)", "\n    return helper(x)"),
    "lines above": ("SCALE = 0.5", "\n\nSCALE = 0.5"),
    "another component": ("OTHER * originals", "OTHER * images"),
    "constant of another": ("OTHER = 3", "OTHER = 4"),
    "one more component": ('@metric("far")', '@metric("near")\ndef near(a, b):\n    return a\n\n\n@metric("far")'),
}
CHANGED = {
    "its code": ("return helper(x)", "return -helper(x)"),
    "its default": ("beta: float = 0.5", "beta: float = 0.6"),
    "its decorator": ('@sampler("mine")', '@sampler("mine", exact=False)'),
    "a helper": ("SCALE * x", "SCALE * x * x"),
    "a constant of a helper": ("SCALE = 0.5", "SCALE = 0.25"),
    "an effect of the file": ("OTHER = 3", "OTHER = 3\nprint()"),
}


@pytest.fixture(autouse=True)
def _no_plugins() -> Iterator[None]:
    """No plug-in is in use before or after a test."""
    plugins.use([])
    yield
    plugins.use([])


def written(folder: Path, text: str = TEXT, name: str = "mine.py") -> str:
    path = folder / name
    path.write_text(text)
    return str(path)


def source(file: str) -> str:
    """The hash of the sampler's code."""
    return next(each.source for each in plugins.declared(file) if each.name == "mine")


def refusal(file: str) -> str:
    """The one line that refuses a file when it comes into use, or when its components are built."""

    def build() -> None:
        plugins.use([file])
        for each in plugins.declared(file):
            plugins.load(each.kind, each.name)

    with pytest.raises(ColdbenchError) as caught:
        build()
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("change", UNCHANGED)
def test_source_is_the_same_after(change: str, tmp_path: Path) -> None:
    old, new = UNCHANGED[change]
    assert old in TEXT
    assert source(written(tmp_path, TEXT.replace(old, new), "other.py")) == source(written(tmp_path))


@pytest.mark.parametrize("change", CHANGED)
def test_source_is_another_after_a_change_of(change: str, tmp_path: Path) -> None:
    old, new = CHANGED[change]
    assert old in TEXT
    assert source(written(tmp_path, TEXT.replace(old, new), "other.py")) != source(written(tmp_path))


@pytest.mark.parametrize(
    "text", ["import {0}\n{1}", "from {0} import scaled\n{1}", "from {0}.below import scaled\n{1}"]
)
def test_source_covers_modules_beside_the_file(text: str, tmp_path: Path) -> None:
    """As a whole, and what they import from there; where the file is, nothing else needs to know."""
    name = f"beside_{len(text)}"  # Python imports a name once
    used = name if text.startswith("import") else "scaled"
    file = written(tmp_path, text.format(name, TEXT.replace("SCALE * x", f"({used}, x)[1]")))
    package = tmp_path / name
    alone = source(file)
    package.mkdir()
    (package / "__init__.py").write_text(f"from {name}.below import scaled\n")
    (package / "below.py").write_text("def scaled(x):\n    return 2 * x\n")
    (package / "other.py").write_text("")
    first = source(file)
    assert first != alone
    plugins.use([file])
    assert plugins.load("sampler", "mine", first)
    (package / "other.py").write_text("never imported = nothing")
    (package / "below.py").write_text("# a comment\ndef scaled(x):\n    return 2 * x\n")
    assert source(file) == first
    (package / "below.py").write_text("def scaled(x):\n    return 3 * x\n")
    assert source(file) != first
    with pytest.raises(ColdbenchError, match="has changed since this run was planned"):
        plugins.load("sampler", "mine", first)


def test_module_beside_the_file_is_the_one_that_is_imported(tmp_path: Path) -> None:
    (tmp_path / "typer.py").write_text("")
    message = refusal(written(tmp_path, f"import typer\n{TEXT}"))
    assert "typer is " in message
    assert f"not {tmp_path / 'typer.py'}: rename one of them" in message


def test_file_that_was_edited_while_it_is_in_use_is_not_executed(tmp_path: Path) -> None:
    file = written(tmp_path)
    plugins.use([file])
    planned = source(file)
    written(tmp_path, TEXT.replace("SCALE * x", "-SCALE * x"))
    with pytest.raises(ColdbenchError, match="has changed since this run was planned"):
        plugins.load("sampler", "mine", planned)


def test_file_may_be_named_by_two_paths(tmp_path: Path) -> None:
    file = written(tmp_path)
    plugins.use([file, str(tmp_path / ".." / tmp_path.name / "mine.py")])
    assert plugins.names("sampler").count("mine") == 1


def test_names_of_a_file_are_known_while_it_is_in_use(tmp_path: Path) -> None:
    file = written(tmp_path)
    plugins.use([file, file])
    assert [*plugins.OWN["sampler"], "mine"] == plugins.names("sampler")
    component = plugins.find("sampler", "mine")
    assert (component.place, component.line) == (file, 14)
    assert plugins.described("sampler", {"name": "mine", "beta": 1}) == {
        "name": "mine", "beta": 1, "source": component.source,
    }  # fmt: skip
    assert plugins.described("sampler", {"name": "tacos"}) == {"name": "tacos"}
    assert plugins.load("sampler", "mine").object.__name__ == "mine"
    with pytest.raises(ColdbenchError, match="did you mean 'mine'"):
        plugins.find("sampler", "mien")
    plugins.use([])
    with pytest.raises(ColdbenchError, match="method 'mine'"):
        plugins.find("sampler", "mine")


def test_nothing_is_imported_before_a_component_is_built(tmp_path: Path) -> None:
    file = written(tmp_path, f"{TEXT}\nraise RuntimeError('imported')\n")
    plugins.use([file])
    plugins.described("sampler", {"name": "mine"})
    with pytest.raises(ColdbenchError, match=rf"{file}:\d+: RuntimeError: imported"):
        plugins.load("sampler", "mine")


def test_code_that_changed_since_the_run_was_planned_is_refused(tmp_path: Path) -> None:
    file = written(tmp_path)
    plugins.use([file])
    before = source(file)
    plugins.use([written(tmp_path, TEXT.replace("SCALE * x", "x"))])
    with pytest.raises(ColdbenchError, match="changed"):
        plugins.load("sampler", "mine", before)


def test_component_of_an_installed_package_is_found_by_its_entry_point(tmp_path, monkeypatch) -> None:
    """Its package is neither imported nor executed until the component is built."""
    package = tmp_path / "lab_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("import sys\nsys.lab_of_mine = True\n")
    written(package, name="samplers.py")
    info = tmp_path / "lab_of_mine-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lab-of-mine\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[coldbench]\nmine = lab_of_mine.samplers\nfar = lab_of_mine.samplers\n")
    monkeypatch.syspath_prepend(tmp_path)
    plugins._entry_points.cache_clear()
    try:
        assert "mine" in plugins.names("sampler")
        assert "far" in plugins.names("metric")
        assert plugins.find("sampler", "mine").place == "lab_of_mine.samplers"
        assert plugins.find("sampler", "mine").source
        assert not hasattr(sys, "lab_of_mine")
        assert plugins.load("sampler", "mine").object.__module__ == "lab_of_mine.samplers"
        assert hasattr(sys, "lab_of_mine")
    finally:
        plugins._entry_points.cache_clear()
        for name in [name for name in sys.modules if name.startswith("lab_of_mine")]:
            del sys.modules[name]
        vars(sys).pop("lab_of_mine", None)


HEAD = "from coldbench import Degradation, Sampler, degradation, sampler\n\n"
RULE = "def rule(x, x0_hat, s, r, d):\n    return x\n"
BROKEN: dict[str, tuple[str, str]] = {  # what is wrong: text of the file, culprit behind the file's name
    "syntax error": (f"{HEAD}def broken(:\n    pass\n", ":3: "),
    "no component": ("x = 1\n", " declares no component"),
    "decorator without a name": (f"{HEAD}@sampler\n{RULE}", " declares no component"),
    "name that is none": (f'{HEAD}@sampler("a b")\n{RULE}', ":3: write the name"),
    "name from a variable": (f'{HEAD}N = "a"\n@sampler(N)\n{RULE}', ":4: write the name"),
    "name of the suite": (f'{HEAD}@sampler("tacos")\n{RULE}', ":4: the name 'tacos' is taken"),
    "name twice": (f'{HEAD}@sampler("a")\n{RULE}\n@sampler("a")\n{RULE}', ":4: the method 'a' is declared twice"),
    "absent package": (f'import no_such_package\n{HEAD}@sampler("a")\n{RULE}', ":1: ModuleNotFoundError"),
    "unknown keyword": (f'{HEAD}@degradation("a", T=3)\nclass A(Degradation):\n    pass\n', ":3: TypeError"),
    "mutable parameter": (
        f'{HEAD}@sampler("a")\nclass A(Sampler):\n    weights: list = []\n', ":3: TypeError: the default of weights can"
    ),
    "own __init__": (
        f'{HEAD}@sampler("a")\nclass A(Sampler):\n    def __init__(self):\n        pass\n',
        ":3: TypeError: leave out __init__",
    ),
    "component in a loop": (
        f'{HEAD}for k in "ab":\n    @sampler(k)\n    {RULE.replace("    ", "        ")}', ":4: a component"
    ),
    "own dataclass": (
        f'from dataclasses import dataclass\n{HEAD}@degradation("a")\n@dataclass\nclass A(Degradation):\n    k: int\n',
        ":4: TypeError: leave out @dataclass",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_broken_file_is_refused_in_one_line_with_its_place(case: str, tmp_path: Path) -> None:
    text, culprit = BROKEN[case]
    file = written(tmp_path, text)
    assert f"{file}{culprit}" in refusal(file)


def test_unreadable_file_and_names_of_two_files_are_refused(tmp_path: Path) -> None:
    assert "cannot read" in refusal(str(tmp_path / "none.py"))
    assert "cannot read" in refusal(str(tmp_path))
    binary = tmp_path / "binary.py"
    binary.write_bytes("größer".encode("utf-16"))
    assert str(binary) in refusal(str(binary))
    with pytest.raises(ColdbenchError, match=r"other\.py:14: the name 'mine' is taken by .*mine\.py:14"):
        plugins.use([written(tmp_path), written(tmp_path, TEXT, "other.py")])


def test_subclass_of_an_own_degradation_adds_parameters(tmp_path: Path) -> None:
    from coldbench import degradations

    text = 'from coldbench.degradations.blur import Blur\n\n@degradation("more")\nclass More(Blur):\n    k: int = 2\n'
    plugins.use([written(tmp_path, HEAD + text)])
    spec = {"name": "more", "T": 3, "kernel": 3, "std": 1.0}
    assert degradations.build({**spec, "k": 5}, 16).k == 5  # type: ignore[attr-defined]
    with pytest.raises(ColdbenchError, match="size must be"):
        degradations.build(spec, 1)


def test_annotated_attributes_of_bases_are_parameters(tmp_path: Path) -> None:
    """Those of an undecorated base as well; a default of the wrong type or out of its limits is refused."""
    from coldbench import degradations

    text = (
        "from typing import Annotated\nfrom pydantic import Field\n{head}"
        "class Base(Degradation):\n    k: float = 0.5\n\n\n"
        '@degradation("own")\nclass Own(Base):\n    T: Annotated[int, Field(ge=2)] = {T}\n'
        "    w: tuple[float, ...] = (1.0,)\n\n"
        "    def degrade(self, x0, t, drawn):\n        return x0 * self.k\n"
    )
    plugins.use([written(tmp_path, text.format(head=HEAD, T=3))])
    built = degradations.build({"name": "own", "k": 0.25, "w": [2.0, 3.0]}, 16)
    assert (built.k, built.w, built.T) == (0.25, (2.0, 3.0), 3)  # type: ignore[attr-defined]
    with pytest.raises(ColdbenchError, match="T must be a whole number ≥ 2, not 1"):
        degradations.build({"name": "own", "T": 1}, 16)
    plugins.use([written(tmp_path, text.format(head=HEAD, T=1))])
    with pytest.raises(ColdbenchError, match="T must be a whole number ≥ 2, not 1"):
        degradations.build({"name": "own"}, 16)


def test_what_a_plugin_raises_is_located_and_other_errors_are_not(tmp_path: Path) -> None:
    plugins.use([written(tmp_path, f'{HEAD}@sampler("a")\ndef a(x, x0_hat, s, r, d):\n    return 1 / 0\n')])
    function = plugins.load("sampler", "a").object
    with pytest.raises(ZeroDivisionError) as caught:
        function(1, 2, 3, 4, 5)
    assert "mine.py:5: ZeroDivisionError" in str(plugins.located(caught.value))
    assert plugins.located(ValueError("x")) is None


def test_component_whose_file_is_not_named_says_how_to_name_it() -> None:
    """A model knows the hash of a component's code, not where its file lies here."""
    with pytest.raises(ColdbenchError, match=r"nowhere.*--plugin"):
        plugins.load("degradation", "nowhere", "0123456789abcdef")
    with pytest.raises(ColdbenchError) as error:
        plugins.load("degradation", "nowhere")
    assert "--plugin" not in str(error.value)
