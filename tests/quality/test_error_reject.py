"""Error versus reject: the worked figures of recognition.md §8.7, a slow reference, ties, weights."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.quality.error_reject import ErrorReject, aoc, area_under, fractions, mated_curve, plot_curves, quality_ranks, reject_images, reject_pairs


def test_worked_example_1():
    fraction, fnmr = [0, 0.5, 0.95], [0.2, 0.1, 0]
    assert area_under(fraction, fnmr) == pytest.approx(0.0975, abs=1e-12)
    assert aoc(fraction, fnmr) == pytest.approx(0.5125, abs=1e-12)
    assert aoc(fraction, fnmr) != pytest.approx(0.4868, abs=1e-3)  # divided by .95
    assert aoc(fraction, fnmr) != pytest.approx(0.9025, abs=1e-3)  # without dividing by FNMR(0)


def test_worked_example_2():
    genuine, impostor = [0.9, 0.8, 0.2, 0.7, 0.85, 0.3], [0.1, 0.2, 0.15, 0.25, 0.05, 0.3, 0, 0.12, 0.18, 0.22]
    quality = np.r_[[0.9, 0.8, 0.1, 0.5, 0.7, 0.2], np.linspace(0.05, 0.95, 10)]
    curve = reject_pairs(np.r_[genuine, impostor], np.arange(16) < 6, quality, fmr=0.1, fraction_F=np.array([0, 0.2, 0.4, 0.6]))
    assert curve.fnmr_F == pytest.approx([1 / 6, 0.2, 0, 0])
    assert curve.threshold == np.nextafter(0.25, 1)


def test_fixed_threshold_of_pairs():
    genuine, impostor = [0.9, 0.8, 0.2, 0.7, 0.85, 0.28], [0.1, 0.2, 0.15, 0.25, 0.05, 0.3, 0, 0.12, 0.18, 0.22]
    quality = np.r_[[0.9, 0.8, 0.01, 0.5, 0.7, 0.99], np.linspace(0.05, 0.95, 10)]  # 0.2: one mated and two non-mated pairs go
    moving, fixed = (reject_pairs(np.r_[genuine, impostor], np.arange(16) < 6, quality, fmr=0.1, fraction_F=np.array([0, 0.2]), fixed=fixed) for fixed in (False, True))
    assert fixed.fnmr_F == pytest.approx([1 / 6, 0]) and moving.fnmr_F == pytest.approx([1 / 6, 1 / 5])


def slow_images(score, same, image, quality, threshold, fraction):
    """One fraction at a time, by the definition."""
    result = []
    for share in fraction:
        gone = set(np.argsort(quality)[: int(np.ceil(share * len(quality) - 1e-9))].tolist())
        left = [s < threshold for s, m, (a, b) in zip(score, same, image) if m and a not in gone and b not in gone]
        result.append(np.mean(left) if left else result[-1])
    return np.array(result)


@pytest.mark.parametrize("seed", range(5))
def test_images_equal_the_slow_reference(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 40, (300, 2))
    score, same, quality = rng.normal(size=300), rng.random(300) < 0.5, rng.permutation(40).astype(float)
    curve = reject_images(score, same, image, quality, fmr=0.1, fraction_F=fractions(0.05))
    assert curve.fnmr_F == pytest.approx(slow_images(score, same, image, quality, curve.threshold, curve.fraction_F))


def test_perfect_and_random_quality():
    rng = np.random.default_rng(0)
    quality = rng.random(2000)
    pair = rng.integers(0, 2000, (20_000, 2))
    score = np.r_[quality[pair].min(axis=1)[:10_000] + 1.0, np.full(10_000, 1.2) - rng.random(10_000)]
    same = np.arange(20_000) < 10_000
    good, blind = (reject_images(score, same, pair, q, fmr=0.01).aoc for q in (quality, rng.random(2000)))
    assert good > 0.75 and blind == pytest.approx(0.05, abs=0.05)


def test_weights_equal_repeated_images():
    """A draw in which identities count several times is the set with those images repeated."""
    rng = np.random.default_rng(1)
    quality, person = rng.permutation(30).astype(float), np.repeat(np.arange(10), 3)
    pair = np.array([(a, b) for a in range(30) for b in range(a) if person[a] == person[b]])
    missed, times = rng.random(len(pair)) < 0.4, rng.integers(0, 3, 10)[person]
    weighted = mated_curve(missed, pair, quality, fraction_F=fractions(0.1), times_N=times)
    # Repeat each person as a whole: copies keep their quality up to a nudge that keeps them side by side.
    index = {}
    for copy in range(2):
        index |= {(row, copy): len(index) + k for k, row in enumerate(np.flatnonzero(times > copy).tolist())}
    repeated = np.empty(len(index))
    for (row, _), place in index.items():
        repeated[place] = quality[row]
    twice = [(index[a, c], index[b, c], m) for (a, b), m in zip(pair.tolist(), missed) for c in range(2) if (a, c) in index]
    gone_of = {place: np.sum(repeated < repeated[place]) / len(repeated) for place in range(len(repeated))}
    for fraction, value in zip(fractions(0.1), weighted):
        left = [m for a, b, m in twice if min(gone_of[a], gone_of[b]) >= fraction - 1e-12]
        if left:
            assert value == pytest.approx(np.mean(left))


def test_ties_are_broken_by_chance_not_by_row():
    rank = quality_ranks(np.zeros(1000))
    assert sorted(rank) == pytest.approx(np.arange(1000) / 1000)
    assert abs(np.corrcoef(rank, np.arange(1000))[0, 1]) < 0.1
    assert np.array_equal(rank, quality_ranks(np.zeros(1000)))


def test_no_error_and_no_pair_left():
    assert np.isnan(aoc([0, 0.95], [0.0, 0.0]))
    curve = mated_curve(np.array([True, False]), np.array([[0, 1], [0, 2]]), np.array([0.0, 1.0, 2.0]), fraction_F=np.array([0, 0.3, 0.5]))
    assert curve == pytest.approx([0.5, 0.5, 0.5])


def test_bad_input():
    score, same, image = np.array([0.9, 0.1]), np.array([True, False]), np.array([[0, 1], [0, 1]])
    with pytest.raises(UserError, match="1 of 2 qualities are NaN"):
        reject_images(score, same, image, np.array([0.1, np.nan]), fmr=0.1)
    with pytest.raises(UserError, match="there are 1 qualities"):
        reject_images(score, same, image, np.array([0.1]), fmr=0.1)
    with pytest.raises(UserError, match="at least one of each"):
        reject_images(score, np.array([True, True]), image, np.array([0.1, 0.2]), fmr=0.1)


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_picture(tmp_path, suffix):
    curve = ErrorReject(fraction_F=fractions(0.1), fnmr_F=0.3 - 0.3 * fractions(0.1), threshold=0.5)
    plot_curves(tmp_path / f"curves{suffix}", {"FMR 1e-2": {"ours": curve}, "FMR 1e-3": {"ours": curve}})
    assert (tmp_path / f"curves{suffix}").stat().st_size > 5000
