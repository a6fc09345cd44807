"""Where five points of a face lie in an aligned one: the ArcFace / insightface template, known to the aligner of photos and to the renderer."""

from __future__ import annotations

import numpy as np

SIDE = 112
TEMPLATE_PX = np.array([(38.2946, 51.6963), (73.5318, 51.5014), (56.0252, 71.7366), (41.5493, 92.3655), (70.7299, 92.2041)])
"""Image-left eye, image-right eye, nose tip, image-left and image-right mouth corner in a 112×112 face; (5, 2) float64, integers are pixel centres."""

_FIVE_OF_68 = ((36, 42), (42, 48), (30, 31), (48, 49), (54, 55))


def five_points(point_68D: np.ndarray) -> np.ndarray:
    """Return the template's five points of the 68 of the iBUG scheme, (..., 68, D) → (..., 5, D); an eye is the mean of its six points."""
    return np.stack([point_68D[..., first:last, :].mean(-2) for first, last in _FIVE_OF_68], axis=-2)
