"""Secrets that come out the same in every run, for tests that measure what real ones do on average."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import numpy as np
import pytest


@pytest.fixture(scope="session")
def known_secrets() -> Callable[[], AbstractContextManager[None]]:
    """Within the context keys, drops and noise follow from a fixed seed, whatever ran before."""

    @contextmanager
    def known() -> Iterator[None]:
        rng = np.random.default_rng(0)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("secrets.token_bytes", lambda count=32: rng.bytes(count))
            yield

    return known


@pytest.fixture
def repeatable(known_secrets) -> Iterator[None]:
    """The same for one test."""
    with known_secrets():
        yield
