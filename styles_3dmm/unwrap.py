"""From a picture to the head's texture: which texel shows which point of the surface, and what colour a picture has there.

Axes: N faces, H W height and width of the texture, V vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt, map_coordinates

from .camera import Camera, project, turn
from .morphable import MorphableHead
from .normals import vertex_normals
from .raster import rasterise

_BEHIND_MM = 3.0


@dataclass(frozen=True, kw_only=True, eq=False)
class Texels:
    """Attributes:
        triangle_HW: triangle each texel lies in, -1 where the chart is empty.
        weight_HW3: how much of each of its corners.
        part_HW: index into `morphable.PARTS`, or 255.
    """

    triangle_HW: np.ndarray
    weight_HW3: np.ndarray
    part_HW: np.ndarray

    @classmethod
    def of(cls, head: MorphableHead, size: int) -> Texels:
        """Rasterise a head's chart; triangles that go round its rim are left out."""
        pixel_V2 = head.uv_V2 * size - 0.5
        flat_V3 = np.concatenate([pixel_V2, np.zeros((len(pixel_V2), 1))], 1).astype(np.float32)
        small_T = np.ptp(head.uv_V2[head.triangle_T3], axis=1).max(1) < 0.4
        number_T = np.flatnonzero(small_T)
        found = rasterise(flat_V3[None], head.triangle_T3[number_T], (size, size))
        local_HW = found.triangle_BHW[0]
        triangle_HW = np.where(local_HW >= 0, number_T[local_HW], -1)
        return cls(triangle_HW=triangle_HW, weight_HW3=found.weight_BHW3[0], part_HW=np.where(triangle_HW >= 0, head.part_T[triangle_HW], 255))

    def carry(self, head: MorphableHead, value_VC: np.ndarray) -> np.ndarray:
        """Return what vertices carry, (V, C), at the texels, (H, W, C); of an empty texel it has no meaning."""
        return np.einsum("hwk,hwkc->hwc", self.weight_HW3, value_VC[head.triangle_T3[self.triangle_HW]])


def unwrap(head: MorphableHead, texels: Texels, vertices_V3: np.ndarray, camera: Camera, pose_3: np.ndarray, image_HWC: np.ndarray) -> tuple[np.ndarray, ...]:
    """Bring one picture into the texture.

    Args:
        camera: of one row.
        image_HWC: float, any range.

    Returns:
        (colour_HW3, normal_HW3 in camera axes, seen_HW: cosine towards the camera where the texel is seen, else 0).
    """
    point_BV3 = project(camera, vertices_V3[None], pose_3[None])
    normal_V3 = vertex_normals(turn(vertices_V3[None], pose_3[None]), head.triangle_T3)[0]
    nearest_HW = rasterise(point_BV3, head.triangle_T3, image_HWC.shape[:2]).depth_BHW[0]
    place_HW3, normal_HW3 = texels.carry(head, point_BV3[0]), texels.carry(head, normal_V3)
    normal_HW3 = normal_HW3 / np.linalg.norm(normal_HW3, axis=2, keepdims=True).clip(1e-6)
    at = [place_HW3[..., 1], place_HW3[..., 0]]
    colour_HW3 = np.stack([map_coordinates(image_HWC[..., c], at, order=1, mode="nearest") for c in range(3)], -1)
    inside_HW = (place_HW3[..., 0] >= 0) & (place_HW3[..., 0] < image_HWC.shape[1]) & (place_HW3[..., 1] >= 0) & (place_HW3[..., 1] < image_HWC.shape[0])
    front_HW = map_coordinates(nearest_HW, at, order=0, mode="nearest") <= place_HW3[..., 2] + _BEHIND_MM
    seen_HW = np.where(inside_HW & front_HW & (texels.triangle_HW >= 0), normal_HW3[..., 2], 0.0).clip(0.0)
    return colour_HW3, normal_HW3, seen_HW


def fill(value_HWC: np.ndarray, known_HW: np.ndarray) -> np.ndarray:
    """Return the picture with unknown pixels as their nearest known one."""
    rows, columns = distance_transform_edt(~known_HW, return_distances=False, return_indices=True)
    return value_HWC[rows, columns]
