"""The feature cache: a reference set is computed once, and whatever is wrong with its file, it is computed again."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from coldbench.core.checksums import write_hashed
from coldbench.core.errors import ColdbenchError
from coldbench.evaluation.metrics import reference
from coldbench.evaluation.metrics.frechet import Statistics


class ToySet:
    """A reference set of batches of three rows; `computed` counts how often its images are asked for."""

    def __init__(self, seed: int = 0, n: int = 12) -> None:
        self.identity: dict[str, object] = {"features": "toy", "data": "abc", "split": "train", "n": 12}
        self.rows, self.computed = np.random.default_rng(seed).normal(size=(n, 3)), 0

    def batches(self) -> Iterator[Tensor]:
        self.computed += 1
        return iter(torch.from_numpy(self.rows).split(3))

    def reference(self, folder: Path, **identity: object) -> reference.Reference:
        return reference.reference(folder, {**self.identity, **identity}, self.batches, Tensor.numpy)


def same(one: reference.Reference, other: reference.Reference) -> bool:
    """Whether two references hold the same bits."""
    parts = [(r.statistics.mean, r.statistics.covariance, r.features) for r in (one, other)]
    equal = all(a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(*parts, strict=True))
    return equal and one.statistics.n == other.statistics.n


def test_reference_set_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds the first rows and the statistics of all."""
    monkeypatch.setattr(reference, "STORED_ROWS", 4)
    toy = ToySet()
    computed, read = (toy.reference(tmp_path / "cache") for _ in range(2))
    assert toy.computed == 1
    assert same(computed, read)
    expected = Statistics.of(toy.rows)
    np.testing.assert_allclose(read.statistics.covariance, expected.covariance, rtol=1e-12)
    np.testing.assert_allclose(read.statistics.mean, expected.mean, rtol=1e-12)
    assert (read.statistics.n, read.features.dtype) == (12, np.float32)
    np.testing.assert_array_equal(read.features, toy.rows[:4].astype(np.float32))
    [path] = (tmp_path / "cache").iterdir()
    assert path.name.startswith("toy-")
    with np.load(path, allow_pickle=False) as stored:
        assert json.loads(str(stored["identity"])) == toy.identity


def test_each_reference_set_has_its_file(tmp_path: Path) -> None:
    """Any difference of the identity counts, the order of its keys does not."""
    changes = [{}, {"features": "other"}, {"data": "abd"}, {"split": "test"}, {"n": 13}, {"n": "12"}, {"size": 16}]
    for count, change in enumerate(changes, start=1):
        toy = ToySet(seed=count)
        toy.reference(tmp_path, **change)
        assert (toy.computed, len(list(tmp_path.iterdir()))) == (1, count)
    toy = ToySet(seed=1)
    toy.identity = dict(reversed(toy.identity.items()))
    toy.reference(tmp_path)
    assert toy.computed == 0


def test_damaged_file_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Cut short anywhere or with any bit flipped, with a warning."""
    toy = ToySet()
    expected = toy.reference(tmp_path)
    [path] = tmp_path.iterdir()
    whole = path.read_bytes()
    cut = [whole[:n] for n in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    flipped = [whole[:i] + bytes([whole[i] ^ (1 << i % 8)]) + whole[i + 1 :] for i in range(0, len(whole), 9)]
    for damaged in cut + flipped:
        path.write_bytes(damaged)
        toy.computed = 0
        caplog.clear()
        with caplog.at_level("WARNING", logger="coldbench"):
            assert same(toy.reference(tmp_path), expected)
        assert (toy.computed, len(caplog.records)) == (1, 1)
        assert "damaged" in caplog.text
        assert path.read_bytes() == whole


def test_damaged_array_header_is_noticed(tmp_path: Path) -> None:
    """NumPy alone reads what the header says, never meets the end of the array, and so never checks its sum."""
    toy = ToySet(n=2000)
    expected = toy.reference(tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(path.read_bytes().replace(b"(2000, 3)", b"(1000, 3)"))
    with np.load(path) as stored:
        assert stored["features"].shape == (1000, 3)
    assert same(toy.reference(tmp_path), expected)
    assert toy.computed == 2


def test_file_of_another_set_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As is a file that lacks an entry."""
    ToySet(seed=1).reference(tmp_path, split="test")
    [foreign] = tmp_path.iterdir()
    toy = ToySet()
    expected = toy.reference(tmp_path)
    [path] = set(tmp_path.iterdir()) - {foreign}
    stem, digest = path.stem.rpartition("-")[0], foreign.stem.rpartition("-")[2]
    path.unlink()
    other = foreign.rename(path.with_name(f"{stem}-{digest}.npz"))
    with caplog.at_level("WARNING", logger="coldbench"):
        assert same(toy.reference(tmp_path), expected)
    assert toy.computed == 2
    assert f"{other} are of another set" in caplog.text
    for file in tmp_path.iterdir():
        file.unlink()
    buffer = io.BytesIO()
    np.savez(buffer, mean=expected.statistics.mean)
    write_hashed(tmp_path, stem, ".npz", buffer.getvalue())
    assert same(toy.reference(tmp_path), expected)
    assert toy.computed == 3


REFUSALS = [  # rows, offending value
    (np.zeros((0, 3)), "0 images"),
    (np.zeros((1, 3)), "1 image "),
    (np.full((3, 3), np.nan), "image 0"),
    (None, "no images"),
]


@pytest.mark.parametrize(("rows", "names"), REFUSALS)
def test_images_without_statistics_are_refused(tmp_path: Path, rows: np.ndarray | None, names: str) -> None:
    """No file is left."""
    batches = [] if rows is None else [torch.from_numpy(rows)]
    with pytest.raises(ColdbenchError, match=names):
        reference.reference(tmp_path, ToySet().identity, lambda: batches, Tensor.numpy)
    assert not list(tmp_path.iterdir())
