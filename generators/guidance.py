"""Guidance for every generator: its weight over time, the reference it points away from, the rescaled result.

Axes: B rows, D identity embedding or context, C H W latent.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .sampling import SamplerConfig
from .schedule import STEPS
from .solvers import Point


def guidance_weight(t: int, config: SamplerConfig) -> float:
    """Return w at step t of 0..999: constant, w (1 - t/T) rising while the noise falls (AdaptDiff), or w t/T falling."""
    share = {"constant": 1.0, "rising": 1 - t / STEPS, "falling": t / STEPS}[config.guidance_over_time]
    return config.guidance * share


def guided(latent_BCHW: Tensor, identity_BCHW: Tensor, reference_BCHW: Tensor, point: Point, config: SamplerConfig) -> Tensor:
    """Classifier-free guidance (1 + w) ε_c - w ε_r, its clean estimate rescaled towards the spread of the identity pass's.

    Args:
        latent_BCHW: float32 latent at `point`.
        identity_BCHW, reference_BCHW: noise predicted with the identity's and with the reference context, float32.

    Returns:
        The noise to hand to the solver, float32.
    """
    weight = guidance_weight(point.t, config)
    noise_BCHW = (1 + weight) * identity_BCHW - weight * reference_BCHW
    return rescaled(latent_BCHW, noise_BCHW, identity_BCHW, point.alpha, config.rescale)


def rescaled(latent_BCHW: Tensor, noise_BCHW: Tensor, identity_BCHW: Tensor, alpha: float, share: float) -> Tensor:
    """Return guided noise whose clean estimate is brought back, by `share`, to the spread of the identity pass's; 0 leaves it as it is."""
    if share == 0:
        return noise_BCHW
    signal, spread = alpha**0.5, (1 - alpha) ** 0.5
    clean_BCHW, plain_BCHW = (latent_BCHW - spread * noise_BCHW) / signal, (latent_BCHW - spread * identity_BCHW) / signal
    ratio_B = plain_BCHW.std((1, 2, 3), keepdim=True) / clean_BCHW.std((1, 2, 3), keepdim=True)
    return (latent_BCHW - signal * clean_BCHW * (share * ratio_B + 1 - share)) / spread


def negative_anchors(anchor_BD: np.ndarray) -> np.ndarray:
    """Return for each image the identity to point away from: the opposite direction, as likely a person where embeddings are centred; (B, D).

    NegFaceDiff takes another identity of the batch; here an image must not depend on its batch mates [C]. A direction drawn across the
    anchor from the image's seed was tried: it pulls every image of a person elsewhere (share 0.5: mean mated cosine 0.456, cosine to the
    anchor 0.264; opposite: 0.540 and 0.278; without: 0.488 and 0.277; 72 images of the bundled network).
    """
    return -np.asarray(anchor_BD)


def reference_context(empty_BD: Tensor, negative_BD: Tensor | None, share: float) -> Tensor:
    """Context of the reference pass: the empty one, moved by `share` towards the negative identity's.

    The contexts are mixed, not the predicted noise [C]: that costs no third pass.
    """
    return empty_BD if negative_BD is None or share == 0 else torch.lerp(empty_BD, negative_BD, share)
