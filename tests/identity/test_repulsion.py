"""Repulsion: the gradient is that of the formula, tiles change nothing, and neighbours do part."""

import numpy as np
import pytest
import torch

from facefoundry.core.errors import UserError
from facefoundry.identity import repulsion
from facefoundry.identity.repulsion import Repulsion, energy_and_gradient, repel
from facefoundry.identity.separation import measure_separation


def unit(rows, dim, seed=0):
    return torch.nn.functional.normalize(torch.randn(rows, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)))


def slow_energy(anchor_ND, gallery_GD, config):
    """generators.md §1.5, pair by pair."""
    total = 0.0
    for i, one in enumerate(anchor_ND):
        total = total + config.temperature * torch.logsumexp(torch.stack([one @ other for j, other in enumerate(anchor_ND) if j != i]) / config.temperature, 0)
        if gallery_GD is not None:
            total = total + config.alpha * min(1 - one @ row for row in gallery_GD)
    return total / len(anchor_ND)


@pytest.mark.parametrize("tiles", [(1024, 4096), (5, 7), (4, 4)])
def test_energy_and_gradient_by_finite_differences(tiles, monkeypatch):
    monkeypatch.setattr(repulsion, "_ROWS", tiles[0])
    monkeypatch.setattr(repulsion, "_COLUMNS", tiles[1])
    config, anchor, gallery = Repulsion(temperature=0.1, alpha=0.7), unit(12, 4), unit(9, 4, 1)
    energy, slope_ND = energy_and_gradient(anchor, gallery, config)
    assert float(energy) == pytest.approx(float(slow_energy(anchor, gallery, config)), abs=1e-12)
    for row, column in ((0, 0), (3, 2), (11, 3), (6, 1)):
        nudge = torch.zeros_like(anchor)
        nudge[row, column] = 1e-6
        difference = (slow_energy(anchor + nudge, gallery, config) - slow_energy(anchor - nudge, gallery, config)) / 2e-6
        assert float(slope_ND[row, column]) == pytest.approx(float(difference), abs=1e-8)


def test_two_anchors_go_to_opposite_ends():
    found = repel(np.array([[1, 0], [0.8, 0.6]], np.float32), None, Repulsion(steps=200, rate=0.2, alpha=0))
    assert float(found.anchor_ND[0] @ found.anchor_ND[1]) < -0.99 and found.energy[-1] < found.energy[0]


def test_the_highest_cosine_falls_and_energy_never_rises():
    anchor_ND = unit(400, 16).float().numpy()
    found = repel(anchor_ND, None, Repulsion(steps=40))
    assert measure_separation(found.anchor_ND, 1).highest < measure_separation(anchor_ND, 1).highest - 0.2
    assert np.all(np.diff(found.energy) < 1e-5) and len(found.energy) == 41
    np.testing.assert_allclose(np.linalg.norm(found.anchor_ND, axis=1), 1, atol=1e-6)


def test_the_gallery_holds_them_back():
    anchor_ND, gallery_GD = unit(60, 8).float().numpy(), unit(20, 8, 5).float().numpy()
    near = [(repel(anchor_ND, gallery_GD, Repulsion(steps=40, alpha=alpha)).anchor_ND @ gallery_GD.T).max(axis=1).mean() for alpha in (0.0, 0.5, 1.0)]
    assert near[0] < near[1] < near[2]


def test_bad_input():
    with pytest.raises(ValueError, match="two or more"):
        repel(unit(1, 3).numpy(), None, Repulsion())
    with pytest.raises(ValueError, match="gallery_GD has shape"):
        repel(unit(3, 3).numpy(), unit(3, 4).numpy(), Repulsion())
    with pytest.raises(ValueError, match="not unit length"):
        repel(2 * unit(3, 3).numpy(), None, Repulsion())
    with pytest.raises(UserError, match="temperature"):
        Repulsion.parse({"temperature": 0.001})
