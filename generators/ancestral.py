"""Ancestral sampling of DDPM (Ho et al. 2020, algorithm 2), the mode that stays nearest to the papers: fresh noise in every step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..core.seeds import derive_seed, noise
from .schedule import STEPS, alpha_bars
from .solvers import Point


class Ancestral:
    """A `Solver` whose noise belongs to the images: step k of an image depends on (its seed, k) alone.

    The variance is the smaller of the paper's two, β̃ = (1-ᾱ_next)/(1-ᾱ) · (1 - ᾱ/ᾱ_next); with fewer than 1000 steps the same formula on the
    spread points is DDIM with η = 1.
    """

    def __init__(self, steps: int, seeds: Sequence[int]) -> None:
        if not 1 <= steps <= STEPS:
            raise ValueError(f"{steps} sampling steps, expected 1 to {STEPS}")
        alpha, stride = alpha_bars(), STEPS // steps
        times = [stride * k for k in reversed(range(steps))]
        self.points = tuple(Point(t, float(alpha[t]), float(alpha[t - stride]) if t >= stride else 1.0) for t in times)
        self._seeds = tuple(seeds)

    def step(self, index: int, latent_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        alpha, after = self.points[index].alpha, self.points[index].alpha_next
        clean_BCHW = (latent_BCHW - (1 - alpha) ** 0.5 * noise_BCHW) / alpha**0.5
        variance = (1 - after) / (1 - alpha) * (1 - alpha / after)
        mean_BCHW = after**0.5 * clean_BCHW + max(0.0, 1 - after - variance) ** 0.5 * noise_BCHW
        if variance == 0:
            return mean_BCHW
        fresh_BCHW = noise([derive_seed(seed, "ancestral", index) for seed in self._seeds], tuple(latent_BCHW.shape[1:]))
        return mean_BCHW + variance**0.5 * fresh_BCHW.to(latent_BCHW)
