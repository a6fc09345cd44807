"""What every margin head promises, tried on the registered ones; and that a head which breaks a promise is told so."""

from __future__ import annotations

import math

import pytest
import torch
from facefoundry.core.contracts import ContractError
from facefoundry.recognition.contract import PROMISES, check_head
from facefoundry.recognition.heads import HEADS, HeadConfig, MarginHead


@pytest.mark.parametrize("name", list(HEADS))
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promise(promise, name):
    promise(HEADS[name])


@pytest.mark.parametrize("name", list(HEADS))
def test_settings_reach_the_head(name):
    assert HeadConfig(name=name, scale=20).build().scale == 20


class InPlace(MarginHead):
    """The habit of the public trainers: the margin under no_grad, in place, no floor, no rule beyond π, a learnt scale."""

    def __init__(self, *, scale: float = 64.0, margin: float = 0.5) -> None:
        super().__init__(scale=scale)
        self.margin, self.weight = margin, torch.nn.Parameter(torch.ones(()))
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, cos_BI, label_B):
        row = torch.arange(len(label_B))
        with torch.no_grad():
            self.mean += cos_BI.mean()
            cos_BI[row, label_B] = (cos_BI[row, label_B].acos() + self.margin).cos()
        return self.scale * cos_BI * self.weight + 0 * self.mean


class Straight(MarginHead):
    """A true cos(θ + m), by arccos: right in the middle, wrong at the edges and beyond π."""

    def __init__(self, *, scale: float = 64.0) -> None:
        super().__init__(scale=scale)

    def forward(self, cos_BI, label_B):
        wanted_BI = torch.nn.functional.one_hot(label_B.clamp(min=0), cos_BI.shape[1]).bool() & (label_B >= 0)[:, None]
        cos_BI = cos_BI if cos_BI.dtype == torch.float64 else cos_BI.float()
        return self.scale * torch.where(wanted_BI, (cos_BI.acos() + 0.5).cos(), cos_BI)


def broken(head: type[MarginHead]) -> set[str]:
    with pytest.raises(ContractError) as told:
        check_head(head)
    return {line.split(":")[0] for line in str(told.value).splitlines()}


def test_broken_promises_are_named():
    names = [promise.__name__ for promise in PROMISES]
    # Under no_grad a leaf that requires grad cannot be changed in place and still be differentiated: gradcheck must see it, not crash.
    assert {"logits_have_the_shape_and_the_input_is_not_touched", "state_is_in_buffers_and_evaluation_leaves_it", "a_row_without_a_label_passes_untouched", "a_batch_of_nan_does_not_poison_the_state"} <= broken(InPlace) <= set(names)
    assert broken(Straight) == {"values_and_gradients_are_finite_at_the_edges", "a_worse_angle_never_gets_a_better_target_logit"}
    assert math.isclose(Straight().scale, 64.0)
