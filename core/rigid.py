"""The weak-perspective camera under which a rigid body explains points seen in an image.

The camera x = s · R[:2] · X + t is found by alternating a closed-form rigid fit (Umeyama, PAMI 1991, in three dimensions) with the
depths that fit implies: every round lowers the squared error in the image, and none needs a starting guess or OpenCV.
Axes: N images, P points; x to the viewer's right, y down, z towards the camera.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 60


def weak_perspective(seen_NP2: np.ndarray, body_P3: np.ndarray, rounds: int = _ROUNDS) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the least-squares cameras (rotation (N, 3, 3), scale (N,), shift (N, 2)) of points seen, (N, P, 2), of a body, (P, 3)."""
    centre_3, middle_N2 = body_P3.mean(0), seen_NP2.mean(1)
    body_P3, seen_NP2 = body_P3 - centre_3, seen_NP2 - middle_N2[:, None]
    depth_NP1 = np.zeros((*seen_NP2.shape[:2], 1))
    # A flat start has two mirror-image answers (the sign of the turn): the body's own relief, at its scale in the image, chooses the frontal one.
    depth_NP1 += body_P3[:, 2:] * np.sqrt((seen_NP2**2).sum((1, 2)) / (body_P3[:, :2] ** 2).sum())[:, None, None]
    for _ in range(rounds):
        solid_NP3 = np.concatenate([seen_NP2, depth_NP1], axis=2)
        left, singular, right = np.linalg.svd(np.swapaxes(solid_NP3, 1, 2) @ body_P3)
        sign_N3 = np.ones_like(singular)
        sign_N3[:, 2] = np.sign(np.linalg.det(left) * np.linalg.det(right))
        turn_N33 = (left * sign_N3[:, None]) @ right
        scale_N = (singular * sign_N3).sum(1) / (body_P3**2).sum()
        depth_NP1 = scale_N[:, None, None] * (body_P3 @ np.swapaxes(turn_N33, 1, 2))[:, :, 2:]
    return turn_N33, scale_N, middle_N2 - scale_N[:, None] * (turn_N33[:, :2] @ centre_3)
