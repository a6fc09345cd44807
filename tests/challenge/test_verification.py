"""k-fold accuracy and score statistics against slow, obvious references."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.challenge.verification import best_threshold, kfold_accuracy
from facefoundry.core.errors import UserError


def textbook(score_P, same_P, fold_P):
    """The loop as the field copies it: 400 thresholds, every fold, accuracy by masks."""
    distance = 2.0 - 2.0 * score_P
    accuracies, thresholds = [], []
    for fold in np.unique(fold_P):
        train, test = fold_P != fold, fold_P == fold
        grid = np.arange(0, 4, 0.01)
        on_train = [np.mean((distance[train] < t) == same_P[train]) for t in grid]
        best = int(np.argmax(on_train))
        thresholds.append(grid[best])
        accuracies.append(np.mean((distance[test] < grid[best]) == same_P[test]))
    return np.array(accuracies), np.array(thresholds)


def worked_example():
    same = np.arange(20) % 2 == 0
    distance = np.where(same, 1.0, 1.8)
    distance[0], distance[3] = 1.55, 1.50
    return 1.0 - distance / 2.0, same


def some_pairs(rng, count=600, digits=None):
    same = rng.random(count) < 0.5
    score = np.clip(np.where(same, 0.5, 0.1) + 0.25 * rng.standard_normal(count), -1, 1)
    return (score if digits is None else np.round(score, digits)), same


def test_worked_example_of_the_specification():
    result = kfold_accuracy(*worked_example())
    assert result.accuracy_F.tolist() == [0.5, 0.5] + [1.0] * 8
    assert np.allclose(2 - 2 * result.threshold_F, [1.01, 1.56] + [1.01] * 8)
    assert result.mean == pytest.approx(0.90) and result.std == pytest.approx(0.20)


@pytest.mark.parametrize("seed", range(6))
def test_grid_equals_textbook_loop(seed):
    rng = np.random.default_rng(seed)
    # Rounded scores put distances exactly on grid values, where < and <= differ.
    score, same = some_pairs(rng, digits=None if seed % 2 else 2)
    contiguous = np.repeat(np.arange(10), 60)
    fold = contiguous if seed < 4 else rng.integers(7, 9, 600)
    result = kfold_accuracy(score, same, 10 if seed < 4 else fold)
    accuracy, threshold = textbook(score, same, fold)
    assert np.array_equal(result.accuracy_F, accuracy)
    assert np.array_equal(result.threshold_F, 1 - threshold / 2)


@pytest.mark.parametrize("distance", [np.arange(0, 4, 0.01), np.nextafter(np.arange(0, 4, 0.01), 9), np.nextafter(np.arange(0, 4, 0.01), -9), np.array([-1e-9, 4.0, 4.001])])
def test_grid_index_on_and_beside_every_grid_value(distance):
    from facefoundry.challenge.verification import _first_above

    grid = np.arange(0, 4, 0.01)
    assert np.array_equal(_first_above(distance), [np.sum(grid <= d) for d in distance])


def test_folds_that_do_not_divide_follow_kfold():
    score, same = some_pairs(np.random.default_rng(1), 103)
    from sklearn.model_selection import KFold

    fold = np.empty(103, int)
    for number, (_, test) in enumerate(KFold(10).split(score)):
        fold[test] = number
    assert np.array_equal(kfold_accuracy(score, same).accuracy_F, textbook(score, same, fold)[0])


def slow_best(score, same, balanced):
    values = np.unique(score)
    cuts = [np.nextafter(values[-1], np.inf), *values[::-1]]

    def worth(t):
        right = (score >= t) == same
        return (right[same].mean() + right[~same].mean()) / 2 if balanced else right.mean()

    return max(worth(t) for t in cuts), worth


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("balanced", [False, True])
def test_best_threshold_is_optimal(seed, balanced):
    score, same = some_pairs(np.random.default_rng(seed), 60, digits=1 if seed % 2 else None)
    best, worth = slow_best(score, same, balanced)
    assert worth(best_threshold(score, same, balanced=balanced)) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(
    ("score", "same", "expected"),
    [
        ([0.2, 0.8], [0, 1], 0.5),
        ([0.2, 0.5, 0.5, 0.8], [0, 0, 1, 1], 0.5),  # the tie at 0.5 changes nothing: the plateau is (0.2, 0.8]
        ([0.9, 0.5, 0.1], [1, 0, 1], 0.7),  # accepting .9 alone or everything is equally right: the strictest plateau
        ([0.3, 0.4], [1, 1], 0.3),
        ([0.3, 0.4], [0, 0], np.nextafter(0.4, 1)),
    ],
)
def test_best_threshold_takes_the_midpoint_of_the_strictest_plateau(score, same, expected):
    assert best_threshold(np.array(score), np.array(same)) == pytest.approx(expected, abs=1e-15)


def test_neighbouring_floats_have_no_midpoint():
    low = 0.5
    high = np.nextafter(low, 1)
    threshold = best_threshold(np.array([low, high]), np.array([0, 1]))
    assert low < threshold <= high


def test_exact_form_equals_its_definition_and_ignores_the_held_out_fold():
    rng = np.random.default_rng(3)
    score, same = some_pairs(rng, 200, digits=2)
    fold = rng.integers(0, 5, 200)
    result = kfold_accuracy(score, same, fold, form="exact")
    for f in range(5):
        threshold = best_threshold(score[fold != f], same[fold != f])
        assert result.threshold_F[f] == threshold
        assert result.accuracy_F[f] == np.mean((score[fold == f] >= threshold) == same[fold == f])
    moved = score.copy()
    moved[fold == 0] = 0.99
    assert kfold_accuracy(moved, same, fold, form="exact").threshold_F[0] == result.threshold_F[0]


def test_bad_input_is_named():
    score, same = some_pairs(np.random.default_rng(0), 40)
    score[17] = np.nan
    with pytest.raises(UserError, match="pair 17 is nan"):
        kfold_accuracy(score, same)
    with pytest.raises(UserError, match=r"17 \(a/17.jpg\)"):
        kfold_accuracy(score, same, names=[f"a/{k}.jpg" for k in range(40)])
    score[17] = 1.5
    with pytest.raises(UserError, match="pair 17 is 1.5.*cosines"):
        kfold_accuracy(score, same)
    score[17] = 0.1
    with pytest.raises(UserError, match="41 folds for 40 pairs"):
        kfold_accuracy(score, same, 41)
    with pytest.raises(UserError, match="1 folds"):
        kfold_accuracy(score, same, np.zeros(40, int))
    with pytest.raises(UserError, match="expected 'grid' or 'exact'"):
        kfold_accuracy(score, same, form="fine")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="other than 0 and 1"):
        kfold_accuracy(score, same.astype(int) * 2 - 1)
