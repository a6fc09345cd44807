"""Z-buffer over triangles, one pass a picture: which triangle each pixel shows, where in it, and how near.

A pixel is covered when its centre lies in a triangle; of two triangles that share an edge exactly one covers a centre on that edge (top-left
rule). That is exact because corners are first put on a grid of 1/1024 px, so that all edge functions are integers. Triangles that face away are
left out. The kernels run as plain Python through `.py_func`; the tests do that.
Floor (anchors.md §5e): set-up of 10 k triangles × ~40 flop + ~28 k pixel tests × ~20 + 9.5 k covered pixels × 15 ≈ 1.1 Mflop, 0.16 ms on one core at 128 px.
Axes: B pictures, V vertices, T triangles, H W height and width.
"""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np

from ..core.check import check
from ..core.errors import UserError

SUBPIXEL = 1024
_FARTHEST_PX = 2.0**20
"""Corners farther out are refused: the products of the edge functions must fit 64-bit integers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Fragments:
    """What a picture's pixels show.

    Attributes:
        triangle_BHW: int32, index of the triangle, -1 where there is none.
        weight_BHW3: float32, how much of each corner: sums to 1, 0 where there is no triangle.
        depth_BHW: float32, in the unit of the input (larger = nearer), -inf where there is no triangle.
    """

    triangle_BHW: np.ndarray
    weight_BHW3: np.ndarray
    depth_BHW: np.ndarray


def rasterise(point_BV3: np.ndarray, triangle_T3: np.ndarray, size_px: tuple[int, int], *, distance_B: np.ndarray | None = None) -> Fragments:
    """Return the nearest front-facing triangle at every pixel.

    Args:
        point_BV3: float32, x and y in px (the first pixel's centre is 0), depth (larger = nearer), as `camera.project` gives them.
        triangle_T3: corners; (b - a) × (c - a) points out of the surface (x right, y down, z towards the viewer).
        size_px: height, width.
        distance_B: (B,) from depth 0 to a perspective camera; weights and depth then are correct in space, not in the picture.

    Raises:
        ValueError: points that are not finite, or farther than 2²⁰ px outside.
    """
    corner_T3, shape = check_mesh(point_BV3, triangle_T3), (len(point_BV3), *size_px)
    triangle_BHW, weight_BHW3 = np.full(shape, -1, np.int32), np.zeros((*shape, 3), np.float32)
    depth_BHW = np.full(shape, -np.inf, np.float32)
    for row, distance in enumerate(distances(distance_B, len(point_BV3))):
        fill(np.ascontiguousarray(point_BV3[row], np.float32), corner_T3, distance, triangle_BHW[row], weight_BHW3[row], depth_BHW[row])
    return Fragments(triangle_BHW=triangle_BHW, weight_BHW3=weight_BHW3, depth_BHW=depth_BHW)


def check_mesh(point_BV3: np.ndarray, triangle_T3: np.ndarray) -> np.ndarray:
    """Return the corners as the kernels want them; the door to `fill` for whoever calls it picture by picture."""
    check("point_BV3", point_BV3, "B V 3")
    check("triangle_T3", triangle_T3, "T 3", lo=0, hi=point_BV3.shape[1] - 1)
    farthest = np.maximum(point_BV3.max(initial=0.0), -point_BV3.min(initial=0.0))
    if not farthest < _FARTHEST_PX:
        raise ValueError(f"points up to {farthest:.3g} px (NaN = not finite), expected less than 2^20; check camera and vertices")
    return np.ascontiguousarray(triangle_T3, np.int32)


def distances(distance_B: np.ndarray | None, count: int) -> np.ndarray:
    """Return the cameras' distances as `fill` wants them, (count,) float64; 0 stands for a weak-perspective camera."""
    return np.broadcast_to(np.zeros(1) if distance_B is None else np.asarray(distance_B, np.float64), count)


def pair_size(size_px: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width); one number means a square.

    Raises:
        UserError: less than 1 px.
    """
    height, width = (size_px, size_px) if isinstance(size_px, int) else size_px
    if min(height, width) < 1:
        raise UserError(f"a picture of {height}x{width} px was asked for, expected at least 1x1")
    return height, width


@numba.njit(nogil=True, cache=True)
def fill(point_V3, triangle_T3, distance, triangle_HW, weight_HW3, depth_HW):
    """Draw one picture into its three buffers; `distance` 0 = weak perspective."""
    grid_V2 = np.empty((len(point_V3), 2), np.int64)
    for v in range(len(point_V3)):
        grid_V2[v, 0] = np.int64(np.rint(point_V3[v, 0] * np.float32(1024)))
        grid_V2[v, 1] = np.int64(np.rint(point_V3[v, 1] * np.float32(1024)))
    height, width = triangle_HW.shape
    for t in range(len(triangle_T3)):
        a, b, c = triangle_T3[t, 0], triangle_T3[t, 1], triangle_T3[t, 2]
        ax, ay, bx, by, cx, cy = grid_V2[a, 0], grid_V2[a, 1], grid_V2[b, 0], grid_V2[b, 1], grid_V2[c, 0], grid_V2[c, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        if area <= 0:  # faces away or is edge-on: half of all
            continue
        # First and last pixel centre in the bounding box; >> 10 is the floor of the division by 1024.
        left, right = max((min(ax, bx, cx) + 1023) >> 10, 0), min(max(ax, bx, cx) >> 10, width - 1)
        top, bottom = max((min(ay, by, cy) + 1023) >> 10, 0), min(max(ay, by, cy) >> 10, height - 1)
        if left > right or top > bottom:  # holds no pixel's centre
            continue
        # Edge opposite a runs b → c, and so on; a centre exactly on an edge belongs to it only if the edge is a top or a left one.
        bias_a = 0 if (cy < by or (cy == by and cx > bx)) else -1
        bias_b = 0 if (ay < cy or (ay == cy and ax > cx)) else -1
        bias_c = 0 if (by < ay or (by == ay and bx > ax)) else -1
        za, zb, zc = point_V3[a, 2], point_V3[b, 2], point_V3[c, 2]
        if distance > 0:  # 1 / (distance before the camera) is what is linear in the picture
            za, zb, zc = np.float32(1 / (distance - za)), np.float32(1 / (distance - zb)), np.float32(1 / (distance - zc))
        share = np.float32(1.0) / np.float32(area)
        x0, y0 = left << 10, top << 10
        row_a = (cx - bx) * (y0 - by) - (cy - by) * (x0 - bx)
        row_b = (ax - cx) * (y0 - cy) - (ay - cy) * (x0 - cx)
        row_c = area - row_a - row_b
        step_ax, step_bx, step_ay, step_by = (cy - by) << 10, (ay - cy) << 10, (cx - bx) << 10, (ax - cx) << 10
        for y in range(top, bottom + 1):
            ea, eb = row_a, row_b
            for x in range(left, right + 1):
                ec = area - ea - eb
                if ea + bias_a >= 0 and eb + bias_b >= 0 and ec + bias_c >= 0:
                    wa, wb = np.float32(ea) * share, np.float32(eb) * share
                    wc = np.float32(1.0) - wa - wb
                    near = wa * za + wb * zb + wc * zc
                    if near > depth_HW[y, x]:
                        triangle_HW[y, x] = t
                        if distance > 0:
                            wa, wb, wc = wa * za / near, wb * zb / near, wc * zc / near
                        weight_HW3[y, x, 0], weight_HW3[y, x, 1], weight_HW3[y, x, 2] = wa, wb, wc
                        depth_HW[y, x] = near
                ea -= step_ax
                eb -= step_bx
            row_a += step_ay
            row_b += step_by
    if distance > 0:
        for y in range(height):
            for x in range(width):
                if triangle_HW[y, x] >= 0:
                    depth_HW[y, x] = np.float32(distance - 1 / depth_HW[y, x])
