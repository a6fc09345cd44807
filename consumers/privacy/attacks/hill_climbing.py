"""Attack: climb the scores of a verifier. It begins with a gallery of faces, learns from the scores where the target lies, draws faces there, asks again.

The attacker sees scores only (no key, no template), may ask as often as `ClimbSettings` says, and needs a generator: every query is a face.
Axes: T targets, Q queries so far, K faces of a round, D anchor.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from pydantic import Field

from ....core.check import check
from ....core.config import Config
from ....core.errors import UserError
from ....core.progress import track
from ....core.seeds import derive_seed, numpy_rng
from ....core.types import Generator
from .template_inversion import draw_faces

Oracle = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""(faces uint8 (N, 112, 112, 3), target of each (N,)) → the verifier's scores (N,); larger = same person."""


class ClimbSettings(Config):
    """How long an attacker asks.

    Attributes:
        rounds, each: faces drawn: `each` a round and target.
        spread: length of the random step about the estimate in the first round (an anchor has length 1); it falls to a third of that.
        ridge: of the fit of scores on anchors, relative.
    """

    rounds: int = Field(4, ge=0)
    each: int = Field(8, ge=1)
    spread: float = Field(0.6, gt=0)
    ridge: float = Field(0.3, gt=0)
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class Climb:
    """What the attacker ends with.

    Attributes:
        image_THWC: the face with the highest score for each target, uint8.
        anchor_TD: its anchor, unit.
        score_RT: best score after the gallery and after each round.
        queries: asked for each target.
    """

    image_THWC: np.ndarray
    anchor_TD: np.ndarray
    score_RT: np.ndarray
    queries: int


def climb(oracle: Oracle, targets: int, gallery_image: np.ndarray, gallery_anchor: np.ndarray, generator: Generator, settings: ClimbSettings) -> Climb:
    """Attack `targets` templates at once, each by itself.

    Args:
        gallery_image, gallery_anchor: faces to begin with, uint8 (M, 112, 112, 3), and where they lie in the generator's space, unit (M, D).

    Raises:
        UserError: fewer than two faces to begin with, or scores that are not finite.
    """
    sizes = check("gallery_anchor", gallery_anchor, f"M {generator.anchor_dim}")
    check("gallery_image", gallery_image, f"{sizes['M']} 112 112 3")
    if sizes["M"] < 2:
        raise UserError(f"a gallery of {sizes['M']} faces says nothing about where a target lies; expected 2 or more")
    score_TQ = np.stack([_ask(oracle, gallery_image, np.full(sizes["M"], target)) for target in track(range(targets), "asking with the gallery")])
    anchor_TQD = np.broadcast_to(gallery_anchor, (targets, *gallery_anchor.shape)).astype(np.float64)
    first_T = score_TQ.argmax(1)
    best_image, best_TD, best_T = gallery_image[first_T].copy(), gallery_anchor[first_T].astype(np.float64), score_TQ.max(1)
    history, rng = [best_T.copy()], numpy_rng(settings.seed, "climb")
    for number in range(settings.rounds):
        centre_TD = _unit(_estimate(anchor_TQD, score_TQ, settings.ridge) + best_TD)
        length = settings.spread * (1 - 2 / 3 * number / max(1, settings.rounds - 1))
        step_TKD = rng.standard_normal((targets, settings.each, best_TD.shape[1])) * (length / np.sqrt(best_TD.shape[1]))
        step_TKD[:, 0] = 0.0  # the estimate itself is always asked
        new_TKD = _unit(centre_TD[:, None] + step_TKD)
        image = draw_faces(new_TKD.reshape(-1, new_TKD.shape[2]), generator, seed=derive_seed(settings.seed, "climb", number))
        score_TK = _ask(oracle, image, np.repeat(np.arange(targets), settings.each)).reshape(targets, -1)
        anchor_TQD, score_TQ = np.concatenate((anchor_TQD, new_TKD), 1), np.concatenate((score_TQ, score_TK), 1)
        top_T = score_TK.argmax(1)
        better = np.flatnonzero(score_TK.max(1) > best_T)
        best_image[better] = image.reshape(targets, settings.each, *image.shape[1:])[better, top_T[better]]
        best_TD[better], best_T = new_TKD[better, top_T[better]], np.maximum(best_T, score_TK.max(1))
        history.append(best_T.copy())
    return Climb(image_THWC=best_image, anchor_TD=best_TD.astype(np.float32), score_RT=np.stack(history), queries=score_TQ.shape[1])


def _ask(oracle: Oracle, image_NHWC: np.ndarray, target_N: np.ndarray) -> np.ndarray:
    score_N = np.asarray(oracle(image_NHWC, target_N), np.float64)
    check("the oracle's scores", score_N, str(len(image_NHWC)))
    if not np.isfinite(score_N).all():
        raise UserError("the verifier gave scores that are not finite; it must refuse such faces")
    return score_N


def _estimate(anchor_TQD: np.ndarray, score_TQ: np.ndarray, ridge: float) -> np.ndarray:
    """Direction in which the scores rise: ridge regression of standardised scores on anchors, unit (T, D)."""
    score_TQ = (score_TQ - score_TQ.mean(1, keepdims=True)) / np.maximum(score_TQ.std(1, keepdims=True), 1e-12)
    centred_TQD = anchor_TQD - anchor_TQD.mean(1, keepdims=True)
    gram_TDD = np.einsum("tqd,tqe->tde", centred_TQD, centred_TQD, optimize=True)
    size_T = np.trace(gram_TDD, axis1=1, axis2=2) / gram_TDD.shape[1]
    gram_TDD += (ridge * size_T)[:, None, None] * np.eye(gram_TDD.shape[1])
    return _unit(np.linalg.solve(gram_TDD, np.einsum("tqd,tq->td", centred_TQD, score_TQ)[..., None])[..., 0])


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)
