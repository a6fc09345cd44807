"""The von Mises-Fisher density on the unit sphere, as EyeSeg's pixels need it: normaliser and mean resultant length, safe over eleven decades of κ.

p(μ | w, κ) = C_d(κ) exp(κ μ·w),  C_d(κ) = κ^(d/2-1) / ((2π)^(d/2) I_(d/2-1)(κ)),  A_d(κ) = I_(d/2)(κ) / I_(d/2-1)(κ) = -d log C_d / dκ.
Bessel functions come scaled (`scipy.special.ive`), whose logarithm neither overflows nor needs a small number added to it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import torch
from scipy.special import gammaln, ive
from torch import Tensor

_TINY = 1e-280
_LOG_LEAST, _LOG_MOST, _KNOTS = math.log(1e-6), math.log(1e5), 8192


def log_normaliser(kappa: Tensor, dim: int) -> Tensor:
    """Return log C_d(κ) of concentrations κ > 0, any shape; differentiable once."""
    return _LogNormaliser.apply(kappa, dim)


def mean_length(kappa: Tensor, dim: int) -> Tensor:
    """Return A_d(κ) in (0, 1), the expected cosine to the mean direction; strictly rising in κ. Without gradient."""
    return torch.from_numpy(_ratio(kappa.detach().cpu().double().numpy(), dim)).to(kappa)


@torch.no_grad()
def shortfall(kappa: Tensor, dim: int) -> Tensor:
    """Return 1 - A_d(κ) to six digits for κ in [1e-6, 1e5], from a table: two Bessel functions a pixel would take longer than the network."""
    table, step = _table(dim).to(kappa), (_LOG_MOST - _LOG_LEAST) / (_KNOTS - 1)
    place = (kappa.log().clamp(_LOG_LEAST, _LOG_MOST) - _LOG_LEAST) / step
    low = place.long().clamp(max=_KNOTS - 2)
    return torch.lerp(table[low], table[low + 1], place - low)


@lru_cache
def _table(dim: int) -> Tensor:
    return 1.0 - mean_length(torch.linspace(_LOG_LEAST, _LOG_MOST, _KNOTS, dtype=torch.float64).exp(), dim)


class _LogNormaliser(torch.autograd.Function):
    @staticmethod
    def forward(context, kappa: Tensor, dim: int) -> Tensor:
        context.save_for_backward(kappa)
        context.dim = dim
        value = kappa.detach().cpu().double().numpy()
        order = dim / 2 - 1
        return torch.from_numpy(order * np.log(value) - dim / 2 * math.log(2 * math.pi) - _log_bessel(order, value)).to(kappa)

    @staticmethod
    def backward(context, gradient: Tensor) -> tuple[Tensor, None]:
        (kappa,) = context.saved_tensors
        return -mean_length(kappa, context.dim) * gradient, None


def _log_bessel(order: float, kappa: np.ndarray) -> np.ndarray:
    """log I_v(κ): from the scaled function, or where that underflows (small κ, high order) from the first two terms of the series."""
    scaled = ive(order, kappa)
    series = order * np.log(kappa / 2) - gammaln(order + 1) + np.log1p((kappa / 2) ** 2 / (order + 1))
    return np.where(scaled > _TINY, np.log(np.maximum(scaled, _TINY)) + kappa, series)


def _ratio(kappa: np.ndarray, dim: int) -> np.ndarray:
    low, high = ive(dim / 2 - 1, kappa), ive(dim / 2, kappa)
    return np.where(low > _TINY, high / np.maximum(low, _TINY), kappa / dim)
