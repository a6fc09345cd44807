"""The denoiser of MorphFace: the family U-Net with two conditions, identity and style, side by side in cross-attention (generators.md §3.2 [C]).

Axes: B rows, D identity context, S style, L positions, T tokens, C channels, N heads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from typing_extensions import Self

from ..core.config import Config
from ..core.weights import load_into, load_weights
from .attention import AttentionControl, ContextAttention, recalled, zeroed
from .cache import FeatureCache
from .style_encoder import StyleEncoder, StyleEncoderConfig, unpack_maps
from .unet import FamilyUNet, UNetConfig

KIND = "morphface-denoiser"


class StylePath(Config):
    """How the style enters; the defaults are the size of the published family.

    Attributes:
        encoder: of the style.
        style_tokens: tokens a block makes of the style.
        token_dim: width of a style token; 0 = that of the identity's tokens.
        meeting: "joint": identity and style tokens share one softmax, keys and values, as in DCFace. "parallel": the same queries, but a softmax, keys
            and values for each kind, their results added (as IP-Adapter, Ye et al. 2023); the style's values start at 0, so that a network warm
            started from a plain denoiser begins as the function it was, which one more token in a shared softmax would change.
    """

    encoder: StyleEncoderConfig = StyleEncoderConfig()
    style_tokens: int = Field(32, ge=1)
    token_dim: int = Field(0, ge=0)
    meeting: Literal["joint", "parallel"] = "joint"


class MorphFaceNetworkConfig(StylePath):
    """What the network is made of: the U-Net with its identity path, and the style path."""

    unet: UNetConfig

    @model_validator(mode="after")
    def _one_width(self) -> Self:
        if self.meeting == "joint" and self.token_dim not in (0, self.unet.context_dim):
            raise ValueError(f"token_dim is {self.token_dim}: with 'meeting: joint' style tokens are as wide as the identity's ({self.unet.context_dim}); set it to 0, or 'meeting: parallel'")
        return self


class MorphFaceNetwork(nn.Module):
    """ε_θ(z_t, t, c_id, c_sty): as `FamilyUNet`, whose context is here the identity's and the style, end to end, (B, D + S).

    With `context_in_time` the style is added to the time embedding too, through a layer that starts at 0.
    """

    def __init__(self, config: MorphFaceNetworkConfig) -> None:
        super().__init__()
        self.config = config
        self.unet = FamilyUNet(config.unet)
        self.encoder = StyleEncoder(config.encoder)
        self.empty_style = nn.Parameter(torch.randn(config.encoder.style_dim))
        for block in list(self.unet.modules()):
            if isinstance(getattr(block, "attention", None), ContextAttention):
                block.attention = StyledAttention(block.attention.project_in.in_channels, config)
        if self.unet.context_to_time is not None:
            self.unet.context_to_time = TimeOfBoth(self.unet.context_to_time, config.encoder.style_dim)

    def embed_context(self, identity_BD: Tensor, no_identity_B: Tensor, maps_B9HW: Tensor, no_style_B: Tensor) -> Tensor:
        """Unit identities and style maps (float, or `style_encoder.pack_maps`) → contexts; the two masks (bool) choose rows with an empty one."""
        style_BS = self.encoder(unpack_maps(maps_B9HW))
        style_BS = torch.where(no_style_B[:, None], self.empty_style.to(style_BS.dtype), style_BS)
        return self.join(self.unet.embed_context(identity_BD, no_identity_B), style_BS)

    def join(self, identity_BD: Tensor, style_BS: Tensor) -> Tensor:
        """Contexts of identities (`unet.embed_context`, `unet.empty_rows`) and styles (`encoder`, `empty_styles`) → contexts of both."""
        return torch.cat([identity_BD, style_BS.to(identity_BD.dtype)], 1)

    def empty_styles(self, count: int) -> Tensor:
        """Return the empty style for `count` rows, (count, S)."""
        return self.empty_style.expand(count, -1)

    def forward(self, latent_BCHW: Tensor, t_B: Tensor, context_BD: Tensor, control: AttentionControl | None = None, cache: FeatureCache | None = None) -> Tensor:
        return self.unet(latent_BCHW, t_B, context_BD, control, cache)


class StyledAttention(ContextAttention):
    """`ContextAttention` to the tokens of identity and style; names of layers as there, so that plain weights fit."""

    def __init__(self, channels: int, config: MorphFaceNetworkConfig) -> None:
        unet = config.unet
        super().__init__(channels, unet.context_dim, unet.tokens, unet.head_dim, unet.groups)
        self._identity_dim, self._joint = unet.context_dim, config.meeting == "joint"
        width = config.token_dim or unet.context_dim
        self.style = StyleTokens(config.encoder.style_dim, config.style_tokens, width, 0 if self._joint else channels, unet.head_dim)

    def keys_and_values(self, context_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D + S) contexts → keys and values, (B, N, T, H) each, of the tokens under the first softmax: both kinds where they meet "joint", else the identity's."""
        identity_BTD = self.context_tokens(context_BD[:, : self._identity_dim])
        if not self._joint:
            return self.cross_attention.keys_and_values(identity_BTD)
        return self.cross_attention.keys_and_values(torch.cat([identity_BTD, self.style.tokens(context_BD)], 1))

    def cross(self, x_BLC: Tensor, context_BD: Tensor, control: AttentionControl | None) -> Tensor:
        """What the tokens of both kinds add at each position, (B, L, C); in "parallel" the style's have a softmax of their own."""
        beside = None if self._joint else recalled(self.style, context_BD, control)
        return self.cross_attention.over_tokens(x_BLC, *recalled(self, context_BD, control), control, beside)


class StyleTokens(nn.Module):
    """The style's end of a context → tokens; and, with `channels`, keys and values of its own, the latter 0 at first."""

    def __init__(self, style_dim: int, tokens: int, width: int, channels: int, head_dim: int) -> None:
        super().__init__()
        self._style_dim, self._tokens, self._head_dim = style_dim, tokens, head_dim
        self.to_tokens = nn.Linear(style_dim, tokens * width)
        self.norm = nn.LayerNorm(width)
        self.key = nn.Linear(width, channels) if channels else None
        self.value = zeroed(nn.Linear(width, channels)) if channels else None

    def tokens(self, context_BD: Tensor) -> Tensor:
        """(B, D + S) context → (B, T, width) normalised tokens of its style."""
        return self.norm(self.to_tokens(context_BD[:, -self._style_dim :]).unflatten(1, (self._tokens, -1)))

    def keys_and_values(self, context_BD: Tensor) -> tuple[Tensor, Tensor]:
        """(B, D + S) context → keys and values, (B, N, T, H) each."""
        tokens_BTW = self.tokens(context_BD)
        key_BTC, value_BTC = self.key(tokens_BTW), self.value(tokens_BTW)
        return tuple(x.unflatten(2, (-1, self._head_dim)).transpose(1, 2) for x in (key_BTC, value_BTC))


class TimeOfBoth(nn.Linear):
    """The layer that adds the identity's context to the time embedding, and beside it one for the style that starts at 0."""

    def __init__(self, identity: nn.Linear, style_dim: int) -> None:
        super().__init__(identity.in_features, identity.out_features)
        self.load_state_dict(identity.state_dict())
        self.style = zeroed(nn.Linear(style_dim, identity.out_features, bias=False))

    def forward(self, context_BD: Tensor) -> Tensor:
        return super().forward(context_BD[:, : self.in_features]) + self.style(context_BD[:, self.in_features :])


def load_morphface(path: Path) -> tuple[MorphFaceNetwork, dict[str, Any]]:
    """Return the network in evaluation mode and the facts of its file."""
    tensors, config, facts = load_weights(path, kind=KIND)
    network = MorphFaceNetwork(MorphFaceNetworkConfig.parse(config, source=str(path)))
    load_into(network, tensors, path)
    return network.eval(), facts
