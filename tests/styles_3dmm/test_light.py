"""Spherical harmonics against their definition: integrals over the sphere, and the light of one lamp."""

from __future__ import annotations

import numpy as np
import pytest

from facefoundry.styles_3dmm.light import LAMBERT_9, ambient, directional, fit_light, sh_basis, shade


def sphere(count: int = 40_000) -> np.ndarray:
    """Directions that cover the sphere evenly (a Fibonacci spiral), (count, 3)."""
    z = 1 - (2 * np.arange(count) + 1) / count
    turn = np.arange(count) * np.pi * (3 - np.sqrt(5))
    return np.stack([np.sqrt(1 - z**2) * np.cos(turn), np.sqrt(1 - z**2) * np.sin(turn), z], -1)


def random_unit(count: int) -> np.ndarray:
    rows = np.random.default_rng(1).normal(size=(count, 3))
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


LOBE = np.array([np.pi] + [2 * np.pi / 3] * 3 + [np.pi / 4] * 5)


def test_harmonics_are_orthonormal():
    harmonic = sh_basis(sphere()) / LOBE
    assert np.allclose(harmonic.T @ harmonic * (4 * np.pi / len(harmonic)), np.eye(9), atol=1e-3)


def test_order_is_the_specifications():
    x, y, z = np.array([0.36, 0.48, 0.8])
    wanted = np.array([1, x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1])
    assert np.allclose(sh_basis(np.array([0.36, 0.48, 0.8])), wanted * LAMBERT_9)


def test_shading_is_the_integral_of_the_environment():
    """Irradiance of a second-order environment, by brute force over the sphere (no division by π: a lamp of 1 gives 1)."""
    rng, direction = np.random.default_rng(2), sphere()
    light_93 = rng.normal(size=(9, 3))
    radiance = (sh_basis(direction) / LOBE) @ light_93
    for normal in random_unit(5):
        slow = (np.maximum(direction @ normal, 0)[:, None] * radiance).mean(0) * 4 * np.pi
        assert np.allclose(sh_basis(normal) @ light_93, slow, atol=5e-3)


def test_lamp_lights_by_the_cosine():
    lamp, normal = np.array([0.6, -0.8, 0.0]), random_unit(300)
    cosine = normal @ lamp
    series = 0.25 + cosine / 2 + 5 / 32 * (3 * cosine**2 - 1)  # the cosine lobe cut after the second order
    lit = shade(normal[None], directional(lamp * 7, (1.0, 0.5, 0.0))[None])[0]
    assert np.allclose(lit[:, 0], np.maximum(series, 0)) and np.allclose(lit[:, 1], lit[:, 0] / 2) and not lit[:, 2].any()
    assert np.abs(lit[:, 0] - np.maximum(cosine, 0)).max() < 0.1
    with pytest.raises(ValueError, match="0 length"):
        directional(np.zeros(3))


def test_ambient_is_even():
    assert np.allclose(shade(random_unit(9)[None], ambient((0.2, 0.5, 1.5))[None]), (0.2, 0.5, 1.5))


def test_fit_recovers_the_light():
    rng, normal = np.random.default_rng(3), random_unit(400)
    light_93, albedo = rng.normal(size=(9, 3)) + ambient(3.0), rng.uniform(0.1, 0.9, (400, 3))
    colour = albedo * (sh_basis(normal) @ light_93)
    assert np.allclose(fit_light(normal, albedo, colour), light_93, atol=1e-8)
    noisy = fit_light(normal, albedo, colour + rng.normal(size=colour.shape) * 0.05)
    residual = albedo * (sh_basis(normal) @ noisy) - colour
    assert np.square(residual).mean() < 0.05**2  # least squares: closer to the truth than the noise is


def test_ridge_holds_what_is_not_seen():
    """Faces show one half of the sphere only: with few normals the plain fit is wild, the ridged one is not."""
    normal = random_unit(12) * (1, 1, 0) * 0.2 + (0, 0, 1)
    normal /= np.linalg.norm(normal, axis=1, keepdims=True)
    albedo = np.full((12, 3), 0.5)
    colour = albedo * (sh_basis(normal) @ ambient(1.0)) + np.random.default_rng(0).normal(size=(12, 3)) * 0.02
    wild, tame = fit_light(normal, albedo, colour), fit_light(normal, albedo, colour, ridge=1e-3)
    assert np.abs(tame).max() < 5 < np.abs(wild).max()
    assert np.abs(albedo * (sh_basis(normal) @ tame) - colour).max() < 0.1
