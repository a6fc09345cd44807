"""A small mixture of Gaussians with full covariances, fitted by expectation-maximisation; about 2000 to 100,000 points, 100 axes.

Axes: N points, R axes, K components.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_FLOOR = 1e-9


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """Component weights (K,), means (K, R) and lower Cholesky factors of the covariances (K, R, R), float64."""

    weight_K: np.ndarray
    mean_KR: np.ndarray
    factor_KRR: np.ndarray

    def log_density(self, point_NR: np.ndarray) -> np.ndarray:
        """Return the natural logarithm of the density at each point, (N,)."""
        return np.logaddexp.reduce(self._joint(point_NR), axis=1)

    def draw(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Return points drawn from the mixture, (count, R)."""
        component_N = rng.choice(len(self.weight_K), size=count, p=self.weight_K)
        noise_NR = rng.standard_normal((count, self.mean_KR.shape[1]))
        for k in range(len(self.weight_K)):
            mine = component_N == k
            noise_NR[mine] = self.mean_KR[k] + noise_NR[mine] @ self.factor_KRR[k].T
        return noise_NR

    def single(self) -> Mixture:
        """Return the one Gaussian with this mixture's mean and covariance.

        Expectation-maximisation ends on a maximisation step, after which mean and covariance of the mixture are those of the points it was
        fitted to: this is the Gaussian that a fit with one component gives, without the points.
        """
        mean_R = self.weight_K @ self.mean_KR
        inside_RR = np.tensordot(self.weight_K, self.factor_KRR @ self.factor_KRR.transpose(0, 2, 1), axes=1)
        offset_KR = self.mean_KR - mean_R
        factor_RR = np.linalg.cholesky(inside_RR + (self.weight_K[:, None] * offset_KR).T @ offset_KR)
        return Mixture(weight_K=np.ones(1), mean_KR=mean_R[None], factor_KRR=factor_RR[None])

    def _joint(self, point_NR: np.ndarray) -> np.ndarray:
        columns = []
        for weight, mean_R, factor_RR in zip(self.weight_K, self.mean_KR, self.factor_KRR):
            white_RN = np.linalg.solve(factor_RR, (point_NR - mean_R).T)
            volume = np.log(np.diag(factor_RR)).sum() + 0.5 * len(mean_R) * np.log(2 * np.pi)
            columns.append(np.log(weight) - 0.5 * np.square(white_RN).sum(0) - volume)
        return np.stack(columns, axis=1)


def fit_mixture(point_NR: np.ndarray, *, components: int, shrink: float, rng: np.random.Generator, rounds: int = 40) -> Mixture:
    """Fit by EM from a random split along the first axes.

    Args:
        shrink: share of the pooled covariance in each component's own, 0 to 1; keeps components of few points well conditioned.

    Raises:
        ValueError: fewer than two points an axis.
    """
    if len(point_NR) < 2 * point_NR.shape[1]:
        raise ValueError(f"{len(point_NR)} points in {point_NR.shape[1]} axes are too few for a covariance; expected at least two points an axis")
    share_NK = _first_shares(point_NR, components, rng)
    for _ in range(rounds):
        mixture = _maximise(point_NR, share_NK, shrink)
        joint_NK = mixture._joint(point_NR)
        share_NK = np.exp(joint_NK - np.logaddexp.reduce(joint_NK, axis=1, keepdims=True))
    return _maximise(point_NR, share_NK, shrink)


def _first_shares(point_NR: np.ndarray, components: int, rng: np.random.Generator) -> np.ndarray:
    """Hard assignment by a few rounds of k-means started from spread-out points."""
    centre_KR = point_NR[[int(rng.integers(len(point_NR)))]]
    for _ in range(components - 1):
        nearest_N = _square_distance(point_NR, centre_KR).min(axis=1)
        centre_KR = np.vstack([centre_KR, point_NR[rng.choice(len(point_NR), p=nearest_N / nearest_N.sum())]])
    for _ in range(20):
        owner_N = _square_distance(point_NR, centre_KR).argmin(axis=1)
        centre_KR = np.stack([point_NR[owner_N == k].mean(axis=0) if (owner_N == k).any() else centre_KR[k] for k in range(components)])
    return np.eye(components)[owner_N]


def _square_distance(point_NR: np.ndarray, centre_KR: np.ndarray) -> np.ndarray:
    squares = np.square(point_NR).sum(1, keepdims=True) - 2 * point_NR @ centre_KR.T + np.square(centre_KR).sum(1)
    return np.maximum(squares, 0.0)


def _maximise(point_NR: np.ndarray, share_NK: np.ndarray, shrink: float) -> Mixture:
    mass_K = share_NK.sum(axis=0) + _FLOOR
    mean_KR = share_NK.T @ point_NR / mass_K[:, None]
    spread_KRR = np.stack([(share_NK[:, [k]] * (point_NR - mean)).T @ (point_NR - mean) / mass_K[k] for k, mean in enumerate(mean_KR)])
    weight_K = mass_K / mass_K.sum()
    pooled_RR = np.tensordot(weight_K, spread_KRR, axes=1)
    covariance_KRR = (1 - shrink) * spread_KRR + shrink * pooled_RR + _FLOOR * np.eye(point_NR.shape[1])
    return Mixture(weight_K=weight_K, mean_KR=mean_KR, factor_KRR=np.linalg.cholesky(covariance_KRR))
