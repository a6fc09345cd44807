"""What every filter promises, tried on the registered ones; and that a filter which breaks a promise is told so."""

from __future__ import annotations

import numpy as np
import pytest
from facefoundry.core.config import Config
from facefoundry.core.contracts import ContractError
from facefoundry.quality.contract import PROMISES, check_filter
from facefoundry.quality.filters import FILTERS, FilterResult


@pytest.mark.parametrize("name", list(FILTERS))
@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
def test_promise(promise, name):
    promise(name, FILTERS[name])


class Careless(Config):
    """Draws from the global generator, spoils its input, gives a bare reason."""

    @classmethod
    def tiny(cls) -> Careless:
        return cls()

    def apply(self, data) -> FilterResult:
        data.embed_ND[:1] = 0
        return FilterResult(reasons=["bad" if np.random.rand() < 0.5 else None for _ in range(max(2, len(data)))], scores={"x": np.zeros(3)})


def test_broken_promises_are_named():
    state = np.random.get_state()
    np.random.seed(0)
    with pytest.raises(ContractError) as told:
        check_filter("careless", Careless)
    np.random.set_state(state)
    assert [line.split(":")[0] for line in str(told.value).splitlines()] == [promise.__name__ for promise in PROMISES[:3]]
