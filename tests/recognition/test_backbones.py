"""Sizes of the networks against the published counts."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from facefoundry.core.errors import UserError
from facefoundry.recognition.backbones import BACKBONES, BackboneConfig


@pytest.mark.parametrize(
    ("name", "millions", "gmac"),
    [("mobilefacenet", 1.199, 0.221), ("ir-18", 24.02, 2.60), ("ir-34", 34.13, 4.45), ("ir-50", 43.59, 6.30), ("ir-100", 65.15, 12.08), ("ir-se-50", 43.81, 6.30), ("mbf", 2.06, 0.4375), ("mbf-large", 6.315, 1.816), ("iresnet-50", 43.59, 6.31), ("iresnet-100", 65.16, 12.09)],
)
def test_parameters_and_multiply_adds(name, millions, gmac):
    with FakeTensorMode():  # shapes only: IR-100 would take seconds
        network = BackboneConfig(name=name).build().eval()
        with FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 112, 112))
    parameters = sum(p.numel() for p in network.parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.006)
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmac, rel=0.01)


@pytest.mark.parametrize("name", list(BACKBONES))
@pytest.mark.parametrize("shrink", [1, 2])
def test_a_narrow_network_runs_and_its_last_layers_stay_float32(name, shrink):
    network = BackboneConfig(name=name, embed_dim=16, width=0.125, shrink=shrink).build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        embed_BD = network(torch.rand(3, 3, 112, 112))
    assert embed_BD.shape == (3, 16) and embed_BD.dtype == torch.float32
    embed_BD.square().mean().backward()


def test_dropout_is_refused_where_there_is_none():
    with pytest.raises(UserError, match="no dropout layer"):
        BackboneConfig(name="mobilefacenet", dropout=0.4).build()


def test_unknown_network_names_the_near_ones():
    with pytest.raises(UserError, match="did you mean 'mobilefacenet'"):
        BackboneConfig(name="mobilfacenet").build()
