"""Anchors that push each other apart on the sphere and stay near faces (after HyperFace; formula generators.md §1.5 [C]).

E = τ/N Σ_i log Σ_{j≠i} exp(⟨w_i, w_j⟩ / τ) + α/N Σ_i min_k (1 - ⟨w_i, g_k⟩), minimised by steps along the sphere, each followed by w ← w/|w|.
With Z_i = Σ_{j≠i} exp(⟨w_i, w_j⟩/τ) the gradient is ∂E/∂w_i = 1/N (Σ_{j≠i} exp(⟨w_i, w_j⟩/τ) (1/Z_i + 1/Z_j) w_j - α g_{k(i)}): two sweeps over
tiles of cosines and no N×N matrix. A step costs 3 N² D multiply-adds, and N G D for a gallery of G rows.

Axes: N anchors, B rows of a block, C columns of a tile, G gallery, D embedding.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from ..core.check import check, check_unit_rows
from ..core.config import Config
from ..core.progress import bar

_ROWS, _COLUMNS = 1024, 4096


class Repulsion(Config):
    """How anchors are pushed apart.

    Attributes:
        steps: gradient steps.
        rate: length of a step for the gradient of one anchor's share, N ∂E/∂w_i.
        temperature: τ; the smaller, the more the nearest neighbour alone counts. Below 0.02 the exponentials leave float32.
        alpha: weight of the pull towards the nearest gallery row.
        gallery: rows of the gallery, drawn from the anchors' own source; sources that know of no faces (uniform) have none.
        spare: share of anchors drawn beyond those wanted, for those that end too near a real person or another anchor.
    """

    steps: int = Field(50, ge=1, le=10_000)
    rate: float = Field(0.1, gt=0, le=1)
    temperature: float = Field(0.05, ge=0.02, le=10)
    alpha: float = Field(0.5, ge=0)
    gallery: int = Field(4096, ge=0)
    spare: float = Field(0.05, ge=0, le=1)


@dataclass(frozen=True, kw_only=True)
class Repelled:
    """The result.

    Attributes:
        anchor_ND: unit float32, (N, D), in the order of the input.
        energy: E before each step and after the last, (steps + 1,).
    """

    anchor_ND: np.ndarray
    energy: tuple[float, ...]


def repel(anchor_ND: np.ndarray, gallery_GD: np.ndarray | None, config: Repulsion, *, device: torch.device = torch.device("cpu")) -> Repelled:
    """Push anchors apart.

    Args:
        anchor_ND: unit rows, N ≥ 2.
        gallery_GD: unit rows near which the anchors shall stay, or None.

    Raises:
        ValueError: fewer than two anchors, other widths, or rows that are not unit length.
    """
    check_unit_rows("anchor_ND", anchor_ND)
    if len(anchor_ND) < 2:
        raise ValueError(f"there is {len(anchor_ND)} anchor, expected two or more to push apart")
    gallery = None
    if gallery_GD is not None and len(gallery_GD):
        check("gallery_GD", gallery_GD, f"G {anchor_ND.shape[1]}")
        check_unit_rows("gallery_GD", gallery_GD)
        gallery = torch.as_tensor(gallery_GD, dtype=torch.float32, device=device)
    anchor = torch.as_tensor(anchor_ND, dtype=torch.float32).to(device)
    energies = []
    with bar("repulsion", config.steps) as step:
        for _ in range(config.steps):
            energy, slope = energy_and_gradient(anchor, gallery, config)
            slope = slope * len(anchor)
            slope -= (slope * anchor).sum(1, keepdim=True) * anchor  # along the sphere
            anchor = torch.nn.functional.normalize(anchor - config.rate * slope)
            energies.append(float(energy))
            step(1, f"energy {energies[-1]:.4f}")
    energies.append(float(energy_and_gradient(anchor, gallery, config)[0]))
    return Repelled(anchor_ND=anchor.cpu().numpy(), energy=tuple(energies))


def energy_and_gradient(anchor_ND: Tensor, gallery_GD: Tensor | None, config: Repulsion) -> tuple[Tensor, Tensor]:
    """Return E and ∂E/∂w, (N, D), as if the rows were free points (w is not renormalised inside E)."""
    tau, count = config.temperature, len(anchor_ND)
    # exp((s - 1)/τ) instead of exp(s/τ): never above 1, and E gets the 1 back.
    sum_N = anchor_ND.new_zeros(count)
    for rows, _, weight_BC in _weights(anchor_ND, tau):
        sum_N[rows] += weight_BC.sum(1)
    energy = (tau * sum_N.log() + 1.0).mean()
    slope_ND = torch.zeros_like(anchor_ND)
    share_N = 1.0 / sum_N
    for rows, columns, weight_BC in _weights(anchor_ND, tau):
        slope_ND[rows] += (weight_BC * (share_N[rows, None] + share_N[columns])) @ anchor_ND[columns]
    if gallery_GD is not None and config.alpha:
        cos_N, nearest_N = _nearest(anchor_ND, gallery_GD)
        energy = energy + config.alpha * (1.0 - cos_N).mean()
        slope_ND -= config.alpha * gallery_GD[nearest_N]
    return energy, slope_ND / count


def _weights(anchor_ND: Tensor, tau: float) -> Iterator[tuple[slice, slice, Tensor]]:
    """Yield (rows, columns, exp((cos - 1)/τ)) of every tile; 0 on the diagonal of the whole."""
    for rows, columns, cos_BC in _tiles(anchor_ND, anchor_ND):
        weight_BC = cos_BC.sub_(1.0).div_(tau).exp_()
        first, last = max(rows.start, columns.start), min(rows.stop, columns.stop)
        if first < last:
            own = torch.arange(first, last, device=weight_BC.device)
            weight_BC[own - rows.start, own - columns.start] = 0.0
        yield rows, columns, weight_BC


def _nearest(anchor_ND: Tensor, gallery_GD: Tensor) -> tuple[Tensor, Tensor]:
    """Return cosine and row of each anchor's nearest gallery row, (N,)."""
    best_N = anchor_ND.new_full((len(anchor_ND),), -torch.inf)
    nearest_N = torch.zeros(len(anchor_ND), dtype=torch.long, device=anchor_ND.device)
    for rows, columns, cos_BC in _tiles(anchor_ND, gallery_GD):
        cos_B, place_B = cos_BC.max(dim=1)
        better_B = cos_B > best_N[rows]
        best_N[rows] = torch.where(better_B, cos_B, best_N[rows])
        nearest_N[rows] = torch.where(better_B, place_B + columns.start, nearest_N[rows])
    return best_N, nearest_N


def _tiles(left_ND: Tensor, right_CD: Tensor) -> Iterator[tuple[slice, slice, Tensor]]:
    for row in range(0, len(left_ND), _ROWS):
        rows = slice(row, min(row + _ROWS, len(left_ND)))
        for column in range(0, len(right_CD), _COLUMNS):
            columns = slice(column, min(column + _COLUMNS, len(right_CD)))
            yield rows, columns, left_ND[rows] @ right_CD[columns].T
