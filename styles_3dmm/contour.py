"""Where dlib's jaw line lies on a head: on the outline one sees, which is another set of vertices at every pose.

A turned head hides its far jaw behind the cheek, and landmarks 0-16 then follow the cheek. So each of them owns a slice of the face's side, from
the jaw's edge forward, and stands at whichever vertex of the slice lies farthest out in the image: the edge itself on the near side, the cheek on the far one.
(The idea of moving contour landmarks: Zhu et al., "High-fidelity pose and expression normalization", CVPR 2015; the slices are ours.)
Axes: N images, Q = 17 jaw points, M candidates of each, V vertices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .morphable import MorphableHead

JAW = 17
"""The first 17 of dlib's 68 points are the jaw line; 8 is the chin."""

_MOST = 24
_NEAREST_TO_MIDDLE = 0.55
_BEHIND_MM = 1.0


@dataclass(frozen=True, kw_only=True, eq=False)
class JawLine:
    """Candidates of the jaw points of one head.

    Attributes:
        vertex_QM: vertices a jaw point may stand at; a shorter slice repeats the head's own landmark.
        outward_Q2: direction out of the face for each point in a frontal, upright view, unit rows.
    """

    vertex_QM: np.ndarray
    outward_Q2: np.ndarray

    @classmethod
    def of(cls, head: MorphableHead) -> JawLine:
        """Slice the mean head around the axis through the middle of its landmarks towards the camera."""
        middle_2 = head.mean_V3[head.landmark_68[JAW:]].mean(0)[:2]
        radius_V, angle_V = _polar(head.mean_V3[:, :2] - middle_2)
        jaw_Q = head.landmark_68[:JAW]
        half_Q = _half_widths(angle_V[jaw_Q])
        rows = [_slice(head, vertex, radius_V, np.abs(_turn(angle_V - angle_V[vertex])) < half) for vertex, half in zip(jaw_Q, half_Q)]
        outward_Q2 = np.stack([np.cos(angle_V[jaw_Q]), np.sin(angle_V[jaw_Q])], axis=1)
        return cls(vertex_QM=np.stack(rows), outward_Q2=outward_Q2)

    def outward(self, rotation_N33: np.ndarray) -> np.ndarray:
        """Return the outward directions in images of heads so turned, (N, Q, 2): they follow the roll alone."""
        roll_N = np.arctan2(rotation_N33[:, 1, 0], rotation_N33[:, 0, 0])
        turn_N22 = np.stack([np.cos(roll_N), -np.sin(roll_N), np.sin(roll_N), np.cos(roll_N)], axis=1).reshape(-1, 2, 2)
        return self.outward_Q2 @ np.swapaxes(turn_N22, 1, 2)

    def seen(self, candidate_NQM3: np.ndarray, rotation_N33: np.ndarray) -> np.ndarray:
        """Return the vertices at which the jaw points stand, (N, Q); the candidates are theirs in the head's frame."""
        # p . (R x) = (R^T p) . x: one direction a point instead of a turned copy of every candidate.
        along_NQ3 = self.outward(rotation_N33) @ rotation_N33[:, :2]
        best_NQ = np.einsum("nqmi,nqi->nqm", candidate_NQM3, along_NQ3).argmax(2)
        return np.take_along_axis(self.vertex_QM[None], best_NQ[:, :, None], axis=2)[:, :, 0]


def _polar(offset_V2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return np.linalg.norm(offset_V2, axis=1), np.arctan2(offset_V2[:, 1], offset_V2[:, 0])


def _turn(angle: np.ndarray) -> np.ndarray:
    """Angles brought to (-π, π]."""
    return np.angle(np.exp(1j * angle))


def _half_widths(angle_Q: np.ndarray) -> np.ndarray:
    """Half the mean distance to the neighbours in angle, at most 6°, so that slices do not overlap much."""
    step_Q = np.abs(_turn(np.diff(angle_Q)))
    mean_Q = (np.concatenate([step_Q[:1], step_Q]) + np.concatenate([step_Q, step_Q[-1:]])) / 2
    return np.clip(mean_Q / 2, np.radians(2.0), np.radians(6.0))


def _slice(head: MorphableHead, vertex: int, radius_V: np.ndarray, within_V: np.ndarray) -> np.ndarray:
    forward_V = head.mean_V3[:, 2] >= head.mean_V3[vertex, 2] - _BEHIND_MM
    far_V = (radius_V > _NEAREST_TO_MIDDLE * radius_V[vertex]) & (radius_V <= 1.02 * radius_V[vertex])
    found = np.flatnonzero(within_V & forward_V & far_V & (head.eye_V == 0))
    found = found[np.argsort(radius_V[found])]
    if len(found) >= _MOST:
        found = found[np.linspace(0, len(found) - 1, _MOST - 1).astype(int)]
    row_M = np.full(_MOST, vertex)
    row_M[: len(found)] = found
    return row_M
