"""Colours of what is not skin, sRGB numbers in [0, 1]: our own choice of a few common ones each, to be drawn from or given ([C]: no survey behind them)."""

from __future__ import annotations

import numpy as np

IRIS = {
    "dark brown": (0.20, 0.13, 0.09),
    "brown": (0.35, 0.23, 0.14),
    "hazel": (0.44, 0.36, 0.21),
    "green": (0.38, 0.43, 0.30),
    "blue": (0.36, 0.47, 0.57),
    "grey": (0.46, 0.50, 0.53),
}
HAIR = {
    "black": (0.07, 0.06, 0.06),
    "dark brown": (0.17, 0.12, 0.09),
    "brown": (0.29, 0.19, 0.12),
    "blond": (0.66, 0.53, 0.34),
    "red": (0.48, 0.24, 0.13),
    "grey": (0.56, 0.55, 0.54),
}
INNER = {"sclera": (0.88, 0.85, 0.82), "pupil": (0.03, 0.03, 0.03), "teeth": (0.86, 0.82, 0.73), "mouth": (0.42, 0.18, 0.17)}
"""What hardly differs between people."""


def draw(names: dict[str, tuple[float, float, float]], rng: np.random.Generator, count: int) -> np.ndarray:
    """Return colours of a table drawn evenly, (count, 3) float32."""
    return np.array(list(names.values()), np.float32)[rng.integers(len(names), size=count)]
