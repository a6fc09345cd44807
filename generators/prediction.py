"""What a denoiser's last layer says: the noise ε, the velocity v, or the flow u; and what each means for the clean latent.

With z_t = √ᾱ z_0 + √(1-ᾱ) ε:
    ε        the noise itself (Ho et al. 2020);
    v = √ᾱ ε - √(1-ᾱ) z_0 (Salimans & Ho 2022, §4);
    u = ε - z_0, the velocity of the straight path between data and noise (Lipman et al. 2023; Liu et al. 2023). z_t / (√ᾱ + √(1-ᾱ)) lies on that path,
    so a network of the variance-preserving schedule can speak of it and every solver here can use it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from .schedule import alpha_bars

Prediction = Literal["epsilon", "v", "flow"]


def target(kind: Prediction, clean_BCHW: Tensor, noise_BCHW: Tensor, t_B: Tensor) -> Tensor:
    """Return what the network should say, (B, C, H, W); clean latents and noise of that shape, one t of 0..999 a row."""
    if kind == "epsilon":
        return noise_BCHW
    if kind == "flow":
        return noise_BCHW - clean_BCHW
    signal, spread = _signal_and_spread(t_B, clean_BCHW)
    return signal * noise_BCHW - spread * clean_BCHW


def to_noise(kind: Prediction, said_BCHW: Tensor, noisy_BCHW: Tensor, alpha: float | Tensor) -> Tensor:
    """Return ε, (B, C, H, W), from what the network said of noisy latents of that shape; `alpha` is ᾱ_t in (0, 1), a number or broadcastable to them."""
    if kind == "epsilon":
        return said_BCHW
    signal, spread = alpha**0.5, (1 - alpha) ** 0.5
    if kind == "v":
        return signal * said_BCHW + spread * noisy_BCHW
    return (noisy_BCHW + signal * said_BCHW) / (signal + spread)


def to_clean(kind: Prediction, said_BCHW: Tensor, noisy_BCHW: Tensor, alpha: float | Tensor) -> Tensor:
    """Return the estimate of z_0, (B, C, H, W), arguments as in `to_noise`; for v and flow no division by a vanishing √ᾱ is involved."""
    signal, spread = alpha**0.5, (1 - alpha) ** 0.5
    if kind == "epsilon":
        return (noisy_BCHW - spread * said_BCHW) / signal
    if kind == "v":
        return signal * noisy_BCHW - spread * said_BCHW
    return (noisy_BCHW - spread * said_BCHW) / (signal + spread)


def min_snr_weight(kind: Prediction, t_B: Tensor, gamma: float) -> Tensor:
    """Return the weight of each row's squared error under min-SNR-γ (Hang et al., ICCV 2023, §3.4), float32 (B,).

    The weight of the clean latent's error is min(SNR, γ); a unit error of ε, v or u is an error of √(1-ᾱ)/√ᾱ, √(1-ᾱ) or √(1-ᾱ)/(√ᾱ+√(1-ᾱ)) in
    z_0, whose square converts it. For ε that gives the paper's min(SNR, γ)/SNR, for v min(SNR, γ)/(SNR + 1).
    """
    alpha = alpha_bars()[t_B.cpu()]
    signal, spread = alpha.sqrt(), (1 - alpha).sqrt()
    clean_error = {"epsilon": spread / signal, "v": spread, "flow": spread / (signal + spread)}[kind]
    return ((alpha / (1 - alpha)).clamp_max(gamma) * clean_error**2).float().to(t_B.device)


def _signal_and_spread(t_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    alpha = alpha_bars()[t_B.cpu()].to(device=like.device, dtype=like.dtype).view(-1, *[1] * (like.ndim - 1))
    return alpha.sqrt(), (1 - alpha).sqrt()
