"""Learning the albedo model from photographs taken under one light: unwrap, take the shared light away, fill what is not seen, principal components.

[C] The photographs' light is fitted once for all people (a studio's does not change), so that a person's tone is not taken for light. Axes: N people, A components, H W of the texture.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

from ..core.errors import UserError
from ..core.progress import track
from .albedo import AlbedoModel
from .fit import FitSettings, fit_landmarks
from .light import fit_light, sh_basis
from .morphable import PARTS, MorphableHead
from .skin_colour import ToneModel, balance, density, linear
from .unwrap import Texels, unwrap

_SEEN, _WELL_SEEN = 0.30, 0.65
"""Cosines towards the camera from which, and over which, a texel counts in part and in full."""
_CALM = 0.45
"""Density by which skin may differ from the person's own; more is hair, a shadow or the background."""
_BEHIND_MM, _UNDER_CHIN_MM = -62.0, 4.0
"""Ears, temples under hair and the neck, with collars, are plain skin."""
_LIGHT_ROUNDS = 4
_ONE_PERSON = 0.25
"""Largest share of a component's variance that one person may be: what one face alone shows is not learned."""
_SURFACE = ("skin", "lips", "brows")


@dataclass(frozen=True, kw_only=True, eq=False)
class _Unwrapped:
    """Pictures in the texture: colours in sRGB numbers, normals, cosines."""

    colour_NHW3: np.ndarray
    normal_NHW3: np.ndarray
    seen_NHW: np.ndarray


def fit_albedo(head: MorphableHead, images: Iterable[np.ndarray], landmark_N682: np.ndarray, *, licence: str, components: int = 24, size: int = 256) -> AlbedoModel:
    """Learn a model.

    Args:
        images: uint8 RGB (H, W, 3), one a person, frontal, neutral, all under one light; in the landmarks' order.
        landmark_N682: dlib's points in them, px.
        licence: of the photographs, to be stated with the model.
        components: fewer than people.

    Raises:
        UserError: too few people.
    """
    if len(landmark_N682) <= components:
        raise UserError(f"{len(landmark_N682)} faces for {components} components; give more photographs, or fewer components")
    texels = Texels.of(head, size)
    found = _unwrap_all(head, texels, images, landmark_N682)
    skin_HW, surface_HW = texels.part_HW == PARTS.index("skin"), np.isin(texels.part_HW, [PARTS.index(name) for name in _SURFACE])
    albedo_NHW3 = linear((found.colour_NHW3 / _shared_light(found, skin_HW)).clip(0.0, 1.0))
    face_HW = skin_HW & (np.median(found.seen_NHW, axis=0) > _WELL_SEEN)
    skin_N3 = np.stack([np.median(albedo[face_HW & (seen > _SEEN)], axis=0) for albedo, seen in zip(albedo_NHW3, found.seen_NHW)])
    detail_NHW3 = density(albedo_NHW3) - density(skin_N3)[:, None, None]
    place_HW3 = texels.carry(head, head.mean_V3)
    before_HW = surface_HW & (place_HW3[..., 2] > _BEHIND_MM) & (place_HW3[..., 1] < head.mean_V3[head.landmark_68[8], 1] + _UNDER_CHIN_MM)
    calm_NHW = ~skin_HW | (np.abs(detail_NHW3).max(3) < _CALM)
    share_NHW = ((found.seen_NHW - _SEEN) / (_WELL_SEEN - _SEEN)).clip(0.0, 1.0) * (before_HW & calm_NHW)
    detail_NHW3 = _completed(detail_NHW3, share_NHW) * surface_HW[..., None]
    skin_N3 = skin_N3 * balance(skin_N3)
    middle_HW3, basis_AHW3 = skin_components(detail_NHW3, components)
    return AlbedoModel(tone=ToneModel.of(skin_N3), detail_HW3=middle_HW3.astype(np.float32), basis_AHW3=basis_AHW3.astype(np.float32), licence=licence)


def skin_components(detail_NHW3: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (mean (H, W, 3), principal components (A, H, W, 3) as long as their standard deviations) of people's details and their mirror images.

    Mirrored, so that what is left of one-sided light cancels. A component of which one person is more than a quarter of the variance is left out: A may be
    fewer than asked for.
    """
    both_MHW3 = np.concatenate([detail_NHW3, detail_NHW3[:, :, ::-1]])
    middle_HW3 = both_MHW3.mean(0)
    flat_MD = (both_MHW3 - middle_HW3).reshape(len(both_MHW3), -1).astype(np.float64)
    # By the small Gram matrix: there are far fewer people than texels.
    length, axes = np.linalg.eigh(flat_MD @ flat_MD.T / (len(flat_MD) - 1))
    share_NA = (axes**2).reshape(2, len(detail_NHW3), -1).sum(0)
    kept = [a for a in np.argsort(length)[::-1] if share_NA[:, a].max() <= _ONE_PERSON and length[a] > length[-1] * 1e-6][:components]
    basis_AD = axes[:, kept].T @ flat_MD / np.sqrt(len(flat_MD) - 1)
    return middle_HW3, basis_AD.reshape(len(kept), *middle_HW3.shape)


def _unwrap_all(head: MorphableHead, texels: Texels, images: Iterable[np.ndarray], landmark_N682: np.ndarray) -> _Unwrapped:
    span_px = float(np.ptp(landmark_N682[:, :, 1], axis=1).mean())
    # dlib errs by about a hundredth of the face.
    fit = fit_landmarks(head, landmark_N682, FitSettings(noise_px=span_px / 100))
    vertices_NV3 = head.vertices(fit.identity_NK, fit.expression_NE)
    parts = []
    for row, image_HWC in enumerate(track(images, "unwrapping", total=len(landmark_N682))):
        smooth_HWC = gaussian_filter(image_HWC.astype(np.float32) / 255.0, (span_px / 400, span_px / 400, 0))
        parts.append(unwrap(head, texels, vertices_NV3[row], fit.camera(slice(row, row + 1)), fit.pose_N3[row], smooth_HWC))
    colour, normal, seen = (np.stack(column).astype(np.float32) for column in zip(*parts))
    return _Unwrapped(colour_NHW3=colour, normal_NHW3=normal, seen_NHW=seen)


def _shared_light(found: _Unwrapped, skin_HW: np.ndarray) -> np.ndarray:
    """Return how bright the shared light makes each texel of each picture, (N, H, W, 3); 1 on average over the seen skin."""
    # A light is nine numbers a channel: one texel of four says enough.
    thin_HW = np.zeros_like(skin_HW)
    thin_HW[::2, ::2] = skin_HW[::2, ::2]
    use_NHW = thin_HW & (found.seen_NHW > _SEEN) & (found.colour_NHW3.max(3) < 0.98) & (found.colour_NHW3.min(3) > 0.03)
    person_Q = np.nonzero(use_NHW)[0]
    colour_Q3, normal_Q3 = found.colour_NHW3[use_NHW].astype(np.float64), found.normal_NHW3[use_NHW].astype(np.float64)
    basis_Q9 = sh_basis(normal_Q3)
    shade_Q3, keep_Q = np.ones_like(colour_Q3), np.ones(len(colour_Q3), bool)
    for _ in range(_LIGHT_ROUNDS):
        tone_N3 = np.stack([np.median((colour_Q3 / shade_Q3)[person_Q == row], axis=0) for row in range(len(use_NHW))])
        light_93 = fit_light(normal_Q3[keep_Q], tone_N3[person_Q][keep_Q], colour_Q3[keep_Q], ridge=1e-3)
        shade_Q3 = (basis_Q9 @ light_93).clip(0.3)
        light_93 /= shade_Q3.mean(0)
        shade_Q3 = (basis_Q9 @ light_93).clip(0.3)
        # Brows, stubble and hair are no plain skin.
        keep_Q = np.abs(np.log(colour_Q3 / (shade_Q3 * tone_N3[person_Q]))).max(1) < 0.35
    return (sh_basis(found.normal_NHW3) @ light_93.astype(np.float32)).clip(0.3)


def _completed(detail_NHW3: np.ndarray, share_NHW: np.ndarray) -> np.ndarray:
    """Return the details with what is not seen from the other side of the face, else from the other people, else plain skin; shares make the borders soft."""
    mirrored_NHW = share_NHW[:, :, ::-1] * (1.0 - share_NHW) * (share_NHW.mean(0) > 0)
    total_NHW = share_NHW + mirrored_NHW
    own_NHW3 = detail_NHW3 * share_NHW[..., None] + detail_NHW3[:, :, ::-1] * mirrored_NHW[..., None]
    known_HW1 = total_NHW.mean(0)[..., None]
    # Where hardly anybody is seen, a few must not speak for all.
    trust_HW1 = gaussian_filter((known_HW1 / 0.4).clip(0.0, 1.0), (2.0, 2.0, 0.0))
    middle_HW3 = trust_HW1 * own_NHW3.mean(0) / known_HW1.clip(1e-3)
    return trust_HW1 * own_NHW3 + (1.0 - total_NHW[..., None] * trust_HW1) * middle_HW3
