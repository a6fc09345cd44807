"""A head at a glance: what it holds in numbers, and a picture of its mean, components, expressions and turns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from ..core.files import write_atomic
from .camera import arcface_camera
from .light import ambient, directional
from .morphable import PARTS, MorphableHead
from .render import render
from .style_maps import part_albedo

_SIDE = 224
_SHOWN = 4
_SKIN = (0.74, 0.56, 0.47)


def head_facts(head: MorphableHead) -> dict[str, Any]:
    """Return a head's figures by name."""
    share_P = np.bincount(head.part_T, minlength=len(PARTS))
    return {
        "head": head.name,
        "licence": head.licence,
        "vertices": len(head.mean_V3),
        "triangles": len(head.triangle_T3),
        "identity components": len(head.identity_KV3),
        "expressions": len(head.expression_EV3),
        "named": "yes" if head.expression_names else "no",
        "height_mm": float(np.ptp(head.mean_V3[:, 1])),
        "eyes_apart_mm": float(np.linalg.norm(head.eye_centre_23[0] - head.eye_centre_23[1])),
        "triangles by part": {name: int(count) for name, count in zip(PARTS, share_P) if count},
    }


def draw_head(head: MorphableHead, path: Path) -> None:
    """Write a picture of four rows: the mean turned about, first components at +2 and at -2, first expressions at 1; landmarks are green dots."""
    identity_BK, expression_BE = np.zeros((4 * _SHOWN, len(head.identity_KV3))), np.zeros((4 * _SHOWN, len(head.expression_EV3)))
    for column in range(_SHOWN):
        if column < len(head.identity_KV3):
            identity_BK[_SHOWN + column, column], identity_BK[2 * _SHOWN + column, column] = 2.0, -2.0
        if column < len(head.expression_EV3):
            expression_BE[3 * _SHOWN + column, column * len(head.expression_EV3) // _SHOWN] = 1.0
    vertices_BV3 = head.vertices(identity_BK, expression_BE)
    pose_B3 = np.zeros((len(vertices_BV3), 3))
    pose_B3[:_SHOWN, 0] = np.linspace(0.0, 60.0, _SHOWN)
    camera = arcface_camera(head, np.zeros((1, 3)), head.mean_V3[None], size_px=_SIDE)
    light_93 = ambient(0.5) + directional(np.array([0.4, -0.5, 1.0]), 0.5)
    picture = render(head, vertices_BV3, camera, pose_B3, albedo=part_albedo(head, np.array([_SKIN])), light_B93=light_93[None], size_px=_SIDE, background=0.7, supersample=2, layers=("colour",))
    tile_BHW3 = (picture.colour * 255).round().astype(np.uint8)
    for tile_HW3, place_L2 in zip(tile_BHW3, picture.landmark_px.round().astype(int)):
        x, y = place_L2[((place_L2 >= 0) & (place_L2 < _SIDE)).all(1)].T
        tile_HW3[y, x] = (0, 255, 0)
    rows = [np.concatenate(list(tile_BHW3[start : start + _SHOWN]), axis=1) for start in range(0, len(tile_BHW3), _SHOWN)]
    write_atomic(path, lambda temporary: Image.fromarray(np.concatenate(rows)).save(temporary, format="PNG"))
