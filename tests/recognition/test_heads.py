"""The single heads: values and gradients against slow references and against the specification's worked examples (E2.1-E2.4)."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from facefoundry.core.errors import UserError
from facefoundry.recognition.adaface import AdaFace
from facefoundry.recognition.arcface import ArcFace
from facefoundry.recognition.arcface_straight_through import ArcFaceStraightThrough
from facefoundry.recognition.cifp import CIFP
from facefoundry.recognition.cosface import CosFace
from facefoundry.recognition.curricularface import CurricularFace
from facefoundry.recognition.heads import ClassCentres, HeadConfig, margin_loss

E2 = torch.tensor([[0.60, 0.40, 0.30, 0.10, 0.0], [0.20, 0.70, 0.65, 0.05, -0.10], [0.10, 0.15, 0.30, 0.35, 0.05]], dtype=torch.float64)
LABEL = torch.tensor([0, 1, 2])


def targets(head: CIFP, cos_BI: torch.Tensor = E2, label_B: torch.Tensor = LABEL) -> list[float]:
    return (head(cos_BI, label_B) / head.scale).gather(1, label_B[:, None])[:, 0].tolist()


def test_cosface_by_hand():
    assert CosFace(scale=2.0, margin=0.4)(torch.tensor([[0.5, 0.3]]), torch.tensor([0])).tolist() == [[pytest.approx(0.2), pytest.approx(0.6)]]


def test_straight_through_has_arcface_values_and_slope_one():
    target = torch.tensor([[-0.95], [0.5], [0.9]], dtype=torch.float64).repeat(1, 2).requires_grad_()
    label = torch.zeros(3, dtype=torch.long)
    logits = ArcFaceStraightThrough(scale=1.0)(target, label)
    assert torch.allclose(logits, ArcFace(scale=1.0)(target, label)) and float(logits[1, 0].detach()) == pytest.approx(0.0235966, abs=1e-6)
    logits.sum().backward()
    assert torch.equal(target.grad, torch.ones(3, 2, dtype=torch.float64))


def test_e21_released():
    head = CIFP()
    logits = head(E2, LABEL)
    wanted = [[-0.384, 25.6, 19.2, 6.4, 0.0], [12.8, -23.568, 41.6, 3.2, -6.4], [6.4, 9.6, -3.2, 22.4, 3.2]]
    assert torch.allclose(logits, torch.tensor(wanted, dtype=torch.float64), atol=1e-9)
    assert float(head.threshold) == pytest.approx(0.30)


@pytest.mark.parametrize(("weighted", "ratio"), [(False, [1, 1, 0]), (True, [0.16, 0.4225, 0])])
def test_e22_paper(weighted, ratio):
    head = CIFP(mode="paper", far=0.25, weighted=weighted)
    assert targets(head) == pytest.approx([c - 0.35 - r for c, r in zip((0.6, 0.7, 0.3), ratio)], abs=1e-9)
    assert float(head.threshold) == pytest.approx(0.35)


def test_e23_a_larger_rate_separates_the_modes():
    assert targets(CIFP(far=0.5)) == pytest.approx([0.05, -0.043125, -0.07925], abs=1e-9)
    for weighted, ratio in ((False, [1, 1, 0.5]), (True, [0.125, 0.23125, 0.06125])):
        head = CIFP(mode="paper", far=0.5, weighted=weighted)
        assert targets(head) == pytest.approx([c - 0.35 - r for c, r in zip((0.6, 0.7, 0.3), ratio)], abs=1e-9)
        assert float(head.threshold) == pytest.approx(0.15)


def test_e24_the_penalty_may_stand_on_either_side():
    """The paper adds it to all non-target logits; here it is taken from the target: same loss, same gradient."""
    ours, theirs = E2.clone().requires_grad_(), E2.clone().requires_grad_()
    F.cross_entropy(CIFP(mode="paper", far=0.25)(ours, LABEL), LABEL).backward()
    moved = theirs + torch.tensor([1.0, 1.0, 0.0], dtype=torch.float64)[:, None] * (1 - F.one_hot(LABEL, 5)) - 0.35 * F.one_hot(LABEL, 5)
    F.cross_entropy(64 * moved, LABEL).backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-12)


@pytest.mark.parametrize("head", [CIFP(), CIFP(mode="paper", alpha=0.0)])
def test_e24_without_a_penalty_it_is_cosface(head):
    beaten = torch.tensor([[0.1, 0.4, 0.3], [0.5, 0.2, 0.6]], dtype=torch.float64)  # every class beats the target: released code stops here
    label = torch.tensor([0, 1])
    assert torch.equal(head(beaten, label), CosFace()(beaten, label))


@pytest.mark.parametrize("settings", [{}, {"far": 0.6}, {"mode": "paper", "far": 0.3}, {"mode": "paper", "far": 0.3, "weighted": True}])
def test_cifp_true_gradient(settings):
    untied = E2 + 0.001 * torch.arange(15, dtype=torch.float64).reshape(3, 5)  # at a tie the threshold itself jumps
    assert gradcheck(lambda cos: CIFP(**settings).eval()(cos, LABEL), untied.requires_grad_(), eps=1e-7, atol=1e-5)


def released_by_the_letter(x_BD, kernel_ID, label_B, margin=0.35, scale=64.0):
    """Steps 1-9 of §2.2, row by row, with the second cosine matrix of a detached kernel."""
    unit = F.normalize(x_BD)
    cos, still = unit @ F.normalize(kernel_ID).T, unit @ F.normalize(kernel_ID.detach()).T
    rows, classes = cos.shape
    allowed = [(i, j) for i in range(rows) for j in range(classes) if j != label_B[i] and cos[i, j] <= cos[i, label_B[i]]]
    k = math.ceil(len(allowed) / (classes - 1) - 1e-9)
    bar = sorted((cos[i, j].item() for i, j in allowed), reverse=True)[k - 1]
    logits = cos.clone()
    for i in range(rows):
        own = cos[i, label_B[i]]
        values = [(cos if cos[i, j] < own - margin else still)[i, j] ** 2 for a, j in allowed if a == i and cos[i, j].item() > bar]
        penalty = sum(values) / max(1, len(values)) if values else torch.zeros((), dtype=cos.dtype)
        logits[i, label_B[i]] = own - margin - (1 + still[i, label_B[i]]) * penalty
    return scale * logits


def test_cifp_gradient_spares_the_centres_of_hard_false_positives():
    generator = torch.Generator().manual_seed(4)
    kernel = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    label_B = torch.arange(5)
    x_BD = kernel[label_B] + 0.9 * torch.randn(5, 6, generator=generator, dtype=torch.float64)
    found, wanted = [], []
    for out, ours in ((found, True), (wanted, False)):
        centres = ClassCentres(8, 6).double()
        centres.weight.data = kernel.clone()
        x = x_BD.clone().requires_grad_()
        if ours:
            fixed = lambda r, c: (F.normalize(x)[r] * F.normalize(centres.weight.detach())[c]).sum(1)  # noqa: E731
            logits = CIFP()(F.normalize(x) @ F.normalize(centres.weight).T, label_B, fixed=fixed)
        else:
            logits = released_by_the_letter(x, centres.weight, label_B)
        F.cross_entropy(logits, label_B).backward()
        out += [logits.detach(), x.grad, centres.weight.grad]
    for ours, reference in zip(found, wanted):
        assert torch.allclose(ours, reference, atol=1e-9)
    plain = ClassCentres(8, 6).double()
    plain.weight.data = kernel.clone()
    F.cross_entropy(CIFP()(F.normalize(x_BD) @ F.normalize(plain.weight).T, label_B), label_B).backward()
    assert not torch.allclose(plain.weight.grad, wanted[2], atol=1e-3), "the example must have hard false positives to tell the two apart"


def test_margin_loss_hands_over_what_heads_read():
    centres = ClassCentres(8, 6)
    x_BD, label_B = torch.randn(5, 6, generator=torch.Generator().manual_seed(1)), torch.arange(5)
    cos_BI = centres(x_BD)
    assert torch.allclose(centres.fixed(x_BD)(torch.tensor([1, 4]), torch.tensor([7, 0])), cos_BI[[1, 4], [7, 0]], atol=1e-6)
    for head in (CIFP(), AdaFace()):
        found = margin_loss(head, centres, x_BD, label_B)
        assert torch.isfinite(found["loss"]) and set(found) == {"loss", "accuracy", "target_cosine"}
    assert float(head.mean) == pytest.approx(0.99 * 20 + 0.01 * float(x_BD.norm(dim=1).mean()), rel=1e-5)


def test_adaface_at_poor_mean_and_good_quality():
    head = AdaFace(scale=1.0).eval()
    head.deviation.fill_(5.0)
    theta = torch.tensor([0.3, 0.6, 1.2, 2.9], dtype=torch.float64)
    for norm, wanted in ((1.0, (theta + 0.4).clamp(max=math.pi - 1e-3).cos()), (20.0, theta.cos() - 0.4), (60.0, (theta - 0.4).clamp(min=1e-3).cos() - 0.8)):
        logits = head(theta.cos()[:, None].repeat(1, 2), torch.zeros(4, dtype=torch.long), norm_B=torch.full((4,), norm))
        assert logits[:, 0].tolist() == pytest.approx(wanted.tolist(), abs=1e-9)
        assert logits[:, 1].tolist() == pytest.approx(theta.cos().tolist())


@pytest.mark.parametrize("norm", [1.0, 15.0, 60.0])
def test_adaface_true_gradient_at_every_quality(norm):
    head = AdaFace(scale=1.0).eval()
    head.deviation.fill_(5.0)
    cos = torch.tensor([[0.95], [0.5], [-0.95], [-0.3]], dtype=torch.float64).repeat(1, 3).requires_grad_()
    assert gradcheck(lambda c: head(c, torch.zeros(4, dtype=torch.long), norm_B=torch.full((4,), norm)), cos)


def test_adaface_statistics_move_before_they_are_used():
    head, norm_B = AdaFace(t_alpha=0.5), torch.tensor([10.0, 14.0, 18.0], requires_grad=True)
    logits = head(torch.full((3, 2), 0.2), torch.zeros(3, dtype=torch.long), norm_B=norm_B)
    assert float(head.mean) == pytest.approx(17.0) and float(head.deviation) == pytest.approx(52.0)  # ddof 1: 4
    z = 0.333 * (norm_B.detach() - 17.0) / 52.001
    angle = math.acos(0.2) - 0.4 * z
    assert (logits[:, 0] / 64).tolist() == pytest.approx((angle.cos() - 0.4 - 0.4 * z).tolist(), abs=1e-6)
    assert not logits.requires_grad


def test_adaface_one_row_and_nan_rows_keep_the_state_finite():
    head, cos = AdaFace(), torch.full((1, 2), 0.2)
    head(cos, torch.tensor([0]), norm_B=torch.tensor([12.0]))
    assert float(head.mean) == pytest.approx(19.92) and float(head.deviation) == 100.0
    head(cos, torch.tensor([0]), norm_B=torch.tensor([math.nan]))
    assert float(head.mean) == pytest.approx(19.92) and float(head.deviation) == 100.0


def test_curricularface_averages_with_one_hundredth():
    head = CurricularFace()
    for _ in range(3):
        head(torch.tensor([[0.18, 0.1]]), torch.tensor([0]))
    assert float(head.t) == pytest.approx(0.18 * (1 - 0.99**3), rel=1e-5)  # public TFace: 0.1, nine times as much


def test_settings_a_mode_lacks_are_refused():
    with pytest.raises(UserError, match="mode 'released' has no 'alpha'"):
        HeadConfig(name="cifp", alpha=2.0).build()
    assert HeadConfig(name="cifp", mode="paper", alpha=2.0).build().alpha == 2.0
    with pytest.raises(UserError, match="'cosface' has no setting 'h'"):
        HeadConfig(name="cosface", h=0.3).build()
