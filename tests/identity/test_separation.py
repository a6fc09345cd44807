"""Tiles and screens give the answer of the plain double loop over float64 cosines."""

import numpy as np
import pytest
import torch

from facefoundry.identity import separation
from facefoundry.identity.separation import Rows, greedy, greedy_rows, measure_separation, reaching


def unit(rows, dim, seed=0):
    row_ND = np.random.default_rng(seed).standard_normal((rows, dim))
    return (row_ND / np.linalg.norm(row_ND, axis=1, keepdims=True)).astype(np.float32)


def cosines(left_ND, right_ND):
    return np.array([[(one.astype(np.float64) * other).sum() for other in right_ND] for one in left_ND]).reshape(len(left_ND), len(right_ND))


def slow_greedy(row_ND, limit):
    kept = []
    for row in range(len(row_ND)):
        if all((row_ND[row].astype(np.float64) * row_ND[other]).sum() < limit for other in kept):
            kept.append(row)
    return kept


@pytest.fixture(params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def screen(request, monkeypatch):
    monkeypatch.setattr(separation, "_screen_precision", lambda dim: request.param)


@pytest.fixture(params=[(1024, 2048), (7, 13), (5, 5), (1, 1)], ids=str)
def tiles(request, monkeypatch):
    monkeypatch.setattr(separation, "TILE_ROWS", request.param[0])
    monkeypatch.setattr(separation, "TILE_COLUMNS", request.param[1])


@pytest.mark.parametrize("limit", [0.2, 0.45, 0.7])
def test_greedy_equals_the_slow_loop_whatever_the_tiles(limit, screen, tiles):
    row_ND = unit(120, 12)
    kept = slow_greedy(row_ND, limit)
    assert 1 < len(kept) < 120
    assert greedy_rows(row_ND, limit).tolist() == kept


def test_a_pair_at_the_very_limit_is_decided_in_float64(screen, tiles):
    """The limit is put on each of many true cosines and one float64 step above it: no rounding of a screen may blur them."""
    row_ND = unit(30, 16)
    cos_NN = cosines(row_ND, row_ND)
    for row, other in ((3, 17), (0, 29), (12, 13), (28, 29)):
        at = cos_NN[row, other]
        single = Rows(row_ND[[row]]), Rows(row_ND[[other]])
        assert reaching(*single, at).all() and not reaching(*single, np.nextafter(at, 2)).any()
        above = np.triu(cos_NN, 1)[np.triu_indices(30, 1)]
        assert measure_separation(row_ND, at).close == (above >= at).sum()
        assert measure_separation(row_ND, np.nextafter(at, 2)).close == (above > at).sum()


def test_reaching_equals_the_slow_loop(screen, tiles):
    block_BD, held_ND = unit(40, 8, 1), unit(60, 8, 2)
    expected = (cosines(block_BD, held_ND) >= 0.6).any(axis=1)
    assert 0 < expected.sum() < 40
    assert np.array_equal(reaching(Rows(block_BD), Rows(held_ND), 0.6), expected)
    assert not reaching(Rows(block_BD), Rows(held_ND[:0]), -0.9).any()


def test_separation_equals_the_slow_loop(screen, tiles):
    row_ND = unit(70, 10, 3)
    cos_P = cosines(row_ND, row_ND)[np.triu_indices(70, 1)]
    found = measure_separation(row_ND, 0.5)
    assert found.close == (cos_P >= 0.5).sum() > 0 and found.highest == cos_P.max()
    assert (row_ND[found.pair[0]].astype(np.float64) * row_ND[found.pair[1]]).sum() == cos_P.max() and found.pair[0] < found.pair[1]


def test_the_first_of_equal_pairs_is_named(screen, tiles):
    row_ND = np.concatenate([unit(20, 6), unit(20, 6)[[4, 4]]])  # one row three times
    found = measure_separation(row_ND, 0.999)
    assert found.close == 3 and found.pair == (4, 20)


def test_greedy_stops_at_what_is_wanted():
    row_ND = np.array([[1, 0], [1, 0.01], [0, 1], [0.01, 1], [-1, 0]], np.float32)
    rows = Rows(row_ND / np.linalg.norm(row_ND, axis=1, keepdims=True))
    assert [(greedy(rows, 0.5, wanted)[0].tolist(), greedy(rows, 0.5, wanted)[1]) for wanted in (1, 2, 3, 9)] == [([0], 0), ([0, 2], 1), ([0, 2, 4], 2), ([0, 2, 4], 2)]


def test_error_bounds_hold(monkeypatch):
    for dtype in (torch.float32, torch.bfloat16):
        monkeypatch.setattr(separation, "_screen_precision", lambda dim, dtype=dtype: dtype)
        for rows in (unit(50, 512), np.abs(unit(50, 3)), np.ones((3, 512), np.float32) / np.sqrt(512).astype(np.float32)):
            held = Rows(rows)
            screened = held.screen(slice(None), held, slice(None)).double().numpy()
            assert np.abs(screened - cosines(rows, rows)).max() <= held.error


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_rows_have_no_pair(count):
    found = measure_separation(unit(2, 4)[:count], 0.3)
    assert (found.close, found.highest, found.pair) == (0, -1.0, (-1, -1))


def test_float16_rows_and_bad_rows():
    row_ND = unit(30, 8).astype(np.float16).astype(np.float32)
    row_ND /= np.linalg.norm(row_ND, axis=1, keepdims=True)
    assert measure_separation(row_ND, 0.4).close == measure_separation(row_ND.astype(np.float64), 0.4).close
    row_ND[7] = np.nan
    with pytest.raises(ValueError, match="row 7"):
        measure_separation(row_ND, 0.4)
