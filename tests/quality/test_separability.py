"""Centres against double loops; greedy and literal uniqueness by hand."""

from __future__ import annotations

import numpy as np
import pytest

import facefoundry.quality.separability as module
from facefoundry.quality.separability import greedy_unique, separation, unique_curve


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("cells", [40, 8_000_000])
def test_one_pass_equals_the_double_loop(cells, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_CELLS", cells)
    monkeypatch.setattr(module, "_GREEDY_ROWS", 7)
    centre = unit(np.random.default_rng(0).standard_normal((40, 5)))
    found = separation(centre, 0.6, closest=9)
    cos = [[float(centre[i] @ centre[j]) for j in range(40)] for i in range(40)]
    for i in range(40):
        others = [(cos[i][j], j) for j in range(40) if j != i]
        assert found.nearest_I[i] == pytest.approx(max(others)[0], abs=1e-6) and cos[i][found.neighbour_I[i]] == pytest.approx(max(others)[0], abs=1e-6)
        assert found.literal_I[i] == all(cos[i][j] < 0.6 for j in range(i))
    pairs = sorted(((cos[i][j], i, j) for i in range(40) for j in range(i + 1, 40)), reverse=True)
    assert found.close == sum(value >= 0.6 for value, _, _ in pairs) > 0
    assert [(i, j) for i, j, _ in found.closest] == [(i, j) for _, i, j in pairs[:9]]
    accepted, owner = [], []
    for i in range(40):
        hits = [j for j in accepted if cos[i][j] >= 0.6]
        owner.append(hits[0] if hits else -1)
        accepted += [] if hits else [i]
    assert greedy_unique(centre, 0.6).tolist() == owner and len(accepted) < 40


def test_literal_and_greedy_differ_on_a_chain():
    """a-b and b-c are close, a-c are not: b is refused; c collides with b alone, which only the literal definition counts."""
    angle = np.deg2rad([0, 30, 60])
    chain = np.stack([np.cos(angle), np.sin(angle)], axis=1).astype(np.float32)
    assert greedy_unique(chain, 0.8).tolist() == [-1, 0, -1]
    assert separation(chain, 0.8).literal_I.tolist() == [True, False, False]


def test_one_identity_and_the_curve():
    alone = separation(unit([[1, 0]]), 0.5)
    assert alone.nearest_I.size == 0 and alone.close == 0 and alone.closest == () and greedy_unique(unit([[1, 0]]), 0.5).tolist() == [-1]
    assert unique_curve(np.array([True, False, True, True, False]), every=2) == [(2, 1), (4, 3), (5, 3)]
