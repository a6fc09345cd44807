"""Solvers against the exact solution of the sampling ODE for Gaussian data, where the true noise estimate is known."""

import pytest
import torch

from facefoundry.generators.schedule import alpha_bars, ddim_steps, ddim_update
from facefoundry.generators.solvers import build_solver

NAMES = ("ddim", "ddim-published", "dpm++", "unipc")
MEAN, SPREAD = torch.tensor([0.5, -1.0, 2.0, 0.0]), torch.tensor([0.2, 0.7, 1.0, 1.6])


def expected_noise(z: torch.Tensor, alpha: float) -> torch.Tensor:
    """E[ε | z_t] for data of N(MEAN, SPREAD²)."""
    return (1 - alpha) ** 0.5 * (z - alpha**0.5 * MEAN) / (alpha * SPREAD**2 + 1 - alpha)


def error(name: str, steps: int) -> float:
    """Distance to the exact end of the trajectory: a Gaussian's standardised coordinate stays what it was."""
    solver = build_solver(name, steps)
    z = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    alpha = solver.points[0].alpha
    exact = MEAN + SPREAD * (z - alpha**0.5 * MEAN) / (alpha * SPREAD**2 + 1 - alpha) ** 0.5
    for index, point in enumerate(solver.points):
        z = solver.step(index, z, expected_noise(z, point.alpha))
    return float((z - exact).abs().mean())


@pytest.mark.parametrize("name", ["ddim", "dpm++", "unipc"])
def test_the_error_falls_with_the_steps(name):
    few, some, many = error(name, 10), error(name, 20), error(name, 80)
    assert many < some < few and many < 0.35 * few


def test_second_order_at_ten_steps_beats_ddim_at_ten_and_at_twenty():
    for name in ("dpm++", "unipc"):
        assert error(name, 10) < 0.5 * error("ddim", 10) and error(name, 10) < error("ddim", 20)


def test_the_published_index_shift_does_not_converge_to_the_solution():
    assert error("ddim-published", 50) > 1.5 * error("ddim", 50)


@pytest.mark.parametrize("mode", ["exact", "published"])
def test_ddim_is_the_update_of_the_schedule_bit_for_bit(mode):
    solver, steps = build_solver("ddim" if mode == "exact" else "ddim-published", 50), ddim_steps(50, mode)
    assert [(p.t, p.alpha, p.alpha_next) for p in solver.points] == steps
    z, eps = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    for index, (_, alpha, alpha_next) in enumerate(steps):
        assert torch.equal(solver.step(index, z, eps), ddim_update(z, eps, alpha, alpha_next))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("steps", [1, 2, 7, 10, 15, 20])
def test_points_lead_down_to_the_clean_image_and_stay_finite(name, steps):
    solver, bars = build_solver(name, steps), alpha_bars()
    times = [point.t for point in solver.points]
    assert times == sorted(set(times), reverse=True) and all(isinstance(t, int) for t in times)
    assert solver.points[-1].alpha_next == 1.0
    assert all(point.alpha == float(bars[point.t]) for point in solver.points)
    z = torch.randn(2, 3, 4, 4)
    for index in range(len(times)):
        z = solver.step(index, z, torch.randn_like(z))
        assert z.dtype == torch.float32 and torch.isfinite(z).all()


@pytest.mark.parametrize("name", ["dpm++", "unipc"])
def test_the_true_noise_of_one_image_leads_back_to_it(name):
    solver, clean, eps = build_solver(name, 12), torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    z = solver.points[0].alpha ** 0.5 * clean + (1 - solver.points[0].alpha) ** 0.5 * eps
    for index in range(len(solver.points)):
        z = solver.step(index, z, eps)
    assert torch.allclose(z, clean, atol=2e-3)


def test_a_multistep_solver_serves_one_batch_and_remembers_it():
    solver, z = build_solver("dpm++", 5), torch.zeros(1, 1, 2, 2)
    solver.step(0, z, z)
    with pytest.raises(ValueError, match="step 0 asked of a multistep solver that stands at step 1; build one solver"):
        solver.step(0, z, z)


def test_impossible_requests_are_refused():
    with pytest.raises(ValueError, match="0 sampling steps"):
        build_solver("dpm++", 0)
    with pytest.raises(ValueError, match="solver 'euler', expected ddim"):
        build_solver("euler", 10)
    with pytest.raises(ValueError, match="0 sampling steps"):
        build_solver("ddim", 0)
