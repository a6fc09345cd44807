"""TranX-Adapter (ICML 2026): artifact and semantic tokens of an image fused in both directions before a language model, or our small reader, sees them.

Source: the authors' code (consumers.md §8), in our words; what the released file gets wrong is put right, and done as released with `release_compatible`:
probabilities that pass a second softmax, a cost divided by the maximum of the whole batch, transported features that shrink with the number of tokens. (Tokens
that are no places are in `artifact`, average precision from hard answers in `metrics`.) Axes: B images, M semantic tokens, N artifact tokens, D width, K inner.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ...core.check import check
from ...core.config import Config
from .sinkhorn import sinkhorn

_EDGE = 1e-7
"""Probabilities are kept so far from 0 and 1, where a logarithm's gradient ends."""


class TranXConfig(Config):
    """The adapter; defaults are the released ones.

    Attributes:
        inner: width of the bottleneck that everything passes.
        heads: of the cross-attention, `inner / heads` numbers each.
        layers: of X-Fusion.
        epsilon: entropy's weight against a cost in [0, 1].
        iterations, tolerance: of Sinkhorn.
        release_compatible: compute as the released file does, mistakes included: only for weights trained with it.
    """

    inner: int = Field(512, ge=1)
    heads: int = Field(8, ge=1)
    layers: int = Field(3, ge=1)
    epsilon: float = Field(0.1, gt=0)
    iterations: int = Field(1000, ge=10)
    tolerance: float = Field(1e-9, gt=0)
    release_compatible: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Fused:
    """What the adapter makes of an image's tokens.

    Attributes:
        artifact_BND, semantic_BMD: the enriched tokens.
        plan_BMN: transport plan.
        cost_B: <Γ, C>, the mean cost of what is moved (logged, not a loss).
    """

    artifact_BND: Tensor
    semantic_BMD: Tensor
    plan_BMN: Tensor
    cost_B: Tensor


def js_cost(semantic_BM: Tensor, artifact_BN: Tensor) -> Tensor:
    """Jensen-Shannon divergence between two-class predictions, in nats, (B, M, N): symmetric, 0 where equal, at most ln 2.

    Args:
        semantic_BM, artifact_BN: probabilities of "fake".
    """
    s_BM1, a_B1N = semantic_BM.clamp(_EDGE, 1 - _EDGE)[:, :, None], artifact_BN.clamp(_EDGE, 1 - _EDGE)[:, None]
    mean_BMN = (s_BM1 + a_B1N) / 2
    return (_entropy(mean_BMN) - (_entropy(s_BM1) + _entropy(a_B1N)) / 2).clamp(min=0.0)


def transport_cost(semantic_logit_BM: Tensor, artifact_logit_BN: Tensor, *, release_compatible: bool = False) -> Tensor:
    """Cost in [0, 1] between tokens by what their heads say of them, (B, M, N) float64: the divergence over each image's own largest."""
    # float64: predictions that are close together have divergences that float32 drowns in rounding, and the division brings that to size.
    s_BM, a_BN = semantic_logit_BM.double().sigmoid(), artifact_logit_BN.double().sigmoid()
    if not release_compatible:
        cost_BMN = js_cost(s_BM, a_BN)
        return cost_BMN / cost_BMN.amax((1, 2), keepdim=True).clamp(min=torch.finfo(cost_BMN.dtype).tiny)
    # As released: softmax of (p, 1 - p), i.e. sigmoid(2p - 1), and one maximum for all images of the batch.
    cost_BMN = js_cost((2 * s_BM - 1).sigmoid(), (2 * a_BN - 1).sigmoid())
    return cost_BMN / cost_BMN.amax().clamp(min=torch.finfo(cost_BMN.dtype).tiny)


def transported(plan_BMN: Tensor, value_BNK: Tensor, *, release_compatible: bool = False) -> Tensor:
    """Carry artifact features to the semantic tokens, (B, M, K): each token the mean of what comes to it; as released: that over M."""
    moved_BMK = plan_BMN @ value_BNK
    return moved_BMK if release_compatible else moved_BMK * plan_BMN.shape[1]


class TransportFusion(nn.Module):
    """Artifact → semantic: S' = W_out (W_S S + W_sh (Γ W_A A)); nothing of S goes round the bottleneck."""

    def __init__(self, dim: int, config: TranXConfig) -> None:
        super().__init__()
        self.config = config
        self.semantic, self.artifact = nn.Linear(dim, config.inner), nn.Linear(dim, config.inner)
        self.shared, self.out = nn.Linear(config.inner, config.inner), nn.Linear(config.inner, dim)

    def forward(self, artifact_BND: Tensor, semantic_BMD: Tensor, artifact_logit_BN: Tensor, semantic_logit_BM: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return (S', plan, cost of the plan (B,))."""
        config = self.config
        cost_BMN = transport_cost(semantic_logit_BM, artifact_logit_BN, release_compatible=config.release_compatible)
        plan_BMN = sinkhorn(cost_BMN, epsilon=config.epsilon, iterations=config.iterations, tolerance=config.tolerance)
        moved_BMK = transported(plan_BMN.to(artifact_BND.dtype), self.artifact(artifact_BND), release_compatible=config.release_compatible)
        return self.out(self.semantic(semantic_BMD) + self.shared(moved_BMK)), plan_BMN, (plan_BMN * cost_BMN).sum((1, 2)).to(artifact_BND.dtype)


class CrossAttention(nn.Module):
    """Multi-head attention of queries over other tokens, (B, Q, K) × (B, T, K) → (B, Q, K)."""

    def __init__(self, inner: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key_value, self.out = nn.Linear(inner, inner, bias=False), nn.Linear(inner, 2 * inner, bias=False), nn.Linear(inner, inner, bias=False)

    def forward(self, query_BQK: Tensor, token_BTK: Tensor) -> Tensor:
        query, key, value = (self.split(x) for x in (self.query(query_BQK), *self.key_value(token_BTK).chunk(2, 2)))
        return self.out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))

    def weights(self, query_BQK: Tensor, token_BTK: Tensor) -> Tensor:
        """Return the attention itself, (B, heads, Q, T)."""
        query, key = self.split(self.query(query_BQK)), self.split(self.key_value(token_BTK).chunk(2, 2)[0])
        return (query @ key.mT / math.sqrt(query.shape[-1])).softmax(-1)

    def split(self, x_BTK: Tensor) -> Tensor:
        """(B, T, K) → (B, heads, T, K / heads)."""
        return x_BTK.unflatten(2, (self.heads, -1)).transpose(1, 2)


class CrossLayer(nn.Module):
    """Pre-RMSNorm cross-attention and a GELU network four times as wide, both residual."""

    def __init__(self, inner: int, heads: int) -> None:
        super().__init__()
        self.norm_query, self.norm_token, self.norm_wide = nn.RMSNorm(inner), nn.RMSNorm(inner), nn.RMSNorm(inner)
        self.attention = CrossAttention(inner, heads)
        self.wide = nn.Sequential(nn.Linear(inner, 4 * inner), nn.GELU(), nn.Linear(4 * inner, inner))

    def forward(self, query_BQK: Tensor, token_BTK: Tensor) -> Tensor:
        query_BQK = query_BQK + self.attention(self.norm_query(query_BQK), self.norm_token(token_BTK))
        return query_BQK + self.wide(self.norm_wide(query_BQK))


class XFusion(nn.Module):
    """Queries of one kind read the tokens of the other: A' = W_out X(A, S)."""

    def __init__(self, dim: int, config: TranXConfig) -> None:
        super().__init__()
        self.query, self.token = nn.Linear(dim, config.inner), nn.Linear(dim, config.inner)
        self.layers = nn.ModuleList(CrossLayer(config.inner, config.heads) for _ in range(config.layers))
        self.norm, self.out = nn.RMSNorm(config.inner), nn.Linear(config.inner, dim)

    def forward(self, query_BQD: Tensor, token_BTD: Tensor) -> Tensor:
        query, token = self.query(query_BQD), self.token(token_BTD)
        for layer in self.layers:
            query = layer(query, token)
        return self.out(self.norm(query))


class TranX(nn.Module):
    """Both directions.

    Args:
        dim: D, the width of both kinds of tokens: the language model's, or the reader's.
    """

    def __init__(self, dim: int, config: TranXConfig) -> None:
        super().__init__()
        self.config = config
        self.transport, self.cross = TransportFusion(dim, config), XFusion(dim, config)

    def forward(self, artifact_BND: Tensor, semantic_BMD: Tensor, artifact_logit_BN: Tensor, semantic_logit_BM: Tensor) -> Fused:
        sizes = check("artifact_BND", artifact_BND, "B N D")
        check("semantic_BMD", semantic_BMD, f"{sizes['B']} M {sizes['D']}")
        check("artifact_logit_BN", artifact_logit_BN, f"{sizes['B']} {sizes['N']}")
        check("semantic_logit_BM", semantic_logit_BM, f"{sizes['B']} {semantic_BMD.shape[1]}")
        moved_BMD, plan_BMN, cost_B = self.transport(artifact_BND, semantic_BMD, artifact_logit_BN, semantic_logit_BM)
        return Fused(artifact_BND=self.cross(artifact_BND, semantic_BMD), semantic_BMD=moved_BMD, plan_BMN=plan_BMN, cost_B=cost_B)


def entropy_share(weight_BT: Tensor) -> Tensor:
    """Entropy of attention rows over its largest value ln T, (B, ...): 1 = spread evenly, the paper's dilution; rows are normalised first."""
    share = weight_BT / weight_BT.sum(-1, keepdim=True)
    return -torch.xlogy(share, share).sum(-1) / math.log(weight_BT.shape[-1])


def _entropy(p: Tensor) -> Tensor:
    """Entropy of (p, 1 - p) in nats."""
    return -(p * p.log() + (1 - p) * (1 - p).log())
