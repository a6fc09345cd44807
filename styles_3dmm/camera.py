"""Cameras over a batch of heads: from millimetres to pixels, and the camera under which a head is framed as aligned faces are.

Axes: B heads, V vertices. Head and camera share their axes (x to the viewer's right, y down, z towards the camera, see `morphable`); pixels are
counted like dlib's landmarks: the first pixel's centre is (0, 0).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numba
import numpy as np

from ..core.check import check
from ..core.euler import rotations
from ..core.template import SIDE, TEMPLATE_PX, five_points
from .morphable import MorphableHead

NEAREST_MM = 10.0
"""No vertex may come closer to a perspective camera: behind it the projection has no meaning."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Camera:
    """One camera for each head of a batch; one row serves the whole batch.

    Attributes:
        kind: "weak" = every point at one scale; "perspective" = what is nearer is larger.
        scale_B: px per mm, at the depth of the head's origin, > 0.
        shift_B2: pixel at which the head's origin is seen.
        distance_mm: (B,) from the head's origin to the camera, perspective only; the optical axis passes through the origin.
    """

    kind: Literal["weak", "perspective"] = "weak"
    scale_B: np.ndarray
    shift_B2: np.ndarray
    distance_mm: np.ndarray | None = None

    def __post_init__(self) -> None:
        check("shift_B2", self.shift_B2, f"{len(self.scale_B)} 2")
        if not (np.asarray(self.scale_B) > 0).all():
            raise ValueError(f"scale_B is {self.scale_B}, expected more than 0 px per mm")
        if (self.distance_mm is None) != (self.kind == "weak"):
            raise ValueError(f"a {self.kind} camera with distance_mm {self.distance_mm}: a perspective camera needs it, a weak one has none")
        if self.distance_mm is not None:
            check("distance_mm", np.asarray(self.distance_mm), str(len(self.scale_B)), lo=NEAREST_MM)

    @classmethod
    def weak(cls, scale_B: np.ndarray, shift_B2: np.ndarray) -> Camera:
        """Return a weak-perspective camera."""
        return cls(scale_B=np.asarray(scale_B, np.float64), shift_B2=np.asarray(shift_B2, np.float64))

    @classmethod
    def perspective(cls, focal_px: np.ndarray, distance_mm: np.ndarray, shift_B2: np.ndarray) -> Camera:
        """Return a pinhole camera of focal length `focal_px`, (B,), at `distance_mm`, (B,), from the head's origin."""
        focal_px, distance_mm = np.asarray(focal_px, np.float64), np.asarray(distance_mm, np.float64)
        return cls(kind="perspective", scale_B=focal_px / distance_mm, shift_B2=np.asarray(shift_B2, np.float64), distance_mm=distance_mm)

    @property
    def focal_px(self) -> np.ndarray | None:
        """Focal length, (B,); None for a weak camera."""
        return None if self.distance_mm is None else self.scale_B * self.distance_mm

    def resized(self, factor: float) -> Camera:
        """Return the camera of the same pictures at `factor` times their size."""
        return Camera(kind=self.kind, scale_B=self.scale_B * factor, shift_B2=resize_px(self.shift_B2, factor), distance_mm=self.distance_mm)


def resize_px(point_px: np.ndarray, factor: float) -> np.ndarray:
    """Return where points lie in a picture `factor` times as large: the pictures' edges, half a pixel outside the first centre, coincide."""
    return (point_px + 0.5) * factor - 0.5


def turn(vertices_BV3: np.ndarray, pose_B3: np.ndarray) -> np.ndarray:
    """Return heads turned about their origin by (yaw, pitch, roll) in degrees, (B, V, 3) float32: camera axes, still mm."""
    check("pose_B3", pose_B3, f"{len(vertices_BV3)} 3", lo=-360.0, hi=360.0)
    return np.asarray(vertices_BV3, np.float32) @ rotations(np.asarray(pose_B3, np.float64)).transpose(0, 2, 1).astype(np.float32)


def project(camera: Camera, vertices_BV3: np.ndarray, pose_B3: np.ndarray) -> np.ndarray:
    """Return x and y in pixels and depth in mm (larger = nearer; 0 at the head's origin) of vertices, (B, V, 3) float32.

    Args:
        vertices_BV3: mm, in the head's frame.
        pose_B3: yaw, pitch, roll in degrees, in the convention of `core.euler`.

    Raises:
        ValueError: a vertex closer than `NEAREST_MM` to a perspective camera.
    """
    return to_pixels(camera, turn(vertices_BV3, pose_B3))


def to_pixels(camera: Camera, turned_BV3: np.ndarray) -> np.ndarray:
    """`project` of vertices that are in camera axes already."""
    if len(camera.scale_B) not in (1, len(turned_BV3)):
        raise ValueError(f"a camera for {len(camera.scale_B)} heads and {len(turned_BV3)} heads; expected as many, or one for all")
    turned_BV3 = np.ascontiguousarray(turned_BV3, np.float32)
    place_B4 = np.zeros((len(camera.scale_B), 4), np.float32)
    place_B4[:, 0], place_B4[:, 1:3], place_B4[:, 3] = camera.scale_B, camera.shift_B2, 0.0 if camera.distance_mm is None else camera.distance_mm
    point_BV3 = np.empty_like(turned_BV3)
    nearest_mm = place(turned_BV3, place_B4, point_BV3)
    if not nearest_mm >= NEAREST_MM:
        raise ValueError(f"a vertex lies {nearest_mm:.0f} mm before the camera, expected at least {NEAREST_MM:.0f}; move the camera away")
    return point_BV3


@numba.njit(nogil=True, cache=True)
def place(turned_BV3, place_B4, point_BV3):
    """Write pixels and depths by rows of scale, x, y and distance (0 = weak perspective); returns how far the nearest vertex is from its camera, mm.

    Numpy takes ten times as long: its innermost loop over such arrays has three turns.
    """
    nearest = np.float32(np.inf)
    for row in range(len(turned_BV3)):
        scale, right, down, distance = place_B4[row % len(place_B4)]
        for v in range(turned_BV3.shape[1]):
            x, y, z = turned_BV3[row, v, 0], turned_BV3[row, v, 1], turned_BV3[row, v, 2]
            if distance > 0:
                before = distance - z
                nearest = min(nearest, before)
                larger = distance / before
                x, y = x * larger, y * larger
            point_BV3[row, v, 0], point_BV3[row, v, 1], point_BV3[row, v, 2] = x * scale + right, y * scale + down, z
    return nearest


def arcface_camera(head: MorphableHead, pose_B3: np.ndarray, vertices_BV3: np.ndarray | None = None, *, size_px: int = SIDE, distance_mm: float | None = None) -> Camera:
    """Return the camera that frames heads as the ArcFace template frames aligned faces.

    Scale and shift bring the head's eyes, nose tip and mouth corners closest to the template in the least squares. A camera cannot tilt a
    picture: with the roll of `aligned_pose` the fit is the aligner's own similarity transform, with another roll the face stays tilted.

    Args:
        pose_B3: yaw, pitch, roll in degrees.
        vertices_BV3: the heads, mm; the mean head for all where None.
        size_px: side of the picture.
        distance_mm: of a perspective camera from the heads' origin; None = weak perspective.
    """
    seen_B52, target_52 = _seen_five(head, pose_B3, vertices_BV3, distance_mm), resize_px(TEMPLATE_PX, size_px / SIDE)
    centred_B52, centred_52 = seen_B52 - seen_B52.mean(1, keepdims=True), target_52 - target_52.mean(0)
    scale_B = (centred_B52 * centred_52).sum((1, 2)) / (centred_B52**2).sum((1, 2))
    shift_B2 = target_52.mean(0) - scale_B[:, None] * seen_B52.mean(1)
    if distance_mm is None:
        return Camera.weak(scale_B, shift_B2)
    return Camera.perspective(scale_B * distance_mm, np.full(len(scale_B), float(distance_mm)), shift_B2)


def aligned_pose(head: MorphableHead, pose_B3: np.ndarray, vertices_BV3: np.ndarray | None = None, *, distance_mm: float | None = None) -> np.ndarray:
    """Return poses, (B, 3), with the roll that alignment leaves a face of this yaw and pitch (small, but not 0 where both are turned)."""
    seen_B52 = _seen_five(head, pose_B3, vertices_BV3, distance_mm)
    (x, y), (u, v) = np.moveaxis(seen_B52 - seen_B52.mean(1, keepdims=True), -1, 0), (TEMPLATE_PX - TEMPLATE_PX.mean(0)).T
    tilt_B = np.degrees(np.arctan2((x * v - y * u).sum(1), (x * u + y * v).sum(1)))
    return np.asarray(pose_B3, np.float64) + tilt_B[:, None] * (0.0, 0.0, 1.0)


def _seen_five(head: MorphableHead, pose_B3: np.ndarray, vertices_BV3: np.ndarray | None, distance_mm: float | None) -> np.ndarray:
    """The five points seen by a camera of 1 px per mm, (B, 5, 2)."""
    if vertices_BV3 is None:
        vertices_BV3 = np.broadcast_to(head.mean_V3, (len(pose_B3), *head.mean_V3.shape))
    one, origin = np.ones(1), np.zeros((1, 2))
    camera = Camera.weak(one, origin) if distance_mm is None else Camera.perspective(one * distance_mm, one * distance_mm, origin)
    return five_points(project(camera, head.landmarks(vertices_BV3), pose_B3)[:, :, :2].astype(np.float64))
