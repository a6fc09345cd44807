"""Where and in which precision networks run."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

Precision = Literal["fp32", "bf16", "fp16"]


def default_device() -> torch.device:
    """Return the first accelerator torch sees, else the CPU."""
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator if accelerator is not None else torch.device("cpu")


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager:
    """Return the mixed-precision context for a network's forward pass."""
    if precision == "fp32":
        return nullcontext()
    dtype = torch.bfloat16 if precision == "bf16" else torch.float16
    return torch.autocast(device.type, dtype=dtype)


def memory_format(device: torch.device) -> torch.memory_format:
    """Return the layout in which convolutional networks run fastest.

    On the CPU torch's bfloat16 GroupNorm is 10 to 35 times slower in channels_last than in plain order (torch 2.13, measured by
    benchmarks/sampling.py), which costs more than the convolutions gain.
    """
    return torch.contiguous_format if device.type == "cpu" else torch.channels_last


def compile_network(network: torch.nn.Module, device: torch.device) -> None:
    """Have torch compile the network's forward pass on its first call, on CUDA; elsewhere say that nothing is done.

    Batches of a sampler change their number of rows from step to step, hence the dynamic shapes.
    """
    if device.type == "cuda":
        network.compile(dynamic=True)
    else:
        logging.getLogger(__name__).info("compile is for CUDA; on %s the network runs as it is", device.type)
