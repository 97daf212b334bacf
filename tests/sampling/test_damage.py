"""Every file that a later stage opens: cut anywhere or with any bit flipped, it ends in one line, and is never used."""

from __future__ import annotations

import json
import math
import re
import shutil
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import safetensors.torch
import torch
from cases import METADATA, ROOT, sampled, synthetic, untrained

from coldbench import data
from coldbench.core.checksums import read_sealed, write_sealed
from coldbench.core.errors import ColdbenchError
from coldbench.core.experiment import Experiment
from coldbench.core.files import read_json
from coldbench.evaluation import scores, tables
from coldbench.models import model_file
from coldbench.models.header import read_header
from coldbench.sampling import manifest as manifests
from coldbench.sampling.manifest import made_from
from coldbench.sampling.restore import RestoreSettings, restore

CPU = torch.device("cpu")
PHOTO = (ROOT / "results/published/laptop-cpu/laptop/E01-fitted/figures/forward.png").read_bytes()
PLACES = 60


class Results(NamedTuple):
    """The files of a run."""

    model: Path
    manifest: Path
    scores: Path

    @property
    def trajectory(self) -> Path:
        return next(self.manifest.parent.rglob("trajectory-*.npz"))

    @property
    def shard(self) -> Path:
        return next(self.manifest.parent.rglob("tacos-*.npy"))


@pytest.fixture(scope="module")
def results(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Results:
    folder = tmp_path_factory.mktemp("run")
    facts = {"name": "tiny", "protocol": "test", "budget": "smoke", "dataset": "digits", "size": 16, "seed": 3}
    degradation = {"name": "superresolution", "T": 2}
    parts = {"degradation": degradation, "network": {"dim": 8, "dim_mults": [1, 2]}, "training": {}}
    model = untrained(folder / "model.safetensors", Experiment.model_validate(facts | parts))
    manifest = sampled(folder, model, digits, images=4)
    scores.write_scores(synthetic(), folder / "scores.parquet", {"samples": "0"})
    return Results(model, manifest, folder / "scores.parquet")


ARTEFACTS: dict[str, tuple[Callable[[Results], Path], list[Callable[[Results], object]]]] = {
    "model": (lambda r: r.model, [lambda r: model_file.load_model(r.model, CPU)]),
    "manifest": (lambda r: r.manifest, [lambda r: manifests.read_manifest(r.manifest)]),
    "shard": (lambda r: r.shard, [lambda r: manifests.read_images(r.manifest, "test", "tacos")]),
    "trajectory": (lambda r: r.trajectory, [lambda r: manifests.read_trajectory(r.manifest, "test")]),
    "scores": (
        lambda r: r.scores,
        [lambda r: scores.read_scores([r.scores]), lambda r: tables.read_made_from(r.scores)],
    ),
}
"""Each file, and what opens it."""


def damaged(whole: bytes) -> Iterator[bytes]:
    """The content cut, longer, and with single bits flipped."""
    yield from (whole[:count] for count in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1))
    yield whole + b"\n"
    for number in range(PLACES):
        place = number * (len(whole) - 1) // (PLACES - 1)
        yield whole[:place] + bytes([whole[place] ^ 1 << number % 8]) + whole[place + 1 :]


def refused(call: Callable[[], object]) -> str:
    with pytest.raises(ColdbenchError) as error:
        call()
    message = str(error.value)
    assert not any(unicodedata.category(character).startswith("C") for character in message), message
    assert "again" in message
    return message


@pytest.mark.parametrize("name", list(ARTEFACTS))
def test_damaged_files_are_refused_in_one_line_that_names_them(results: Results, name: str) -> None:
    path_of, opens = ARTEFACTS[name]
    path = path_of(results)
    whole = path.read_bytes()
    try:
        for content in damaged(whole):
            path.write_bytes(content)
            for open_file in opens:
                assert path.name in refused(lambda: open_file(results))  # noqa: B023 (called at once)
    finally:
        path.write_bytes(whole)
    for open_file in opens:
        open_file(results)


def test_the_header_of_a_damaged_model_is_read_or_refused(results: Results) -> None:
    """The weights are not verified, but a model that was cut is noticed."""
    whole = results.model.read_bytes()
    try:
        for content in (*(whole[:count] for count in (0, 7, 8, 200, len(whole) - 1)), b"\xff" * 99, whole + b"1"):
            results.model.write_bytes(content)
            refused(lambda: read_header(results.model))
    finally:
        results.model.write_bytes(whole)
    assert read_header(results.model).sha256 == model_file.load_model(results.model, CPU).sha256


@pytest.mark.parametrize("key", ["channels", "data", "partner", "provenance", "sha256", "degradation"])
def test_a_model_that_does_not_say_what_it_is_is_refused(results: Results, tmp_path: Path, key: str) -> None:
    """Nothing is guessed: not the channels from the names of layers, nor the images it was trained on."""
    with safetensors.safe_open(results.model, framework="pt") as stream:
        metadata = json.loads(stream.metadata()["experiment"])
    del metadata[key]
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"w": torch.zeros(1)}, path, {"experiment": json.dumps(metadata)})
    with pytest.raises(ColdbenchError, match="sha256|checksum" if key == "sha256" else f"{key} is missing"):
        read_header(path)


# A manifest that someone else wrote: it states the right checksum


def changed(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: content | changes


def first_shard(**changes: Any) -> Callable[[dict[str, Any]], dict[str, Any]]:
    return lambda content: content | {"shards": [content["shards"][0] | changes, *content["shards"][1:]]}


FORGED: list[tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = [  # change, offending key
    (changed(shards=3), "shards"),
    (changed(shards=["x"]), "shards"),
    (changed(sets={"test": []}), "sets"),
    (changed(experiment=None), "experiment"),
    (changed(seed=math.inf), "seed"),
    (changed(trajectories={}), "trajectories"),
    (first_shard(first=1), "gap"),
    (first_shard(stop=2), "gap|end at image"),
    (first_shard(set="other"), "no set"),
    (first_shard(file="../secret.npy"), "no file in"),
    (first_shard(file="/etc/passwd"), "no file in"),
    (first_shard(file="shards/\0"), "no file in"),
    (first_shard(file="x" * 5000), "no file in"),
    (first_shard(file="linked.npy"), "no file in"),
    (first_shard(file="samples.json"), "damaged"),
]


@pytest.mark.parametrize(("change", "words"), FORGED)
def test_forged_manifests_are_refused(results: Results, change: Any, words: str, tmp_path: Path) -> None:
    """A path that leads out of the run's folder is neither read nor followed."""
    folder = results.manifest.parent
    (tmp_path / "secret.npy").write_bytes(results.shard.read_bytes())
    (folder / "linked.npy").unlink(missing_ok=True)
    (folder / "linked.npy").symlink_to(tmp_path / "secret.npy")
    content = read_sealed(results.manifest)
    method = content["shards"][0]["method"]
    write_sealed(folder / "forged.json", change(content))
    with pytest.raises(ColdbenchError, match=words):
        manifests.read_images(folder / "forged.json", "test", method)


@pytest.mark.parametrize("content", [[], {"shards": [[]] * 3}, {"a": {"b": [None] * 99}}])
def test_other_json_is_no_manifest(tmp_path: Path, content: Any) -> None:
    (tmp_path / "samples.json").write_text(json.dumps(content))
    assert "samples.json" in refused(lambda: manifests.read_manifest(tmp_path / "samples.json"))


# What was made from the same things is kept


def test_finished_samples_that_fit_are_kept(results: Results, digits: Path, caplog: pytest.LogCaptureFixture) -> None:
    before = results.manifest.stat().st_mtime_ns, results.shard.stat().st_mtime_ns

    def again(**changes: Any) -> bool:
        caplog.clear()
        with caplog.at_level("INFO", logger="coldbench"):
            sampled(results.manifest.parent, results.model, digits, **{"images": 4, **changes})
        return "up to date" in caplog.text

    assert again()
    assert again(jobs=3)
    assert (results.manifest.stat().st_mtime_ns, results.shard.stat().st_mtime_ns) == before
    whole = results.shard.read_bytes()
    results.shard.write_bytes(whole[:-1])
    assert not again()
    assert results.shard.read_bytes() == whole
    assert again()
    assert not again(images=3)
    assert not again()


def test_scores_say_what_they_were_made_from(results: Results, tmp_path: Path) -> None:
    facts = made_from(results.manifest, METADATA)
    scores.write_scores(synthetic(), tmp_path / "scores.parquet", facts)
    assert tables.is_up_to_date(tmp_path / "scores.parquet", facts)
    renamed = made_from(results.manifest, METADATA.model_copy(update={"title": "Other"}))
    assert not tables.is_up_to_date(tmp_path / "scores.parquet", renamed)
    with pytest.raises(ColdbenchError, match="does not exist"):
        made_from(tmp_path / "none", METADATA)


def _info(path: Path) -> None:
    data.info(Path(shutil.copy(path, path.with_name("info.json"))).parent)


def _swapped(path: Path) -> None:
    restore(path, path, path.parent / "out", RestoreSettings(), CPU)


@pytest.mark.parametrize(
    "read",
    [
        _swapped,
        _info,
        read_header,
        model_file.load_weights,
        read_json,
        read_sealed,
        tables.read_table,
        tables.read_made_from,
    ],
)
@pytest.mark.parametrize("content", [PHOTO, b"", b"text", b"[1]", b'{"a": 1}'])
def test_nobody_is_advised_to_delete_what_coldbench_did_not_write(
    tmp_path: Path, read: Callable[[Path], object], content: bytes
) -> None:
    """Arguments can be swapped, so a file that is no result may be a user's only copy."""
    path = tmp_path / "mine"
    path.write_bytes(content)
    refusal = None
    try:
        read(path)
    except ColdbenchError as error:
        refusal = str(error)
    assert not re.search("delete|remove", refusal or "")
    assert path.read_bytes() == content


def test_damaged_cost_of_a_shard_is_unknown(results: Results) -> None:
    """Also the intact one of another shard. One without a checksum, of an earlier version, is still read."""
    file = results.shard.with_suffix(manifests.COST_SUFFIX)
    other = next(file.parent.glob("direct-*" + manifests.COST_SUFFIX))
    whole, cost = file.read_bytes(), manifests.read_cost(results.manifest, "test", "tacos")
    assert cost.nfe == 2
    for content in (*damaged(whole), other.read_bytes()):
        file.write_bytes(content)
        read = manifests.read_cost(results.manifest, "test", "tacos")
        assert read == cost or (math.isnan(read.nfe) and math.isnan(read.seconds)), content
    assert math.isnan(read.nfe)
    file.write_text(json.dumps({key: json.loads(whole)[key] for key in ("nfe", "seconds", "images")}))
    assert manifests.read_cost(results.manifest, "test", "tacos") == cost
    file.write_bytes(whole)
