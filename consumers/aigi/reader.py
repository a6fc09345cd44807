"""The embedded reader: a short transformer that answers "fake?" after the tokens, where the paper has a frozen language model.

It tests the adapter, not the paper's claim about language models: it is small and trained with the adapter. Axes: B images, T tokens, D width.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from ...core.config import Config
from .semantic import encoder_layer
from .tranx import CrossLayer, entropy_share


class ReaderConfig(Config):
    """Width of the tokens, layers over them all, heads."""

    dim: int = Field(64, ge=8)
    layers: int = Field(1, ge=0)
    heads: int = Field(4, ge=1)


class Reader(nn.Module):
    """forward((B, T, D)) → (logit of "fake" (B,), attention of the answer over the tokens (B, heads, T))."""

    def __init__(self, config: ReaderConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(encoder_layer(config.dim, config.heads) for _ in range(config.layers))
        self.answer = nn.Parameter(0.02 * torch.randn(1, 1, config.dim))
        self.look = CrossLayer(config.dim, config.heads)
        self.norm, self.out = nn.RMSNorm(config.dim), nn.Linear(config.dim, 1)

    def forward(self, token_BTD: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            token_BTD = layer(token_BTD)
        answer_B1D = self.answer.expand(len(token_BTD), -1, -1)
        weight_BHT = self.look.attention.weights(self.look.norm_query(answer_B1D), self.look.norm_token(token_BTD))[:, :, 0]
        return self.out(self.norm(self.look(answer_B1D, token_BTD)))[:, 0, 0], weight_BHT


def artifact_entropy(weight_BHT: Tensor, artifacts: int) -> Tensor:
    """Dilution gauge: entropy of the attention that falls on the artifact tokens over ln N, mean of the heads, (B,)."""
    return entropy_share(weight_BHT[..., :artifacts].clamp(min=1e-12)).mean(1)
