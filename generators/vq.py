"""The VQ-f4 first stage of latent diffusion (Rombach et al., CVPR 2022) as an autoencoder: what published UIFace and IDiff-Face weights need.

The network is diffusers' `VQModel`; this file gives it our 112×112 faces and reads the published checkpoints' names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ..core.checkpoints import Source, matched, source_facts
from ..core.config import Config
from ..core.errors import UserError
from ..core.weights import save_tensors
from .published import read_checkpoint
from .registry import AUTOENCODERS

SOURCE = Source(project="https://github.com/CompVis/latent-diffusion", licence="MIT (code; the weights' page names no other)", note="first stage of the ffhq256 model, or vq-f4")


@AUTOENCODERS.register("vq-f4")
class VQConfig(Config):
    """Widths and sizes; the defaults are the first stage of LDM's ffhq256.

    Attributes:
        width, multipliers: channels of the levels, width × multiplier each (not cumulative).
        blocks: residual blocks a level; one more on the way up.
        channels: latent channels before the 1×1 convolution into the codebook's space.
        codebook: (entries, length of an entry); the latent has the length of an entry as its channels.
        side: size in pixels at which the network works; faces are resized to it and back.
    """

    name: Literal["vq-f4"] = "vq-f4"
    width: int = 128
    multipliers: tuple[int, ...] = Field((1, 2, 4), min_length=1)
    blocks: int = 2
    channels: int = 3
    codebook: tuple[int, int] = (8192, 3)
    side: int = 128

    def build(self) -> VQAutoencoder:
        """Return the network with random weights."""
        return VQAutoencoder(self)


class VQAutoencoder(nn.Module):
    """Encoder without quantisation in, quantisation and decoder out; no rescaling of the latents (generators.md §0.1)."""

    def __init__(self, config: VQConfig) -> None:
        super().__init__()
        from diffusers import VQModel  # a second of imports, for those who use it

        self.config = config
        levels, (entries, entry_dim) = len(config.multipliers), config.codebook
        self.network = VQModel(
            down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
            block_out_channels=tuple(config.width * factor for factor in config.multipliers), layers_per_block=config.blocks,
            latent_channels=config.channels, num_vq_embeddings=entries, vq_embed_dim=entry_dim, sample_size=config.side,
        )  # fmt: skip
        side = config.side // 2 ** (levels - 1)
        self.latent_shape = (entry_dim, side, side)

    def encode(self, image_BCHW: Tensor) -> Tensor:
        """(B, 3, 112, 112) in [-1, 1] → (B, 3, 32, 32): what a denoiser is trained on, neither quantised nor scaled."""
        return self.network.encode(_resized(image_BCHW, self.config.side)).latents

    def decode(self, latent_BCHW: Tensor) -> Tensor:
        """(B, 3, 32, 32) → nearest codebook entries → (B, 3, 112, 112), clamped to [-1, 1] before it is resized."""
        return _resized(self.network.decode(latent_BCHW).sample.clamp(-1, 1), 112)


def import_first_stage(paths: Sequence[Path], out: Path, *, side: int = 128) -> dict[str, Any]:
    """Read the published first stage, write it as safetensors (kind "autoencoder") and return its facts.

    Args:
        paths: one file (a first-stage or a whole latent-diffusion checkpoint), or the encoder and the decoder of IDiff-Face's download.
        side: see `VQConfig`.

    Raises:
        UserError: a file cannot be read; keys are missing, unknown or misshapen (named); or two files hold the same tensor.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        part = first_stage_tensors(read_checkpoint(path))
        if twice := sorted(set(part) & set(tensors)):
            raise UserError(f"{path} holds tensors that the file before it has too ({twice[0]}): pass the encoder's and the decoder's file, or one whole checkpoint")
        tensors |= part
    config = infer_vq_config(tensors, paths[0], side)
    with torch.device("meta"):
        network = VQAutoencoder(config)
    converted = matched(network, tensors, lambda name: ldm_name(name, len(config.multipliers)), " and ".join(map(str, paths)))
    facts = {**source_facts("vq-f4", paths, SOURCE), "parameters": sum(tensor.numel() for tensor in converted.values())}
    save_tensors(out, converted, kind="autoencoder", config=config.model_dump(mode="json"), facts=facts)
    return facts


def first_stage_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pick the first stage out of a latent-diffusion checkpoint; drop the training loss (discriminator, LPIPS) that VQ files carry."""
    inside = {name.removeprefix("first_stage_model."): tensor for name, tensor in tensors.items() if name.startswith("first_stage_model.")}
    return {name: tensor for name, tensor in (inside or tensors).items() if not name.startswith(("loss.", "model_ema."))}


def infer_vq_config(tensors: Mapping[str, Tensor], path: Path, side: int = 128) -> VQConfig:
    """Read widths and depth off the shapes of a first stage with the names of CompVis.

    Raises:
        UserError: it is not a complete VQ first stage.
    """
    needed = ("encoder.conv_in.weight", "encoder.down.0.block.0.conv1.weight", "encoder.conv_out.weight", "decoder.conv_in.weight", "quant_conv.weight", "quantize.embedding.weight")
    if missing := [name for name in needed if name not in tensors or tensors[name].ndim < 2]:
        hint = "; it is one of two files: pass the encoder's and the decoder's together" if len(missing) < len(needed) else ""
        raise UserError(f"{path} is not a whole VQ first stage: {', '.join(missing)} missing{hint}")
    width = tensors["encoder.conv_in.weight"].shape[0]
    blocks = [re.fullmatch(r"encoder\.down\.(\d+)\.block\.(\d+)\.conv1\.weight", name) for name in tensors]
    widths = {int(found[1]): tensors[found[0]].shape[0] for found in blocks if found}
    depth = sum(found is not None for found in blocks) // len(widths)
    return VQConfig(
        width=width, multipliers=tuple(widths[level] // width for level in sorted(widths)), blocks=depth,
        channels=tensors["encoder.conv_out.weight"].shape[0], codebook=tuple(tensors["quantize.embedding.weight"].shape[:2]), side=side,
    )  # fmt: skip


RENAMED = [
    (r"^network\.", ""), (r"\.down_blocks\.", ".down."), (r"\.resnets\.(\d+)\.", r".block.\1."), (r"\.mid_block\.block\.0\.", ".mid.block_1."), (r"\.mid_block\.block\.1\.", ".mid.block_2."),
    (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."), (r"\.attn_1\.group_norm\.", ".attn_1.norm."), (r"\.to_([qkv])\.", r".\1."), (r"\.to_out\.0\.", ".proj_out."),
    (r"\.downsamplers\.0\.", ".downsample."), (r"\.upsamplers\.0\.", ".upsample."), (r"\.conv_shortcut\.", ".nin_shortcut."), (r"\.conv_norm_out\.", ".norm_out."),
]  # fmt: skip
"""diffusers' names of the first stage's tensors → those of CompVis, one pattern after the other."""


def ldm_name(name: str, levels: int) -> str:
    """Return what CompVis calls one of our tensors; their decoder counts its levels from the lowest resolution's end."""
    for pattern, theirs in RENAMED:
        name = re.sub(pattern, theirs, name)
    return re.sub(r"\.up_blocks\.(\d+)\.", lambda found: f".up.{levels - 1 - int(found[1])}.", name)


def _resized(image_BCHW: Tensor, side: int) -> Tensor:
    return F.interpolate(image_BCHW, (side, side), mode="bilinear")
