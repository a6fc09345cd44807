"""Where the eyes look: eyeballs turned about their own centres."""

from __future__ import annotations

import numpy as np

from ..core.check import check
from ..core.euler import rotations
from .morphable import MorphableHead


def turn_eyes(head: MorphableHead, vertices_BV3: np.ndarray, gaze_B2: np.ndarray) -> np.ndarray:
    """Return the heads, (B, V, 3), with both eyeballs turned; the lids stay (face units `eyeLook...` and `eyeBlink...` move them).

    Args:
        gaze_B2: yaw and pitch in degrees against the head, in the convention of `core.euler`: to the viewer's right and up are positive.
            Past 35° the rim of the bundled head's eyeballs (front halves only) comes to light.
    """
    check("vertices_BV3", vertices_BV3, f"{len(gaze_B2)} {len(head.mean_V3)} 3")
    check("gaze_B2", gaze_B2, "B 2")
    turned_BV3 = np.array(vertices_BV3, np.float32)
    turn_B33 = rotations(np.concatenate([gaze_B2, np.zeros((len(gaze_B2), 1))], axis=1)).astype(np.float32)
    for side, centre_3 in enumerate(head.eye_centre_23, start=1):
        of_eye_V = head.eye_V == side
        if of_eye_V.any():
            # The identity moves and scales an eyeball; on the whole it takes its centre along.
            centre_B13 = centre_3 + (vertices_BV3[:, of_eye_V] - head.mean_V3[of_eye_V]).mean(1, keepdims=True)
            turned_BV3[:, of_eye_V] = centre_B13 + (vertices_BV3[:, of_eye_V] - centre_B13) @ turn_B33.transpose(0, 2, 1)
    return turned_BV3
