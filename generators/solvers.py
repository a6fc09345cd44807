"""Solvers of the sampling ODE: which times are visited, and the step from one to the next, given the predicted noise.

DDIM (Song et al. 2021, eq. 12) is ours, in both readings of generators.md §2.2. DPM-Solver++ 2M (Lu et al. 2022, arXiv 2211.01095,
algorithm 2) and UniPC of order 2 (Zhao et al. 2023, arXiv 2302.04867) are diffusers'. All work on the linear schedule of `schedule.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, Protocol

from torch import Tensor

from .schedule import BETAS, STEPS, alpha_bars, ddim_steps, ddim_update

SolverName = Literal["ddim", "ddim-published", "dpm++", "unipc"]


@dataclass(frozen=True, slots=True)
class Point:
    """One evaluation of the network.

    Attributes:
        t: training step the network is asked at, 0..999.
        alpha: ᾱ of the latent at this point.
        alpha_next: ᾱ the step leads to; 1 at the last.
    """

    t: int
    alpha: float
    alpha_next: float


class Solver(Protocol):
    """Steps through `points`, noisiest first; one object for one sampled batch, because multistep solvers remember.

    Attributes:
        points: where the network is evaluated.
    """

    points: tuple[Point, ...]

    def step(self, index: int, latent_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        """From the latent at `points[index]` and its predicted noise, the latent at the next point; float32, indices in order."""
        ...


def build_solver(name: SolverName, steps: int) -> Solver:
    """Return a fresh solver.

    Args:
        name: "ddim"; "ddim-published" with the shifted ᾱ of the public UIFace code; "dpm++"; "unipc".
        steps: points on the schedule. DDIM counts as the public code does and "ddim" then leaves out t = 0: 50 steps are 49 evaluations.

    Raises:
        ValueError: `steps` outside 1..1000, or an unknown name.
    """
    if name in ("ddim", "ddim-published"):
        return DDIM(steps, "exact" if name == "ddim" else "published")
    if name in ("dpm++", "unipc"):
        return Multistep(name, steps)
    raise ValueError(f"solver '{name}', expected ddim, ddim-published, dpm++ or unipc")


class DDIM:
    """Deterministic DDIM (η = 0); remembers nothing."""

    def __init__(self, steps: int, mode: Literal["exact", "published"]) -> None:
        self.points = tuple(Point(*step) for step in ddim_steps(steps, mode))

    def step(self, index: int, latent_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        point = self.points[index]
        return ddim_update(latent_BCHW, noise_BCHW, point.alpha, point.alpha_next)


class Multistep:
    """DPM-Solver++ 2M or UniPC-2 of diffusers, on whole time steps.

    The last step goes to ᾱ = 1, where log-SNR is infinite; diffusers takes it with order 1, which is the clean estimate itself.
    """

    def __init__(self, name: Literal["dpm++", "unipc"], steps: int) -> None:
        if not 1 <= steps < STEPS:
            raise ValueError(f"{steps} sampling steps, expected 1 to {STEPS - 1}")
        self._scheduler = _scheduler(name)
        self._scheduler.set_timesteps(steps)
        times = [int(t) for t in self._scheduler.timesteps]
        bars = [*(float(alpha) for alpha in alpha_bars()[times]), 1.0]
        self.points = tuple(Point(t, now, after) for t, now, after in zip(times, bars, bars[1:]))
        self._next = 0

    def step(self, index: int, latent_BCHW: Tensor, noise_BCHW: Tensor) -> Tensor:
        if index != self._next:
            raise ValueError(f"step {index} asked of a multistep solver that stands at step {self._next}; build one solver for each batch")
        self._next += 1
        return self._scheduler.step(noise_BCHW, self.points[index].t, latent_BCHW).prev_sample


def _scheduler(name: Literal["dpm++", "unipc"]) -> Any:
    from diffusers import DPMSolverMultistepScheduler, UniPCMultistepScheduler

    common: dict[str, Any] = {
        "num_train_timesteps": STEPS, "beta_start": BETAS[0], "beta_end": BETAS[1], "beta_schedule": "linear", "prediction_type": "epsilon",
        "solver_order": 2, "lower_order_final": True, "final_sigmas_type": "zero", "timestep_spacing": "linspace",
    }
    return DPMSolverMultistepScheduler(**common) if name == "dpm++" else UniPCMultistepScheduler(**common)
