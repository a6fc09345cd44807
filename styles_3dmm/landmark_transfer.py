"""Where dlib's 68 points lie on a head mesh whose file does not say: the bundled head is bent onto it, its landmarks are carried over.

[D] Iterated closest points with a similarity transform (Besl & McKay 1992; Umeyama 1991 for the transform), then with the bundled head's own identity basis
as what may bend, pulled to its mean. Measured on meshes whose landmarks are known: the 51 inner points are 3.2 mm off on ICT-FaceKit and 3.8 mm on the Surrey model, the jaw line
12.9 mm on ICT-FaceKit (it has no mark to hold on to): give a landmark file where there is one. Known points pin the start.
Axes: L = 68 landmarks, V vertices of the other head, F of the bundled head's face, K components; mm, the house's axes.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
from scipy.spatial import cKDTree

from ..core.errors import UserError
from ..core.files import read_lines
from .head_file import default_head

_RIGID_ROUNDS, _BENT_ROUNDS = 25, 12
_COMPONENTS = 24
_PULL_MM2 = 400.0
"""Weight of the pull to the mean against squared distances: as that many points a millimetre off."""
_NEAR_MM = 15.0
_KNOWN_WEIGHT = 20.0


def read_landmarks(path: Path) -> dict[int, int]:
    """Return the vertex of each point (0 to 67) that a text file names.

    Either lines "18 = 225" as in eos' mapping files (points counted from 1, "#" begins a remark), or 68 vertex numbers.

    Raises:
        UserError: neither.
    """
    lines = [line.split("#")[0].strip() for line in read_lines(path, "landmark file")]
    pairs = [re.fullmatch(r"(\d+)\s*=\s*(\d+)", line) for line in lines]
    if any(pairs):
        found = {int(pair[1]) - 1: int(pair[2]) for pair in pairs if pair}
    else:
        words = " ".join(lines).replace(",", " ").split()
        if len(words) != 68 or not all(word.isdigit() for word in words):
            raise UserError(f"{path} holds {len(words)} words, expected lines 'point = vertex' (points 1 to 68) or 68 vertex numbers")
        found = dict(enumerate(map(int, words)))
    if not all(0 <= point < 68 for point in found):
        raise UserError(f"{path} names the point {max(found) + 1}, expected points 1 to 68 of the iBUG scheme")
    return found


def carry_landmarks(place_V3: np.ndarray, known: dict[int, int]) -> np.ndarray:
    """Return the vertices at the 68 points, (68,) int32: the known ones as they are, the others by bending the bundled head onto the mesh."""
    landmark_68 = np.zeros(68, np.int32)
    missing = [point for point in range(68) if point not in known]
    if missing:
        landmark_68[missing] = cKDTree(place_V3).query(_bent(place_V3, known)[missing])[1]
    landmark_68[list(known)] = list(known.values())
    return landmark_68


def _bent(place_V3: np.ndarray, known: dict[int, int]) -> np.ndarray:
    """Return where the bundled head's landmarks come to lie, (68, 3)."""
    head = default_head()
    at_L3 = head.mean_V3[head.landmark_68]
    face_F = _face(head.mean_V3, at_L3)
    own_X = np.concatenate([face_F, head.landmark_68[list(known)]]).astype(int)
    weight_X = np.concatenate([np.ones(len(face_F)), np.full(len(known), _KNOWN_WEIGHT)])
    basis_KX3, tree = head.identity_KV3[:_COMPONENTS, own_X].astype(np.float64), cKDTree(place_V3)
    mean_X3, code_K = head.mean_V3[own_X].astype(np.float64), np.zeros(_COMPONENTS)
    turn_33, shift_3 = _start(place_V3, at_L3, known)
    for step in range(_RIGID_ROUNDS + _BENT_ROUNDS):
        body_X3 = mean_X3 + np.tensordot(code_K, basis_KX3, 1)
        apart_F, nearest_F = tree.query((body_X3 @ turn_33.T + shift_3)[: len(face_F)])
        target_X3 = place_V3[np.concatenate([nearest_F, list(known.values())]).astype(int)]
        near_X = weight_X * np.concatenate([apart_F < max(_NEAR_MM, np.median(apart_F) * 2), np.ones(len(known))])
        turn_33, shift_3 = _similarity(body_X3, target_X3, near_X)
        if step >= _RIGID_ROUNDS:
            code_K = _code(basis_KX3, (target_X3 - shift_3) @ np.linalg.inv(turn_33).T - mean_X3, near_X)
    landmark_L3 = at_L3 + np.tensordot(code_K, head.identity_KV3[:_COMPONENTS, head.landmark_68], 1)
    return landmark_L3 @ turn_33.T + shift_3


def _face(mean_V3: np.ndarray, at_L3: np.ndarray) -> np.ndarray:
    """Return the vertices of the bundled head's face: from the brows to the chin, in front of the ears, on its outside."""
    inside_V = (mean_V3[:, 1] > at_L3[:, 1].min() - 15) & (mean_V3[:, 1] < at_L3[8, 1]) & (mean_V3[:, 2] > -50) & (default_head().eye_V == 0)
    # The mouth's inside, teeth and tongue lie behind the lips.
    behind_V = (np.abs(mean_V3[:, 0]) < 25) & (np.abs(mean_V3[:, 1] - at_L3[62, 1]) < 25) & (mean_V3[:, 2] < at_L3[[48, 54], 2].min() - 4)
    return np.flatnonzero(inside_V & ~behind_V)


def _start(place_V3: np.ndarray, at_L3: np.ndarray, known: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A first similarity: by three or more known points, else the nose tips are laid upon each other."""
    if len(known) >= 3:
        return _similarity(at_L3[list(known)], place_V3[list(known.values())], np.ones(len(known)))
    middle = np.abs(place_V3[:, 0] - np.median(place_V3[:, 0])) < 20
    tip_3 = place_V3[middle][place_V3[middle][:, 2].argmax()]
    return np.eye(3), tip_3 - at_L3[30]


def _similarity(body_X3: np.ndarray, target_X3: np.ndarray, weight_X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (scale times rotation (3, 3), shift (3,)) that brings points closest to others in the weighted least squares."""
    share_X1 = (weight_X / weight_X.sum())[:, None]
    body_3, target_3 = (share_X1 * body_X3).sum(0), (share_X1 * target_X3).sum(0)
    left, singular, right = np.linalg.svd((share_X1 * (target_X3 - target_3)).T @ (body_X3 - body_3))
    sign_3 = np.array([1.0, 1.0, np.sign(np.linalg.det(left) * np.linalg.det(right))])
    turn_33 = (left * sign_3) @ right * ((singular * sign_3).sum() / (share_X1 * (body_X3 - body_3) ** 2).sum())
    return turn_33, target_3 - turn_33 @ body_3


def _code(basis_KX3: np.ndarray, off_X3: np.ndarray, weight_X: np.ndarray) -> np.ndarray:
    """Return the identity that explains offsets from the mean, (K,)."""
    flat_KD = (basis_KX3 * np.sqrt(weight_X)[:, None]).reshape(len(basis_KX3), -1)
    return np.linalg.solve(flat_KD @ flat_KD.T + _PULL_MM2 * np.eye(len(flat_KD)), flat_KD @ (off_X3 * np.sqrt(weight_X)[:, None]).ravel())
