"""Random numbers: each depends on (seed, purpose, index, draw) alone, and is random along each of the four."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coldbench.core import rng

MANY = 100_000
WEYL = 0x9E3779B97F4A7C15
KEYS = [(0, "inpainting centre"), (1, "training severity"), (2**62 + 3, "test"), (-7, "")]

any_seed = st.integers(-(2**63), 2**63 - 1)
any_index = st.integers(0, 2**40)


def splitmix(state: int) -> int:
    """The output of SplitMix64 at counter `state`, in Python's unbounded integers."""
    z = state % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)


def word(seed: int, purpose: str, index: int, draw: int) -> int:
    """The documented function of (seed, purpose, index, draw), unsigned."""
    key = splitmix(seed * WEYL % 2**64 ^ zlib.crc32(purpose.encode()) << 17)
    return splitmix(splitmix(index * WEYL + key) + (draw + 1) * WEYL)


def words(seed: int, purpose: str, indices: list[int], draws: int) -> list[list[int]]:
    """`rng.bits`, unsigned."""
    return [[w % 2**64 for w in row] for row in rng.bits(seed, purpose, torch.tensor(indices), draws).tolist()]


def test_oracle_gives_the_published_outputs_of_splitmix64() -> None:
    outputs = [splitmix(1234567 + k * WEYL) for k in (1, 2, 3)]
    assert outputs == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(any_seed, st.text(max_size=20), st.lists(any_index, min_size=1, max_size=8), st.integers(1, 4))
@settings(deadline=None)
def test_words_are_splitmix64(seed: int, purpose: str, indices: list[int], draws: int) -> None:
    assert words(seed, purpose, indices, draws) == [[word(seed, purpose, i, d) for d in range(draws)] for i in indices]


@pytest.mark.parametrize(
    ("seed", "purpose", "index", "draw", "value"),
    [
        (0, "inpainting centre", 0, 0, 0x2467D75A9DA1F52E),
        (0, "inpainting centre", 1, 1, 0x995534AD1D981EC4),
        (1, "training severity", 12345, 0, 0xD64CC046834382CE),
        (2**63 - 1, "test", 9999, 3, 0xD2DE6B0CB80CF21F),
    ],
)
def test_words_are_pinned(seed: int, purpose: str, index: int, draw: int, value: int) -> None:
    """Every trained model and sample depends on the sequence: a change needs a new `HASH_VERSION`."""
    assert word(seed, purpose, index, draw) == value
    assert words(seed, purpose, [index], draw + 1)[0][draw] == value


def test_numbers_are_derived_from_the_pinned_words() -> None:
    i = torch.arange(5)
    expected = [(word(3, "p", k, 0) >> 11) / 2**53 for k in range(5)]
    assert rng.uniform(3, "p", i)[:, 0].tolist() == expected
    assert rng.integers(3, "p", i, -2, 7)[:, 0].tolist() == [int(u * 10 // 1) - 2 for u in expected]
    assert rng.derive(3, "p") == word(3, "p", 0, 0) >> 1
    signed = [(w + 2**63) % 2**64 - 2**63 for w in (word(3, "p 2", k, 0) for k in range(9))]
    assert rng.permutation(3, "p", 2, 9).tolist() == sorted(range(9), key=signed.__getitem__)


@given(any_seed, st.permutations(range(12)), st.integers(1, 12))
@settings(deadline=None, max_examples=30)
def test_numbers_of_an_image_do_not_depend_on_the_batch(seed: int, order: list[int], count: int) -> None:
    chosen = torch.tensor(order[:count])
    together = rng.uniform(seed, "batch", torch.arange(12), draws=3)
    assert torch.equal(rng.uniform(seed, "batch", chosen, draws=3), together[chosen])
    assert torch.equal(torch.cat([rng.uniform(seed, "batch", one[None]) for one in chosen]), together[chosen, :1])
    low = torch.cat([rng.integers(seed, "batch", part, 3, 30, draws=2) for part in chosen.split(5)])
    assert torch.equal(low, rng.integers(seed, "batch", torch.arange(12), 3, 30, draws=2)[chosen])


@pytest.mark.parametrize(("seed", "purpose"), KEYS)
def test_uniform_numbers_pass_tests_of_uniformity_and_independence(seed: int, purpose: str) -> None:
    u = rng.uniform(seed, purpose, torch.arange(MANY), draws=2).numpy()
    assert u.min() >= 0
    assert u.max() < 1
    for draw in u.T:
        assert stats.kstest(draw, "uniform").pvalue > 1e-4
    # Pairs over a 10 × 10 grid: the second draw and the next image are independent of the first.
    for a, b in [(u[:, 0], u[:, 1]), (u[:-1, 0], u[1:, 0]), (u[:-2, 0], u[2:, 0])]:
        counts = np.histogram2d(a, b, bins=10, range=[[0, 1], [0, 1]])[0]
        assert stats.chisquare(counts.ravel()).pvalue > 1e-4
    whole = rng.integers(seed, purpose, torch.arange(MANY), -1, 31)[:, 0]
    assert stats.chisquare(torch.bincount(whole + 1, minlength=33).numpy()).pvalue > 1e-4


def test_similar_seeds_and_purposes_are_uncorrelated() -> None:
    """No correlation exceeds 5 standard errors."""
    i = torch.arange(MANY)
    names = ["test", "Test", "training order 1", "training order 2", "training severity"]
    streams = [rng.uniform(seed, "test", i) for seed in range(8)] + [rng.uniform(0, name, i) for name in names[1:]]
    correlation = np.corrcoef(torch.cat(streams, dim=1).T.numpy())
    assert np.abs(correlation - np.eye(len(streams))).max() < 5 / MANY**0.5


def test_no_stream_is_a_shifted_copy_of_another() -> None:
    purposes = ["inpainting centre", "training severity", "training order 0", "training order 1", "test"]
    keys = [(seed, purpose) for seed in range(100) for purpose in purposes]
    every = torch.cat([rng.bits(*key, torch.arange(200), 2).flatten() for key in keys])
    assert len(every.unique()) == len(every)


@pytest.mark.parametrize(("low", "high"), [(0, 0), (0, 1), (-1, 31), (1, 20)])
def test_integers_reach_both_ends(low: int, high: int) -> None:
    numbers = rng.integers(5, "ends", torch.arange(5000), low, high, draws=2)
    assert numbers.shape == (5000, 2)
    assert numbers.dtype == torch.int64
    assert numbers.unique().tolist() == list(range(low, high + 1))


@given(any_seed, st.integers(0, 200), st.integers(0, 5))
@settings(deadline=None, max_examples=30)
def test_permutation_is_a_new_order_for_each_epoch_purpose_and_seed(seed: int, count: int, epoch: int) -> None:
    order = rng.permutation(seed, "order", epoch, count)
    assert sorted(order.tolist()) == list(range(count))
    assert torch.equal(order, rng.permutation(seed, "order", epoch, count))
    if count >= 30:  # two orders of fewer may agree by chance
        assert not torch.equal(order, rng.permutation(seed, "order", epoch + 1, count))
        assert not torch.equal(order, rng.permutation(seed, "other", epoch, count))
        assert not torch.equal(order, rng.permutation(seed ^ 1, "order", epoch, count))


@given(any_seed, st.text(max_size=10))
@settings(deadline=None, max_examples=50)
def test_derived_seed_is_valid_and_depends_on_seed_and_purpose(seed: int, purpose: str) -> None:
    derived = rng.derive(seed, purpose)
    assert 0 <= derived < 2**63
    assert derived != rng.derive(seed, purpose + "'")
    assert derived != rng.derive(seed ^ 1, purpose)
