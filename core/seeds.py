"""Random numbers that belong to an image, never to a rank, a batch or a global generator."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """Return a 63-bit seed from `blake2b(part | part | ...)`, e.g. `derive_seed(job_seed, identity, image, "noise")`.

    The same parts give the same seed on every machine, worker and batch layout.
    """
    text = "|".join(str(part) for part in parts).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") & (2**63 - 1)


def noise(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Return standard normal noise, float32 on the CPU, shape (len(seeds), *shape); row i depends on seeds[i] alone."""
    rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows) if rows else torch.empty((0, *shape))


def numpy_rng(*parts: int | str) -> np.random.Generator:
    """Return a numpy generator seeded by `derive_seed(*parts)`."""
    return np.random.default_rng(derive_seed(*parts))
