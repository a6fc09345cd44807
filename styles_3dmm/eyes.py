"""Eyes at close range, with exact labels of sclera, iris and pupil and the gaze: what an eye segmenter or a gaze network trains on.

Every eye is drawn from its seed by laws of our own (no photograph is behind it): size and opening of the lids, gaze, colours, pupil, blood vessels, lashes,
brow, skin, lamps and their glints, and a camera that may be near or far, dark, tinted, noisy, out of focus or moved. Two looks: visible light, and
infrared (grey, one strong glint, dark pupil in an iris that is brighter than under visible light). Axes: B eyes, H W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core.euler import rotations
from ..core.seeds import numpy_rng
from .eye_camera import photograph
from .eye_kernel import IRIS_DEPTH_MM, Eye, draw_hairs, lid_edges, paint_eye
from .raster import pair_size

EYE_LABELS = ("background", "sclera", "iris", "pupil")

Look = Literal["visible", "infrared", "mixed"]

_IRIS_RGB = np.array([(0.10, 0.055, 0.035), (0.17, 0.10, 0.06), (0.25, 0.16, 0.09), (0.27, 0.24, 0.12), (0.22, 0.28, 0.22), (0.25, 0.33, 0.42), (0.38, 0.43, 0.47)])
_IRIS_SHARES = np.array([0.26, 0.24, 0.16, 0.10, 0.08, 0.09, 0.07])
_SKIN_RGB = np.array([(0.88, 0.69, 0.58), (0.74, 0.54, 0.42), (0.55, 0.37, 0.27), (0.34, 0.22, 0.16)])


@dataclass(frozen=True, kw_only=True, eq=False)
class EyeImages:
    """Eyes and what is known of them.

    Attributes:
        image_BHWC: uint8 RGB (grey in infrared).
        label_BHW: uint8, index into `EYE_LABELS`; of the sharp eye at every pixel's centre, lashes do not count.
        gaze_B3: unit vectors in camera axes (x right, y down, z towards the camera).
        gaze_deg_B2: the same as yaw and pitch, positive to the viewer's right and up.
        opening_B: height of the opening over its width; 0 = closed.
        pupil_px, iris_px: (B, 2) where their centres would be seen, also under a lid; float32, the first pixel's centre is 0.
        infrared_B: bool.
    """

    image_BHWC: np.ndarray
    label_BHW: np.ndarray
    gaze_B3: np.ndarray
    gaze_deg_B2: np.ndarray
    opening_B: np.ndarray
    pupil_px: np.ndarray
    iris_px: np.ndarray
    infrared_B: np.ndarray


def render_eyes(seeds: Sequence[int], *, size_px: tuple[int, int] = (400, 640), look: Look = "mixed", gaze_deg: np.ndarray | None = None, augment: bool = True) -> EyeImages:
    """Return one eye for each seed; an eye depends on its seed and these settings alone.

    Args:
        size_px: height and width of the picture; the eye keeps its place and share in it.
        look: "mixed" = two thirds visible, one third infrared.
        gaze_deg: yaw and pitch, (B, 2), instead of drawn ones; up to 40°.
        augment: motion and focus blur, dark and tinted light, drooping lids, stray hair; False = a sharp, well lit, open eye.

    Raises:
        ValueError: a gaze of another shape, or past 40°.
    """
    height_width = pair_size(size_px)
    if gaze_deg is not None and (np.shape(gaze_deg) != (len(seeds), 2) or not np.abs(gaze_deg).max(initial=0.0) <= 40.0):
        raise ValueError(f"gaze_deg has shape {np.shape(gaze_deg)} for {len(seeds)} seeds or goes past 40 degrees; expected yaw and pitch (B, 2) within ±40")
    rows = [_eye(seed, height_width, look, None if gaze_deg is None else gaze_deg[row], augment) for row, seed in enumerate(seeds)]
    empty = (np.empty((0, *height_width, 3), np.uint8), np.empty((0, *height_width), np.uint8), *(np.empty((0, *shape), np.float32) for shape in ((3,), (2,), (), (2,), (2,))), np.empty(0, bool))
    columns = [np.stack(column) for column in zip(*rows)] if rows else empty
    names = ("image_BHWC", "label_BHW", "gaze_B3", "gaze_deg_B2", "opening_B", "pupil_px", "iris_px", "infrared_B")
    return EyeImages(**dict(zip(names, columns)))


def _eye(seed: int, size_px: tuple[int, int], look: Look, gaze_2: np.ndarray | None, augment: bool) -> tuple:
    rng = numpy_rng(seed, "eye")
    infrared = {"visible": False, "infrared": True, "mixed": bool(rng.random() < 1 / 3)}[look]
    eye, gaze_2, gaze_3 = draw_eye(rng, size_px, infrared=infrared, gaze_2=gaze_2, augment=augment)
    colour_HW3, label_HW = np.empty((*size_px, 3), np.float32), np.empty(size_px, np.uint8)
    paint_eye(eye, colour_HW3, label_HW)
    for hairs, tone_3 in _hairs(rng, eye, infrared=infrared, augment=augment):
        draw_hairs(hairs, tone_3, colour_HW3)
    image_HWC = photograph(colour_HW3, rng, infrared=infrared, augment=augment)
    upper, lower = lid_edges(eye, 0.0)
    centre_3 = np.asarray(eye.gaze, np.float64) * IRIS_DEPTH_MM
    # Axes of the iris's plane as in `eye_kernel.on_iris`.
    gx, gy, gz = eye.gaze
    level = math.hypot(gx, gz)
    pupil_3 = centre_3 + np.array([gz, 0.0, -gx]) / level * eye.pupil_x + np.array([-gx * gy, level**2, -gz * gy]) / level * eye.pupil_y
    facts = (gaze_3.astype(np.float32), np.float32(gaze_2), np.float32((lower - upper) / (2 * eye.width)), _to_px(eye, pupil_3), _to_px(eye, centre_3))
    return (image_HWC, label_HW, *facts, infrared)


def draw_eye(rng: np.random.Generator, size_px: tuple[int, int], *, infrared: bool, gaze_2: np.ndarray | None = None, augment: bool = True) -> tuple[Eye, np.ndarray, np.ndarray]:
    """Draw one eye; returns it, its gaze as yaw and pitch in degrees, and as a unit vector in camera axes."""
    height, width = size_px
    drawn_2 = np.array([rng.normal(0, 15), rng.normal(-3, 10)]).clip(-38, 38)
    gaze_2 = drawn_2 if gaze_2 is None else np.asarray(gaze_2, np.float64)
    roll = math.radians(float(rng.normal(0, 14 if augment else 4)))
    side = float(rng.choice([-1.0, 1.0]))
    gaze_3 = rotations(np.array([[*gaze_2, 0.0]]))[0] @ (0.0, 0.0, 1.0)
    # Into the eye's frame: the picture's turn taken back, x towards the temple.
    frame_3 = np.array([side * (gaze_3[0] * math.cos(roll) + gaze_3[1] * math.sin(roll)), gaze_3[1] * math.cos(roll) - gaze_3[0] * math.sin(roll), gaze_3[2]])
    half = rng.uniform(12.5, 15.5) * rng.uniform(0.88, 1.0)
    share = float(np.exp(rng.uniform(np.log(0.55), np.log(1.5)))) if infrared or rng.random() < 0.15 else float(np.exp(rng.uniform(np.log(0.24), np.log(0.75))))
    scale = share * width / (2 * half)
    shift = np.array([rng.uniform(-0.5, 0.5), rng.uniform(-0.5, 0.5)]) * np.maximum(1.0 - np.array([share, 0.75 * share * width / height]), 0.12) * (0.8 if augment else 0.3)
    upper, lower = _lids(rng, frame_3, augment)
    iris = rng.uniform(5.6, 6.4)
    pupil = iris * (rng.uniform(0.2, 0.62))
    colours = _infrared_colours(rng) if infrared else _visible_colours(rng)
    eye = Eye(
        seed=int(rng.integers(1, 2**20)), x_px=float(width / 2 + shift[0] * width), y_px=float(height / 2 + shift[1] * height), scale=float(scale),
        cos_roll=math.cos(roll), sin_roll=math.sin(roll), side=side, gaze=frame_3, iris_mm=float(iris), pupil_mm=float(pupil),
        pupil_x=float(rng.normal(0, 0.12)), pupil_y=float(rng.normal(0, 0.12)), width=float(half), tilt=float(rng.normal(1.2, 1.6)), upper=upper, lower=lower,
        upper_skew=float(rng.uniform(0.85, 1.15)), lower_skew=float(rng.uniform(0.95, 1.35)), crease=float(rng.uniform(1.5, 6.0)),
        crease_depth=float(rng.uniform(0.05, 0.5)), bag=float(rng.uniform(0.02, 0.22)), vein=float(rng.uniform(0, 1) ** 2), limbus=float(rng.uniform(0.1, 0.75)),
        shadow=float(rng.uniform(0.15, 0.65)), wet=float(rng.uniform(0, 1)), glints=_glints(rng, frame_3, infrared), **colours,
    )  # fmt: skip
    return eye, gaze_2, gaze_3


def _lids(rng: np.random.Generator, gaze_3: np.ndarray, augment: bool) -> tuple[float, float]:
    """Heights of the lid edges; both follow the gaze up and down, the upper one more."""
    look = float(gaze_3[1])
    upper, lower = rng.uniform(3.8, 6.0) - 8.5 * look, rng.uniform(4.4, 6.2) + 4.5 * look
    if augment and rng.random() < 0.3:  # drooping or blinking
        upper = upper - rng.uniform(0.2, 1.02) * (upper + 0.6 * lower)
    return float(min(upper, 9.0)), float(lower)


def _visible_colours(rng: np.random.Generator) -> dict[str, np.ndarray]:
    place = rng.uniform(0, len(_SKIN_RGB) - 1.001)
    low = int(place)
    skin_3 = (_SKIN_RGB[low] + (_SKIN_RGB[low + 1] - _SKIN_RGB[low]) * (place - low)) * rng.normal(1, 0.04, 3)
    outer_3 = _IRIS_RGB[rng.choice(len(_IRIS_RGB), p=_IRIS_SHARES)] * rng.uniform(0.6, 1.5) * rng.normal(1, 0.06, 3)
    inner_3 = outer_3 + (_IRIS_RGB[rng.integers(1, 4)] - outer_3) * rng.uniform(0, 0.7)
    # Lamps close to the lens light the back of the eye: a pupil of dull red.
    pupil_3 = np.array([0.42, 0.17, 0.12]) * rng.uniform(0.2, 1.2) if rng.random() < 0.25 else np.full(3, rng.uniform(0.005, 0.05))
    colours = {"skin": skin_3, "lid": skin_3 * (1.02, 0.76, 0.74), "sclera": np.array([0.86, 0.82, 0.80]) * rng.uniform(0.72, 1.08) * rng.normal(1, 0.02, 3)}
    colours |= {"iris_outer": outer_3, "iris_inner": inner_3, "pupil": pupil_3, "vein_rgb": np.array([0.12, 0.6, 0.6])}
    return {name: np.clip(value, 0.0, 1.2).astype(np.float32) for name, value in colours.items()}


def _infrared_colours(rng: np.random.Generator) -> dict[str, np.ndarray]:
    skin, iris = rng.uniform(0.45, 0.8), rng.uniform(0.12, 0.5)
    grey = {"skin": skin, "lid": skin * rng.uniform(0.85, 1.05), "sclera": skin * rng.uniform(0.65, 1.25), "iris_outer": iris, "iris_inner": iris * rng.uniform(0.8, 1.15), "pupil": rng.uniform(0.01, 0.12)}
    grey["vein_rgb"] = 0.12  # blood hardly absorbs beyond the red: vessels are faint, and grey like all else
    return {name: np.full(3, value, np.float32) for name, value in grey.items()}


def _glints(rng: np.random.Generator, gaze_3: np.ndarray, infrared: bool) -> np.ndarray:
    """Mirror images of lamps on the cornea, (G, 4), and small ones on the wet white."""
    count = 1 + int(rng.random() < 0.3) if infrared else int(rng.integers(0, 4))
    rows = []
    for _ in range(count):
        x, y = gaze_3[:2] * 6.0 + rng.normal(0, 1.6, 2)
        rows.append((x, y, float(np.exp(rng.normal(-1.0 if infrared else -1.2, 0.4))), rng.uniform(0.5, 1.0)))
    for _ in range(int(rng.integers(0, 5))):
        rows.append((rng.uniform(-11, 11), rng.uniform(-4, 5), rng.uniform(0.06, 0.22), rng.uniform(0.3, 0.9)))
    return np.array(rows, np.float64).reshape(-1, 4)


def _to_px(eye: Eye, point_3: np.ndarray) -> np.ndarray:
    """Pixel at which a point of the eye's frame is seen, (2,) float32."""
    x, y = eye.side * point_3[0] * eye.scale, point_3[1] * eye.scale
    return np.array([eye.x_px + x * eye.cos_roll - y * eye.sin_roll, eye.y_px + x * eye.sin_roll + y * eye.cos_roll], np.float32)


def _hairs(rng: np.random.Generator, eye: Eye, *, infrared: bool, augment: bool) -> list[tuple[np.ndarray, np.ndarray]]:
    """Lashes above and below, brow, stray hair: rows for `draw_hairs` with their colours."""
    tone_3 = np.array([0.05, 0.035, 0.03]) * rng.uniform(0.4, 5.0)
    tone_3 = np.full(3, 3.0 * tone_3.mean()) if infrared else tone_3
    length, made = rng.uniform(4.0, 9.0), []
    droop = float(np.clip((5.5 - eye.upper) / 5.0, 0.0, 1.3))
    for upper, count, reach in ((True, rng.integers(40, 110), length), (False, rng.integers(15, 60), 0.38 * length)):
        for t in rng.uniform(0.06, 0.99, count):
            x = (2 * t - 1) * eye.width
            y = lid_edges(eye, x)[0 if upper else 1]
            rise = (-1.0 + 1.6 * droop) if upper else 1.0
            made.append(_hair(eye, (x, y), np.array([1.3 * (t - 0.42) + rng.normal(0, 0.18), rise + rng.normal(0, 0.12)]) * reach * rng.uniform(0.5, 1.0), rng.normal(0.12, 0.1) * (1 if t > 0.4 else -1), 0.075))
    height, strength = rng.uniform(14.0, 22.0), rng.uniform(0.0, 1.0)
    for t in rng.uniform(-0.25, 1.35, int(420 * strength)):
        spread = 3.0 * (1.0 - 0.5 * t)
        place = ((2 * t - 1) * eye.width, -height - 5.0 * t * (1.2 - t) * 2 + rng.normal(0, 0.5) * spread)
        made.append(_hair(eye, place, np.array([1.0, -0.9 + 1.2 * t + rng.normal(0, 0.2)]) * rng.uniform(3.0, 7.0), rng.normal(0, 0.1), 0.1))
    if augment and rng.random() < 0.15:
        for _ in range(int(rng.integers(1, 14))):
            made.append(_hair(eye, (rng.uniform(-25, 25), -22.0), np.array([rng.normal(0, 10), rng.uniform(20, 50)]), rng.normal(0, 0.15), 0.09))
    return [(np.array(made), np.clip(tone_3, 0.0, 0.6).astype(np.float32))] if made else []


def _hair(eye: Eye, place_2: tuple[float, float], along_2: np.ndarray, bend: float, thick_mm: float) -> tuple[float, ...]:
    start_2, end_2 = _to_px(eye, np.array([*place_2, 0.0])), _to_px(eye, np.array([place_2[0] + along_2[0], place_2[1] + along_2[1], 0.0]))
    return (*start_2, *(end_2 - start_2), bend * eye.side, max(thick_mm * eye.scale, 0.28))
