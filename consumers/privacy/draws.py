"""Randomness of the client: from the operating system when it protects a face, from torch's generator when a training imitates clients.

A permutation, a rank or a noise value that protects a person must not be foreseeable; a training step must be repeatable. Both are `Draws`.
"""

from __future__ import annotations

import secrets
from typing import Protocol

import numpy as np
import torch
from torch import Tensor


class Draws(Protocol):
    """Where a client's random numbers come from."""

    def below(self, count: int, bound: int) -> Tensor:
        """Return `count` independent uniform integers in [0, bound), int64 (count,)."""
        ...

    def permutations(self, count: int, size: int) -> Tensor:
        """Return `count` independent uniform permutations of 0 … size-1, int64 (count, size)."""
        ...

    def laplace(self, shape: tuple[int, ...]) -> Tensor:
        """Return independent draws with density exp(-|x|)/2, float32."""
        ...


class SecretDraws:
    """Draws from the operating system's secure generator (`secrets`); it has no seed and keeps no state.

    Laplace values have 31 random bits for their size: |x| ≤ 22.2, beyond which an ideal Laplace goes with probability 2.3e-10, and they are
    floating-point numbers, so a bound that must hold to the last bit needs a discrete mechanism (Mironov, CCS 2012).
    """

    def below(self, count: int, bound: int) -> Tensor:
        return torch.tensor([secrets.randbelow(bound) for _ in range(count)], dtype=torch.int64)

    def permutations(self, count: int, size: int) -> Tensor:
        system = secrets.SystemRandom()
        return torch.tensor([system.sample(range(size), size) for _ in range(count)], dtype=torch.int64).reshape(count, size)

    def laplace(self, shape: tuple[int, ...]) -> Tensor:
        bits_N = np.frombuffer(secrets.token_bytes(4 * int(np.prod(shape))), np.uint32)
        size_N = -np.log(((bits_N >> 1).astype(np.float32) + np.float32(0.5)) * np.float32(2.0**-31))
        # 2^31 - 1 rounds up to 2^31 in float32: the logarithm is then 0 or a rounding below it.
        return torch.from_numpy(np.where(bits_N & 1, size_N, -size_N).reshape(shape))


class TorchDraws:
    """Draws from a torch generator, by default the global one, which the training loop pins to the step. For trainings and tests only."""

    def __init__(self, generator: torch.Generator | None = None) -> None:
        self._generator = generator

    def below(self, count: int, bound: int) -> Tensor:
        return torch.randint(bound, (count,), generator=self._generator)

    def permutations(self, count: int, size: int) -> Tensor:
        return torch.rand((count, size), generator=self._generator).argsort(1)

    def laplace(self, shape: tuple[int, ...]) -> Tensor:
        # In place where possible: these are millions of values, and new memory costs more than the arithmetic.
        signed = torch.rand(shape, generator=self._generator).mul_(2.0).sub_(1.0)
        return torch.copysign(signed.abs().clamp_(max=1.0 - 2.0**-24).neg_().log1p_(), signed)
