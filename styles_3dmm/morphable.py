"""The morphable head: a mean shape, what makes people differ, what makes a face move, and where its parts are.

Axes: B heads, V vertices, T triangles, K identity coefficients, E expression coefficients, P landmarks.
Space: millimetres; x to the viewer's right, y down, z towards the camera; origin midway between the eyeballs' centres of the mean head.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from ..core.check import check

PARTS = ("skin", "lips", "sclera", "iris", "pupil", "teeth", "mouth", "brows", "hair")
"""What a triangle shows; `part_T` holds indices into it. "mouth" is its inside, "hair" the scalp under the hair line."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MorphableHead:
    """vertices = mean + identity basis · α + expression basis · β.

    Attributes:
        name, licence: of the model the head was made from; the licence is stated whenever it is used.
        mean_V3: float32, mm.
        identity_KV3: float32; a coefficient of 1 is one standard deviation of the population.
        expression_EV3: float32; face units in [0, 1] where `expression_names` are given, else standard deviations.
        triangle_T3: int32; (b - a) × (c - a) points out of the head.
        part_T: uint8, indices into `PARTS`.
        uv_V2: float32 in [0, 1], texture coordinates; (0, 0) is the texture's upper left corner.
        landmark_68: int32, vertices at the 68 points of the iBUG scheme (dlib's order).
        eye_V: int8, 0 = not of an eyeball, 1 = of the right eye as seen by the viewer, 2 = of the left: what gaze turns.
        eye_centre_23: float32, centres of the two eyeballs of the mean head (viewer's right, left), mm.
        expression_names: names of the face units, or ().
    """

    name: str
    licence: str
    mean_V3: np.ndarray
    identity_KV3: np.ndarray
    expression_EV3: np.ndarray
    triangle_T3: np.ndarray
    part_T: np.ndarray
    uv_V2: np.ndarray
    landmark_68: np.ndarray
    eye_V: np.ndarray
    eye_centre_23: np.ndarray
    expression_names: tuple[str, ...] = ()

    def vertices(self, identity_BK: np.ndarray, expression_BE: np.ndarray) -> np.ndarray:
        """Return the vertices of heads, (B, V, 3) float32 in mm, by one matrix product for the whole batch."""
        check("identity_BK", identity_BK, f"B {len(self.identity_KV3)}")
        check("expression_BE", expression_BE, f"{len(identity_BK)} {len(self.expression_EV3)}")
        code_BC = np.concatenate([identity_BK, expression_BE], axis=1).astype(np.float32)
        moved_BV3 = (code_BC @ self._basis()).reshape(len(code_BC), -1, 3)
        return moved_BV3 + self.mean_V3

    def landmarks(self, vertices_BV3: np.ndarray) -> np.ndarray:
        """Return the 68 landmarks, (B, 68, 3), of vertices, (B, V, 3)."""
        return vertices_BV3[:, self.landmark_68]

    def _basis(self) -> np.ndarray:
        stacked = np.concatenate([self.identity_KV3, self.expression_EV3])
        return stacked.reshape(len(stacked), -1)


def tiny(seed: int = 0, rings: int = 24) -> MorphableHead:
    """Return a coarse egg with eyes drawn on it, random smooth bases and the right shapes: for tests, no likeness to anyone."""
    rng = np.random.default_rng(seed)
    columns = 2 * rings
    polar, around = np.meshgrid(np.linspace(0.02, np.pi - 0.02, rings), np.arange(columns) * 2 * np.pi / columns, indexing="ij")
    unit_V3 = np.stack([np.sin(polar) * np.sin(around), -np.cos(polar), np.sin(polar) * np.cos(around)], axis=-1).reshape(-1, 3)
    mean_V3 = unit_V3 * (75.0, 110.0, 90.0) + (0.0, 20.0, -80.0)
    # A nose, so that a pose has no mirror twin.
    mean_V3[:, 2] += 25.0 * np.exp(-((mean_V3[:, 0] / 12.0) ** 2) - ((mean_V3[:, 1] - 40.0) / 20.0) ** 2) * (unit_V3[:, 2] > 0)
    wave_K33 = rng.normal(size=(12, 3, 3))
    basis_KV3 = 3.0 * np.sin(np.einsum("vi,kij->kvj", unit_V3, wave_K33) * 2.0)
    grid = np.arange(rings * columns).reshape(rings, columns)
    upper, lower = grid[:-1], grid[1:]
    turn = partial(np.roll, shift=-1, axis=1)
    triangle_T3 = np.concatenate([np.stack([upper, turn(upper), lower], -1).reshape(-1, 3), np.stack([turn(upper), turn(lower), lower], -1).reshape(-1, 3)])
    seat_23 = np.array([[32.0, 0.0, 0.0], [-32.0, 0.0, 0.0]])
    near_T = np.linalg.norm(mean_V3[triangle_T3].mean(1)[:, None, :2] - seat_23[:, :2], axis=2).min(1)
    front_T = mean_V3[triangle_T3][:, :, 2].mean(1) > -60.0
    part_T = np.where(front_T & (near_T < 14), PARTS.index("sclera"), PARTS.index("skin")).astype(np.uint8)
    part_T[front_T & (near_T < 7)] = PARTS.index("iris")
    front_V = np.flatnonzero(unit_V3[:, 2] > 0.35)
    return MorphableHead(
        name="tiny",
        licence="none: made of sines",
        mean_V3=mean_V3.astype(np.float32),
        identity_KV3=basis_KV3[:8].astype(np.float32),
        expression_EV3=basis_KV3[8:].astype(np.float32),
        triangle_T3=triangle_T3.astype(np.int32),
        part_T=part_T,
        uv_V2=np.stack([(around / (2 * np.pi) + 0.5) % 1.0, polar / np.pi], -1).reshape(-1, 2).astype(np.float32),
        landmark_68=front_V[np.linspace(0, len(front_V) - 1, 68).astype(int)].astype(np.int32),
        eye_V=np.zeros(len(mean_V3), np.int8),
        eye_centre_23=seat_23.astype(np.float32),
    )
