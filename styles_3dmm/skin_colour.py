"""Skin tones: colour spaces, the typology angle, and a two-axis model by which light and dark skin are both reached.

In optical density (minus the logarithm of linear reflectance) what pigments take away adds up, so a skin is a point along a melanin axis and a haemoglobin axis
(Tsumura et al., "Image-based skin color and texture analysis/synthesis by extracting hemoglobin and melanin information", SIGGRAPH 2003). Tsumura finds
the axes in the pixels of a face by ICA; here melanin is the first principal axis of people's mean skins ([C]: people differ in melanin before all else) and
haemoglobin a fixed direction: it takes away green and blue about alike and hardly any red (its bands at 415 and 540-575 nm; [C]: the weights).
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
_HAEMOGLOBIN = np.array([0.16, 0.75, 0.64])
_ANCHOR_LAB = np.array([62.0, 11.0, 16.0])
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


def from_lab(value: np.ndarray) -> np.ndarray:
    """Return linear reflectance of CIE L*a*b* (D65); inverse of `lab`."""
    y = (value[..., 0] + 16) / 116
    root = np.stack([y + value[..., 1] / 500, y, y - value[..., 2] / 200], -1)
    ratio = np.where(root > 6 / 29, root**3, 3 * (6 / 29) ** 2 * (root - 4 / 29))
    return ratio * _WHITE @ np.linalg.inv(_XYZ).T


def balance(skin_N3: np.ndarray) -> np.ndarray:
    """Return the gains, (3,), by which photographs of unknown exposure and colour balance show skin as it is measured.

    [C]: the median of the people is brought to L* 62, a* 11, b* 16 (an angle of 37°), amid what spectrophotometers find on the faces of mixed groups.
    """
    return from_lab(_ANCHOR_LAB) / np.median(skin_N3, axis=0)


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
        haemoglobin_3: the same for blood; redder.
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
        # More pigment is more density.
        melanin_3 = axes[0] * deviation[0] * np.sign(axes[0].sum())
        amount_N2 = np.linalg.lstsq(np.stack([melanin_3, _HAEMOGLOBIN], 1), (density_N3 - middle_3).T, rcond=None)[0].T
        return cls(middle_3=middle_3, melanin_3=melanin_3, haemoglobin_3=_HAEMOGLOBIN * amount_N2[:, 1].std())

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
        """Return (typology angle, redness) of mean skins, linear reflectance (N, 3); inverse of `density` in the plane of the two axes."""
        axes_32 = np.stack([self.melanin_3, self.haemoglobin_3], 1)
        return np.stack([ita(skin_N3), np.linalg.lstsq(axes_32, (density(skin_N3) - self.middle_3).T, rcond=None)[0][1]], -1)
