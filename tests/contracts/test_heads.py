"""What every margin head promises; the heads are found through the registry."""

from __future__ import annotations

import math

import pytest
import torch
from torch.autograd import gradcheck

from facefoundry.recognition.heads import HEADS, HeadConfig

heads = pytest.mark.parametrize("name", list(HEADS))
true_heads = pytest.mark.parametrize("name", [name for name in HEADS if HEADS[name].true_gradient])


def cosines(rows: int = 4, columns: int = 7) -> torch.Tensor:
    """Cosines of random directions, float64, away from ±1 and from the kinks."""
    generator = torch.Generator().manual_seed(3)
    return torch.rand(rows, columns, generator=generator, dtype=torch.float64) * 1.4 - 0.7


def call(head, cos_BI: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
    """Call a head with whatever it reads beside cosines and labels."""
    return head(cos_BI, label_B, **({"norm_B": torch.full(label_B.shape, 20.0)} if "norm_B" in head.reads else {}))


@heads
def test_shape_dtype_and_no_touch_of_the_input(name):
    head, cos_BI, label_B = HEADS[name].tiny(), cosines(), torch.tensor([0, 3, 6, 2])
    kept = cos_BI.clone()
    for dtype, expected in ((torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        logits = call(head, cos_BI.to(dtype), label_B)
        assert logits.shape == cos_BI.shape and logits.dtype == expected and torch.isfinite(logits).all()
    assert torch.equal(cos_BI, kept)


@true_heads
def test_true_gradient(name):
    head, label_B = HEADS[name].tiny().eval(), torch.tensor([0, 3, 6, 2])
    assert gradcheck(lambda cos: call(head, cos, label_B), cosines().requires_grad_())


@true_heads
@pytest.mark.parametrize("target", [-0.999, -0.95, -0.88, -0.87, 0.999, 0.9999])
def test_true_gradient_near_the_edges_and_beyond_pi(name, target):
    head = HEADS[name].tiny().eval()
    cos = torch.tensor([[target, 0.31, -0.2, 0.6]], dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda c: call(head, c, torch.tensor([0])), cos, eps=1e-8, atol=1e-3)


@heads
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_gradient_is_finite_at_plus_and_minus_one(name, dtype):
    cos = torch.tensor([[1.0, 1.0, -1.0], [-1.0, 1.0, 0.0]], dtype=dtype, requires_grad=True)
    torch.nn.functional.cross_entropy(call(HEADS[name].tiny(), cos, torch.tensor([0, 0])), torch.tensor([0, 0])).backward()
    assert torch.isfinite(cos.grad).all()


@heads
@pytest.mark.parametrize("target", [-1.0, -0.999999, 0.0, 0.999999, 1.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_values_and_gradients_are_finite_in_half_precision_too(name, target, dtype):
    """Checklist 2: the head behind a backbone in fp16; the other classes at, above and below the target."""
    cos = torch.tensor([[target, 0.31, -0.2, 1.0, -1.0]], dtype=dtype, requires_grad=True)
    logits = call(HEADS[name].tiny(), cos, torch.tensor([0]))
    torch.nn.functional.cross_entropy(logits, torch.tensor([0])).backward()
    assert torch.isfinite(logits).all() and torch.isfinite(cos.grad).all()


@true_heads
def test_true_gradient_where_every_class_beats_the_target(name):
    cos = torch.tensor([[-0.4, 0.3, 0.5, 0.1], [-0.2, 0.7, 0.2, 0.6]], dtype=torch.float64, requires_grad=True)
    head = HEADS[name].tiny().eval()
    assert gradcheck(lambda c: call(head, c, torch.tensor([0, 0])), cos)


@heads
def test_a_row_without_a_label_passes_untouched(name):
    head, cos_BI = HEADS[name].tiny(), cosines()
    logits = call(head, cos_BI, torch.tensor([-1, 3, -1, 2]))
    assert torch.equal(logits[[0, 2]], head.scale * cos_BI[[0, 2]])
    only_missing = call(head, cos_BI, torch.full((4,), -1))
    assert torch.equal(only_missing, head.scale * cos_BI)
    assert all(torch.isfinite(state).all() for state in head.state_dict().values())


@heads
def test_evaluation_changes_no_state(name):
    head = HEADS[name].tiny().eval()
    before = {key: value.clone() for key, value in head.state_dict().items()}
    call(head, cosines(), torch.tensor([0, 3, 6, 2]))
    assert all(torch.equal(before[key], value) for key, value in head.state_dict().items())
    assert not list(head.parameters())


@heads
def test_batch_order_does_not_matter_and_no_random_numbers_are_drawn(name):
    cos_BI, label_B, order = cosines(), torch.tensor([0, 3, 6, 2]), torch.tensor([2, 0, 3, 1])
    state = torch.get_rng_state()
    straight, turned = call(HEADS[name].tiny(), cos_BI, label_B), call(HEADS[name].tiny(), cos_BI[order], label_B[order])
    assert torch.allclose(straight[order], turned, atol=1e-12)
    assert torch.equal(state, torch.get_rng_state())


@heads
def test_a_worse_angle_never_gets_a_better_target_logit(name):
    head = HEADS[name].tiny().eval()
    target = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    logits = call(head, torch.cat([target, torch.full_like(target, -1.0)], 1), torch.zeros(2001, dtype=torch.long))
    assert (logits[:, 0].diff() > 0).all()


@heads
def test_a_nan_batch_does_not_poison_the_state(name):
    head, label_B = HEADS[name].tiny(), torch.tensor([0, 3, 6, 2])
    call(head, cosines() * math.nan, label_B)
    assert torch.isfinite(call(head, cosines(), label_B)).all()


@heads
def test_settings_reach_the_head(name):
    assert HeadConfig(name=name, scale=20).build().scale == 20
