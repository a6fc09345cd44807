"""The noise schedule against the definition, and both readings of the sampler's index."""

import pytest
import torch

from facefoundry.generators.schedule import add_noise, alpha_bars, ddim_steps, ddim_update


def test_alpha_bars_are_the_running_product():
    product, expected = 1.0, []
    for k in range(1000):
        product *= 1 - (1e-4 + (2e-2 - 1e-4) * k / 999)
        expected.append(product)
    assert torch.allclose(alpha_bars(), torch.tensor(expected, dtype=torch.float64), rtol=1e-12)
    assert float(alpha_bars()[500]) == pytest.approx(0.078, abs=5e-4)  # figure in generators.md §2.2


def test_fifty_steps_exact_land_on_the_clean_image_from_t_20():
    alpha, steps = alpha_bars(), ddim_steps(50, "exact")
    assert [t for t, _, _ in steps] == list(range(980, 0, -20))
    assert steps[-1] == (20, float(alpha[20]), 1.0)
    assert steps[0][2] == float(alpha[960])


def test_fifty_steps_published_repeat_the_shifted_index():
    alpha, steps = alpha_bars(), ddim_steps(50, "published")
    assert [t for t, _, _ in steps] == list(range(980, -1, -20))
    assert steps[0][2] == float(alpha[959]) and steps[-2][2] == 1.0 and steps[-1][2] == 1.0


def test_the_true_noise_leads_back_to_the_clean_image():
    clean, eps = torch.randn(2, 3, 4, 4, dtype=torch.float64), torch.randn(2, 3, 4, 4, dtype=torch.float64)
    latent = add_noise(clean, eps, torch.tensor([980, 980]))
    for _, alpha, alpha_next in ddim_steps(50, "exact"):
        latent = ddim_update(latent, eps, alpha, alpha_next)
    assert torch.allclose(latent, clean, atol=1e-9)


def test_impossible_step_counts_are_refused():
    with pytest.raises(ValueError, match="0 sampling steps"):
        ddim_steps(0, "exact")
