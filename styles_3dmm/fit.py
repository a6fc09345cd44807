"""Landmarks to a head: camera, pose, identity and expression of a batch of faces by regularised Gauss-Newton.

minimise  Σ_p |W_p (s · R[:2] · (mean + A α + E β)_p + t - observed_p)|² / σ² + |α|² + |β / σ_β|²,  0 ≤ β ≤ 1 where β are face units.
It is the landmark part of the energy of Blanz & Vetter (SIGGRAPH 1999) under a weak-perspective camera; the start is closed-form (core.rigid), the
box is kept by freeing only units whose gradient leads inwards, and the jaw line is put on the visible outline in every step (contour).
Axes: N faces, P observed points, L = 68 landmarks, K identity, E expression coefficients, C = 6 + K + E unknowns.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

from ..core.check import check
from ..core.errors import UserError
from ..core.euler import angles
from ..core.progress import bar
from ..core.rigid import weak_perspective
from ..core.template import five_points
from .camera import Camera
from .contour import JAW, JawLine
from .morphable import MorphableHead

_RIGID = 6
_BLOCK = 256


@dataclass(frozen=True, kw_only=True)
class FitSettings:
    """Weights of the fit.

    Attributes:
        noise_px: expected error of a landmark, at the size of the image the landmarks are in (dlib on 112 px faces: about 1).
        expression_spread: σ_β of a face unit; of a standardised coefficient it is 1.
        jaw_weight: weight of the jaw line across the outline against 1 of the other points; 0 leaves it out, but for the chin.
        jaw_slide: weight along the outline, where the points have no mark to hold on to.
        rounds: Gauss-Newton steps.
    """

    noise_px: float = 1.0
    expression_spread: float = 0.3
    jaw_weight: float = 0.7
    jaw_slide: float = 0.2
    rounds: int = 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Fit:
    """Heads that explain landmarks.

    Attributes:
        identity_NK, expression_NE: coefficients of the head, float32.
        pose_N3: yaw, pitch, roll in degrees (core.euler).
        camera_N3: scale in px/mm and the pixel (x, y) of the head's origin.
        landmark_NP2: the points as the fit explains them, px.
        residual_N: root mean square distance of those from the points given, px (the jaw line left out).
    """

    identity_NK: np.ndarray
    expression_NE: np.ndarray
    pose_N3: np.ndarray
    camera_N3: np.ndarray
    landmark_NP2: np.ndarray
    residual_N: np.ndarray

    def __len__(self) -> int:
        return len(self.pose_N3)

    def camera(self, rows: slice = slice(None)) -> Camera:
        """Return the cameras of some faces as the renderer takes them."""
        return Camera.weak(self.camera_N3[rows, 0], self.camera_N3[rows, 1:])


@dataclass
class _State:
    """Unknowns of a block of faces; the turn is a matrix, so that no angle is near a pole."""

    turn_N33: np.ndarray
    scale_N: np.ndarray
    shift_N2: np.ndarray
    code_NC: np.ndarray


def fit_landmarks(head: MorphableHead, landmark_NP2: np.ndarray, settings: FitSettings | None = None) -> Fit:
    """Fit a head to every face.

    Args:
        landmark_NP2: dlib's 68 points or the five of the ArcFace template, px, x right, y down; finite.

    Raises:
        UserError: another number of points, or values that are not finite (the first such face is named).
    """
    landmark_NP2 = np.asarray(landmark_NP2, np.float64)
    check("landmark_NP2", landmark_NP2, "N P 2")
    if landmark_NP2.shape[1] not in (68, 5):
        raise UserError(f"{landmark_NP2.shape[1]} landmarks a face, expected 68 (dlib) or 5 (eyes, nose tip, mouth corners); other schemes have to be brought to one of these")
    bad_N = ~np.isfinite(landmark_NP2).all((1, 2))
    if bad_N.any():
        raise UserError(f"landmarks of {int(bad_N.sum())} of {len(bad_N)} faces are not finite numbers (the first: face {int(np.argmax(bad_N))}); leave these faces out")
    solver = _Solver(head, landmark_NP2.shape[1], settings or FitSettings())
    parts = []
    with bar("heads", len(landmark_NP2)) as step:
        for start in range(0, max(1, len(landmark_NP2)), _BLOCK):
            parts.append(solver(landmark_NP2[start : start + _BLOCK]))
            step(len(parts[-1]))
    return Fit(**{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Fit)})


class _Solver:
    """Gauss-Newton for one head and one scheme of points."""

    def __init__(self, head: MorphableHead, points: int, settings: FitSettings):
        self.head, self.settings = head, settings
        self.identities, expressions = len(head.identity_KV3), len(head.expression_EV3)
        self.basis_VC3 = np.concatenate([head.identity_KV3, head.expression_EV3]).transpose(1, 0, 2).astype(np.float64)
        self.mean_V3 = head.mean_V3.astype(np.float64)
        self.boxed = bool(head.expression_names)
        spread = settings.expression_spread if self.boxed else 1.0
        self.prior_C = np.concatenate([np.full(_RIGID, 1e-9), np.ones(self.identities), np.full(expressions, spread**-2)])
        self.jaw = JawLine.of(head) if points == 68 else None
        self.mix_PL = np.eye(68) if points == 68 else five_points(np.eye(68))

    def __call__(self, seen_NP2: np.ndarray) -> Fit:
        state = self._start(seen_NP2)
        for _ in range(self.settings.rounds):
            basis, solid_NP3 = self._points(state)
            self._step(state, seen_NP2, basis, solid_NP3)
        solid_NP3 = self._points(state)[1]
        found_NP2 = state.scale_N[:, None, None] * (solid_NP3 @ np.swapaxes(state.turn_N33[:, :2], 1, 2)) + state.shift_N2[:, None]
        inner = slice(JAW, None) if self.jaw is not None else slice(None)
        code_NC = state.code_NC.astype(np.float32)
        return Fit(
            identity_NK=code_NC[:, : self.identities],
            expression_NE=code_NC[:, self.identities :],
            pose_N3=angles(state.turn_N33).astype(np.float32),
            camera_N3=np.column_stack([state.scale_N, state.shift_N2]).astype(np.float32),
            landmark_NP2=found_NP2.astype(np.float32),
            residual_N=np.sqrt(np.square(found_NP2 - seen_NP2)[:, inner].sum(2).mean(1)).astype(np.float32),
        )

    def _start(self, seen_NP2: np.ndarray) -> _State:
        body_P3 = self.mix_PL @ self.mean_V3[self.head.landmark_68]
        rigid = slice(JAW, None) if self.jaw is not None else slice(None)
        turn_N33, scale_N, shift_N2 = weak_perspective(seen_NP2[:, rigid], body_P3[rigid])
        return _State(turn_N33, scale_N, shift_N2, np.zeros((len(seen_NP2), self.basis_VC3.shape[1])))

    def _points(self, state: _State) -> tuple[np.ndarray, np.ndarray]:
        """How the observed points move with the code, (N, P, C, 3) or (P, C, 3) where all faces share it, and where they are, (N, P, 3)."""
        basis_LC3 = self.basis_VC3[self.head.landmark_68]
        mean_L3 = self.mean_V3[self.head.landmark_68]
        if self.jaw is None:
            basis_PC3, mean_P3 = np.tensordot(self.mix_PL, basis_LC3, 1), self.mix_PL @ mean_L3
            return basis_PC3[None], mean_P3 + np.einsum("pci,nc->npi", basis_PC3, state.code_NC, optimize=True)
        vertex_NQ = self._outline(state)
        basis_NPC3 = np.concatenate([self.basis_VC3[vertex_NQ], np.broadcast_to(basis_LC3[JAW:], (len(vertex_NQ), 68 - JAW, *basis_LC3.shape[1:]))], axis=1)
        mean_NP3 = np.concatenate([self.mean_V3[vertex_NQ], np.broadcast_to(mean_L3[JAW:], (len(vertex_NQ), 68 - JAW, 3))], axis=1)
        return basis_NPC3, mean_NP3 + np.einsum("npci,nc->npi", basis_NPC3, state.code_NC, optimize=True)

    def _outline(self, state: _State) -> np.ndarray:
        vertex_M = self.jaw.vertex_QM.reshape(-1)
        basis_CX = self.basis_VC3[vertex_M].transpose(1, 0, 2).reshape(state.code_NC.shape[1], -1)
        place_NX = state.code_NC @ basis_CX + self.mean_V3[vertex_M].reshape(-1)
        return self.jaw.seen(place_NX.reshape(-1, *self.jaw.vertex_QM.shape, 3), state.turn_N33)

    def _step(self, state: _State, seen_NP2: np.ndarray, basis_NPC3: np.ndarray, solid_NP3: np.ndarray) -> None:
        faces, points = seen_NP2.shape[:2]
        plane_N23 = state.scale_N[:, None, None] * state.turn_N33[:, :2]
        turned_NP3 = state.scale_N[:, None, None] * (solid_NP3 @ np.swapaxes(state.turn_N33, 1, 2))
        error_NP2 = turned_NP3[..., :2] + state.shift_N2[:, None] - seen_NP2
        slope_NP2C = np.concatenate([_rigid_slopes(turned_NP3), np.swapaxes(basis_NPC3 @ np.swapaxes(plane_N23, 1, 2)[:, None], 2, 3)], axis=3)
        weight_NP22 = self._weights(state, points)
        slope_NRC = (weight_NP22 @ slope_NP2C).reshape(faces, 2 * points, len(self.prior_C))
        error_NR = (weight_NP22 @ error_NP2[..., None]).reshape(faces, 2 * points)
        known_NC = np.concatenate([np.zeros((faces, _RIGID)), state.code_NC], axis=1)
        normal_NCC = np.swapaxes(slope_NRC, 1, 2) @ slope_NRC
        slope_NC = np.einsum("nrc,nr->nc", slope_NRC, error_NR) + self.prior_C * known_NC
        change_NC = _solve(normal_NCC, self.prior_C, slope_NC, self._free(known_NC, slope_NC))
        self._move(state, change_NC)

    def _weights(self, state: _State, points: int) -> np.ndarray:
        """Roots of the weights of the points' errors, (N or 1, P, 2, 2)."""
        weight_P22 = np.broadcast_to(np.eye(2), (points, 2, 2)) / self.settings.noise_px
        if self.jaw is None:
            return weight_P22[None]
        outward_NQ2 = self.jaw.outward(state.turn_N33)
        across_NQ22 = outward_NQ2[..., :, None] * outward_NQ2[..., None, :]
        own, slide = self.settings.jaw_weight, self.settings.jaw_slide if self.settings.jaw_weight else 0.0
        jaw_NQ22 = (own * across_NQ22 + slide * (np.eye(2) - across_NQ22)) / self.settings.noise_px
        if not own:
            jaw_NQ22[:, JAW // 2] = np.eye(2) / self.settings.noise_px
        return np.concatenate([jaw_NQ22, np.broadcast_to(weight_P22[JAW:], (len(jaw_NQ22), points - JAW, 2, 2))], axis=1)

    def _free(self, known_NC: np.ndarray, slope_NC: np.ndarray) -> np.ndarray:
        """Which unknowns may move: all but the face units that stand at a wall and are pushed against it."""
        free_NC = np.ones(known_NC.shape, bool)
        if self.boxed:
            units = slice(_RIGID + self.identities, None)
            value, slope = known_NC[:, units], slope_NC[:, units]
            free_NC[:, units] = ~(((value <= 0) & (slope > 0)) | ((value >= 1) & (slope < 0)))
        return free_NC

    def _move(self, state: _State, change_NC: np.ndarray) -> None:
        state.turn_N33 = _small_turns(change_NC[:, :3]) @ state.turn_N33
        state.scale_N = state.scale_N * np.exp(np.clip(change_NC[:, 3], -0.5, 0.5))
        state.shift_N2 = state.shift_N2 + change_NC[:, 4:_RIGID]
        state.code_NC = state.code_NC + change_NC[:, _RIGID:]
        if self.boxed:
            np.clip(state.code_NC[:, self.identities :], 0.0, 1.0, out=state.code_NC[:, self.identities :])
        np.clip(state.code_NC[:, : self.identities], -4.0, 4.0, out=state.code_NC[:, : self.identities])


def _rigid_slopes(turned_NP3: np.ndarray) -> np.ndarray:
    """Derivatives of the pixels by a turn about x, y, z (of the camera), the logarithm of the scale and the shift, (N, P, 2, 6)."""
    x, y, z = np.moveaxis(turned_NP3, 2, 0)
    none, one = np.zeros_like(x), np.ones_like(x)
    return np.stack([np.stack([none, z, -y, x, one, none], -1), np.stack([-z, none, x, y, none, one], -1)], axis=2)


def _small_turns(turn_N3: np.ndarray) -> np.ndarray:
    """Rotations, (N, 3, 3), by axis times angle in radians (Rodrigues), at most 0.5 a step."""
    angle_N1 = np.linalg.norm(turn_N3, axis=1, keepdims=True)
    axis_N3 = turn_N3 / np.maximum(angle_N1, 1e-12)
    angle_N11 = np.minimum(angle_N1, 0.5)[:, :, None]
    x, y, z = axis_N3.T
    none = np.zeros_like(x)
    cross_N33 = np.stack([none, -z, y, z, none, -x, -y, x, none], axis=1).reshape(-1, 3, 3)
    return np.eye(3) + np.sin(angle_N11) * cross_N33 + (1 - np.cos(angle_N11)) * (cross_N33 @ cross_N33)


def _solve(normal_NCC: np.ndarray, prior_C: np.ndarray, slope_NC: np.ndarray, free_NC: np.ndarray) -> np.ndarray:
    """Newton steps of the free unknowns; the others stay."""
    normal_NCC = normal_NCC * (free_NC[:, :, None] & free_NC[:, None, :])
    diagonal = np.arange(normal_NCC.shape[1])
    normal_NCC[:, diagonal, diagonal] += np.where(free_NC, prior_C, 1.0)
    return -np.linalg.solve(normal_NCC, (slope_NC * free_NC)[..., None])[..., 0]
