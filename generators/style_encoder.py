"""The style encoder: rendered maps of a head in, one short vector out.

Convolutions and one linear layer, as the second-hand accounts of MorphFace (CVPR 2025) say [S]; sizes are a choice [C] (generators.md §3.2). The
vector is short on purpose: what a render knows of the person should not pass.
Axes: B heads, 9 map channels (`NORMAL`, `ALBEDO`, `SHADED`), H W, S style.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from ..core.check import check
from ..core.config import Config

NORMAL, ALBEDO, SHADED = slice(0, 3), slice(3, 6), slice(6, 9)
"""Channels of the maps: unit normals in camera axes, albedo and its Lambertian render as RGB in [-1, 1]; 0 where there is no head."""

CHANNELS = 9
_GROUP = 16  # channels a group norm takes together at most


class StyleEncoderConfig(Config):
    """What the encoder is made of; the defaults go with the published network.

    Attributes:
        size_px: side of the maps.
        widths: output channels of the stages, each of which halves the side.
        style_dim: numbers of a style.
        dropout: share of a style's numbers zeroed in training, as with the identity's context.
        mean_person: show every head with the mean head's shape and albedo, so that neither can tell who it is.
    """

    size_px: int = Field(112, ge=8)
    widths: tuple[int, ...] = (32, 64, 128, 256, 256)
    style_dim: int = Field(256, ge=1)
    dropout: float = Field(0.25, ge=0, lt=1)
    mean_person: bool = False

    @field_validator("widths")
    @classmethod
    def _whole_groups(cls, widths: tuple[int, ...]) -> tuple[int, ...]:
        bad = [width for width in widths if width < 1 or width % min(width, _GROUP)]
        if bad or not widths:
            raise ValueError(f"widths {list(widths)}: expected at least one, each below {_GROUP} or a multiple of it")
        return widths


class StyleEncoder(nn.Module):
    """(B, 9, size, size) maps → (B, style_dim)."""

    def __init__(self, config: StyleEncoderConfig) -> None:
        super().__init__()
        self.config = config
        ins = (CHANNELS, *config.widths)
        self.stages = nn.Sequential(*(_stage(c_in, c_out) for c_in, c_out in zip(ins, config.widths)))
        side = config.size_px
        for _ in config.widths:
            side = math.ceil(side / 2)
        self.linear = nn.Linear(config.widths[-1] * side**2, config.style_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, maps_B9HW: Tensor) -> Tensor:
        weight = self.linear.weight
        return self.dropout(self.linear(self.stages(maps_B9HW.to(weight.dtype)).flatten(1)))


def mirrored_maps(maps_B9HW: Tensor) -> Tensor:
    """Return the maps of the mirror images: columns in reverse, the normals' x with the other sign."""
    turned = maps_B9HW.flip(-1)
    turned[:, 0] = -turned[:, 0]
    return turned


def pack_maps(maps_B9HW: np.ndarray) -> np.ndarray:
    """Maps in [-1, 1] → int8, a quarter of the memory; 0 stays 0, another value moves by at most 1/254."""
    check("maps_B9HW", maps_B9HW, f"B {CHANNELS} S S", lo=-1.001, hi=1.001)
    return np.round(np.clip(maps_B9HW, -1, 1) * 127).astype(np.int8)


def unpack_maps(packed_B9HW: Tensor) -> Tensor:
    """What `pack_maps` made → float32 maps; maps that are not packed come back as they are."""
    return packed_B9HW.float() / 127 if packed_B9HW.dtype == torch.int8 else packed_B9HW


def _stage(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(c_in, c_out, 3, stride=2, padding=1), nn.GroupNorm(c_out // min(c_out, _GROUP), c_out), nn.SiLU())
