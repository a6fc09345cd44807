"""How artifact and semantic tokens become the sequence that is read: TranX, and what its claim is measured against.

Axes: B images, M semantic tokens, N artifact tokens, T tokens of the sequence, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from .tranx import TranX, TranXConfig, XFusion

FusionName = Literal["tranx", "cross_attention", "concatenation", "artifact"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Joined:
    """What is read.

    Attributes:
        token_BTD: artifact tokens first.
        artifacts: how many of them are artifact tokens.
        cost_B: mean cost of the transport, where there is one.
    """

    token_BTD: Tensor
    artifacts: int
    cost_B: Tensor | None = None


class Fusion(nn.Module):
    """One of four.

    tranx: transport one way, cross-attention back. cross_attention: cross-attention both ways (`XFusion` twice, of as many layers each). concatenation: the
    projected tokens side by side. artifact: artifact tokens alone.
    """

    def __init__(self, name: FusionName, dim: int, config: TranXConfig) -> None:
        super().__init__()
        self.name = name
        self.adapter: nn.Module = nn.Identity()
        if name == "tranx":
            self.adapter = TranX(dim, config)
        elif name == "cross_attention":
            self.adapter = nn.ModuleList((XFusion(dim, config), XFusion(dim, config)))

    def forward(self, artifact_BND: Tensor, semantic_BMD: Tensor, artifact_logit_BN: Tensor, semantic_logit_BM: Tensor) -> Joined:
        count, cost_B = artifact_BND.shape[1], None
        if self.name == "artifact":
            return Joined(token_BTD=artifact_BND, artifacts=count)
        if self.name == "tranx":
            fused = self.adapter(artifact_BND, semantic_BMD, artifact_logit_BN, semantic_logit_BM)
            artifact_BND, semantic_BMD, cost_B = fused.artifact_BND, fused.semantic_BMD, fused.cost_B
        elif self.name == "cross_attention":
            to_semantic, to_artifact = self.adapter
            artifact_BND, semantic_BMD = to_artifact(artifact_BND, semantic_BMD), to_semantic(semantic_BMD, artifact_BND)
        return Joined(token_BTD=torch.cat((artifact_BND, semantic_BMD), 1), artifacts=count, cost_B=cost_B)
