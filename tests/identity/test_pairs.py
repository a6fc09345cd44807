"""All-pairs statistics against double loops."""

import numpy as np
import pytest

from facefoundry.identity import pairs
from facefoundry.identity.pairs import BINS, PairHistogram, count_tile, cross_histogram, edges, pair_histogram


def _slow(embed_ND, identity_N):
    """Every pair by hand; also the bin edges between which its cosine may lie for rounding."""
    all_C, genuine_C = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
    for i in range(len(embed_ND)):
        for j in range(i + 1, len(embed_ND)):
            place = min(max(int((float(embed_ND[i].astype(np.float64) @ embed_ND[j].astype(np.float64)) + 1) * BINS / 2), 0), BINS - 1)
            all_C[place] += 1
            genuine_C[place] += identity_N[i] == identity_N[j]
    return all_C, genuine_C


def _near(one_C, two_C):
    """Equal up to pairs that rounding moved over one edge."""
    return one_C.sum() == two_C.sum() and np.abs(np.cumsum(one_C) - np.cumsum(two_C)).max() <= 1


def test_equals_the_double_loop(unit_faces):
    embed_ND, identity_N = unit_faces[0][:60], unit_faces[1][:60] % 9
    histogram = pair_histogram(embed_ND, identity_N)
    all_C, genuine_C = _slow(embed_ND, identity_N)
    assert _near(histogram.all_C, all_C) and _near(histogram.genuine_C, genuine_C) and histogram.all_C.sum() == 60 * 59 // 2
    assert (histogram.impostor_C >= 0).all()


@pytest.mark.parametrize(("rows", "columns"), [(7, 13), (16, 16), (1, 5), (64, 8), (500, 500)])
def test_tiling_does_not_matter(unit_faces, monkeypatch, rows, columns):
    embed_ND, identity_N = unit_faces[0][:200], unit_faces[1][:200] % 9
    whole = pair_histogram(embed_ND, identity_N)
    monkeypatch.setattr(pairs, "TILE_ROWS", rows)
    monkeypatch.setattr(pairs, "TILE_COLUMNS", columns)
    tiled = pair_histogram(embed_ND, identity_N)
    assert _near(tiled.all_C, whole.all_C) and _near(tiled.genuine_C, whole.genuine_C) and (tiled.impostor_C >= 0).all()


def test_count_tile_is_exact_on_given_cosines():
    rng = np.random.default_rng(0)
    cos_RC = rng.uniform(-1.001, 1.001, (30, 41)).astype(np.float32)
    for row, column in ((0, 0), (0, 30), (30, 30), (10, 15)):
        counts_C = np.zeros(BINS, np.int64)
        count_tile(cos_RC, row, column, counts_C)
        expected_C = np.zeros(BINS, np.int64)
        for r in range(30):
            for c in range(41):
                if column + c > row + r:
                    place = int(np.float32(cos_RC[r, c] * np.float32(BINS / 2)) + np.float32(BINS / 2))
                    expected_C[min(max(place, 0), BINS - 1)] += 1
        assert np.abs(counts_C - expected_C).sum() <= 2 and counts_C.sum() == expected_C.sum()


def test_thresholds_equal_sorting_by_hand(unit_faces):
    embed_ND, identity_N = unit_faces
    histogram = pair_histogram(embed_ND, identity_N)
    upper = np.triu_indices(len(embed_ND), 1)
    cos_P, same_P = (embed_ND @ embed_ND.T)[upper], (identity_N[:, None] == identity_N)[upper]
    impostor_P, genuine_P = cos_P[~same_P], cos_P[same_P]
    for fmr in (0.5, 0.1, 1e-2, 1e-3, 1e-4):
        threshold = histogram.threshold_at_fmr(fmr)
        assert (impostor_P >= threshold + 1e-6).mean() <= fmr < (impostor_P >= threshold - 2 / BINS - 1e-6).mean()
        assert histogram.fmr_at(threshold) == pytest.approx((impostor_P >= threshold).mean(), abs=3 / len(impostor_P))
        assert histogram.fnmr_at(threshold) == pytest.approx((genuine_P < threshold).mean(), abs=3 / len(genuine_P))


def test_worked_example():
    counts_C = np.zeros(BINS, np.int64)
    counts_C[[1024, 2048, 3072]] = 2, 1, 1  # cosines -0.5 (twice), 0, 0.5
    histogram = PairHistogram(all_C=counts_C, genuine_C=np.zeros(BINS, np.int64))
    assert histogram.threshold_at_fmr(0.25) == edges()[2049] and histogram.threshold_at_fmr(0.5) == edges()[1025] and histogram.threshold_at_fmr(1.0) == -1.0
    assert histogram.fmr_at(0.5) == 0.25 and histogram.fmr_at(0.0) == 0.5 and histogram.fmr_at(1.0) == 0.0 and np.isnan(histogram.fnmr_at(0.0))
    assert ((histogram + histogram).all_C == 2 * counts_C).all()


def test_same_image_twice_and_opposite_images():
    histogram = pair_histogram(np.array([[1, 0], [1, 0], [-1, 0]], np.float32), np.array([0, 0, 1]))
    assert histogram.genuine_C[-1] == 1 == histogram.genuine_C.sum() and histogram.impostor_C[0] == 2 == histogram.impostor_C.sum()
    alone = pair_histogram(np.array([[1, 0]], np.float32), np.array([0]))
    assert alone.all_C.sum() == 0 and np.isnan(alone.fnmr_at(0.0))


def test_merging_parts_and_cross_pairs_gives_the_whole(unit_faces):
    embed_ND, identity_N = unit_faces[0][:150], unit_faces[1][:150]
    halves = pair_histogram(embed_ND[:70], identity_N[:70]) + pair_histogram(embed_ND[70:], identity_N[70:])
    assert _near(halves.all_C + cross_histogram(embed_ND[:70], embed_ND[70:]), pair_histogram(embed_ND, identity_N).all_C)


def test_bad_input_is_refused(unit_faces):
    embed_ND, identity_N = unit_faces
    broken_ND = embed_ND.copy()
    broken_ND[5] = np.nan
    with pytest.raises(ValueError, match="row 5"):
        pair_histogram(broken_ND, identity_N)
    with pytest.raises(ValueError, match="identity_N"):
        pair_histogram(embed_ND, identity_N[:-1])
    with pytest.raises(ValueError, match="at least two identities"):
        pair_histogram(embed_ND, np.zeros(len(embed_ND))).threshold_at_fmr(0.1)
    with pytest.raises(ValueError, match="expected a rate"):
        pair_histogram(embed_ND, identity_N).threshold_at_fmr(0.0)
    with pytest.raises(ValueError, match="other_MD"):
        cross_histogram(embed_ND, embed_ND[:, :3] / np.linalg.norm(embed_ND[:, :3], axis=1, keepdims=True))
