"""First stages that live above the generators: they enter the generators' registry when something of the top asks for it."""

from __future__ import annotations

from importlib import import_module

MODULES = ("consumers.tokenizer.glotok",)
"""Modules that register an autoencoder."""


def know_first_stages() -> None:
    """Import what registers first stages, before a generator that may use one is built or trained."""
    package = __name__.rpartition(".")[0].rpartition(".")[0]
    for name in MODULES:
        import_module(f"{package}.{name}")
