"""Glasses and face masks as geometry on a head: they turn with it, hide what lies behind them and have labels of their own.

Both are meshes appended to the head's; a head that does not wear one carries it folded into a point, which no picture shows.
Axes: B heads, V vertices of the head, X vertices of the accessories; mm, the head's frame.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from ..core.check import check
from .morphable import PARTS, MorphableHead

LABELS = ("background", *PARTS, "glasses", "cover")
"""What the labels of a picture of a dressed head mean; the first ten are those of `render.Rendering.parts`."""

_RIM = 24
_BEFORE_EYE_MM = 13.0
_CURVE_MM = 240.0
_ROWS, _COLUMNS, _COVER_DEG = 12, 17, 76.0
_AXIS_Z_MM = -60.0
_GAP_MM = 1.5


@dataclass(frozen=True, kw_only=True, eq=False)
class Glasses:
    """Shape of the glasses of a batch of heads, mm; each (B,).

    Attributes:
        worn, dark: whether there are any, and whether their lenses are opaque.
        half_width, half_height: of a lens; rim: breadth of the frame.
        square: exponent of the lens outline, 2 = ellipse, larger = more of a rectangle.
    """

    worn: np.ndarray
    dark: np.ndarray
    half_width: np.ndarray
    half_height: np.ndarray
    rim: np.ndarray
    square: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class DressedHead:
    """A head with the meshes of the accessories behind its own.

    Attributes:
        head: what to hand to `render`; its vertices are the bare head's, the frame's, the lenses', the cover's.
        bare: the head without.
        frame, lenses, cover: slices of the vertices.
    """

    head: MorphableHead
    bare: MorphableHead
    frame: slice
    lenses: slice
    cover: slice

    def vertices(self, bare_BV3: np.ndarray, glasses: Glasses, covered_B: np.ndarray) -> np.ndarray:
        """Return the vertices of dressed heads, (B, V + X, 3) float32, of the bare heads'."""
        check("bare_BV3", bare_BV3, f"{len(covered_B)} {len(self.bare.mean_V3)} 3")
        frame_BX3, lens_BX3 = _glasses(self.bare.landmarks(bare_BV3), glasses)
        cover_BX3 = _cover(self.bare, bare_BV3)
        folded_B13 = bare_BV3.mean(1, keepdims=True)
        worn_B11, covered_B11 = glasses.worn[:, None, None], np.asarray(covered_B)[:, None, None]
        frame_BX3 = np.where(worn_B11, frame_BX3, folded_B13)
        lens_BX3 = np.where(worn_B11 & glasses.dark[:, None, None], lens_BX3, folded_B13)
        return np.concatenate([bare_BV3, frame_BX3, lens_BX3, np.where(covered_B11, cover_BX3, folded_B13)], axis=1).astype(np.float32)

    def colours(self, bare_BV3: np.ndarray, frame_B3: np.ndarray, lens_B3: np.ndarray, cover_B3: np.ndarray) -> np.ndarray:
        """Return vertex colours, (B, V + X, 3) float32, of the bare heads' and one colour for each thing."""
        parts = ((self.frame, frame_B3), (self.lenses, lens_B3), (self.cover, cover_B3))
        spread = [np.repeat(colour_B3[:, None], part.stop - part.start, axis=1) for part, colour_B3 in parts]
        return np.concatenate([bare_BV3, *spread], axis=1).astype(np.float32)


@lru_cache(maxsize=4)
def dress(head: MorphableHead) -> DressedHead:
    """Return the head with glasses and a cover to wear."""
    one = np.ones(1)
    frame_V3, lens_V3 = (part[0] for part in _glasses(head.landmarks(head.mean_V3[None]), Glasses(worn=one > 0, dark=one > 0, half_width=one * 24, half_height=one * 18, rim=one * 2, square=one * 3)))
    cover_V3 = _cover(head, head.mean_V3[None])[0]
    edges = np.cumsum([len(head.mean_V3), len(frame_V3), len(lens_V3), len(cover_V3)])
    frame, lenses, cover = (slice(int(first), int(last)) for first, last in zip(edges, edges[1:]))
    triangles = [head.triangle_T3, _frame_triangles() + frame.start, _lens_triangles() + lenses.start, _both_sides(_grid_triangles(_ROWS, _COLUMNS), _ROWS * _COLUMNS) + cover.start]
    glasses_label, cover_label = LABELS.index("glasses") - 1, LABELS.index("cover") - 1
    labels = [head.part_T, np.full(len(triangles[1]) + len(triangles[2]), glasses_label), np.full(len(triangles[3]), cover_label)]
    total = int(edges[-1])
    worn = replace(
        head,
        name=f"{head.name}, dressed",
        mean_V3=np.concatenate([head.mean_V3, frame_V3, lens_V3, cover_V3]).astype(np.float32),
        identity_KV3=np.zeros((0, total, 3), np.float32),
        expression_EV3=np.zeros((0, total, 3), np.float32),
        triangle_T3=np.concatenate(triangles).astype(np.int32),
        part_T=np.concatenate(labels).astype(np.uint8),
        uv_V2=np.concatenate([head.uv_V2, np.zeros((total - len(head.uv_V2), 2), np.float32)]),
        eye_V=np.concatenate([head.eye_V, np.zeros(total - len(head.eye_V), np.int8)]),
    )
    return DressedHead(head=worn, bare=head, frame=frame, lenses=lenses, cover=cover)


def _glasses(landmark_B683: np.ndarray, shape: Glasses) -> tuple[np.ndarray, np.ndarray]:
    """Vertices of frames and lenses, (B, X, 3): two rims, a bridge and two temples, each with a back; two discs, each with a back."""
    angle_R = np.arange(_RIM) * 2 * np.pi / _RIM
    ray_R2 = np.stack([np.cos(angle_R), np.sin(angle_R)], -1)
    round_BR2 = np.sign(ray_R2) * np.abs(ray_R2) ** (2 / shape.square[:, None, None])
    size_B12 = np.stack([shape.half_width, shape.half_height], -1)[:, None]
    rim_B11 = shape.rim[:, None, None]
    before_B1 = landmark_B683[:, 36:48, 2].mean(1)[:, None] + _BEFORE_EYE_MM
    frame, lens = [], []
    for first, side, ear in ((36, -1.0, 0), (42, 1.0, 16)):
        centre_B12 = landmark_B683[:, first : first + 6, :2].mean(1, keepdims=True) + (side * 2.0, 3.0)
        inner_BR2, outer_BR2 = centre_B12 + round_BR2 * size_B12, centre_B12 + round_BR2 * (size_B12 + rim_B11)
        frame += [_at_depth(inner_BR2, before_B1), _at_depth(outer_BR2, before_B1)]
        lens += [_at_depth(np.concatenate([centre_B12, inner_BR2], 1), before_B1 - 0.5)]
        edge_B3 = _at_depth(centre_B12 + (side, -0.4) * (size_B12 + rim_B11), before_B1)[:, 0]
        ear_B3 = landmark_B683[:, ear] + (side * 1.0, -3.0, -20.0)
        half_B3 = np.stack([0 * shape.rim, 1.0 + 0.5 * shape.rim, 0 * shape.rim], -1)
        frame += [np.stack([edge_B3 - half_B3, edge_B3 + half_B3, ear_B3 - half_B3, ear_B3 + half_B3], 1)]
    # Bridge: from one rim's inner side to the other's.
    left_B12, right_B12 = frame[1][:, :1, :2], frame[4][:, _RIM // 2 : _RIM // 2 + 1, :2]
    lift_B12 = np.stack([0 * shape.rim, 0.35 * shape.half_height], -1)[:, None]
    bar_B12 = np.stack([0 * shape.rim, 0.8 + 0.4 * shape.rim], -1)[:, None]
    bridge_B42 = np.concatenate([left_B12 - bar_B12, left_B12 + bar_B12, right_B12 - bar_B12, right_B12 + bar_B12], 1) - lift_B12
    frame += [_at_depth(bridge_B42, before_B1 + 1.0)]
    front_BX3, glass_BX3 = np.concatenate(frame, 1), np.concatenate(lens, 1)
    # A back of its own, a little behind: normals of one sheet with two sides would cancel out.
    return np.concatenate([front_BX3, front_BX3 - (0, 0, 0.4)], 1), np.concatenate([glass_BX3, glass_BX3 - (0, 0, 0.4)], 1)


def _at_depth(place_BX2: np.ndarray, depth_B1: np.ndarray) -> np.ndarray:
    """Points of the frame's front, bent around the face."""
    return np.concatenate([place_BX2, (depth_B1 - place_BX2[:, :, 0] ** 2 / _CURVE_MM)[:, :, None]], axis=2)


def _frame_triangles() -> np.ndarray:
    """Corners within the frame's vertices; order of the vertices as `_glasses` makes them."""
    r, next_r = np.arange(_RIM), (np.arange(_RIM) + 1) % _RIM
    ring = np.concatenate([np.stack([r, _RIM + r, next_r], -1), np.stack([next_r, _RIM + r, _RIM + next_r], -1)])
    bar, one = np.array([(0, 1, 2), (1, 3, 2)]), 2 * _RIM + 4
    front = np.concatenate([ring, bar + 2 * _RIM, ring + one, bar + one + 2 * _RIM, bar + 2 * one])
    return _both_sides(front, 2 * one + 4)


def _lens_triangles() -> np.ndarray:
    r = np.arange(_RIM)
    fan = np.stack([0 * r, 1 + r, 1 + (r + 1) % _RIM], -1)
    return _both_sides(np.concatenate([fan, fan + _RIM + 1]), 2 * (_RIM + 1))


def _grid_triangles(rows: int, columns: int) -> np.ndarray:
    cell = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).reshape(-1, 1)
    return np.concatenate([cell + (0, 1, columns), cell + (1, columns + 1, columns)])


def _both_sides(front_T3: np.ndarray, count: int) -> np.ndarray:
    """Front triangles and, on the second half of the vertices, the same seen from behind; which is which decides the side the first is seen from."""
    return np.concatenate([front_T3, front_T3[:, ::-1] + count])


def _cover(head: MorphableHead, bare_BV3: np.ndarray) -> np.ndarray:
    """Vertices of the cover over nose, mouth and chin, (B, X, 3); it follows what lies under it on the whole, not in detail."""
    place_X3, under_XN = _cover_on_mean(head)
    moved_BX3 = (bare_BV3[:, under_XN] - head.mean_V3[under_XN]).mean(2)
    front_BX3 = (place_X3 + moved_BX3).astype(np.float32)
    return np.concatenate([front_BX3, front_BX3 - (0, 0, 0.5)], axis=1)


@lru_cache(maxsize=4)
def _cover_on_mean(head: MorphableHead) -> tuple[np.ndarray, np.ndarray]:
    """Cover on the mean head, (X, 3), and for each of its vertices eight of the head's that it follows."""
    angle_C = np.radians(np.linspace(-_COVER_DEG, _COVER_DEG, _COLUMNS))
    nose, chin, jaw = head.mean_V3[head.landmark_68[28]], head.mean_V3[head.landmark_68[8]], head.mean_V3[head.landmark_68[3]]
    side_C = np.sin(np.abs(angle_C)) ** 2
    top_C, bottom_C = nose[1] + 8.0 + 0.6 * side_C * abs(jaw[1] - nose[1]), chin[1] + 1.0 - 0.45 * side_C * abs(chin[1] - jaw[1])
    height_RC = top_C + np.linspace(0, 1, _ROWS)[:, None] * (bottom_C - top_C)
    skin_V3 = head.mean_V3[np.unique(head.triangle_T3[np.isin(head.part_T, [PARTS.index("skin"), PARTS.index("lips")])])]
    around_V, radius_V = np.arctan2(skin_V3[:, 0], skin_V3[:, 2] - _AXIS_Z_MM), np.hypot(skin_V3[:, 0], skin_V3[:, 2] - _AXIS_Z_MM)
    apart_RCV = np.hypot((angle_C[:, None] - around_V) * 90.0, height_RC[..., None] - skin_V3[:, 1])
    near_RCV = (apart_RCV < 9.0) | (apart_RCV <= apart_RCV.min(-1, keepdims=True))
    radius_RC = np.where(near_RCV, radius_V, 0.0).max(-1)
    radius_RC = _taut(_taut(radius_RC).T).T + _GAP_MM
    place_X3 = np.stack([np.sin(angle_C) * radius_RC, height_RC, np.cos(angle_C) * radius_RC + _AXIS_Z_MM], -1).reshape(-1, 3)
    under_XN = np.argsort(np.square(place_X3[:, None] - head.mean_V3).sum(-1), axis=1)[:, :8]
    return place_X3.astype(np.float32), under_XN


def _taut(radius_RC: np.ndarray) -> np.ndarray:
    """Each column as cloth that is drawn over its bumps: the upper hull."""
    rows = np.arange(len(radius_RC))
    hull_RC = radius_RC.copy()
    for i in rows:
        for j in rows[:i]:
            for k in rows[i + 1 :]:
                hull_RC[i] = np.maximum(hull_RC[i], radius_RC[j] + (radius_RC[k] - radius_RC[j]) * (i - j) / (k - j))
    return hull_RC
