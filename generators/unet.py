"""The IDiff-Face family U-Net: noisy latent, time and identity context in, predicted noise out.

Structure from generators.md §0.2 (IDiff-Face, ICCV 2023; UIFace, ICLR 2025). With the published settings it has 216,341,187
parameters (plus 256 for a learnable empty context); the bundled small network is the same class with other widths.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from pydantic import model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.config import Config
from ..core.weights import load_into, load_weights
from .attention import AttentionControl, ContextAttention, zeroed
from .cache import FeatureCache
from .prediction import Prediction


class UNetConfig(Config):
    """Widths and depth; the defaults are the published network.

    Attributes:
        multipliers: each multiplies the width of the level before (cumulative).
        blocks: residual blocks a level on the way down; one more on the way up.
        identity_dim: length of the identity embedding.
        context_dim: length of the shared context vector.
        tokens: context tokens a block makes of the context vector.
        context_dropout: contextual partial dropout (IDiff-Face): components of the context zeroed in training.
        identity_scale: factor on the unit identity embeddings; √identity_dim brings their components to variance 1, without which the
            biases drown them and the identity is learnt late (1, the published network's reading, is the default).
        context_in_time: also add the context to the time embedding, as the AdaGN variant of the same code base does.
        prediction: what the last layer says (generators.prediction): the noise ε, v or flow, from which ε follows. v and flow keep
            errors at high noise from being multiplied by 1/√ᾱ (128 at t = 980), which a short training in bfloat16 does not survive.
    """

    channels: int = 3
    width: int = 96
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    attention: tuple[bool, ...] = (False, True, True, True)
    blocks: int = 2
    head_dim: int = 32
    groups: int = 32
    identity_dim: int = 512
    context_dim: int = 256
    tokens: int = 32
    context_dropout: float = 0.25
    identity_scale: float = 1.0
    context_in_time: bool = False
    prediction: Prediction = "epsilon"

    @model_validator(mode="after")
    def _one_attention_a_level(self) -> Self:
        if len(self.attention) != len(self.multipliers) or not self.multipliers:
            raise ValueError(f"{len(self.multipliers)} multipliers and {len(self.attention)} attention entries: expected one of each for every level")
        return self


class FamilyUNet(nn.Module):
    """ε_θ(z_t, t, c): (B, channels, H, W), H and W divisible by 2^(levels-1) → the same shape."""

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config = config
        time_dim = 4 * config.width
        self.stem = nn.Conv2d(config.channels, config.width, 3, padding=1)
        self.time = nn.Sequential(nn.Linear(config.width, time_dim), nn.SiLU(), nn.Linear(time_dim, time_dim))
        self.context = nn.Linear(config.identity_dim, config.context_dim)
        self.context_dropout = nn.Dropout(config.context_dropout)
        self.context_to_time = zeroed(nn.Linear(config.context_dim, time_dim)) if config.context_in_time else None
        self.empty_context = nn.Parameter(torch.randn(config.context_dim))

        def stage(c_in: int, c_out: int, attend: bool) -> Stage:
            return Stage(c_in, c_out, time_dim, config if attend else None, config.groups)

        width, self.down, self.up = config.width, nn.ModuleList(), nn.ModuleList()
        for level, (factor, attend) in enumerate(zip(config.multipliers, config.attention)):
            for _ in range(config.blocks):
                self.down.append(stage(width, width := width * factor, attend))
                factor = 1
            if level < len(config.multipliers) - 1:
                self.down.append(nn.Conv2d(width, width, 3, stride=2, padding=1))
        self.middle = Middle(width, time_dim, config)
        for level, (factor, attend) in reversed(list(enumerate(zip(config.multipliers, config.attention)))):
            for _ in range(config.blocks):
                self.up.append(stage(2 * width, width, attend))
            self.up.append(stage(width + width // factor, width := width // factor, attend))
            if level:
                self.up.append(nn.ConvTranspose2d(width, width, 4, stride=2, padding=1))
        self.norm_out = nn.GroupNorm(config.groups, width)
        self.conv_out = zeroed(nn.Conv2d(width, config.channels, 3, padding=1))

    def embed_context(self, identity_BD: Tensor, drop_B: Tensor | None = None) -> Tensor:
        """Identity embeddings (B, identity_dim) → context (B, context_dim); rows of `drop_B` become the empty context.

        The empty context does not pass through the dropout (UIFace, §2.1 of generators.md).
        """
        context_BD = self.context_dropout(self.context(identity_BD * self.config.identity_scale))
        if drop_B is None:
            return context_BD
        return torch.where(drop_B[:, None], self.empty_context.to(context_BD.dtype), context_BD)

    def empty_rows(self, count: int) -> Tensor:
        """Return the empty context for `count` rows, (count, context_dim)."""
        return self.empty_context.expand(count, -1)

    def forward(self, latent_BCHW: Tensor, t_B: Tensor, context_BD: Tensor, control: AttentionControl | None = None, cache: FeatureCache | None = None) -> Tensor:
        time_BD = self.time(sinusoid(t_B, self.config.width).to(self.stem.weight.dtype))
        if self.context_to_time is not None:
            time_BD = time_BD + self.context_to_time(context_BD)
        up, cut = list(self.up), 0 if cache is None else cache.cut(self.up)
        shallow = cache is not None and cache.deep is not None
        x = self.stem(latent_BCHW)
        skips = [x]
        for layer in list(self.down)[: cache.live - 1] if shallow else self.down:
            x = layer(x, time_BD, context_BD, control) if isinstance(layer, Stage) else layer(x)
            skips.append(x)

        def decode(layers: list[nn.Module], x: Tensor) -> Tensor:
            for layer in layers:
                x = layer(torch.cat([x, skips.pop()], 1), time_BD, context_BD, control) if isinstance(layer, Stage) else layer(x)
            return x

        x = cache.deep if shallow else decode(up[:cut], self.middle(x, time_BD, context_BD, control))
        if cache is not None:
            cache.deep = x
        return self.conv_out(nn.functional.silu(self.norm_out(decode(up[cut:], x))))


def load_denoiser(path: Path) -> FamilyUNet:
    """Load a denoiser's weights file (kind "denoiser"), float32 on the CPU."""
    tensors, config, _ = load_weights(path, kind="denoiser")
    network = FamilyUNet(UNetConfig.parse(config, source=str(path)))
    load_into(network, tensors, path)
    return network


class Stage(nn.Module):
    """A residual block and, where `attend` is given, an attention block."""

    def __init__(self, c_in: int, c_out: int, time_dim: int, attend: UNetConfig | None, groups: int) -> None:
        super().__init__()
        self.residual = Residual(c_in, c_out, time_dim, groups)
        self.attention = _attention(c_out, attend) if attend is not None else None

    def forward(self, x: Tensor, time_BD: Tensor, context_BD: Tensor, control: AttentionControl | None) -> Tensor:
        x = self.residual(x, time_BD)
        return x if self.attention is None else self.attention(x, context_BD, control)


class Middle(nn.Module):
    """Residual block, attention, residual block at the lowest resolution."""

    def __init__(self, width: int, time_dim: int, config: UNetConfig) -> None:
        super().__init__()
        self.first = Residual(width, width, time_dim, config.groups)
        self.attention = _attention(width, config)
        self.second = Residual(width, width, time_dim, config.groups)

    def forward(self, x: Tensor, time_BD: Tensor, context_BD: Tensor, control: AttentionControl | None) -> Tensor:
        return self.second(self.attention(self.first(x, time_BD), context_BD, control), time_BD)


class Residual(nn.Module):
    """GroupNorm–SiLU–conv, then adaptive GroupNorm from time only, SiLU and a zero-initialised conv."""

    def __init__(self, c_in: int, c_out: int, time_dim: int, groups: int) -> None:
        super().__init__()
        self.norm_in = nn.GroupNorm(groups, c_in)
        self.conv_in = nn.Conv2d(c_in, c_out, 3, padding=1)
        self.time = nn.Linear(time_dim, c_out)
        self.scale = nn.Linear(c_out, c_out)
        self.shift = nn.Linear(c_out, c_out)
        self.norm_out = nn.GroupNorm(groups, c_out)
        self.conv_out = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.shortcut = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, time_BD: Tensor) -> Tensor:
        time_BC = self.time(nn.functional.silu(time_BD))
        h = self.norm_out(self.conv_in(nn.functional.silu(self.norm_in(x))))
        h = (1 + self.scale(time_BC)[:, :, None, None]) * h + self.shift(time_BC)[:, :, None, None]
        return self.conv_out(nn.functional.silu(h)) + self.shortcut(x)


def sinusoid(t_B: Tensor, dim: int, max_period: float = 10_000.0) -> Tensor:
    """Time steps (B,) → (B, dim): dim/2 cosines, then dim/2 sines, float32."""
    frequency = torch.exp(-math.log(max_period) * torch.arange(dim // 2, device=t_B.device, dtype=torch.float32) / (dim // 2))
    angle = t_B.float()[:, None] * frequency
    return torch.cat([angle.cos(), angle.sin()], 1)


def _attention(channels: int, config: UNetConfig) -> ContextAttention:
    return ContextAttention(channels, config.context_dim, config.tokens, config.head_dim, config.groups)
