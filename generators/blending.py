"""Context blending: which of identity and style leads at which time, as weights of a three-way guidance (generators.md §3.2 [C]).

    ε̂ = ε(∅,∅) + w_s(t) [ε(∅,c_sty) - ε(∅,∅)] + w_i(t) [ε(c_id,c_sty) - ε(∅,c_sty)]

MorphFace (CVPR 2025) re-weights its contexts over time; its schedule is not published. "structure_first" follows UIFace's finding that layout forms
before identity does; "mirrored" is the reading of second-hand notes [S, low trust]; the other two switch the blending off.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from ..core.config import Config

Weight = tuple[float, float]
"""At high noise (t far above t_b) and at low noise."""


class Blending(Config):
    """The schedule and its weights.

    Attributes:
        schedule: "structure_first": both weights as given. "mirrored": each with its ends exchanged. "constant": each at the mean of its ends. "single":
            one condition, ε(∅,∅) + w [ε(c_id,c_sty) - ε(∅,∅)] with w the identity's weight at low noise; the published 2 ε_c - ε_u is w = 2.
        style, identity: w_s and w_i at high and at low noise; 1 = no guidance by that condition.
        t_b: time at which a weight is half-way.
        tau_b: how gradually it changes, in steps of t.
    """

    schedule: Literal["structure_first", "mirrored", "constant", "single"] = "structure_first"
    style: Weight = (2.0, 1.0)
    identity: Weight = (1.0, 2.0)
    t_b: float = Field(500.0, ge=0, le=1000)
    tau_b: float = Field(100.0, gt=0)

    def weights(self, t: float) -> Weight:
        """Return (w_s, w_i) at time t of 0..1000: low + (high - low) σ((t - t_b) / τ_b)."""
        if self.schedule == "single":
            return self.identity[1], self.identity[1]
        if self.schedule == "constant":
            return sum(self.style) / 2, sum(self.identity) / 2
        share = 1 / (1 + math.exp(-(t - self.t_b) / self.tau_b))
        if self.schedule == "mirrored":
            share = 1 - share
        style, identity = (low + (high - low) * share for high, low in (self.style, self.identity))
        return style, identity

    def factors(self, t: float) -> tuple[float, float, float]:
        """Return what ε(∅,∅), ε(∅,c_sty) and ε(c_id,c_sty) are multiplied by; they add up to 1, and a pass with 0 need not be made."""
        style, identity = self.weights(t)
        return 1 - style, style - identity, identity
