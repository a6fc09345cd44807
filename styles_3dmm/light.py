"""Light as second-order spherical harmonics: nine numbers a colour channel say how bright a surface is by the way it faces.

Source: Ramamoorthi & Hanrahan, "An efficient representation for irradiance environment maps", SIGGRAPH 2001; order of the basis as DECA's:
1, x, y, z, xy, xz, yz, x² − y², 3z² − 1 of the unit normal in camera axes (x right, y down, z towards the camera). A coefficient is the
environment's own, convolved here with the cosine lobe, so that the light of one distant lamp is what `directional` says. DECA's code leaves π out
of its first constant: divide its first coefficient by π to read its codes.
Axes: B lights, 9 coefficients, 3 channels, N normals.
"""

from __future__ import annotations

import math

import numpy as np

from ..core.check import check

_HARMONIC = (
    math.sqrt(1 / (4 * math.pi)),
    *(math.sqrt(3 / (4 * math.pi)),) * 3,
    *(math.sqrt(15 / (4 * math.pi)),) * 3,
    math.sqrt(15 / (16 * math.pi)),
    math.sqrt(5 / (16 * math.pi)),
)
_COSINE_LOBE = (math.pi, *(2 * math.pi / 3,) * 3, *(math.pi / 4,) * 5)
LAMBERT_9 = np.array(_COSINE_LOBE) * _HARMONIC
"""Constant before each basis function: the harmonic's own times the cosine lobe's (R&H eq. 8 and 9)."""


def sh_basis(normal_N3: np.ndarray) -> np.ndarray:
    """Return the nine basis functions, constants of a Lambertian surface included, of unit normals; (..., 3) → (..., 9)."""
    x, y, z = np.moveaxis(np.asarray(normal_N3), -1, 0)
    return np.stack([np.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], axis=-1) * LAMBERT_9.astype(x.dtype)


def shade(normal_BN3: np.ndarray, light_B93: np.ndarray) -> np.ndarray:
    """Return how much light a white surface sends on, (B, N, 3), not below 0; 1 = as bright as its albedo."""
    check("light_B93", light_B93, f"{len(normal_BN3)} 9 3")
    return np.maximum(sh_basis(normal_BN3) @ light_B93, 0.0)


def ambient(level: float | np.ndarray = 1.0) -> np.ndarray:
    """Return the light, (9, 3), under which every surface is `level` times as bright as its albedo; one level, or one a channel."""
    light_93 = np.zeros((9, 3))
    light_93[0] = np.asarray(level) / LAMBERT_9[0]
    return light_93


def directional(direction_3: np.ndarray, colour_3: float | np.ndarray = 1.0) -> np.ndarray:
    """Return the light, (9, 3), of one distant lamp, as far as second order can say it.

    Args:
        direction_3: towards the lamp, camera axes, any length: (0, 0, 1) stands behind the camera, (0, -1, 0) overhead.
        colour_3: brightness of a white surface that faces the lamp would be about this (1.06 times it, by the cut series).
    """
    length = float(np.linalg.norm(direction_3))
    if not length > 0:
        raise ValueError(f"direction_3 is {direction_3}, expected a direction of more than 0 length")
    # The basis holds the lobe's constants too; a lamp's own coefficients are the bare harmonics at its direction.
    bare_9 = sh_basis(np.asarray(direction_3, np.float64) / length) / _COSINE_LOBE
    return bare_9[:, None] * (np.ones(3) * colour_3)


def fit_light(normal_N3: np.ndarray, albedo_N3: np.ndarray, colour_N3: np.ndarray, *, ridge: float = 0.0) -> np.ndarray:
    """Return the light, (9, 3), that explains pixels best: colour ≈ albedo · (basis · light), least squares a channel.

    Args:
        normal_N3, albedo_N3, colour_N3: of the same pixels; leave out saturated ones, they do not follow the light.
        ridge: pull towards 0, in units of the mean squared albedo; keeps what the normals do not show from growing.
    """
    check("albedo_N3", albedo_N3, f"{len(normal_N3)} 3")
    check("colour_N3", colour_N3, f"{len(normal_N3)} 3")
    basis_N9 = sh_basis(np.asarray(normal_N3, np.float64))
    light_93 = np.empty((9, 3))
    for channel in range(3):
        lit_N9 = basis_N9 * albedo_N3[:, channel, None]
        pull = ridge * len(lit_N9) * float(np.mean(np.square(albedo_N3[:, channel])))
        normal_99 = lit_N9.T @ lit_N9 + pull * np.eye(9)
        light_93[:, channel] = np.linalg.lstsq(normal_99, lit_N9.T @ colour_N3[:, channel], rcond=1e-12)[0]
    return light_93
