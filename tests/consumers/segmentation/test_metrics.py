"""Figures of a segmentation and of an uncertainty against slow, obvious ones."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.consumers.segmentation.metrics import confusion, error_auroc, segmentation_scores, sparsification

PREDICTED = np.array([[[0, 1, 1], [2, 2, 1], [0, 0, 0]]])
TRUTH = np.array([[[0, 1, 1], [2, 1, 1], [0, 0, 2]]])


def test_worked_example():
    found = segmentation_scores(PREDICTED, TRUTH, 3)
    assert found["iou"] == pytest.approx([0.75, 0.75, 1 / 3])
    assert found["miou"] == pytest.approx(0.6111, abs=5e-5)
    assert found["accuracy"] == pytest.approx(0.7778, abs=5e-5)
    assert found["e1"] == pytest.approx(0.2222, abs=5e-5)
    assert found["f1"] == pytest.approx((0.8571 * 2 + 0.5) / 3, abs=5e-5)
    assert confusion(PREDICTED, TRUTH, 3).tolist() == [[3, 0, 0], [0, 3, 1], [1, 0, 1]]


def test_absent_class_counts_nowhere():
    found = segmentation_scores(PREDICTED, TRUTH, 4)
    assert np.isnan(found["iou"][3])
    assert found["miou"] == pytest.approx(0.6111, abs=5e-5)


def test_against_counting_by_hand():
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 4, (2, 5, 7, 6))
    found = segmentation_scores(predicted, truth)
    for k in range(4):
        mine, true = predicted == k, truth == k
        assert found["iou"][k] == pytest.approx((mine & true).sum() / (mine | true).sum())
    f1 = [2 * ((predicted == k) & (truth == k)).sum() / ((predicted == k).sum() + (truth == k).sum()) for k in range(4)]
    assert found["f1"] == pytest.approx(np.mean(f1))
    assert found["e1"] == pytest.approx(np.mean([np.mean([a != b for a, b in zip(p.flat, t.flat)]) for p, t in zip(predicted, truth)]))


def test_sizes_must_agree():
    with pytest.raises(ValueError, match="predicted_BHW"):
        segmentation_scores(PREDICTED, TRUTH[:, :2])


def test_auroc_against_all_pairs():
    rng = np.random.default_rng(1)
    unsure, wrong = rng.integers(0, 6, 90), rng.random(90) < 0.3
    by_hand = np.mean([(a > b) + 0.5 * (a == b) for a in unsure[wrong] for b in unsure[~wrong]])
    assert error_auroc(unsure, wrong) == pytest.approx(by_hand)
    assert error_auroc(wrong.astype(float), wrong) == 1.0
    assert error_auroc(np.ones(90), wrong) == 0.5
    assert np.isnan(error_auroc(unsure, np.zeros(90, bool))) and np.isnan(error_auroc(unsure, np.ones(90, bool)))


def test_sparsification_against_a_loop():
    rng = np.random.default_rng(2)
    unsure, error = rng.random(200), rng.random(200)
    mine, best, gap = sparsification(unsure, error, shares=10)
    for share in range(10):
        kept = 200 - 20 * share
        assert mine[share] == pytest.approx(error[np.argsort(unsure)[:kept]].mean())
        assert best[share] == pytest.approx(np.sort(error)[:kept].mean())
    assert gap == pytest.approx((mine - best).mean())
    assert sparsification(error, error)[2] == pytest.approx(0.0, abs=1e-12)
    assert sparsification(-error, error)[2] > gap > 0
