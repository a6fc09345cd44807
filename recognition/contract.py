"""What every margin head promises: the tests try it on ours, `check_head` on yours.

A promise is a function of a head class that raises `ContractError`. Axes: B images, I identities.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from ..core.contracts import check_all, demand
from .heads import MarginHead

_LABEL_B = (0, 3, 6, 2)
_EDGES = (-0.999, -0.95, -0.88, -0.87, 0.999, 0.9999)
"""Target cosines near ±1 and on both sides of θ + m = π for the usual margins."""


def check_head(head: type[MarginHead]) -> None:
    """Try all promises on a head class (what is registered in `HEADS`).

    Raises:
        ContractError: lists the promises that are broken.
    """
    check_all(PROMISES, head)


def logits_have_the_shape_and_the_input_is_not_touched(head: type[MarginHead]) -> None:
    """(B, I) in, (B, I) out: float32 from half and single precision, float64 from float64, finite; the cosines given stay as they were."""
    cos_BI = _cosines()
    kept = cos_BI.clone()
    for given, expected in ((torch.float32, torch.float32), (torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        logits = _call(head.tiny(), cos_BI.to(given), _labels())
        demand(logits.shape == cos_BI.shape and logits.dtype == expected, f"{given} cosines {tuple(cos_BI.shape)} gave {logits.dtype} {tuple(logits.shape)}, expected {expected} of the same shape (see heads.at_least_float32)")
        demand(bool(torch.isfinite(logits).all()), "logits are not finite")
    demand(torch.equal(cos_BI, kept), "the cosines given were changed in place")


def the_gradient_is_that_of_the_value(head: type[MarginHead]) -> None:
    """In float64, by finite differences: in the middle, near ±1, beyond θ + m = π, and where every class beats the target. Not asked where `true_gradient` is False."""
    if not head.true_gradient:
        return
    model = head.tiny().eval()
    beaten = torch.tensor([[-0.4, 0.3, 0.5, 0.1], [-0.2, 0.7, 0.2, 0.6]], dtype=torch.float64)
    for cos_BI, label_B in ((_cosines(), _labels()), (beaten, torch.tensor([0, 0]))):
        demand(_agrees(model, cos_BI, label_B), "the gradient is not that of the value (an update in place or under no_grad?); if that is intended set true_gradient = False")
    for target in _EDGES:
        cos_BI = torch.tensor([[target, 0.31, -0.2, 0.6]], dtype=torch.float64)
        demand(_agrees(model, cos_BI, torch.tensor([0]), eps=1e-8, atol=1e-3), f"the gradient is not that of the value at a target cosine of {target}")


def values_and_gradients_are_finite_at_the_edges(head: type[MarginHead]) -> None:
    """At cosines of exactly ±1, in half, single and double precision."""
    for dtype in (torch.float16, torch.float32, torch.float64):
        for target in (-1.0, -0.999999, 0.0, 0.999999, 1.0):
            cos_BI = torch.tensor([[target, 0.31, -0.2, 1.0, -1.0], [target, 1.0, -1.0, 1.0, 0.0]], dtype=dtype, requires_grad=True)
            logits = _call(head.tiny(), cos_BI, torch.tensor([0, 0]))
            F.cross_entropy(logits, torch.tensor([0, 0])).backward()
            demand(bool(torch.isfinite(logits).all() and torch.isfinite(cos_BI.grad).all()), f"logits or gradient are not finite at a target cosine of {target} in {dtype} (see heads.sine_of, heads.at_least_float32)")


def a_row_without_a_label_passes_untouched(head: type[MarginHead]) -> None:
    """Label -1: scale times the cosines, and no state is spoilt by a batch of such rows."""
    model, cos_BI = head.tiny(), _cosines()
    logits = _call(model, cos_BI, torch.tensor([-1, 3, -1, 2]))
    alone = _call(model, cos_BI, torch.full((4,), -1))
    demand(torch.equal(logits[[0, 2]], model.scale * cos_BI[[0, 2]]) and torch.equal(alone, model.scale * cos_BI), "a row with label -1 is not scale times its cosines")
    demand(_sound(model), "a batch without labels left a state that is not finite")


def state_is_in_buffers_and_evaluation_leaves_it(head: type[MarginHead]) -> None:
    """No parameters; a call in evaluation mode changes no buffer."""
    model = head.tiny().eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    _call(model, _cosines(), _labels())
    demand(all(torch.equal(before[key], value) for key, value in model.state_dict().items()), "a call in evaluation mode changed the state")
    demand(not list(model.parameters()), "a head has no parameters: class centres are not its own")


def the_order_of_rows_does_not_matter(head: type[MarginHead]) -> None:
    """Rows in another order give the logits in that order, and no random numbers are drawn."""
    cos_BI, label_B, order = _cosines(), _labels(), torch.tensor([2, 0, 3, 1])
    state = torch.get_rng_state()
    straight, turned = _call(head.tiny(), cos_BI, label_B), _call(head.tiny(), cos_BI[order], label_B[order])
    demand(torch.allclose(straight[order], turned, atol=1e-12), "the logits of a row depend on the order of the batch")
    demand(torch.equal(state, torch.get_rng_state()), "random numbers were drawn from the global generator")


def a_worse_angle_never_gets_a_better_target_logit(head: type[MarginHead]) -> None:
    """The target's logit rises with its cosine over all of [-1, 1]: also beyond θ + m = π."""
    target_B1 = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    logits = _call(head.tiny().eval(), torch.cat([target_B1, torch.full_like(target_B1, -1.0)], 1), torch.zeros(2001, dtype=torch.long))
    falls = (logits[:, 0].diff() <= 0).nonzero()
    demand(len(falls) == 0, f"the target's logit does not rise at a cosine of {float(target_B1[falls[0, 0]]) if len(falls) else 0:.3f} (see heads.monotone_target)")


def a_batch_of_nan_does_not_poison_the_state(head: type[MarginHead]) -> None:
    """After cosines of NaN the next batch has finite logits."""
    model = head.tiny()
    _call(model, _cosines() * math.nan, _labels())
    demand(bool(torch.isfinite(_call(model, _cosines(), _labels())).all()), "a batch of NaN spoilt the state for the next one")


PROMISES = (
    logits_have_the_shape_and_the_input_is_not_touched, the_gradient_is_that_of_the_value, values_and_gradients_are_finite_at_the_edges, a_row_without_a_label_passes_untouched,
    state_is_in_buffers_and_evaluation_leaves_it, the_order_of_rows_does_not_matter, a_worse_angle_never_gets_a_better_target_logit, a_batch_of_nan_does_not_poison_the_state,
)  # fmt: skip


def _cosines() -> Tensor:
    """Cosines of four images to seven classes, float64, away from ±1 and from the kinks."""
    return torch.rand(4, 7, generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 1.4 - 0.7


def _labels() -> Tensor:
    return torch.tensor(_LABEL_B)


def _call(head: MarginHead, cos_BI: Tensor, label_B: Tensor) -> Tensor:
    """Call a head with whatever it reads beside cosines and labels."""
    extra: dict[str, Any] = {"norm_B": torch.full(label_B.shape, 20.0)} if "norm_B" in head.reads else {}
    return head(cos_BI, label_B, **extra)


def _agrees(head: MarginHead, cos_BI: Tensor, label_B: Tensor, eps: float = 1e-6, atol: float = 1e-5) -> bool:
    return gradcheck(lambda cos: _call(head, cos, label_B), cos_BI.clone().requires_grad_(), eps=eps, atol=atol, raise_exception=False)


def _sound(head: MarginHead) -> bool:
    return all(bool(torch.isfinite(value).all()) for value in head.state_dict().values())
