"""The von Mises-Fisher normaliser and mean length: closed forms, numeric integrals, extremes, gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from facefoundry.consumers.segmentation.vmf import log_normaliser, mean_length, shortfall
from scipy.integrate import quad
from scipy.optimize import brentq


def integrals(kappa: float, dim: int) -> tuple[float, float]:
    """log C_d and A_d by quadrature: the density depends on t = μ·w, whose surface measure is |S^(d-2)| (1 - t²)^((d-3)/2)."""
    area = 2 * math.pi ** ((dim - 1) / 2) / math.gamma((dim - 1) / 2)
    # exp(κ(t - 1)) and t = 1 - s² keep the integrand tame at both ends; past the bound it is below e^-100.
    bound = min(math.sqrt(2), 10 / math.sqrt(kappa))
    moments = [quad(lambda s: (1 - s * s) ** power * math.exp(-kappa * s * s) * (s * s * (2 - s * s)) ** ((dim - 3) / 2) * 2 * s, 0, bound, limit=400)[0] for power in (0, 1)]
    return -math.log(area * moments[0]) - kappa, moments[1] / moments[0]


@pytest.mark.parametrize("dim", [3, 4, 8])
@pytest.mark.parametrize("kappa", [0.05, 1.0, 10.0, 100.0, 900.0])
def test_against_numeric_integration(dim, kappa):
    value = torch.tensor([kappa], dtype=torch.float64)
    log_c, length = integrals(kappa, dim)
    assert log_normaliser(value, dim).item() == pytest.approx(log_c, abs=1e-7, rel=1e-9)
    assert mean_length(value, dim).item() == pytest.approx(length, abs=1e-8)


def test_closed_form_of_three_dimensions():
    kappa = torch.tensor([0.3, 2.0, 10.0, 200.0], dtype=torch.float64)
    expected = torch.log(kappa / (2 * math.pi * (1 - torch.exp(-2 * kappa)))) - kappa
    torch.testing.assert_close(log_normaliser(kappa, 3), expected)
    torch.testing.assert_close(mean_length(kappa, 3), 1 / torch.tanh(kappa) - 1 / kappa)
    assert log_normaliser(torch.tensor([10.0], dtype=torch.float64), 3).item() == pytest.approx(-9.535292, abs=1e-6)


@pytest.mark.parametrize(("dim", "cosine", "expected"), [(3, 0.5, 1.79676), (3, 0.9, 10.0), (3, 0.99, 100.0), (8, 0.5, 5.0885), (8, 0.9, 33.6627), (8, 0.99, 348.742), (64, 0.5, 42.40), (64, 0.9, 298.92), (64, 0.99, 3134.7)])
def test_likelihood_is_best_where_the_mean_length_is_the_cosine(dim, cosine, expected):
    found = brentq(lambda kappa: mean_length(torch.tensor([kappa], dtype=torch.float64), dim).item() - cosine, 1e-3, 1e4)
    assert found == pytest.approx(expected, rel=2e-4)
    near = torch.tensor([0.9 * found, found, 1.1 * found], dtype=torch.float64)
    worth = -log_normaliser(near, dim) - near * cosine
    assert worth[1] < worth[0] and worth[1] < worth[2]


def test_likelihood_of_the_specification():
    kappa = torch.tensor([1.0, 10.0, 100.0], dtype=torch.float64)
    np.testing.assert_allclose(-log_normaliser(kappa, 8) - 0.9 * kappa, [2.6424, -1.0841, 0.2705], atol=5e-5)


@pytest.mark.parametrize("dim", [2, 3, 8, 64, 512])
def test_finite_over_eleven_decades(dim):
    kappa = torch.logspace(-6, 5, 300, dtype=torch.float64, requires_grad=True)
    value = log_normaliser(kappa, dim)
    value.sum().backward()
    assert torch.isfinite(value).all() and torch.isfinite(kappa.grad).all()
    length = mean_length(kappa, dim)
    assert ((length > 0) & (length < 1)).all() and (length.diff() > 0).all()
    uniform = math.lgamma(dim / 2) - math.log(2) - dim / 2 * math.log(math.pi)  # one over the sphere's area
    assert value[0].item() == pytest.approx(uniform, abs=1e-5)


def test_gradient():
    kappa = torch.tensor([0.02, 0.7, 5.0, 80.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda k: log_normaliser(k, 8), kappa)


@pytest.mark.parametrize("dim", [3, 8])
def test_table_is_the_function(dim):
    kappa = torch.logspace(-6, 5, 5001, dtype=torch.float64)
    torch.testing.assert_close(shortfall(kappa, dim), 1 - mean_length(kappa, dim), rtol=3e-6, atol=0)
    assert (shortfall(kappa.float(), dim).diff() <= 0).all()
    assert torch.isfinite(shortfall(torch.tensor([1e-9, 1e9]), dim)).all()
