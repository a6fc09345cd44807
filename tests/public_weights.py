"""Checkpoints as the public trainers write them, made without their code: frozen random numbers under their names and in their shapes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from facefoundry.generators.published import public_name
from facefoundry.generators.unet import FamilyUNet, UNetConfig
from facefoundry.generators.vq import VQAutoencoder, VQConfig, ldm_name
from torch import Tensor

TINY = UNetConfig(width=32, multipliers=(1, 2), attention=(False, True), blocks=1, identity_dim=16, context_dim=32)
TINY_VQ = VQConfig(width=32, multipliers=(1, 2), blocks=1, codebook=(64, 3))
CONV1D = ("to_q.weight", "to_k.weight", "to_v.weight", "_attention.proj_out.weight")
CONV2D = (".q.weight", ".k.weight", ".v.weight", ".proj_out.weight")


def unet_shapes(config: UNetConfig, kind: str) -> dict[str, tuple[int, ...]]:
    """Name → shape in a public U-Net of these settings; its 1-wide convolutions have one axis more than our linear layers."""
    with torch.device("meta"):
        ours = FamilyUNet(config).state_dict()
    shapes = {public_name(name): tuple(tensor.shape) for name, tensor in ours.items()}
    if kind == "idiffface":
        del shapes["empty_context_embedding"]
    return {name: shape + (1,) * name.endswith(CONV1D) for name, shape in shapes.items()}


def vq_shapes(config: VQConfig) -> dict[str, tuple[int, ...]]:
    """Name → shape in a first stage of CompVis."""
    with torch.device("meta"):
        ours = VQAutoencoder(config).state_dict()
    shapes = {ldm_name(name, len(config.multipliers)): tuple(tensor.shape) for name, tensor in ours.items()}
    return {name: shape + (1, 1) * ("attn_1" in name and name.endswith(CONV2D)) for name, shape in shapes.items()}


def fill(shapes: dict[str, tuple[int, ...]], seed: int = 7) -> dict[str, Tensor]:
    """Random values in the order of the names, as benchmarks/parity.py gives them to the public networks (RandomState never changes)."""
    rng, filled = np.random.RandomState(seed), {}
    for name in sorted(shapes):
        values = torch.from_numpy(rng.standard_normal(shapes[name]).astype(np.float32))
        fan_in = torch.Size(shapes[name][1:]).numel()
        matrix = len(shapes[name]) > 1 and fan_in > 1
        filled[name] = values * 1.2 * fan_in**-0.5 if matrix else 0.3 * values + (len(shapes[name]) == 1 and name.endswith("weight"))
    return filled


def rows(count: int, *shape: int, seed: int) -> Tensor:
    """Standard normal float32 numbers."""
    return torch.from_numpy(np.random.RandomState(seed).standard_normal((count, *shape)).astype(np.float32))


def pins(x: Tensor) -> list[float]:
    """Eight values spread over a tensor."""
    flat = x.flatten()
    return flat[:: len(flat) // 8][:8].tolist()


def listing(shapes: dict[str, tuple[int, ...]]) -> str:
    """What the pinned digests of the public key lists are of."""
    return "\n".join(f"{name} {shape}" for name, shape in sorted(shapes.items()))


def write_denoiser(path: Path, kind: str = "uiface", config: UNetConfig = TINY, prefix: str = "module.eps_model.") -> dict[str, Tensor]:
    """Write a checkpoint with the wrappers and the schedule's buffers; return the bare tensors."""
    tensors = fill(unet_shapes(config, kind))
    outer = prefix.removesuffix("eps_model.")
    torch.save({prefix + name: tensor for name, tensor in tensors.items()} | {outer + "betas": torch.zeros(1000), outer + "alpha_bars": torch.ones(1000)}, path)
    return tensors
