"""The all-pairs histogram against a double loop."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.core.errors import UserError
from facefoundry.quality.pair_histogram import pair_histogram


def faces(size, people, seed=0, dim=16):
    rng = np.random.default_rng(seed)
    identity = rng.integers(0, people, size)
    rows = rng.standard_normal((people, dim))[identity] + 0.7 * rng.standard_normal((size, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), identity


@pytest.mark.parametrize(("size", "tile"), [(60, (512, 2048)), (60, (7, 16)), (61, (8, 8)), (2, (512, 2048)), (1, (512, 2048))])
def test_equals_the_double_loop(size, tile, monkeypatch):
    import facefoundry.quality.pair_histogram as module

    monkeypatch.setattr(module, "ROWS", tile[0])
    monkeypatch.setattr(module, "COLUMNS", tile[1])
    embed, identity = faces(size, 8)
    got = pair_histogram(embed, identity, bins=50)
    mated, non_mated = np.zeros(50, int), np.zeros(50, int)
    for i in range(size):
        for j in range(i):
            k = min(int((float(embed[i].astype(np.float64) @ embed[j].astype(np.float64)) + 1) * 25), 49)
            (mated if identity[i] == identity[j] else non_mated)[k] += 1
    assert np.array_equal(got.mated_K, mated) and np.array_equal(got.non_mated_K, non_mated)


def test_counts_and_threshold():
    embed, identity = faces(700, 40)
    got = pair_histogram(embed, identity)
    assert got.mated_K.sum() + got.non_mated_K.sum() == 700 * 699 // 2 and (got.non_mated_K >= 0).all()
    cos = embed @ embed.T
    non_mated = cos[np.triu(identity[:, None] != identity, 1)]
    threshold = got.threshold_at_fmr(0.01)
    assert (non_mated >= threshold).mean() <= 0.01 < (non_mated >= threshold - 2 * 2 / 4096).mean() + 1e-4


def test_same_image_twice_and_opposite_images():
    embed = np.array([[1, 0], [1, 0], [-1, 0]], np.float32)
    got = pair_histogram(embed, np.array([0, 0, 1]), bins=4)
    assert got.mated_K.tolist() == [0, 0, 0, 1] and got.non_mated_K.tolist() == [2, 0, 0, 0]


def test_bad_input():
    embed, identity = faces(5, 2)
    with pytest.raises(UserError, match="1 bins"):
        pair_histogram(embed, identity, bins=1)
    embed[1, 1] = np.nan
    with pytest.raises(UserError, match="row 1: nan"):
        pair_histogram(embed, identity)
