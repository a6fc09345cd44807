"""What every registered generator promises, tried on its tiny() instance; and that a generator which breaks a promise is told so."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from facefoundry.core.config import Config
from facefoundry.core.contracts import ContractError
from facefoundry.core.types import FaceBatch
from facefoundry.generators.contract import PROMISES, check_generator
from facefoundry.generators.registry import GENERATORS


@pytest.mark.parametrize("name", list(GENERATORS))
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promise(promise, name):
    promise(GENERATORS[name])


class BadConfig(Config):
    """A generator that breaks every promise but the last."""

    @classmethod
    def tiny(cls) -> Bad:
        return Bad()


class Bad:
    anchor_dim = 8

    def generate(self, anchor_BD, seeds):
        noise = torch.rand(len(seeds), 3, 112, 112) + len(seeds)
        return FaceBatch(image_BCHW=noise, seeds=tuple(seeds)[::-1], passes_B=())


class FlatConfig(BadConfig):
    """Grey whatever it is asked for."""

    @classmethod
    def tiny(cls) -> Flat:
        return Flat()


class Flat(Bad):
    def generate(self, anchor_BD, seeds):
        assert anchor_BD.dtype == np.float32
        return FaceBatch(image_BCHW=torch.zeros(len(seeds), 3, 112, 112), seeds=tuple(seeds), passes_B=(0.0,) * len(seeds))


def test_broken_promises_are_named():
    with pytest.raises(ContractError) as told:
        check_generator(BadConfig)
    lines = str(told.value).splitlines()
    assert [line.split(":")[0] for line in lines] == [promise.__name__ for promise in PROMISES[:3]]
    assert "values in [3" in lines[0] and "core.seeds.noise" in lines[1]
    with pytest.raises(ContractError, match="of one colour\n.*another anchor gives the same image"):
        check_generator(FlatConfig)
