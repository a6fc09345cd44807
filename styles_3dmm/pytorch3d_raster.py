"""The renderer's outputs through pytorch3d, where it is installed: on a GPU, and with gradients to vertices, albedo and light.

Without it nothing is missing but those two: `render.render` is the reference, 4,400 times as fast on a CPU (anchors.md §5e). pytorch3d looks along
+z with x to the left and y up, and counts pixels in NDC units: the shorter side of the picture spans [-1, 1].
Axes: B heads, V vertices, T triangles, H W height and width, M triangles that face the camera, over the batch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.check import check
from ..core.errors import UserError
from ..core.euler import rotations
from .camera import Camera
from .light import LAMBERT_9
from .morphable import MorphableHead
from .normals import seams
from .raster import pair_size
from .render import GREY

_AHEAD_MM = 10_000.0
"""Depth 0 lies here before pytorch3d's camera under weak perspective; what is behind its camera it would not draw."""


def render_pytorch3d(
    head: MorphableHead, vertices_BV3: Tensor, camera: Camera, pose_B3: np.ndarray, *, albedo_BV3: Tensor, light_B93: Tensor, size_px: int | tuple[int, int] = 128
) -> dict[str, Tensor]:
    """Return "colour", "normals", "albedo", "lambert" (B, H, W, 3), "depth" and "triangle" (B, H, W), as `render.render` defines them.

    Gradients flow to the vertices (through places inside triangles, not across outlines), the vertex colours and the light.

    Args:
        vertices_BV3: float32 mm, on the device to render on.
        albedo_BV3: vertex colours in [0, 1]; light_B93: spherical harmonics.

    Raises:
        UserError: pytorch3d is not installed.
    """
    check("albedo_BV3", albedo_BV3, f"{len(vertices_BV3)} {len(head.mean_V3)} 3")
    check("light_B93", light_B93, f"{len(vertices_BV3)} 9 3")
    device = vertices_BV3.device
    corner_T3 = torch.as_tensor(head.triangle_T3, dtype=torch.int64, device=device)
    turned_BV3 = vertices_BV3 @ torch.as_tensor(rotations(pose_B3).transpose(0, 2, 1), dtype=torch.float32, device=device)
    distance_B = None if camera.distance_mm is None else torch.as_tensor(camera.distance_mm, dtype=torch.float32, device=device)
    triangle_BHW, weight_BHW3, depth_BHW = rasterise_pytorch3d(_project(camera, turned_BV3, distance_B), corner_T3, pair_size(size_px), distance_B)
    normal_BV3 = _normals(turned_BV3, corner_T3, torch.as_tensor(seams(head), dtype=torch.int64, device=device))
    inside_BHW1 = (triangle_BHW >= 0)[..., None]
    normals = torch.nn.functional.normalize(_read(normal_BV3, corner_T3, triangle_BHW, weight_BHW3), dim=-1) * inside_BHW1
    albedo = _read(albedo_BV3, corner_T3, triangle_BHW, weight_BHW3)
    light = torch.einsum("bhwj,bjc->bhwc", _basis(normals), light_B93).clamp_min(0.0) * inside_BHW1
    colour, lambert = (albedo * light).clamp_max(1.0), (GREY * light).clamp_max(1.0)
    return {"colour": colour, "normals": normals, "albedo": albedo, "lambert": lambert, "depth": depth_BHW, "triangle": triangle_BHW}


def rasterise_pytorch3d(point_BV3: Tensor, corner_T3: Tensor, size_px: tuple[int, int], distance_B: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `raster.rasterise` returns: triangles (-1 = none), weights and depths (-inf = none).

    Args:
        point_BV3: x and y in px (first centre 0), depth (larger = nearer).
        distance_B: from depth 0 to a perspective camera; None = weak perspective.
    """
    rasterize_meshes, meshes = _pytorch3d()
    ahead_B = torch.full((len(point_BV3),), _AHEAD_MM, device=point_BV3.device) if distance_B is None else distance_B
    (height, width), unit = size_px, 2.0 / min(size_px)
    ndc_BV3 = torch.stack([((width - 1) / 2 - point_BV3[..., 0]) * unit, ((height - 1) / 2 - point_BV3[..., 1]) * unit, ahead_B[:, None] - point_BV3[..., 2]], -1)
    # Which side of a triangle is its front is decided here, by our rule, and only fronts are handed on.
    front_BT = _areas(point_BV3, corner_T3) > 0
    kept = [front_T.nonzero()[:, 0] for front_T in front_BT]
    mesh = meshes(verts=list(ndc_BV3), faces=[corner_T3[rows] for rows in kept])
    face_BHW1, z_BHW1, weight_BHW13, _ = rasterize_meshes(mesh, image_size=size_px, blur_radius=0.0, faces_per_pixel=1, perspective_correct=distance_B is not None)
    packed_M = torch.cat(kept)
    face_BHW = face_BHW1[..., 0]
    inside_BHW = face_BHW >= 0
    triangle_BHW = torch.where(inside_BHW, packed_M[face_BHW.clamp_min(0)], -1)
    weight_BHW3 = torch.where(inside_BHW[..., None], weight_BHW13[..., 0, :], 0.0)
    depth_BHW = torch.where(inside_BHW, ahead_B[:, None, None] - z_BHW1[..., 0], -torch.inf)
    return triangle_BHW, weight_BHW3, depth_BHW


def _basis(normal: Tensor) -> Tensor:
    """`light.sh_basis` with gradients."""
    x, y, z = normal.unbind(-1)
    bare = torch.stack([torch.ones_like(x), x, y, z, x * y, x * z, y * z, x * x - y * y, 3 * z * z - 1], -1)
    return bare * torch.as_tensor(LAMBERT_9, dtype=normal.dtype, device=normal.device)


def _project(camera: Camera, turned_BV3: Tensor, distance_B: Tensor | None) -> Tensor:
    scale_B11, shift_B12 = (torch.as_tensor(value, dtype=torch.float32, device=turned_BV3.device) for value in (camera.scale_B[:, None, None], camera.shift_B2[:, None]))
    if distance_B is not None:
        scale_B11 = scale_B11 * distance_B[:, None, None] / (distance_B[:, None, None] - turned_BV3[..., 2:])
    return torch.cat([turned_BV3[..., :2] * scale_B11 + shift_B12, turned_BV3[..., 2:]], -1)


def _areas(point_BV3: Tensor, corner_T3: Tensor) -> Tensor:
    a, b, c = (point_BV3[:, corner_T3[:, k], :2] for k in range(3))
    (ux, uy), (vx, vy) = (b - a).unbind(-1), (c - a).unbind(-1)
    return ux * vy - uy * vx


def _normals(turned_BV3: Tensor, corner_T3: Tensor, twin_V: Tensor) -> Tensor:
    a, b, c = (turned_BV3[:, corner_T3[:, k]] for k in range(3))
    face_BT3 = torch.linalg.cross(b - a, c - a)
    sums_BV3 = torch.zeros_like(turned_BV3)
    for k in range(3):
        sums_BV3 = sums_BV3.index_add(1, twin_V[corner_T3[:, k]], face_BT3)
    return torch.nn.functional.normalize(sums_BV3[:, twin_V], dim=-1)


def _read(value_BVC: Tensor, corner_T3: Tensor, triangle_BHW: Tensor, weight_BHW3: Tensor) -> Tensor:
    """Vertex values at the pixels, (B, H, W, C); 0 outside, where all weights are 0."""
    corner_BHW3 = corner_T3[triangle_BHW.clamp_min(0)]
    rows = torch.arange(len(value_BVC), device=value_BVC.device)[:, None, None, None]
    return (value_BVC[rows, corner_BHW3] * weight_BHW3[..., None]).sum(3)


def _pytorch3d() -> tuple[Any, Any]:
    """Return (rasterize_meshes, Meshes)."""
    try:
        from pytorch3d.renderer import rasterize_meshes
        from pytorch3d.structures import Meshes
    except ImportError as error:
        raise UserError("this renderer needs the package 'pytorch3d', which is not installed; install it as its INSTALL.md says, or use styles_3dmm.render, which needs nothing") from error
    return rasterize_meshes, Meshes
