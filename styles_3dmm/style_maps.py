"""Style codes to style maps: normals, albedo and Lambertian rendering of the head a code stands for, as MorphFace's style encoder reads them.

Source: MorphFace (CVPR 2025) with DECA's rendering, generators.md §3.2: shaded = albedo ⊙ Σ_k l_k H_k(n), every map in [-1, 1], 0 outside the head.
Axes: B codes, P columns, V vertices, S side in px.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from ..core.check import check
from ..core.template import SIDE, five_points
from .appearance import SKIN_MEAN_RGB
from .camera import Camera, project
from .morphable import PARTS, MorphableHead
from .render import render
from .style import TONE, StyleLayout

_OVER_SKIN = {"skin": (1.0, 1.0, 1.0), "lips": (0.88, 0.66, 0.68), "mouth": (0.35, 0.25, 0.25), "brows": (0.42, 0.40, 0.40), "hair": (0.35, 0.33, 0.33)}
_OF_ITS_OWN = {"sclera": (0.86, 0.83, 0.81), "iris": (0.30, 0.22, 0.16), "pupil": (0.05, 0.05, 0.05), "teeth": (0.87, 0.84, 0.78)}
"""Albedo of the parts, as a multiple of the skin's or as it is. Choices of ours: a code says how light the skin is, not what colour the eyes are."""


def render_style(head: MorphableHead, code_BP: np.ndarray, layout: StyleLayout, size_px: int = SIDE, *, albedo: np.ndarray | None = None, mean_person: bool = False) -> np.ndarray:
    """Return style maps, (B, 9, S, S) float32 in [-1, 1]: normals x y z in camera axes, albedo RGB, albedo times light RGB; 0 outside the head.

    Args:
        code_BP: codes of this layout; brought within what can be rendered (`StyleLayout.clip`) first.
        albedo: (1 or B, V, 3) or (1 or B, H, W, 3) instead of the one by parts from the code's skin tone.
        mean_person: the mean head in mean skin under the code's expression, pose and light, so that the maps carry no identity (the leak test of §3.2);
            scale and shift bring its five points (`core.template`) closest to where the code's own head has them.

    Raises:
        ValueError: codes of another layout, or a layout of another head.
    """
    check("code_BP", code_BP, f"B {len(layout)}")
    block = layout.unpack(layout.clip(code_BP))
    check("shape block", block["shape"], f"B {len(head.identity_KV3)}")
    vertices_BV3, camera = head.vertices(block["shape"], block["expr"]), Camera.weak(block["cam"][:, 0], block["cam"][:, 1:])
    if mean_person:
        own_BV3, vertices_BV3 = vertices_BV3, head.vertices(np.zeros_like(block["shape"]), block["expr"])
        camera = _reframed(head, camera, block["pose"][:, :3], own_BV3, vertices_BV3)
    if albedo is None:
        albedo = part_albedo(head, SKIN_MEAN_RGB[None] if mean_person else _tone(block["tex"], layout))
    light_B93 = block["light"].reshape(-1, 9, 3)
    picture = render(head, vertices_BV3, camera.resized(size_px / SIDE), block["pose"][:, :3], albedo=albedo, light_B93=light_B93, size_px=size_px, layers=("colour", "normals", "albedo"))
    outside_BHW = ~picture.mask
    map_BHW9 = np.concatenate([picture.normals, picture.albedo * 2 - 1, picture.colour * 2 - 1], axis=3)
    map_BHW9[outside_BHW] = 0.0
    return np.ascontiguousarray(map_BHW9.transpose(0, 3, 1, 2))


def part_albedo(head: MorphableHead, tone_B3: np.ndarray) -> np.ndarray:
    """Return the albedo of the vertices, (B, V, 3) float32 in [0, 1], of heads whose skin's is given, (B, 3)."""
    check("tone_B3", tone_B3, "B 3", lo=0.0, hi=1.0)
    colour_BP3 = np.stack([tone_B3 * _OVER_SKIN[part] if part in _OVER_SKIN else np.broadcast_to(_OF_ITS_OWN[part], tone_B3.shape) for part in PARTS], axis=1)
    return (part_share(head) @ colour_BP3).astype(np.float32)


def _tone(texture_BX: np.ndarray, layout: StyleLayout) -> np.ndarray:
    first = layout.slices["tex"].start
    if any(name not in layout.names for name in TONE):  # textures of another model (DECA): its coefficients say nothing of a tone
        return SKIN_MEAN_RGB[None]
    return texture_BX[:, [layout.column(name) - first for name in TONE]]


def _reframed(head: MorphableHead, camera: Camera, pose_B3: np.ndarray, own_BV3: np.ndarray, other_BV3: np.ndarray) -> Camera:
    """The camera under which other heads' five points lie closest to those of the cameras' own heads."""
    own_B52, other_B52 = (five_points(project(camera, head.landmarks(vertices), pose_B3)[:, :, :2].astype(np.float64)) for vertices in (own_BV3, other_BV3))
    own_B12, other_B12 = own_B52.mean(1, keepdims=True), other_B52.mean(1, keepdims=True)
    own_B52, other_B52 = own_B52 - own_B12, other_B52 - other_B12
    factor_B1 = ((own_B52 * other_B52).sum((1, 2)) / np.square(other_B52).sum((1, 2)))[:, None]
    return Camera.weak(camera.scale_B * factor_B1[:, 0], own_B12[:, 0] + factor_B1 * (camera.shift_B2 - other_B12[:, 0]))


@lru_cache(maxsize=8)
def part_share(head: MorphableHead) -> np.ndarray:
    """How much of each part's triangles meet at a vertex, (V, parts), rows sum to 1: colours run into each other within one triangle."""
    share_VP = np.zeros((len(head.mean_V3), len(PARTS)), np.float32)
    np.add.at(share_VP, (head.triangle_T3.reshape(-1), np.repeat(head.part_T, 3)), 1.0)
    share_VP[share_VP.sum(1) == 0, PARTS.index("skin")] = 1.0
    return share_VP / share_VP.sum(1, keepdims=True)
