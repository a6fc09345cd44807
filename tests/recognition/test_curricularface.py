"""Worked examples E1.1-E1.3 of the specification, and the invariants."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from facefoundry.core.errors import UserError
from facefoundry.recognition.arcface import ArcFace
from facefoundry.recognition.curricularface import CurricularFace
from facefoundry.recognition.heads import ClassCentres, HeadConfig


def head_at(t: float = 0.0, t_alpha: float = 0.01) -> CurricularFace:
    head = CurricularFace(t_alpha=t_alpha)
    head.t.fill_(t)
    return head


def e11(head) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    cos = torch.tensor([[0.5, 0.3, -0.1]], dtype=torch.float64, requires_grad=True)
    logits = head(cos, torch.tensor([0]))
    loss = F.cross_entropy(logits, torch.tensor([0]))
    loss.backward()
    return logits.detach()[0], loss.detach(), cos.grad[0]


def test_e11_hard_negative():
    head = head_at()
    logits, loss, gradient = e11(head)
    assert float(head.t) == pytest.approx(0.005, abs=1e-7)
    assert logits.tolist() == pytest.approx([1.510181, 5.856, -6.4], abs=1e-5)
    assert float(loss) == pytest.approx(4.358701, abs=1e-5)
    assert gradient.tolist() == pytest.approx([-72.934960, 38.224396, 0.000301], abs=1e-5)


@pytest.mark.parametrize(
    ("t", "t_alpha", "t_after", "logit", "loss"),
    [(0.5, 0.01, 0.5, 15.36, 13.849820), (0.0, 0.1, 0.05, 6.72, 5.215268), (0.0, 0.99, 0.495, 15.264, 13.753820)],
)
def test_e11_other_states(t, t_alpha, t_after, logit, loss):
    head = head_at(t, t_alpha)
    logits, found, _ = e11(head)
    assert float(head.t) == pytest.approx(t_after, abs=1e-6)
    assert float(logits[1]) == pytest.approx(logit, abs=1e-5) and float(found) == pytest.approx(loss, abs=1e-5)


def test_e11_arcface_value_and_true_slope():
    logits, loss, _ = e11(ArcFace())
    assert logits.tolist() == pytest.approx([1.510, 19.2, -6.4], abs=1e-3) and float(loss) == pytest.approx(17.689819, abs=1e-5)
    cos = torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    ArcFace(scale=1.0)(cos, torch.tensor([0])).sum().backward()
    assert float(cos.grad) == pytest.approx(1.154379, abs=1e-6)


def test_e12_fallback_keeps_the_mask_of_the_uncorrected_target():
    head = head_at(0.3)
    logits = head(torch.tensor([[-0.95, -0.5, -0.99]], dtype=torch.float64), torch.tensor([0]))
    assert float(head.t) == pytest.approx(0.2875, abs=1e-6)
    assert (logits / 64)[0].tolist() == pytest.approx([-1.189713, 0.10625, -0.99], abs=1e-6)


def embedded(seed: int = 0, rows: int = 6, identities: int = 9) -> tuple[torch.Tensor, ClassCentres, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = ClassCentres(identities, 16)
    centres.weight.data = torch.randn(identities, 16, generator=generator)
    return torch.randn(rows, 16, generator=generator), centres, torch.randint(identities, (rows,), generator=generator)


def test_e13_lengths_do_not_matter():
    embed_BD, centres, label_B = embedded()
    plain = head_at(0.2)(centres(embed_BD), label_B)
    centres.weight.data *= torch.rand(len(centres.weight), 1) + 0.5
    assert torch.allclose(head_at(0.2)(centres(embed_BD * 7.5), label_B), plain, atol=1e-4)


def test_e13_without_hard_negatives_it_is_arcface():
    cos = torch.tensor([[0.9, -0.2, 0.1], [-0.1, 0.95, 0.2]])
    assert torch.equal(head_at(0.4)(cos, torch.tensor([0, 1])), ArcFace()(cos, torch.tensor([0, 1])))


@pytest.mark.parametrize("shards", [1, 2, 3])
def test_e13_sharded_classes_give_the_same_loss_state_and_gradient(shards):
    embed_BD, centres, label_B = embedded()
    whole = embed_BD.clone().requires_grad_()
    one = head_at(0.2)
    F.cross_entropy(one(centres(whole), label_B), label_B).backward()

    parts = embed_BD.clone().requires_grad_()
    cos_BI = centres(parts)
    # What an all-reduce would make known on every shard.
    target_B = cos_BI.detach().gather(1, label_B[:, None])[:, 0]
    logits, states = [], []
    for column_S in torch.arange(cos_BI.shape[1]).tensor_split(shards):
        first, last = int(column_S[0]), int(column_S[-1])
        local_B = torch.where((label_B >= first) & (label_B <= last), label_B - first, -1)
        head = head_at(0.2)
        logits.append(head(cos_BI[:, column_S], local_B, target_B))
        states.append(float(head.t))
    F.cross_entropy(torch.cat(logits, 1), label_B).backward()
    assert states == pytest.approx([float(one.t)] * shards, abs=1e-7)
    assert torch.allclose(whole.grad, parts.grad, atol=1e-6)


def test_e13_parallel_embedding_has_a_finite_gradient():
    embed_BD, centres, label_B = embedded()
    embed_BD = centres.weight.detach()[label_B] * 3.0
    embed_BD.requires_grad_()
    F.cross_entropy(head_at()(centres(embed_BD), label_B), label_B).backward()
    assert torch.isfinite(embed_BD.grad).all() and torch.isfinite(centres.weight.grad).all()


def test_cosines_are_float32_under_autocast():
    embed_BD, centres, _ = embedded()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cos_BI = centres(embed_BD.bfloat16())
    assert cos_BI.dtype == torch.float32 and torch.equal(cos_BI, centres(embed_BD.bfloat16()))


def test_backward_after_a_second_forward():
    head, cos = head_at(), torch.tensor([[0.5, 0.3, -0.1]], requires_grad=True)
    first = head(cos, torch.tensor([0])).sum()
    head(cos, torch.tensor([0]))
    first.backward()


def test_a_setting_the_head_lacks_is_refused():
    with pytest.raises(UserError, match="'softmax' has no setting 'margin'"):
        HeadConfig(name="softmax", margin=0.3).build()
    with pytest.raises(UserError, match="did you mean 'curricularface'"):
        HeadConfig(name="curricular").build()
