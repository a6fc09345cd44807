from __future__ import annotations

import pytest
import torch
from facefoundry.generators.prediction import min_snr_weight, target, to_clean, to_noise
from facefoundry.generators.schedule import add_noise, alpha_bars

KINDS = ["epsilon", "v", "flow"]
TIMES = torch.tensor([1, 300, 700, 980])


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_said_gives_back_noise_and_clean_latent(kind: str) -> None:
    clean, noise = torch.randn(2, 4, 3, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    noisy, said = add_noise(clean, noise, TIMES), target(kind, clean, noise, TIMES)
    alpha = alpha_bars()[TIMES].view(-1, 1, 1, 1)
    assert torch.allclose(to_noise(kind, said, noisy, alpha), noise, atol=1e-8)
    assert torch.allclose(to_clean(kind, said, noisy, alpha), clean, atol=1e-7)


def test_targets_by_hand() -> None:
    clean, noise, t = torch.full((1, 1, 1, 1), 2.0), torch.full((1, 1, 1, 1), 3.0), torch.tensor([500])
    alpha = float(alpha_bars()[500])
    assert float(target("epsilon", clean, noise, t)) == 3.0
    assert float(target("flow", clean, noise, t)) == 1.0
    assert float(target("v", clean, noise, t)) == pytest.approx(alpha**0.5 * 3 - (1 - alpha) ** 0.5 * 2)


@pytest.mark.parametrize("kind", KINDS)
def test_min_snr_weighs_the_clean_error_by_the_clipped_snr(kind: str) -> None:
    """One disturbance of what is said, and the error it makes in the clean latent: weight x said² = min(SNR, γ) x clean²."""
    alpha = alpha_bars()[TIMES].view(-1, 1, 1, 1)
    noisy, said = torch.zeros(4, 1, 1, 1, dtype=torch.float64), torch.zeros(4, 1, 1, 1, dtype=torch.float64)
    moved = to_clean(kind, said + 0.5, noisy, alpha) - to_clean(kind, said, noisy, alpha)
    snr = (alpha / (1 - alpha)).flatten()
    expected = snr.clamp_max(5.0) * moved.flatten() ** 2 / 0.25
    assert torch.allclose(min_snr_weight(kind, TIMES, 5.0).double(), expected, rtol=1e-5)


def test_min_snr_of_the_paper_for_epsilon() -> None:
    snr = (alpha_bars() / (1 - alpha_bars()))[TIMES]
    assert torch.allclose(min_snr_weight("epsilon", TIMES, 5.0).double(), snr.clamp_max(5.0) / snr, rtol=1e-5)
