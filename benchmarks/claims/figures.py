"""Figures by identity that claims about generators compare: nearness to the anchor, separation, and diversity that identity does not explain.

Axes: N images, I identities, K images of an identity, D embedding.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from evidence import mean_within
from facefoundry.core.images import to_float
from facefoundry.core.types import Embedder
from facefoundry.recognition.embedder import embed_faces
from facefoundry.recognition.pose import PosePredictor


def by_identity(image_NHWC: np.ndarray, anchor_ID: np.ndarray, judges: Mapping[str, Embedder], *, pose: bool = True) -> dict[str, np.ndarray]:
    """Return named figures, one number an identity.

    - "cosine to anchor": mean cosine of an identity's images to its anchor, by dlib (which conditioned the training).
    - "mated cosine (<judge>)", "separation (<judge>)": mean cosine within the identity; the same minus the mean to all other identities' images.
    - "appearance distance": root mean square difference between images of the identity at 28 x 28, RGB in [-1, 1].
    - "colour distance": the same at 2 x 2: light and background colour alone.
    - "yaw spread", "pitch spread": standard deviation in degrees of the head's pose by landmarks.
    """
    people = len(anchor_ID)
    found: dict[str, np.ndarray] = {}
    for name, judge in judges.items():
        embed_IKD = embed_faces(judge, image_NHWC).reshape(people, -1, judge.dim)
        cosine_IKK = np.einsum("ikd,ild->ikl", embed_IKD, embed_IKD)
        mated_I = mean_within(cosine_IKK)
        sum_ID = embed_IKD.sum(1)
        others_I = (sum_ID @ sum_ID.sum(0) - np.einsum("id,id->i", sum_ID, sum_ID)) / (embed_IKD.shape[1] ** 2 * (people - 1))
        found[f"mated cosine ({name})"], found[f"separation ({name})"] = mated_I, mated_I - others_I
        if judge.dim == anchor_ID.shape[1] and name == "dlib":
            found["cosine to anchor"] = np.einsum("ikd,id->ik", embed_IKD, anchor_ID).mean(1)
    for name, side in (("appearance distance", 28), ("colour distance", 2)):
        found[name] = mean_within(_distances(_pooled(image_NHWC, side).reshape(people, -1, 3 * side * side)))
    if pose:
        angle_NA = PosePredictor()(image_NHWC).reshape(people, -1, 3)
        found["yaw spread"], found["pitch spread"] = np.nanstd(angle_NA[..., 0], axis=1), np.nanstd(angle_NA[..., 1], axis=1)
    return found


def _pooled(image_NHWC: np.ndarray, side: int) -> np.ndarray:
    parts = [F.adaptive_avg_pool2d(to_float(image_NHWC[start : start + 256]), side).flatten(1) for start in range(0, len(image_NHWC), 256)]
    return torch.cat(parts).numpy()


def _distances(row_IKF: np.ndarray) -> np.ndarray:
    return np.sqrt(((row_IKF[:, :, None] - row_IKF[:, None]) ** 2).mean(-1))
