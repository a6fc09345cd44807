"""Plain distillation losses, the baselines of `ekd`: features, cosines, relations between images.

Rows of student and teacher belong to the same images. Axes: B images, D embedding (student and teacher may differ where only relations count).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_loss(raw_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean squared distance of the student's raw embeddings from the teacher's rows ("feature L2"): length is learned, too."""
    return (raw_BD - teacher_BD).square().sum(1).mean()


def cosine_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean of 1 - cosine between student and teacher; unit rows in."""
    return 1.0 - (student_BD * teacher_BD).sum(1).mean()


def relation_loss(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Mean squared difference of the cosines of all pairs of different images in the batch; unit rows in."""
    count = len(student_BD)
    gap_BB = student_BD @ student_BD.T - teacher_BD @ teacher_BD.T
    return gap_BB.fill_diagonal_(0.0).square().sum() / max(1, count * (count - 1))


def rkd_distance(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Huber loss between the pairs' distances, each network's in units of its mean distance (Park et al., CVPR 2019, eq. 6-8)."""
    if len(student_BD) < 2:
        return student_BD.sum() * 0.0
    return F.smooth_l1_loss(_scaled_distances(student_BD), _scaled_distances(teacher_BD))


def rkd_angle(student_BD: Tensor, teacher_BD: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles of all triangles of three images (eq. 9-10); memory grows with B³."""
    count = len(student_BD)
    if count < 3:
        return student_BD.sum() * 0.0
    gap_BBB = F.smooth_l1_loss(_angles(student_BD), _angles(teacher_BD), reduction="none")
    return gap_BBB.sum() / (count * (count - 1) * (count - 2))


def _scaled_distances(embed_BD: Tensor) -> Tensor:
    distance_P = F.pdist(embed_BD)
    return distance_P / distance_P.mean().clamp(min=1e-12)


def _angles(embed_BD: Tensor) -> Tensor:
    """Cosine at corner j of the triangle i j k, (j, i, k); 0 where two corners are one image."""
    side_BBD = F.normalize(embed_BD[None] - embed_BD[:, None], dim=-1)
    cos_BBB = side_BBD @ side_BBD.transpose(1, 2)
    # j = i and j = k are zero by their sides of length 0; i = k is the angle 0 of every network.
    return cos_BBB.masked_fill(torch.eye(len(embed_BD), dtype=torch.bool, device=embed_BD.device), 0.0)
