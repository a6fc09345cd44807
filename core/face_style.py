"""How a face is shown. Apart from `types`, which needs torch: records are read without it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FaceStyle:
    """How a face is shown: what was asked of a generator, or what a record knows on disk; None where nothing is known.

    Attributes:
        pose_deg: yaw, pitch, roll in degrees.
        expression, light, shape: coefficients of the morphable head (spherical harmonics for the light).
    """

    pose_deg: tuple[float, ...] | None = None
    expression: tuple[float, ...] | None = None
    light: tuple[float, ...] | None = None
    shape: tuple[float, ...] | None = None
