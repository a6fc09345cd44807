"""Skin tones: colour spaces, the typology angle, and a two-axis model by which light and dark skin are both reached.

In optical density (minus the logarithm of linear reflectance) what pigments take away adds up, so a skin is a point along a melanin axis and a haemoglobin axis
(Tsumura et al., "Image-based skin color and texture analysis/synthesis by extracting hemoglobin and melanin information", SIGGRAPH 2003). Tsumura finds
the axes in the pixels of a face by ICA; here they are the principal axes of people's mean skins ([C]: 102 people differ in pigment more than pores do).
The typology angle ITA = atan((L* - 50) / b*) is Chardon et al. 1991's: above 55° very light, 41 light, 28 intermediate, 10 tan, -30 brown, below dark
(Del Bino & Bernerd 2013). Colours are (..., 3), RGB; reflectances in [0, 1].
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
"""From linear sRGB (IEC 61966-2-1), white D65."""
_WHITE = _XYZ.sum(1)
_DARKEST = 2e-3
ITA_RANGE = (-60.0, 65.0)
"""Degrees that `ToneModel.colour` reaches."""


def linear(srgb: np.ndarray) -> np.ndarray:
    """Return linear reflectance of sRGB numbers, both in [0, 1]."""
    return np.where(srgb <= 0.04045, srgb / 12.92, ((np.maximum(srgb, 0.04045) + 0.055) / 1.055) ** 2.4)


def srgb(reflectance: np.ndarray) -> np.ndarray:
    """Return sRGB numbers of linear reflectance, both in [0, 1]; inverse of `linear`."""
    return np.where(reflectance <= 0.0031308, reflectance * 12.92, 1.055 * np.maximum(reflectance, 0.0031308) ** (1 / 2.4) - 0.055)


def density(reflectance: np.ndarray) -> np.ndarray:
    """Return optical density, -ln(reflectance), of linear reflectance."""
    return -np.log(np.maximum(reflectance, _DARKEST))


def lab(reflectance: np.ndarray) -> np.ndarray:
    """Return CIE L*a*b* (D65) of linear reflectance."""
    ratio = reflectance @ _XYZ.T / _WHITE
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


def ita(reflectance: np.ndarray) -> np.ndarray:
    """Return the individual typology angle in degrees of linear reflectance, (...)."""
    lightness, _, yellow = np.moveaxis(lab(reflectance), -1, 0)
    return np.degrees(np.arctan2(lightness - 50.0, yellow))


@dataclass(frozen=True, kw_only=True, eq=False)
class ToneModel:
    """Mean skin of people as two axes of density.

    Attributes:
        middle_3: density of the mean person.
        melanin_3: density that one standard deviation of people adds; everything is darker, blue most.
        haemoglobin_3: the same across it; larger = redder.
    """

    middle_3: np.ndarray
    melanin_3: np.ndarray
    haemoglobin_3: np.ndarray

    @classmethod
    def of(cls, skin_N3: np.ndarray) -> ToneModel:
        """Fit to people's mean skins, linear reflectance (N, 3)."""
        density_N3 = density(skin_N3)
        middle_3 = density_N3.mean(0)
        _, deviation, axes = np.linalg.svd((density_N3 - middle_3) / np.sqrt(len(skin_N3) - 1), full_matrices=False)
        melanin_3, haemoglobin_3 = (axis * size for axis, size in zip(axes, deviation[:2]))
        # More pigment is more density; more blood takes more green than red.
        melanin_3 = melanin_3 * np.sign(melanin_3.sum())
        haemoglobin_3 = haemoglobin_3 * np.sign(haemoglobin_3[1] - haemoglobin_3[0])
        return cls(middle_3=middle_3, melanin_3=melanin_3, haemoglobin_3=haemoglobin_3)

    def density(self, tone_B2: np.ndarray) -> np.ndarray:
        """Return the density, (B, 3), of skins of a typology angle (degrees, cut to `ITA_RANGE`) and a redness (standard deviations)."""
        tone_B2 = np.asarray(tone_B2, np.float64)
        angle_B = tone_B2[:, 0].clip(*ITA_RANGE)
        pigment_S = np.linspace(-4.0, 12.0, 641)
        # The angle falls with melanin: each skin's own curve (its redness shifts it) is read backwards.
        density_BS3 = self.middle_3 + tone_B2[:, 1, None, None] * self.haemoglobin_3 + pigment_S[:, None] * self.melanin_3
        angle_BS = ita(np.exp(-density_BS3))
        falling_BS = np.minimum.accumulate(angle_BS, axis=1)
        amount_B = np.array([np.interp(-angle, -curve, pigment_S) for angle, curve in zip(angle_B, falling_BS)])
        return self.middle_3 + tone_B2[:, 1:] * self.haemoglobin_3 + amount_B[:, None] * self.melanin_3

    def colour(self, tone_B2: np.ndarray) -> np.ndarray:
        """Return the skins of `density` as sRGB numbers, (B, 3)."""
        return srgb(np.exp(-self.density(tone_B2)).clip(0.0, 1.0))

    def tone(self, skin_N3: np.ndarray) -> np.ndarray:
        """Return (typology angle, redness) of mean skins, linear reflectance (N, 3); inverse of `density` in its plane."""
        across_N = (density(skin_N3) - self.middle_3) @ self.haemoglobin_3 / (self.haemoglobin_3 @ self.haemoglobin_3)
        return np.stack([ita(skin_N3), across_N], -1)
