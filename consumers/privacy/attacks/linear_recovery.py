"""Attack A1, the mandatory gate: what the server sees is mostly a linear code of the face, so solve the linear equations (consumers.md §0.2, §9).

Two forms. Where the transform is public (block-DCT channels): least squares by conjugate gradients, no training at all. Where it is not: the best linear
map from what is seen to the picture, fitted on faces of the attacker's own. A method that fails here needs no learned attack.
Axes: B faces, N faces of the attacker, S numbers seen, C H W.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ....core.check import check
from ....core.errors import UserError
from ..front_end import axis_matrices, from_ycc, to_ycc
from ..image_metrics import psnr, ssim

_RIDGE_PIXELS = 400
MOST_GAIN_DB, MOST_SSIM = 6.0, 0.6
"""The gate [C]: a recovery this much better than the mean face, or this like the original, shows the face to anybody."""


@dataclass(frozen=True, kw_only=True)
class LinearGate:
    """Outcome of A1.

    Attributes:
        psnr_db, ssim: of the recovered pictures, means over faces.
        guess_db: PSNR of the mean face, which needs nothing that was sent.
        passed: False = a linear solve gives the face away.
    """

    psnr_db: float
    ssim: float
    guess_db: float

    @property
    def passed(self) -> bool:
        """Whether the recovery stays below both bounds: less than MOST_GAIN_DB over the mean face, SSIM below MOST_SSIM."""
        return self.psnr_db - self.guess_db < MOST_GAIN_DB and self.ssim < MOST_SSIM


def linear_gate(found_BCHW: Tensor, true_BCHW: Tensor, mean_CHW: Tensor) -> LinearGate:
    """Judge recovered pictures, RGB in [0, 1], against the originals; `mean_CHW` is the attacker's mean face."""
    guess_BCHW = mean_CHW.clamp(0, 1).expand_as(true_BCHW)
    return LinearGate(psnr_db=_mean_db(found_BCHW, true_BCHW), ssim=float(ssim(found_BCHW, true_BCHW).mean()), guess_db=_mean_db(guess_BCHW, true_BCHW))


def least_squares(normal: Callable[[Tensor], Tensor], right: Tensor, start: Tensor, *, steps: int = 200, tolerance: float = 1e-12) -> Tensor:
    """Solve AᵀA x = Aᵀy by conjugate gradients, each item of the batch by itself; what A does not see keeps its value in `start`.

    Args:
        normal: x (B, …) → AᵀA x; right: Aᵀy; start: a first guess.
    """
    x, residual = start.clone(), right - normal(start)
    direction, size = residual.clone(), _dots(residual, residual)
    least = tolerance**2 * _dots(right, right).clamp_min(1e-300)
    for _ in range(steps):
        if bool((size <= least).all()):
            break
        along = normal(direction)
        step = torch.where(size > least, size / _dots(direction, along).clamp_min(1e-300), 0.0)
        x, residual = x + step * direction, residual - step * along
        new_size = _dots(residual, residual)
        direction, size = residual + torch.where(size > least, new_size / size.clamp_min(1e-300), 0.0) * direction, new_size
    return x


class DctSystem:
    """The linear map from a colour plane X (0 … 255, minus 128) to some block-DCT channels: channel 8u + v is R_u X R_vᵀ."""

    def __init__(self, code: Sequence[int], side: int) -> None:
        self.code, self._axis = tuple(code), torch.tensor(axis_matrices(side))
        gram = self._axis.transpose(1, 2) @ self._axis
        rows: dict[int, list[int]] = {}
        for channel in self.code:
            rows.setdefault(channel // 8, []).append(channel % 8)
        # Σ_k G_u X G_v = Σ_u G_u X (Σ_v G_v): eight products in place of up to 64.
        self._pairs = [(gram[u], gram[v].sum(0)) for u, v in rows.items()]

    def forward(self, plane: Tensor) -> Tensor:
        """(B, H, W) → (B, channels, H, W)."""
        return torch.stack([self._axis[k // 8] @ plane @ self._axis[k % 8].T for k in self.code], dim=1)

    def backward(self, channel: Tensor) -> Tensor:
        """The transpose: (B, channels, H, W) → (B, H, W)."""
        return sum(self._axis[k // 8].T @ channel[:, place] @ self._axis[k % 8] for place, k in enumerate(self.code))  # type: ignore[return-value]

    def normal(self, plane: Tensor) -> Tensor:
        """Transpose after map."""
        return sum(left @ plane @ right for left, right in self._pairs)  # type: ignore[return-value]


def recover_from_dct(coefficient_BCHW: Tensor, code: Sequence[int], mean_CHW: Tensor, *, steps: int = 200) -> tuple[Tensor, Tensor]:
    """Recover faces from the channels they were sent as, by least squares from the attacker's mean face.

    Args:
        coefficient_BCHW: (B, 3·len(code), side, side), colour-major.
        code: DCT channel 8u + v of each position, the same for all faces.
        mean_CHW: mean face, RGB in [0, 1], (3, side, side).

    Returns:
        RGB in [0, 1], float32 (B, 3, side, side); and the share of what was seen that the solution leaves unexplained, (B,): a wrong code leaves much.
    """
    sizes = check("coefficient_BCHW", coefficient_BCHW, f"B {3 * len(code)} H H")
    system = DctSystem(code, sizes["H"])
    seen = coefficient_BCHW.double().unflatten(1, (3, len(code))).flatten(0, 1)
    start = to_ycc(mean_CHW[None].double() * 2 - 1).expand(sizes["B"], -1, -1, -1).flatten(0, 1)
    plane = least_squares(system.normal, system.backward(seen), start, steps=steps)
    left, all_of_it = (system.forward(plane) - seen).unflatten(0, (-1, 3)), seen.unflatten(0, (-1, 3))
    residual_B = (left.square().flatten(1).sum(1) / all_of_it.square().flatten(1).sum(1).clamp_min(1e-300)).sqrt()
    return from_ycc(plane.unflatten(0, (-1, 3))).clamp(0, 1).float(), residual_B


def fitted_linear(seen_NS: Tensor, image_NCHW: Tensor, seen_BS: Tensor) -> Tensor:
    """Recover faces with the best linear map from what is seen to the picture, fitted on the attacker's faces (ridge regression in its dual form, its penalty
    chosen by leaving each face out in turn).

    Args:
        seen_NS: what the server would see of the attacker's faces, any shape behind N; image_NCHW: those faces, RGB in [0, 1]; seen_BS: the victims'.

    Returns:
        RGB in [0, 1], float32 (B, C, H, W).
    """
    known, new = seen_NS.flatten(1).double(), seen_BS.flatten(1).double()
    if len(known) != len(image_NCHW) or known.shape[1] != new.shape[1]:
        raise UserError(f"{len(known)} observations of {known.shape[1]} numbers for {len(image_NCHW)} faces, and new ones of {new.shape[1]}; expected one each, of one length")
    middle, mean = known.mean(0), image_NCHW.double().mean(0)
    known, new = known - middle, new - middle
    value, vector = torch.linalg.eigh(known @ known.T)
    wanted = (image_NCHW.double() - mean).flatten(1)
    ridge = _best_ridge(value, vector, wanted[:, :: max(1, wanted.shape[1] // _RIDGE_PIXELS)])
    weight_BN = (new @ known.T) @ (vector / (value.clamp_min(0) + ridge)) @ vector.T
    return (mean + (weight_BN @ wanted).unflatten(1, mean.shape)).clamp(0, 1).float()


def _best_ridge(value: Tensor, vector: Tensor, wanted_NP: Tensor) -> float:
    """The penalty with the least error of faces left out: y - Hy over 1 - h_ii, the fitted mean counted in h."""
    value = value.clamp_min(0)
    turned, scale = vector.T @ wanted_NP, float(value.mean()) + 1e-12
    errors = {}
    for ridge in (scale * 10.0**power for power in range(-6, 5)):
        hat = vector * (value / (value + ridge))
        leverage_N1 = (hat * vector).sum(1, keepdim=True) + 1.0 / len(vector)
        errors[ridge] = float(((wanted_NP - hat @ turned) / (1.0 - leverage_N1).clamp_min(1e-12)).square().mean())
    return min(errors, key=errors.__getitem__)


def _mean_db(found_BCHW: Tensor, true_BCHW: Tensor) -> float:
    return float(psnr(found_BCHW, true_BCHW).clamp(max=200.0).mean())


def _dots(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).flatten(1).sum(1).reshape(-1, *[1] * (a.ndim - 1))
