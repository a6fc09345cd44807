"""Data set figures against double loops."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.core.stats import auc, d_prime, eer, fdr
from facefoundry.quality.metrics import dataset_figures, pair_scores


def faces(people=9, seed=0, dim=12):
    rng = np.random.default_rng(seed)
    identity = rng.permutation(np.repeat(np.arange(people) * 5, rng.integers(1, 7, people)))
    centre = {name: rng.standard_normal(dim) for name in np.unique(identity)}
    rows = np.array([centre[name] + 0.7 * rng.standard_normal(dim) for name in identity])
    anchor = np.array([centre[name] for name in identity])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), identity, (anchor / np.linalg.norm(anchor, axis=1, keepdims=True)).astype(np.float32)


def slow_pairs(embed, identity):
    rows = [(float(embed[i] @ embed[j]), identity[i] == identity[j]) for i in range(len(embed)) for j in range(i)]
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows])


@pytest.mark.parametrize("seed", range(3))
def test_figures_equal_the_slow_reference(seed, monkeypatch):
    import facefoundry.quality.metrics as module

    monkeypatch.setattr(module, "_BLOCK", 5)
    embed, identity, anchor = faces(seed=seed)
    figures = dataset_figures(embed, identity, threshold=0.3, anchor_ND=anchor)
    score, same = slow_pairs(embed, identity)
    assert (figures.mated_pairs, figures.non_mated_pairs) == (same.sum(), (~same).sum())
    for name, function in (("auc", auc), ("eer", eer), ("d_prime", d_prime), ("fdr", fdr)):
        assert getattr(figures, name) == pytest.approx(function(score, same), abs=1e-5), name
    assert (figures.mated_mean, figures.mated_std) == pytest.approx((score[same].mean(), score[same].std()), abs=1e-5)
    assert (figures.non_mated_mean, figures.non_mated_std) == pytest.approx((score[~same].mean(), score[~same].std()), abs=1e-5)
    assert figures.anchor_cosine == pytest.approx(np.mean([embed[i] @ anchor[i] for i in range(len(embed))]), abs=1e-6)

    names = np.unique(identity)
    centres = {name: embed[identity == name].mean(axis=0) for name in names}
    centres = {name: centre / np.linalg.norm(centre) for name, centre in centres.items()}
    shares = [np.mean([embed[i] @ centres[name] >= 0.3 for i in np.flatnonzero(identity == name)]) for name in names]
    assert figures.consistency == pytest.approx(np.mean(shares))
    traces = [np.trace(np.cov(embed[identity == name].T, ddof=0)) for name in names if (identity == name).sum() > 1]
    assert figures.dispersion == pytest.approx(np.mean(traces), abs=1e-5)
    between = np.array([[centres[a] @ centres[b] if a != b else -2 for b in names] for a in names])
    assert figures.close_identities == (between >= 0.3).sum() // 2
    assert figures.nearest_centre_max == pytest.approx(between.max(), abs=1e-5)
    assert figures.nearest_centre_mean == pytest.approx(between.max(axis=1).mean(), abs=1e-5)
    accepted = []
    for k in range(len(names)):
        if all(between[k, earlier] < 0.3 for earlier in accepted):
            accepted.append(k)
    assert figures.unique_identities == pytest.approx(len(accepted) / len(names))


def test_a_sample_stands_for_many_pairs():
    embed, identity, _ = faces(60)
    score, same = pair_scores(embed, identity)
    few, few_same = pair_scores(embed, identity, max_pairs=3000, seed=1)
    assert (~few_same).sum() == 3000 and np.array_equal(np.sort(few[few_same]), np.sort(score[same]))
    assert auc(few, few_same) == pytest.approx(auc(score, same), abs=0.02)
    assert np.array_equal(few, pair_scores(embed, identity, max_pairs=3000, seed=1)[0])


def test_sets_with_nothing_to_compare():
    embed, _, _ = faces()
    alone = dataset_figures(embed, np.arange(len(embed)), threshold=0.3)
    assert alone.mated_pairs == 0 and np.isnan(alone.auc) and np.isnan(alone.dispersion) and np.isnan(alone.anchor_cosine) and alone.consistency == 1
    one = dataset_figures(embed, np.zeros(len(embed), int), threshold=0.3)
    assert one.non_mated_pairs == 0 and np.isnan(one.eer) and one.identities == 1 and np.isnan(one.nearest_centre_max) and one.unique_identities == 1
    assert set(one.summary()) >= {"auc", "threshold", "images"}


def test_bad_input():
    embed, identity, anchor = faces()
    with pytest.raises(UserError, match="expected the same embedder"):
        dataset_figures(embed, identity, threshold=0.3, anchor_ND=np.eye(len(embed), dtype=np.float32))
    embed[3, 0] = np.nan
    with pytest.raises(UserError, match="row 3: nan"):
        dataset_figures(embed, identity, threshold=0.3, anchor_ND=anchor)
