"""The table of generators; an entry is a `Config` class with `build(device, precision) -> Generator` and `tiny()`."""

from __future__ import annotations

from ..core.registry import Registry

GENERATORS: Registry = Registry("generator", "facefoundry.generators")
