"""Head pose as three angles, and the rotation they stand for.

Axes: x to the viewer's right, y down, z towards the camera. Yaw is positive when the face looks to the viewer's right, pitch when it looks up, roll
when it is tilted clockwise. The rotation is roll · yaw · pitch.
"""

from __future__ import annotations

import numpy as np


def rotation(yaw_deg: float, pitch_deg: float, roll_deg: float) -> np.ndarray:
    """Return the (3, 3) rotation of one head; inverse of `angles`."""
    return rotations(np.array([[yaw_deg, pitch_deg, roll_deg]]))[0]


def rotations(pose_N3: np.ndarray) -> np.ndarray:
    """Return the rotations, (N, 3, 3) float64, of heads whose (yaw, pitch, roll) in degrees are given, (N, 3)."""
    (sy, sp, sr), (cy, cp, cr) = np.sin(np.radians(pose_N3)).T, np.cos(np.radians(pose_N3)).T
    rows = (
        (cr * cy, cr * sy * sp - sr * cp, cr * sy * cp + sr * sp),
        (sr * cy, sr * sy * sp + cr * cp, sr * sy * cp - cr * sp),
        (-sy, cy * sp, cy * cp),
    )
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def angles(rotation_N33: np.ndarray) -> np.ndarray:
    """Return (yaw, pitch, roll) in degrees, (N, 3), |yaw| ≤ 90, of rotation matrices."""
    bottom, first = rotation_N33[:, 2], rotation_N33[:, :, 0]
    yaw = np.arcsin(np.clip(-bottom[:, 0], -1.0, 1.0))
    return np.degrees(np.stack([yaw, np.arctan2(bottom[:, 1], bottom[:, 2]), np.arctan2(first[:, 1], first[:, 0])], axis=1))
