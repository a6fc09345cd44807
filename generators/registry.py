"""The tables of generators and of their first stages.

A generator's entry is a `Config` class with `build(device, precision) -> Generator` and `tiny()`; an autoencoder's is a `Config` class
whose `build()` returns a module with `encode`, `decode` and `latent_shape` (see autoencoder.py).
"""

from __future__ import annotations

from ..core.registry import Registry

GENERATORS: Registry = Registry("generator", "facefoundry.generators")
AUTOENCODERS: Registry = Registry("autoencoder", "facefoundry.generators")
