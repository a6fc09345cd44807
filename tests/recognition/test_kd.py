"""The plain distillation losses against slow loops."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from facefoundry.recognition.kd import cosine_loss, feature_loss, relation_loss, rkd_angle, rkd_distance


def rows(seed: int, dim: int = 5) -> torch.Tensor:
    return torch.randn(6, dim, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def test_feature_and_cosine():
    left, right = F.normalize(rows(0)), F.normalize(rows(1))
    assert float(feature_loss(left, right)) == pytest.approx(2 * float(cosine_loss(left, right)))
    assert float(feature_loss(3 * right, right)) == pytest.approx(4.0) and float(cosine_loss(right, right)) == pytest.approx(0, abs=1e-12)


def test_rkd_distance_is_scale_free_and_matches_the_loop():
    left, right = rows(0), rows(1, 9)
    pairs = [(i, j) for i in range(6) for j in range(i)]
    lengths = [[float((x[i] - x[j]).norm()) for i, j in pairs] for x in (left, right)]
    means = [sum(column) / len(column) for column in lengths]
    wanted = sum(huber(a / means[0] - b / means[1]) for a, b in zip(*lengths)) / len(pairs)
    assert float(rkd_distance(left, right)) == pytest.approx(wanted)
    assert float(rkd_distance(5 * left, right)) == pytest.approx(wanted)


def test_rkd_angle_matches_the_loop():
    left, right = rows(0), rows(1, 9)
    def angle(x, i, j, k):
        return float(F.cosine_similarity(x[i] - x[j], x[k] - x[j], dim=0))
    wanted = [huber(angle(left, *ijk) - angle(right, *ijk)) for ijk in permutations(range(6), 3)]
    assert float(rkd_angle(left, right)) == pytest.approx(sum(wanted) / len(wanted))


@pytest.mark.parametrize("term", [feature_loss, cosine_loss, relation_loss, rkd_distance, rkd_angle])
def test_true_gradient_and_finite_for_equal_rows(term):
    teacher = F.normalize(rows(1))
    assert gradcheck(lambda x: term(F.normalize(x), teacher), rows(0).requires_grad_())
    equal = rows(0)
    equal[1] = equal[0]
    equal.requires_grad_()
    term(F.normalize(equal), teacher).backward()
    assert torch.isfinite(equal.grad).all()


@pytest.mark.parametrize("term", [relation_loss, rkd_distance, rkd_angle])
def test_one_row_has_no_relations(term):
    assert float(term(rows(0)[:1], rows(1)[:1])) == 0
