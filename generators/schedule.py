"""The noise schedule of DDPM (Ho et al. 2020) as the IDiff-Face family uses it, and the DDIM step (Song et al. 2021, eq. 12)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

STEPS = 1000
"""Training steps T."""

BETAS = (1e-4, 2e-2)
"""First and last β of the linear schedule."""


def alpha_bars() -> Tensor:
    """Return ᾱ_t for t = 0..999, float64: linear β from 1e-4 to 2e-2."""
    return (1.0 - torch.linspace(*BETAS, STEPS, dtype=torch.float64)).cumprod(0)


def add_noise(clean: Tensor, noise: Tensor, t_B: Tensor) -> Tensor:
    """Return √ᾱ_t · clean + √(1-ᾱ_t) · noise, one t of 0..999 a row, of the shape and type of `clean`."""
    alpha = alpha_bars()[t_B.cpu()].to(device=clean.device, dtype=clean.dtype).view(-1, *[1] * (clean.ndim - 1))
    return alpha.sqrt() * clean + (1 - alpha).sqrt() * noise


def ddim_steps(count: int, mode: Literal["exact", "published"]) -> list[tuple[int, float, float]]:
    """Return (t, ᾱ_t, ᾱ of the next point) for `count` evenly spread steps, noisiest first.

    `exact` goes t → t - stride and ends on the clean image from the last t > 0. `published` repeats the public UIFace code, whose
    table of following ᾱ is shifted by one index: t steps to ᾱ_{t-stride-1}, the step from t = stride already lands on ᾱ = 1 and an
    evaluation at t = 0 follows that changes next to nothing (generators.md §2.2).
    """
    if not 1 <= count <= STEPS:
        raise ValueError(f"{count} sampling steps, expected 1 to {STEPS}")
    alpha, stride = alpha_bars(), STEPS // count
    times = [stride * k for k in reversed(range(count))]
    if mode == "published":
        return [(t, float(alpha[t]), float(alpha[t - stride - 1]) if t > stride else 1.0) for t in times]
    times = [t for t in times if t > 0] or [STEPS - 1]
    return [(t, float(alpha[t]), float(alpha[t - stride]) if t > stride else 1.0) for t in times]


def ddim_update(latent: Tensor, noise: Tensor, alpha: float, alpha_next: float) -> Tensor:
    """One deterministic DDIM step (η = 0) from ᾱ to ᾱ_next, both in (0, 1], with the predicted noise; latents of one shape in and out."""
    clean = (latent - (1 - alpha) ** 0.5 * noise) / alpha**0.5
    return alpha_next**0.5 * clean + (1 - alpha_next) ** 0.5 * noise
