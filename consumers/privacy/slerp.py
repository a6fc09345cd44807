"""Group-wise spherical interpolation with dropout: the mathematics of SlerpFace on rows of features.

Source: SlerpFace (AAAI 2025), as in its released enrolment code (consumers.md §5 [P code]); what is ours is marked [C].
Axes: N rows, G groups, C numbers of a group.
"""

from __future__ import annotations

import secrets

import numpy as np
from pydantic import Field, model_validator
from typing_extensions import Self

from ...core.check import check
from ...core.config import Config
from ...core.errors import UserError



class SlerpConfig(Config):
    """How templates are made; enrolment and matching need the same.

    Attributes:
        alpha: share of the way from the feature to the key, before the group's weight is subtracted (published .9).
        beta: share of a group's numbers that is dropped, raised for the less important half of the groups and lowered for the other (published .5).
        release_compatible: draw what is dropped with replacement, as the released code does: fewer are dropped than said (38.0 % in place of 49.5 %).
    """

    alpha: float = Field(0.9, gt=0, lt=1)
    beta: float = Field(0.5, ge=0, lt=1)
    release_compatible: bool = False

    @model_validator(mode="after")
    def _something_stays(self) -> Self:
        if self.release_compatible and self.beta >= 0.75:
            raise ValueError(f"beta {self.beta} with release_compatible: the released draws may then drop a whole group (0/0); choose beta below 0.75, or the fixed draws")
        return self

    def drops(self, width: int) -> tuple[int, int]:
        """Return how many of a group's `width` numbers are drawn to be dropped: in the less important groups, in the others.

        c·β ± gap with gap = int(8 β) for the published c = 16; int(c β / 2) in general [C]. Without replacement at least one number stays [C].
        """
        base, gap = width * self.beta, int(width * self.beta / 2)
        most = width if self.release_compatible else width - 1
        return min(int(base + gap), most), max(int(base - gap), 0)


def slerp(from_NGC: np.ndarray, to_NGC: np.ndarray, share_NG: np.ndarray) -> np.ndarray:
    """Return the point at `share` of the arc from one direction to another, unit (N, G, C) float64.

    Equal to [sin((1-a)θ) t + sin(aθ) k] / sin θ, written with the part of t that stands upright on k: finite also where t and k are parallel (the
    released code gives NaN there). From k straight to -k every arc is as short; a fixed one is taken [C].

    Raises:
        UserError: a direction of length 0 or not finite.
    """
    start_NGC, key_NGC = _unit("feature", from_NGC), _unit("key", to_NGC)
    along_NG = np.einsum("ngc,ngc->ng", start_NGC, key_NGC)
    upright_NGC = start_NGC - along_NG[..., None] * key_NGC
    length_NG = np.linalg.norm(upright_NGC, axis=2)
    angle_NG = np.arctan2(length_NG, along_NG)  # arccos loses half the digits near 0 and π
    side_NGC = np.where(length_NG[..., None] > 1e-12, upright_NGC, _any_upright(key_NGC))
    side_NGC = side_NGC / np.linalg.norm(side_NGC, axis=2, keepdims=True)
    left_NG = (1.0 - share_NG) * angle_NG
    return np.cos(left_NG)[..., None] * key_NGC + np.sin(left_NG)[..., None] * side_NGC


def unslerp(point_NGC: np.ndarray, to_NGC: np.ndarray, share_NG: np.ndarray) -> np.ndarray:
    """Invert `slerp` for one who has the key: exact without dropout (consumers.md §5, [D]); attack A7. Unit (N, G, C)."""
    # The point lies at (1-a)θ from the key; θ itself is that over (1-a): go the rest of the way, away from the key.
    point_NGC, key_NGC = _unit("template", point_NGC), _unit("key", to_NGC)
    return slerp(point_NGC, key_NGC, 1.0 - 1.0 / (1.0 - share_NG))


def draw_kept(weight_NG: np.ndarray, width: int, config: SlerpConfig) -> np.ndarray:
    """Draw which numbers of each group are kept, bool (N, G, C), from the operating system's secure generator.

    The less important half of the groups (by weight, rounded down; equal weights by chance [C]) loses more.
    """
    rows, groups = weight_NG.shape
    order_NG = np.lexsort((_random(rows, groups), weight_NG), axis=1)
    rank_NG = np.empty_like(order_NG)
    np.put_along_axis(rank_NG, order_NG, np.arange(groups)[None], axis=1)
    many, few = config.drops(width)
    count_NG1 = np.where(rank_NG < groups // 2, many, few)[..., None]
    if config.release_compatible:
        drawn_NGD = (_random(rows, groups, max(many, 1)) % np.uint64(width)).astype(np.int64)
        hit = (drawn_NGD[..., None] == np.arange(width)) & (np.arange(drawn_NGD.shape[2])[:, None] < count_NG1[..., None])
        return ~hit.any(axis=2)
    place_NGC = _random(rows, groups, width).argsort(axis=2).argsort(axis=2)
    return place_NGC >= count_NG1


def rotate(feature_NGC: np.ndarray, weight_NG: np.ndarray, key_NGC: np.ndarray, kept_NGC: np.ndarray, config: SlerpConfig) -> np.ndarray:
    """Return rotated groups, dropped numbers 0, each of unit length: a_g = α - w_g, float64 (N, G, C).

    Raises:
        UserError: weights that are not shares in [0, α), or that do not sum to 1.
    """
    if not (np.isfinite(weight_NG).all() and (weight_NG >= 0).all() and np.allclose(weight_NG.sum(1), 1.0, atol=1e-3)):
        raise UserError("group weights hold values that are negative, not finite, or do not sum to 1; expected the importance of each group as a share")
    if (weight_NG >= config.alpha).any():
        raise UserError(f"a group has weight {weight_NG.max():.3g}, alpha is {config.alpha}: it would be turned away from the key; use more groups, even weights, or a larger alpha")
    turned_NGC = np.where(kept_NGC, slerp(feature_NGC, key_NGC, config.alpha - weight_NG), 0.0)
    return turned_NGC / np.maximum(np.linalg.norm(turned_NGC, axis=2, keepdims=True), 1e-12)


def protect_rows(feature_NGC: np.ndarray, weight_NG: np.ndarray, key_NGC: np.ndarray, kept_NGC: np.ndarray, config: SlerpConfig) -> np.ndarray:
    """Return templates, float32 (N, G, C): rotated groups of length w_g, 0 where dropped."""
    check("feature_NGC", feature_NGC, "N G C")
    return (weight_NG[..., None] * rotate(feature_NGC, weight_NG, key_NGC, kept_NGC, config)).astype(np.float32)


def match_rows(template_NGC: np.ndarray, kept_NGC: np.ndarray, feature_NGC: np.ndarray, weight_NG: np.ndarray, key_NGC: np.ndarray, config: SlerpConfig) -> np.ndarray:
    """Score queries against templates row by row, (N,) in [-1, 1]: Σ_g w_g(stored) · cos_g; larger = same person.

    The query is turned towards the template's key with its own weights and loses what the template lost.
    """
    return np.einsum("ngc,ngc->n", template_NGC.astype(np.float64), rotate(feature_NGC, weight_NG, key_NGC, kept_NGC, config))


def plain_scores(first_NGC: np.ndarray, first_NG: np.ndarray, second_NGC: np.ndarray) -> np.ndarray:
    """Score without protection: Σ_g w_g · cos_g with the first row's weights, (N,): what grouping alone costs."""
    return np.einsum("ng,ngc,ngc->n", first_NG, _unit("feature", first_NGC), _unit("feature", second_NGC))


def _unit(what: str, x_NGC: np.ndarray) -> np.ndarray:
    x_NGC = np.asarray(x_NGC, np.float64)
    length_NG = np.linalg.norm(x_NGC, axis=2)
    bad_NG = ~((length_NG > 1e-12) & (length_NG < np.inf))
    if bad_NG.any():
        row, group = np.argwhere(bad_NG)[0]
        raise UserError(f"{what} row {row}, group {group} has length {length_NG[row, group]:.3g}; expected a finite direction: the face gave no feature there")
    return x_NGC / length_NG[..., None]


def _any_upright(key_NGC: np.ndarray) -> np.ndarray:
    """A direction at right angles to each key: the axis it points along least, made upright."""
    axis_NGC = np.zeros_like(key_NGC)
    np.put_along_axis(axis_NGC, np.abs(key_NGC).argmin(axis=2)[..., None], 1.0, axis=2)
    return axis_NGC - np.einsum("ngc,ngc->ng", axis_NGC, key_NGC)[..., None] * key_NGC


def _random(*shape: int) -> np.ndarray:
    return np.frombuffer(secrets.token_bytes(8 * int(np.prod(shape))), np.uint64).reshape(shape)
