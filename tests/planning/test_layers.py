"""Layers of a configuration: what each file and word may state, and what is said of values without effect.

The last test changes the shipped grid at random: every configuration is accepted and sensible, or refused in one line.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from cases import CONFIG
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snakemake.cli import parse_config

from coldbench.core.config import Config
from coldbench.core.errors import ColdbenchError
from coldbench.core.files import parse_yaml
from coldbench.core.validation import check_layer, merged, parse_text
from coldbench.planning import layers
from coldbench.planning.grid import build

OVERLAYS = ("laptop", "gpu-hour", "short", "smoke", "variants")
BOMB = "{a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]" + "".join(
    f", {name}: &{name} [{', '.join([f'*{below}'] * 10)}]" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
) + "}"  # fmt: skip
MERGES = "{a: &a {x: 1, y: 2}" + "".join(
    f", {name}: &{name} {{<<: [{', '.join([f'*{below}'] * 20)}]}}"
    for below, name in zip("abcdefgh", "bcdefghi", strict=True)
) + "}"  # fmt: skip


def part_of(part: str) -> str:
    return f"grid: {{E05: {{protocols: {{paper: {part}}}}}}}"


REFUSED: dict[str, tuple[str, ...]] = {
    # a part that is no mapping would drop the settings below it
    "part without a value": (part_of("{training: }"), "protocols.paper.training", "keys and values", "None"),
    "part that is a number": (part_of("{network: 3}"), "protocols.paper.network", "not 3"),
    "part that is text": (part_of("{sampling: fast}"), "protocols.paper.sampling", "'fast'"),
    "part that is a list": (part_of("{preprocessing: [pad]}"), "protocols.paper.preprocessing", "['pad']"),
    "degradation that is a number": (part_of("{degradation: 3}"), "protocols.paper.degradation", "not 3"),
    "sets without a value": (part_of("{sampling: {sets: }}"), "paper.sampling.sets", "None"),
    "protocol without a value": (part_of(""), "E05.protocols.paper", "None"),
    "entry without a value": ("grid: {E05: }", "grid.E05", "None"),
    "part of an entry": ("grid: {E05: {training: }}", "grid.E05.training", "None"),
    "part of a budget": ("budgets: {laptop: {training: }}", "budgets.laptop.training", "None"),
    "budget without a value": ("budgets: {laptop: }", "budgets.laptop", "None"),
    "key of a protocol": (part_of("{trainig: {max_steps: 5}}"), "paper.trainig", "paper.training'?"),
    "key of a part": (part_of("{training: {updates: 5}}"), "paper.training.updates", "max_steps"),
    "value that another layer hides": (part_of("{training: {max_steps: many}}"), "training.max_steps", "'many'"),
    # keys that stand twice
    "key twice": ("grid: {E01: {size: 32, size: 64}}", "line 1", "'size'", "twice"),
    "experiment twice": ("grid:\n  E01: {size: 32}\n  E02: {size: 32}\n  E01: {size: 64}", "line 4", "'E01'", "twice"),
    "key twice in a merge": ("grid: {<<: {E01: {}, E01: {}}}", "'E01'", "twice"),
    "merge twice": ("grid: {E01: &a {size: 32}, E02: {<<: *a, <<: *a}}", "'<<'", "twice"),
    "key twice in quotes": ("{data: a, 'data': b}", "'data'", "twice"),
    # values that no configuration holds
    "bytes": ("grid: {E01: {degradation: {std: !!binary aGVsbG8=}}}", "degradation.std", "bytes"),
    "set": ("grid: {E01: {degradation: {std: !!set {a, b}}}}", "degradation.std", "set"),
    "date with a tag": ("data: !!timestamp 2020-01-01", "data", "date"),
    "number as a key": ("grid: {1: {title: x}}", "grid.1", "valid string"),
    "null as a key": ("grid: {E01: {degradation: {null: 3}}}", "degradation", "key None"),
    "list as a key": ("grid: {[a]: 3}", "not YAML", "unhashable"),
    "list for a name": ("grid: {A1: {model: [a]}}", "grid.A1.model", "['a']"),
    "list for a partner": ("grid: {E18: {degradation: {partner: [a]}}}", "partner", "data set", "['a']"),
    "number of 5,000 digits": (f"seeds: [{'9' * 5000}]", "line 1", "5,000 digits"),
    "number of 1,000 digits in hexadecimal": (f"seeds: [0x{'f' * 100}]", "seeds.0", "128 bits"),
    "number without digits": ("seeds: [0x_]", "not YAML"),
    "flag with a tag": ("compile: !!bool maybe", "not YAML", "maybe"),
    "deep lists": (f"seeds: {'[' * 2000}{']' * 2000}", "line 1", "50 levels"),
    "deep mappings": (f"grid: {'{a: ' * 2000}1{'}' * 2000}", "line 1", "50 levels"),
    "deep block": ("\n".join(" " * level + "a:" for level in range(300)), "levels of nesting"),
    "alias to itself": ("grid: &a {E01: *a}", "grid.E01", "50 levels"),
    "list in itself": ("seeds: &a [*a]", "seeds", "50 levels"),
    "aliases that multiply": (f"grid: {{E01: {{degradation: {{T: {BOMB}}}}}}}", "grid.E01", "50,000 values"),
    "merges that multiply": (f"grid: {MERGES}", "line 1", "too many keys"),
    "control character": ('grid: {E01: {title: "a\\e[31mb"}}', "grid.E01.title", "control character"),
    "half a character": ('grid: {E01: {title: "\\ud800"}}', "grid.E01.title", "control character"),
    "unprintable file": ("grid: \x01", "not YAML", "#x0001"),
    "long text": (f"grid: {{E01: {{title: {'x' * 20_000}}}}}", "grid.E01.title", "20,000 characters"),
    "long key": (f"grid: {{{'x' * 300}: 3}}", "grid", "300 characters"),
    "long file": ("# " + "x" * 400_000, "400,002 characters"),
    "object of Python": ("grid: !!python/object/apply:os.getcwd []", "not YAML", "python/object"),
    # paths, as they stand
    "home in a path": ("results: ~/x", "results", "not expanded", str(Path.home() / "x")),
    "home of another": ("data: ~nobody-of-this-name/x", "data", "not expanded", "write the folder itself"),
    "variable in a path": ("reports: $COLDBENCH_NOWHERE/out", "reports", "not expanded", "write the folder itself"),
    "variable in braces": ("inception: 'a/${COLDBENCH_NOWHERE}'", "inception", "not expanded"),
    "variable of an import": ("imports: {E01-fitted: $COLDBENCH_NOWHERE/a.pt}", "imports.E01-fitted", "not expanded"),
    "home of an image": ("container: ~/coldbench.sif", "container", "not expanded"),
    "dash before a folder": ("results: -rf", "results", "dash"),
    "line end in a folder": ('reports: "a\\nb"', "reports", "line end"),
    "zero byte in a folder": ('data: "a\\0b"', "data", "control character"),
    "long folder": (f"results: {'x' * 256}", "results", "255 bytes"),
    "deep folder": (f"results: {'x/' * 300}x", "results", "500 characters"),
    "wildcard in a folder": ("results: 'a*'", "results", "'*'", "patterns"),
    "root": ("reports: /", "reports", "root"),
    "no folder": ("data: ''", "data", "at least 1"),
    "long name": (f"budgets: {{{'m' * 65}: {{}}}}", "budgets", "64 characters"),
    "line end in a name": ('budgets: {"mine\\n": {}}', "budgets.mine", "pattern"),
    # numbers without sense
    **{
        f"{key.rpartition('.')[2]} {value}": (yaml.safe_dump(overlay), key, words)
        for key, value, words, overlay in (
            ("preprocessing.pad", "1000000000", "256", {"grid": {"E01": {"preprocessing": {"pad": 10**9}}}}),
            ("network.dim", "1000000", "512", {"budgets": {"laptop": {"network": {"dim": 10**6}}}}),
            ("network.dim_mults.1", "10^9", "32", {"budgets": {"laptop": {"network": {"dim_mults": [1, 10**9]}}}}),
            ("network.attention", "10^9", "256", {"grid": {"E02": {"network": {"attention": 10**9}}}}),
            ("training.max_steps", "10^30", "10000000", {"grid": {"E01": {"training": {"max_steps": 10**30}}}}),
            ("training.batch_size", "10^9", "65536", {"grid": {"E01": {"training": {"batch_size": 10**9}}}}),
            ("training.ema_start", "10^12", "10000000", {"grid": {"E01": {"training": {"ema_start": 10**12}}}}),
            ("sampling.inference_batch", "10^9", "65536", {"grid": {"E01": {"sampling": {"inference_batch": 10**9}}}}),
            ("sampling.images", "10^12", "10000000", {"grid": {"E01": {"sampling": {"images": 10**12}}}}),
            ("sampling.shard_size", "10^12", "65536", {"grid": {"E01": {"sampling": {"shard_size": 10**12}}}}),
            ("sampling.jobs", "10^9", "1000", {"grid": {"E01": {"sampling": {"jobs": 10**9}}}}),
            ("sampling.max_frames", "10^9", "10000", {"grid": {"E01": {"sampling": {"max_frames": 10**9}}}}),
            ("sets.a.stride", "10^9", "10000", {"grid": {"E01": {"sampling": {"sets": {"a": {"stride": 10**9}}}}}}),
            ("checkpoint_every", "infinity", "finite", {"checkpoint_every": float("inf")}),
            ("checkpoint_every", "1e9", "86400", {"checkpoint_every": 1e9}),
            ("max_cpu_hours", "infinity", "finite", {"max_cpu_hours": float("inf")}),
            ("max_cpu_hours", "as text", "finite", {"max_cpu_hours": "1e999"}),
            ("seeds.0", "2^64", "4294967296", {"seeds": [2**64]}),
            ("seeds.0", "below 0", "equal to 0", {"seeds": [-3]}),
            ("threads.train", "10^9", "1024", {"threads": {"train": 10**9}}),
        )
    },
    "components 10^9": (
        "grid: {E17: {sampling: {sets: {generated: {start: {kind: grid, components: 1000000000}}}}}}",
        "start.components", "10000",
    ),
    "components without a mixture": (
        "grid: {E18: {sampling: {sets: {generated: {start: {kind: partner, components: 5}}}}}}",
        "components has no effect", "partner",
    ),
    "noise without end": (
        "grid: {E17: {sampling: {sets: {generated: {start: {kind: grid, noise_level: .inf}}}}}}",
        "start.noise_level", "finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_layer_is_refused_in_one_line(case: str, tmp_path: Path) -> None:
    text, *words = REFUSED[case]
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    began = time.process_time()
    with pytest.raises(ColdbenchError) as caught:
        layers.load([path])
    assert time.process_time() - began < 2
    message = str(caught.value).replace(str(path), "FILE")
    assert not [word for word in words if word not in message], message
    assert len(message) <= 300
    assert message.isprintable()


@pytest.mark.parametrize("name", OVERLAYS)
def test_shipped_overlays_are_layers_without_a_vain_value(name: str) -> None:
    stated = layers.load([CONFIG / "paper.yaml", CONFIG / "laptop.yaml", CONFIG / f"{name}.yaml"])
    grid = build(merged(*(each.values for each in stated)), lambda *_: False, False, False)
    assert layers.without_effect(grid, stated) == []


def test_text_stays_what_it_is(tmp_path: Path) -> None:
    """A date, a name with odd letters and a folder of odd letters are text like any other."""
    path = tmp_path / "mine.yaml"
    path.write_text("{results: 2020-01-01, data: 'größe 100 %/a&b', experiments: [01_a]}", encoding="utf-8")
    values = layers.read([path])
    assert values == {"results": "2020-01-01", "data": "größe 100 %/a&b", "experiments": ["01_a"]}
    assert layers.read(["results=2020-01-01", "budget=paper"]) == {"results": "2020-01-01", "budget": "paper"}


@pytest.mark.parametrize(
    "text",
    ["results", "a b", "1e3", "5", "1_000", "nan", "yes", "True", "true", "null", "~", "0x10", "1:30", "2020-01-01", "",
     "a\n", "'a b'", '"a', "@a", "%a", "a: b", "a # b", "[0, '1']", "{train: 3}", "{a: {b: 2}}", "1" * 5000],
)  # fmt: skip
def test_word_means_what_it_means_to_snakemake(text: str) -> None:
    """Numbers inside of lists and mappings are text to Snakemake; the schema converts them."""
    (theirs,) = parse_config([f"results={text}"]).values()
    ours = layers._value("results", text)
    if isinstance(ours, list | dict):
        ours, theirs = parse_text(ours), parse_text(theirs)
    assert repr(ours) == repr(theirs)


def test_json_is_a_layer(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text('{"budget": "paper",\n "seeds": [1]}')
    assert layers.read([path]) == {"budget": "paper", "seeds": [1]}


def test_layers_of_snakemake_are_the_grid_its_overlays_and_nested_words(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    mine.write_text("budget: smoke")
    files = [mine, CONFIG / "paper.yaml"]
    words = ["-n", "--config", "results=@a: b", "grid={E01: {size: 16}}", "reports/table1.html"]
    stated = layers.of_snakemake(files, ["snakemake", *words])
    assert [each.source for each in stated] == [str(CONFIG / "paper.yaml"), str(mine), "grid={E01: {size: 16}}"]
    with pytest.raises(ColdbenchError, match=r"'size' stands twice"):
        layers.of_snakemake(files, ["snakemake", "--config", "grid={E01: {size: 32, size: 16}}"])
    with pytest.raises(ColdbenchError, match=r"grid\.E05\.training.*not None"):
        layers.of_snakemake(files, ["snakemake", "--config", "grid={E05: {training: }}"])


LAPTOP = yaml.safe_load((CONFIG / "paper.yaml").read_text())["budgets"]["laptop"]
VAIN = {
    "experiment under a budget": (
        "grid: {E01: {training: {max_steps: 30}}}",
        ["grid.E01.training.max_steps", f"budgets.laptop.training.max_steps is {LAPTOP['training']['max_steps']}"],
    ),
    "experiment under a protocol": (
        "grid: {E05: {degradation: {std: 2.0}}, E01: {protocol: paper, degradation: {T: 30}}}",
        ["grid.E01.degradation.T", "grid.E01.protocols.paper.degradation.T is 40"],
    ),
    "protocol under a budget": (
        "grid: {E05: {protocols: {paper: {training: {batch_size: 256}}}}}",
        ["grid.E05.protocols.paper.training.batch_size", "budgets.laptop.training.batch_size is 32"],
    ),
    "sampling under a budget": (
        "grid: {A1: {sampling: {images: 100}}}",
        ["grid.A1.sampling.images", "budgets.laptop.sampling.images is 500"],
    ),
    "network under a budget": (
        "grid: {E02: {network: {dim: 32}}}",
        ["grid.E02.network.dim", f"network.dim is {LAPTOP['network']['dim']}"],
    ),
    "the same value": (
        f"grid: {{E01: {{training: {{max_steps: '{LAPTOP['training']['max_steps']}', learning_rate: '1e-3'}}}}}}",
        [],
    ),
    "value with an effect": ("grid: {E01: {training: {ema_decay: 0.9}, degradation: {T: 30}}}", []),
    "value of another budget": ("budgets: {paper: {training: {max_steps: 50}}}", []),
    "budget that changes": ("{grid: {E01: {training: {max_steps: 30}}}, budget: paper}", []),
    "hidden experiment": ("{grid: {E01: {training: {max_steps: 30}}}, experiments: [E04]}", []),
}  # fmt: skip


@pytest.mark.parametrize("case", VAIN)
def test_value_without_effect_is_said_in_one_line(case: str, tmp_path: Path) -> None:
    text, words = VAIN[case]
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    stated = layers.load([CONFIG / "paper.yaml", CONFIG / "laptop.yaml", path])
    grid = build(merged(*(each.values for each in stated)), lambda *_: False, False, False)
    lines = layers.without_effect(grid, stated)
    assert len(lines) == bool(words)
    assert not [word for word in words if word not in lines[0]]


def test_value_that_a_later_overlay_replaces_is_no_mistake(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("grid: {E01: {degradation: {T: 30}}}")
    stated = layers.load([CONFIG / "paper.yaml", CONFIG / "laptop.yaml", path, "grid={E01: {degradation: {T: 25}}}"])
    grid = build(merged(*(each.values for each in stated)), lambda *_: False, False, False)
    assert grid.all_runs["E01-fitted"].experiment.degradation["T"] == 25
    assert layers.without_effect(grid, stated) == []


# Changes at random

KEPT = ("E04", "E05", "E09", "E17", "E18", "A1", "A3", "E01")


def small_grid() -> dict[str, Any]:
    """Some experiments of every kind, at two budgets, with data that are always there."""
    raw = merged(*(yaml.safe_load((CONFIG / f"{name}.yaml").read_text()) for name in ("paper", "smoke")))
    budgets = {name: raw["budgets"][name] for name in ("laptop", "smoke")}
    return {**raw, "reuse_budgets": [], "budgets": budgets, "grid": {name: raw["grid"][name] for name in KEPT}}


BASE = small_grid()
PLAIN = """
null 2 3 8 16 32 0.5 0 -1 2.5 true '' text [] {} [a] [1,2] [null] '7' 1e-3 1000000000 18446744073709551616
.inf -.inf .nan '1e999' 2020-01-01 2020-13-77 ~/x $HOME/x '..' a/b 'a{b}' '100%' größe '-x' folder-a folder-..
folder-a/b folder-cats+dogs digits photos E04 [direct,naive] [tacos,ddpm]
"""
ODD = (
    *("!!binary aGVsbG8=", "!!set {a, b}", "!!python/tuple [1]", "{1: 2}", "{[a]: 1}", "{a: 1, a: 2}", "&a [*a]"),
    *("&a {a: *a}", BOMB, MERGES, "[" * 500 + "]" * 500, f"1{'0' * 30}", "9" * 5000, f"'{'9' * 5000}'"),
    *('"a\\nb"', '"a\\0b"', '"\\ud800"', "x" * 300, "x" * 20_000, "{max_steps: 50}", "{images: 1}"),
    *("{kind: means, components: 4}", "{start: {kind: noise}}", "{name: blur, T: 3, kernel: 3, std: 1.0}"),
)
VALUES = st.sampled_from([*PLAIN.split(), *ODD])
KEYS = st.sampled_from(
    [
        "new",
        "",
        "..",
        "a/b",
        "a b",
        "%",
        "größe",
        "x" * 80,
        "x" * 300,
        "training",
        "size",
        "kernel",
        "a\nb",
        "\x00",
        "~",
    ]
)


def paths_of(value: Any) -> list[tuple[str, ...]]:
    """The path of every value in nested mappings."""
    inside = value.items() if isinstance(value, dict) else ()
    return [(), *((key, *path) for key, each in inside for path in paths_of(each))]


PATHS = st.sampled_from(paths_of(BASE)[1:])
SHALLOW = st.sampled_from([path for path in paths_of(BASE) if len(path) in (0, 2, 3)])


@settings(max_examples=600, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
@given(PATHS | st.tuples(SHALLOW, KEYS).map(lambda pair: (*pair[0], pair[1])), VALUES)
def test_changed_configuration_is_sensible_or_refused_in_one_line(path: tuple[str, ...], value: str) -> None:
    text = "".join(f"{{{json.dumps(key)}: " for key in path) + value + "}" * len(path)
    began = time.process_time()
    try:
        overlay = parse_yaml(text, "mine.yaml")
        check_layer(Config, overlay, "mine.yaml")
    except ColdbenchError as error:
        assert_one_line(error)
        if MERGES in text:  # Snakemake would not come to an end, and nothing of ours runs before
            return
        try:  # as Snakemake reads it; what it refuses itself never comes this far
            overlay = yaml.full_load(text)
        except (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError):
            return
    try:
        grid = build(merged(BASE, overlay), lambda *_: False)
    except ColdbenchError as error:
        assert_one_line(error)
    else:
        assert layers.without_effect(grid, [layers.Layer(str(CONFIG / "paper.yaml"), BASE)]) == []
        for run in grid.all_runs.values():
            json.dumps(run.model_dump(), allow_nan=False).encode()
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", run.metadata.run)
            assert len(run.file_name) < 255
            assert run.experiment.training.max_steps * run.experiment.training.batch_size < 2**63
    assert time.process_time() - began < 2


def assert_one_line(error: ColdbenchError) -> None:
    assert 0 < len(str(error)) <= 300
    assert str(error).isprintable()
