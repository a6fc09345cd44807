"""What the contracts of generators, heads and filters have in common: a promise that is broken says which one."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any


class ContractError(AssertionError):
    """A part does not keep a promise of its kind; the message is the promise and what was seen."""


def demand(kept: bool, promise: str) -> None:
    """Raise ContractError with the promise unless it is kept."""
    if not kept:
        raise ContractError(promise)


def check_all(promises: Iterable[Callable[[Any], None]], part: Any) -> None:
    """Try every promise on a part and raise one error that lists the broken ones."""
    broken = []
    for promise in promises:
        try:
            promise(part)
        except ContractError as error:
            broken.append(f"{promise.__name__}: {error}")
    if broken:
        raise ContractError("\n".join(broken))
