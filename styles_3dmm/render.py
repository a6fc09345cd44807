"""Pictures of heads: colour, normals, albedo, Lambertian shading, depth, mask, parts and landmarks of a batch in one call.

Shading is Lambertian under second-order spherical harmonics (`light`), pixel by pixel, on albedo as it stands in the picture (sRGB numbers, as DECA
and most morphable models do). Axes: B heads, V vertices, H W height and width, C channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numba
import numpy as np
import torch
from torch import Tensor

from ..core.check import check
from .camera import Camera, to_pixels, turn
from .light import LAMBERT_9, ambient
from .morphable import MorphableHead
from .normals import seams, vertex_normals
from .raster import check_mesh, distances, fill, pair_size

LAYERS = ("colour", "normals", "albedo", "lambert")
"""What is painted pixel by pixel; ask for fewer and the rest is None."""

GREY = 0.5
"""Albedo of the grey head; skin under full light would be brighter than its picture could show."""

_BEHIND_MM = 4.0
"""A landmark this much behind what its pixel shows still counts as visible: it is a vertex, and the pixel shows the skin beside it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Rendering:
    """What a renderer returns; nothing of the background but its colour.

    Attributes:
        colour, albedo, lambert: (B, H, W, 3) float32 in [0, 1]; `lambert` is the light on a grey head. None where not asked for.
        normals: (B, H, W, 3) float32, unit length, camera axes (x right, y down, z towards the camera); 0 outside.
        depth: (B, H, W) float32, mm, larger = nearer, 0 at the head's origin; -inf outside.
        mask: (B, H, W) bool, the head.
        parts: (B, H, W) uint8, 0 = background, 1 + index into `morphable.PARTS`.
        landmark_px: (B, 68, 2) float32, also outside the picture.
        landmark_visible: (B, 68) bool, in the picture and not hidden by the head.
    """

    colour: np.ndarray | None
    normals: np.ndarray | None
    albedo: np.ndarray | None
    lambert: np.ndarray | None
    depth: np.ndarray
    mask: np.ndarray
    parts: np.ndarray
    landmark_px: np.ndarray
    landmark_visible: np.ndarray

    def image(self) -> Tensor:
        """Return the colours as the house holds images: float32 RGB in [-1, 1], (B, 3, H, W)."""
        return torch.from_numpy(np.ascontiguousarray(self.colour.transpose(0, 3, 1, 2))).mul(2.0).sub_(1.0)

    def style_maps(self) -> Tensor:
        """Return normals, albedo and Lambertian shading, each in [-1, 1], 0 outside the head, (B, 9, H, W) float32 (generators.md §3.2)."""
        inside_BHW1 = self.mask[..., None]
        maps = (self.normals, (self.albedo * 2 - 1) * inside_BHW1, (self.lambert * 2 - 1) * inside_BHW1)
        return torch.from_numpy(np.ascontiguousarray(np.concatenate(maps, axis=3).transpose(0, 3, 1, 2), np.float32))


def render(
    head: MorphableHead,
    vertices_BV3: np.ndarray,
    camera: Camera,
    pose_B3: np.ndarray,
    *,
    albedo: np.ndarray | None = None,
    light_B93: np.ndarray | None = None,
    size_px: int | tuple[int, int] = 128,
    background: float | np.ndarray = 0.0,
    supersample: int = 1,
    layers: Sequence[str] = LAYERS,
) -> Rendering:
    """Render heads.

    Args:
        vertices_BV3: mm, in the head's frame.
        pose_B3: yaw, pitch, roll in degrees.
        albedo: in [0, 1]: vertex colours (B or 1, V, 3), or textures (B or 1, H, W, 3) in the head's UV, read bilinearly; None = grey.
        light_B93: spherical harmonics (`light`), one a head or one for all; None = even light.
        size_px: side, or (height, width).
        background: grey level, colour (3,), or pictures that can be broadcast to (B, H, W, 3), in [0, 1].
        supersample: 2 = colours are the mean of 2×2 samples a pixel, with soft edges; labels and all else stay those of the pixel's centre.
        layers: which of `LAYERS` to paint.
    """
    sizes = check("vertices_BV3", vertices_BV3, f"B {len(head.mean_V3)} 3")
    unknown = set(layers) - set(LAYERS)
    if unknown:
        raise ValueError(f"layers {sorted(unknown)} are not among {', '.join(LAYERS)}")
    size_px, scene = pair_size(size_px), _Scene(head, turn(vertices_BV3, pose_B3), albedo, ambient()[None] if light_B93 is None else light_B93)
    back_BHW3 = np.broadcast_to(np.asarray(background, np.float32), (sizes["B"], *size_px, 3))
    fine = supersample > 1 and "colour" in layers
    painted, depth_BHW, part_BHW = scene.draw(camera, [layer for layer in layers if not (fine and layer == "colour")], back_BHW3)
    if fine:
        fine_BHW3 = scene.draw(camera.resized(supersample), ["colour"], back_BHW3.repeat(supersample, 1).repeat(supersample, 2))[0]["colour"]
        # A sum of strided pictures: numpy's mean over two axes of 2 takes five times as long.
        samples = [fine_BHW3[:, y::supersample, x::supersample] for y in range(supersample) for x in range(supersample)]
        painted["colour"] = sum(samples[1:], samples[0].copy()) / np.float32(supersample**2)
    landmark_B683 = to_pixels(camera, head.landmarks(scene.turned_BV3))
    return Rendering(
        **{layer: painted.get(layer) for layer in LAYERS},
        depth=depth_BHW,
        mask=part_BHW > 0,
        parts=part_BHW,
        landmark_px=np.ascontiguousarray(landmark_B683[:, :, :2]),
        landmark_visible=_visible(landmark_B683, depth_BHW),
    )


class _Scene:
    """Heads turned to the camera, with their normals, albedo and light: what does not depend on the picture's size."""

    def __init__(self, head: MorphableHead, turned_BV3: np.ndarray, albedo: np.ndarray | None, light_B93: np.ndarray) -> None:
        check("light_B93", light_B93, "B 9 3")
        self.head, self.turned_BV3, self.normal_BV3 = head, turned_BV3, vertex_normals(turned_BV3, head.triangle_T3, seams(head))
        # Constants of the basis go into the light once, not into every pixel.
        self.light_B93 = (light_B93 * LAMBERT_9[:, None]).astype(np.float32)
        albedo = np.full((1, len(head.mean_V3), 3), GREY, np.float32) if albedo is None else np.ascontiguousarray(albedo, np.float32)
        check("albedo", albedo, f"B {len(head.mean_V3)} 3" if albedo.ndim == 3 else "B H W 3")
        nothing = np.zeros((1, 1, 1, 3), np.float32)
        self.colour_BV3, self.texture_BHW3 = (albedo, nothing) if albedo.ndim == 3 else (nothing[0], albedo)
        for name, rows in (("light_B93", self.light_B93), ("albedo", albedo)):
            if len(rows) not in (1, len(turned_BV3)):
                raise ValueError(f"{name} has {len(rows)} rows for {len(turned_BV3)} heads; expected as many, or one for all")

    def draw(self, camera: Camera, layers: Sequence[str], back_BHW3: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
        """Return the layers by name, the depths and the part labels."""
        head, point_BV3, shape = self.head, to_pixels(camera, self.turned_BV3), back_BHW3.shape
        made = {layer: np.zeros(shape, np.float32) for layer in layers if layer != "colour"}
        if "colour" in layers:
            made["colour"] = _backdrop(back_BHW3)
        depth_BHW, part_BHW = np.full(shape[:3], -np.inf, np.float32), np.zeros(shape[:3], np.uint8)
        out = [made.get(layer, np.zeros((shape[0], 0, 0, 3), np.float32)) for layer in LAYERS]
        corner_T3, uv_V2 = check_mesh(point_BV3, head.triangle_T3), np.ascontiguousarray(head.uv_V2, np.float32)
        # Triangles and weights of one picture serve the next: they stay in the cache.
        triangle_HW, weight_HW3 = np.empty(shape[1:3], np.int32), np.empty(shape[1:], np.float32)
        for row, distance in enumerate(distances(camera.distance_mm, shape[0])):
            triangle_HW.fill(-1)
            fill(point_BV3[row], corner_T3, distance, triangle_HW, weight_HW3, depth_BHW[row])
            colour, texture, light = (rows[row % len(rows)] for rows in (self.colour_BV3, self.texture_BHW3, self.light_B93))
            mesh = corner_T3, head.part_T, self.normal_BV3[row], uv_V2
            paint(triangle_HW, weight_HW3, *mesh, colour, texture, light, part_BHW[row], *(layer[row] for layer in out))
        return made, depth_BHW, part_BHW


def _backdrop(back_BHW3: np.ndarray) -> np.ndarray:
    """A buffer of its own that shows the background. One value broadcast to all pixels is slow to copy, and black need not be written at all."""
    if not back_BHW3.size or any(back_BHW3.strides):
        return np.array(back_BHW3, np.float32, order="C")
    picture_BHW3, value = np.zeros(back_BHW3.shape, np.float32), back_BHW3.flat[0]
    if value != 0:
        picture_BHW3.fill(value)
    return picture_BHW3


@numba.njit(nogil=True, cache=True, fastmath={"contract", "arcp", "nsz", "reassoc"})
def paint(triangle_HW, weight_HW3, corner_T3, part_T, normal_V3, uv_V2, colour_V3, texture_HW3, light_93, part_HW, colour_HW3, normal_HW3, albedo_HW3, lambert_HW3):
    """Paint one picture's layers; a buffer of no pixels is not painted. `colour_V3` of one row means: read the texture."""
    base, rgb = np.zeros(3, np.float32), np.zeros(3, np.float32)
    textured, half = len(colour_V3) == 1, np.float32(0.5)
    for y in range(triangle_HW.shape[0]):
        for x in range(triangle_HW.shape[1]):
            t = triangle_HW[y, x]
            if t < 0:
                continue
            part_HW[y, x] = part_T[t] + 1
            a, b, c = corner_T3[t, 0], corner_T3[t, 1], corner_T3[t, 2]
            wa, wb, wc = weight_HW3[y, x, 0], weight_HW3[y, x, 1], weight_HW3[y, x, 2]
            nx = wa * normal_V3[a, 0] + wb * normal_V3[b, 0] + wc * normal_V3[c, 0]
            ny = wa * normal_V3[a, 1] + wb * normal_V3[b, 1] + wc * normal_V3[c, 1]
            nz = wa * normal_V3[a, 2] + wb * normal_V3[b, 2] + wc * normal_V3[c, 2]
            unit = np.float32(1) / np.float32(np.sqrt(max(nx * nx + ny * ny + nz * nz, np.float32(1e-12))))
            nx, ny, nz = nx * unit, ny * unit, nz * unit
            if textured:
                u = wa * uv_V2[a, 0] + wb * uv_V2[b, 0] + wc * uv_V2[c, 0]
                v = wa * uv_V2[a, 1] + wb * uv_V2[b, 1] + wc * uv_V2[c, 1]
                read_bilinear(texture_HW3, u * np.float32(texture_HW3.shape[1]) - half, v * np.float32(texture_HW3.shape[0]) - half, base)
            else:
                for k in range(3):
                    base[k] = wa * colour_V3[a, k] + wb * colour_V3[b, k] + wc * colour_V3[c, k]
            xy, xz, yz, xx, zz = nx * ny, nx * nz, ny * nz, nx * nx - ny * ny, 3 * nz * nz - 1
            for k in range(3):
                low = light_93[0, k] + light_93[1, k] * nx + light_93[2, k] * ny + light_93[3, k] * nz
                high = light_93[4, k] * xy + light_93[5, k] * xz + light_93[6, k] * yz + light_93[7, k] * xx + light_93[8, k] * zz
                rgb[k] = max(low + high, np.float32(0))
            if colour_HW3.size:
                for k in range(3):
                    colour_HW3[y, x, k] = min(base[k] * rgb[k], np.float32(1))
            if normal_HW3.size:
                normal_HW3[y, x, 0], normal_HW3[y, x, 1], normal_HW3[y, x, 2] = nx, ny, nz
            if albedo_HW3.size:
                albedo_HW3[y, x] = base
            if lambert_HW3.size:
                for k in range(3):
                    lambert_HW3[y, x, k] = min(np.float32(GREY) * rgb[k], np.float32(1))


@numba.njit(inline="always")
def read_bilinear(picture_HWC, x, y, out_C):
    """Write the colour at a pixel position (integers are texel centres) into `out_C`; outside, the edge goes on."""
    height, width = picture_HWC.shape[:2]
    x, y = min(max(x, np.float32(0)), np.float32(width - 1)), min(max(y, np.float32(0)), np.float32(height - 1))
    left, top = int(x), int(y)
    right, bottom = min(left + 1, width - 1), min(top + 1, height - 1)
    fx, fy = x - np.float32(left), y - np.float32(top)
    for k in range(picture_HWC.shape[2]):
        upper = picture_HWC[top, left, k] * (1 - fx) + picture_HWC[top, right, k] * fx
        lower = picture_HWC[bottom, left, k] * (1 - fx) + picture_HWC[bottom, right, k] * fx
        out_C[k] = upper * (1 - fy) + lower * fy


def _visible(landmark_BP3: np.ndarray, depth_BHW: np.ndarray) -> np.ndarray:
    """Which landmarks lie in the picture and at the surface there, (B, P) bool."""
    height, width = depth_BHW.shape[1:]
    pixel_BP2 = np.rint(landmark_BP3[:, :, :2]).astype(np.int64)
    x_BP, y_BP = pixel_BP2[:, :, 0], pixel_BP2[:, :, 1]
    inside_BP = (x_BP >= 0) & (x_BP < width) & (y_BP >= 0) & (y_BP < height)
    shown_BP = depth_BHW[np.arange(len(depth_BHW))[:, None], y_BP.clip(0, height - 1), x_BP.clip(0, width - 1)]
    return inside_BP & (shown_BP <= landmark_BP3[:, :, 2] + _BEHIND_MM)
