"""One eye, pixel by pixel: an eyeball behind two lid curves in skin, by rays parallel to the camera's axis.

The head's own lids are made of a few dozen triangles, too coarse for a close-up of 640 px; this eye is analytic and as fine as the picture. The iris is a
plane disc in the eyeball, so that the outlines of iris and pupil are exact ellipses. Lengths in mm in the eye's frame: origin at the eyeball's centre, x
towards the temple, y down, z towards the camera. Labels: 0 background, 1 sclera, 2 iris, 3 pupil.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

IRIS_DEPTH_MM = 9.7
"""From the eyeball's centre to the plane of the iris as it is seen through the cornea."""


class Eye(NamedTuple):
    """What decides one picture; colours are (3,) float32 albedos in [0, 1].

    Attributes:
        seed: of the textures.
        x_px, y_px, scale, cos_roll, sin_roll, side: pixel of the eyeball's centre, px per mm, turn in the picture, +1 = temple at the picture's right.
        gaze: unit vector in the eye's frame.
        iris_mm, pupil_mm: radii, pupil_x, pupil_y: offset of the pupil's centre in the iris's plane.
        width: half the distance of the corners; tilt: how much higher the outer one lies; upper, lower: greatest height of the lid edges over and
            under the line of the corners (their sum 0 or less = closed); upper_skew, lower_skew: exponents that move the peaks towards the temple (> 1).
        crease, crease_depth, bag: fold above the upper lid (distance, darkness), darkness of the one under the lower.
        vein: strength of the blood vessels; vein_rgb: share of each channel that the strongest of them takes.
        limbus, shadow, wet: strengths of the iris's dark rim, the upper lid's shade on the eyeball, the shine of the lower lid's edge.
        glints: (G, 4) x, y from the eyeball's centre, radius (mm), brightness.
    """

    seed: int
    x_px: float
    y_px: float
    scale: float
    cos_roll: float
    sin_roll: float
    side: float
    gaze: np.ndarray
    iris_mm: float
    pupil_mm: float
    pupil_x: float
    pupil_y: float
    width: float
    tilt: float
    upper: float
    lower: float
    upper_skew: float
    lower_skew: float
    crease: float
    crease_depth: float
    bag: float
    vein: float
    limbus: float
    shadow: float
    wet: float
    skin: np.ndarray
    lid: np.ndarray
    sclera: np.ndarray
    iris_inner: np.ndarray
    iris_outer: np.ndarray
    pupil: np.ndarray
    vein_rgb: np.ndarray
    glints: np.ndarray


@numba.njit(inline="always")
def _lattice(ix, iy, seed):
    """A number in [-1, 1] of two whole ones, as good as random."""
    h = (ix * 374761393 + iy * 668265263 + seed * 1442695041) & 0xFFFFFFFF
    h = ((h ^ (h >> 13)) * 1274126177) & 0xFFFFFFFF
    return ((h ^ (h >> 16)) & 0xFFFF) / 32767.5 - 1.0


@numba.njit(nogil=True, cache=True)
def ripple(x, y, seed):
    """Smooth noise in [-1, 1] with grains of about 1."""
    ix, iy = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - ix, y - iy
    fx, fy = fx * fx * (3 - 2 * fx), fy * fy * (3 - 2 * fy)
    upper = _lattice(ix, iy, seed) * (1 - fx) + _lattice(ix + 1, iy, seed) * fx
    lower = _lattice(ix, iy + 1, seed) * (1 - fx) + _lattice(ix + 1, iy + 1, seed) * fx
    return upper * (1 - fy) + lower * fy


@numba.njit(inline="always")
def _step(low, high, x):
    """0 below `low`, 1 above `high`, smooth between."""
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3 - 2 * t)


@numba.njit(nogil=True, cache=True)
def lid_edges(eye, x):
    """Heights, y in mm, of the upper and the lower lid's edge at x; beyond the corners both are the line through them."""
    t = (x + eye.width) / (2 * eye.width)
    line = -eye.tilt * min(max(t, -0.5), 1.5)
    if t <= 0 or t >= 1:
        return line, line
    up, low = t**eye.upper_skew, t**eye.lower_skew
    upper, lower = line - eye.upper * 4 * up * (1 - up), line + eye.lower * 4 * low * (1 - low)
    return min(upper, lower), max(upper, lower) if eye.upper + eye.lower > 0 else min(upper, lower)


@numba.njit(nogil=True, cache=True)
def on_iris(eye, x, y):
    """Where the ray at (x, y) meets the plane of the iris: two coordinates in that plane, mm from the iris's centre."""
    gx, gy, gz = eye.gaze[0], eye.gaze[1], eye.gaze[2]
    z = (IRIS_DEPTH_MM - x * gx - y * gy) / gz
    dx, dy, dz = x - IRIS_DEPTH_MM * gx, y - IRIS_DEPTH_MM * gy, z - IRIS_DEPTH_MM * gz
    # Axes of the plane: one level, one at right angles to it and to the gaze.
    level = np.sqrt(gx * gx + gz * gz)
    return (dx * gz - dz * gx) / level, (-dx * gx * gy + dy * level * level - dz * gz * gy) / level


@numba.njit(nogil=True, cache=True)
def label_of(eye, x, y):
    """What the ray at (x, y) meets: 0 background, 1 sclera, 2 iris, 3 pupil."""
    upper, lower = lid_edges(eye, x)
    if not upper < y < lower:
        return 0
    u, v = on_iris(eye, x, y)
    if u * u + v * v >= eye.iris_mm * eye.iris_mm:
        return 1
    u, v = u - eye.pupil_x, v - eye.pupil_y
    return 3 if u * u + v * v < eye.pupil_mm * eye.pupil_mm else 2


@numba.njit(nogil=True, cache=True)
def paint_eye(eye, colour_HW3, label_HW):
    """Write albedo times own shade into `colour_HW3` and the labels into `label_HW`; lashes, lamps and the camera come later."""
    skin, ball = np.zeros(3, np.float32), np.zeros(3, np.float32)
    for row in range(label_HW.shape[0]):
        for column in range(label_HW.shape[1]):
            right, down = column - eye.x_px, row - eye.y_px
            x, y = eye.side * (right * eye.cos_roll + down * eye.sin_roll) / eye.scale, (down * eye.cos_roll - right * eye.sin_roll) / eye.scale
            label_HW[row, column] = label_of(eye, x, y)
            upper, lower = lid_edges(eye, x)
            # How much of the pixel is open: the nearer edge, in px, and never more than the slit is wide.
            open_share = min(max(min(y - upper, lower - y) * eye.scale + 0.5, 0.0), (lower - upper) * eye.scale, 1.0)
            if open_share < 1:
                _skin(eye, x, y, upper - y, y - lower, skin)
            if open_share > 0:
                _ball(eye, x, y, y - upper, ball)
            for k in range(3):
                colour_HW3[row, column, k] = skin[k] * (1 - open_share) + ball[k] * open_share


@numba.njit(nogil=True, cache=True)
def _skin(eye, x, y, above, below, out):
    """Skin at (x, y), `above` mm over the upper edge, `below` mm under the lower one (negative: not)."""
    t = (x + eye.width) / (2 * eye.width)
    along = _step(-0.25, 0.1, t) * (1 - _step(0.9, 1.35, t))
    grain = 0.07 * ripple(x / 7, y / 7, eye.seed) + 0.04 * ripple(x / 1.7, y / 1.7, eye.seed + 1) + 0.035 * ripple(x / 0.45, y / 0.45, eye.seed + 2)
    shade = 1 + grain
    if above > 0:
        fold = above - eye.crease * (0.7 + 0.3 * along)
        shade -= eye.crease_depth * along * (np.exp(-((fold / 0.5) ** 2)) + 0.35 * np.exp(-(((fold - 1.5) / 1.6) ** 2)))
        shade += 0.10 * along * np.exp(-(((above - 0.5 * eye.crease) / 1.3) ** 2)) - 0.35 * along * np.exp(-((above / 0.45) ** 2))
    else:
        shade -= eye.bag * along * np.exp(-(((below - 5.5 - 0.8 * ripple(x / 4, 0.0, eye.seed + 3)) / 1.2) ** 2))
        shade += 0.5 * eye.bag * along * np.exp(-(((below - 2.5) / 1.5) ** 2))
    # The nose's side of the socket lies deeper.
    shade -= 0.25 * np.exp(-(((x + eye.width + 3) / 5) ** 2) - ((y + 3) / 7) ** 2)
    edge = _step(0.0, 0.08, t) * (1 - _step(0.92, 1.0, t)) * (1 - _step(0.5, 1.5, below)) if below > 0 else 0.0
    near_lid = along * np.exp(-((max(above, below) / 3.0) ** 2)) * 0.5
    for k in range(3):
        value = eye.skin[k] * (1 - near_lid) + (0.5 * eye.skin[k] + 0.5 * eye.lid[k]) * near_lid
        value = value * (1 - edge) + eye.lid[k] * edge
        shine = eye.wet * edge * (0.15 + 0.85 * _step(0.2, 0.9, ripple(x * 1.6, 0.0, eye.seed + 4))) * np.exp(-(((below - 0.5) / 0.3) ** 2))
        out[k] = max(value * max(shade, 0.05) + 0.4 * shine, 0.0)


@numba.njit(nogil=True, cache=True)
def _ball(eye, x, y, under_lid, out):
    """Eyeball at (x, y), `under_lid` mm below the upper lid's edge."""
    facing = np.sqrt(max(1 - (x / 17) ** 2 - (y / 13) ** 2, 0.02))
    t = (x + eye.width) / (2 * eye.width)
    flesh = 1 - _step(0.035, 0.12, t + 0.015 * ripple(x * 1.5, y * 1.5, eye.seed + 5))
    far = min(abs(x) / eye.width, 1.0)
    line = 1 - abs(ripple(x * 0.55 + 0.6 * ripple(x, y, eye.seed + 6), y * 1.3, eye.seed + 7))
    fine = 1 - abs(ripple(x * 1.4 + ripple(x, y, eye.seed + 8), y * 2.6, eye.seed + 9))
    vein = eye.vein * (_step(0.90, 1.0, line) + 0.6 * _step(0.90, 1.0, fine)) * (0.15 + 0.85 * far * far)
    for k in range(3):
        white = eye.sclera[k] * (0.5 + 0.5 * facing) * (1 - vein * eye.vein_rgb[k])
        out[k] = white * (1 - flesh) + eye.lid[k] * flesh * (0.9 + 0.2 * ripple(x * 2, y * 2, eye.seed + 10))
    u, v = on_iris(eye, x, y)
    distance = np.sqrt(u * u + v * v)
    # The white runs into the iris over half a millimetre; the label's edge lies in the middle.
    covers = _step(-0.32, 0.32, eye.iris_mm - distance)
    if covers > 0:
        _iris(eye, u, v, distance / eye.iris_mm, covers, out)
    dark = eye.shadow * np.exp(-max(under_lid, 0.0) / 1.7)
    shine = 0.0
    for g in range(len(eye.glints)):
        apart = np.hypot(x - eye.glints[g, 0], y - eye.glints[g, 1])
        shine = max(shine, eye.glints[g, 3] * min(max((eye.glints[g, 2] - apart) * eye.scale * 0.7 + 0.5, 0.0), 1.0))
    for k in range(3):
        out[k] = out[k] * (1 - dark) * (1 - shine) + 1.6 * shine


@numba.njit(nogil=True, cache=True)
def _iris(eye, u, v, part, covers, out):
    """Lay the iris, at `part` of its radius, and the pupil over `out`; `covers` is the share of the pixel that is iris."""
    length = max(np.hypot(u, v), 1e-6)
    cx, cy = u / length, v / length
    fibre = ripple(cx * (7 + part), cy * (7 + part), eye.seed + 11)
    thin = ripple(cx * (19 + 2 * part) + 31, cy * (19 + 2 * part), eye.seed + 12)
    blot = ripple(u * 0.7, v * 0.7, eye.seed + 13)
    frill = eye.pupil_mm / eye.iris_mm
    frill = frill + 0.25 * (1 - frill)
    outer = _step(frill - 0.08, frill + 0.14, part + 0.08 * fibre)
    ring = 0.22 * np.exp(-(((part - frill - 0.03 * fibre) / 0.05) ** 2))
    bright = 0.9 + 0.28 * fibre * (0.4 + 0.6 * part) + 0.2 * thin + 0.12 * blot + ring
    bright *= 1 - eye.limbus * _step(0.80, 1.0, part)
    pu, pv = u - eye.pupil_x, v - eye.pupil_y
    hole = min(max((eye.pupil_mm - np.sqrt(pu * pu + pv * pv)) * eye.scale * eye.gaze[2] + 0.5, 0.0), 1.0)
    for k in range(3):
        ground = (eye.iris_inner[k] * (1 - outer) + eye.iris_outer[k] * outer) * max(bright, 0.1)
        out[k] = out[k] * (1 - covers) + (ground * (1 - hole) + eye.pupil[k] * hole) * covers


@numba.njit(nogil=True, cache=True)
def draw_hairs(hair_S6, colour_3, colour_HW3):
    """Draw hairs, rows of (x, y, dx, dy, bend, thickness) in px: parabolas of length |d| that thin out, bent to the side by `bend` of it."""
    height, width = colour_HW3.shape[:2]
    for s in range(len(hair_S6)):
        x0, y0, dx, dy, bend, thick = hair_S6[s, 0], hair_S6[s, 1], hair_S6[s, 2], hair_S6[s, 3], hair_S6[s, 4], hair_S6[s, 5]
        steps = int(np.hypot(dx, dy) * 1.3) + 2
        for i in range(steps):
            t = i / (steps - 1)
            x, y = x0 + dx * t - dy * bend * t * t, y0 + dy * t + dx * bend * t * t
            radius = thick * (1 - 0.85 * t)
            reach = int(radius + 1.5)
            for row in range(max(int(y) - reach, 0), min(int(y) + reach + 2, height)):
                for column in range(max(int(x) - reach, 0), min(int(x) + reach + 2, width)):
                    cover = min(max(radius - np.hypot(column - x, row - y) + 0.5, 0.0), min(2 * radius, 1.0)) * 0.55
                    for k in range(3):
                        colour_HW3[row, column, k] += cover * (colour_3[k] - colour_HW3[row, column, k])
