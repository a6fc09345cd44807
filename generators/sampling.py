"""Settings of sampling that every generator shares: solver, guidance, the identity's cone, the feature cache."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..core.config import Config
from .solvers import SolverName

OverTime = Literal["constant", "falling", "rising"]


class SamplerConfig(Config):
    """What decides an image beyond weights, anchor and seed.

    Attributes:
        steps: points of the solver; see `solvers.build_solver`.
        solver: "ddim", "ddim-published" (the public UIFace code's shifted ᾱ), "dpm++" or "unipc".
        guidance: w in ε = (1 + w) ε_c - w ε_r, where r is the reference pass: the empty context, or what `negative` makes of it.
        rescale: share by which the guided clean estimate is brought back to the spread of the unguided one (Lin et al. 2024,
            "Common Diffusion Noise Schedules and Sample Steps Are Flawed", eq. 15-16); keeps strong guidance from burning out. 0 = off.
        guidance_over_time: "constant"; "rising" while the noise falls, w (1 - t/T), as AdaptDiff does; "falling", w t/T.
        negative: share of the opposite identity's context in the reference pass (after NegFaceDiff); 0 = the empty context alone, 1 = that identity alone.
        cone: lower bound of the cosine between an image's identity context and its anchor (IDperturb); 1 = no perturbation.
        cache: DeepCache interval: every how many steps the deep part of the network is computed anew; 1 = always.
    """

    steps: int = Field(50, ge=1, le=999)
    solver: SolverName = "ddim"
    guidance: float = Field(1.0, ge=0)
    rescale: float = Field(0.0, ge=0, le=1)
    guidance_over_time: OverTime = "constant"
    negative: float = Field(0.0, ge=0, le=1)
    cone: float = Field(1.0, ge=0, le=1)
    cache: int = Field(1, ge=1)
