"""Recogniser files: the house's safetensors with the backbone's settings and the provenance in the header."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..core.weights import load_into, load_weights, save_weights
from .backbones import BackboneConfig

KIND = "recogniser"


def save_network(path: Path, network: nn.Module, config: BackboneConfig, *, facts: Mapping[str, Any], half: bool = False) -> None:
    """Write the weights of a recogniser.

    Args:
        path: a name ending in `.safetensors`.
        network: what `config.build()` made.
        facts: provenance for the header: data, steps, seed, figures (anything JSON takes).
        half: store float16 (half the size; loading gives float32 again).
    """
    save_weights(path, network, kind=KIND, config=config.model_dump(mode="json"), facts=dict(facts), dtype=torch.float16 if half else None)


def load_network(path: Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the network in evaluation mode (float32, CPU) and the facts of its header.

    Raises:
        UserError: not safetensors (a pickle is never opened), truncated, not a recogniser, or tensors that do not fit.
    """
    network, _, facts = load_recogniser(path)
    return network, facts


def load_recogniser(path: Path) -> tuple[nn.Module, BackboneConfig, dict[str, Any]]:
    """Return what `load_network` does, with the settings in between: for whoever trains the network further and stores it again."""
    tensors, values, facts = load_weights(path, kind=KIND)
    config = BackboneConfig.parse(values, source=f"header of {path}")
    with torch.random.fork_rng(devices=[]):
        network = config.build()
    load_into(network, tensors, path)
    return network.eval(), config, facts
