"""Face attributes as a condition: their names and units, the vector a network reads, and the law they are drawn from.

ID³ (NeurIPS 2024) conditions on age and pose angles; how they enter the network is not published [C, generators.md §1.3]: here
a Linear-ReLU-Linear of the scaled values and of flags that say which are unknown, added to the identity's context.
Axes: N images, B rows of a batch, A attributes, D context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.check import check
from ..core.seeds import numpy_rng
from ..identity.mixture import Mixture, fit_mixture
from .attention import zeroed

SCALES = {"age_years": 100.0, "yaw_deg": 90.0, "pitch_deg": 90.0, "roll_deg": 90.0, "similarity": 1.0}
"""Every attribute a network can be conditioned on, and what its value is divided by. `similarity` is CemiFace's target cosine."""

LOWEST = {"age_years": 0.0}
"""Where the range is not symmetric about 0."""

MIRRORED = ("yaw_deg", "roll_deg")
"""Attributes that change their sign in the mirror image."""

_COMPONENTS, _SHRINK = 4, 0.1
_KNOWN_SHARE = 0.5


class AttributeEmbedding(nn.Module):
    """Attributes (B, A), NaN = unknown → (B, D), zero at first: a network that gains it starts as the function it was.

    Attributes:
        empty: what rows without attributes add, learnable, (D,).
    """

    def __init__(self, names: Sequence[str], width: int, context_dim: int) -> None:
        super().__init__()
        self.names = tuple(names)
        self.layers = nn.Sequential(nn.Linear(2 * len(self.names), width), nn.ReLU(), zeroed(nn.Linear(width, context_dim)))
        self.empty = nn.Parameter(torch.zeros(context_dim))

    def forward(self, attribute_BA: Tensor, drop_B: Tensor | None = None) -> Tensor:
        """Embed attributes in their own units; rows of `drop_B` (bool) become the empty one."""
        weight = self.layers[0].weight
        scale_A = torch.tensor([SCALES[name] for name in self.names], device=attribute_BA.device)
        unknown_BA = attribute_BA.isnan()
        value_BA = (attribute_BA / scale_A).masked_fill(unknown_BA, 0.0)
        context_BD = self.layers(torch.cat([value_BA, unknown_BA], 1).to(weight.dtype))
        return context_BD if drop_B is None else torch.where(drop_B[:, None], self.empty.to(context_BD.dtype), context_BD)


@dataclass(frozen=True, kw_only=True)
class AttributeLaw:
    """The joint law of the attributes of a training set, from which those of new images are drawn, independently of identity (§1.5 [C]).

    Attributes:
        names: of the known attributes.
        mixture: of their scaled values (`SCALES`); a few Gaussians, so that no row of the training set travels.
    """

    names: tuple[str, ...]
    mixture: Mixture

    def draw(self, seeds: Sequence[int], names: Sequence[str]) -> np.ndarray:
        """Return attributes for images, (B, len(names)) float32; NaN where the law knows none. Row i depends on seeds[i] alone."""
        drawn_BA = np.full((len(seeds), len(names)), np.nan, np.float32)
        scale_K = np.array([SCALES[name] for name in self.names])
        lowest_K = np.array([LOWEST.get(name, -SCALES[name]) for name in self.names])
        kept = [(names.index(name), k) for k, name in enumerate(self.names) if name in names]
        for row, seed in enumerate(seeds):
            value_K = (self.mixture.draw(numpy_rng(seed, "attributes"), 1)[0] * scale_K).clip(lowest_K, scale_K)
            for column, k in kept:
                drawn_BA[row, column] = value_K[k]
        return drawn_BA

    def document(self) -> dict[str, Any]:
        """Return the law as JSON takes it; `from_document` reads it back."""
        mixture = self.mixture
        return {"names": list(self.names), "weight": mixture.weight_K.tolist(), "mean": mixture.mean_KR.tolist(), "factor": mixture.factor_KRR.tolist()}

    @classmethod
    def from_document(cls, values: dict[str, Any]) -> AttributeLaw:
        """Read what `document` wrote."""
        weight_K, mean_KR, factor_KRR = (np.array(values[key], np.float64) for key in ("weight", "mean", "factor"))
        return cls(names=tuple(values["names"]), mixture=Mixture(weight_K=weight_K / weight_K.sum(), mean_KR=mean_KR, factor_KRR=factor_KRR))


def fit_law(attribute_NA: np.ndarray, names: Sequence[str], seed: int = 0) -> AttributeLaw | None:
    """Fit the law of the attributes known for at least half of the images, and of their mirror images; None where there is none.

    Args:
        attribute_NA: float32, (N, A), in the units of the names; NaN = unknown.
    """
    check("attribute_NA", attribute_NA, f"N {len(names)}")
    known = [name for a, name in enumerate(names) if np.isfinite(attribute_NA[:, a]).mean() >= _KNOWN_SHARE]
    scaled_NK = np.stack([attribute_NA[:, names.index(name)] / SCALES[name] for name in known], 1).astype(np.float64) if known else np.empty((0, 0))
    scaled_NK = scaled_NK[np.isfinite(scaled_NK).all(1)]
    if len(scaled_NK) < 2 * _COMPONENTS:
        return None
    both_NK = np.concatenate([scaled_NK, mirrored(scaled_NK, known)])
    return AttributeLaw(names=tuple(known), mixture=fit_mixture(both_NK, components=_COMPONENTS, shrink=_SHRINK, rng=numpy_rng(seed, "law")))


def mirrored(attribute_NA: np.ndarray, names: Sequence[str]) -> np.ndarray:
    """Return the attributes of the mirror images."""
    return attribute_NA * np.array([-1 if name in MIRRORED else 1 for name in names], attribute_NA.dtype)
